"""From a recipe to everything that training needs, with all that can be said about it before it costs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tunesmith import methods, preflight, rewrites, tasks
from tunesmith.choices import Choice, choose, choose_target, steps_of, total_steps
from tunesmith.data.batches import Order
from tunesmith.data.findings import Finding
from tunesmith.data.loading import Splits
from tunesmith.data.material import Material, read_material
from tunesmith.data.rows import Row, as_text
from tunesmith.data.sensitive import mask, mask_all, mask_beside, mask_names
from tunesmith.devices import Devices, seed_everything
from tunesmith.errors import DataError, Fault, ModelError, ResourceError
from tunesmith.fitting import Voice
from tunesmith.growing import has_one_head, load_grown
from tunesmith.lengths import Lengths, count_lengths
from tunesmith.methods.contract import Span
from tunesmith.methods.head_first import require_new_head
from tunesmith.models import layers
from tunesmith.models.layers import count_parameters
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.preflight import Note
from tunesmith.recipe import Recipe
from tunesmith.tasks.contract import Draw, Example, Limit, length_of
from tunesmith.tasks.long_texts import UNLIMITED
from tunesmith.teaching import may_know, start_of, with_teacher

SHOWN_ROWS = 8
KUMAR = "Kumar et al. 2022, arXiv:2202.10054"


@dataclass
class Start:
    """What is settled before any row is encoded. `recipe` has no `auto` left; `choices` says what each came to."""

    recipe: Recipe
    devices: Devices
    splits: Splits
    task: Any
    method: Any
    base: Base
    loaded: Loaded
    choices: list[Choice]

    @property
    def limit(self) -> Limit:
        if not self.recipe.task.long_texts:
            return Limit(UNLIMITED)
        assert isinstance(self.recipe.train.max_length, int) and self.recipe.train.long_text != "auto"
        return Limit(self.recipe.train.max_length, self.recipe.train.long_text)


@dataclass
class Work(Start):
    """The things of a run."""

    examples: dict[str, list[Example]]
    cut_rows: dict[str, int]
    notes: list[Note]
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    """What the frozen base makes of the rows of a split, by the identity of its examples; made when first asked for."""

    first_rows: Sequence[int] | None = None
    """Training rows of the first step, where these are not simply the first of an order of its own."""

    voice: Voice = field(default_factory=Voice)
    """Who is told how long work goes."""

    @property
    def steps(self) -> int:
        return total_steps(self.recipe, len(self.examples["train"]))


def prepare(recipe: Recipe, devices: Devices, voice: Voice) -> Work:
    """Read, split, load, apply the method, resolve every `auto`, encode, and note what there is to note."""
    voice.stage("reading the data")
    material = read_material(recipe)
    return encode(settle(recipe, material, devices, voice), material, voice)


def encode(start: Start, material: Material, voice: Voice) -> Work:
    """Encode the rows, and note what there is to note."""
    voice.stage("encoding the rows")
    task, processor, limit = start.task, start.loaded.processor, start.limit
    splits = start.splits.named()
    examples = {name: task.encode(rows, processor, limit) for name, rows in splits.items()}
    lengths = {name: count_lengths(rows, examples[name], task, processor, limit) for name, rows in splits.items()}
    examples |= {"general": task.encode(start.splits.general, processor, limit)} if start.splits.general else {}
    cut_rows = {name: found.cut for name, found in lengths.items()}
    notes = note(start, material.find(), lengths)
    return Work(**vars(start), examples=examples, cut_rows=cut_rows, notes=notes, voice=voice)


NEW_HEAD = "new-head"


def settle(
    recipe: Recipe,
    material: Material,
    devices: Devices,
    voice: Voice,
    reference: str | None = None,
    learned: Mapping[str, Any] | None = None,
) -> Start:
    """Load the model (the recipe's, or `reference` in its place), apply the method, resolve every `auto`.

    Args:
        learned: what the model's outputs mean, where that is known and not for these rows to tell.
    """
    splits, task = material.splits, tasks.build(material.task)
    if learned is None:
        with _told_of_growth(recipe):
            task.learn(splits.train)
    else:
        task.recall(learned)
    voice.stage("loading the model")
    base = start_of(recipe, task, devices, reference)
    grows = has_one_head(recipe)
    loaded = load_grown(recipe, task, base, devices) if grows else task.load(base, recipe.seed, devices.stored)
    recipe, task_choices = choose_target(recipe, task.settings)
    task = with_teacher(recipe, task, loaded, devices)
    models, virtual = (loaded, *task.others), recipe.method.virtual_tokens
    fitting = _fitting_rewrites(recipe, models, devices)
    depth, longest = len(layers.blocks(loaded.model)), longest_input(loaded, virtual)
    recipe, choices = choose(recipe, splits, task, base, devices, depth, longest, fitting)
    require_positions(recipe, loaded, virtual)
    if recipe.teacher:
        require_positions(recipe, task.teacher, who="the teacher")
    for one in models:
        rewrites.require_fitting(recipe.train.rewrites, one, virtual)
    method = methods.build(recipe.method)
    if getattr(recipe.method, "head_first", None):
        require_new_head(loaded)
    apply_method(method, loaded, recipe.seed, devices, recipe.train.dropout)
    return Start(recipe, devices, splits, task, method, base, loaded, task_choices + choices)


@contextlib.contextmanager
def _told_of_growth(recipe: Recipe) -> Iterator[None]:
    """Where one head serves tasks in turn, rows that no head can be learned from may still be what is meant."""
    try:
        yield
    except DataError as error:
        if has_one_head(recipe):
            remedy = "a head grows by two labels or more at a time: put rows of another label beside these"
            raise DataError(error.message, error.faults[0].where, remedy) from error
        raise


def _fitting_rewrites(recipe: Recipe, models: Sequence[Loaded], devices: Devices) -> tuple[list[str], str]:
    """What fits all models of a step: a batch that is cut for one path may be far too large for the other."""
    if recipe.rehearsal and not has_one_head(recipe):
        return [], "several tasks share one body"
    if recipe.teacher and recipe.teacher.hidden > 0:
        return [], "what the last layer makes of each token is compared with the teacher's"
    found = [rewrites.fitting(loaded, devices.device, recipe.method.virtual_tokens) for loaded in models]
    return min(found, key=lambda fitting: len(fitting[0]))


def note(start: Start, findings: Sequence[Finding], lengths: Mapping[str, Lengths]) -> list[Note]:
    """All notes on a start, with what was found on its rows and the lengths of each split."""
    trainable = count_parameters(start.loaded.model)["trainable"]
    notes = preflight.check(start.recipe, start.splits, findings, lengths, trainable)
    if start.loaded.head_is_new and start.task.needs_head_of_base and start.recipe.method.kind != "head":
        message = "the base has no head for this task: what a new one says at first would spoil what the base knows"
        remedy = "train one with `method: head`, then name that run folder as the model of this recipe"
        notes.append(Note(NEW_HEAD, "stop", message, start.recipe.model, remedy, KUMAR))
    rows, batch = len(start.splits.train), start.recipe.train.batch_size
    span = Span(total_steps(start.recipe, rows), steps_of(1.0, rows, batch), start.recipe.seed)
    notes += [Note(level="info", **asdict(remark)) for remark in start.method.remarks(start.loaded, span)]
    teacher = start.recipe.teacher
    if teacher and may_know(teacher, start.splits.test, start.recipe.task.columns):
        message = "the teacher's own sealed test held other rows: some of these it may have been trained on"
        remedy = "judge on the rows that the teacher was judged on; then nobody has learned them"
        notes.append(Note("teacher-knows-test", "warn", message, teacher.model, remedy))
    return notes


def apply_method(method: Any, loaded: Loaded, seed: int, devices: Devices, dropout: float | None = None) -> None:
    """Apply a method with its own random start a function of the seed alone, and put the model on its device.

    Args:
        dropout: everywhere in the model, in place of what its config says.
    """
    if dropout is not None:
        layers.set_dropout(loaded.model, dropout)
    seed_everything(seed, step=0, rank=0)
    method.apply(loaded)
    loaded.model.to(devices.device)
    loaded.piece_tokens = devices.micro_batch_tokens


def longest_input(loaded: Loaded, virtual_tokens: int = 0) -> int:
    """The most tokens of a row that model and tokenizer both take, beside virtual ones."""
    return int(min(positions_of(loaded) - virtual_tokens, getattr(loaded.processor, "model_max_length", UNLIMITED)))


def positions_of(loaded: Loaded) -> int:
    """The most tokens that the model has places for."""
    positions: int = getattr(loaded.model.config, "max_position_embeddings", None) or UNLIMITED
    for name, module in loaded.model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1  # RoBERTa counts from there
    return positions


def require_positions(recipe: Recipe, loaded: Loaded, virtual: int = 0, who: str = "the model") -> None:
    """Raises ModelError where rows would be left longer than the model has places for."""
    asked, positions = recipe.train.max_length, positions_of(loaded) - virtual
    if asked != "auto" and asked > positions:
        taken = f" beside {virtual} virtual tokens" if virtual else ""
        message = f"train.max_length: {asked:,} tokens, but {who} has places for {positions:,}{taken}"
        raise ModelError(message, remedy=f"write {positions} or less; train.long_text says what becomes of longer rows")


def refuse_stops(notes: Sequence[Note], accepted: Sequence[str]) -> None:
    """Raise DataError (ResourceError for the disk) naming every stop that was not accepted by its code."""
    stops = [note for note in notes if note.level == "stop" and note.code not in accepted]
    if stops:
        faults = [
            Fault(note.where, f"{note.message} [{note.code}]", note.remedy or f"or pass --accept {note.code}")
            for note in stops
        ]
        kind = ResourceError if all(note.code == "disk" for note in stops) else DataError
        raise kind(stops[0].message, faults=faults)


def describe_data(work: Work) -> dict[str, Any]:
    """What the report shows of the data before training: sizes, labels, lengths, the first batch. Nobody sees in it
    what looks like personal data or a secret."""
    golds = {name: [work.task.gold(row) for row in rows] for name, rows in work.splits.named().items()}
    names = _shown_labels(work.task, golds)
    return {
        "splits": {
            name: {
                "rows": len(rows),
                **_describe_targets(work, golds[name], names),
                **_describe_lengths(work, name),
            }
            for name, rows in work.splits.named().items()
        },
        "target": work.recipe.task.target,
        "long_text": work.recipe.train.long_text if work.recipe.task.long_texts else None,
        "max_length": work.limit.tokens if work.recipe.task.long_texts else None,
        "leaked": len(work.splits.leaked),
        "skipped_rows": len(work.splits.skipped),
        "skipped": [str(fault) for fault in work.splits.skipped[:100]],
        "first_batch": first_batch(work),
    }


def _shown_labels(task: Any, golds: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Every label of any split as people may read it: one name for each, in all splits."""
    return mask_names(sorted({label for mine in golds.values() for gold in mine for label in task.classes(gold)}))


def _describe_targets(work: Work, golds: Sequence[Any], names: Mapping[str, str]) -> dict[str, Any]:
    """How often each label occurs; for a number, its quantiles."""
    if work.recipe.task.target == "score":
        points = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
        return {"labels": {}, "quantiles": {str(point): float(np.quantile(golds, point)) for point in points}}
    labels = (label for gold in golds for label in work.task.classes(gold))
    return {"labels": {names[label]: count for label, count in sorted(Counter(labels).items())}}


def _describe_lengths(work: Work, split: str) -> dict[str, Any]:
    """How many rows have how many tokens, and how many lost a part; nothing of rows that have no tokens."""
    lengths = Counter(length_of(example) for example in work.examples[split]) if work.recipe.task.long_texts else {}
    return {"lengths": sorted(lengths.items()), "cut": work.cut_rows[split]}


def first_batch(work: Work) -> list[dict[str, Any]]:
    """Rows of the first step: where each stands, what the model gets of it, and what it is to learn."""
    rows = work.first_rows
    if rows is None:
        rows = Order(len(work.examples["train"]), work.recipe.train.batch_size, work.recipe.seed).rows_of(1)
    return [_shown_example(work, index) for index in rows[:SHOWN_ROWS]]


def said_masked(task: Any, value: Any, row: Row) -> Any:
    """A gold or an answer as people may read it. Pieces of the text hide what is hidden there; labels speak for
    themselves."""
    said, names = task.said(value, row), task.classes(value)
    if said == names or said in names:
        return mask_all(said)
    text = " ".join(as_text(row.get(column.name)) for column in task.settings.columns if column.is_input)
    return mask_beside(said, text)


def _shown_example(work: Work, index: int) -> dict[str, Any]:
    """An encoded training row for people to read. One that holds what nobody should see is encoded once more with
    that masked: no tokenizer tells reliably which tokens a piece of the text became."""
    row, example = work.splits.train[index], work.examples["train"][index]
    inputs = [column.name for column in work.recipe.task.columns if column.is_input]
    masked = replace(row, values={**row.values, **{name: mask_all(row.get(name)) for name in inputs}})
    hides = any(masked.get(name) != row.get(name) for name in inputs)
    if hides:
        [example] = work.task.encode([masked], work.loaded.processor, work.limit)
    return {
        "where": mask(row.where),
        **work.task.seen(work.task.drawn(example, Draw(work.recipe.seed, 0, index)), work.loaded.processor),
        "label": said_masked(work.task, work.task.gold(row), row),
        "masked": hides,
    }
