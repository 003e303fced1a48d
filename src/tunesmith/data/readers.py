"""Readers: thin loops over csv and orjson that know the place of every row and survive any bytes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tunesmith.data.columns import listing, short
from tunesmith.data.files import BY_LINE, encoding_of, not_utf8, open_bytes, unchanged
from tunesmith.data.json_text import JsonFault, doubled_key, parse
from tunesmith.errors import DataError, Fault

LARGEST_CELL_CHARACTERS = 50_000_000
LARGEST_LINE = 100_000_000
LARGEST_DOCUMENT_BYTES = 2_000_000_000
SEPARATORS = {"csv": ",", "tsv": "\t"}
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(slots=True)
class RawRow:
    """A row as the file has it, or the reason why it is none. `column` is where in the row, a name or a number."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    column: str = ""
    remedy: str = ""


@dataclass
class RowFile:
    """A file of rows while it is read.

    Attributes:
        kind: csv, tsv, json, jsonl, parquet, arrow, hub or folder (of images).
        packed: whether it is gzipped.
        wanted: the columns that are asked for; kinds that store by column give no others. None: all.
        split: which split of a data set on a hub.
        columns: the file's own columns, known with its first row. Empty where every row names its own.
        notes: what was not taken as it stands.
    """

    path: Path
    kind: str
    packed: bool = False
    wanted: frozenset[str] | None = None
    split: str = "train"
    columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def counts_rows(self) -> bool:
        """Whether places are numbers of rows, not of lines."""
        return self.kind not in BY_LINE

    def place(self, line: int, column: str = "") -> str:
        place = f"{self.path}:{'row ' * self.counts_rows}{line}"
        return f"{place}:{column}" if column else place

    def place_of(self, raw: RawRow, column: str = "") -> str:
        """Where a row stands; a row of a folder is a file of its own."""
        return str(self.file_of(raw)) if self.kind == "folder" else self.place(raw.line, column)

    def file_of(self, raw: RawRow) -> Path:
        return self.path / raw.values["image"] if self.kind == "folder" else self.path

    def fault(self, raw: RawRow) -> Fault:
        return Fault(self.place_of(raw, raw.column), raw.fault, raw.remedy)


def rows_here(file: RowFile) -> Iterator[RawRow]:
    """The rows of a file, parsed in this process. Raises DataError for what is wrong with the file as a whole."""
    try:
        with unchanged(file.path):
            yield from _READERS[file.kind](file)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", str(file.path)) from None


def _jsonl(file: RowFile) -> Iterator[RawRow]:
    with open_bytes(file.path, file.packed) as source:
        for number, line in enumerate(_byte_lines(file, source), start=1):
            if len(line) >= LARGEST_LINE:
                raise DataError(f"a line of more than {LARGEST_LINE // 1_000_000} MB", file.place(number))
            if not line.isspace():
                row = json_row(line, number)
                if number == 1 and row.fault and line.lstrip().startswith(b"["):
                    raise DataError(f"{row.fault}", file.place(1), "one JSON list of all rows is a .json file")
                yield row


def _byte_lines(file: RowFile, source: io.BufferedReader) -> Iterator[bytes]:
    """Lines as UTF-8, whatever Unicode encoding they come in."""
    encoding = _said_encoding(file, source)
    if encoding == "utf-8-sig":
        source.read(3)
    if encoding.startswith("utf-8"):
        yield from iter(partial(source.readline, LARGEST_LINE), b"")
        return
    try:
        with io.TextIOWrapper(source, encoding, newline="\n") as text:
            for line in iter(partial(text.readline, LARGEST_LINE), ""):
                yield line.encode("utf-8")
    except UnicodeError as error:
        raise _not_encoded(file, encoding, error) from None


def _not_encoded(file: RowFile, encoding: str, error: UnicodeError) -> DataError:
    if encoding.startswith("utf-8"):
        return not_utf8(file.path, file.packed)
    said = getattr(error, "reason", str(error))
    return DataError(f"not {encoding.upper()}, as its first bytes say ({said})", str(file.path), "save it as UTF-8")


