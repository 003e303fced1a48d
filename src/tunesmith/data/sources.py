"""Readers: thin loops over orjson and csv that know the line of every row and survive any bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data.columns import check_cell, map_columns
from tunesmith.data.rows import Row
from tunesmith.errors import DataError, Fault
from tunesmith.recipe.tasks import Column

LARGEST_CELL_CHARACTERS = 50_000_000
SHOWN_FAULTS = 20


@dataclass
class RawRow:
    """A row as the file has it, or the reason why it is none."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass
class Reading:
    """What came out of a file: rows, faults (one for each bad row), notes on how columns were read."""

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_rows(
    path: str | Path, columns: Sequence[Column], named: Mapping[str, str], extra: Sequence[str] = ()
) -> Reading:
    """Read a file's rows under our column names.

    Args:
        path: a .jsonl or .csv file.
        columns: the task's columns; a required one that is missing in a row makes it a bad row.
        named: ours -> theirs.
        extra: further columns of the file to keep under their own names (a group, a slice).

    Raises:
        DataError: the file cannot be read as a whole, has no rows, or lacks a column.
    """
    path = Path(path)
    reading = Reading()
    raws = list(raw_rows(path))
    # Any row may bring a column: JSON rows often leave out what is empty, the first row too.
    found = list(dict.fromkeys(name for raw in raws for name in raw.values))
    mapping: dict[str, str] = {}
    if any(not raw.fault for raw in raws):
        mapping, reading.notes = map_columns(found, columns, named, str(path))
        _require(extra, found, str(path))
    for raw in raws:
        if raw.fault:
            reading.faults.append(Fault(f"{path}:{raw.line}", raw.fault))
        else:
            _add_row(reading, raw, path, columns, mapping, extra)
    if not reading.rows and not reading.faults:
        raise DataError("no rows", str(path), "is this the right file?")
    return reading


def _require(extra: Sequence[str], found: Sequence[str], where: str) -> None:
    for name in extra:
        if name not in found:
            raise DataError(f"no column {name!r}", where, f"there are: {', '.join(found)}")


def _add_row(
    reading: Reading,
    raw: RawRow,
    path: Path,
    columns: Sequence[Column],
    mapping: Mapping[str, str],
    extra: Sequence[str],
) -> None:
    values: dict[str, Any] = {name: raw.values.get(name) for name in extra}
    for column in columns:
        theirs = mapping.get(column.name)
        if theirs is None:
            continue
        value, fault = check_cell(column, raw.values.get(theirs))
        if fault:
            reading.faults.append(Fault(f"{path}:{raw.line}:{theirs}", f"{theirs} {fault}"))
            return
        if value is not None:
            values[column.name] = value
    reading.rows.append(Row(values, str(path), raw.line))


def raw_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file by its ending. Raises DataError for a file that cannot be opened or is of no known kind."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"unknown kind of file {path.suffix!r}", str(path), f"there are: {', '.join(READERS)}")
    if not path.exists():
        raise DataError("no such file", str(path), "paths are relative to the recipe")
    if not path.is_file():
        raise DataError("not a regular file", str(path), "name a file of rows")
    try:
        yield from reader(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path)) from None


def _jsonl(path: Path) -> Iterator[RawRow]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if content:
                yield _json_row(content, number)


def _json_row(content: bytes, number: int) -> RawRow:
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return RawRow(number, fault=f"not valid JSON: {error.msg} (column {error.colno})")
    if not isinstance(values, dict):
        return RawRow(number, fault="not a JSON object ({...}) on one line")
    return RawRow(number, values)


def _csv(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(LARGEST_CELL_CHARACTERS)
    text = _decoded(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if not header or not any(header):
            raise DataError("no header line", f"{path}:1:1", "the first line names the columns")
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise DataError(f"column {doubled[0]!r} is there twice", f"{path}:1", "give each column its own name")
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield _csv_row(header, cells, line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", f"{path}:{reader.line_num}", "is a quote left open?") from None


def _csv_row(header: list[str], cells: list[str], line: int) -> RawRow:
    if len(cells) != len(header):
        return RawRow(line, fault=f"{len(cells)} cells under {len(header)} columns; is a comma or quote left out?")
    return RawRow(line, {name: cell if cell != "" else None for name, cell in zip(header, cells, strict=True)})


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"not UTF-8 (byte {error.start})", f"{path}:{line}", "save the file as UTF-8") from None


READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {".jsonl": _jsonl, ".csv": _csv}


def is_readable(path: Path) -> bool:
    """Whether a file's name says that it is of a kind that can be read."""
    return path.suffix.lower() in READERS


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
