"""`check`: what a run would say before it trains, without encoding every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.data.aside import Aside
from tunesmith.data.findings import Finding
from tunesmith.data.material import read_material
from tunesmith.folder import refuse_output, require_permission
from tunesmith.recipe import Recipe
from tunesmith.recipe.joint import AnyRecipe, JointRecipe
from tunesmith.trackers import require_installed

if TYPE_CHECKING:
    from tunesmith.choices import Choice
    from tunesmith.preflight import Note


def check(recipe: AnyRecipe) -> tuple[list[Note], list[Choice], AnyRecipe]:
    """Everything that can be said before training: notes, what `auto` came to, and the recipe without `auto`.

    All findings are those of a run, but for rows that are cut: of a large split, how many is estimated by a sample.
    """
    require_permission(Path(recipe.output))
    refuse_output(Path(recipe.output))
    require_installed(recipe.track)
    return look_ahead(recipe)


def look_ahead(recipe: AnyRecipe) -> tuple[list[Note], list[Choice], AnyRecipe]:
    """What can be said before the first stage begins, of each and of the recipe's own training; of several tasks, of
    each by itself. All are looked at on the base that they begin from: what an earlier stage will make of it is not
    there yet."""
    if isinstance(recipe, JointRecipe):
        return _look_at_each(recipe)
    told: list[Note] = []
    for number in range(len(recipe.stages)):
        before = [stage.task.kind for stage in recipe.stages[:number]]
        stage = recipe.stage(number)
        notes, _, _ = _look(stage, before, recipe.model)
        name = f"stage {number + 1}, {stage.task.kind}"
        told += [replace(note, message=f"{name}: {note.message}") for note in notes]
    notes, choices, settled = _look(recipe, [stage.task.kind for stage in recipe.stages], recipe.model)
    return told + notes, choices, settled


def _look_at_each(recipe: JointRecipe) -> tuple[list[Note], list[Choice], AnyRecipe]:
    told: list[Note] = []
    chosen: dict[str, Choice] = {}
    for name in recipe.tasks:
        notes, choices, _ = _look(recipe.member(name), [], recipe.model)
        told += [replace(note, message=f"{name}: {note.message}") for note in notes]
        chosen |= {choice.key: choice for choice in choices if choice.key in COMMON}
    return told, list(chosen.values()), recipe


COMMON = ("train.learning_rate", "train.precision", "machine.device", "machine.threads", "method.alpha")
"""What is chosen for several tasks alike."""


def _look(recipe: Recipe, before: Sequence[str], reference: str) -> tuple[list[Note], list[Choice], Recipe]:
    """Notes, choices and the recipe without `auto`, of its own training alone.

    Args:
        before: the kinds of task of the stages before it; a head that one of them makes is not missed here.
        reference: the model to look with.
    """
    material = read_material(recipe)
    with Aside(material.find) as findings:
        # Only now, while a child looks at the rows: torch and transformers take as long to import as it does.
        from tunesmith import preparing
        from tunesmith.devices import choose_devices
        from tunesmith.earlier_runs import read_earlier
        from tunesmith.fitting import Voice
        from tunesmith.lengths import estimate_lengths

        for earlier in recipe.rehearsal.runs if recipe.rehearsal else ():
            read_earlier(earlier)
        devices = choose_devices(recipe.machine, recipe.train.precision)
        start = preparing.settle(recipe, material, devices, Voice(), reference)
        columns, processor = start.recipe.task.columns, start.loaded.processor
        lengths = {
            name: estimate_lengths(rows, columns, start.task, processor, start.limit)
            for name, rows in start.splits.named().items()
        }
        found = [Finding(**finding) for finding in findings.result()]
    notes = preparing.note(start, found, lengths)
    known = [note for note in notes if not (note.code == preparing.NEW_HEAD and recipe.task.kind in before)]
    return known, start.choices, start.recipe
