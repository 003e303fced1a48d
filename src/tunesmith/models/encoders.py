"""Encoders of whole texts: a body, its tokens pooled, a projection behind it. Letters: V texts, T tokens, D numbers.

The files are those of sentence-transformers (modules.json, 1_Pooling, 2_Dense), so that what is saved opens there, and
what was made there opens here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.folder import read_json, write_json
from tunesmith.models import safety
from tunesmith.models.body_adapters import BodyWithParts
from tunesmith.models.heads import load_tokenizer, merged, quiet_library, require_body
from tunesmith.models.layers import head_names
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base

Pooling = Literal["mean", "cls", "max", "last"]
MODULES, POOLING_FOLDER, DENSE_FOLDER = "modules.json", "1_Pooling", "2_Dense"
_POOLING_KEYS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
                 "pooling_mode_lasttoken": "last"}  # fmt: skip
_LONG_NAMES = {"lasttoken": "last"}
_IDENTITY = "torch.nn.modules.linear.Identity"
_PROJECTION = "projection."


class SentenceEncoder(BodyWithParts):
    """One vector for each text. A new projection is the identity, so that it changes nothing until it moves."""

    def __init__(self, body: nn.Module, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.body = body
        self.projection = nn.Linear(width, width)
        self.pooling = pooling
        self.config: Any = body.config
        self.name_or_path = getattr(body, "name_or_path", "")  # PEFT reads it
        with torch.no_grad():
            self.projection.weight.copy_(torch.eye(width))
            self.projection.bias.zero_()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(V, D) vectors of any length from (V, T) tokens, padded on the right."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        vectors_VD: torch.Tensor = self.projection(
            _pooled(self.body(**inputs).last_hidden_state, attention_mask, self.pooling)
        )
        return vectors_VD

    def save_pretrained(self, folder: Path) -> None:
        """Write the body as transformers does, and what stands behind it as sentence-transformers does."""
        self.body.save_pretrained(folder)  # type: ignore[operator]
        tensors = self.projection.state_dict()
        self.save_parts(folder, {f"{_PROJECTION}{name}": tensor for name, tensor in tensors.items()})

    def save_parts(self, folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """Pooling, projection and normalising, each in the place where sentence-transformers looks for it."""
        from safetensors.torch import save_file

        weights = {f"linear.{name.removeprefix(_PROJECTION)}": tensors[name].contiguous() for name in tensors}
        outputs, inputs = weights["linear.weight"].shape
        for place, config in (
            (POOLING_FOLDER, {"word_embedding_dimension": inputs, **_pooling_config(self.pooling)}),
            (DENSE_FOLDER, {"in_features": inputs, "out_features": outputs, "bias": True,
                            "activation_function": _IDENTITY}),
        ):  # fmt: skip
            (folder / place).mkdir()
            write_json(folder / place / "config.json", config)
        save_file(weights, folder / DENSE_FOLDER / "model.safetensors")
        write_json(folder / MODULES, _modules())

    def read_parts(self, folder: Path) -> dict[str, torch.Tensor]:
        """The projection of a folder that `save_parts` has written to."""
        width = self.config.hidden_size
        return {f"{_PROJECTION}{name}": tensor for name, tensor in _read_dense(folder / DENSE_FOLDER, width).items()}


def _modules() -> list[dict[str, Any]]:
    kinds = (("Transformer", ""), ("Pooling", POOLING_FOLDER), ("Dense", DENSE_FOLDER), ("Normalize", "3_Normalize"))
    return [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]


def _pooling_config(pooling: str) -> dict[str, bool]:
    return {key: kind == pooling for key, kind in _POOLING_KEYS.items()}


def _pooled(hidden_VTD: torch.Tensor, mask_VT: torch.Tensor, pooling: str) -> torch.Tensor:
    """(V, D): the mean over real tokens, the first, the largest in each place, or the last real one."""
    if pooling == "cls":
        return hidden_VTD[:, 0]
    if pooling == "last":
        return hidden_VTD[torch.arange(len(hidden_VTD)), mask_VT.sum(dim=1) - 1]
    mask_VT1 = mask_VT[:, :, None].bool()
    if pooling == "max":
        return hidden_VTD.masked_fill(~mask_VT1, -math.inf).amax(dim=1)
    return (hidden_VTD * mask_VT1).sum(dim=1) / mask_VT1.sum(dim=1)


def load_encoder(base: Base, pooling: Pooling | None, seed: int, dtype: torch.dtype) -> Loaded:
    """A base as an encoder of texts, pooled as it says itself unless `pooling` does. Adapters on its body are merged.

    Raises:
        ModelError: the base has parts that we do not know, or an adapter that is not one of the body alone.
    """
    quiet_library()
    folder = next((one for one in reversed(base.adapters) if (one / MODULES).is_file()), base.folder)
    modules = _read_modules(folder)
    chosen = pooling or _read_pooling(folder, modules) or "mean"
    dense = folder / DENSE_FOLDER if DENSE_FOLDER in modules else None

    def make() -> nn.Module:
        return _open(base, chosen, dense, seed, dtype)

    model = make()
    processor = load_tokenizer(base.folder)
    processor.padding_side = "right"
    return Loaded(model, processor, head_names(model), ("similarity",), base, reload=make)


def _open(base: Base, pooling: Pooling, dense: Path | None, seed: int, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModel

    config = safety.read_config(base.folder)
    with torch.random.fork_rng(devices=[]), safety.opening(base.folder):
        torch.manual_seed(seed)
        bare, info = AutoModel.from_pretrained(
            base.folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    require_body(bare, info, base.folder, but=("pooler",))
    body: Any = merged(bare, base)
    if getattr(body, "pooler", None) is not None:
        body.pooler = None  # it has no part in these vectors: it would count as moving, and never move
    width = int(config.hidden_size)
    model = SentenceEncoder(body, pooling, width).to(dtype)
    if dense is not None:
        model.projection.load_state_dict(_read_dense(dense, width))
    return model


def _read_modules(folder: Path) -> dict[str, str]:
    """The kind of each module behind the body, by its folder; none where there is no modules.json.

    Raises:
        ModelError: a module that is none of pooling, one dense layer without activation, and normalising.
    """
    file = folder / MODULES
    if not file.is_file():
        return {}
    with safety.opening(folder):
        modules = {str(module["path"]): str(module["type"]).rpartition(".")[2] for module in read_json(file)}
    places = {"Transformer": "", "Pooling": POOLING_FOLDER, "Dense": DENSE_FOLDER}
    for path, kind in modules.items():
        if kind != "Normalize" and places.get(kind) != path:
            known = "a transformer, 1_Pooling, 2_Dense without activation, and normalising"
            raise ModelError(f"a module of a kind or place that is not known: {kind} in {path!r}", str(file), known)
    return modules


def _read_pooling(folder: Path, modules: Mapping[str, str]) -> Pooling | None:
    """How the base pools; None if it does not say.

    Raises:
        ModelError: by several ways at once, or one that we do not have.
    """
    if POOLING_FOLDER not in modules:
        return None
    file = folder / POOLING_FOLDER / "config.json"
    with safety.opening(folder):
        config = read_json(file)
        said = config.get("pooling_mode")
        names = [said] if isinstance(said, str) else said
        if names is None:
            names = [_POOLING_KEYS.get(key, key) for key, on in config.items() if key.startswith("pooling_mode") and on]
        names = [_LONG_NAMES.get(name, name) for name in names]
    if len(names) != 1 or names[0] not in get_args(Pooling):
        message = f"pools by {', '.join(map(str, names)) or 'nothing'}"
        raise ModelError(message, str(file), f"write task.pooling: one of {', '.join(get_args(Pooling))}")
    return cast(Pooling, names[0])


def _read_dense(folder: Path, width: int) -> dict[str, torch.Tensor]:
    """Weight and bias of a saved dense layer from `width` numbers to as many; without a bias, zeros.

    Raises:
        ModelError: one of another shape, or with an activation.
    """
    from safetensors.torch import load_file

    with safety.opening(folder):
        config = read_json(folder / "config.json")
        weights = load_file(folder / "model.safetensors")
        weight = weights["linear.weight"]
        bias = weights.get("linear.bias", torch.zeros(len(weight), dtype=weight.dtype))
        shapes = tuple(weight.shape), tuple(bias.shape)
    if config.get("activation_function") != _IDENTITY or shapes != ((width, width), (width,)):
        message = f"a dense layer of shape {shapes[0]} with {config.get('activation_function')}"
        raise ModelError(message, str(folder), f"only {(width, width)} without activation is known")
    return {"weight": weight, "bias": bias}
