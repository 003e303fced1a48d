"""Where a run has a teacher: the student that is cut from it, and the task in which it is heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.data.loading import hash_of
from tunesmith.data.rows import Row
from tunesmith.devices import Devices
from tunesmith.errors import ModelError
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base, find_base
from tunesmith.models.students import stack, student_of
from tunesmith.open import Run
from tunesmith.recipe import Recipe, Teacher
from tunesmith.recipe.columns import Column
from tunesmith.recipe.methods import KINDS
from tunesmith.tasks.distillation import Distilled

REMEDY = "tune a teacher on the same rows for the same task, or leave it out"
MEANINGS = {"labels": "its labels", "mean": "means of its scores", "deviation": "deviations of its scores",
            "scheme": "signs of its tags"}  # fmt: skip
"""What two models must have learned alike for an output of one to mean the same as that of the other."""


def start_of(recipe: Recipe, task: Any, devices: Devices, reference: str | None = None) -> Base:
    """What training starts from: the recipe's model (or `reference` in its place), or what is cut from its teacher.

    Raises:
        ModelError: it is not found, or no such student can be cut from the teacher.
    """
    teacher = recipe.teacher
    if teacher is None or teacher.layers is None:
        return find_base(reference or recipe.starts_from)
    _require_same_task(Run(teacher.model), task)
    whole = find_base(teacher.model)
    return student_of(
        whole, teacher.layers, recipe.task.kind, devices.stored, lambda: task.load(whole, recipe.seed, devices.stored)
    )


def with_teacher(recipe: Recipe, task: Any, loaded: Loaded, devices: Devices) -> Any:
    """The task with the recipe's teacher in it; the task itself if there is none.

    Raises:
        ModelError: the teacher's answers are not about the same things, or it reads other numbers than the student.
    """
    if recipe.teacher is None:
        return task
    run = Run(recipe.teacher.model)
    _require_same_task(run, task)
    teacher = run.load(devices)
    where = str(run.folder.path)
    _require_same_preparation(loaded.processor, teacher.processor, where)
    if recipe.teacher.hidden > 0:
        _require_same_width(loaded, teacher, where)
    return Distilled(task, teacher, recipe.teacher)


def hashes_of(teacher: Teacher | None) -> dict[str, str]:
    """SHA-256 of all files that have a say in what the teacher answers."""
    return find_base(teacher.model).hashes() if teacher else {}


def may_know(teacher: Teacher, test: Sequence[Row], columns: Sequence[Column]) -> bool:
    """Whether some of these test rows may have been shown to the teacher in training: all but the very rows that were
    its own sealed test."""
    sealed = Run(teacher.model).manifest["data"].get("test", {})
    return bool(test) and sealed.get("rows_sha256") != hash_of(test, columns)


def _require_same_task(run: Run, task: Any) -> None:
    tuned_by = run.card["method"]["kind"]
    if not KINDS[tuned_by].facts.is_base:
        remedy = "use one that was tuned by full, last-layers, lora or another that can be merged"
        raise ModelError(f"a teacher tuned by {tuned_by} is not for this yet", str(run.folder.path), remedy)
    mine, theirs, where = task.settings, run.card["task"], str(run.folder.path)
    for name in ("kind", "target", "objective"):
        asked, given = getattr(mine, name, None), theirs.get(name, getattr(mine, name, None))
        if asked != given:
            raise ModelError(f"teacher: its task's {name} is {given}, this recipe's is {asked}", where, REMEDY)
    learned = task.learned()
    for name, meaning in MEANINGS.items():
        asked, given = learned.get(name), run.card["learned"].get(name)
        if asked != given:
            told = _other_labels(asked, given) if name == "labels" else f"{given}, and of these rows {asked}"
            raise ModelError(f"teacher: {meaning} are others: {told}", where, REMEDY)


def _other_labels(mine: Sequence[str], theirs: Sequence[str]) -> str:
    only_mine = [label for label in mine if label not in theirs]
    only_theirs = [label for label in theirs if label not in mine]
    told = [f"{who} alone: {', '.join(some[:5])}{', ...' if len(some) > 5 else ''}"
            for who, some in (("in these rows", only_mine), ("the teacher's", only_theirs)) if some]  # fmt: skip
    return "; ".join(told) or "they come in another order"


def _require_same_preparation(mine: Any, theirs: Any, where: str) -> None:
    """Both get the same numbers, so both must read them alike."""
    if not hasattr(mine, "get_vocab"):
        if not np.array_equal(_pixels(mine), _pixels(theirs)):
            raise ModelError("teacher: it prepares images in another way than the student", where, REMEDY)
        return
    ours, other = mine.get_vocab(), theirs.get_vocab()
    differing = len(ours.items() ^ other.items())
    if differing:
        message = f"teacher: its tokenizer is another than the student's ({differing:,} tokens have another number)"
        raise ModelError(message, where, "teacher and student must read the same tokens: take a student of its family")
    unread = [name for name in mine.model_input_names if name not in theirs.model_input_names]
    if unread:
        raise ModelError(f"teacher: it does not take what the student reads: {', '.join(unread)}", where, REMEDY)


def _pixels(processor: Any) -> Any:
    from PIL import Image

    ramp = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3) * 37 % 251
    return processor(images=[Image.fromarray(ramp.astype(np.uint8))], return_tensors="np")["pixel_values"]


def _require_same_width(student: Loaded, teacher: Loaded, where: str) -> None:
    for loaded in (student, teacher):
        stack(loaded.model)
    mine, theirs = (getattr(loaded.model.config, "hidden_size", None) for loaded in (student, teacher))
    if mine != theirs:
        message = f"teacher.hidden: its layers are {theirs} wide, those of the student {mine}"
        raise ModelError(message, where, "teacher.hidden: 0, or a student as wide (teacher.layers cuts one)")
