"""What the run cost and what an answer costs: time, memory, bytes, latency."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.devices import Devices
from tunesmith.evaluation import predict
from tunesmith.models.loaded import Loaded
from tunesmith.tasks.contract import Example

LATENCY_ROWS, LEAST_ROWS = 50, 5
THROUGHPUT_ROWS = 256
MOST_SECONDS = 20.0
"""A model that writes can take seconds for a row: no more rows are timed when so much time has passed."""


def peak_memory_bytes() -> int:
    """The most memory this process has held at once (resident). Linux hands what `getrusage` tells on from the process
    that started this one, so its own high-water mark is read there."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def training_cost(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds, rows and real tokens of training, from the recorded steps."""
    seconds = sum(step["seconds"] for step in steps)
    rows, tokens = sum(step["rows"] for step in steps), sum(step["tokens"] for step in steps)
    rates = {"rows_per_second": rows / seconds, "tokens_per_second": tokens / seconds} if seconds else {}
    return {"training_seconds": seconds, "rows": rows, "tokens": tokens, "steps": len(steps), **rates}


def answering_cost(loaded: Loaded, task: Any, examples: Sequence[Example], devices: Devices) -> dict[str, float]:
    """Latency of single rows (median and 99th percentile, after a warm-up) and rows per second in batches."""
    predict(loaded, task, examples[:3], devices)
    times: list[float] = []
    for example in examples[:LATENCY_ROWS]:
        if len(times) >= LEAST_ROWS and sum(times) > MOST_SECONDS:
            break
        began = time.perf_counter()
        predict(loaded, task, [example], devices)
        times.append(time.perf_counter() - began)
    affordable = max(LEAST_ROWS, int(MOST_SECONDS / float(np.median(times))))
    many = list(examples[: min(THROUGHPUT_ROWS, affordable)])
    began = time.perf_counter()
    predict(loaded, task, many, devices)
    seconds = time.perf_counter() - began
    return {
        "latency_p50_ms": float(np.quantile(times, 0.50) * 1e3),
        "latency_p99_ms": float(np.quantile(times, 0.99) * 1e3),
        "latency_rows": len(times),
        "answers_per_second": len(many) / seconds,
    }
