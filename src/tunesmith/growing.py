"""One head for tasks in turn: it grows by the labels that are new, and no row says which task it is of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tunesmith import tasks
from tunesmith.devices import Devices
from tunesmith.earlier_runs import read_earlier
from tunesmith.errors import RecipeError
from tunesmith.folder import RunFolder, read_json
from tunesmith.models.growth import grown
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe import Recipe

OWN_HEADS = "or rehearsal.head: own, a head for each task"


def has_one_head(recipe: Recipe) -> bool:
    """Whether a recipe's task and the earlier ones share their head."""
    return recipe.rehearsal is not None and recipe.rehearsal.head == "shared"


def load_grown(recipe: Recipe, task: Any, base: Base, devices: Devices) -> Loaded:
    """A base with its head grown by the labels that a task has learned from its rows. From now on the task knows those
    of the base too: these first, in their order, its own new ones behind.

    Raises:
        RecipeError: the base's head cannot grow for this task, or does not know the earlier ones.
    """
    _require_growable(recipe, task, base)
    narrower = tasks.build(task.settings)
    narrower.recall(base.card["learned"])
    had = narrower.labels
    task.recall({**task.learned(), "labels": [*had, *(label for label in task.labels if label not in had)]})
    loaded: Loaded = task.load(base, recipe.seed, devices.stored)
    if task.labels == had:
        return loaded
    return grown(loaded, narrower.load(base, recipe.seed, devices.stored))


def _require_growable(recipe: Recipe, task: Any, base: Base) -> None:
    assert recipe.rehearsal is not None
    _require_one_label(task.settings.target, "this recipe's own rows")
    for run in recipe.rehearsal.runs:
        was = read_earlier(run)
        if was.task.kind != recipe.task.kind:
            message = f"rehearsal.head: {run} is a run for {was.task.kind}, and one head is for tasks of one kind"
            raise RecipeError(message, remedy=f"leave it out, {OWN_HEADS}")
        _require_one_label(was.task.target, f"those of {run}")
    if not any(_is_run(recipe.model, run) for run in recipe.rehearsal.runs):
        message = f"rehearsal.head: the head that grows is that of {recipe.model}, which is none of rehearsal.runs"
        raise RecipeError(message, remedy=f"name the last of the runs as model, {OWN_HEADS}")
    for run in recipe.rehearsal.runs:
        unknown = set(read_json(RunFolder(run).manifest)["labels"]) - set(base.card["labels"])
        if unknown:
            message = f"rehearsal.head: the head of {recipe.model} does not know {len(unknown)} labels of {run}"
            remedy = f"rehearse it with one head in each run of the chain, {OWN_HEADS}"
            raise RecipeError(message, remedy=remedy)


def _require_one_label(target: str, whose: str) -> None:
    if target != "label":
        message = f"rehearsal.head: one head for all needs rows of one label each; {whose} are of target {target}"
        raise RecipeError(message, remedy=f"leave it out, {OWN_HEADS}")


def _is_run(model: str, run: str) -> bool:
    """Whether a recipe's model is a run: its folder, or the model in it."""
    places = [Path(run), Path(run) / "model"]
    return os.path.isdir(model) and any(place.is_dir() and os.path.samefile(model, place) for place in places)
