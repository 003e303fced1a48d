"""Everything that can be said before it costs: faults of the data, odd settings, and what `auto` comes to."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from tunesmith import folder as folders
from tunesmith.checkpoints import KEEP
from tunesmith.data import checks
from tunesmith.data.findings import Finding
from tunesmith.data.label_checks import targets_of
from tunesmith.data.loading import Splits
from tunesmith.devices import Devices, memory_bytes
from tunesmith.lengths import Lengths
from tunesmith.models.references import Base
from tunesmith.recipe import Recipe
from tunesmith.recipe.methods import KINDS as METHOD_KINDS

HOWARD = "Howard and Ruder 2018, arXiv:1801.06146"
DEVLIN = "Devlin et al. 2019, arXiv:1810.04805, appendix A.3"
HU = "Hu et al. 2021, arXiv:2106.09685"
MOSBACH = "Mosbach et al. 2021, arXiv:2006.04884"
LE_SCAO = "Le Scao and Rush 2021, arXiv:2103.08493"
ZHANG = "Zhang et al. 2021, arXiv:2006.05987"
HE = "He et al. 2021, arXiv:2106.03164"
GURURANGAN = "Gururangan et al. 2020, arXiv:2004.10964"
FREE_SPACE_FACTOR = 1.2
TRUNCATED_WARNING = 0.05
NAMED_PLACES = 1000

FULL_RATES = ((50e6, 2e-4), (150e6, 5e-5), (400e6, 3e-5), (math.inf, 1e-5))
"""Highest rate for full fine-tuning by parameters of the base: the field's 1e-5..5e-5 for base-size models and
above, more for small ones."""

RATE_FACTORS = {"full": 1.0, "last-layers": 2.0, "head": 20.0, "lora": 10.0}
"""Fewer moving weights take higher rates; LoRA's convention is about ten times that of full fine-tuning."""

USUAL_RATES = {"full": (1e-6, 1e-3), "last-layers": (1e-6, 2e-3), "head": (1e-5, 5e-2), "lora": (1e-5, 5e-3)}


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
        "{rows:,} training rows: enough for head, last-layers or lora; full fine-tuning likes a few hundred rows for "
        "each class",
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


@dataclass(frozen=True)
class Choice:
    """What `auto` came to, and why."""

    key: str
    value: Any
    why: str

    def record(self) -> dict[str, Any]:
        return asdict(self)


SMALL_MODEL, MIDDLE_MODEL = 50e6, 400e6
BYTES_TO_TRAIN = 16
"""Full fine-tuning in fp32 holds weight, gradient and two moments for each parameter."""

MEMORY_SHARE = 0.6


def choose_method(rows: int, parameters: int | None, memory_bytes: int | None = None) -> tuple[str, str]:
    """What `method: auto` comes to, and why.

    Args:
        parameters: of the base; None if not known.
        memory_bytes: of the device; None if it is not to count.
    """
    if rows < 100:
        return "head", f"{rows} rows teach a head, hardly more ({HOWARD})"
    if parameters is None or parameters > MIDDLE_MODEL:
        size = "a model of unknown size" if parameters is None else f"{parameters / 1e6:,.0f} M parameters"
        return "lora", f"{size}: low-rank updates cost a fraction of the memory ({HU})"
    size = f"{parameters / 1e6:,.1f} M parameters"
    if memory_bytes is not None and BYTES_TO_TRAIN * parameters > MEMORY_SHARE * memory_bytes:
        return "lora", f"{size} do not fit into this memory with their gradients and moments ({HU})"
    if parameters <= SMALL_MODEL:
        if rows < 500:
            return "last-layers", f"{rows} rows: enough for the layers nearest the head ({HOWARD})"
        return "full", f"{size} and {rows:,} rows: every weight can move"
    if rows < 5_000:
        return "lora", f"{rows:,} rows on {size}: fewer moving weights overfit less ({HU})"
    return "full", f"{rows:,} rows are enough to move all {size}"


def count_base_parameters(base: Base) -> int:
    """Numbers in a base's weight files, from their headers alone."""
    total = 0
    for file in base.folder.glob("*.safetensors"):
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = orjson.loads(opened.read(length))
        total += sum(math.prod(item["shape"]) for name, item in header.items() if name != "__metadata__")
    return total


