"""Several tasks as one: each row is encoded, learned and answered by its own task, through one body.

A task's loss counts as many things as it likes (rows, words, windows). So that a row weighs alike whatever its task,
each task's totals and counts are divided by how much a row of it counts on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunesmith.models.loaded import Loaded
from tunesmith.tasks.contract import Batch, Draw, Example, Loss

MEMBER = "member"


@dataclass(frozen=True)
class Part:
    """A task among several, its model (a view into the joint one), and what a row of it counts on average."""

    task: Any
    loaded: Loaded
    per_row: float


class _Through(torch.nn.Module):
    """The way to one task's model that leads through the joint one, and through whatever wraps that."""

    def __init__(self, entry: torch.nn.Module, member: str) -> None:
        super().__init__()
        self._way = [entry]  # in a list, so that it is no part of this module
        self._member = member

    def forward(self, **inputs: torch.Tensor) -> Any:
        return self._way[0](member=self._member, **inputs)


class MultiTask:
    """The part of the task contract that training needs; what is answered is answered by each task for itself.

    Examples carry the number of their task; a piece of a batch holds rows of one task alone.
    """

    some_wait = True

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.parts = dict(parts)
        self._names = list(self.parts)

    @property
    def others(self) -> tuple[Loaded, ...]:
        return ()

    def marked(self, name: str, examples: Sequence[Example]) -> list[Example]:
        """Examples of one task, marked as its own."""
        number = self._names.index(name)
        return [{**example, MEMBER: number} for example in examples]

    def apart(self, examples: Sequence[Example]) -> Sequence[int]:
        """Which rows no piece may hold together: those of different tasks."""
        return [_number(example) for example in examples]

    def units(self, examples: Sequence[Example]) -> Sequence[int] | None:
        """Units of each task by itself: (task, unit) as one number."""
        found: dict[tuple[int, int], int] = {}
        units = [0] * len(examples)
        for number, name in enumerate(self._names):
            mine = [index for index, example in enumerate(examples) if _number(example) == number]
            own = self.parts[name].task.units([_bare(examples[index]) for index in mine])
            for place, index in enumerate(mine):
                key = (number, index if own is None else own[place])
                units[index] = found.setdefault(key, len(found))
        return units

    def drawn(self, example: Example, draw: Draw) -> Example:
        number = _number(example)
        return {**self._part(number).task.drawn(_bare(example), draw), MEMBER: number}

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        number = _number(examples[0])
        part = self._part(number)
        batch: Batch = part.task.collate([_bare(example) for example in examples], part.loaded.processor)
        return {**batch, MEMBER: torch.tensor(number)}

    def prepare(self, loaded: Loaded, batch: Batch) -> Batch:
        number = int(batch[MEMBER])
        part, bare = self._part(number), {name: tensor for name, tensor in batch.items() if name != MEMBER}
        return {**part.task.prepare(self._view(loaded, number), bare), MEMBER: batch[MEMBER]}

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        number = int(batch[MEMBER])
        part, bare = self._part(number), {name: tensor for name, tensor in batch.items() if name != MEMBER}
        loss = part.task.loss(self._view(loaded, number), bare)
        return Loss(loss.total / part.per_row, loss.count / part.per_row)

    def _part(self, number: int) -> Part:
        return self.parts[self._names[number]]

    def _view(self, loaded: Loaded, number: int) -> Loaded:
        entry = _Through(loaded.entry or loaded.model, self._names[number])
        return replace(self._part(number).loaded, entry=entry, piece_tokens=loaded.piece_tokens)


def _number(example: Example) -> int:
    return int(example[MEMBER])  # type: ignore[arg-type]


def _bare(example: Example) -> Example:
    return {name: value for name, value in example.items() if name != MEMBER}


COUNTED_ROWS = 64
"""How many rows tell what a row counts on average."""


def count_per_row(task: Any, loaded: Loaded, examples: Sequence[Example]) -> float:
    """What a row adds to the loss's count on average, by the first rows: 1 where rows are counted, more where words
    are. It does not depend on the weights."""
    first = [task.drawn(example, Draw(0, 0, row)) for row, example in enumerate(examples[:COUNTED_ROWS])]
    was_training = loaded.model.training
    loaded.model.eval()
    with torch.no_grad():
        count = 0.0
        for example in first:
            batch = task.collate([example], loaded.processor)
            batch = {name: tensor.to(loaded.device) for name, tensor in batch.items()}
            count += task.loss(loaded, task.prepare(loaded, batch)).count
    loaded.model.train(was_training)
    return max(count, 1e-9) / max(1, len(first))
