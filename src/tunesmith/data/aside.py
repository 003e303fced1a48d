"""Work on rows in a forked child, while this process imports what takes long to import.

A child begins with all rows as they are, so nothing is copied or written to hand them over; what it finds comes back
as JSON. Only a process of one thread on Linux forks: elsewhere a fork may inherit locks that nobody will open.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

import orjson


class Aside:
    """`work` begun at once, beside this process where that is safe. What it returns must be known to orjson.

    A context: at its end no child is left.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._child = _fork(work) if _may_fork() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._child is not None:
            os.kill(self._child.number, signal.SIGKILL)
            self._wait()

    def result(self) -> Any:
        """What the work returned, as JSON has it.

        Work that failed or died in the child is done once more in this process, where its error can be told.
        """
        answer = b""
        if self._child is not None:
            told = self._child.answer.read()
            answer = told if self._wait() == 0 else b""
        return orjson.loads(answer or orjson.dumps(self._work()))

    def _wait(self) -> int:
        assert self._child is not None
        self._child.answer.close()
        _, status = os.waitpid(self._child.number, 0)
        self._child = None
        return status


@dataclass(frozen=True)
class _Child:
    """A process by its number, and the end of a pipe that its answer comes from."""

    number: int
    answer: BinaryIO


def _may_fork() -> bool:
    alone = threading.active_count() == 1 and "torch" not in sys.modules  # torch's threads are not Python's
    return alone and sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


def _fork(work: Callable[[], Any]) -> _Child:
    answer, told = os.pipe()
    number = os.fork()
    if number:
        os.close(told)
        return _Child(number, os.fdopen(answer, "rb"))
    code = 1
    with suppress(BaseException):  # whatever happens here, the parent's course must not go on in the child
        os.close(answer)
        with os.fdopen(told, "wb") as pipe:
            pipe.write(orjson.dumps(work()))
        code = 0
    os._exit(code)
