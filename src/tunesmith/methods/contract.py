"""What a method is: which weights exist and move, and how fast. No method knows the task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tunesmith.models import layers
from tunesmith.models.loaded import Loaded


@dataclass(frozen=True)
class Span:
    """Where a phase of training leads, as far as a method may know: everything at a step is a function of these."""

    steps: int
    steps_per_epoch: int
    seed: int


@dataclass(frozen=True)
class Remark:
    """What a method has to tell before training; it forbids nothing. `count` is how many things are concerned."""

    code: str
    message: str
    remedy: str = ""
    source: str = ""
    count: int = 0


class Method(Protocol):
    """The contract. What happens at a step must be a pure function of the step, so that a resumed run is exact."""

    def apply(self, loaded: Loaded) -> Loaded: ...

    def remarks(self, loaded: Loaded, span: Span) -> Sequence[Remark]: ...

    def begin(self, loaded: Loaded, span: Span) -> None: ...

    def groups(self, loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]: ...

    def at_step(self, loaded: Loaded, step: int) -> contextlib.AbstractContextManager[None]: ...

    pulls: bool

    def pull(self, loaded: Loaded) -> float: ...

    def merge(self, loaded: Loaded) -> nn.Module: ...

    def save(self, loaded: Loaded, folder: Path) -> None: ...

    def base_to_open(self, folder: Path, base: str) -> str: ...

    def open(self, loaded: Loaded, folder: Path) -> Loaded: ...


class UsualMethod:
    """What most methods do alike. `apply` leaves `requires_grad` on whatever may move at any step."""

    settings: Any
    span: Span

    pulls = False
    """Whether `pull` adds anything to the gradients."""

    some_wait = False
    """Whether there are steps in which some of the moving weights get no gradient."""

    def remarks(self, loaded: Loaded, span: Span) -> Sequence[Remark]:
        """What there is to tell of a training of this length."""
        return ()

    def begin(self, loaded: Loaded, span: Span) -> None:
        """A phase begins, at its first step or, resumed, at a later one: before a checkpoint's weights are loaded."""
        self.span = span

    def groups(self, loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups: weight matrices that decay, biases, norms and other vectors that do not, by their rate.

        Groups hold names beside parameters, so that a checkpoint can tell which moment belongs to which weight.
        """
        depths = layers.depths(loaded.model, loaded.head_names) if self._layer_decay else {}
        members: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in loaded.model.named_parameters():
            if parameter.requires_grad:
                decay = weight_decay if parameter.ndim >= 2 and self.decays(loaded, name) else 0.0
                rate = self._layer_decay ** depths[name] if depths else 1.0
                members.setdefault((rate * self.rate_factor(name), decay), []).append((name, parameter))
        return [
            {
                "params": [parameter for _, parameter in members[key]],
                "names": [name for name, _ in members[key]],
                "weight_decay": decay,
                "lr": learning_rate * rate,
                "peak": learning_rate * rate,
            }
            for key in sorted(members, reverse=True)
            for rate, decay in [key]
        ]

    @property
    def _layer_decay(self) -> float:
        """What a layer's rate is multiplied by for each layer that it lies deeper; 0 if all have one rate."""
        asked: float | None = getattr(self.settings, "layer_decay", None)
        return 0.0 if asked is None else min(asked, 1 / asked)

    def decays(self, loaded: Loaded, name: str) -> bool:
        """Whether this weight matrix is decayed."""
        return True

    def rate_factor(self, name: str) -> float:
        """This weight's rate as a multiple of the others'."""
        return 1.0

    @contextlib.contextmanager
    def at_step(self, loaded: Loaded, step: int) -> Iterator[None]:
        """Around the passes of a step (1-based), before its gradients are used."""
        yield

    def pull(self, loaded: Loaded) -> float:
        """Add to the gradients what is not the task's own; the value of that part of the loss."""
        return 0.0
