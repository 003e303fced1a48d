"""What a data check says: a code, how bad it is, and which rows it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One fault of the data.

    Attributes:
        level: "info" or "warn".
        rows: the indices of the rows concerned, by split.
        count: how many rows are concerned; classes, where no row is.
    """

    code: str
    level: str
    message: str
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    remedy: str = ""
    source: str = ""
    count: int = 0


def on_rows(code: str, level: str, message: str, rows: Mapping[str, Sequence[int]], **more: str) -> Finding:
    """A finding on rows: counted, splits without any left out."""
    kept = {name: list(indices) for name, indices in rows.items() if len(indices)}
    return Finding(code, level, message, kept, count=sum(map(len, kept.values())), **more)


def counted(number: int, what: str) -> str:
    """`1 test row is`, `40 test rows are`."""
    return f"1 {what} is" if number == 1 else f"{number:,} {what}s are"
