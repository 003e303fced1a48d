"""The kinds of task, and the columns that each reads.

`columns` is what the data rooms work from: name, kind of content, whether it must be there, and other names that
the field uses for it. It is a class attribute, not a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tunesmith.recipe.base import KindOrMapping, Settings


@dataclass(frozen=True)
class Column:
    """A column that a task reads. `kind` names the check in `data.columns`: a text, one name, a list of names, or a
    finite number. `is_input` columns make up the hash by which rows are split and duplicates are found."""

    name: str
    kind: Literal["text", "label", "labels", "number"]
    required: bool = True
    is_input: bool = True
    aliases: tuple[str, ...] = ()


class TextClassification(Settings):
    """One label for each text (or pair of texts)."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("text", "text", aliases=("sentence", "sentence1", "premise", "content", "body", "utterance", "query")),
        Column("text_pair", "text", required=False, aliases=("sentence2", "hypothesis")),
        Column("label", "label", is_input=False, aliases=("intent", "category", "class", "target", "labels_name")),
    )
    primaries: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    kind: Literal["text-classification"] = "text-classification"


Task = Annotated[TextClassification, KindOrMapping]
KINDS: dict[str, type[Settings]] = {"text-classification": TextClassification}
