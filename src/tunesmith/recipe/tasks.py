"""The kinds of task, and the columns that each reads.

`columns` is what the data rooms work from: name, kind of content, whether it must be there, and other names that
the field uses for it. It follows from the settings, and is no setting itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from tunesmith.errors import Fault
from tunesmith.recipe.base import Auto, KindOrMapping, Settings, Share


@dataclass(frozen=True)
class Column:
    """A column that a task reads. `kind` names the check in `data.columns`: a text, one name, a list of names, or a
    finite number. `is_input` columns make up the hash by which rows are split and duplicates are found."""

    name: str
    kind: Literal["text", "label", "labels", "number"]
    required: bool = True
    is_input: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


TEXT = Column("text", "text", aliases=("sentence", "sentence1", "premise", "content", "body", "utterance", "query"))
TEXT_PAIR = Column("text_pair", "text", required=False, aliases=("sentence2", "hypothesis"))
LABEL = Column("label", "label", is_input=False, aliases=("intent", "category", "class", "target", "labels_name"))
LABELS = Column("labels", "labels", is_input=False, aliases=("tags", "categories", "classes"))
SCORE = Column("score", "number", is_input=False, aliases=("similarity", "similarity_score", "rating", "value"))

Target = Literal["label", "labels", "path", "score"]


class TextClassification(Settings):
    """What a text, or a pair of texts, is: one label, any number of labels, a place in a taxonomy, or a number."""

    TARGETS: ClassVar[dict[str, Column]] = {"label": LABEL, "labels": LABELS, "path": LABEL, "score": SCORE}
    PRIMARIES: ClassVar[dict[str, tuple[str, ...]]] = {
        "label": ("accuracy", "macro_f1", "weighted_f1", "mcc"),
        "labels": ("micro_f1", "macro_f1", "weighted_f1", "exact_match", "mean_average_precision"),
        "path": ("accuracy", "macro_f1", "weighted_f1", "mcc", "hierarchical_f1"),
        "score": ("spearman", "pearson"),
    }
    ACTS_FOR: ClassVar[dict[str, tuple[str, ...]]] = {
        "class_weights": ("label", "labels", "path"),
        "label_smoothing": ("label", "labels", "path"),
        "focal_gamma": ("label", "labels", "path"),
        "threshold": ("labels",),
    }

    kind: Literal["text-classification"] = "text-classification"

    target: Target | Auto = "auto"
    """What is learned: `label` (one of several), `labels` (any number of them), `path` (labels are places in a
    taxonomy, `card/lost`), or `score` (a number). `auto`: by which of these columns the training file has."""

    class_weights: Literal["off", "balanced"] = "off"
    """`balanced` weighs each class by the inverse of its share of the training rows (for `labels`: positive against
    negative rows of each label)."""

    label_smoothing: Share = 0.0
    """This share of the target is spread over all classes alike (Szegedy et al. 2016, arXiv:1512.00567)."""

    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Above 0, rows that are already answered well weigh less, by (1 - p) to this power (Lin et al. 2017,
    arXiv:1708.02002)."""

    threshold: Literal["shared", "per-label"] | Annotated[float, Field(gt=0, lt=1)] = "shared"
    """For `labels`: from which probability on a label is given. `shared` and `per-label` choose it on the validation
    rows, by micro-F1 and by each label's F1; a number is taken as it is."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return (TEXT, TEXT_PAIR, self.TARGETS["label" if self.target == "auto" else self.target])

    @property
    def primaries(self) -> tuple[str, ...]:
        if self.target != "auto":
            return self.PRIMARIES[self.target]
        return tuple(dict.fromkeys(name for names in self.PRIMARIES.values() for name in names))

    def settled(self, found: Sequence[str], named: Mapping[str, str]) -> Self:
        """These settings with `target` worked out.

        Args:
            found: the columns of the training file.
            named: the recipe's `data.columns`.

        The first of label, labels and score that the recipe names, or else that the file has, by its own name before
        another name for it. A label joined of several columns (`label/fine_label`) is a path.
        """
        if self.target != "auto":
            return self
        joined = named.get("label", "")
        if "/" in joined and joined not in found:
            return self.but(target="path")
        for has in (
            lambda column: column.name in named,
            lambda column: column.name in found,
            lambda column: any(name in found for name in column.aliases),
        ):
            for target in ("label", "labels", "score"):
                if has(self.TARGETS[target]):
                    return self.but(target=target)
        return self.but(target="label")

    def idle(self) -> Iterator[Fault]:
        """A fault for each setting that was changed and does nothing for the target, once that is settled."""
        for name, targets in self.ACTS_FOR.items():
            if self.target not in targets and getattr(self, name) != type(self).model_fields[name].default:
                message = f"does nothing where the target is {self.target}"
                yield Fault(f"task.{name}", message, f"leave it out; it acts for {', '.join(targets)}")


Task = Annotated[TextClassification, KindOrMapping]
KINDS: dict[str, type[Settings]] = {"text-classification": TextClassification}
