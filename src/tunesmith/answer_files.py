"""Files of answers: finished windows beside their place, and how they become one file of CSV, JSON lines or Parquet."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from tunesmith import folder as folders
from tunesmith.errors import CheckpointError, RecipeError

Line = dict[str, Any]

STATE, JOINED, COUNTS = "state.json", "joined", "joined.json"


class Parts:
    """`OUT.partial`: a state that says whose answers these are, and a file of JSON lines for each finished window.

    A part is named by its first row and written whole or not at all. When all are there they are joined into one file,
    counted, and that file is renamed to OUT; only then the folder goes.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(f"{out.name}.partial")

    def require_free(self, force: bool, read: Sequence[str]) -> None:
        """Raise RecipeError if OUT must not be written: it is there already, or is what is read."""
        folders.require_permission(self.path)
        if any(place.is_file() for place in self.out.parents):
            raise RecipeError("it lies in a file", str(self.out), "name a file in a folder")
        if self.out.is_dir():
            raise RecipeError("a folder of this name is there", str(self.out), "name a file")
        if not self.out.exists():
            return
        if any(Path(name).exists() and self.out.samefile(name) for name in read):
            raise RecipeError("answers would take the place of the rows they answer", str(self.out))
        if not force and not self.is_joined:
            raise RecipeError("there is a file of this name", str(self.out), "--force replaces it when all is answered")

    @contextlib.contextmanager
    def claimed(self, state: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder for this process alone and for these answers alone. Without a finished part it goes again.

        Raises:
            CheckpointError: it was begun for other answers, is no folder of ours, or another process holds it.
        """
        if self.path.exists() and not self._is_ours():
            raise CheckpointError(
                "this is no folder of answers", str(self.path), "name another output, or move it away"
            )
        with folders.claim(self.path, "this folder of answers"):
            try:
                self._compare(state)
                yield
            finally:
                if not self.is_begun:
                    shutil.rmtree(self.path, ignore_errors=True)

    def _is_ours(self) -> bool:
        if not self.path.is_dir():
            return False
        names = {name for name in os.listdir(self.path) if not name.startswith(".")}
        return not names or STATE in names

    def _compare(self, state: Mapping[str, Any]) -> None:
        place = self.path / STATE
        known = orjson.loads(orjson.dumps(state))
        before = folders.read_json(place) if place.exists() else {}
        if before == known:
            return
        if self.is_begun:
            other = [name for name in known if before.get(name) != known[name]]
            raise CheckpointError(
                f"begun with another {' and '.join(name.replace('_', '-') for name in other) or 'version'}",
                str(self.path),
                "start it as it was begun to go on, or remove this folder to answer anew",
            )
        folders.write_json(place, known)

    def _names(self) -> list[Path]:
        return sorted(self.path.glob("part-*.jsonl"))

    def _part(self, first: int) -> Path:
        return self.path / f"part-{first:015d}.jsonl"

    def holds(self, first: int, rows: int) -> bool:
        """Whether the window of so many rows is finished."""
        part = self._part(first)
        return part.exists() and part.read_bytes().count(b"\n") == rows

    def write(self, first: int, lines: Sequence[Line]) -> None:
        folders.write_lines(self._part(first), list(lines))

    @property
    def is_begun(self) -> bool:
        """Whether something is finished that is worth keeping."""
        return bool(self._names()) or self.is_joined

    @property
    def is_joined(self) -> bool:
        return (self.path / COUNTS).exists()

    def join(self, with_faults: bool, abstains: bool) -> None:
        """All parts as one file, still in the folder, and what is in it."""
        staged = self.path / JOINED
        with folders.disk_errors_named(self.out, sum(part.stat().st_size for part in self._names())):
            WRITERS[kind_of(self.out)](self._names(), staged, with_faults)
            folders.flush_file(staged)
        folders.write_json(self.path / COUNTS, _counts(self._names(), with_faults, abstains))

    def put_in_place(self) -> dict[str, int]:
        """Rename the joined file to OUT and remove the folder; the counts. Does what is left of it to do."""
        counts: dict[str, int] = folders.read_json(self.path / COUNTS)
        staged = self.path / JOINED
        if staged.exists():
            with folders.disk_errors_named(self.out, staged.stat().st_size):
                os.replace(staged, self.out)
            folders.flush_folder(self.out.absolute().parent)
        for file in (*self._names(), self.path / COUNTS, self.path / STATE):  # what says whose it is goes last
            file.unlink(missing_ok=True)
        shutil.rmtree(self.path)
        return counts


def _counts(parts: Sequence[Path], with_faults: bool, abstains: bool) -> dict[str, int]:
    counts = {"rows": 0, **({"faults": 0} if with_faults else {}), **({"abstained": 0} if abstains else {})}
    for part in parts:
        content = part.read_bytes()
        counts["rows"] += content.count(b"\n")
        if with_faults or abstains:
            for line in content.splitlines():
                row = orjson.loads(line)
                for name in counts.keys() & {"faults", "abstained"}:
                    counts[name] += bool(row.get(name.removesuffix("s")))
    return counts


def kind_of(out: Path) -> str:
    kind = out.suffix.lower()
    if kind not in WRITERS:
        raise RecipeError(f"unknown kind of file {kind!r} for answers", str(out), f"there are: {', '.join(WRITERS)}")
    return kind


def _lines_of(part: Path) -> list[Line]:
    return [orjson.loads(line) for line in part.read_bytes().splitlines()]


def _example(parts: Sequence[Path]) -> Line:
    """The first line with an answer: all of a file's answers have its keys."""
    every = itertools.chain.from_iterable(map(_lines_of, parts))
    return next((line for line in every if "fault" not in line), {"row": 0})


def _to_json_lines(parts: Sequence[Path], staged: Path, with_faults: bool) -> None:
    with open(staged, "wb") as file:
        for part in parts:
            file.write(part.read_bytes())


def _to_csv(parts: Sequence[Path], staged: Path, with_faults: bool) -> None:
    names = list(to_cells(_example(parts))) + ["fault"] * with_faults
    with open(staged, "w", encoding="utf-8", newline="") as file:
        writer = _csv_writer(file, names)
        for part in parts:
            writer.writerows(to_cells(line) for line in _lines_of(part))


def _csv_writer(file: IO[str], names: Sequence[str]) -> csv.DictWriter[str]:
    writer = csv.DictWriter(file, fieldnames=names, restval="")
    writer.writeheader()
    return writer


def to_cells(line: Line) -> Line:
    """A line as flat cells: top1, top1_score, ..; other lists and objects as JSON text."""
    cells: Line = {}
    for name, value in line.items():
        if name == "top":
            for rank, likely in enumerate(value, start=1):
                name = likely["label"] if "label" in likely else likely["answer"]
                cells[f"top{rank}"], cells[f"top{rank}_score"] = safe_cell(name), likely["score"]
        elif isinstance(value, list | dict):
            cells[name] = orjson.dumps(value).decode()
        elif isinstance(value, bool):
            cells[name] = str(value).lower()
        else:
            cells[name] = safe_cell(value)
    return cells


def safe_cell(value: Any) -> Any:
    """A cell that a spreadsheet will not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _to_parquet(parts: Sequence[Path], staged: Path, with_faults: bool) -> None:
    """One row group for each window."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scored = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
    places = [("start", pa.int64()), ("end", pa.int64())]
    words, asks = [("word", pa.string()), *places], "answer" in _example(parts)
    kinds = {
        "row": pa.int64(),
        "label": pa.string(),
        "labels": pa.list_(pa.string()),
        "score": pa.float64(),
        "levels": scored,
        "abstained": pa.bool_(),
        "scores": pa.map_(pa.string(), pa.float64()),
        "top": pa.list_(pa.struct([("answer", pa.string()), ("score", pa.float64()), *places])) if asks else scored,
        "entities": pa.list_(pa.struct([("entity_group", pa.string()), ("score", pa.float64()), *words])),
        "answer": pa.string(),
        **dict(places),
        **dict.fromkeys(("summary_text", "translation_text"), pa.string()),
        **dict.fromkeys(("similarity", "log_likelihood", "perplexity"), pa.float64()),
        "tokens": pa.int64(),
        "fault": pa.string(),
    }
    names = [*_example(parts), *["fault"] * with_faults]
    schema = pa.schema([(name, kinds[name]) for name in names])
    with pq.ParquetWriter(staged, schema) as writer:
        for part in parts:
            lines = [
                {name: list(value.items()) if isinstance(value, dict) else value for name, value in line.items()}
                for line in _lines_of(part)
            ]
            writer.write_table(pa.Table.from_pylist(lines, schema), row_group_size=len(lines))


Writer = Callable[[Sequence[Path], Path, bool], None]

WRITERS: dict[str, Writer] = {".jsonl": _to_json_lines, ".csv": _to_csv, ".parquet": _to_parquet}
