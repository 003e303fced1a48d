"""Tasks whose rows, whole, are answered: by a label, by any number of labels, by a place in a taxonomy, by a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from tunesmith.errors import Fault
from tunesmith.recipe.base import Auto, Settings, Share
from tunesmith.recipe.columns import Column

TEXT = Column("text", "text", aliases=("sentence", "sentence1", "premise", "content", "body", "utterance", "query"))
TEXT_PAIR = Column("text_pair", "text", required=False, aliases=("sentence2", "hypothesis"))
LABEL = Column("label", "label", is_input=False, aliases=("intent", "category", "class", "target", "labels_name"))
LABELS = Column("labels", "labels", is_input=False, aliases=("tags", "categories", "classes"))
SCORE = Column("score", "number", is_input=False, aliases=("similarity", "similarity_score", "rating", "value"))

IMAGE = Column("image", "image", aliases=("image_path", "file_name", "filename", "path", "file", "photo"))

Target = Literal["label", "labels", "path", "score"]


class Classification(Settings):
    """What tasks have in common whose rows, whole, are one label, any number of labels, a place in a taxonomy, or a
    number."""

    INPUTS: ClassVar[tuple[Column, ...]] = ()
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

    kind: str = ""

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
        return (*self.INPUTS, self.TARGETS["label" if self.target == "auto" else self.target])

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


class TextClassification(Classification):
    """What a text, or a pair of texts, is: one label, any number of labels, a place in a taxonomy, or a number."""

    INPUTS: ClassVar[tuple[Column, ...]] = (TEXT, TEXT_PAIR)

    kind: Literal["text-classification"] = "text-classification"

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("majority", "tfidf", "nearest-neighbours")

    @property
    def long_texts(self) -> tuple[str, ...]:
        return ("truncate", "head_tail", "windows")


class ImageClassification(Classification):
    """What an image is: one label, any number of labels, a place in a taxonomy, or a number.

    Rows are a folder with one folder of images for each class, or a file with the path of each image. The settings from
    `crop` on change training images only, by draws that follow from seed, epoch and row alone; 1, 0, 0 and off leave
    them as they are judged."""

    INPUTS: ClassVar[tuple[Column, ...]] = (IMAGE,)

    kind: Literal["image-classification"] = "image-classification"

    crop: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Each look at a training image sees a random part of it: from this share of its area up to all, a little wider or
    narrower, brought to the model's size (Szegedy et al. 2015, arXiv:1409.4842). 1: the whole, as in judging."""

    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How often a training image is mirrored left to right. 0 where sides matter (letters, arrows, X-rays)."""

    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Brightness, contrast and colour of a training image are multiplied by up to this much more or less than 1."""

    mix: Literal["off", "mixup", "cutmix"] = "off"
    """Trains on pairs of images and on both their targets, by their shares: `mixup` blends them (Zhang et al. 2018,
    arXiv:1710.09412), `cutmix` sets a part of one into the other (Yun et al. 2019, arXiv:1905.04899)."""

    mix_alpha: Annotated[float, Field(gt=0, le=100)] = 0.2
    """For `mix`: shares come from Beta(alpha, alpha); below 1 one image mostly rules, at 1 all shares are alike."""

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("majority", "nearest-neighbours", "linear-probe")

    @property
    def long_texts(self) -> tuple[str, ...]:
        """None: an image has no tokens, and is brought to the model's size whole."""
        return ()

    def idle(self) -> Iterator[Fault]:
        yield from super().idle()
        if self.mix == "off" and self.mix_alpha != type(self).model_fields["mix_alpha"].default:
            yield Fault("task.mix_alpha", "does nothing where mix is off", "leave it out, or write mix: mixup")
