"""Texts as tokens, and what happens to those that are longer than the model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.rows import Row
from tunesmith.tasks.contract import Limit

UNLIMITED = 10_000_000
MOST_WINDOWS = 32
"""Windows for one row; what a text holds beyond them is not read."""

OVERLAP = 4
"""Windows share one part in so many with the next, so that what lies across a border is whole in one of them."""

LEAST_ROOM = 4
"""Where its partner leaves a long text less than one part in so many of the limit, the row is cut instead."""

HEAD = 4
"""`head_tail` keeps one part in so many of the beginning, the rest of the end (Sun et al. 2019, arXiv:1905.05583)."""


def encode_texts(rows: Sequence[Row], processor: Any, limit: Limit) -> list[dict[str, list[int]]]:
    """Token ids and what goes with them, special tokens included.

    With `windows` a row's windows stand end to end, and `windows` holds their lengths.
    """
    paired = [bool(row.get("text_pair")) for row in rows]
    if len(set(paired)) == 2:  # how a row is encoded must not hang on its neighbours
        parts = {}
        for kind in (True, False):
            mine = [row for row, is_pair in zip(rows, paired, strict=True) if is_pair == kind]
            parts[kind] = iter(encode_texts(mine, processor, limit))
        return [next(parts[kind]) for kind in paired]
    if not rows:
        return []
    if limit.policy == "truncate":
        encoded = _tokenise(rows, processor, limit.tokens)
        return [{name: encoded[name][i] for name in _names(encoded)} for i in range(len(rows))]
    encoded = _tokenise(rows, processor, UNLIMITED)
    fit = _head_and_tail if limit.policy == "head_tail" else _windows
    return [fit(_TokenRow.of(encoded, i, row, processor, limit.tokens)) for i, row in enumerate(rows)]


def count_cut(rows: Sequence[Row], examples: Sequence[dict[str, Any]], processor: Any, limit: Limit) -> int:
    """How many rows lost a part. Only rows that fill the limit are encoded once more, whole."""
    full = [row for row, example in zip(rows, examples, strict=True) if len(example["input_ids"]) >= limit.tokens]
    if limit.policy == "windows":
        return sum(_unread(full, processor, limit))
    whole = encode_texts(full, processor, Limit(UNLIMITED))
    return sum(len(row["input_ids"]) > limit.tokens for row in whole)


def _unread(rows: Sequence[Row], processor: Any, limit: Limit) -> Iterator[bool]:
    """Of each row, whether its windows leave a part unread: its partner was cut, or they were too many."""
    for is_pair in (True, False):
        mine = [row for row in rows if bool(row.get("text_pair")) == is_pair]
        encoded: Any = _tokenise(mine, processor, UNLIMITED) if mine else {}
        for index, row in enumerate(mine):
            fitted = _TokenRow.of(encoded, index, row, processor, limit.tokens)
            *_, (_, last) = _spans(fitted.length, fitted.room)
            yield last < fitted.length or len(fitted.tokens["input_ids"]) < len(encoded["input_ids"][index])


def _tokenise(rows: Sequence[Row], processor: Any, most: int) -> Any:
    pairs = [row["text_pair"] for row in rows] if rows[0].get("text_pair") else None
    return processor([row["text"] for row in rows], pairs, truncation=True, max_length=most)


def _names(encoded: Any) -> list[str]:
    return [name for name in ("input_ids", "token_type_ids") if name in encoded]


@dataclass(frozen=True)
class _TokenRow:
    """A whole row as tokens; where its longer text stands; for how many tokens of that text there is room."""

    tokens: dict[str, list[int]]
    start: int
    length: int
    room: int

    @classmethod
    def of(cls, encoded: Any, index: int, row: Row, processor: Any, most: int) -> _TokenRow:
        belongs = encoded.sequence_ids(index)
        counts = [belongs.count(0), belongs.count(1)]
        longer = counts.index(max(counts))
        room = most - (len(belongs) - counts[longer])
        if room < min(most // LEAST_ROOM, counts[longer]):  # its partner is too long as well
            encoded, index = _tokenise([row], processor, most), 0
            belongs = encoded.sequence_ids(0)
            counts = [belongs.count(0), belongs.count(1)]
            room = counts[longer]
        start = belongs.index(longer) if counts[longer] else 0
        return cls({name: encoded[name][index] for name in _names(encoded)}, start, counts[longer], room)

    def without(self, first: int, last: int) -> dict[str, list[int]]:
        """The tokens without those of the longer text from `first` to `last`."""
        return {name: ids[: self.start + first] + ids[self.start + last :] for name, ids in self.tokens.items()}


def _head_and_tail(row: _TokenRow) -> dict[str, list[int]]:
    """Beginning and end of the longer text; the middle is left out."""
    head = row.room // HEAD
    return row.without(head, head + max(0, row.length - row.room))


def _windows(row: _TokenRow) -> dict[str, list[int]]:
    """The whole input, once for each window of its longer text."""
    flat: dict[str, list[int]] = {name: [] for name in row.tokens}
    lengths = []
    for first, last in _spans(row.length, row.room):
        window = {
            name: ids[: row.start] + ids[row.start + first : row.start + last] + ids[row.start + row.length :]
            for name, ids in row.tokens.items()
        }
        for name, ids in window.items():
            flat[name] += ids
        lengths.append(len(window["input_ids"]))
    return {**flat, "windows": lengths}


def _spans(length: int, room: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each window over `length` tokens; the last one ends with the text."""
    if length <= room:
        yield 0, length
        return
    step = max(1, room - room // OVERLAP)
    for number in range(MOST_WINDOWS):
        first = min(number * step, length - room)
        yield first, first + room
        if first == length - room:
            return
