"""Parquet and Arrow files, row group by row group and batch by batch. Called in the guarded child only.

Every batch is validated in full before a cell of it is touched: offsets that point outside of their buffer are how a
crafted file reads other memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunesmith.data.columns import short
from tunesmith.data.files import open_bytes, sign_of
from tunesmith.data.readers import RawRow, RowFile
from tunesmith.errors import DataError

BATCH_ROWS = 256
MOST_ROWS_A_BYTE = 100
FREE_ROWS = 1_000_000
"""A file may hold a million rows whatever its size, above that 100 for each of its bytes."""

_ENDS = b"PAR1"
_FILE = b"ARROW1"


def parquet_rows(file: RowFile) -> Iterator[RawRow]:
    """Rows of a Parquet file; only the wanted columns are decoded."""
    with _opened(file) as source, _errors_named(file, "Parquet"):
        head = source.read(512)
        if head[:4] != _ENDS:
            raise _other_kind(file, head, "Parquet", "PAR1")
        source.seek(0)
        table = pq.ParquetFile(source)
        names = _names(file, table.schema_arrow)
        _require_in_proportion(file, table.metadata.num_rows)
        batches = table.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=False)
        yield from _rows(file, batches, names)


def arrow_rows(file: RowFile) -> Iterator[RawRow]:
    """Rows of an Arrow file (Feather 2) or of an Arrow stream."""
    with _opened(file) as source, _errors_named(file, "Arrow"):
        head = source.read(512)
        source.seek(0)
        if head.startswith(b"FEA1"):
            raise DataError("a Feather file of version 1", str(file.path), "write it again with version 2")
        if head.startswith(_FILE):
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        elif head.startswith(b"\xff\xff\xff\xff"):
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        else:
            raise _other_kind(file, head, "Arrow", "ARROW1")
        names = _names(file, reader.schema)
        yield from _rows(file, batches, names)


@contextmanager
def _opened(file: RowFile) -> Iterator[Any]:
    """The file's bytes with a place to seek in; an archive is unpacked beside memory first."""
    if not file.packed:
        with pa.OSFile(str(file.path), "rb") as source:
            yield source
        return
    with tempfile.TemporaryFile() as unpacked:
        with open_bytes(file.path, packed=True) as archive:
            shutil.copyfileobj(archive, unpacked, 1 << 20)
        unpacked.seek(0)
        with pa.PythonFile(unpacked, "r") as source:
            yield source


@contextmanager
def _errors_named(file: RowFile, kind: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, ValueError, TypeError, KeyError, OverflowError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        remedy = "is it whole? Write or fetch it again"
        raise DataError(f"no {kind} file that can be read ({said})", str(file.path), remedy) from None


def _other_kind(file: RowFile, head: bytes, kind: str, mark: str) -> DataError:
    other = sign_of(head)
    is_other = f"; it is {other}" if other and not head.startswith(b"PAR1" if kind == "Parquet" else b"ARROW1") else ""
    if not head:
        return DataError("no rows: the file is empty", str(file.path), "is this the right file?")
    why = f"no {kind} file (it does not begin with {mark}{is_other})"
    return DataError(why, str(file.path), "is it named right?")


def _names(file: RowFile, schema: pa.Schema) -> list[str]:
    """The columns to decode. All names are noted in the file."""
    doubled = [name for name, times in Counter(schema.names).items() if times > 1]
    if doubled:
        raise DataError(f"column {short(doubled[0])!r} is there twice", str(file.path), "give each column its own name")
    file.columns = list(schema.names)
    return [name for name in schema.names if file.wanted is None or name in file.wanted]


def _require_in_proportion(file: RowFile, rows: int) -> None:
    size = os.stat(file.path).st_size
    if rows > max(FREE_ROWS, MOST_ROWS_A_BYTE * size):
        why = f"{rows:,} rows in {size:,} bytes"
        raise DataError(why, str(file.path), "no file of texts is so small: is it a trap?")


def _rows(file: RowFile, batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[RawRow]:
    number = 0
    for whole in batches if names else ():
        _require_in_proportion(file, number + whole.num_rows)
        if whole.schema.names != names:
            whole = whole.select(names)
        whole.validate(full=True)
        for start in range(0, whole.num_rows, BATCH_ROWS):
            batch = whole.slice(start, BATCH_ROWS)
            columns = [_cells(column) for column in batch.columns]
            for index, cells in enumerate(zip(*columns, strict=True), start=1):
                yield RawRow(number + index, dict(zip(names, cells, strict=True)))
            number += batch.num_rows


def _cells(column: pa.Array) -> list[Any]:
    """A column's cells as Python has them. An infinite number becomes a text: JSON has none, and null would hide it."""
    cells: list[Any] = column.to_pylist()
    if column.type in (pa.float32(), pa.float64()) and pc.any(pc.is_inf(column)).as_py():
        return [repr(cell) if cell in (float("inf"), float("-inf")) else cell for cell in cells]
    return cells
