"""A row and what identifies it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.images import Picture
from tunesmith.recipe.columns import Column


@dataclass(frozen=True, slots=True)
class Row:
    """One row under our column names. `line` is the 1-based line of the file where it begins; in a file that has no
    lines (`counted`), the 1-based number of the row; 0 where the file is the row (an image in a folder)."""

    values: dict[str, Any]
    file: str
    line: int
    counted: bool = False

    @property
    def where(self) -> str:
        return f"{self.file}:{'row ' * self.counted}{self.line}" if self.line else self.file

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    def get(self, column: str) -> Any:
        return self.values.get(column)


def normalised(text: str) -> str:
    """A text without what readers do not see as a difference: Unicode form, case, runs of white space.

    Unicode's caseless match of compatible texts (definition D146): folding once would keep letters apart that become
    the same only when decomposed, such as Greek capitals with two marks. ASCII needs none of it.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold()).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def input_keys(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """What makes rows duplicates: of each, the normalised content of the input columns; of an image, its bytes."""
    names = [column.name for column in columns if column.is_input]
    return ["\x1f".join([_key_of(row.values.get(name)) for name in names]) for row in rows]


def _key_of(cell: Any) -> str:
    return cell.digest if isinstance(cell, Picture) else normalised(as_text(cell))


def as_text(cell: Any) -> str:
    """An input as one text: a list of words with spaces between."""
    return " ".join(cell) if isinstance(cell, list) else str(cell or "")


def input_key(row: Row, columns: Sequence[Column]) -> str:
    return input_keys([row], columns)[0]


def hash_share(key: str) -> float:
    """A key's fixed place in [0, 1): the first 8 bytes of its BLAKE2b hash. No seed, no process, no order."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64
