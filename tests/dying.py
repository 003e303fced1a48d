"""Every change to the disk that Python code makes, counted, so that the n-th of them can fail."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

CHANGES = ("mkdir", "replace", "rename", "fsync", "unlink", "remove", "rmdir", "truncate")


class Operations:
    """Counts changes to the disk; before the `fatal`-th it calls `fail`. A torn write leaves half of its bytes."""

    def __init__(self, fatal: int = 0, fail: Callable[[], None] = lambda: None) -> None:
        self.count = 0
        self.fatal = fatal
        self.fail = fail
        self.names: list[str] = []

    def happens(self, name: str, torn: Callable[[], None] = lambda: None) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self.fatal:
            torn()
            self.fail()

    def counted(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments: Any, **named: Any) -> Any:
            if name != "mkdir" or not os.path.isdir(arguments[0]):  # a folder that is there is not made
                self.happens(name)
            return act(*arguments, **named)

        return acting

    def opened(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+"):
                return act(file, mode, *arguments, **named)
            self.happens("open")
            return _Written(act(file, mode, *arguments, **named), self)

        return opening

    def saved(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """A library's own writer: it can fail before, in the middle, and after."""

        def saving(tensors: Any, file: Any, *arguments: Any, **named: Any) -> Any:
            self.happens("save_file")
            act(tensors, file, *arguments, **named)
            self.happens("save_file, half", lambda: os.truncate(file, os.stat(file).st_size // 2))

        return saving

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the operations of `os`, `open` and the checkpoints' writer go through here."""
        from tunesmith import checkpoints

        with contextlib.ExitStack() as stack:
            for name in CHANGES:
                stack.enter_context(mock.patch.object(os, name, self.counted(name, getattr(os, name))))
            stack.enter_context(mock.patch.object(io, "open", self.opened(io.open)))
            stack.enter_context(mock.patch.object(builtins, "open", self.opened(builtins.open)))
            writer = self.saved(checkpoints.save_file)
            stack.enter_context(mock.patch.object(checkpoints, "save_file", writer))
            yield


class _Written:
    """A file open for writing, whose every write is an operation."""

    def __init__(self, file: Any, operations: Operations) -> None:
        self.file = file
        self.operations = operations

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *reason: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: Any) -> int:
        self.operations.happens("write", lambda: self._half(content))
        return int(self.file.write(content))

    def _half(self, content: Any) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()


def in_a_child(act: Callable[[], None]) -> int:
    """Run something in a forked process, which a kill may end; returns its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        signal.alarm(20)
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
