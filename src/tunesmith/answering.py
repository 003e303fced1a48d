"""Answers for files of any length: window by window, so that memory stays flat and nothing finished is lost.

A window is a fixed number of rows in their order. Its rows are encoded and predicted together, sorted by length, so
that its answers are the same bytes whether the work was interrupted before it or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import folder as folders
from tunesmith.answer_files import Parts, kind_of
from tunesmith.data.image_folders import folder_state
from tunesmith.data.rows import Row
from tunesmith.data.sources import SHOWN_FAULTS, describe_file, files_of, stream_rows
from tunesmith.errors import DataError, Fault, Interrupted, RecipeError, ResourceError
from tunesmith.fitting import StopSignal, Voice, stop_signals
from tunesmith.recipe.data import HUB

if TYPE_CHECKING:
    from tunesmith.open import Run

WINDOW_ROWS = 4096
HUB_SPLIT = "test"
FIRST_BYTES = 1_000_000
"""So much of the input's beginning is hashed to know it again; the rest goes by size and time of change."""

Source = str | Path | Sequence[str]
"""A file, a glob, several of them, or a data set on a hub."""

Line = dict[str, Any]

NO_LABELS = {
    "score": "a number",
    "tags": "spans",
    "spans": "spans",
    "text": "a text that it writes",
    "positive": "a number",
    "triplet": "a number",
    "language": "a number",
}
"""What a row is answered with where that is no label, by what is learned."""


def named(data: Source) -> str | Sequence[str]:
    """The same as text."""
    return str(data) if isinstance(data, str | Path) else [str(name) for name in data]


@dataclass(frozen=True)
class Details:
    """What is told of a row beside its answer.

    Attributes:
        probabilities: those of all labels (of all pieces of the text that were looked at), likeliest first, under
            "scores".
        top_k: so many of the likeliest, under "top"; 0: none.
        abstain_below: an answer that is less probable than this is withheld.
    """

    probabilities: bool = False
    top_k: int = 0
    abstain_below: float | None = None


def shown(
    task: Any, rows: Sequence[Row], outputs: Sequence[Any], decision: Mapping[str, Any], details: Details
) -> list[Line]:
    """Answers as `task.shown` gives them, with the details asked for.

    Raises:
        RecipeError: details of probabilities, and the model gives none of labels.
    """
    answers = task.answers(outputs, rows, decision)
    lines = [dict(task.shown(answer, row)) for answer, row in zip(answers, rows, strict=True)]
    if details == Details() or not lines:
        return lines
    ranks = task.ranked(outputs, rows, decision)
    if ranks is None:
        what = NO_LABELS[task.settings.target]
        message = f"this model answers with {what}: there are no probabilities to show, rank or abstain by"
        raise RecipeError(message, "predict", "leave out --probabilities, --top-k and --abstain-below")
    for line, answer, ranked in zip(lines, answers, ranks, strict=True):
        if details.abstain_below is not None:
            line["abstained"] = bool(answer.score < details.abstain_below)
            if line["abstained"]:
                withheld = next(name for name in ("labels", "label", "answer") if name in line)
                line |= {name: None for name in (withheld, "start", "end") if name in line}
        if details.probabilities:
            line["scores"] = {_name_of(one): one["score"] for one in ranked}
        if details.top_k:
            line["top"] = ranked[: details.top_k]
    return lines


def _name_of(one: Mapping[str, Any]) -> str:
    """What could be answered: a label, or a piece of a text."""
    return str(one["label"] if "label" in one else one["answer"])


@dataclass(frozen=True)
class Window:
    """Rows that are answered together. `first` counts all rows of the input before them."""

    first: int
    rows: Sequence[Row | Fault]

    @property
    def end(self) -> int:
        return self.first + len(self.rows)

    def good(self, on_bad_row: str) -> list[Row]:
        """Its rows without the bad ones.

        Raises:
            DataError: there are bad ones, and they should stop the work.
        """
        faults = [row for row in self.rows if isinstance(row, Fault)]
        if faults and on_bad_row == "stop":
            listed = f"{len(faults)} bad rows among rows {self.first + 1:,} to {self.end:,}"
            remedy = "mend them and start anew, or give --on-bad-row skip: finished rows are then kept"
            raise DataError(listed, faults=[*faults[:SHOWN_FAULTS], Fault("", listed, remedy)])
        return [row for row in self.rows if isinstance(row, Row)]


def windows_of(rows: Iterator[Row | Fault], size: int) -> Iterator[Window]:
    first = 0
    while taken := list(islice(rows, size)):
        yield Window(first, taken)
        first += len(taken)


def answered(
    run: Run, window: Window, details: Details, on_bad_row: str, progress: Callable[[int], None]
) -> list[Line]:
    """One line for each row of a window: {"row", ..answer}, or {"row", "fault"} for a bad one."""
    answers = iter(run.answer_rows(window.good(on_bad_row), details, progress))
    return [
        {"row": number, **({"fault": str(row)} if isinstance(row, Fault) else next(answers))}
        for number, row in enumerate(window.rows, start=window.first)
    ]


def stream_answers(
    run: Run,
    data: Source,
    columns: Mapping[str, str] | None = None,
    details: Details = Details(),
    on_bad_row: str = "stop",
    window_rows: int = WINDOW_ROWS,
) -> Iterator[Line]:
    """The lines for a file one by one, in constant memory; answers come as windows are done."""
    _require_known(on_bad_row)
    usual = {} if columns else run.usual_columns
    rows = stream_rows(named(data), run.inputs, columns or {}, split=HUB_SPLIT, usual=usual)
    windows = windows_of(rows, window_rows)
    return (line for window in windows for line in answered(run, window, details, on_bad_row, lambda done: None))


