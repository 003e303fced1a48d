"""The order of rows of several tasks. As that of one task it is a pure function of (seed, epoch, position)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class MixedOrder:
    """Which rows make up which optimizer step, where each task has a quota of every epoch.

    Rows are counted through all tasks, the first task's first. A task whose quota is smaller than its rows goes on in
    the next epoch where it stopped; one whose quota is larger begins anew, in another order. Where every quota is the
    number of rows, an epoch is each row once.

    Attributes:
        sizes: rows of each task; quotas: how many of them an epoch takes.
    """

    sizes: tuple[int, ...]
    quotas: tuple[int, ...]
    batch_size: int
    seed: int

    @property
    def rows_per_epoch(self) -> int:
        return sum(self.quotas)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows_per_epoch / self.batch_size)

    def epoch_of(self, step: int) -> float:
        """Passes done when `step` (1-based) is done."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole + min(rest * self.batch_size / self.rows_per_epoch, 1.0)

    def rows_of(self, step: int) -> list[int]:
        """Indices of the rows of `step` (1-based). The last batch of an epoch may be smaller."""
        epoch, batch = divmod(step - 1, self.steps_per_epoch)
        first = batch * self.batch_size
        return _rows_of_epoch(self, epoch)[first : first + self.batch_size].tolist()


@lru_cache(maxsize=2)
def _rows_of_epoch(order: MixedOrder, epoch: int) -> np.ndarray:
    taken, offset = [], 0
    for task, (size, quota) in enumerate(zip(order.sizes, order.quotas, strict=True)):
        taken.append(offset + _stretch(size, epoch * quota, quota, order.seed, task))
        offset += size
    rows = np.concatenate(taken)
    return rows[np.random.Generator(np.random.Philox(key=[order.seed, epoch])).permutation(len(rows))]


def _stretch(size: int, start: int, many: int, seed: int, task: int) -> np.ndarray:
    """`many` rows from place `start` of an endless row of permutations of one task's rows."""
    if many == 0:
        return np.empty(0, dtype=np.int64)
    rounds = range(start // size, (start + many - 1) // size + 1)
    mixed = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, task, number]))).permutation(size)
        for number in rounds
    ]
    first = start - rounds[0] * size
    return np.concatenate(mixed)[first : first + many]


def quotas_by_temperature(sizes: Sequence[int], temperature: float) -> tuple[int, ...]:
    """As many rows as there are, shared out in proportion to each size to the power of 1 / temperature: 1 is by size,
    and the higher, the more even. Source: Devlin et al. 2019 (the multilingual models' smoothing); Raffel et al. 2020,
    arXiv:1910.10683, section 3.5.2."""
    return quotas_by_weight(sizes, [size ** (1 / temperature) for size in sizes])


def quotas_by_weight(sizes: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """As many rows as there are, shared out by weight; every task gets one row at least."""
    total, whole = sum(sizes), math.fsum(weights)
    exact = [total * weight / whole for weight in weights]
    quotas = [max(1, math.floor(share)) for share in exact]
    behind = sorted(range(len(exact)), key=lambda index: (quotas[index] - exact[index], index))
    for index in behind[: max(0, total - sum(quotas))]:  # what rounding down has left over
        quotas[index] += 1
    return tuple(quotas)


def quotas_beside(rows: int, others: Sequence[int], share: float) -> tuple[int, ...]:
    """All rows of the first task, and of the others together so many that they are `share` of an epoch; among them by
    their sizes, one row each at least where there is a share at all."""
    if share == 0:
        return (rows, *(0 for _ in others))
    wanted, whole = round(rows * share / (1 - share)), sum(others)
    ends = [round(wanted * sum(others[: index + 1]) / whole) for index in range(len(others))]
    return (rows, *(max(1, end - start) for start, end in zip([0, *ends], ends, strict=False)))
