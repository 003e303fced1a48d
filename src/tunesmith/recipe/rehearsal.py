"""Settings of a training that keeps earlier tasks in mind."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.recipe.base import Settings, Share

REHEARSED = ("text-classification", "token-classification", "image-classification")
"""Kinds of task whose tuned heads can ride along."""

GROWING = ("text-classification", "image-classification")
"""Kinds of task whose head can take further labels."""

OWN = "own"
"""The name of the recipe's own task beside those of earlier runs."""

_ODD = re.compile(r"[^A-Za-z0-9_-]+")


class Rehearsal(Settings):
    """Earlier tasks that are not to be forgotten while a new one is learned. Their heads ride along on the body that
    moves (or one head serves all), rows of theirs are mixed in, and how well they are still done is measured at the
    end."""

    runs: Annotated[list[str], Field(min_length=1)]
    """Run folders of the earlier tasks, in the order in which they were learned. The recipe's `model` is the last of
    them, usually. Rows are read from the data that each was trained on, or from what it kept (`data.keep_rows`)."""

    head: Literal["own", "shared"] = "own"
    """`own`: each task keeps its head, and who asks says which task it is. `shared`: one head over all labels, which
    nobody has to be told the task for. The head of `model`, which must be one of `runs`, grows by the labels that are
    new; a label of the same name is the same label. For classification with one label each."""

    share: Share = 0.05
    """Of the rows of an epoch, the share that is theirs, shared out among them by their numbers of rows. 0: none; then
    the new task is learned as if they were not there, and what that costs them is still measured."""

    ewc: Annotated[float, Field(ge=0)] = 0.0
    """Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796): half so many times the squared
    distance of each weight of the body to where this training began, weighed by how much it matters to the earlier
    tasks (the empirical Fisher information of 200 training rows of each), is added to the loss. What weighs is a mean
    of squared gradients, so a strength that is felt is a large number. 0: none."""


def name_of(run: str) -> str:
    """What an earlier run is called among the tasks of a training."""
    return _ODD.sub("-", os.path.basename(os.path.normpath(run)))


def require_rehearsable(recipe: Any) -> None:
    """Raise ValueError, its key first, where a recipe cannot keep earlier tasks in mind."""
    if recipe.task.kind not in REHEARSED:
        raise ValueError(f"rehearsal: not for {recipe.task.kind}; its tasks are {', '.join(REHEARSED)}")
    if reason := _obstacle(recipe):
        raise ValueError(f"rehearsal: {reason}")
    if recipe.rehearsal.head == "shared" and (reason := _obstacle_to_growth(recipe.task)):
        raise ValueError(f"rehearsal.head: {reason}")
    _require_names([name_of(run) for run in recipe.rehearsal.runs])


def require_keepable(task: Any, data: Any) -> None:
    """Raise ValueError, its key first, where rows are to be kept that nobody could rehearse."""
    kinds = [kind for kind in REHEARSED if kind != "image-classification"]  # whose rows hold paths, and no pixels
    if data.keep_rows and task.kind not in kinds:
        raise ValueError(f"data.keep_rows: not for {task.kind}; rows of {' and '.join(kinds)} can be kept")


def _obstacle_to_growth(task: Any) -> str:
    """Why a task's head cannot grow; empty where it can."""
    if task.kind not in GROWING:
        return f"one head for all is not for {task.kind}; it is for {' and '.join(GROWING)}"
    if task.target not in ("auto", "label"):
        return f"one head for all needs rows of one label each (target label), not {task.target}"
    if task.class_weights != "off":
        return "one head for all goes without task.class_weights, which the new rows alone would decide"
    return ""


def _obstacle(recipe: Any) -> str:
    reasons = {
        "not with stages; give each task a recipe of its own": bool(recipe.stages),
        "not with a teacher": recipe.teacher is not None,
        "not with train.refit": recipe.train.refit,
        "not with several processes": recipe.machine.processes > 1,
        "not with rewrites that are asked for by name": isinstance(recipe.train.rewrites, list)
        and bool(recipe.train.rewrites)
        and recipe.rehearsal.head == "own",
        f"not with method {recipe.method.kind}": recipe.method.kind in ("prefix", "prompt", "qlora"),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _require_names(names: Sequence[str]) -> None:
    for name in names:
        if name == OWN or names.count(name) > 1:
            raise ValueError(f"rehearsal.runs: tasks go by the names of their folders, and {name!r} is taken")
