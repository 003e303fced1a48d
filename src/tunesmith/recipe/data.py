"""Where rows come from and how they are split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.base import PositiveInt, Settings, Share


class Data(Settings):
    """Files of rows (.jsonl, .csv), how their columns are called, and what is held back to judge by."""

    train: str
    """The rows to learn from. A path, relative to the recipe."""

    validation: str | Share = 0.1
    """A file, or the share split off `train` by the hash of the input (so that equal inputs never straddle)."""

    test: str | None = None
    """Sealed rows: scored once, after training. Every further look is counted in the run folder."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name: the name in your files. Only where they differ."""

    group: str | None = None
    """A column whose equal values never straddle a split: a patient, a case, an author."""

    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` names every bad row and ends with exit code 3; `skip` counts and names them and goes on."""

    limit: PositiveInt | None = None
    """Use only this many rows of `train` (spread over the file by hash): a first, small run."""
