"""Several tasks brought together in one model for training, and taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith import methods
from tunesmith.data.mixing import MixedOrder
from tunesmith.devices import Devices
from tunesmith.fitting import Held
from tunesmith.models.joint import copy_part, join
from tunesmith.models.loaded import Loaded
from tunesmith.phases import held_of
from tunesmith.preparing import Work, apply_method
from tunesmith.recipe import Train
from tunesmith.tasks.contract import Example
from tunesmith.tasks.multitask import MultiTask, Part, count_per_row


@dataclass
class Together:
    """One model for several tasks. Each task's `loaded` is its view: its own model around the common body."""

    loaded: Loaded
    method: Any
    task: Any

    def examples(self, of_each: Mapping[str, Sequence[Example]]) -> list[Example]:
        """The rows of all tasks, the first task's first, each marked as its task's own."""
        return [example for name in self.task.parts for example in self.task.marked(name, of_each[name])]

    def view(self, name: str) -> Loaded:
        return self.task.parts[name].loaded


def bring_together(
    views: Mapping[str, Loaded],
    tasks: Mapping[str, Any],
    per_row: Mapping[str, float],
    settings: Any,
    seed: int,
    devices: Devices,
    dropout: float | None,
) -> Together:
    """Join freshly loaded models of several tasks and put a method on what came of it.

    Args:
        per_row: what a row of each task counts in its loss.
        settings: of the method.
    """
    joint = join(views)
    method = methods.build(settings)
    apply_method(method, joint, seed, devices, dropout)
    return Together(joint, method, MultiTask({name: Part(tasks[name], views[name], per_row[name]) for name in views}))


def join_works(works: Mapping[str, Work]) -> Together:
    """Bring the tasks of several works together. Their models are let go: what answers is each one's view from now on,
    until it is taken apart."""
    first = next(iter(works.values()))
    recipe, devices = first.recipe, first.devices
    per_row, views = dict[str, float](), dict[str, Loaded]()
    for name, work in works.items():
        per_row[name] = count_per_row(work.task, work.loaded, work.examples["train"])
        work.loaded = views[name] = work.task.load(work.base, work.recipe.seed, devices.stored)
    tasks = {name: work.task for name, work in works.items()}
    return bring_together(views, tasks, per_row, recipe.method, recipe.seed, devices, recipe.train.dropout)


def stand_alone(work: Work, view: Loaded) -> None:
    """Give a work a model of its own again, with what its view has learned."""
    alone = work.task.load(work.base, work.recipe.seed, work.devices.stored)
    apply_method(work.method, alone, work.recipe.seed, work.devices, work.recipe.train.dropout)
    copy_part(view, alone)
    work.loaded = alone


def held_of_all(works: Mapping[str, Work]) -> list[Held]:
    """What several tasks are judged by on the way."""
    return [held_of(work, name) for name, work in works.items()]


def course_of(train: Train, order: MixedOrder) -> dict[str, int]:
    """Steps and intervals of a training whose epochs are those of several tasks."""
    evaluate = order.steps_per_epoch if train.evaluate_every == "auto" else train.evaluate_every
    return {
        "steps": train.steps or max(1, round(train.epochs * order.steps_per_epoch)),
        "evaluate_every": evaluate,
        "checkpoint_every": evaluate if train.checkpoint_every == "auto" else train.checkpoint_every,
    }


def note_first_rows(works: Sequence[Work], order: MixedOrder) -> None:
    """Tell each work which of its own rows the first step takes."""
    first, offset = order.rows_of(1), 0
    for work, size in zip(works, order.sizes, strict=True):
        work.first_rows = [row - offset for row in first if offset <= row < offset + size]
        offset += size


def order_of(recipe: Any, sizes: Sequence[int], quotas: Sequence[int]) -> MixedOrder:
    return MixedOrder(tuple(sizes), tuple(quotas), recipe.train.batch_size, recipe.seed)
