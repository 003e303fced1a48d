"""Commands in processes of their own that need no start of their own: children of one process that has imported
everything and done nothing yet (a process that has trained could not fork: its children could not go backward).

What a child cannot show is what differs from one interpreter to the next: all have the same order of sets. Laws of that
(test_law_seeds, one law of two processes) start real ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "tunesmith.cli",
        "tunesmith.run",
        "tunesmith.checking",
        "tunesmith.answer_files",
        "peft",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.models.bert.modeling_bert",
        "sklearn.feature_extraction.text",
        "sklearn.linear_model",
        "matplotlib.backends.backend_svg",
    ]
)


def _command(arguments: Sequence[str]) -> None:
    from tunesmith import cli

    sys.argv = ["tunesmith", *arguments]
    cli.main()


def _code(text: str) -> None:
    exec(compile(text, "<code>", "exec"), {"__name__": "__main__"})


def _in_child(
    act: Callable[[Any], None], given: Any, folder: str, environment: Mapping[str, str], out: str, told: str
) -> None:
    os.setsid()  # a group of its own, as a shell gives one
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (told, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    act(given)


class Forked:
    """A child at work, in the words of `subprocess.Popen`; what it prints goes to two files (`out`, `told`: its stdout
    and stderr)."""

    def __init__(
        self,
        given: Sequence[str] | str,
        place: Path,
        folder: Path | None = None,
        out: Path | None = None,
        told: Path | None = None,
        **environment: str,
    ) -> None:
        """Start `tunesmith ARGUMENTS`, or Python code if `given` is a text; `place` is where its words are kept."""
        number = len(list(place.glob("*.told")))
        self.out, self.told = out or place / f"{number}.out", told or place / f"{number}.told"
        whole = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        act = _code if isinstance(given, str) else _command
        self.process = _SERVER.Process(
            target=_in_child,
            args=(act, given, str(folder or place), {**whole, **environment}, str(self.out), str(self.told)),
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float = 280) -> int:
        """Its exit code, below zero if a signal ended it.

        Raises:
            subprocess.TimeoutExpired: it is still at work, or was until now: it is killed.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise subprocess.TimeoutExpired("tunesmith", timeout)
        return self.process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def printed(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def said(self) -> str:
        return self.told.read_text(encoding="utf-8")


def in_two(arguments: Sequence[str], place: Path) -> tuple[list[int | None], str]:
    """`tunesmith ARGUMENTS` as torch's launcher starts it twice: the exit codes of both, and what they told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [Forked(arguments, place, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    deadline = time.monotonic() + 240
    while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
        assert time.monotonic() < deadline, "two processes wait for each other"
        time.sleep(0.05)
    for rank in ranks:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for the one that failed
            rank.wait(30)
    return [rank.poll() for rank in ranks], "".join(rank.said for rank in ranks)
