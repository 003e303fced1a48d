"""The recipe: every choice that a run can make, on one typed, frozen, closed page. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tunesmith.recipe.base import Settings
from tunesmith.recipe.classification import Classification, ImageClassification, TextClassification
from tunesmith.recipe.data import SOURCES, Data, with_paths
from tunesmith.recipe.judge import Deploy, Judge, Machine, require_sharing
from tunesmith.recipe.methods import (
    BitFit,
    Dora,
    Full,
    GradualUnfreezing,
    Head,
    Houlsby,
    Ia3,
    LastLayers,
    Lora,
    Method,
    Pfeiffer,
    Prefix,
    Prompt,
    Qlora,
)
from tunesmith.recipe.rehearsal import Rehearsal, require_keepable, require_rehearsable
from tunesmith.recipe.tasks import (
    KEEP_THEIR_HEAD,
    LanguageModeling,
    QuestionAnswering,
    SentenceSimilarity,
    Task,
    TokenClassification,
)
from tunesmith.recipe.teacher import TEACHER, WITHOUT_TEACHER, Teacher, require_teachable
from tunesmith.recipe.train import Train
from tunesmith.recipe.writing import Summarization, Translation

__all__ = [
    "TEACHER",
    "WITHOUT_TEACHER",
    "BitFit",
    "Classification",
    "Data",
    "Deploy",
    "Dora",
    "Full",
    "GradualUnfreezing",
    "Head",
    "Houlsby",
    "Ia3",
    "ImageClassification",
    "Judge",
    "LanguageModeling",
    "LastLayers",
    "Lora",
    "Machine",
    "Method",
    "Pfeiffer",
    "Prefix",
    "Prompt",
    "Qlora",
    "QuestionAnswering",
    "Recipe",
    "Rehearsal",
    "SentenceSimilarity",
    "Settings",
    "Stage",
    "Summarization",
    "Task",
    "Teacher",
    "TextClassification",
    "TokenClassification",
    "Train",
    "Translation",
]


WITHOUT_STAGES = "without-stages"
"""The baseline of a recipe with stages: the same training without them."""


class Stage(Settings):
    """A training of its own that comes before the recipe's."""

    task: Task = TextClassification()
    """What a row is."""

    data: Data
    """The rows."""

    method: Method = Full()
    """Which weights move."""

    train: Train = Train()
    """How long and how fast."""

    judge: Judge = Judge()
    """What decides."""

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        require_fitting(self.task, self.train, self.judge)
        require_general(self.task, self.data)
        require_keepable(self.task, self.data)
        require_method(self.task, self.method)
        if self.method.kind != "auto" and not self.method.facts.is_base:
            raise ValueError(f"method: the next training cannot begin from what {self.method.kind} leaves; use lora")
        return self


def require_fitting(task: Any, train: Train, judge: Judge, more_baselines: tuple[str, ...] = ()) -> None:
    """Raise ValueError, its key first, where a task has no such metric, way with long texts, or baseline."""
    if judge.primary not in ("auto", *task.primaries):
        raise ValueError(f"judge.primary: this task's metrics are {', '.join(task.primaries)} (or auto)")
    if not task.long_texts:
        for name in ("max_length", "long_text"):
            if getattr(train, name) != "auto":
                raise ValueError(f"train.{name}: this task has no use for it, since its rows have no tokens")
    elif train.long_text not in ("auto", *task.long_texts):
        fit = " or ".join(task.long_texts)
        raise ValueError(f"train.long_text: {train.long_text} is not for this task; write {fit} (or auto)")
    fitting, asked = (*task.baselines, *more_baselines), judge.baselines
    if isinstance(asked, list) and (other := [name for name in asked if name not in fitting]):
        raise ValueError(f"judge.baselines: {', '.join(other)} is none of this task's: {', '.join(fitting)}")


