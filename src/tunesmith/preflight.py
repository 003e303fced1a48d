"""Everything that can be said before it costs: faults of the data, odd settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from tunesmith import folder as folders
from tunesmith.checkpoints import KEEP
from tunesmith.choices import HOWARD, HU
from tunesmith.data import checks
from tunesmith.data.findings import Finding
from tunesmith.data.label_checks import targets_of
from tunesmith.data.loading import Splits
from tunesmith.data.splits import overlap
from tunesmith.lengths import Lengths
from tunesmith.recipe import Recipe

DEVLIN = "Devlin et al. 2019, arXiv:1810.04805, appendix A.3"
MOSBACH = "Mosbach et al. 2021, arXiv:2006.04884"
LE_SCAO = "Le Scao and Rush 2021, arXiv:2103.08493"
ZHANG = "Zhang et al. 2021, arXiv:2006.05987"
HE = "He et al. 2021, arXiv:2106.03164"
GURURANGAN = "Gururangan et al. 2020, arXiv:2004.10964"
FREE_SPACE_FACTOR = 1.2
TRUNCATED_WARNING = 0.05
NAMED_PLACES = 1000


@dataclass(frozen=True)
class Note:
    """One thing to know before training.

    Attributes:
        level: info, warn, or stop (`--accept CODE` lets a stop pass).
        where: the first place concerned.
        count: how many rows are concerned, in all.
        rows: their places (file:line), the first NAMED_PLACES of them.
    """

    code: str
    level: str
    message: str
    where: str = ""
    remedy: str = ""
    source: str = ""
    count: int = 0
    rows: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Size:
    """What the size advice goes by: training rows, their number in the middle class, the method, moving numbers."""

    rows: int
    per_class: float
    method: str
    moving: int


@dataclass(frozen=True)
class SizeAdvice:
    """One row of the table below: when it holds, what it says, who found it."""

    code: str
    level: str
    holds: Callable[[Size], bool]
    message: str
    source: str
    remedy: str = ""
    for_texts: bool = False
    """Whether it rests on what was found of texts alone."""


SIZE_ADVICE = (
    SizeAdvice(
        "few-rows",
        "warn",
        lambda size: size.rows < 100,
        "{rows:,} training rows: a prompt with a few examples is worth about as many; so few rows teach a model "
        "little, and another seed may give another result",
        f"{LE_SCAO}; {MOSBACH}",
        "try prompting (few-shot) first and compare, or collect a few hundred rows",
        for_texts=True,
    ),
    SizeAdvice(
        "some-rows",
        "info",
        lambda size: 100 <= size.rows < 500,
        "{rows:,} training rows: enough for head, last-layers or lora; full fine-tuning likes more: of labels a few "
        "hundred rows each",
        f"{HOWARD}; {HU}",
    ),
    SizeAdvice(
        "few-rows-per-class",
        "info",
        lambda size: size.rows >= 500 and size.per_class < 100 and size.method == "full",
        "{per_class:,.0f} training rows in the middle class: full fine-tuning likes a few hundred, methods that move "
        "less get along with fewer",
        f"{HOWARD}; {ZHANG}",
        "compare with method: lora or last-layers",
    ),
    SizeAdvice(
        "large-model-few-rows",
        "warn",
        lambda size: size.rows < 10_000 and size.moving >= 300e6 and size.method == "full",
        "full fine-tuning moves {moving:,.0f} million numbers by {rows:,} training rows: with so few, large models "
        "vary much between seeds, and parameter-efficient methods do as well or better",
        f"{MOSBACH}; {HE}",
        "method: lora",
        for_texts=True,
    ),
    SizeAdvice(
        "many-rows",
        "info",
        lambda size: size.rows > 1_000_000,
        "{rows:,} training rows: continued pre-training on the texts may gain more than fine-tuning alone, and fewer, "
        "cleaner rows more than all of them",
        f"{GURURANGAN}; {checks.LEE}",
        "data.limit, for a first run",
        for_texts=True,
    ),
)
"""Advice by size. From 500 rows (100 a class) to a million there is nothing to say. It never stops a run."""


def check(
    recipe: Recipe, splits: Splits, findings: Sequence[Finding], lengths: Mapping[str, Lengths], trainable: int
) -> list[Note]:
    """All notes on a resolved recipe and its rows.

    Args:
        findings: what the data checks say of the rows.
        lengths: of each split, what encoding says of its rows.
        trainable: how many numbers would move.
    """
    return [
        *_on_reading(splits),
        *_on_size(recipe, splits, trainable),
        *_on_rows(splits, findings),
        *_on_general_texts(recipe, splits),
        *_on_lengths(recipe, lengths),
        *_on_settings(recipe, trainable),
        *_on_disk(recipe, trainable),
        *_on_bare_rows(lengths),
        *_on_watched(recipe, splits),
    ]


def _on_reading(splits: Splits) -> Iterator[Note]:
    for note in splits.notes:
        yield Note("column-alias", "info", note)
    if splits.skipped:
        shown = "; ".join(str(fault) for fault in splits.skipped[:5])
        message = f"{len(splits.skipped)} bad rows left out: {shown}"
        places = tuple(fault.where for fault in splits.skipped[:NAMED_PLACES])
        yield Note("bad-rows", "warn", message, places[0], count=len(splits.skipped), rows=places)
    if not splits.test:
        yield Note(
            "no-test",
            "warn",
            "no test set: the verdict will rest on the validation rows, by which the best step is also chosen",
            remedy="name data.test, or give it a share of the rows: `test: 0.1`",
        )


def _on_size(recipe: Recipe, splits: Splits, trainable: int) -> Iterator[Note]:
    _, label_of = targets_of(recipe.task.columns)
    counts = Counter(label for row in splits.train if (label := label_of(row)) is not None)
    size = Size(len(splits.train), median(counts.values()) if counts else math.inf, recipe.method.kind, trainable)
    for advice in SIZE_ADVICE:
        if advice.holds(size) and not (advice.for_texts and not recipe.task.long_texts):
            told = advice.message.format(rows=size.rows, per_class=size.per_class, moving=size.moving / 1e6)
            yield Note(advice.code, advice.level, told, remedy=advice.remedy, source=advice.source, count=size.rows)


def _on_rows(splits: Splits, findings: Sequence[Finding]) -> Iterator[Note]:
    """What the data checks found, with the places of the rows concerned."""
    named = splits.named()
    for found in findings:
        rows = (named[split][index].where for split, indices in found.rows.items() for index in indices)
        places = tuple(islice(dict.fromkeys(rows), NAMED_PLACES))  # pieces of one text stand in one place
        where = places[0] if places else ""
        yield Note(found.code, found.level, found.message, where, found.remedy, found.source, found.count, places)


LOSSES = {
    "truncate": "their ends are cut off",
    "head_tail": "their middle is left out",
    "windows": "their windows leave a part unread",
    "chunks": "an answer is a summary of summaries of their parts, and training reads the first part",
}
"""What a row loses that is too long, by `train.long_text`."""


def _on_general_texts(recipe: Recipe, splits: Splits) -> Iterator[Note]:
    rows = [*splits.train, *splits.validation] if recipe.train.refit else splits.train
    learned = overlap(splits.general, rows, recipe.task.columns)
    if learned:
        message = (
            f"{len(learned):,} of {len(splits.general):,} general texts are learned, too: how well they are known "
        )
        message += "afterwards says little of other texts"
        places = tuple(splits.general[index].where for index in learned)
        remedy = "take them out of data.general"
        yield Note(
            "general-in-train", "warn", message, places[0], remedy, count=len(places), rows=places[:NAMED_PLACES]
        )


def _on_lengths(recipe: Recipe, lengths: Mapping[str, Lengths]) -> Iterator[Note]:
    for name, found in lengths.items():
        if found.cut:
            share = found.cut_share
            assert share.value is not None
            many = round(share.value * found.rows)
            told = f"{many} {name} rows ({share.value:.1%})"
            if found.is_sampled:
                told = f"about {many:,} {name} rows ({share.value:.1%}; by a sample of {found.encoded:,} of them, "
                told += f"95 % interval {share.low:.1%} to {share.high:.1%})"
            level = "warn" if share.value > TRUNCATED_WARNING else "info"
            message = f"{told} are longer than {recipe.train.max_length} tokens: {LOSSES[str(recipe.train.long_text)]}"
            yield Note("truncated", level, message, remedy="train.max_length", count=many)


def _on_settings(recipe: Recipe, trainable: int) -> Iterator[Note]:
    rate = recipe.train.learning_rate
    assert isinstance(rate, float | int)
    low, high = recipe.method.facts.usual_rates
    if rate == 0:
        yield Note(
            "rate-zero", "stop", "the learning rate is 0: nothing would move", remedy="train.learning_rate: auto"
        )
    elif not low <= rate <= high:
        message = f"a learning rate of {rate:g} is outside the usual {low:g} to {high:g} for {recipe.method.kind}"
        source = recipe.method.facts.source
        yield Note("rate-unusual", "warn", message, remedy="train.learning_rate: auto", source=source)
    if trainable == 0:
        yield Note("nothing-moves", "stop", "no weight would move", remedy="choose another method or its layers")


def _on_disk(recipe: Recipe, trainable: int) -> Iterator[Note]:
    needed = int(FREE_SPACE_FACTOR * trainable * _bytes_a_number(recipe))
    free = folders.free_bytes(Path(recipe.output))
    if free < needed:
        message = f"checkpoints will need about {needed:,} bytes, {free:,} are free"
        yield Note("disk", "stop", message, where=recipe.output, remedy="free some space or choose another output")


def _bytes_a_number(recipe: Recipe) -> int:
    """Bytes that all checkpoints hold at most for each number that moves: itself and two moments, 4 bytes each, and its
    running mean if there is one. Of a phase that is judged the best one is kept besides the newest; another is being
    written. Where the head is taught first only its own numbers have moments: these the factor has to cover."""
    whole = 12 if recipe.train.ema is None else 16
    head_alone = KEEP * 4 if getattr(recipe.method, "head_first", None) else 0
    again = KEEP * whole + head_alone if recipe.train.refit else 0
    return (KEEP + 2) * whole + head_alone + again


def _on_bare_rows(lengths: Mapping[str, Lengths]) -> Iterator[Note]:
    for name, found in lengths.items():
        if found.bare:
            message = f"{found.bare} {name} rows have no tokens beside special ones: the model sees nothing of them"
            yield Note("no-tokens", "warn", message, count=found.bare)


def _on_watched(recipe: Recipe, splits: Splits) -> Iterator[Note]:
    watched, rows = getattr(recipe.task, "watched_rows", None), len(splits.validation)
    if watched is not None and watched < rows:
        message = f"the best step is chosen by {watched:,} of {rows:,} validation rows; in the end all are answered"
        yield Note("watched-rows", "info", message, remedy="task.watched_rows", count=rows - watched)
