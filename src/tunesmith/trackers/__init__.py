"""Experiment trackers: they read what the run folder records, each in a process of its own, and can do a run no harm.

A run starts `python -m tunesmith.trackers NAME RUN` for each tracker and keeps one end of a pipe to it. When that end
closes, because the run is over or because it was killed, the tracker reads what is left and ends. The run waits for it
a few seconds at most. By hand, the same command passes a run's records to a tracker once more.

What a tracker has stored is never counted on: its process reads the records from their first line whenever it starts.
So a step that a resume has run again is never stored twice, and what one process failed to pass on, the next one does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Self

from tunesmith.errors import Fault, RecipeError
from tunesmith.folder import RunFolder

PATIENCE = 10.0
"""Seconds that a tracker has for the rest of the records when the run is over."""

HASTE = 2.0
"""The same when the run was interrupted or failed, and somebody waits for its end."""

LOWEST_PRIORITY = 19
LARGEST_LOG = 1_000_000


def require_installed(names: Sequence[str]) -> None:
    """Raise RecipeError naming every tracker whose library is not here. Each library has its tracker's name."""
    faults = [
        Fault("track", f"{name} is asked for but not installed", f'pip install "tunesmith[{name}]"')
        for name in names
        if not _is_installed(name)
    ]
    if faults:
        raise RecipeError(faults[0].message, faults=faults)


def _is_installed(name: str) -> bool:
    found = find_spec(name)
    return found is not None and found.origin is not None  # a plain folder of that name has no origin


@dataclass
class Child:
    """A tracker's process, the end of the pipe that tells it that the run lives, and its messages."""

    name: str
    process: subprocess.Popen[bytes]
    leash: BinaryIO
    log: Path

    def fault(self, deadline: float) -> str:
        """Wait until it has ended or the time is over; how it failed, or nothing."""
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "was not done in time and was ended"
        if code < 0:
            return f"failed (ended by {signal.Signals(-code).name})"
        if code > 0:
            return f"failed ({self._last_message()})"
        if self.log.stat().st_size >= LARGEST_LOG:
            return f"wrote more than {LARGEST_LOG:,} bytes of messages; the rest of them was dropped"
        return ""

    def _last_message(self) -> str:
        lines = self.log.read_bytes().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it gave no reason")

    def kill(self) -> None:
        """End it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk cannot even be killed
            self.process.wait(1.0)


class Trackers:
    """The trackers of a run. As a context it leaves no process behind, however the run ends."""

    def __init__(self, folder: RunFolder, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.children: list[Child] = []
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(HASTE)

    def start(self, names: Sequence[str]) -> None:
        """Start a process for each tracker; one that cannot be started is a warning."""
        for name in dict.fromkeys(names):
            try:
                self.children.append(start(name, self.folder))
            except OSError as error:
                self._warn(f"track: {name} could not be started ({error}); the run goes on without it")

    def end(self) -> list[str]:
        """Let every tracker read the rest, then end it. Returns what went wrong with any of them since the start."""
        self._end(PATIENCE)
        return self.warnings

    def _end(self, patience: float) -> None:
        children, self.children = self.children, []
        deadline = time.monotonic() + patience
        try:
            for child in children:
                child.leash.close()
            for child in children:
                fault = child.fault(deadline)
                if fault:
                    again = f"`python -m tunesmith.trackers {child.name} RUN` passes the records on once more"
                    self._warn(f"track: {child.name} {fault}; the run was not touched, and {again}")
        finally:
            for child in children:
                child.kill()

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.say(text)


def start(name: str, folder: RunFolder) -> Child:
    """Start a tracker's process: in a process group of its own, so that a Ctrl-C meant for the run does not reach it;
    in the run's session, since a priority counts for nothing between sessions where the kernel shares by session; and
    without the working folder on its path, where a file of the library's name may lie."""
    log = folder.trackers / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "tunesmith.trackers", name, str(folder.path.absolute())]
    reading, writing = os.pipe()
    leash = os.fdopen(writing, "wb")
    try:
        with open(log, "wb") as messages:
            process = subprocess.Popen(
                [*command, str(reading)],
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=subprocess.STDOUT,
                pass_fds=(reading,),
                process_group=0,
            )
    except OSError:
        leash.close()
        raise
    finally:
        os.close(reading)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
    return Child(name, process, leash, log)
