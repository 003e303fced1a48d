"""The kinds of task whose answer is a text that the model writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from tunesmith.errors import Fault
from tunesmith.recipe.base import Auto, PositiveInt, Settings
from tunesmith.recipe.columns import Column
from tunesmith.recipe.languages import language_of

SLOT = "{source}"

SOURCE = Column("source", "text", aliases=("document", "article", "dialogue", "text", "content", "body"))
TARGET = Column(
    "target",
    "texts",
    is_input=False,
    aliases=("summary", "summaries", "highlights", "tldr", "abstract", "reference", "references"),
)
TRANSLATED = Column("source", "text", aliases=("src", "source_text", "sentence", "text"))
TRANSLATION = Column(
    "target", "texts", is_input=False, aliases=("tgt", "target_text", "translation", "translations", "references")
)


def _with_one_slot(prompt: str) -> str:
    if prompt != "auto" and prompt.count(SLOT) != 1:
        raise ValueError(f"it must hold {SLOT} once, where the text goes")
    return prompt


class Writing(Settings):
    """What tasks share that write a text."""

    SCORES: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "chrf", "bleu", "exact_match")

    prompt: Annotated[str, AfterValidator(_with_one_slot)] = "auto"
    """What the model reads, with `{source}` where the text goes. `auto`: the text alone for a model with an encoder;
    for a decoder the text, an empty line and `Summary:`, or `Translate to LANGUAGE:`."""

    longest_output: PositiveInt | Auto = "auto"
    """The most tokens that are written. `auto`: a quarter more than 99 in 100 of the training targets have."""

    beams: Annotated[int, Field(ge=1, le=64)] = 1
    """How many beginnings are followed at once (beam search); 1 takes the likeliest token at each place. Never
    sampled: the same rows give the same texts."""

    watched_rows: PositiveInt = 100
    """So many validation rows, spread evenly, are answered at each evaluation while training: writing costs many times
    what the loss costs, which is always that of all rows. In the end all rows are answered."""

    @property
    def target(self) -> str:
        return "text"

    @property
    def primaries(self) -> tuple[str, ...]:
        return self.SCORES

    def idle(self) -> Iterator[Fault]:
        """No setting is without effect."""
        return iter(())


class Summarization(Writing):
    """A shorter text that says what matters in a longer one."""

    TARGETS: ClassVar[dict[str, tuple[Column, ...]]] = {"text": (SOURCE, TARGET)}

    kind: Literal["summarization"] = "summarization"

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.TARGETS["text"]

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("lead", "untuned")

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("truncate", "chunks")

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        return self


class Translation(Writing):
    """The same text in another language."""

    TARGETS: ClassVar[dict[str, tuple[Column, ...]]] = {"text": (TRANSLATED, TRANSLATION)}

    kind: Literal["translation"] = "translation"

    language: str = "auto"
    """The language to translate to, as a prompt names it. `auto`: by the code that the column of translations is called
    by (`target: de` under `data.columns`); without one the prompt names none."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.TARGETS["text"]

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("copy", "untuned")

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("truncate",)

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        """These settings with `language` worked out; "" where no column tells it."""
        return self if self.language != "auto" else self.but(language=language_of(named.get("target", "")))
