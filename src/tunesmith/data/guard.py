"""Parsing in a child process: what kills, hangs or bloats a parser ends as a message about the file.

The parent starts `python -m tunesmith.data.guard` with a list of arguments (no shell) and reads JSON lines from its
output (nothing is pickled):

    {"columns": [..], "notes": [..], "kind": ..}         when they are known
    {"rows": [[line, {..}], [line, {}, fault, column, remedy], ..]}
    {"error": {"message", "where", "remedy"}}            the file as a whole is no good
    {"end": true}                                        nothing was lost

The child limits its own memory and processor time before it opens the file. Time on the processor, not on the clock:
whoever reads the rows may take hours over them. A child that neither works nor writes is ended by the parent.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import orjson

from tunesmith import surroundings
from tunesmith.data.files import LARGEST_RATIO
from tunesmith.data.readers import RawRow, RowFile, rows_here
from tunesmith.errors import DataError

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "tunesmith.data.guard")
"""`-P`: the working folder may hold others' files, and nothing is imported from there."""

FIRST_ROWS, MOST_ROWS = 8, 512
"""Rows in one message: few at first, then as many as make about a megabyte."""
BYTES_A_MESSAGE = 1_000_000
LARGEST_JSON_HERE = 64_000_000


@dataclass(frozen=True)
class Limits:
    """What a child may use: bytes of address space, seconds on the processor, seconds of silence."""

    memory: int
    seconds: int
    silence: float

    @classmethod
    def for_file(cls, file: RowFile) -> Limits:
        """In proportion to what the file may hold: 4 GB and 64 bytes a byte, but never more than the machine has; a
        minute and a second for each MB."""
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        size = file.path.stat().st_size * (1 if file.kind == "json" and not file.packed else LARGEST_RATIO)
        seconds = 60 + size // 1_000_000
        return cls(min(4_000_000_000 + 64 * size, machine), seconds, 2.0 * seconds)


def needs_guard(file: RowFile) -> bool:
    """Whether a file is parsed in a child: what pyarrow reads, archives, and JSON that is parsed in one large piece.
    Plain lines are not: csv and orjson see one row at a time, of a known size and depth."""
    large = file.kind == "json" and file.path.stat().st_size > LARGEST_JSON_HERE
    return file.packed or file.kind in ("parquet", "arrow") or large


def guarded_rows(file: RowFile, limits: Limits | None = None) -> Iterator[RawRow]:
    """The rows of a file, parsed in a child. Raises DataError also where the child dies, hangs or needs too much."""
    limits = limits or Limits.for_file(file)
    names = sorted(name for name in file.wanted or () if "\0" not in name)
    arguments = [str(limits.memory), str(limits.seconds), file.kind, "packed" if file.packed else "plain"]
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [*COMMAND, *arguments, "all" if file.wanted is None else "these", str(file.path), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=surroundings.of_child(OMP_NUM_THREADS="1"),
        )
        assert child.stdout is not None
        try:
            ended = False
            for message in _messages(child.stdout, limits, file):
                ended = message.get("end", False)
                yield from _taken(message, file)
            if not ended:
                raise _death(child, file, limits, complaints)
        finally:
            child.kill()
            child.stdout.close()
            child.wait()


def _messages(pipe: IO[bytes], limits: Limits, file: RowFile) -> Iterator[dict[str, Any]]:
    """Lines of the child as they come. A last line without an end is none: its writer died over it."""
    pieces: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(limits.silence):
                why = f"reading it gave nothing for {limits.silence:.0f} seconds"
                raise DataError(why, str(file.path), "is the disk slow, or the file made to hang its reader?")
            chunk = os.read(pipe.fileno(), 1 << 20)
            if not chunk:
                return
            first, *others = chunk.split(b"\n")
            pieces.append(first)
            for other in others:
                yield _message(b"".join(pieces), file)
                pieces = [other]


def _message(line: bytes, file: RowFile) -> dict[str, Any]:
    try:
        message = orjson.loads(line)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict):
        raise DataError("the reader broke down on this file", str(file.path), "is it damaged? Write it again")
    return message


