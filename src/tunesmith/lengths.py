"""How many rows are longer than the model reads, or have no tokens: counted on all rows, or on a sample of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.rows import Row
from tunesmith.recipe.columns import Column
from tunesmith.shares import Share, wilson
from tunesmith.tasks.contract import Example, Limit

SAMPLE_ROWS = 2000
"""Encoding costs more than all other checks together. So many rows of a split tell a share of one in twenty to 1.0
points (95 %), and a share of one in a hundred to 0.4."""


@dataclass(frozen=True)
class Lengths:
    """What encoding says of a split's rows.

    Attributes:
        rows: of the split.
        encoded: how many of them `cut` was counted on; fewer than `rows` is a random sample.
        cut: how many of the encoded rows are longer than the model reads.
        bare: how many rows of the split have no tokens beside special ones.
    """

    rows: int
    encoded: int
    cut: int
    bare: int

    @property
    def is_sampled(self) -> bool:
        return self.encoded < self.rows

    @property
    def cut_share(self) -> Share:
        """The share of rows that are longer than the model reads; its interval has a width only for a sample."""
        if self.is_sampled:
            return wilson(self.cut, self.encoded)
        share = self.cut / max(1, self.rows)
        return Share(share, share, share)


def count_lengths(rows: Sequence[Row], examples: Sequence[Example], task: Any, processor: Any, limit: Limit) -> Lengths:
    """The exact figures, of rows that are encoded anyway."""
    cut = task.count_cut(rows, examples, processor, limit)
    return Lengths(len(rows), len(rows), cut, task.count_bare(rows, examples, processor))


def estimate_lengths(
    rows: Sequence[Row], columns: Sequence[Column], task: Any, processor: Any, limit: Limit
) -> Lengths:
    """The same figures where nothing needs the encoded rows: exact up to SAMPLE_ROWS rows, above that by a sample.

    The sample goes by place, not by content: equal rows would all be in it or all be left out. Rows without tokens are
    few and matter one by one, so all that may be such are encoded: those without any letter or digit, for each of which
    a tokenizer has a token, if only the unknown one.
    """
    if len(rows) <= SAMPLE_ROWS:
        return count_lengths(rows, task.encode(rows, processor, limit), task, processor, limit)
    places = sorted(random.Random(0).sample(range(len(rows)), SAMPLE_ROWS))
    sample = [rows[place] for place in places]
    cut = task.count_cut(sample, task.encode(sample, processor, limit), processor, limit)
    inputs = [column.name for column in columns if column.is_input]
    wordless = [row for row in rows if not any(_has_letters(row.get(name)) for name in inputs)]
    bare = task.count_bare(wordless, task.encode(wordless, processor, limit), processor)
    return Lengths(len(rows), len(sample), cut, bare)


def _has_letters(cell: Any) -> bool:
    return cell is not None and any(map(str.isalnum, str(cell)))
