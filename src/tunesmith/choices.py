"""What every `auto` comes to, and why."""

from __future__ import annotations

import math
import struct
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from tunesmith.data.loading import Splits
from tunesmith.devices import Devices, memory_bytes
from tunesmith.models.references import Base
from tunesmith.recipe import Recipe
from tunesmith.recipe.methods import KINDS as METHOD_KINDS
from tunesmith.recipe.methods import Head, LastLayers, LowRank
from tunesmith.recipe.tasks import KEEP_THEIR_HEAD

HOWARD = "Howard and Ruder 2018, arXiv:1801.06146"
HU = "Hu et al. 2021, arXiv:2106.09685"

FULL_RATES = ((50e6, 2e-4), (150e6, 5e-5), (400e6, 3e-5), (math.inf, 1e-5))
"""Highest rate for full fine-tuning by parameters of the base: the field's 1e-5..5e-5 for base-size models and
above, more for small ones."""


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


def choose_method(
    rows: int, parameters: int | None, memory_bytes: int | None = None, head_is_new: bool = True
) -> tuple[str, str]:
    """What `method: auto` comes to, and why.

    Args:
        parameters: of the base; None if not known.
        memory_bytes: of the device; None if it is not to count.
        head_is_new: whether the task brings a head; else there is none to teach alone.
    """
    if rows < 100 and not head_is_new:
        return "lora", f"{rows} rows: the fewer weights move, the less is learned by heart ({HU})"
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
    depth: int,
    longest: int,
    rewrites: tuple[list[str], str],
) -> tuple[Recipe, list[Choice]]:
    """Replace every `auto` by its value.

    Args:
        depth: how many layers the model has.
        longest: the most tokens that the model takes.
        rewrites: which fit the model, and why (see `rewrites.fitting`).

    Returns:
        the recipe without `auto`, and what was chosen with its reason.
    """
    choices: list[Choice] = []
    parameters = count_base_parameters(base)
    recipe = _with_method(recipe, choices, len(splits.train), parameters, devices, depth)
    steps_per_epoch = math.ceil(len(splits.train) / recipe.train.batch_size)
    full_rate = next(rate for limit, rate in FULL_RATES if parameters < limit)
    rate = full_rate * recipe.method.facts.rate_factor
    open_choices: list[tuple[str, Any, str]] = [
        ("judge.primary", task.primary(splits.train), "the task's convention"),
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
    open_choices += _of_rank(recipe)
    recipe = _with_head_first(recipe, choices, full_rate)
    return _with_values(recipe, choices, open_choices, steps_per_epoch), choices


def _with_values(
    recipe: Recipe, choices: list[Choice], open_choices: list[tuple[str, Any, str]], steps_per_epoch: int
) -> Recipe:
    """The recipe with these values wherever it says `auto`; what was taken joins the choices."""
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
    return recipe.but(**sections)


def _of_rank(recipe: Recipe) -> list[tuple[str, Any, str]]:
    method = recipe.method
    return [("method.alpha", 2 * method.rank, "twice the rank")] if isinstance(method, LowRank) else []


def _with_head_first(recipe: Recipe, choices: list[Choice], full_rate: float) -> Recipe:
    first = getattr(recipe.method, "head_first", None)
    if first is None or first.learning_rate != "auto":
        return recipe
    rate = full_rate * Head.facts.rate_factor
    choices.append(Choice("method.head_first.learning_rate", rate, "that of method head"))
    return recipe.but(method=recipe.method.but(head_first=first.but(learning_rate=rate)))


def _with_method(
    recipe: Recipe, choices: list[Choice], rows: int, parameters: int, devices: Devices, depth: int
) -> Recipe:
    if recipe.method.kind != "auto":
        return recipe
    head_is_new = recipe.task.kind not in KEEP_THEIR_HEAD
    kind, reason = choose_method(rows, parameters, memory_bytes(devices.device), head_is_new)
    if recipe.teacher and recipe.teacher.layers is not None:
        kind, reason = "full", "a model that lost layers is another one, and all of it has to learn"
    choices.append(Choice("method", kind, reason))
    settings = METHOD_KINDS[kind]()
    if isinstance(settings, LastLayers) and 0 < depth < settings.layers:
        settings = settings.but(layers=depth)
    return recipe.but(method=settings)


def choose_target(recipe: Recipe, settled: Any) -> tuple[Recipe, list[Choice]]:
    """The recipe with the task as it was worked out from columns, rows and model."""
    changed = [name for name in type(settled).model_fields if getattr(settled, name) != getattr(recipe.task, name)]
    told = {"longest_output": "a quarter more than 99 in 100 training targets have", "prompt": "usual for this model"}
    told |= {"target": f"the training file has a column {settled.columns[-1].name!r}", "language": "by its columns"}
    return recipe.but(task=settled), [Choice(f"task.{name}", getattr(settled, name), told[name]) for name in changed]


def total_steps(recipe: Recipe, num_rows: int) -> int:
    """Optimizer steps of the whole course."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return steps_of(recipe.train.epochs, num_rows, recipe.train.batch_size)


def steps_of(epochs: float, num_rows: int, batch_size: int) -> int:
    """Optimizer steps of so many passes over so many rows."""
    return max(1, round(epochs * math.ceil(num_rows / batch_size)))
