"""What methods share whose weights PEFT keeps beside those of the base: its layers, its file format.

A new head is trained behind PEFT's own wrapper, so that it steps aside with the adapter and the base is exactly the
base; one that the base brought along stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.contract import UsualMethod
from tunesmith.models import layers, safety
from tunesmith.models.body_adapters import BodyWithParts, open_adapter, save_adapter
from tunesmith.models.heads import without_adapter
from tunesmith.models.loaded import Loaded


class AdapterTuning(UsualMethod):
    """Adds, saves and opens an adapter; `config` says which."""

    opens_to_train = True
    """Whether PEFT opens it with weights that can move."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def config(self, loaded: Loaded) -> Any:
        """PEFT's config of the adapter, without the head that is trained beside it.

        Raises:
            ModelError: the model has no place for such an adapter.
        """
        raise NotImplementedError

    def apply(self, loaded: Loaded) -> Loaded:
        from peft import get_peft_model

        config = self.config(loaded)
        config.modules_to_save = list(loaded.outer_heads) or None if loaded.head_is_new else None
        config.revision = loaded.base.revision
        loaded.model = get_peft_model(loaded.model, config, autocast_adapter_dtype=False)
        return loaded

    def merge(self, loaded: Loaded) -> nn.Module:
        """The base with the updates worked into its weights: a plain transformers model again."""
        return without_adapter(loaded.model)

    def save(self, loaded: Loaded, folder: Path) -> None:
        """Adapter weights and config in PEFT's format, naming the folder or hub id that the base was read from; of a
        model class of ours in the names of its body, so that these open on the body alone."""
        config: Any = loaded.model.peft_config["default"]  # type: ignore[index]
        base = loaded.base
        plain_folder = base.revision is None and not base.adapters
        config.base_model_name_or_path = str(base.folder) if plain_folder else base.reference.partition("@")[0]
        for name in ("target_modules", "feedforward_modules", "modules_to_save"):
            if getattr(config, name, None):
                setattr(config, name, sorted(set(getattr(config, name))))  # a set has another order in every process
        if isinstance(loaded.model.get_base_model(), BodyWithParts):  # type: ignore[operator]
            save_adapter(loaded.model, folder)
        else:
            loaded.model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]

    def base_to_open(self, folder: Path, base: str) -> str:
        """What to load so that `open` can do the rest: the base that the adapter was made for."""
        return base

    def open(self, loaded: Loaded, folder: Path) -> Loaded:
        from peft import PeftModel

        safety.check_adapter(folder)
        with safety.opening(folder):
            if isinstance(loaded.model, BodyWithParts):
                loaded.model = open_adapter(loaded.model, folder, loaded.outer_heads)
            else:
                loaded.model = PeftModel.from_pretrained(
                    loaded.model, str(folder), is_trainable=self.opens_to_train, autocast_adapter_dtype=False
                )
        return loaded


def linear_layers(loaded: Loaded) -> list[str]:
    """Full names of the linear layers of the body. A convolution of one place is linear, the same at every place.

    Raises:
        ModelError: there are none.
    """
    heads = loaded.outer_heads
    linear = [
        name
        for name, module in loaded.model.named_modules()
        if layers.is_linear(module) and not layers.under(name, heads)
    ]
    if not linear:
        raise ModelError("method: this model has no linear layers", loaded.base.reference, "use another method")
    return linear


def called(asked: Sequence[str], linear: Sequence[str], setting: str) -> list[str]:
    """Those of the linear layers whose names end in one of the names that were asked for.

    Raises:
        ModelError: one of the names matches nothing; the message lists what there is.
    """
    unknown = [end for end in asked if not any(_ends_with(name, end) for name in linear)]
    if unknown or not asked:
        raise ModelError(
            f"method.{setting}: no linear layer is called {' or '.join(unknown) or '(nothing)'}",
            remedy=f"there are: {', '.join(endings(linear))}",
        )
    return [name for name in linear if any(_ends_with(name, end) for end in asked)]


def endings(names: Sequence[str]) -> list[str]:
    """The last parts of names, each once."""
    return sorted({name.rpartition(".")[2] for name in names})


def lies_the_other_way(loaded: Loaded, name: str) -> bool:
    """Whether a layer's weight is (in, out), as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(loaded.model.get_submodule(name), Conv1D)


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
