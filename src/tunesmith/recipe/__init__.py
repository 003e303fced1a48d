"""The recipe: every choice that a run can make, on one typed, frozen, closed page. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tunesmith.recipe.base import Settings
from tunesmith.recipe.data import Data, with_paths
from tunesmith.recipe.judge import Deploy, Judge, Machine
from tunesmith.recipe.methods import Full, Head, LastLayers, Lora, Method
from tunesmith.recipe.tasks import (
    Classification,
    ImageClassification,
    QuestionAnswering,
    Task,
    TextClassification,
    TokenClassification,
)
from tunesmith.recipe.train import Train

__all__ = [
    "Classification",
    "Data",
    "Deploy",
    "Full",
    "Head",
    "ImageClassification",
    "Judge",
    "LastLayers",
    "Lora",
    "Machine",
    "Method",
    "QuestionAnswering",
    "Recipe",
    "Settings",
    "Task",
    "TextClassification",
    "TokenClassification",
    "Train",
]


class Recipe(Settings):
    """What to fine-tune, on what, how, and by what it is judged."""

    model: Annotated[str, Field(min_length=1)]
    """The base: a hub id (optionally `id@revision`), a folder, an earlier run folder, or `package:NAME` for weights
    inside an installed Python package."""

    task: Task = TextClassification()
    """What a row is and how an answer is scored."""

    data: Data
    """The rows."""

    method: Method = Full()
    """Which weights move."""

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
    def _primary_is_a_metric_of_the_task(self) -> Self:
        allowed = self.task.primaries
        if self.judge.primary not in ("auto", *allowed):
            raise ValueError(f"judge.primary: this task's metrics are {', '.join(allowed)} (or auto)")
        return self

    @model_validator(mode="after")
    def _long_texts_fit_the_task(self) -> Self:
        if not self.task.long_texts:
            for name in ("max_length", "long_text"):
                if getattr(self.train, name) != "auto":
                    raise ValueError(f"train.{name}: this task has no use for it, since its rows have no tokens")
        elif self.train.long_text not in ("auto", *self.task.long_texts):
            fit = " or ".join(self.task.long_texts)
            raise ValueError(f"train.long_text: {self.train.long_text} is not for this task; write {fit} (or auto)")
        return self

    @model_validator(mode="after")
    def _baselines_fit_the_task(self) -> Self:
        fit, asked = self.task.baselines, self.judge.baselines
        if isinstance(asked, list) and (other := [name for name in asked if name not in fit]):
            raise ValueError(f"judge.baselines: {', '.join(other)} is none of this task's: {', '.join(fit)}")
        return self

    def with_paths(self, change: Any) -> Self:
        """A copy in which `change` was applied to every path (and to `model` where that is a path)."""
        data = self.data.but(
            train=with_paths(self.data.train, change),
            validation=with_paths(self.data.validation, change),
            test=with_paths(self.data.test, change),
        )
        model = change(self.model) if is_path(self.model) else self.model
        return self.but(data=data, model=model, output=change(self.output) if self.output != "auto" else "auto")

    def anchored(self, folder: str | os.PathLike[str]) -> Self:
        """Paths made absolute, seen from `folder`; `model` becomes a path if such a folder exists there."""
        root = Path(folder).absolute()
        model = str(root / self.model) if (root / self.model).is_dir() else self.model
        return self.but(model=model).with_paths(lambda path: os.path.normpath(root / os.path.expanduser(path)))

    def relative_to(self, folder: str | os.PathLike[str]) -> Self:
        """Paths written as seen from `folder`, so that recipe, data and runs can move together."""
        root = Path(folder).absolute()
        return self.with_paths(lambda path: _relative(path, root))


def is_path(model: str) -> bool:
    """Whether a model reference names a folder rather than a hub id or a package."""
    return model.startswith((".", "/", "~")) or Path(model).is_dir()


def _relative(path: str, root: Path) -> str:
    relative = os.path.relpath(path, root)
    return relative if relative.startswith(".") else f"./{relative}"
