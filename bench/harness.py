"""Fresh processes, run in turns, with their time, memory and the machine's foreign load; medians and intervals.

This module must stay light (no torch): Linux counts the memory of the process that starts a child
towards that child's peak, so a heavy parent would hide the difference between two children.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.05
# Settings of a shell that steer one side's libraries and not the other's: nobody inherits them.
STRIPPED = ("OPENBLAS_", "NVPL_", "MKL_", "DNNL_", "ONEDNN_", "KMP_", "GOMP_", "OMP_", "THP_", "MALLOC_", "LD_PRELOAD")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class RunFailed(RuntimeError):
    """A child ended with an error or printed no JSON object; the message holds the end of its log."""


class OutOfTime(RunFailed):
    """A child was still running when its time was up, and was ended."""


@dataclass(frozen=True)
class Limits:
    """Largest shares of the machine's time that the hypervisor or other processes may take from a run."""

    steal: float = 0.02
    # Small, because a little goes far: threads that wait for one another spin while a third process holds a core,
    # and a step on two cores was seen to take eight times as long beside one busy process.
    foreign: float = 0.02


@dataclass
class Outcome:
    """One finished child. Bytes, seconds; `steal` and `foreign` are shares of the whole machine's time."""

    name: str
    answer: dict
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    peak_anonymous_bytes: int
    steal: float
    foreign: float

    def is_clean(self, limits: Limits) -> bool:
        """Say whether the machine was ours while this ran."""
        return self.steal <= limits.steal and self.foreign <= limits.foreign


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0))


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make the environment both sides get: no inherited library settings, no network, one thread per core."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(STRIPPED)}
    source = [str(ROOT), str(ROOT / "src"), *filter(None, [kept.get("PYTHONPATH")])]
    kept |= {
        "PYTHONPATH": os.pathsep.join(source),
        "OMP_NUM_THREADS": str(cores()),
        "HF_HUB_OFFLINE": "1",
        "USE_HUB_KERNELS": "NO",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return kept | dict(extra or {})


def run(
    name: str,
    command: Sequence[str],
    extra: Mapping[str, str] | None = None,
    timeout: float = 7200,
    on_poll: Callable[[int], None] | None = None,
) -> Outcome:
    """Run a command in a fresh process and in an empty cache, and read the JSON object at the end of its stdout.

    `on_poll` is called about twenty times a second with the child's process id, to watch what the child writes.
    Raises RunFailed when the child fails or answers no JSON, OutOfTime when it still runs after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        # A cache that outlives a run would make the second run of one side warmer than the first.
        own = {"XDG_CACHE_HOME": str(scratch / "cache"), "HF_HOME": str(scratch / "hub")}
        before, busy_before = _machine_ticks(), _own_ticks()
        started = time.monotonic()
        with open(scratch / "out", "wb") as out, open(scratch / "err", "wb") as err:
            child = subprocess.Popen(
                list(command), cwd=scratch, env=environment(own | dict(extra or {})), stdout=out, stderr=err,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            usage, anonymous = _wait(child, started + timeout, on_poll)
        seconds = time.monotonic() - started
        after, busy_after = _machine_ticks(), _own_ticks()
        answer = _answer(name, child.returncode, scratch / "out", scratch / "err")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    total = max(after["total"] - before["total"], 1)
    ours = cpu_seconds * _TICKS_PER_SECOND + busy_after - busy_before
    return Outcome(
        name=name,
        answer=answer,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_bytes=usage.ru_maxrss * 1024,
        peak_anonymous_bytes=anonymous,
        steal=(after["steal"] - before["steal"]) / total,
        foreign=max(after["busy"] - before["busy"] - ours, 0.0) / total,
    )


def interleave(
    starters: Mapping[str, Callable[[], Outcome]], limits: Limits, pairs: int, budget: float
) -> Iterator[dict]:
    """Run every side once a round, A B A B, and yield `{"clean": bool, "outcomes": {name: Outcome}}` for each round.

    Stops after `pairs` clean rounds, after twice as many in all, when another round would pass `budget` seconds, or
    when a run is out of time.
    A round with one disturbed run is not clean: both sides of a pair must have seen the same machine.
    """
    started, clean, longest = time.monotonic(), 0, 0.0
    for _ in range(2 * pairs):
        begun = time.monotonic()
        if clean >= pairs or begun - started + longest > budget:
            return
        try:
            outcomes = {name: start() for name, start in starters.items()}
        except OutOfTime as late:
            say(f"a round was broken off: {late}")
            return
        longest = max(longest, time.monotonic() - begun)
        is_clean = all(outcome.is_clean(limits) for outcome in outcomes.values())
        clean += is_clean
        yield {"clean": is_clean, "outcomes": outcomes}


def await_quiet(limits: Limits, patience: float = 120.0) -> bool:
    """Wait until a second passes with no more foreign load than allowed; give up after `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        before = _machine_ticks()
        time.sleep(1.0)
        after = _machine_ticks()
        if after["busy"] - before["busy"] <= max(limits.foreign, 0.02) * (after["total"] - before["total"]):
            return True
    return False


def bootstrap_ratio(peer: Sequence[float], ours: Sequence[float], samples: int = 10_000) -> dict[str, float]:
    """Take the median of the paired ratios peer / ours and its 95 % percentile bootstrap interval over the pairs."""
    ratios = np.asarray(peer, dtype=float) / np.asarray(ours, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(ratios), size=(samples, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return {"value": float(np.median(ratios)), "low": float(low), "high": float(high), "pairs": len(ratios)}


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in plain text: first column to the left, figures to the right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def keep_line(path: Path, line: dict) -> None:
    """Append one finished run to a file of JSON lines, and have it on disk before going on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def kept_lines(path: Path) -> list[dict]:
    """Read the finished runs; a line cut off by a crash is skipped."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def say(text: str) -> None:
    """Tell the reader how far the bench is; stdout stays free for the result."""
    print(text, file=sys.stderr, flush=True)


def _wait(child: subprocess.Popen, deadline: float, on_poll: Callable[[int], None] | None) -> tuple:
    """Wait for a child; return its resource usage and the largest anonymous memory seen (bytes, sampled)."""
    anonymous = 0
    try:
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                child.returncode = os.waitstatus_to_exitcode(status)
                return usage, anonymous
            anonymous = max(anonymous, _anonymous_bytes(child.pid))
            if on_poll:
                on_poll(child.pid)
            if time.monotonic() > deadline:
                raise OutOfTime(f"process {child.pid} ran past its time and was ended")
            time.sleep(POLL_SECONDS)
    except BaseException:
        if child.returncode is None:
            os.killpg(child.pid, 9)
            child.wait()
        raise


def _answer(name: str, code: int, out: Path, err: Path) -> dict:
    """Read the last line of a child's stdout that is a JSON object (or the whole stdout, if it is one)."""
    text, log = out.read_text(errors="replace").strip(), err.read_text(errors="replace")[-3000:]
    if code:
        raise RunFailed(f"{name} ended with exit code {code}\n{text[-1000:]}\n{log}")
    for candidate in (text, text.rpartition("\n")[2]):
        try:
            answer = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    raise RunFailed(f"{name} printed no JSON object\n{text[-1000:]}\n{log}")


def _anonymous_bytes(pid: int) -> int:
    """Read how much memory of a process belongs to no file; 0 when it is just ending."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def _machine_ticks() -> dict[str, int]:
    """Read the machine's clock ticks since boot: all of them, busy ones, and those the hypervisor took."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    busy = user + nice + system + irq + softirq
    return {"total": busy + idle + iowait + steal, "busy": busy, "steal": steal}


def child_cpu_seconds(pid: int) -> float:
    """Read the CPU seconds a running process has used so far; 0 when it is just ending."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _own_ticks() -> float:
    """Read the ticks this process itself has used, which are not foreign load."""
    times = os.times()
    return (times.user + times.system) * _TICKS_PER_SECOND
