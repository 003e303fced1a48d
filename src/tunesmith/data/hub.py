"""Rows of a data set on a hub, by the `datasets` library: `hub:owner/name[@revision][:split]`.

Only its Parquet, JSON, CSV and text files are read (datasets 4 and later runs no loading scripts). The library is
imported when such a data set is first named, and keeps to HF_HUB_OFFLINE.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.data.readers import RawRow, RowFile
from tunesmith.errors import DataError
from tunesmith.recipe.data import HUB

_FORM = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>[\w.\[\]%:-]+))?")


def hub_rows(file: RowFile) -> Iterator[RawRow]:
    """The rows of a data set on a hub. Classes that are kept as numbers come under their names.

    Raises:
        DataError: no such data set, revision or split, or no way to reach it.
    """
    reference = str(file.path)
    form = _FORM.fullmatch(reference.removeprefix(HUB))
    if form is None:
        raise DataError("not a data set on a hub", reference, f"write {HUB}owner/name, then @revision, then :split")
    name, split = form["name"], form["split"] or file.split
    if Path(name).exists():
        raise DataError(f"a folder {name!r} lies here too", reference, "name its files, or call from another folder")
    found = _load(reference, name, form["revision"], split)
    file.columns = list(found.column_names)
    kept = [column for column in file.columns if file.wanted is None or column in file.wanted]
    found = found.select_columns(kept)
    classes = {column: feature.names for column in kept if hasattr(feature := found.features[column], "int2str")}
    file.notes += [f"{reference}: numbers in {column!r} are read as the names of classes" for column in classes]
    file.notes.append(f"{reference}: split {split!r}" + ("" if form["revision"] else ", at its newest revision"))
    for number, values in enumerate(found, start=1):
        yield RawRow(number, {column: _named(classes.get(column), cell) for column, cell in values.items()})


def _load(reference: str, name: str, revision: str | None, split: str) -> Any:
    try:
        from datasets import Dataset, load_dataset

        found = load_dataset(name, revision=revision, split=split)
        if not isinstance(found, Dataset):
            raise ValueError(f"{split!r} is not one split")
        return found
    except Exception as error:  # the library raises errors of every kind, of its own and of what it stands on
        said = " ".join(str(error).split())[:300]
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
        remedy = "connect to the network, or fetch the data set elsewhere and name its files here"
        if offline:
            remedy = "HF_HUB_OFFLINE is set: unset it, or name files instead (only what was fetched before is found)"
        raise DataError(f"could not be fetched ({type(error).__name__}: {said})", reference, remedy) from None


def _named(classes: list[str] | None, cell: Any) -> Any:
    """A class number as its name; -1 is how hubs mark a row without one."""
    if classes is None:
        return cell
    if isinstance(cell, list):
        return [_named(classes, item) for item in cell]
    return classes[cell] if isinstance(cell, int) and 0 <= cell < len(classes) else None
