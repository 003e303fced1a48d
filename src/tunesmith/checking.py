"""`check`: what a run would say before it trains, without encoding every row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.data.aside import Aside
from tunesmith.data.findings import Finding
from tunesmith.data.material import read_material
from tunesmith.folder import refuse_output, require_permission
from tunesmith.recipe import Recipe
from tunesmith.trackers import require_installed

if TYPE_CHECKING:
    from tunesmith.choices import Choice
    from tunesmith.preflight import Note


def check(recipe: Recipe) -> tuple[list[Note], list[Choice], Recipe]:
    """Everything that can be said before training: notes, what `auto` came to, and the recipe without `auto`.

    All findings are those of a run, but for rows that are cut: of a large split, how many is estimated by a sample.
    """
    require_permission(Path(recipe.output))
    refuse_output(Path(recipe.output))
    require_installed(recipe.track)
    material = read_material(recipe)
    with Aside(material.find) as findings:
        # Only now, while a child looks at the rows: torch and transformers take as long to import as it does.
        from tunesmith import preparing
        from tunesmith.devices import choose_devices
        from tunesmith.fitting import Voice
        from tunesmith.lengths import estimate_lengths

        devices = choose_devices(recipe.machine, recipe.train.precision)
        start = preparing.settle(recipe, material, devices, Voice())
        columns, processor = start.recipe.task.columns, start.loaded.processor
        lengths = {
            name: estimate_lengths(rows, columns, start.task, processor, start.limit)
            for name, rows in start.splits.named().items()
        }
        found = [Finding(**finding) for finding in findings.result()]
    return preparing.note(start, found, lengths), start.choices, start.recipe
