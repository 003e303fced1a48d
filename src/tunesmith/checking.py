"""`check`: what a run would say before it trains, without encoding every row."""

from __future__ import annotations

from pathlib import Path

from tunesmith.devices import choose_devices
from tunesmith.fitting import Voice
from tunesmith.folder import require_permission
from tunesmith.lengths import estimate_lengths
from tunesmith.preflight import Choice, Note
from tunesmith.preparing import note, refuse_output, settle
from tunesmith.recipe import Recipe
from tunesmith.trackers import require_installed


def check(recipe: Recipe) -> tuple[list[Note], list[Choice], Recipe]:
    """Everything that can be said before training: notes, what `auto` came to, and the recipe without `auto`.

    All findings are those of a run, but for rows that are cut: of a large split, how many is estimated by a sample.
    """
    require_permission(Path(recipe.output))
    refuse_output(recipe)
    require_installed(recipe.track)
    start = settle(recipe, choose_devices(recipe.machine, recipe.train.precision), Voice())
    columns, processor = start.recipe.task.columns, start.loaded.processor
    lengths = {
        name: estimate_lengths(rows, columns, start.task, processor, start.limit)
        for name, rows in start.splits.named().items()
    }
    return note(start, lengths), start.choices, start.recipe
