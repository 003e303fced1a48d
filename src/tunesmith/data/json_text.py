"""JSON from others: how deep it goes is known before it is parsed, and a key that is given twice is found.

orjson parses. It takes the last of two equal keys without a word. So keys are counted against what looks like the end
of one, and only where these differ (mostly: where objects are nested) Python's own reader looks once more.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson

from tunesmith.data.files import SAVE_AS_UTF8

DEEPEST = 200
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_KEY_ENDS = re.compile(rb'"\s*:')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_NUMBER = re.compile(r"-?(?:NaN|Infinity|nan|inf(?:inity)?)\b", re.IGNORECASE)


class JsonFault(Exception):
    """Why a text is not the JSON that we read, and where in it (1-based)."""

    def __init__(self, message: str, line: int, column: int, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.remedy = message, line, column, remedy


def parse(content: bytes) -> Any:
    """Parse one JSON text. Raises JsonFault."""
    if content.count(b"[") + content.count(b"{") > DEEPEST and depth(content) > DEEPEST:
        raise JsonFault(f"nested deeper than {DEEPEST}", 1, 1, "flatten it")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise explained(content, error) from None


def depth(content: bytes) -> int:
    """How deep brackets nest, those inside of strings left out."""
    brackets = np.frombuffer(_STRINGS.sub(b"", content).translate(None, _NOT_BRACKETS), dtype=np.uint8)
    if not brackets.size:
        return 0
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.where(opens, 1, -1).cumsum().max())


def doubled_key(content: bytes, keys: int) -> str:
    """A key that an object of this (valid) JSON has twice, at any depth; "" if there is none.

    Args:
        keys: how many keys the objects at the level of rows have together, as parsed. Each key ends in a quote and a
            colon: with no further ones there is neither a second key nor anything else to look at.
    """
    if content.count(b":") <= keys or len(_KEY_ENDS.findall(content)) <= keys:
        return ""
    try:
        _PLAIN_READER.decode(content.decode("utf-8"))
    except _Doubled as doubled:
        return str(doubled)
    return ""


class _Doubled(Exception):
    pass


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    for name, _ in pairs if len(names) < len(pairs) else ():
        if name not in names:
            raise _Doubled(name)
        names.remove(name)


_PLAIN_READER = json.JSONDecoder(object_pairs_hook=_refuse_doubled, parse_int=str, parse_float=str)


def explained(content: bytes, error: orjson.JSONDecodeError) -> JsonFault:
    """orjson's error with the reason that a reader of the file will understand."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as wrong:
        text = content[: wrong.start].decode("utf-8")
        surrogate = content[wrong.start] == 0xED
        what = "half a character (a lone surrogate)" if surrogate else "not UTF-8"
        return _fault(text, len(text), f"{what} (byte {wrong.start}, 0x{content[wrong.start]:02X})", SAVE_AS_UTF8)
    if "\0" in text:
        return _fault(text, text.index("\0"), "a NUL character", "is it UTF-16 without a byte order mark?")
    at = min(error.pos, len(text))
    near = max(at - 1, 0)
    word = _NO_NUMBER.search(text, near, at + 12)
    if word and word.start() <= at:
        return _fault(text, word.start(), f"{NOT_VALID}: {word[0]} is no JSON number", "write null, or a number")
    if text[:at].rstrip().endswith(",") and text[at : at + 1] in ("}", "]"):
        return _fault(text, at, f"{NOT_VALID}: a comma with nothing after it", "remove it")
    if at >= len(text.rstrip()):
        return _fault(text, len(text.rstrip()), f"{NOT_VALID}: it ends in the middle ({error.msg})", "is it cut off?")
    return _fault(text, at, f"{NOT_VALID}: {error.msg}", "")


def _fault(text: str, at: int, message: str, remedy: str) -> JsonFault:
    before = text[:at]
    return JsonFault(message, before.count("\n") + 1, len(before) - before.rfind("\n"), remedy)


NOT_VALID = "not valid JSON"
