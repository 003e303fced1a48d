"""The kinds of task, and the columns that each reads (`columns` follows from the settings, and is no setting)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from tunesmith.errors import Fault
from tunesmith.recipe.base import Auto, KindOrMapping, PositiveInt, Settings
from tunesmith.recipe.classification import SCORE, TEXT, ImageClassification, TextClassification
from tunesmith.recipe.columns import Column
from tunesmith.recipe.writing import Summarization, Translation

TOKENS = Column("tokens", "tokens", aliases=("words",))
TAGS = Column("tags", "tags", is_input=False, aliases=("ner_tags", "labels", "entities"), about="tokens")
QUESTION = Column("question", "text", aliases=("query",))
CONTEXT = Column("context", "text", aliases=("passage", "document", "text"))
ANSWERS = Column("answers", "answers", is_input=False, aliases=("answer",), about="context")
SPANS = Column("spans", "spans", is_input=False, aliases=("entities", "slots", "annotations"), about="text")

SENTENCE1 = Column("sentence1", "text", aliases=("text", "premise", "text1", "question1"))
SENTENCE2 = Column("sentence2", "text", aliases=("text_pair", "hypothesis", "text2", "question2"))
ANCHOR = Column("anchor", "text", aliases=("query", "question"))
POSITIVE = Column("positive", "text", aliases=("passage", "answer", "pos"))
NEGATIVE = Column("negative", "text", aliases=("neg", "hard_negative"), to_learn=True)

DOCUMENT = replace(TEXT, piece=2000)


class TokenClassification(Settings):
    """Which words of a text are names of what: entities, terms, parts of speech."""

    TARGETS: ClassVar[dict[str, tuple[Column, Column]]] = {"tags": (TOKENS, TAGS), "spans": (TEXT, SPANS)}

    kind: Literal["token-classification"] = "token-classification"

    target: Literal["tags", "spans"] | Auto = "auto"
    """How rows say it: `tags` (a list `tokens` and one tag for each: BIO, IOB1, IOBES, BILOU or IO, which is found out)
    or `spans` (a `text` and a list of {start, end, label}, in characters from 0, `end` exclusive). `auto`: by which of
    these columns the training file has."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.TARGETS["tags" if self.target == "auto" else self.target]

    @property
    def primaries(self) -> tuple[str, ...]:
        return ("entity_f1", "entity_precision", "entity_recall", "exact_match")

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("lexicon",)

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("windows", "truncate")

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        """These settings with `target` worked out: the first of which the recipe names a column, or all columns are in
        the file, by whatever name."""
        if self.target != "auto":
            return self
        for target, (about, answer) in self.TARGETS.items():
            if set(named) & {about.name, answer.name} - {"text"}:
                return self.but(target=target)
        for target, columns in self.TARGETS.items():
            if all(column.name in named or set(column.names) & set(found) for column in columns):
                return self.but(target=target)
        return self.but(target="tags" if set(TOKENS.names) & set(found) else "spans")

    def idle(self) -> Iterator[Fault]:
        """No setting is without effect."""
        return iter(())


class QuestionAnswering(Settings):
    """Where in a text the answer to a question stands, or that it is not there (SQuAD 1 and 2)."""

    TARGETS: ClassVar[dict[str, tuple[Column, ...]]] = {"answers": (QUESTION, CONTEXT, ANSWERS)}

    kind: Literal["question-answering"] = "question-answering"

    longest_answer: PositiveInt = 30
    """No answer has more tokens than this."""

    @property
    def target(self) -> str:
        return "answers"

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.TARGETS["answers"]

    @property
    def primaries(self) -> tuple[str, ...]:
        return ("answer_f1", "exact_match")

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("overlap",)

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("windows", "truncate")

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        return self

    def idle(self) -> Iterator[Fault]:
        """No setting is without effect."""
        return iter(())


