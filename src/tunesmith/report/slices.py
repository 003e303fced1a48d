"""Tables of the primary metric on parts of the judged rows, and what stands out in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith.report import wording
from tunesmith.report.rails import ScoreTable, score_table
from tunesmith.report.record import Record

FEW_ROWS = 30
"""On fewer rows than this a difference is not called one."""


def slice_tables(record: Record) -> list[ScoreTable]:
    """One for the length of the text, one for each column of `judge.slices`; all rows come first in each."""
    tables = []
    for name, slices in _all(record):
        is_length = name == ""
        title = "By length of the text" if is_length else f"By {name}"
        meaning = "tokens, as the model gets them; about a quarter of the rows each" if is_length else ""
        whole = ("all rows", f"{record.judged_rows:,}", record.judged[record.primary])
        parts = [(value, f"{found['rows']:,}", found[record.primary]) for value, found in slices.items()]
        heads = ("Tokens" if is_length else name, "Rows", wording.metric(record.primary).title)
        tables.append(score_table(title, meaning, heads, [whole, *parts]))
    return tables


def weak_slices(record: Record) -> list[tuple[str, dict[str, Any]]]:
    """Slices of which the whole interval lies on the bad side of the score of all rows."""
    whole = record.judged[record.primary]["value"]
    less_is_better = record.primary in wording.LESS_IS_BETTER
    found = []
    for name, slices in _all(record):
        for value, part in slices.items():
            score = part[record.primary]
            is_weak = score["low"] > whole if less_is_better else score["high"] < whole
            if is_weak and part["rows"] >= FEW_ROWS:
                found.append((f"{name} = {value}" if name else f"texts of {value} tokens", part))
    return found


def _all(record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    """(column, slices), the lengths first and under no name; a single slice tells nothing."""
    lengths = record.scores.get("by_length", {})
    if len(lengths) > 1:
        yield "", lengths
    yield from record.scores.get("slices", {}).items()
