"""An earlier run looked up again: what it was, and its rows, from its files or from what it kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith import folder as folders
from tunesmith.data.loading import Splits, hash_of
from tunesmith.data.material import Material, read_material
from tunesmith.data.reservoir import read_reservoir
from tunesmith.data.rows import Row
from tunesmith.data.sources import Reading, read_source, stop_or_skip
from tunesmith.errors import DataError, ModelError
from tunesmith.folder import RunFolder
from tunesmith.preflight import Note
from tunesmith.recipe import Data, Recipe
from tunesmith.recipe.reading import read_single
from tunesmith.recipe.rehearsal import REHEARSED


@dataclass
class Recalled:
    """The rows of an earlier task.

    Attributes:
        data: where they were read.
        is_judged: whether the rows that it was judged on are there.
        is_whole: whether all rows that it learned are there.
        notes: what is not as it was.
    """

    material: Material
    data: Data
    is_judged: bool = True
    is_whole: bool = True
    notes: list[Note] = field(default_factory=list)


def read_earlier(run: str) -> Recipe:
    """The recipe of an earlier run.

    Raises:
        ModelError: it is not there, not finished, or not of a kind that can be rehearsed.
    """
    folder, remedy = RunFolder(run), "name a finished run folder"
    if not folder.exists:
        raise ModelError(f"rehearsal.runs: {run}: no run in this folder", remedy=remedy)
    was = read_single(folder.recipe)
    if not folders.read_json(folder.manifest)["finished"]:
        raise ModelError(f"rehearsal.runs: {run}: this run is not finished", remedy=f"`tunesmith resume {run}`")
    if not was.method.facts.is_base:
        message = f"rehearsal.runs: {run}: a run by {was.method.kind}, which no other training can begin from"
        raise ModelError(message, remedy="leave it out; runs by full, lora and others that can be merged are rehearsed")
    if was.task.kind not in REHEARSED:
        remedy = f"leave it out; those that can be rehearsed are {', '.join(REHEARSED)}"
        raise ModelError(f"rehearsal.runs: {run}: a run for {was.task.kind}", remedy=remedy)
    return was


def recall(run: str) -> Recalled:
    """The rows of an earlier run: those of its files; where these are gone or have changed, those that it kept.

    Raises:
        DataError: its files are gone or have changed, and it kept none.
    """
    was, folder = read_earlier(run), RunFolder(run)
    then = folders.read_json(folder.manifest)["data"]
    try:
        material = read_material(was.but(judge=was.judge.but(slices=[])))
        _require_rows(material, then, run)
        return Recalled(material, was.data.but(keep_rows=0))
    except DataError as error:
        found = _recall_unjudged(was, folder, then)
        if found is not None:
            return found
        if not folder.reservoir.exists():
            raise
        return _recall_kept(was, folder, then, error.message)


def _recall_unjudged(was: Recipe, folder: RunFolder, then: Mapping[str, Any]) -> Recalled | None:
    """All rows but those of the test, where these alone are not as they were; else None."""
    if not isinstance(was.data.test, str | list):
        return None
    data = was.data.but(test=None, keep_rows=0)
    try:
        material = read_material(was.but(data=data, judge=was.judge.but(slices=[])))
        _require_rows(material, then, str(folder.path))
    except DataError:
        return None
    return Recalled(material, data, is_judged=False, notes=[_not_judged_again(folder)])


def _not_judged_again(folder: RunFolder) -> Note:
    message = f"{folder.path.name}: the rows that it was judged on are gone: how well it is still done is not known"
    return Note("not-judged-again", "warn", message, str(folder.path), "put back the file of its test rows")


def _require_rows(material: Material, then: Mapping[str, Any], run: str) -> None:
    for split, rows in material.splits.named().items():
        if split in then and hash_of(rows, material.task.columns) != then[split]["rows_sha256"]:
            remedy = "put back the files that it was trained on, or leave the run out"
            raise DataError(f"its {split} rows are no longer those of this run", run, remedy)


def _recall_kept(was: Recipe, folder: RunFolder, then: Mapping[str, Any], why: str) -> Recalled:
    """The rows that a run kept, beside those of its other splits whose files are as they were."""
    columns, where = was.task.columns, str(folder.path)
    readings = {"train": read_reservoir(folder.reservoir, columns)}
    for split in ("validation", "test"):
        found = _unchanged(was, split, then)
        if found is not None:
            readings[split] = found
    rows: dict[str, list[Row]] = {split: reading.rows for split, reading in readings.items()}
    train, validation, test = (rows.get(split, []) for split in ("train", "validation", "test"))
    splits = Splits(
        train, validation, test,
        files={split: reading.digest for split, reading in readings.items()},
        parts={split: reading.hashes for split, reading in readings.items()},
    )  # fmt: skip
    message = f"{folder.path.name}: its files are not as they were ({why}); {len(train):,} rows that it kept stand in"
    notes = [Note("reservoir", "info", message, where, "put the files back to rehearse all rows")]
    is_judged = ("test" if "test" in then else "validation") in readings
    if is_judged:
        message = (
            f"{folder.path.name}: how many of its test rows were among those that it learned is not known any more"
        )
        notes.append(Note("overlap-unknown", "info", message, where))
    else:
        notes.append(_not_judged_again(folder))
    data = was.data.but(
        train=str(folder.reservoir),
        validation=was.data.validation if validation else 0.0,
        test=was.data.test if test else None,
        limit=None,
        keep_rows=0,
    )
    return Recalled(Material(was.task, splits), data, is_judged, is_whole=False, notes=notes)


def _unchanged(was: Recipe, split: str, then: Mapping[str, Any]) -> Reading | None:
    """A split that has files of its own, if they hold the rows that they held; else None."""
    source = getattr(was.data, split)
    if not isinstance(source, str | list):
        return None
    try:
        reading = read_source(source, was.task.columns, was.data.columns, split=split)
        stop_or_skip(reading, was.data.on_bad_row)
    except DataError:
        return None
    return reading if hash_of(reading.rows, was.task.columns) == then[split]["rows_sha256"] else None
