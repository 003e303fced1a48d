"""The run folder: its names, and the only ways in which files come to be in it.

A file appears under its final name whole or not at all: it is written beside its place, flushed to the disk and
renamed. Lines are appended by `append`, and a torn last line (from a kill in the middle of a write) is dropped
by `lines`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from tunesmith.errors import CheckpointError, RecipeError, ResourceError

STAGING = ".staging-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BARRED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
"""Why nothing can be written at a place, however much is free: who named it has to name another."""


class RunFolder:
    """Names of everything in a run folder. Holds no state but its path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def whole(self) -> Path | None:
        """The run folder that this one is a part of; None if it stands for itself."""
        manifest = read_json(self.manifest) if self.manifest.exists() else {}
        part_of = manifest.get("part_of") if isinstance(manifest, dict) else None
        return Path(os.path.normpath(self.path / part_of["folder"])) if part_of else None

    @property
    def parts(self) -> list[Path]:
        """The run folders of several tasks."""
        return sorted(place for place in (self / "tasks").glob("*") if RunFolder(place).exists)

    def how_to_finish(self) -> str:
        """The command that goes on with what is not finished here."""
        return f"`tunesmith resume {self.whole or self.path}`"

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def check(self) -> Path:
        return self.path / "check.json"

    @property
    def steps(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def audits(self) -> Path:
        return self.path / "audits.json"

    @property
    def verdict(self) -> Path:
        return self.path / "verdict.json"

    @property
    def looks(self) -> Path:
        return self.path / "looks.jsonl"

    @property
    def data(self) -> Path:
        """What the report shows of the data: sizes, labels, lengths, the first batch, the worst errors."""
        return self.path / "data.json"

    @property
    def reservoir(self) -> Path:
        """Training rows that were kept for a later run to rehearse, as they were read."""
        return self.path / "reservoir.jsonl"

    @property
    def handover(self) -> Path:
        """Where the first process leaves encoded rows for the others; gone when training is over."""
        return self.path / ".handover"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def trackers(self) -> Path:
        """A store and the messages of each tracker, by its name."""
        return self.path / "trackers"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def paper(self) -> Path:
        return self.path / "paper.md"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.jsonl"

    @property
    def exists(self) -> bool:
        return self.recipe.exists()

    def claim(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder for this process alone; two runs in one folder would tear each other's files."""
        return claim(self.path, "this run folder")


@contextlib.contextmanager
def claim(path: Path, called: str) -> Iterator[None]:
    """Hold a folder for this process alone; it is made if it is not there."""
    with disk_errors_named(path, 0):
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")  # noqa: SIM115 - closed below: faults in the block are not those of this place
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"another process is working in {called}",
                where=str(path),
                remedy="wait for it to end, or stop it",
            ) from None
        yield


def write_bytes(path: Path, content: bytes, private: bool = False) -> None:
    """Write a file atomically and durably: beside its place, flushed, renamed, and the folder flushed; where it is
    `private`, for nobody else to read at any moment."""
    staged = path.with_name(f"{STAGING}{path.name}")
    with disk_errors_named(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.unlink(missing_ok=True)  # one that a kill left behind keeps its mode
            with open(staged, "wb", opener=partial(os.open, mode=0o600 if private else 0o666)) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline. NumPy numbers are written as numbers, NaN as null."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def read_json(path: Path) -> Any:
    """Read one of our JSON files; a missing or damaged one is named."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError("no such file", where=str(path), remedy="is this a run folder?") from None
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except orjson.JSONDecodeError as error:
        raise CheckpointError(f"not valid JSON ({error})", where=str(path)) from None


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line; flushed to the operating system, so that only a power cut can lose it.

    A last line that a power cut or a full disk left torn is cut off first.
    """
    line = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    with disk_errors_named(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            if file.tell() and _ends_torn(file):
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
            file.write(line)


def _ends_torn(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def write_lines(path: Path, rows: list[dict[str, Any]], private: bool = False) -> None:
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    write_bytes(path, b"".join(orjson.dumps(row, option=option) for row in rows), private)


def lines(path: Path) -> list[dict[str, Any]]:
    """All whole JSON lines of a file we appended to. A torn last line is left out: its writer was killed."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return [orjson.loads(line) for line in whole.splitlines()]


def flush_folder(path: Path) -> None:
    """Make a rename durable: the folder's own entry must reach the disk too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(staged: Path, final: Path) -> None:
    """Rename a finished folder to its final name, replacing what was there; durable when it returns."""
    old = final.with_name(f"{STAGING}old-{final.name}")
    if old.exists():
        shutil.rmtree(old)
    if final.exists():
        os.replace(final, old)
    os.replace(staged, final)
    flush_folder(final.parent)
    if old.exists():
        shutil.rmtree(old)


def flush_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Free bytes on the file system that holds `path` or its nearest existing parent."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextlib.contextmanager
def disk_errors_named(path: Path, needed: int) -> Iterator[None]:
    """Turn "no space left" (from Python or from a library's own message) into an error that names the figures, and a
    place where nothing can be written into one that names it."""
    try:
        yield
    except Exception as error:
        told = re.search(r"os error (\d+)", str(error))  # safetensors tells the number in its message only
        number = getattr(error, "errno", None) or (int(told[1]) if told else None)
        if number in BARRED:
            raise barred(path, number) from error
        if number not in FULL:
            raise
        raise ResourceError(
            f"the disk is full: {needed:,} bytes needed, {free_bytes(path.parent):,} bytes free",
            where=str(path),
            remedy="free some space, then `tunesmith resume` the run folder; earlier checkpoints are untouched",
        ) from error


def barred(path: Path, number: int) -> RecipeError:
    """That nothing can be written at `path`, by the number of the system's own reason."""
    remedy = "name a place that you may write to, or change who may"
    return RecipeError(f"cannot be written ({os.strerror(number)})", str(path), remedy)


def refuse_output(output: Path) -> None:
    """A run folder is written into: it can be no file, and must not be the base, whose card it would replace."""
    if any(place.is_file() for place in (output, *output.parents)):
        raise RecipeError(f"{output} is a file or lies in one", "output", "name a folder, for example runs/first")
    if (output / "config.json").is_file():
        raise RecipeError(f"a model lies in {output}", "output", "name a folder of the run's own")


def require_permission(path: Path) -> None:
    """Raise RecipeError where `path`, there or still to be made, must not be written: before work is spent on it."""
    place = path.absolute()
    while not os.path.exists(place):  # Path.exists raises where it must not look
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK if place.is_dir() else os.W_OK):
        raise barred(path, errno.EACCES)
