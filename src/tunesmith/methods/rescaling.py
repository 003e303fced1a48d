"""(IA)3: one learned factor for each number of keys, values and the inside of feed-forward layers, by PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.adapters import AdapterTuning, called, endings, lies_the_other_way, linear_layers
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.methods import Ia3

KEYS_AND_VALUES = (
    "key", "value", "k", "v", "k_proj", "v_proj", "k_lin", "v_lin", "key_proj", "value_proj",
    "c_attn", "query_key_value", "in_proj", "Wqkv",
)  # fmt: skip
"""What models call the layers that make keys and values; the last four make queries, too, which are then scaled with
the keys that they meet (PEFT does the same)."""


class Ia3Tuning(AdapterTuning):
    """W x scaled by l at keys and values (out numbers a layer), W (l x) at feed-forward layers (in numbers); l = 1 at
    the start.

    Source: Liu et al. 2022, arXiv:2205.05638.
    """

    settings: Ia3

    def config(self, loaded: Loaded) -> Any:
        from peft import IA3Config

        linear = linear_layers(loaded)
        outputs, inputs = self.settings.target_modules, self.settings.feedforward_modules
        scaled = _keys_and_values(linear) if outputs == "auto" else _named(outputs, linear, "target_modules")
        forward = _second_layers(loaded, linear) if inputs == "auto" else _named(inputs, linear, "feedforward_modules")
        if not scaled or (inputs == "auto" and not forward):
            what = "keys and values" if not scaled else "a feed-forward layer"
            message = f"method: ia3: no {what} are known in this model"
            remedy = f"name layers as target_modules and feedforward_modules; there are: {', '.join(endings(linear))}"
            raise ModelError(message, loaded.base.reference, remedy)
        if both := sorted({*scaled} & {*forward}):
            message = f"method.feedforward_modules: {both[0]} is scaled at its outputs already"
            raise ModelError(message, remedy="name each layer once: here, or as target_modules")
        return IA3Config(
            target_modules=[*scaled, *forward],
            feedforward_modules=forward,
            fan_in_fan_out=lies_the_other_way(loaded, scaled[0]),
        )

    def decays(self, loaded: Loaded, name: str) -> bool:
        """A factor pulled towards 0 would be pulled away from the base; PEFT keeps it in a column."""
        return ".ia3_l." not in name


def _named(asked: Sequence[str], linear: Sequence[str], setting: str) -> list[str]:
    return called(asked, linear, setting) if asked else []


def _keys_and_values(linear: Sequence[str]) -> list[str]:
    return [name for name in linear if name.rpartition(".")[2] in KEYS_AND_VALUES]


def _second_layers(loaded: Loaded, linear: Sequence[str]) -> list[str]:
    """Of every feed-forward part the layer that leads back: it makes fewer numbers than it gets, and lies outside of
    attention."""
    outside = [name for name in linear if "attn" not in name.lower() and "attention" not in name.lower()]
    return [name for name in outside if _narrows(loaded.model.get_submodule(name))]


def _narrows(module: nn.Module) -> bool:
    weight: Any = module.weight
    first, second = weight.shape[:2]
    return bool(first < second) == isinstance(module, nn.Linear | nn.Conv2d) and first != second