def _said_encoding(file: RowFile, source: io.BufferedReader) -> str:
    encoding = encoding_of(source, file.path, file.packed)
    if not encoding.startswith("utf-8"):
        file.notes.append(f"{file.path}: read as {encoding.upper()}, as its byte order mark says")
    return encoding


def json_row(content: bytes, number: int) -> RawRow:
    """One line of JSON Lines."""
    try:
        values = parse(content)
    except JsonFault as fault:
        return RawRow(number, fault=fault.message, column=str(fault.column), remedy=fault.remedy)
    if not isinstance(values, dict):
        return RawRow(number, fault="not a JSON object ({...}) on one line")
    twice = doubled_key(content, len(values))
    if twice:
        key = short(twice)
        return RawRow(number, fault=f"the key {key!r} is there twice", column=key, remedy="keep one")
    return RawRow(number, values)


def _json(file: RowFile) -> Iterator[RawRow]:
    with open_bytes(file.path, file.packed) as source:
        encoding = _said_encoding(file, source)
        content = _whole(file, source)
    if encoding != "utf-8":
        try:
            content = content.decode(encoding).encode("utf-8")
        except UnicodeError as error:
            raise _not_encoded(file, encoding, error) from None
    if not content or content.isspace():
        return
    try:
        document = parse(content)
    except JsonFault as fault:
        if _is_lines(content):
            file.notes.append(f"{file.path}: holds JSON Lines (one row a line), and is read so")
            file.kind = "jsonl"
            lines = enumerate(content.split(b"\n"), start=1)
            yield from (json_row(line, number) for number, line in lines if line and not line.isspace())
            return
        raise DataError(fault.message, f"{file.path}:{fault.line}:{fault.column}", fault.remedy) from None
    rows = _rows_of_document(file, document)
    keys = 0 if file.columns else sum(len(row) for row in rows if isinstance(row, dict))
    keys += len(document) if isinstance(document, dict) else 0
    twice = doubled_key(content, keys)
    if twice:
        raise DataError(f"the key {short(twice)!r} is there twice in one object", str(file.path), "keep one")
    for number, row in enumerate(rows, start=1):
        yield RawRow(number, row) if isinstance(row, dict) else RawRow(number, fault="not a JSON object ({...})")


def _whole(file: RowFile, source: io.BufferedReader) -> bytes:
    content = bytearray()
    while piece := source.read(1 << 20):
        content += piece
        if len(content) > LARGEST_DOCUMENT_BYTES:
            limit = f"more than {LARGEST_DOCUMENT_BYTES // 1_000_000_000} GB in one JSON text"
            raise DataError(limit, str(file.path), "write JSON Lines (.jsonl): one row a line")
    return bytes(content)


def _is_lines(content: bytes) -> bool:
    """Whether the first line is a whole object, and more comes after it."""
    first, _, rest = content.lstrip().partition(b"\n")
    try:
        return bool(rest.strip()) and isinstance(parse(first), dict)
    except JsonFault:
        return False


