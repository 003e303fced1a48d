"""A column as the data rooms see it: name, kind of content, whether it must be there, and the field's other names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column that a task reads.

    Attributes:
        kind: names the check in `data.columns`: a text, one name, a list of names, a finite number, words, their tags,
            spans of characters, answers that stand in a text, texts of which each would be right, or the path of an
            image.
        is_input: makes up the hash by which rows are split and duplicates are found.
        about: the column whose words or characters an answer counts.
        to_learn: an input that only training reads; an answer can do without it.
        piece: a text of more characters becomes several rows while it is read; 0: never.
    """

    name: str
    kind: Literal["text", "label", "labels", "number", "tokens", "tags", "spans", "answers", "texts", "image"]
    required: bool = True
    is_input: bool = True
    aliases: tuple[str, ...] = ()
    about: str = ""
    to_learn: bool = False
    piece: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)
