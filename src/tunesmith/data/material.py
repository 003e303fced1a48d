"""What a recipe trains and is judged on, before any model is known."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.data import checks
from tunesmith.data.findings import Finding
from tunesmith.data.loading import Splits, column_names, load_splits
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe
from tunesmith.recipe.tasks import Task


@dataclass(frozen=True)
class Material:
    """The rows of a recipe and the task with its target worked out from their columns."""

    task: Task
    splits: Splits

    def find(self) -> list[Finding]:
        """What the data checks say of the rows."""
        return checks.find_all(self.splits.named(), self.task.columns)


def read_material(recipe: Recipe) -> Material:
    """Read the files and split the rows.

    Raises:
        RecipeError: where the task has settings that its target has no use for.
        DataError: with every bad row named.
    """
    unknown = recipe.task.target == "auto"
    task = recipe.task.settled(column_names(recipe.data.train) if unknown else (), recipe.data.columns)
    if faults := list(task.idle()):
        raise RecipeError(faults[0].message, faults=faults)
    return Material(task, load_splits(recipe.data, task.columns, recipe.judge.slices, recipe.train.refit))
