"""Numbers and names in a written text that its source does not hold: the commonest kind of invention, and the one that
can be found by rule.

A number is a run of digits of any script, with single marks between digits left out (`1,250`, `1.250` and `1250` are
one number); a name is a word that begins with a capital and does not begin a sentence. Both are looked for in the
source without regard to case. Numbers written as words, and names that begin a sentence, are not seen; where a language
writes other words with capitals (German its nouns), these count as names.
"""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"\d+(?:[.,'\u00a0\u202f]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['\u2019]s$", re.IGNORECASE)
_BEFORE_A_SENTENCE = (".", "!", "?", ":", ";", "\n", "\u3002", "\u2026")
_QUOTES = " \t\"'\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019()[]-\u2013\u2014*#"


def new_numbers(text: str, source: str) -> list[str]:
    """The numbers of a text that its source does not hold, each once, as they stand in the text."""
    known = {_digits(found) for found in _NUMBER.findall(source)}
    return list(dict.fromkeys(found for found in _NUMBER.findall(text) if _digits(found) not in known))


def new_names(text: str, source: str) -> list[str]:
    """The names of a text that its source does not hold, each once."""
    known = {part for word in _WORD.findall(source) for part in _forms(word)}
    names = (match[0] for match in _WORD.finditer(text) if match[0][0].isupper() and not _begins(text, match.start()))
    return list(dict.fromkeys(name for name in names if known.isdisjoint({_plain(name)})))


def _digits(number: str) -> str:
    return "".join(str(unicodedata.digit(letter)) for letter in number if letter.isdigit())


def _plain(word: str) -> str:
    return _POSSESSIVE.sub("", word).lower()


def _forms(word: str) -> set[str]:
    """A word of the source, and its parts where it is joined by hyphens."""
    return {_plain(word), *(_plain(part) for part in word.split("-"))}


def _begins(text: str, place: int) -> bool:
    """Whether a sentence begins at this place."""
    before = text[:place].rstrip(_QUOTES)
    return not before or before.endswith(_BEFORE_A_SENTENCE)