def _require_known(on_bad_row: str) -> None:
    if on_bad_row not in ("stop", "skip"):
        raise RecipeError(f"on_bad_row is stop or skip, not {on_bad_row!r}", "predict")


def answer_file(
    run: Run,
    data: Source,
    out: Path,
    details: Details = Details(),
    on_bad_row: str = "stop",
    force: bool = False,
    voice: Voice | None = None,
    window_rows: int = WINDOW_ROWS,
) -> dict[str, Any]:
    """Answer every row of a file into `out`, which appears whole at the end; until then finished windows are kept in
    `OUT.partial`, and the same call goes on from there.

    Returns:
        {"rows", "output"}; with abstention also "abstained", with bad rows left out "faults".

    Raises:
        RecipeError: `out` is of no known kind, or there already; `on_bad_row` is no word of ours.
        CheckpointError: `OUT.partial` was begun with another input, model or option.
        DataError: a bad row, and they should stop the work.
        Interrupted: a signal came; finished windows are kept.
    """
    voice = voice or Voice()
    _require_known(on_bad_row)
    kind_of(out)
    parts = Parts(out)
    parts.require_free(force, [name for name in files_of(named(data)) if not name.startswith(HUB)])
    state = {"format": 1, "input": identity_of(data), "model": hash_of_model(run)}
    state |= {"window": window_rows, **asdict(details)}
    with parts.claimed(state), _remedies(parts), stop_signals() as stop:
        if not parts.is_joined:
            try:
                _answer_windows(_Work(run, data, details, on_bad_row, window_rows), parts, voice, stop)
            finally:
                voice.close()
            parts.join(with_faults=on_bad_row == "skip", abstains=details.abstain_below is not None)
        return {**parts.put_in_place(), "output": str(out)}


@dataclass(frozen=True)
class _Work:
    """Everything that decides what is answered."""

    run: Run
    data: Source
    details: Details
    on_bad_row: str
    window_rows: int


def _answer_windows(work: _Work, parts: Parts, voice: Voice, stop: StopSignal) -> None:
    """Answer every window that has no part yet. A signal is obeyed between windows, a second one at once."""
    notes: list[str] = []
    total = estimated_rows(work.data)
    kept = told = False
    usual = work.run.usual_columns
    rows = stream_rows(named(work.data), work.run.inputs, {}, split=HUB_SPLIT, notes=notes, usual=usual)
    for window in windows_of(rows, work.window_rows):
        while notes:
            voice.say(notes.pop(0))
        if parts.holds(window.first, len(window.rows)):
            window.good(work.on_bad_row)
            kept = True
            continue
        if not told:
            told = True
            if kept:
                voice.say(f"{window.first:,} rows were answered before; going on")
            work.run.loaded  # noqa: B018 - before signals are only noted: opening a model may take long
            voice.answered(window.first, total)
        stop.gently = True
        lines = answered(
            work.run,
            window,
            work.details,
            work.on_bad_row,
            lambda done, first=window.first: voice.answered(first + done, total),  # type: ignore[misc]
        )
        parts.write(window.first, lines)
        voice.answered(window.end, None if total is None else max(total, window.end))
        stop.gently = False
        if stop.number:
            raise Interrupted(stop.number, f"interrupted after {window.end:,} rows")


@contextlib.contextmanager
def _remedies(parts: Parts) -> Iterator[None]:
    """Interruptions and full disks end with the way to go on from what is kept."""
    try:
        yield
    except Interrupted as error:
        message = error.message if error.message.startswith("interrupted after") else "interrupted"
        raise Interrupted(error.exit_code - 128, message, _how_to_go_on(parts)) from None
    except ResourceError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ResourceError(error.message, error.faults[0].where, f"free some space; {_how_to_go_on(parts)}") from error


def _how_to_go_on(parts: Parts) -> str:
    if parts.is_begun:
        return f"the same command goes on from there (finished rows are in {parts.path})"
    return "nothing was finished; the same command starts anew"


def identity_of(data: Source) -> list[dict[str, Any]]:
    """What tells an input from another: each file's size, time of change, and a hash of how it begins."""
    return [_identity_of(name) for name in files_of(named(data))]


def _identity_of(name: str) -> dict[str, Any]:
    if name.startswith(HUB):
        return {"hub": name}
    try:
        if (described := describe_file(name)).kind == "folder":
            return {"folder_sha256": folder_state(described.path)}
        with open(described.path, "rb") as file:
            about = os.fstat(file.fileno())
            begins = hashlib.sha256(file.read(FIRST_BYTES)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", name) from None
    return {"bytes": about.st_size, "changed_ns": about.st_mtime_ns, "first_megabyte_sha256": begins}


def hash_of_model(run: Run) -> str:
    """One SHA-256 for a run's model: its card, names and contents of all its files. Raises CheckpointError without."""
    digest, folder = hashlib.sha256(folders.to_json(run.card)), run.folder.model
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0{folders.sha256(file)}\n".encode())
    return digest.hexdigest()


def estimated_rows(data: Source) -> int | None:
    """About how many rows there are, by the line ends of text files; None where a file has none."""
    counts = [_estimated_rows(Path(name)) for name in files_of(named(data))]
    return None if None in counts else sum(count or 0 for count in counts)


def _estimated_rows(path: Path) -> int | None:
    header = {".jsonl": 0, ".csv": 1, ".tsv": 1}.get(path.suffix.lower())
    if header is None or not path.is_file():
        return None
    ends, last = 0, b""
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            ends, last = ends + piece.count(b"\n"), piece[-1:]
    return max(0, ends + (last not in (b"", b"\n")) - header)
