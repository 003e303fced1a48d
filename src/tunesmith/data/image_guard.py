"""Looking at images in a child process: what kills, hangs or bloats a decoder is a fault of one row, named.

The child gets paths line by line, their bytes in hexadecimal, and answers each with {"digest"} or {"fault"}. It limits
its own memory; one that is silent over an image is ended, and the next image gets a new one. All later decoding is of
files that a child has survived.
"""

from __future__ import annotations

import atexit
import os
import resource
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from tunesmith import surroundings
from tunesmith.data.images import Picture, PictureFault, look_at
from tunesmith.data.sensitive import mask

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "tunesmith.data.image_guard")
"""`-P`: the working folder may hold others' files, and nothing is imported from there."""

MOST_MEMORY = 3_000_000_000
MOST_SECONDS = 30.0


class Guard:
    """A child that looks at images, started with the first and again after one that it died of."""

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self.seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def look(self, path: str) -> tuple[str, str]:
        """(SHA-256 of an image's bytes, "") or ("", what is wrong with it)."""
        if self._child is None or self._owner != os.getpid():  # a forked process has no part in its parent's child
            self._start()
        assert self._child is not None and self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.write(os.fsencode(path).hex().encode() + b"\n")
            self._child.stdin.flush()
        try:
            line = self._answer()
        except BaseException:  # interrupted: the answer to this one must not be taken for that to the next
            self.close()
            raise
        if line is not None and line.endswith(b"\n"):
            answer = orjson.loads(line)
            return answer.get("digest", ""), answer.get("fault", "")
        return "", f"made to harm, or badly broken: {self._end(is_silent=line is None)}"

    def _start(self) -> None:
        self._child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=surroundings.of_child(OMP_NUM_THREADS="1"),
        )
        self._owner = os.getpid()
        atexit.register(self.close)

    def _answer(self) -> bytes | None:
        """The child's next line, without an end if it died over it; None if it is silent for too long."""
        assert self._child is not None and self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            return self._child.stdout.readline() if selector.select(self.seconds) else None

    def _end(self, is_silent: bool) -> str:
        """End the child, and say what it died of."""
        child = self._child
        assert child is not None
        if is_silent:
            self.close()
            return f"decoding it takes more than {self.seconds:.0f} seconds"
        code = child.wait()
        self.close()
        return f"its decoder died by signal {-code}" if code < 0 else f"its decoder ended with code {code}"

    def close(self) -> None:
        """End the child, if there is one; the next image starts another."""
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            atexit.unregister(self.close)
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            child.wait()


GUARD = Guard()
"""One for all rows of a process: starting one costs as much as looking at fifty small images."""


def find_picture(name: Any, folder: Path) -> tuple[Picture | None, str]:
    """The image that a cell names, seen from `folder`, and what is wrong with it ("" if nothing)."""
    path = os.path.normpath(folder / os.path.expanduser(name))
    digest, fault = GUARD.look(path)
    return (None, f"{mask(name)!r} is {fault}") if fault else (Picture(path, digest), "")


def main() -> None:
    """Answer paths until there are no more. Called by the parent alone."""
    for kind, amount in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (amount, resource.getrlimit(kind)[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its parent, which a Ctrl-C is meant for
    for line in sys.stdin.buffer:
        try:
            answer = {"digest": look_at(os.fsdecode(bytes.fromhex(line.decode())))}
        except PictureFault as fault:
            answer = {"fault": str(fault)}
        except MemoryError:
            answer = {"fault": f"decoded only with more than {MOST_MEMORY // 10**9} GB of memory"}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
