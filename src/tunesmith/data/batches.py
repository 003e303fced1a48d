"""The order of rows, and how a batch is cut to fit the machine.

Order is a pure function of (seed, epoch, position): nothing about it is saved, and a resumed run goes on with the
very rows that the straight run would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

PIECE_OVERHEAD_TOKENS = 48
"""What one more micro-batch costs, in padded tokens of work: calls and small matrices. Measured on two CPUs; it
decides only how finely a batch is cut, never its result."""

WINDOW_ROWS = 256


@dataclass(frozen=True)
class Order:
    """Which rows make up which optimizer step."""

    num_rows: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    def epoch_of(self, step: int) -> float:
        """Passes done when `step` (1-based) is done."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole + min(rest * self.batch_size / self.num_rows, 1.0)

    def rows_of(self, step: int) -> list[int]:
        """Indices of the rows of `step` (1-based). The last batch of an epoch may be smaller."""
        epoch, batch = divmod(step - 1, self.steps_per_epoch)
        first = batch * self.batch_size
        return _permutation(self.num_rows, self.seed, epoch)[first : first + self.batch_size].tolist()


@lru_cache(maxsize=2)
def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_rows)


def cut(
    lengths: Sequence[int],
    budget: int,
    units: Sequence[int] | None = None,
    pads: bool = True,
    apart: Sequence[int] | None = None,
) -> list[list[int]]:
    """Cut a batch into micro-batches that waste little on padding.

    Rows are sorted by length; the cuts minimise tokens plus a fixed cost for each piece, with no piece over `budget`
    tokens (a row that is longer alone goes alone). Exact, by dynamic programming over the cuts.

    Args:
        lengths: tokens of each row.
        budget: the most tokens in one piece.
        units: for each row, the unit that a cut must not split (pair, group); None: each row is its own.
        pads: whether padding costs as much as tokens: a piece then counts rows x longest.
        apart: for each row, of which kind it is, where no piece may hold rows of two kinds.

    Returns:
        Pieces of positions into `lengths`, longest piece first (so that a shortage of memory shows at once).
    """
    if apart is not None:
        return _cut_by_kind(lengths, budget, units, pads, apart)
    blocks = _blocks(lengths, units)
    longest = [max(lengths[i] for i in block) for block in blocks]
    counts = np.cumsum([0] + [len(block) for block in blocks])
    tokens = np.cumsum([0] + [sum(lengths[i] for i in block) for block in blocks])
    best = [0.0] + [math.inf] * len(blocks)
    came = [0] * (len(blocks) + 1)
    for end in range(1, len(blocks) + 1):
        for start in range(end - 1, -1, -1):
            work = int(counts[end] - counts[start]) * longest[end - 1] if pads else int(tokens[end] - tokens[start])
            if work > budget and start < end - 1:
                break
            cost = best[start] + work + PIECE_OVERHEAD_TOKENS
            if cost < best[end]:
                best[end], came[end] = cost, start
    pieces: list[list[int]] = []
    end = len(blocks)
    while end > 0:
        pieces.append([i for block in blocks[came[end] : end] for i in block])
        end = came[end]
    return pieces


def _cut_by_kind(
    lengths: Sequence[int], budget: int, units: Sequence[int] | None, pads: bool, apart: Sequence[int]
) -> list[list[int]]:
    pieces: list[list[int]] = []
    for kind in sorted(set(apart)):
        mine = [index for index in range(len(lengths)) if apart[index] == kind]
        own = None if units is None else [units[index] for index in mine]
        for piece in cut([lengths[index] for index in mine], budget, own, pads):
            pieces.append([mine[place] for place in piece])
    return sorted(pieces, key=lambda piece: -max(lengths[index] for index in piece))


def length_sorted(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches for prediction over many rows, longest first. The exact cut is quadratic, so it is made window by window
    of the sorted rows."""
    ranked = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    pieces: list[list[int]] = []
    for start in range(0, len(ranked), WINDOW_ROWS):
        window = ranked[start : start + WINDOW_ROWS]
        pieces += [[window[i] for i in piece] for piece in cut([lengths[i] for i in window], budget)]
    return pieces


def _blocks(lengths: Sequence[int], units: Sequence[int] | None) -> list[list[int]]:
    """Rows grouped by unit, the groups sorted by their longest row."""
    members: dict[int, list[int]] = {}
    for index in range(len(lengths)):
        members.setdefault(index if units is None else units[index], []).append(index)
    return sorted(members.values(), key=lambda block: (max(lengths[i] for i in block), block[0]))


def budget_for(lengths: Sequence[int], budget: int, ranks: int) -> int:
    """The most tokens in one piece, so small that there is work for every rank."""
    return budget if ranks == 1 else min(budget, math.ceil(sum(lengths) / ranks))


def share_out(
    pieces: Sequence[list[int]], lengths: Sequence[int], ranks: int, pads: bool = True
) -> list[list[list[int]]]:
    """Deal pieces to ranks, heaviest first to the least loaded, so that ranks end a step at about the same time."""

    def work(piece: list[int]) -> int:
        return len(piece) * max(lengths[i] for i in piece) if pads else sum(lengths[i] for i in piece)

    loads = [0] * ranks
    dealt: list[list[list[int]]] = [[] for _ in range(ranks)]
    for piece in sorted(pieces, key=work, reverse=True):
        rank = loads.index(min(loads))
        dealt[rank].append(piece)
        loads[rank] += work(piece)
    return dealt
