"""Texts as words, and tags on words as spans: the schemes of the field.

BIO (also IOB2): `B-` begins a span, `I-` goes on with it. IOB1: `B-` only where two spans of one type meet. IOBES (also
BILOU, BMES): `E-` (`L-`) ends a span, `S-` (`U-`) is one of a single word, `M-` is inside of one. IO: `I-`, or the
type's bare name, for every word.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

OUTSIDE = "O"
_PREFIXED = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: each of their letters is a word."""

_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
_USUAL = {"L": "E", "U": "S", "M": "I"}


@dataclass(frozen=True)
class Words:
    """A text and where its words are, in characters (code points): word i is `text[starts[i]:ends[i]]`."""

    text: str
    starts: list[int]
    ends: list[int]


def words_of(cell: str | Sequence[str]) -> Words:
    """A text's words: runs of letters and digits with the marks on them, and each sign by itself. A list's words are
    its items, and its text is these with a space between."""
    if isinstance(cell, str):
        found = [match.span() for match in _WORD.finditer(cell)]
        found = found if cell.isascii() else _with_marks(cell, found)
        return Words(cell, [start for start, _ in found], [end for _, end in found])
    starts, end = [], 0
    for word in cell:
        starts.append(end)
        end += len(word) + 1
    return Words(" ".join(cell), starts, [start + len(word) for start, word in zip(starts, cell, strict=True)])


def _with_marks(text: str, found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Words with combining marks and joiners put back on the letters that they stand on, and what follows them."""
    joined: list[tuple[int, int]] = []
    open_end = False
    for start, end in found:
        is_mark = unicodedata.category(text[start])[0] == "M" or text[start] in _JOINERS
        touches = bool(joined) and joined[-1][1] == start
        goes_on = open_end and not is_mark and re.match(rf"[^\W{_UNSPACED}]", text[start]) is not None
        if touches and (is_mark or goes_on):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
        open_end = is_mark and touches
    return joined


@dataclass(frozen=True)
class TagSpan:
    """A span of words, `first` to `last` (exclusive). `mended`: its tags began or ended it against the scheme."""

    first: int
    last: int
    kind: str
    mended: bool = False


def parse(tag: str) -> tuple[str, str]:
    """A tag's prefix and type. A bare name is `I`: schemes with prefixes have none beside O."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    match = _PREFIXED.fullmatch(tag)
    return (_USUAL.get(match[1], match[1]), match[2]) if match else ("I", tag)


def kind_of_tag(tag: str) -> str:
    """A tag's type; "" for O."""
    return parse(tag)[1]


def scheme_of(rows: Iterable[Sequence[str]]) -> str:
    """The scheme that sequences of tags are written in: IOBES, BIO, IOB1 or IO."""
    prefixes: set[str] = set()
    begins_apart = begins_inside = 0
    for tags in rows:
        before = (OUTSIDE, "")
        for tag in map(parse, tags):
            prefixes.add(tag[0])
            goes_on = before[1] == tag[1] != ""
            begins_apart += tag[0] == "B" and not goes_on
            begins_inside += tag[0] == "I" and not goes_on
            before = tag
    if prefixes & {"E", "S"}:
        return "IOBES"
    if "B" not in prefixes:
        return "IO"
    return "IOB1" if begins_inside and not begins_apart else "BIO"


def spans_of(tags: Sequence[str], scheme: str) -> list[TagSpan]:
    """The spans that tags say, read generously: what goes on with nothing begins a span, and what is never ended ends
    where another type or O begins. Such spans are marked as mended."""
    found: list[TagSpan] = []
    first, kind, mended, ended = 0, "", False, False

    def close(last: int) -> None:
        if kind:
            found.append(TagSpan(first, last, kind, mended or (scheme == "IOBES" and not ended)))

    for place, (prefix, mine) in enumerate(map(parse, tags)):
        goes_on = mine == kind != "" and prefix in ("I", "E") and not ended
        if not goes_on:
            close(place)
            first, kind = place, mine
            mended = prefix == "E" or (prefix == "I" and scheme in ("BIO", "IOBES"))
        ended = prefix in ("E", "S")
    close(len(tags))
    return found


def tags_of(spans: Iterable[tuple[int, int, str]], words: Words) -> list[str]:
    """BIO tags of character spans (start, end, type). A word of which a span holds a part belongs to it; of two that
    hold one, the first keeps it."""
    tags = [OUTSIDE] * len(words.starts)
    for start, end, kind in sorted(spans):
        inside = range(bisect_right(words.ends, start), bisect_left(words.starts, end))
        free = [i for i in inside if tags[i] == OUTSIDE and words.starts[i] < words.ends[i]]
        for number, place in enumerate(free):
            tags[place] = f"{'I' if number else 'B'}-{kind}"
    return tags


def span_cell(item: Any) -> tuple[dict[str, Any] | None, str]:
    """A span as {"start", "end", "label"} from an object by any of the field's names, and what is wrong with it."""
    if not isinstance(item, dict):
        return None, 'is no object like {"start": 0, "end": 4, "label": "PER"}'
    start, end = item.get("start", item.get("begin")), item.get("end")
    names = ("label", "entity_group", "entity", "type", "slot", "tag")
    kind = next((item[name] for name in names if isinstance(item.get(name), str) and item[name].strip()), None)
    if not (isinstance(start, int) and isinstance(end, int)) or isinstance(start, bool) or isinstance(end, bool):
        return None, "has no whole numbers start and end"
    if kind is None:
        return None, "has no label"
    if not 0 <= start < end:
        return None, f"goes from {start} to {end}: it must begin at 0 or later and hold a character"
    return {"start": start, "end": end, "label": kind.strip()}, ""
