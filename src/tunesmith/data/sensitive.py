"""What should not be in the data: secrets and personal data, by kind and place. What was found is never handed on: a
text that is written for people goes through `mask` first.

Every pattern is asked only of texts that can hold it: those with one of its anchors, or with enough digits together.
Where a number proves itself by a checksum (cards, IBANs, most national ids) it must; other patterns ask for so much
form that ordinary text does not meet it. So these are suspicions, and what has no form (names, diagnoses) is not found.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from tunesmith.data.patterns import AMONG_NUMBERS, PERSONAL, RESTS, SECRETS, Pattern

_BLOCK_ROWS = 20_000
ROUNDS = 8
LEAST_SHARED = 3
"""A word that a piece shares with something hidden has at least so many letters."""

CROWDED = "[a text full of personal data or secrets]"


def find(texts: Sequence[str]) -> dict[str, list[int]]:
    """The indices of the texts that seem to hold each kind; kinds that are nowhere are left out."""
    found: dict[str, set[int]] = {}
    for begin in range(0, len(texts), _BLOCK_ROWS):
        block = texts[begin : begin + _BLOCK_ROWS]
        for pattern, index in _candidates(block, (*SECRETS, *PERSONAL)):
            if any(_spans(block[index], pattern)):
                found.setdefault(pattern.kind, set()).add(begin + index)
    return {kind: sorted(indices) for kind, indices in found.items()}


def is_sensitive(text: str) -> bool:
    """Whether a text seems to hold a secret or personal data of any kind."""
    return bool(find([text]))


def mask(text: str) -> str:
    """A text for people to read: each suspected secret or personal datum is replaced by its kind, `[e-mail address]`.

    What is masked may have hidden what stands beside it (a number right behind another), so it is looked at again. A
    text that still holds something after so many rounds is not shown at all.
    """
    for _ in range(ROUNDS):
        found = _places(text)
        if not found:
            return text
        pieces, done = [], 0
        for begin, end, kind in found:
            pieces += [text[done:begin], f"[{kind}]"]
            done = end
        text = "".join(pieces) + text[done:]
    return CROWDED if _places(text) else text


def mask_all(value: Any) -> Any:
    """A cell or an answer for people to read: a text masked, a list of texts as one (what is hidden may go over several
    of them), a number as it is."""
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return _mask_words(value)
        return [mask_all(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def _mask_words(words: Sequence[str]) -> list[str]:
    """Words of a text, each that holds a part of what is to be hidden replaced by its kind."""
    begins = list(accumulate((len(word) + 1 for word in words), initial=0))
    shown = list(words)
    for begin, end, kind in _places(" ".join(words)):
        for index in range(bisect_right(begins, begin) - 1, len(words)):
            if begins[index] >= end:
                break
            shown[index] = f"[{kind}]"
    return shown


def mask_beside(value: Any, text: str) -> Any:
    """A piece of a text, or a list of pieces, for people to read: hidden is what shares a word with anything that is
    hidden in the whole text. (Alone, a piece of a password is a word like any other.)"""
    if isinstance(value, list):
        return [mask_beside(item, text) for item in value]
    if not isinstance(value, str):
        return value
    words = {word for word in re.findall(r"\w+", value) if len(word) >= LEAST_SHARED}
    for begin, end, kind in _places(text):
        if words & set(re.findall(r"\w+", text[begin:end])) or text[begin:end] in value:
            return f"[{kind}]"
    return mask(value)


def mask_names(names: Iterable[str]) -> dict[str, str]:
    """Each of different names as people may read it; those that would become the same are numbered."""
    given = list(names)
    shown = {name: name for name in given}
    times: Counter[str] = Counter()
    for index in sorted({index for indices in find(given).values() for index in indices}):
        masked = mask(given[index])
        times[masked] += 1
        shown[given[index]] = masked if times[masked] == 1 else f"{masked} ({times[masked]})"
    return shown


def _places(text: str) -> list[tuple[int, int, str]]:
    """(begin, end, kind) of what a text seems to hold, in order; what overlaps is one, under the kind of the first."""
    spans = []
    for pattern, _ in _candidates([text], (*SECRETS, *PERSONAL, AMONG_NUMBERS)):
        for begin, end in _spans(text, pattern):
            spans.append((begin, end, pattern.kind))
    found: list[tuple[int, int, str]] = []
    for begin, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if found and begin < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]), found[-1][2])
        else:
            found.append((begin, end, kind))
    return found


def _spans(text: str, pattern: Pattern) -> Iterator[tuple[int, int]]:
    """(begin, end) of each of a kind. A match without proof may have begun too early: it is sought anew inside it."""
    place = 0
    while match := pattern.pattern.search(text, place):
        length = pattern.proof(match.group())
        place = match.start() + (length or 1)
        if length:
            rest = RESTS[pattern.kind].match(text, place) if pattern.kind in RESTS else None
            place = rest.end() if rest else place
            yield match.start(), place


def _candidates(texts: Sequence[str], patterns: Sequence[Pattern]) -> Iterator[tuple[Pattern, int]]:
    """Pairs of a pattern and the index of a text that can hold it."""
    lowered = [text.lower() for text in texts]
    joined = "\n".join(lowered) + "\n"
    begins = list(accumulate((len(text) + 1 for text in lowered), initial=0))
    letters = np.frombuffer(joined.encode("ascii", "replace"), dtype=np.uint8)  # one byte for each character
    digits = np.flatnonzero((letters >= ord("0")) & (letters <= ord("9")))
    row_of = np.searchsorted(begins, digits, side="right") - 1
    for pattern in patterns:
        rows = range(len(texts)) if not pattern.digits else _rows_with_digits(pattern, digits, row_of)
        if pattern.anchors:
            rows = {row for anchor in pattern.anchors for row in _rows_with(anchor, joined, begins)}.intersection(rows)
        yield from ((pattern, row) for row in sorted(rows))


def _rows_with_digits(pattern: Pattern, digits: np.ndarray, row_of: np.ndarray) -> Collection[int]:
    """The rows with as many digits, as near to one another, as every match has.

    Args:
        digits: the places of all digits.
        row_of: the row of each.
    """
    further = pattern.digits - 1
    known = len(digits) - further
    if known <= 0:
        return ()
    together = (digits[further:] - digits[:known] < pattern.within) & (row_of[further:] == row_of[:known])
    return set(row_of[:known][together].tolist())


def _rows_with(anchor: str, joined: str, begins: Sequence[int]) -> Iterator[int]:
    place = joined.find(anchor)
    while place >= 0:
        row = bisect_right(begins, place) - 1
        yield row
        place = joined.find(anchor, begins[row + 1])
