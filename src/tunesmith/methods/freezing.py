"""Methods that move some of the model's own weights and leave its shape alone: full, head, last layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.contract import decay_groups
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.methods import Full, Head, LastLayers


class _OwnWeights:
    """What the three share: nothing is added to the model, so merging is nothing and saving is transformers' own."""

    def groups(self, loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        return decay_groups(loaded, learning_rate, weight_decay)

    def on_step(self, loaded: Loaded, step: int) -> None:
        return None

    def merge(self, loaded: Loaded) -> nn.Module:
        return loaded.model

    def save(self, loaded: Loaded, folder: Path) -> None:
        loaded.model.save_pretrained(folder)  # type: ignore[operator]

    def base_to_open(self, folder: Path, base: str) -> str:
        """What to load so that `open` can do the rest: the tuned weights themselves."""
        return str(folder)

    def open(self, loaded: Loaded, folder: Path) -> Loaded:
        return loaded


@dataclass
class FullTuning(_OwnWeights):
    """Every weight moves."""

    settings: Full

    def apply(self, loaded: Loaded) -> Loaded:
        loaded.model.requires_grad_(True)
        return loaded


@dataclass
class HeadTuning(_OwnWeights):
    """The head and the pooler move: hidden x hidden + hidden (pooler) + hidden x classes + classes numbers."""

    settings: Head

    def apply(self, loaded: Loaded) -> Loaded:
        _refuse_shared(loaded)
        _train_only(loaded, loaded.head_names)
        return loaded


@dataclass
class LastLayersTuning(_OwnWeights):
    """The head and the `layers` blocks nearest to it move."""

    settings: LastLayers

    def apply(self, loaded: Loaded) -> Loaded:
        names = [name for name, _ in layers.blocks(loaded.model)]
        wanted = self.settings.layers
        if wanted > len(names):
            raise ModelError(f"method.layers: {wanted} asked for, the model has {len(names)}", remedy="use fewer")
        _train_only(loaded, (*names[-wanted:], *loaded.head_names))
        return loaded


def _refuse_shared(loaded: Loaded) -> None:
    """A head whose weights are all the body's too (an output layer tied to the word embedding) cannot move alone. Where
    a head has some of its own, those move, and what is shared stays with the body."""
    named = list(loaded.model.named_parameters(remove_duplicate=False))
    body = {id(parameter) for name, parameter in named if not layers.under(name, loaded.head_names)}
    if all(id(parameter) in body for name, parameter in named if layers.under(name, loaded.head_names)):
        message = "method: head: the output layer shares its weights with the word embedding, so it cannot move alone"
        raise ModelError(message, loaded.base.reference, "use lora or last-layers")


def _train_only(loaded: Loaded, prefixes: tuple[str, ...]) -> None:
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_(layers.under(name, prefixes))