def _rows_of_document(file: RowFile, document: Any) -> list[Any]:
    """The rows of one JSON text: a list of objects, an object of columns, or an object around a list of objects."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise DataError("neither a list of objects nor an object of lists", str(file.path), "write [{...}, {...}]")
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    around = [name for name, value in lists.items() if value and all(isinstance(item, dict) for item in value)]
    lengths = {len(value) for value in lists.values()}
    if len(around) == 1 and not (len(lists) == len(document) > 1 and len(lengths) == 1):
        file.notes.append(f"{file.path}: rows are read from the list {short(around[0])!r}")
        return list(document[around[0]])
    if len(lists) < len(document) or not document:
        if not lists:
            raise DataError("one object, not a list of rows", str(file.path), "write [{...}, {...}], or name it .jsonl")
        raise DataError(
            f"which list holds the rows? ({listing(list(document))})", str(file.path), "write one list of objects"
        )
    if len(lengths) > 1:
        sizes = listing([f"{name}: {len(value)}" for name, value in lists.items()])
        raise DataError(f"columns of different lengths ({sizes})", str(file.path), "give each column a cell a row")
    file.columns = list(document)
    return [dict(zip(document, cells, strict=True)) for cells in zip(*document.values(), strict=True)]


def _csv(file: RowFile) -> Iterator[RawRow]:
    csv.field_size_limit(LARGEST_CELL_CHARACTERS)
    with open_bytes(file.path, file.packed) as source:
        encoding = _said_encoding(file, source)
        try:
            with io.TextIOWrapper(source, encoding, newline="") as text:
                yield from _cells(file, _text_lines(file, text))
        except UnicodeError as error:
            raise _not_encoded(file, encoding, error) from None


def _text_lines(file: RowFile, text: io.TextIOWrapper) -> Iterator[str]:
    for number, line in enumerate(iter(partial(text.readline, LARGEST_LINE), ""), start=1):
        if len(line) >= LARGEST_LINE:
            raise DataError(f"a line of more than {LARGEST_LINE // 1_000_000} MB", file.place(number))
        yield line


def _cells(file: RowFile, lines: Iterator[str]) -> Iterator[RawRow]:
    first = next(lines, "")
    skipped = 0
    if re.fullmatch(r"sep=.\s*", first):
        separator, skipped = first[4], 1
        file.notes.append(f"{file.path}: its first line names the separator: {_NAMES.get(separator, repr(separator))}")
        first = next(lines, "")
    else:
        separator = _separator(file, first)
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    line = skipped + 1
    try:
        header = _header(file, next(reader, []), line)
        width = len(header)
        line = reader.line_num + skipped + 1
        for cells in reader:
            if len(cells) == width:
                values = {name: cell if cell != "" else None for name, cell in zip(header, cells, strict=True)}
                yield RawRow(line, values)
            elif cells:
                fault = f"{len(cells)} cells under {width} columns; is a separator or quote left out?"
                yield RawRow(line, fault=fault)
            line = reader.line_num + skipped + 1
    except csv.Error as error:
        remedy = 'is a quote left open? A quote inside of a quoted cell is doubled ("")'
        raise DataError(f"not valid CSV ({error})", file.place(line), remedy) from None


def _separator(file: RowFile, first: str) -> str:
    """The separator of a header line: that of the kind, unless there is none of it and some of another."""
    usual = SEPARATORS[file.kind]
    bare = _QUOTED.sub("", first)
    if usual in bare:
        return usual
    counts = {separator: bare.count(separator) for separator in _NAMES}
    found = max(counts, key=lambda separator: counts[separator])
    if not counts[found]:
        return usual
    file.notes.append(f"{file.path}: its columns are separated by {_NAMES[found]}, not by {_NAMES[usual]}")
    return found


def _header(file: RowFile, header: list[str], line: int) -> list[str]:
    where = file.place(line)
    if not any(name.strip() for name in header):
        raise DataError("no header line", f"{where}:1", "the first line names the columns")
    if any("\0" in name for name in header):
        at = ",".join(header).index("\0") + 1
        raise DataError("a NUL character", f"{where}:{at}", "is it UTF-16 without a byte order mark? Save it as UTF-8")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(f"column {short(doubled[0])!r} is there twice", where, "give each column its own name")
    file.columns = header
    return header


def _parquet(file: RowFile) -> Iterator[RawRow]:
    from tunesmith.data.tables import parquet_rows

    return parquet_rows(file)


def _arrow(file: RowFile) -> Iterator[RawRow]:
    from tunesmith.data.tables import arrow_rows

    return arrow_rows(file)


_READERS: dict[str, Callable[[RowFile], Iterator[RawRow]]] = {
    "csv": _csv,
    "tsv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "arrow": _arrow,
}
