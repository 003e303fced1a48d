"""What there is to pass on: the lines of a run folder as points, each once and in order, live or long after."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import orjson

from tunesmith import folder as folders
from tunesmith.folder import RunFolder
from tunesmith.recipe.reading import parse_yaml

PREFIXES = {"head": "head", "fit": "train", "refit-head": "refit_head", "refit": "refit"}
"""What the names of a phase's metrics begin with, in the order of the phases."""

NOT_METRICS = frozenset({"phase", "step", "epoch", "rows", "tokens", "seconds"})

Setting = str | int | float | bool


@dataclass(frozen=True)
class Point:
    """Values of one moment. `when` is in seconds since 1970: the run's start and the seconds of its steps so far, so
    that the same records give the same points whenever they are read."""

    values: dict[str, float]
    step: int
    when: float


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run before its first point. `key` is the same for a run and its resumes."""

    name: str
    key: str
    started: float
    settings: dict[str, Setting]

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        manifest = folders.read_json(folder.manifest)
        settings = parse_yaml(folder.recipe.read_text("utf-8"), str(folder.recipe)).values
        key = hashlib.sha256(folders.to_json([manifest["started"], manifest["identity"]])).hexdigest()[:16]
        started = datetime.fromisoformat(manifest["started"]).timestamp()
        return cls(folder.path.absolute().name, key, started, flat(settings))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Nested settings under dotted keys; lists and null as JSON, since trackers know only plain values."""
    found: dict[str, Setting] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, Setting) else orjson.dumps(value).decode()
    return found


class Tail:
    """Reads the lines that were appended to a file since it last looked. A file that was replaced by a shorter one
    (a resume has cut it) or an equal one is read again, and steps that were seen are passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inode = 0
        self.offset = 0
        self.seen: dict[str, int] = {}

    def new(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            state = os.fstat(file.fileno())
            if state.st_ino != self.inode or state.st_size < self.offset:
                self.inode, self.offset = state.st_ino, 0
            file.seek(self.offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [row for row in map(orjson.loads, whole.splitlines()) if self._is_new(row)]

    def _is_new(self, row: dict[str, Any]) -> bool:
        if row["step"] <= self.seen.get(row["phase"], 0):
            return False
        self.seen[row["phase"]] = row["step"]
        return True


class Records:
    """The points of a run folder, each once, in the order of their steps."""

    def __init__(self, folder: RunFolder, started: float) -> None:
        self.folder = folder
        self.steps, self.evaluations = Tail(folder.steps), Tail(folder.evaluations)
        self.waiting: list[dict[str, Any]] = []
        self.clock = started

    def new(self) -> Iterator[Point]:
        """What was recorded since the last call. An evaluation waits until its step was read: trackers that count
        steps upwards would drop it, or what comes after it."""
        rows = self.steps.new()
        self.waiting += self.evaluations.new()
        ready = [row for row in self.waiting if row["step"] <= self.steps.seen.get(row["phase"], 0)]
        self.waiting = [row for row in self.waiting if row not in ready]
        phases = list(PREFIXES)
        for row in sorted([*rows, *ready], key=lambda row: (phases.index(row["phase"]), row["step"], "scores" in row)):
            self.clock += row.get("seconds", 0.0)
            yield Point(_values_of(row), row["step"], self.clock)

    def final(self) -> Point | None:
        """The scores on the sealed test, at the last step; None as long as the run is not judged."""
        if not self.folder.scores.exists():
            return None
        scores = folders.read_json(self.folder.scores).get("test", {})
        values = {f"test/{name}": float(score["value"]) for name, score in scores.items()}
        return Point(values, self.steps.seen.get("fit", 0), self.clock)


def _values_of(row: dict[str, Any]) -> dict[str, float]:
    if "scores" in row:
        prefix = "validation"
        values = {"loss": row["loss"], **{name: score["value"] for name, score in row["scores"].items()}}
    else:
        prefix = PREFIXES[row["phase"]]
        values = {name: value for name, value in row.items() if name not in NOT_METRICS}
        values["tokens_per_second"] = row["tokens"] / row["seconds"] if row["seconds"] and row["tokens"] else None
    return {f"{prefix}/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)}
