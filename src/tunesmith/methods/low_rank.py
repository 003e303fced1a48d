"""LoRA, by PEFT: its layers, its file format. A new head is trained behind PEFT's own wrapper, so that it steps aside
with the adapters and the base is exactly the base; one that the base brought along stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.contract import UsualMethod
from tunesmith.models import layers, safety
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.methods import Lora


class LoraTuning(UsualMethod):
    """W + (alpha / r) B A with B (out x r) zero and A (r x in) random at the start: r (in + out) numbers a layer.

    Source: Hu et al. 2021, arXiv:2106.09685.
    """

    settings: Lora

    def __init__(self, settings: Lora) -> None:
        self.settings = settings

    def apply(self, loaded: Loaded) -> Loaded:
        from peft import LoraConfig, get_peft_model
        from transformers.pytorch_utils import Conv1D

        alpha = 2 * self.settings.rank if self.settings.alpha == "auto" else self.settings.alpha
        heads = loaded.outer_heads
        targets = self._targets(loaded, heads)
        config = LoraConfig(
            r=self.settings.rank,
            lora_alpha=alpha,
            lora_dropout=self.settings.dropout,
            target_modules=targets,
            fan_in_fan_out=isinstance(loaded.model.get_submodule(targets[0]), Conv1D),
            modules_to_save=list(heads) or None if loaded.head_is_new else None,
            revision=loaded.base.revision,
            bias="none",
        )
        loaded.model = get_peft_model(loaded.model, config, autocast_adapter_dtype=False)
        return loaded

    def _targets(self, loaded: Loaded, heads: tuple[str, ...]) -> list[str]:
        """Full names of the linear layers of the body that the settings ask for. A convolution of one place is linear,
        the same at every place.

        Raises:
            ModelError: one of the names matches nothing; the message lists what there is.
        """
        linear = [
            name
            for name, module in loaded.model.named_modules()
            if layers.is_linear(module) and not layers.under(name, heads)
        ]
        asked = self.settings.target_modules
        if not linear:
            raise ModelError(
                "method: lora: this model has no linear layers", loaded.base.reference, "use another method"
            )
        if isinstance(asked, str):
            return linear
        unknown = [end for end in asked if not any(_ends_with(name, end) for name in linear)]
        if unknown or not asked:
            endings = sorted({name.rpartition(".")[2] for name in linear})
            raise ModelError(
                f"method.target_modules: no linear layer is called {' or '.join(unknown) or '(nothing)'}",
                remedy=f"there are: {', '.join(endings)}",
            )
        return [name for name in linear if any(_ends_with(name, end) for end in asked)]

    def merge(self, loaded: Loaded) -> nn.Module:
        """The base with the updates added into its weights: a plain transformers model again."""
        return loaded.model.merge_and_unload()  # type: ignore[operator]

    def save(self, loaded: Loaded, folder: Path) -> None:
        """Adapter weights and config in PEFT's format, naming the folder or hub id that the base was read from."""
        config: Any = loaded.model.peft_config["default"]  # type: ignore[index]
        base = loaded.base
        plain_folder = base.revision is None and not base.adapters
        config.base_model_name_or_path = str(base.folder) if plain_folder else base.reference.partition("@")[0]
        config.target_modules = sorted(config.target_modules)  # a set has another order in every process
        loaded.model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]

    def base_to_open(self, folder: Path, base: str) -> str:
        """What to load so that `open` can do the rest: the base that the adapter was made for."""
        return base

    def open(self, loaded: Loaded, folder: Path) -> Loaded:
        from peft import PeftModel

        safety.check_adapter(folder)
        with safety.opening(folder):
            loaded.model = PeftModel.from_pretrained(
                loaded.model, str(folder), is_trainable=True, autocast_adapter_dtype=False
            )
        return loaded


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
