"""Exact speed-ups: each replaces a part of a plain model by something that computes the same faster.

A rewrite states its class of exactness, what stands in its way, how it is applied and how it is undone. Before the
first step it is compared with the plain path on real rows; above the tolerance it is left out, and said so. What ran
stands in the manifest, and a resumed run takes the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tunesmith.devices import Devices
from tunesmith.errors import RecipeError
from tunesmith.models.loaded import Loaded
from tunesmith.rewrites.flat_batch import FlatBatch
from tunesmith.tasks.contract import Example, length_of

REWRITES: dict[str, Any] = {FlatBatch.name: FlatBatch}

TOLERANCES = {torch.float64: 1e-9, torch.float32: 5e-5}
"""The largest difference to the plain path, as a share of its gradient's norm (and of its loss), by stored dtype."""

CHECKED_ROWS = 8


@dataclass(frozen=True)
class Trial:
    """How a rewrite did against the plain path. `difference` is a share, see TOLERANCES."""

    name: str
    exactness: str
    used: bool
    difference: float
    tolerance: float

    def record(self) -> dict[str, Any]:
        return asdict(self)


def fitting(loaded: Loaded, device: torch.device, virtual_tokens: int = 0) -> tuple[list[str], str]:
    """What `auto` comes to: the names of the rewrites that fit, and the reason.

    Args:
        virtual_tokens: how many a method that is not yet applied will add to each row.
    """
    if device.type != "cpu":
        return [], f"measured on CPUs only, this is a {device.type}"
    obstacles = {name: rewrite.obstacle(loaded, virtual_tokens) for name, rewrite in REWRITES.items()}
    fit = [name for name, obstacle in obstacles.items() if not obstacle]
    return fit, "; ".join(f"{name} fits" if name in fit else f"{name}: {why}" for name, why in obstacles.items())


def require_fitting(names: Sequence[str], loaded: Loaded, virtual_tokens: int = 0) -> None:
    """Refuse what a recipe asks for by name and the model cannot have.

    Raises:
        RecipeError: with what stands in the way.
    """
    for name in names if names != "off" else ():
        if obstacle := REWRITES[name].obstacle(loaded, virtual_tokens):
            raise RecipeError(f"train.rewrites: {name} does not fit: {obstacle}", remedy="use auto or off")


def try_out(
    names: Sequence[str], loaded: Loaded, task: Any, examples: Sequence[Example], devices: Devices
) -> list[Trial]:
    """Compare each rewrite with the plain path: loss and gradients of a few rows of unequal length, without dropout."""
    if not names:
        return []
    longest_first = sorted(examples[: 4 * CHECKED_ROWS], key=length_of, reverse=True)
    rows = longest_first[:: max(1, len(longest_first) // CHECKED_ROWS)]
    batch = {name: tensor.to(devices.device) for name, tensor in task.collate(rows, loaded.processor).items()}
    plain = _loss_and_gradients(loaded, task, batch)
    trials = []
    for name in names:
        with rewritten((loaded, *task.others), [name]):
            other = _loss_and_gradients(loaded, task, batch)
        difference, tolerance = _distance(plain, other), TOLERANCES[devices.stored]
        trials.append(Trial(name, REWRITES[name].exactness, difference <= tolerance, difference, tolerance))
    return trials


@contextlib.contextmanager
def rewritten(models: Sequence[Loaded], names: Sequence[str]) -> Iterator[None]:
    """All these models with these rewrites, for the length of the block."""
    with contextlib.ExitStack() as stack:
        for loaded in models:
            for name in names:
                rewrite = REWRITES[name]()
                rewrite.apply(loaded)
                stack.callback(rewrite.undo, loaded)
        yield


def _loss_and_gradients(loaded: Loaded, task: Any, batch: Any) -> list[torch.Tensor]:
    """The loss, then every gradient; nothing of them stays in the model."""
    was_training = loaded.model.training
    loaded.model.eval()
    moving = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    try:
        loss = task.loss(loaded, task.prepare(loaded, batch)).total
        gradients = torch.autograd.grad(loss, moving, allow_unused=True)
    finally:
        loaded.model.train(was_training)
    return [loss.detach(), *(gradient for gradient in gradients if gradient is not None)]


def _distance(plain: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The larger of two shares: the loss's difference, and the norm of the gradients' difference."""
    if len(plain) != len(other):
        return float("inf")
    loss = float((plain[0] - other[0]).abs() / plain[0].abs().clamp_min(1e-30))
    whole = torch.nn.utils.get_total_norm(plain[1:]).clamp_min(1e-30)
    gradients = torch.nn.utils.get_total_norm([a - b for a, b in zip(plain[1:], other[1:], strict=True)]) / whole
    return max(loss, float(gradients))