def choose(
    recipe: Recipe,
    splits: Splits,
    task: Any,
    base: Base,
    devices: Devices,
    longest: int,
    rewrites: tuple[list[str], str],
) -> tuple[Recipe, list[Choice]]:
    """Replace every `auto` by its value.

    Args:
        longest: the most tokens that the model takes.
        rewrites: which fit the model, and why (see `rewrites.fitting`).

    Returns:
        the recipe without `auto`, and what was chosen with its reason.
    """
    choices: list[Choice] = []
    parameters = count_base_parameters(base)
    if recipe.method.kind == "auto":
        recipe = _with_method(recipe, choices, len(splits.train), parameters, devices)
    steps_per_epoch = math.ceil(len(splits.train) / recipe.train.batch_size)
    rate = next(rate for limit, rate in FULL_RATES if parameters < limit) * RATE_FACTORS[recipe.method.kind]
    open_choices: list[tuple[str, Any, str]] = [
        ("judge.primary", task.primary(splits.train), "the task's convention for these classes"),
        ("train.learning_rate", rate, f"method {recipe.method.kind}, base of {parameters / 1e6:.1f} M parameters"),
        ("train.precision", devices.precision, f"what {devices.device.type} computes fastest without loss of range"),
        ("train.evaluate_every", steps_per_epoch, "once an epoch"),
        ("train.checkpoint_every", "evaluate_every", "at each evaluation"),
        ("train.rewrites", *rewrites),
        ("machine.device", devices.device.type, "what is here"),
        ("machine.threads", devices.threads, "the cores it may use / processes"),
        ("machine.micro_batch_tokens", devices.micro_batch_tokens, f"suits a {devices.device.type}"),
    ]
    open_choices += [("train.long_text", policy, "usual for this task") for policy in recipe.task.long_texts[:1]]
    open_choices += [("train.max_length", longest, "the most that the model takes")] * bool(recipe.task.long_texts)
    if recipe.method.kind == "lora":
        open_choices.append(("method.alpha", 2 * recipe.method.rank, "twice the rank"))
    changes: dict[str, dict[str, Any]] = {}
    for key, value, why in open_choices:
        section, _, name = key.partition(".")
        if getattr(getattr(recipe, section), name) == "auto":
            if value == "evaluate_every":
                given = recipe.train.evaluate_every
                value = steps_per_epoch if given == "auto" else given
            changes.setdefault(section, {})[name] = value
            choices.append(Choice(key, value, why))
    sections = {section: getattr(recipe, section).but(**values) for section, values in changes.items()}
    return recipe.but(**sections), choices


def _with_method(recipe: Recipe, choices: list[Choice], rows: int, parameters: int, devices: Devices) -> Recipe:
    kind, reason = choose_method(rows, parameters, memory_bytes(devices.device))
    choices.append(Choice("method", kind, reason))
    return recipe.but(method=METHOD_KINDS[kind]())


def choose_target(recipe: Recipe, settled: Any) -> tuple[Recipe, list[Choice]]:
    """The recipe with the task as it was worked out from the columns."""
    if recipe.task == settled:
        return recipe, []
    why = f"the training file has a column {settled.columns[-1].name!r}"
    return recipe.but(task=settled), [Choice("task.target", settled.target, why)]


def total_steps(recipe: Recipe, num_rows: int) -> int:
    """Optimizer steps of the whole course."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return max(1, round(recipe.train.epochs * math.ceil(num_rows / recipe.train.batch_size)))


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
        *_on_lengths(recipe, lengths),
        *_on_settings(recipe, trainable),
        *_on_disk(recipe, trainable),
        *_on_bare_rows(lengths),
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
        places = tuple(islice(rows, NAMED_PLACES))
        where = places[0] if places else ""
        yield Note(found.code, found.level, found.message, where, found.remedy, found.source, found.count, places)


LOSSES = {
    "truncate": "their ends are cut off",
    "head_tail": "their middle is left out",
    "windows": "their windows leave a part unread",
}
"""What a row loses that is too long, by `train.long_text`."""


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
    low, high = USUAL_RATES[recipe.method.kind]
    if rate == 0:
        yield Note(
            "rate-zero", "stop", "the learning rate is 0: nothing would move", remedy="train.learning_rate: auto"
        )
    elif not low <= rate <= high:
        message = f"a learning rate of {rate:g} is outside the usual {low:g} to {high:g} for {recipe.method.kind}"
        source = HU if recipe.method.kind == "lora" else DEVLIN
        yield Note("rate-unusual", "warn", message, remedy="train.learning_rate: auto", source=source)
    if trainable == 0:
        yield Note("nothing-moves", "stop", "no weight would move", remedy="choose another method or its layers")


def _on_disk(recipe: Recipe, trainable: int) -> Iterator[Note]:
    needed = int(FREE_SPACE_FACTOR * (KEEP + 2) * trainable * 12)
    free = folders.free_bytes(Path(recipe.output))
    if free < needed:
        message = f"checkpoints will need about {needed:,} bytes, {free:,} are free"
        yield Note("disk", "stop", message, where=recipe.output, remedy="free some space or choose another output")


def _on_bare_rows(lengths: Mapping[str, Lengths]) -> Iterator[Note]:
    for name, found in lengths.items():
        if found.bare:
            message = f"{found.bare} {name} rows have no tokens beside special ones: the model sees nothing of them"
            yield Note("no-tokens", "warn", message, count=found.bare)
