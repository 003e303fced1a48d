"""What a task is: five verbs and a few facts. No task knows which method trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from tunesmith.data.rows import Row
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base

Example = dict[str, list[int] | int | float]
"""A row as numbers: `input_ids` and what goes with them, and the target. Unpadded."""

Batch = dict[str, torch.Tensor]


def length_of(example: Example) -> int:
    """Real tokens of a row."""
    tokens = example["input_ids"]
    assert isinstance(tokens, list)
    return len(tokens)


@dataclass(frozen=True)
class Loss:
    """A loss before any division: the step divides `total` and every metric by the sum of `count` over micro-batches
    and ranks."""

    total: torch.Tensor
    count: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """An answer for one row. `gold` is None where the row has none; `score` is the probability of the answer."""

    row: int
    gold: str | None
    answer: str
    score: float


@dataclass(frozen=True)
class Measure:
    """A metric as a function of sums over rows, so that a bootstrap needs no second look at the rows.

    Attributes:
        statistics: (rows, k) numbers for each row.
        value: from (..., k) sums, or weighted sums, of rows to (...) values.
        unit: what a reader should take the number for ("share", "nats").
    """

    statistics: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    unit: str = "share"

    def __call__(self) -> float:
        return float(self.value(self.statistics.sum(axis=0)))


class Task(Protocol):
    """The contract.

    `labels` is set from the training rows before `load`. `units` numbers what a cut of a batch must not split (pairs,
    groups); None where each row stands alone.
    """

    labels: tuple[str, ...]

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded: ...

    def encode(self, rows: Sequence[Row], processor: Any, max_length: int) -> list[Example]: ...

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch: ...

    def units(self, examples: Sequence[Example]) -> Sequence[int] | None: ...

    def prepare(self, loaded: Loaded, batch: Batch) -> Batch: ...

    def loss(self, loaded: Loaded, batch: Batch) -> Loss: ...

    def predict(self, loaded: Loaded, batch: Batch) -> list[tuple[str, float]]: ...

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]: ...

    def primary(self, rows: Sequence[Row]) -> str: ...
