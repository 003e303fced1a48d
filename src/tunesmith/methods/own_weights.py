"""Methods that move some of the model's own weights and leave its shape alone: full, head, last layers, gradual
unfreezing, biases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.contract import Remark, Span, UsualMethod
from tunesmith.methods.head_first import only
from tunesmith.methods.regularisers import Mixout, Named, StartingPoint
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.methods import BitFit, Full, GradualUnfreezing, Head, LastLayers


class _OwnWeights(UsualMethod):
    """What they share: nothing is added to the model, so merging is nothing and saving is transformers' own."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._mixout: Mixout | None = None
        self._start: StartingPoint | None = None

    @property
    def pulls(self) -> bool:  # type: ignore[override]
        return self._start is not None

    def begin(self, loaded: Loaded, span: Span) -> None:
        super().begin(loaded, span)
        mixout, l2_sp = (getattr(self.settings, name, None) for name in ("mixout", "l2_sp"))
        self._mixout = Mixout(mixout, span.seed, _copies(_linear_weights(loaded))) if mixout else None
        self._start = StartingPoint(l2_sp, _copies(_pre_trained(loaded))) if l2_sp else None

    def decays(self, loaded: Loaded, name: str) -> bool:
        """What is pulled towards where it began is not pulled towards zero, too."""
        is_pulled = getattr(self.settings, "l2_sp", None) and not loaded.is_new(name)
        return not is_pulled

    @contextlib.contextmanager
    def at_step(self, loaded: Loaded, step: int) -> Iterator[None]:
        if self._mixout is None:
            yield
            return
        with self._mixout.at_step(_linear_weights(loaded), step):
            yield

    def pull(self, loaded: Loaded) -> float:
        return self._start.pull(_pre_trained(loaded)) if self._start else 0.0

    def merge(self, loaded: Loaded) -> nn.Module:
        return loaded.model

    def save(self, loaded: Loaded, folder: Path) -> None:
        loaded.model.save_pretrained(folder)  # type: ignore[operator]

    def base_to_open(self, folder: Path, base: str) -> str:
        """What to load so that `open` can do the rest: the tuned weights themselves."""
        return str(folder)

    def open(self, loaded: Loaded, folder: Path) -> Loaded:
        return loaded


class FullTuning(_OwnWeights):
    """Every weight moves."""

    settings: Full

    def apply(self, loaded: Loaded) -> Loaded:
        loaded.model.requires_grad_(True)
        return loaded


class HeadTuning(_OwnWeights):
    """The head and the pooler move: hidden x hidden + hidden (pooler) + hidden x classes + classes numbers."""

    settings: Head

    def apply(self, loaded: Loaded) -> Loaded:
        _refuse_shared(loaded)
        _train_only(loaded, loaded.head_names)
        return loaded


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


@dataclass(frozen=True)
class Joining:
    """When layers join: one more after so many steps. Depth 0 is the head, which moves from the first step."""

    steps_each: float

    @classmethod
    def of(cls, settings: GradualUnfreezing, span: Span, deepest: int) -> Joining:
        """By the span and, where all are to join by a share of it, the number of layers."""
        if settings.until is not None:
            return cls(settings.until * span.steps / deepest)
        return cls(settings.every * span.steps_per_epoch)

    def depth_at(self, step: int) -> int:
        """The greatest depth that moves at `step` (1-based)."""
        return int((step - 1) / self.steps_each + 1e-9)


class GradualTuning(_OwnWeights):
    """All weights move in the end; at first the head alone, then one layer more from the head down at a time.

    Weights that have not joined get no gradient, so the optimizer leaves them and their moments alone: a layer's
    moments begin when it joins.
    """

    settings: GradualUnfreezing
    some_wait = True

    def apply(self, loaded: Loaded) -> Loaded:
        _refuse_shared(loaded)
        loaded.model.requires_grad_(True)
        return loaded

    def remarks(self, loaded: Loaded, span: Span) -> Sequence[Remark]:
        """Whether layers are left that never join."""
        deepest = max(layers.depths(loaded.model, loaded.head_names).values())
        joined = Joining.of(self.settings, span, deepest).depth_at(span.steps)
        if joined >= deepest:
            return ()
        message = f"{joined} of {deepest} layers (the embeddings count as one) join the head before training ends"
        remedy = "method.until: 0.5 lets all join in the first half; or more epochs, or a smaller method.every"
        return [Remark("layers-never-join", message, remedy, self.settings.facts.source, deepest - joined)]

    def begin(self, loaded: Loaded, span: Span) -> None:
        super().begin(loaded, span)
        self._depths = layers.depths(loaded.model, loaded.head_names)
        self._joining = Joining.of(self.settings, span, max(self._depths.values()))
        self._moves = -1

    @contextlib.contextmanager
    def at_step(self, loaded: Loaded, step: int) -> Iterator[None]:
        """Only what has joined asks for a gradient, and only that is in training mode."""
        depth = self._joining.depth_at(step)
        with only(loaded, lambda name: self._depths[name] <= depth), super().at_step(loaded, step):
            if depth != self._moves:
                layers.set_training_mode(loaded.model)
                self._moves = depth
            yield


class BiasTuning(_OwnWeights):
    """Biases of the body (norms' among them) and the head move."""

    settings: BitFit

    def apply(self, loaded: Loaded) -> Loaded:
        biases = [name for name, _ in loaded.model.named_parameters() if name.rpartition(".")[2] in BIASES]
        body = [name for name in biases if not layers.under(name, loaded.head_names)]
        if not body:
            remedy = "use lora, or last-layers"
            raise ModelError("method: bitfit: the body of this model has no biases", loaded.base.reference, remedy)
        heads = loaded.outer_heads if loaded.head_is_new else ()
        _train_only(loaded, (*heads, *biases))
        return loaded


BIASES = ("bias", "q_bias", "v_bias")
"""What models call them (DeBERTa keeps two of its own)."""


def _refuse_shared(loaded: Loaded) -> None:
    """A head whose weights are all the body's too (an output layer tied to the word embedding) cannot move alone. Where
    a head has some of its own, those move, and what is shared stays with the body."""
    named = list(loaded.model.named_parameters(remove_duplicate=False))
    body = {id(parameter) for name, parameter in named if not layers.under(name, loaded.head_names)}
    if all(id(parameter) in body for name, parameter in named if layers.under(name, loaded.head_names)):
        message = "the output layer shares its weights with the word embedding, so it cannot move alone"
        raise ModelError(f"method: {message}", loaded.base.reference, "use lora or last-layers")


def _train_only(loaded: Loaded, prefixes: tuple[str, ...]) -> None:
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_(layers.under(name, prefixes))


def _copies(named: Named) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in named}


def _moving(loaded: Loaded) -> Named:
    return [(name, parameter) for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]


def _linear_weights(loaded: Loaded) -> Named:
    """Weights of linear layers that move and came with the base: a new head has no weights worth going back to."""
    linear = {f"{name}.weight" for name, module in loaded.model.named_modules() if layers.is_linear(module)}
    return [(name, parameter) for name, parameter in _pre_trained(loaded) if name in linear]


def _pre_trained(loaded: Loaded) -> Named:
    """Moving weights that came with the base."""
    return [(name, parameter) for name, parameter in _moving(loaded) if not loaded.is_new(name)]
