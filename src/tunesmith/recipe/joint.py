"""A recipe of several tasks that are learned at once, with one body and a head for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from tunesmith.recipe import Recipe, anchored_model, is_path, moved, relative_path
from tunesmith.recipe.base import Settings
from tunesmith.recipe.data import Data
from tunesmith.recipe.judge import Deploy, Judge, Machine
from tunesmith.recipe.methods import Full, Method
from tunesmith.recipe.tasks import Task, TextClassification
from tunesmith.recipe.train import Train

JOINED = ("text-classification", "token-classification", "question-answering", "image-classification")
"""Kinds of task whose models are a body and a head of their own on it, so that they can share the body."""

NOT_JOINED = {
    "prefix": "its virtual tokens stand before one task's rows",
    "prompt": "its virtual tokens stand before one task's rows",
    "qlora": "each task's model would be quantised by itself",
}
"""Methods that several tasks cannot have together, and why."""

ALONE = "alone"
"""The baseline of a task among several: the same training on its rows alone."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Member(Settings):
    """One of the tasks that share a body."""

    task: Task = TextClassification()
    """What a row is."""

    data: Data
    """The rows."""

    weight: Annotated[float, Field(gt=0)] | None = None
    """How often rows of this task are taken, against the weights of the others. null: by its number of rows and
    `temperature`; either all tasks have a weight, or none."""

    judge: Judge = Judge()
    """What decides. The baseline `alone`, only where it is asked for by name, is the same training on the rows of this
    task alone: a run of its own in `alone/`."""