class SentenceSimilarity(Settings):
    """How alike two texts are: vectors whose cosine says it, for search, clustering and pairs."""

    TARGETS: ClassVar[dict[str, tuple[Column, ...]]] = {
        "score": (SENTENCE1, SENTENCE2, SCORE),
        "positive": (ANCHOR, POSITIVE),
        "triplet": (ANCHOR, POSITIVE, NEGATIVE),
    }
    SEARCH: ClassVar[tuple[str, ...]] = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr_at_10", "ndcg_at_10")

    kind: Literal["sentence-similarity"] = "sentence-similarity"

    target: Literal["score", "positive", "triplet"] | Auto = "auto"
    """How rows say it: `score` (`sentence1`, `sentence2` and a number), `positive` (an `anchor` and a text that belongs
    to it; the other texts of the batch do not) or `triplet` (with a `negative` besides). `auto`: by which of these
    columns the training file has."""

    pooling: Literal["mean", "cls", "max", "last"] | Auto = "auto"
    """How tokens become one vector: their mean, the first, the largest number in each place, the last. `auto`: as the
    base says itself (`1_Pooling`), else the mean."""

    loss: Literal["contrastive", "triplet"] = "contrastive"
    """For triplets: `contrastive` takes all other texts of the batch as negatives besides; `triplet` compares with the
    row's own alone (Schroff et al. 2015, arXiv:1503.03832)."""

    temperature: Annotated[float, Field(gt=0, le=1)] = 0.05
    """For contrastive losses: cosines are divided by this. Smaller looks harder at the nearest negatives."""

    margin: Annotated[float, Field(gt=0, le=2)] = 0.3
    """For the loss `triplet`: by so much the positive's cosine is to be larger than the negative's."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.TARGETS["score" if self.target == "auto" else self.target]

    @property
    def primaries(self) -> tuple[str, ...]:
        score = ("spearman", "pearson")
        return (*score, *self.SEARCH) if self.target == "auto" else score if self.target == "score" else self.SEARCH

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("untuned", "word-overlap")

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("truncate",)

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        """These settings with `target` worked out: by what the recipe names, or else by what the file has."""
        if self.target != "auto":
            return self
        has = {column.name for column in (NEGATIVE, POSITIVE, SCORE) if {column.name} & set(named)}
        has = has or {column.name for column in (NEGATIVE, POSITIVE, SCORE) if set(column.names) & set(found)}
        if "score" in has and not {"anchor", *ANCHOR.names} & {*named, *found}:
            return self.but(target="score")
        return self.but(target="triplet" if "negative" in has else "positive" if "positive" in has else "score")

    def idle(self) -> Iterator[Fault]:
        """A fault for each setting that was changed and does nothing for the target, once that is settled."""
        in_batch = self.target == "positive" or (self.target == "triplet" and self.loss == "contrastive")
        acts = {
            "loss": (self.target == "triplet", "acts where rows have negatives"),
            "temperature": (in_batch, "acts in contrastive losses"),
            "margin": (self.target == "triplet" and self.loss == "triplet", "acts in the loss `triplet`"),
        }
        for name, (does, where) in acts.items():
            if not does and getattr(self, name) != type(self).model_fields[name].default:
                yield Fault(f"task.{name}", "does nothing here", f"leave it out; it {where}")


class LanguageModeling(Settings):
    """A domain's language: the model goes on learning to fill gaps in texts, or to go on with them. Its result is a
    base for the next run."""

    TARGETS: ClassVar[dict[str, tuple[Column, ...]]] = {"language": (DOCUMENT,)}

    kind: Literal["language-modeling"] = "language-modeling"

    objective: Literal["masked", "causal"] = "masked"
    """`masked` hides some tokens and asks for them (encoders: BERT and its kin; Devlin et al. 2019, arXiv:1810.04805),
    anew at every epoch. `causal` asks for each next token (decoders: GPT, Llama). Texts never see each other."""

    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """For `masked`: the share of a text that is asked for, at least one token. Of ten such eight are hidden, one is
    replaced by another at random, one stays."""

    mask_words: bool = False
    """For `masked`: whole words are hidden, not single tokens."""

    add_tokens: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(default_factory=list)
    """Words of the domain that become tokens of their own. Each begins as the mean of the pieces it was made of."""

    @property
    def target(self) -> str:
        return "language"

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.TARGETS["language"]

    @property
    def primaries(self) -> tuple[str, ...]:
        return ("log_likelihood", "token_accuracy")

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("untuned", "frequencies")

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("windows", "truncate")

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        return self

    def idle(self) -> Iterator[Fault]:
        """A fault for each setting of masks that was changed where none are made."""
        for name in ("mask_share", "mask_words"):
            if self.objective == "causal" and getattr(self, name) != type(self).model_fields[name].default:
                yield Fault(f"task.{name}", "does nothing where nothing is hidden", "leave it out; it acts for masked")


def _with_kind(value: object) -> object:
    """`task: {threshold: 0.4}` speaks of the task that is meant where none is named."""
    return {"kind": "text-classification", **value} if isinstance(value, dict) and "kind" not in value else value


Task = Annotated[
    TextClassification
    | TokenClassification
    | QuestionAnswering
    | SentenceSimilarity
    | LanguageModeling
    | Summarization
    | Translation
    | ImageClassification,
    Field(discriminator="kind"),
    BeforeValidator(_with_kind),
    KindOrMapping,
]
KINDS: dict[str, type[Settings]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "sentence-similarity": SentenceSimilarity,
    "language-modeling": LanguageModeling,
    "summarization": Summarization,
    "translation": Translation,
    "image-classification": ImageClassification,
}
KEEP_THEIR_HEAD = ("summarization", "translation")
"""Kinds whose bases already have the head that the task needs: it is no new one that must be taught first."""
