"""How much each weight matters to a task that was learned: the diagonal of the Fisher information, estimated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tunesmith.devices import Devices, machine_errors_named
from tunesmith.errors import DataError, ModelError
from tunesmith.models.loaded import Loaded
from tunesmith.tasks.contract import Draw, Example

Importance = dict[str, torch.Tensor]
"""A number for each number of each weight, by the weight's name."""


def importance_of(loaded: Loaded, task: Any, examples: Sequence[Example], devices: Devices, rows: int) -> Importance:
    """The mean over rows of the squared gradient of that row's loss, for every weight that asks for a gradient.

    This is the empirical Fisher information (its labels are those of the rows, not drawn from the model; on the
    difference see Kunstner et al. 2019, arXiv:1905.12558), as implementations of Kirkpatrick et al. 2017
    (arXiv:1612.00796) have it. A row's loss is its total by its count: the mean over its words where it has many. Rows
    go through the model one by one, since the squared mean of a batch's gradient is another, far smaller number; so
    200 rows cost 200 forward and backward passes, each of which also goes once through all weights that move (200
    short texts on all of MiniLM: 16 s of one core), and memory for one more copy of these. Evaluation mode, and the
    numbers that weights are kept in; what depends on a look at a row (masks) is that of the first look. Neither
    gradients nor generators nor modes are changed.

    Args:
        examples: the task's encoded rows, of which `rows` are taken, spread evenly from the first to the last, so that
            a file that is sorted by its labels gives all of them.

    Raises:
        ModelError: no row of this task has a loss of its own.
        DataError: no row that was taken has anything to learn.
    """
    taken = [task.drawn(examples[row], Draw(seed=0, epoch=0, row=row)) for row in spread(len(examples), rows)]
    _require_rows_alone(task, taken)
    moving = {name: weight for name, weight in loaded.model.named_parameters() if weight.requires_grad}
    sums = [torch.zeros_like(weight) for weight in moving.values()]
    counted = 0
    with machine_errors_named(), _undisturbed(loaded):
        for example in taken:
            batch = task.collate([example], loaded.processor)
            batch = {name: tensor.to(devices.device) for name, tensor in batch.items()}
            loss = task.loss(loaded, task.prepare(loaded, batch))
            if not loss.count:
                continue
            gradients = torch.autograd.grad(loss.total / loss.count, list(moving.values()), allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total.addcmul_(gradient, gradient)
            counted += 1
    if not counted:
        raise DataError("no row of an earlier task has anything to learn, so no weight can be said to matter to it")
    return {name: total.div_(counted) for name, total in zip(moving, sums, strict=True)}


def summed(tasks: Sequence[Mapping[str, torch.Tensor]]) -> Importance:
    """What matters to several tasks: the sum; a weight that a task does not have counts nothing there."""
    total: Importance = {}
    for importance in tasks:
        for name, part in importance.items():
            total[name] = total[name] + part if name in total else part.clone()
    return total


def spread(number: int, most: int) -> list[int]:
    """Up to `most` of so many places, evenly from the first to the last, each once."""
    taken = min(number, most)
    return [0] if taken == 1 else [round(place * (number - 1) / (taken - 1)) for place in range(taken)]


def _require_rows_alone(task: Any, taken: Sequence[Example]) -> None:
    """Refuse a task in which rows are learned from one another: of a row alone its loss says nothing."""
    units = task.units(taken) if len(taken) > 2 else None  # two images that are mixed are one unit, too
    if units is not None and len(set(units)) == 1:
        message = "rows of an earlier task are learned from each other (in-batch negatives), so none has a loss alone"
        raise ModelError(message, remedy="leave elastic weights out")


@contextlib.contextmanager
def _undisturbed(loaded: Loaded) -> Iterator[None]:
    """The plain model in evaluation mode; as it was, behind."""
    modes = {module: module.training for module in loaded.model.modules()}
    entry, loaded.entry = loaded.entry, None
    loaded.model.eval()
    try:
        yield
    finally:
        loaded.entry = entry
        for module, mode in modes.items():
            module.training = mode