class JointRecipe(Settings):
    """Several tasks, one body, a head for each.

    An epoch takes as many rows as all tasks have together; a batch holds rows of several. A row weighs alike whatever
    its task. Each task becomes a run folder of its own in `tasks/`, judged as any run; what they share (checkpoints,
    steps, evaluations) stands above.
    """

    model: Annotated[str, Field(min_length=1)]
    """The base: a hub id (optionally `id@revision`), a folder, an earlier run folder, or `package:NAME` for weights
    inside an installed Python package."""

    tasks: Annotated[dict[Name, Member], Field(min_length=2)]
    """The tasks by names of your own."""

    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """How evenly tasks are mixed: each has a share of the rows in proportion to its number of rows to the power of
    1 / temperature. 1: by size, every row once an epoch; the higher, the more even (small tasks are then repeated)."""

    method: Method = Full()
    """Which weights move. `auto`, `prefix`, `prompt` and `qlora` are not for several tasks."""

    train: Train = Train()
    """How long and how fast. Early stopping and the best step go by the mean of the tasks' primary metrics."""

    machine: Machine = Machine()
    """Where it runs."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds heads, the order of rows and dropout. The splits do not depend on it."""

    output: str = "auto"
    """The run folder. `auto`: runs/NAME beside the recipe, NAME being the recipe's own."""

    @model_validator(mode="after")
    def _can_share(self) -> Self:
        kinds = {member.task.kind for member in self.tasks.values()}
        for name, member in self.tasks.items():
            if member.task.kind not in JOINED:
                raise ValueError(f"tasks.{name}.task: {member.task.kind} cannot share a body; {', '.join(JOINED)} can")
        if "image-classification" in kinds and len(kinds) > 1:
            raise ValueError("tasks: a body reads images or texts, not both")
        if self.method.kind == "auto":
            raise ValueError("method.kind: auto goes by the rows of one task; name a method, full or lora, say")
        if reason := NOT_JOINED.get(self.method.kind):
            raise ValueError(f"method.kind: {self.method.kind} is not for several tasks: {reason}")
        if self.train.refit:
            raise ValueError("train.refit: not for several tasks")
        if isinstance(self.train.rewrites, list):
            raise ValueError("train.rewrites: none is for several tasks yet; leave it out")
        if self.machine.sharding != "none":
            raise ValueError("machine.sharding: not for several tasks yet; each process holds the whole body")
        given = [name for name, member in self.tasks.items() if member.weight is not None]
        if 0 < len(given) < len(self.tasks):
            lacking = next(name for name in self.tasks if name not in given)
            raise ValueError(f"tasks.{lacking}.weight: missing, and {given[0]} has one: give all or none")
        if given and self.temperature != 1:
            raise ValueError("temperature: it goes by sizes, and the tasks have weights: give one of the two")
        for name in self.tasks:
            self._check(name)
        return self

    def _check(self, name: str) -> None:
        """What holds for a recipe of one task holds for each. Raises ValueError, its key first."""
        try:
            self.member(name)
        except ValidationError as error:
            fault = str(error.errors()[0]["ctx"]["error"])
            within = f"tasks.{name}." if fault.startswith(("task", "data", "judge")) else ""
            raise ValueError(f"{within}{fault}") from None

    def member(self, name: str) -> Recipe:
        """A task's own part as a recipe: what its run folder in `tasks/` says it was."""
        member = self.tasks[name]
        asked = member.judge.baselines
        judge = member.judge
        if isinstance(asked, list):
            judge = judge.but(baselines=[baseline for baseline in asked if baseline != ALONE])
        train = self.train.but(rewrites="off")
        return self._recipe(member, train, judge, os.path.join(self.output, "tasks", name))

    def alone(self, name: str) -> Recipe:
        """The same training on a task's rows alone, judged by nothing but itself."""
        member = self.tasks[name]
        judge = member.judge.but(baselines="off")
        unkept = member.but(data=member.data.but(keep_rows=0))  # rows are copied to one place alone
        return self._recipe(unkept, self.train, judge, os.path.join(self.output, ALONE, name))

    def _recipe(self, member: Member, train: Train, judge: Judge, output: str) -> Recipe:
        return Recipe(
            model=self.model, task=member.task, data=member.data, method=self.method, train=train, judge=judge,
            deploy=Deploy(), machine=self.machine, seed=self.seed, output=output,
        )  # fmt: skip

    @property
    def earlier(self) -> list[Recipe]:
        """Nothing comes before."""
        return []

    @property
    def beside(self) -> list[Recipe]:
        """Tasks that are to be trained by themselves, too."""
        return [self.alone(name) for name in self.tasks if self.wants_alone(name)]

    @property
    def track(self) -> list[str]:
        """No tracker reads along yet."""
        return []

    def wants_alone(self, name: str) -> bool:
        """Whether a task is to be trained by itself, too."""
        asked = self.tasks[name].judge.baselines
        return isinstance(asked, list) and ALONE in asked

    @property
    def sources(self) -> list[Data]:
        """All data that is read."""
        return [member.data for member in self.tasks.values()]

    def with_paths(self, change: Any) -> Self:
        """A copy in which `change` was applied to every path (and to `model` where that is a path)."""
        tasks = {name: member.but(data=moved(member.data, change)) for name, member in self.tasks.items()}
        model = change(self.model) if is_path(self.model) else self.model
        return self.but(tasks=tasks, model=model, output=change(self.output) if self.output != "auto" else "auto")

    def anchored(self, folder: str | os.PathLike[str]) -> Self:
        """Paths made absolute, seen from `folder`; `model` becomes a path if such a folder exists there."""
        root = Path(folder).absolute()
        return self.but(model=anchored_model(self.model, root)).with_paths(
            lambda path: os.path.normpath(root / os.path.expanduser(path))
        )

    def relative_to(self, folder: str | os.PathLike[str]) -> Self:
        """Paths written as seen from `folder`, so that recipe, data and runs can move together."""
        root = Path(folder).absolute()
        return self.with_paths(lambda path: relative_path(path, root))


AnyRecipe = Recipe | JointRecipe


def page_of(values: Mapping[str, Any]) -> type[AnyRecipe]:
    """Which kind of recipe raw values are meant to be."""
    return JointRecipe if "tasks" in values else Recipe
