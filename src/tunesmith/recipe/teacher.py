"""A teacher: a tuned model from whose answers another one, mostly a smaller one, learns."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import Field

from tunesmith.recipe.base import PositiveInt, Settings

TAUGHT = ("text-classification", "image-classification", "token-classification", "language-modeling")
"""Kinds of task whose outputs say how likely each answer is, or are the answer itself: these can be taught."""

TEACHER, WITHOUT_TEACHER = "teacher", "without-teacher"
"""The baselines of a recipe with a teacher: its own answers, and the same training that does not hear it."""


class Teacher(Settings):
    """A tuned model whose answers are learned beside the labels (Hinton et al. 2015, arXiv:1503.02531)."""

    model: Annotated[str, Field(min_length=1)]
    """The run folder of the teacher: tuned for the same task, with the same labels and the same tokenizer (or
    preparation of images). It answers without dropout, and nothing of it moves."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """The logits of both are divided by this before they are compared: higher tells more of the answers that the
    teacher holds for unlikely. Of numbers the answers themselves are compared."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The teacher's share of the loss: alpha times temperature squared times the divergence of the student's answers
    from the teacher's, and 1 - alpha times the task's own loss."""

    hidden: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Added to the loss so many times: 1 minus the cosine of what the last layers of both make of each token (Sanh et
    al. 2019, arXiv:1910.01108). Both must be equally wide. 0: not compared."""

    layers: PositiveInt | None = None
    """The student is the teacher itself with so many of its layers, evenly spaced from the first to the last (Sanh et
    al. 2019), its head included; `model` then names the teacher too. null: the student is `model`, as it is."""


def require_teachable(recipe: Any) -> None:
    """Raise ValueError, its key first, where a recipe's task, method or model is not for its teacher."""
    teacher: Teacher = recipe.teacher
    if recipe.task.kind not in TAUGHT:
        raise ValueError(f"teacher: not for {recipe.task.kind} yet, only for {', '.join(TAUGHT)}")
    if teacher.hidden > 0 and isinstance(recipe.train.rewrites, list) and recipe.train.rewrites:
        told = "compares every token of the last layer, which the rewrites do not compute; write off (or auto)"
        raise ValueError(f"train.rewrites: teacher.hidden {told}")
    if teacher.hidden > 0 and recipe.method.kind == "prompt":
        raise ValueError("teacher.hidden: not for method prompt, whose last layer has more tokens than the teacher's")
    if teacher.layers is None:
        return
    if recipe.stages:
        raise ValueError("teacher.layers: a student that is cut from its teacher has no stages of its own before it")
    if os.path.normpath(recipe.model) != os.path.normpath(teacher.model):
        raise ValueError("teacher.layers: the student is cut from the teacher, so `model` must name the same folder")
    if recipe.method.kind != "auto" and recipe.method.facts.is_adapter:
        told = "its result is whole weights, and an adapter keeps none of its base; write full, last-layers or head"
        raise ValueError(f"method: {recipe.method.kind} is not for a student that is cut (teacher.layers): {told}")
