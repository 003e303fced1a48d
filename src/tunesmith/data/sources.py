"""From files, globs and data sets on a hub to rows under our column names."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import orjson

from tunesmith.data.columns import Places, listing, map_columns, misfit, read_cell, usual_names
from tunesmith.data.documents import pieces_of
from tunesmith.data.files import kind_of, require_regular, unchanged
from tunesmith.data.guard import guarded_rows, needs_guard
from tunesmith.data.image_folders import folder_rows, holds_images
from tunesmith.data.image_guard import GUARD
from tunesmith.data.images import Picture
from tunesmith.data.readers import SEPARATORS, RawRow, RowFile, rows_here
from tunesmith.data.rows import Row
from tunesmith.data.squad import questions_of
from tunesmith.errors import DataError, Fault
from tunesmith.folder import sha256
from tunesmith.recipe.columns import Column
from tunesmith.recipe.data import HUB

SHOWN_FAULTS = 20
NESTED_KINDS = ("json", "jsonl")
"""Kinds of files in which a row may be an article of questions."""
STREAM_WINDOW = 1000


@dataclass
class Reading:
    """What came out of files: rows, faults (one for each bad row), notes on how they were read.

    Attributes:
        hashes: SHA-256 of each file, in order (of a data set on a hub: of its rows; of a folder of images: of their
            places and bytes), and behind that of a file one of all images that its rows name.
    """

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """One SHA-256 for all files in their order; that of the file where there is one."""
        if len(self.hashes) == 1:
            return self.hashes[0]
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()


@dataclass(frozen=True)
class Wanted:
    """What to take of a file: the task's columns, by which of the file's names, and further ones as they are.

    Attributes:
        columns: the task's columns; a required one that is missing in a row makes it a bad row.
        named: ours -> theirs.
        extra: further columns of the file to keep under their own names (a group, a slice).
        usual: ours -> theirs, for files that have such a column.
    """

    columns: Sequence[Column]
    named: Mapping[str, str]
    extra: Sequence[str] = ()
    usual: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> frozenset[str]:
        """Every column of a file that could be one of these."""
        ours = [name for column in self.columns for name in column.names]
        parts = [
            part for theirs in (*self.named.values(), *self.usual.values()) for part in (theirs, *theirs.split("/"))
        ]
        return frozenset((*ours, *parts, *self.extra))


def files_of(source: str | Sequence[str]) -> list[str]:
    """The files that a source names, in order: paths and hub ids as they stand, globs by sorted name.

    Raises:
        DataError: a glob that no file matches, or a file that is named twice.
    """
    found: list[str] = []
    for name in [source] if isinstance(source, str) else source:
        if name.startswith(HUB) or not glob.has_magic(name) or os.path.lexists(name):
            found.append(name)
            continue
        matches = sorted(path for path in glob.glob(name, recursive=True) if not os.path.isdir(path))
        if not matches:
            raise DataError("no file matches", name, "paths are relative to the recipe; ** stands for any folders")
        found += matches
    twice = next((name for name in found if found.count(name) > 1), None) if len(set(found)) < len(found) else None
    if twice is not None:
        raise DataError("this file is named twice", twice, "its rows would count twice: name it once")
    if not found:
        raise DataError("no files are named")
    return found


def read_source(
    source: str | Sequence[str],
    columns: Sequence[Column],
    named: Mapping[str, str],
    extra: Sequence[str] = (),
    split: str = "train",
    usual: Mapping[str, str] | None = None,
) -> Reading:
    """Read every file of a source (see `files_of`). Each file is mapped for itself.

    Raises:
        DataError: a file cannot be read as a whole, has no rows, or lacks a column.
    """
    try:
        return _read_files(source, Wanted(columns, named, extra, usual or {}), split)
    finally:
        GUARD.close()


def _read_files(source: str | Sequence[str], wanted: Wanted, split: str) -> Reading:
    whole = Reading()
    first: tuple[str, Places] | None = None
    for name in files_of(source):
        one, places = _read_file(name, wanted, split)
        whole.rows += one.rows
        whole.faults += one.faults
        whole.notes += one.notes
        whole.hashes += one.hashes
        if first is not None and places and first[1] and places != first[1]:
            ours = ", ".join(f"{ours}: {'/'.join(theirs)}" for ours, theirs in places.items())
            whole.notes.append(f"{name}: its columns differ from those of {first[0]}; they are read as {ours}")
        first = first or (name, places)
    return whole


def read_rows(
    path: str | Path, columns: Sequence[Column], named: Mapping[str, str], extra: Sequence[str] = ()
) -> Reading:
    """Read one file's rows under our column names. Columns may begin in any row of it.

    Raises:
        DataError: the file cannot be read as a whole, has no rows, or lacks a column.
    """
    return _read_file(str(path), Wanted(columns, named, extra), "train")[0]


def _read_file(name: str, wanted: Wanted, split: str) -> tuple[Reading, Places]:
    reading = Reading()
    file = describe_file(name, wanted, split)
    if file.kind == "hub":
        raws = list(raw_rows(file))
        digest = hashlib.sha256()
        for raw in raws:
            digest.update(orjson.dumps(raw.values, default=str) + b"\n")
        reading.hashes = [digest.hexdigest()]
    elif file.kind == "folder":  # known by its images alone, see below
        raws = list(raw_rows(file))
    else:
        with unchanged(file.path):
            raws = list(raw_rows(file))
            reading.hashes = [sha256(file.path)]
    reading.notes = list(file.notes)
    # Any row may bring a column: JSON rows often leave out what is empty, the first row too.
    found = file.columns or list(dict.fromkeys(name for raw in raws for name in raw.values))
    places: Places = {}
    if file.columns or any(not raw.fault for raw in raws):
        places, notes = _map(file, found, wanted)
        reading.notes += notes
    for raw in raws:
        row = _row(file, raw, wanted, places)
        if isinstance(row, Row):
            reading.rows += pieces_of(row, wanted.columns)
        else:
            reading.faults.append(row)
    if not raws:
        raise DataError("no rows", name, "is this the right file?")
    reading.hashes += _hash_of_pictures(file, reading.rows)
    return reading, places


def _hash_of_pictures(file: RowFile, rows: Sequence[Row]) -> list[str]:
    """One SHA-256 of all images in their order (and of their places, where these say the class); none without any."""
    lines = []
    for row in rows:
        place = os.path.relpath(row.file, file.path) if file.kind == "folder" else ""
        lines += [f"{place}\0{cell.digest}\n" for cell in row.values.values() if isinstance(cell, Picture)]
    return [hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()] if lines else []


def stream_rows(
    source: str | Path | Sequence[str],
    columns: Sequence[Column],
    named: Mapping[str, str],
    extra: Sequence[str] = (),
    split: str = "train",
    notes: list[str] | None = None,
    usual: Mapping[str, str] | None = None,
) -> Iterator[Row | Fault]:
    """Rows one by one in constant memory; a bad row comes as its fault. (A .json file is one text, and held whole.)

    Columns are found in the header, or in the first 1,000 rows of a kind without one. One that begins later is still
    read, unless another column was already taken for it: that is an error, since `read_rows` would read other rows.

    Args:
        notes: filled with what is to be said on how the files were read.
        usual: as in `Wanted`.

    Raises:
        DataError: as `read_source`; after some rows, if what is wrong lies behind them.
    """
    wanted = Wanted(columns, named, extra, usual or {})
    said = notes if notes is not None else []
    for name in files_of(str(source) if isinstance(source, Path) else source):
        file = describe_file(name, wanted, split)
        raws = raw_rows(file)
        first = list(islice(raws, STREAM_WINDOW))
        known = dict.fromkeys(file.columns or (column for raw in first for column in raw.values))
        places, more = _map(file, list(known), wanted) if known else ({}, [])
        if not first:
            raise DataError("no rows", name, "is this the right file?")
        said += [*file.notes, *more]
        for raw in chain(first, raws):
            if not raw.fault and raw.values.keys() - known.keys():
                known |= dict.fromkeys(raw.values)
                places = _map_again(file, raw, list(known), wanted, places)
            yield _row(file, raw, wanted, places)


def _map_again(file: RowFile, raw: RawRow, found: list[str], wanted: Wanted, before: Places) -> Places:
    """The mapping with columns that a late row brought; what was taken must stay as it was."""
    places, _ = _map(file, found, wanted)
    for ours, theirs in before.items():
        if places[ours] != theirs:
            begins = f"column {'/'.join(places[ours])!r} begins here, after {'/'.join(theirs)!r} was read as {ours!r}"
            raise DataError(begins, file.place(raw.line), f"name one under data.columns as `{ours}: THEIR_NAME`")
    return places


def describe_file(name: str, wanted: Wanted | None = None, split: str = "train") -> RowFile:
    """What is known of a file before it is opened. Raises DataError for what is no file of rows."""
    names = None if wanted is None else wanted.names()
    if name.startswith(HUB):
        return RowFile(Path(name), "hub", wanted=names, split=split)
    path = Path(name)
    if os.path.isdir(path) and holds_images(path):  # of a name that is none it says no, where a Path raises
        return RowFile(path, "folder", wanted=names)
    require_regular(path)
    kind, packed = kind_of(path)
    return RowFile(path, kind, packed, names)


def raw_rows(file: RowFile) -> Iterator[RawRow]:
    """The rows of a file as it has them, parsed in a child process where the parser needs guarding."""
    if file.kind == "hub":
        from tunesmith.data.hub import hub_rows

        return hub_rows(file)
    if file.kind == "folder":
        return folder_rows(file)
    raws = guarded_rows(file) if needs_guard(file) else rows_here(file)
    return questions_of(raws, file.counts_rows) if file.kind in NESTED_KINDS else raws


def _map(file: RowFile, found: Sequence[str], wanted: Wanted) -> tuple[Places, list[str]]:
    where = str(file.path)
    usual = usual_names(found, wanted.columns, wanted.usual)
    try:
        places, notes = map_columns(found, wanted.columns, {**usual, **wanted.named}, where)
    except DataError as error:
        if file.kind in SEPARATORS and not wanted.names().intersection(found):
            seems = f"no header line? The first line seems to be a row: {listing(found, 5)}"
            names = SEPARATORS[file.kind].join(column.name for column in wanted.columns if column.required)
            header = Fault(f"{where}:1", seems, f"if so, put the names of the columns above it, for example `{names}`")
            raise DataError(error.message, faults=[header, *error.faults]) from None
        raise
    for name in wanted.extra:
        if name not in found:
            raise DataError(f"no column {name!r}", where, f"there are: {listing(found)}")
    return places, notes


def _row(file: RowFile, raw: RawRow, wanted: Wanted, places: Places) -> Row | Fault:
    if raw.fault:
        return file.fault(raw)
    values = {name: raw.values.get(name) for name in wanted.extra}
    folder = file.path if file.kind == "folder" else file.path.parent
    for column in wanted.columns:
        theirs = places.get(column.name)
        if theirs is None:
            continue
        value, fault = read_cell(column, raw.values, theirs, folder)
        if fault:
            name = "/".join(theirs)
            return Fault(file.place_of(raw, name), f"{name} {fault}")
        if value is not None:
            values[column.name] = value
        if column.about and (fault := misfit(column, values)):
            return Fault(file.place_of(raw, "/".join(theirs)), f"{'/'.join(theirs)} {fault}")
    return Row(values, str(file.file_of(raw)), raw.line, file.counts_rows)


def is_readable(path: Path) -> bool:
    """Whether a file's name says that it is of a kind that can be read."""
    try:
        return bool(kind_of(path))
    except DataError:
        return False


def stop_or_skip(reading: Reading, on_bad_row: str) -> None:
    """With `stop`, bad rows end the run and are all counted; with `skip` they stay listed in the reading.

    Raises:
        DataError: naming the first rows and the number of all.
    """
    if not reading.faults or (on_bad_row == "skip" and reading.rows):
        return
    shown = reading.faults[:SHOWN_FAULTS]
    more = len(reading.faults) - len(shown)
    remedy = "mend them, or set data.on_bad_row: skip to leave them out"
    tail = Fault("", f"{len(reading.faults)} bad rows" + (f" ({more} more not shown)" if more else ""), remedy)
    raise DataError(f"{len(reading.faults)} bad rows", faults=[*shown, tail])