def _taken(message: dict[str, Any], file: RowFile) -> Iterator[RawRow]:
    if "error" in message:
        raise DataError(**message["error"])
    if "columns" in message:
        file.columns, file.notes, file.kind = message["columns"], message["notes"], message["kind"]
    for row in message.get("rows", ()):
        yield RawRow(*row)


def _death(child: subprocess.Popen[bytes], file: RowFile, limits: Limits, complaints: IO[bytes]) -> DataError:
    """Why a child ended without its last word."""
    code = child.wait()
    where = str(file.path)
    if code == -signal.SIGXCPU:
        return DataError(f"reading it took more than {limits.seconds} seconds of processor time", where, TRAP)
    if code < 0:
        name = next((f" ({known.name})" for known in signal.Signals if known == -code), "")
        return DataError(f"the reader died by signal {-code}{name} on this file", where, TRAP)
    complaints.seek(0)
    said = complaints.read().decode("utf-8", "replace").strip().splitlines()
    if said and "MemoryError" in said[-1]:
        return _no_memory(where, limits.memory)
    return DataError(f"the reader ended with code {code}" + (f" ({said[-1][:200]})" if said else ""), where, TRAP)


def _no_memory(where: str, memory: int) -> DataError:
    return DataError(f"reading it needs more than {memory / 1e9:.1f} GB of memory", where, TRAP)


TRAP = "it is damaged or made to harm: write it again from its source, or as .jsonl"


# the child


def main(arguments: Sequence[str]) -> None:
    """Read one file and write its messages. Called by the parent alone."""
    memory, seconds, kind, packed, which, path, *names = arguments
    file = RowFile(Path(path), kind, packed == "packed", None if which == "all" else frozenset(names))
    _limit(int(memory), int(seconds))
    try:
        _write_rows(file)
        _write({"columns": file.columns, "notes": file.notes, "kind": file.kind})
        _write({"end": True})
    except DataError as error:
        _write_error(error)
    except MemoryError:
        _write_error(_no_memory(path, int(memory)))
    sys.stdout.buffer.flush()


def _limit(memory: int, seconds: int) -> None:
    """Limits of this process. A system that has one of them not (macOS has no address limit) goes without it."""
    for kind, amount in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            amount = min(amount, most)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (amount, most))


def _write_rows(file: RowFile) -> None:
    rows = rows_here(file)
    many = FIRST_ROWS
    told = False
    while batch := [_fields(row) for row in islice(rows, many)]:
        if not told:
            _write({"columns": file.columns, "notes": file.notes, "kind": file.kind})
            told = True
        large = _write_batch(batch) > BYTES_A_MESSAGE
        many = max(many // 2, 1) if large else min(many * 2, MOST_ROWS)


def _fields(row: RawRow) -> tuple[Any, ...]:
    return (row.line, {}, row.fault, row.column, row.remedy) if row.fault else (row.line, row.values)


def _write_batch(batch: list[tuple[Any, ...]]) -> int:
    """Write rows, and return how many bytes they took."""
    try:
        line = orjson.dumps({"rows": batch}, default=_plain)
    except TypeError:
        line = orjson.dumps({"rows": [_fields_or_fault(fields) for fields in batch]}, default=_plain)
    sys.stdout.buffer.write(line + b"\n")
    return len(line)


def _fields_or_fault(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    for name, cell in fields[1].items():
        try:
            orjson.dumps(cell, default=_plain)
        except TypeError as error:
            wrong = f"is of a kind that we do not read ({error})"
            return (fields[0], {}, f"{name} {wrong}", name, "write it as text, numbers or lists")
    return fields


def _plain(value: Any) -> Any:
    """What JSON has no form for, where nothing is lost by one."""
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    raise TypeError


def _write_error(error: DataError) -> None:
    fault = error.faults[0]
    said = {"message": fault.message, "where": fault.where, "remedy": fault.remedy}
    _write({"error": {name: text.encode("utf-8", "replace").decode() for name, text in said.items()}})


def _write(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
