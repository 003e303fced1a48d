"""What a method is: which weights exist and move, and how fast. No method knows the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tunesmith.models.loaded import Loaded


class Method(Protocol):
    """The contract. `on_step` must be a pure function of the step, so that a resumed run is exact."""

    def apply(self, loaded: Loaded) -> Loaded: ...

    def groups(self, loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]: ...

    def on_step(self, loaded: Loaded, step: int) -> None: ...

    def merge(self, loaded: Loaded) -> nn.Module: ...

    def save(self, loaded: Loaded, folder: Path) -> None: ...

    def base_to_open(self, folder: Path, base: str) -> str: ...

    def open(self, loaded: Loaded, folder: Path) -> Loaded: ...


def decay_groups(loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimizer groups: weight matrices that decay, and biases, norms and other vectors that do not.

    Groups hold names beside parameters, so that a checkpoint can tell which moment belongs to which weight.
    """
    decayed: list[tuple[str, nn.Parameter]] = []
    kept: list[tuple[str, nn.Parameter]] = []
    for name, parameter in loaded.model.named_parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 else kept).append((name, parameter))
    rows = ((decayed, weight_decay), (kept, 0.0))
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "weight_decay": decay,
            "lr": learning_rate,
            "peak": learning_rate,
        }
        for members, decay in rows
        if members
    ]