def require_general(task: Any, data: Data) -> None:
    """Raise ValueError, its key first, where texts of the language at large are named for a task whose model has no
    head left that could be asked about them."""
    if data.general is not None and task.target != "language":
        raise ValueError(
            f"data.general: only for language-modeling, which asks for the texts themselves, not {task.kind}"
        )


def require_method(task: Any, method: Any) -> None:
    """Raise ValueError, its key first, where a task's models cannot have a method, whatever the base."""
    if method.kind != "auto" and task.kind in method.facts.not_for:
        raise ValueError(f"method.kind: {method.kind} is not for {task.kind}: {method.facts.not_for[task.kind]}")
    if getattr(method, "head_first", None) and task.kind in KEEP_THEIR_HEAD:
        raise ValueError(f"method.head_first: the head of {task.kind} comes with the base: nothing to learn first")


class Recipe(Settings):
    """What to fine-tune, on what, how, and by what it is judged."""

    model: Annotated[str, Field(min_length=1)]
    """The base: a hub id (optionally `id@revision`), a folder, an earlier run folder, or `package:NAME` for weights
    inside an installed Python package."""

    stages: list[Stage] = Field(default_factory=list)
    """Trainings that come first, one after the other, each from the model of the one before and each a run folder in
    `stages/`: the language of a domain, then the task. The recipe's own task comes last, and is judged against itself
    without the stages, too (the baseline `without-stages`)."""

    task: Task = TextClassification()
    """What a row is and how an answer is scored."""

    data: Data
    """The rows."""

    method: Method = Full()
    """Which weights move."""

    teacher: Teacher | None = None
    """A tuned model to learn from beside the labels, and to cut a smaller one from."""

    rehearsal: Rehearsal | None = None
    """Earlier tasks that are not to be forgotten."""

    train: Train = Train()
    """How long and how fast."""

    judge: Judge = Judge()
    """What decides."""

    deploy: Deploy = Deploy()
    """What an answer may cost."""

    machine: Machine = Machine()
    """Where it runs."""

    track: list[Literal["tensorboard", "trackio", "mlflow", "wandb"]] = Field(default_factory=list)
    """Experiment trackers that read along, each in a process of its own: one that fails costs a warning, never the run.
    Their stores lie in the run folder; without a variable of theirs that says otherwise nothing leaves this machine."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds the head, the order of rows and dropout. The split does not depend on it."""

    output: str = "auto"
    """The run folder. `auto`: runs/NAME beside the recipe, NAME being the recipe's own."""

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        taught = (TEACHER, WITHOUT_TEACHER) if self.teacher else ()
        require_fitting(self.task, self.train, self.judge, (*((WITHOUT_STAGES,) if self.stages else ()), *taught))
        require_general(self.task, self.data)
        require_keepable(self.task, self.data)
        require_method(self.task, self.method)
        for method in (self.method, *(stage.method for stage in self.stages)):
            require_sharing(self.machine, method)
        if self.teacher:
            require_teachable(self)
        if self.rehearsal:
            require_rehearsable(self)
        return self

    @property
    def baselines(self) -> list[str]:
        """The names of what the result is compared with."""
        if self.judge.baselines == "off":
            return []
        if self.judge.baselines == "auto":
            return [*self.task.baselines, *([WITHOUT_STAGES] if self.stages else [])]
        return list(self.judge.baselines)

    @property
    def starts_from(self) -> str:
        """The model that the recipe's own training starts from: the base, or what the last stage made of it."""
        return self.stage(len(self.stages) - 1).output if self.stages else self.model

    def stage(self, number: int) -> Recipe:
        """A stage, counted from 0, as a recipe of its own."""
        stage = self.stages[number]
        return Recipe(
            model=self.stage(number - 1).output if number else self.model,
            **{name: getattr(stage, name) for name in Stage.model_fields},
            machine=self.machine,
            seed=self.seed,
            output=os.path.join(self.output, "stages", f"{number + 1}-{stage.task.kind}"),
        )

    def without_stages(self) -> Recipe:
        """The recipe's own training from the base itself, judged by nothing but itself."""
        judge = self.judge.but(baselines="off")
        output = os.path.join(self.output, "stages", WITHOUT_STAGES)
        return self.but(stages=[], data=self._unkept, judge=judge, deploy=Deploy(), track=[], output=output)

    def without_teacher(self) -> Recipe:
        """The recipe's own training of the same student, but for the teacher, which it does not hear: by the same path,
        so without the rewrites that `hidden` excludes."""
        assert self.teacher is not None
        train = self.train.but(rewrites="off") if self.teacher.hidden > 0 else self.train
        unheard = self.teacher.but(alpha=0.0, hidden=0.0)
        judge, output = self.judge.but(baselines="off"), os.path.join(self.output, WITHOUT_TEACHER)
        own = {
            "model": self.starts_from,
            "stages": [],
            "teacher": unheard,
            "train": train,
            "judge": judge,
            "output": output,
        }
        return self.but(**own, data=self._unkept, deploy=Deploy(), track=[])

    @property
    def _unkept(self) -> Data:
        """The data of a training beside: rows are copied to one place alone."""
        return self.data.but(keep_rows=0)

    @property
    def earlier(self) -> list[Recipe]:
        """The stages, as recipes of their own."""
        return [self.stage(number) for number in range(len(self.stages))]

    @property
    def beside(self) -> list[Recipe]:
        """Trainings that are runs of their own and whose results the recipe's own is compared with."""
        made = {WITHOUT_STAGES: self.without_stages, WITHOUT_TEACHER: self.without_teacher}
        return [make() for name, make in made.items() if name in self.baselines]

    @property
    def sources(self) -> list[Data]:
        """All data that is read."""
        return [self.data, *(stage.data for stage in self.stages)]

    def with_paths(self, change: Any) -> Self:
        """A copy in which `change` was applied to every path (and to `model` where that is a path)."""
        stages = [stage.but(data=moved(stage.data, change)) for stage in self.stages]
        teacher = self.teacher and self.teacher.but(model=change(self.teacher.model))
        runs = [change(run) for run in self.rehearsal.runs] if self.rehearsal else []
        model = change(self.model) if is_path(self.model) else self.model
        return self.but(
            rehearsal=self.rehearsal and self.rehearsal.but(runs=runs),
            data=moved(self.data, change),
            stages=stages,
            teacher=teacher,
            model=model,
            output=change(self.output) if self.output != "auto" else "auto",
        )

    def anchored(self, folder: str | os.PathLike[str]) -> Self:
        """Paths made absolute, seen from `folder`; `model` becomes a path if such a folder exists there."""
        root = Path(folder).absolute()
        model = anchored_model(self.model, root)
        teacher = self.teacher and self.teacher.but(model=str(root / os.path.expanduser(self.teacher.model)))
        if teacher and teacher.layers is not None:
            model = teacher.model
        return self.but(model=model, teacher=teacher).with_paths(
            lambda path: os.path.normpath(root / os.path.expanduser(path))
        )

    def relative_to(self, folder: str | os.PathLike[str]) -> Self:
        """Paths written as seen from `folder`, so that recipe, data and runs can move together."""
        root = Path(folder).absolute()
        return self.with_paths(lambda path: relative_path(path, root))


def moved(data: Data, change: Any) -> Data:
    """Data with `change` applied to every path."""
    return data.but(**{key: with_paths(getattr(data, key), change) for key in SOURCES})


def anchored_model(model: str, root: Path) -> str:
    """A model reference made a path if such a folder exists, seen from `root`."""
    return str(root / model) if (root / model).is_dir() else model


def is_path(model: str) -> bool:
    """Whether a model reference names a folder rather than a hub id or a package."""
    return model.startswith((".", "/", "~")) or Path(model).is_dir()


def relative_path(path: str, root: Path) -> str:
    """A path as seen from `root`, so written that nobody takes it for a hub id."""
    relative = os.path.relpath(path, root)
    return relative if relative.startswith(".") else f"./{relative}"
