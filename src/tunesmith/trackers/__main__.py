"""The tracker's side: `python -m tunesmith.trackers NAME RUN` passes the records of a run on to a tracker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunesmith.errors import CheckpointError, TunesmithError
from tunesmith.folder import RunFolder
from tunesmith.trackers import LARGEST_LOG, PATIENCE, require_installed
from tunesmith.trackers.libraries import TRACKERS, switches
from tunesmith.trackers.records import About, Records

SECONDS_BETWEEN_LOOKS = 1.0


def follow(name: str, folder: RunFolder, leash: int | None) -> None:
    """Pass the records of a run to a tracker: all that are there, and, while the other end of `leash` is open, all
    that come."""
    about = About.read(folder)
    place = (folder.trackers / name).absolute()
    place.mkdir(parents=True, exist_ok=True)
    with claimed(place.with_name(f".{name}.lock")):
        for variable, value in switches(place).items():
            os.environ.setdefault(variable, value)
        records = Records(folder, about.started)
        tracker = TRACKERS[name](place, about)
        over = False
        while not over:
            over = leash is None or has_closed(leash, SECONDS_BETWEEN_LOOKS)
            for point in records.new():
                tracker.log(point)
            tracker.flush()
        final = records.final()
        if final is not None and final.values:
            tracker.log(final)
        tracker.close(finished=final is not None)


def has_closed(leash: int, seconds: float | None) -> bool:
    """Wait that long (None: for ever) for the other end to close. Nothing is ever written there."""
    return bool(select.select([leash], [], [], seconds)[0])


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a tracker's store for this process alone. One whose run was killed may need its patience to end."""
    deadline = time.monotonic() + PATIENCE + 1
    with open(path, "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = "another process passes this run to the same tracker"
                    raise CheckpointError(message, str(path), "wait for it to end") from None
                time.sleep(0.2)
        yield


def be_no_burden(leash: int) -> Callable[[], None]:
    """Live with little: few threads, first to go when memory runs out, an end soon after the run's, and messages up to
    a size. Returns what puts the messages back to where they were."""
    os.set_inheritable(leash, False)
    os.environ["OMP_NUM_THREADS"] = "1"
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    threading.Thread(target=_end_after, args=(leash,), daemon=True).start()
    log, (reading, writing) = os.dup(1), os.pipe()
    _point_messages_at(writing)
    os.close(writing)
    reader = threading.Thread(target=_keep_beginning, args=(reading, log), daemon=True)
    reader.start()

    def put_back() -> None:
        _point_messages_at(log)
        reader.join(1.0)

    return put_back


def _point_messages_at(descriptor: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):  # a library may have closed it
            stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _keep_beginning(reading: int, log: int) -> None:
    left = LARGEST_LOG
    while text := os.read(reading, 1 << 16):
        with contextlib.suppress(OSError):
            left -= os.write(log, text[:left])


def _end_after(leash: int) -> None:
    """End this process and all that it has started when the run is gone and no longer there to do it."""
    has_closed(leash, None)
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """`python -m tunesmith.trackers NAME RUN`. A third argument is the run's own: its end of the pipe."""
    if len(arguments) not in (2, 3) or arguments[0] not in TRACKERS:
        sys.stderr.write(f"usage: python -m tunesmith.trackers {'|'.join(TRACKERS)} RUN\n")
        return 2
    name, folder, leash = arguments[0], RunFolder(arguments[1]), int(arguments[2]) if arguments[2:] else None
    put_back = be_no_burden(leash) if leash is not None else lambda: None
    try:
        require_installed([name])
        follow(name, folder, leash)
    except TunesmithError as error:
        put_back()
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Exception:
        put_back()
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # what the library would still do at the end may hang, and has nothing to add
    put_back()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
