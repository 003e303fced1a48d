"""Long texts as several rows, made while they are read, so that every other room sees rows of like size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tunesmith.data.rows import Row, normalised
from tunesmith.recipe.columns import Column

DOCUMENT = "(document)"
"""The group of the pieces of one text: they never straddle a split."""

_ENDS = ("\n\n", "\n", ". ", "? ", "! ", "; ", ", ", " ")
"""Where a text is cut, the best place first."""


def pieces_of(row: Row, columns: Sequence[Column]) -> list[Row]:
    """The row itself, or its pieces where a text is longer than its column's `piece` characters."""
    for column in columns:
        text = row.get(column.name)
        if column.piece and isinstance(text, str) and len(text) > column.piece:
            digest = hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass")).hexdigest()
            return [
                replace(row, values={**row.values, column.name: piece, DOCUMENT: digest})
                for piece in cut_text(text, column.piece)
            ]
    return [row]


def group_of(columns: Sequence[Column], named: str | None) -> str | None:
    """The column whose equal values stay in one split: the one named, or that of pieces where there may be such."""
    return named or (DOCUMENT if any(column.piece for column in columns) else None)


def cut_text(text: str, most: int) -> Iterator[str]:
    """Pieces of at most `most` characters, none of them blank: cut behind a paragraph, a line, a sentence or a word, if
    one ends in the second half of a piece."""
    begin = 0
    while begin < len(text):
        end = min(begin + most, len(text))
        if end < len(text):
            half = begin + most // 2
            places = (text.rfind(mark, half - len(mark), end) + len(mark) for mark in _ENDS)
            end = next((place for place in places if place >= half), end)
        piece = text[begin:end].strip()
        if piece:
            yield piece
        begin = end
