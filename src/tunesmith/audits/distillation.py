"""What a student keeps of its teacher, and what it saves: size, latency and quality of both, on the same rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.audits.cost import LATENCY_ROWS, LEAST_ROWS, MOST_SECONDS
from tunesmith.devices import Devices
from tunesmith.evaluation import difference, predict, score
from tunesmith.models.layers import count_parameters
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.tasks.contract import Example
from tunesmith.tasks.metrics import Measure

SIDES = ("student", "teacher")


def compare(
    primary: str,
    split: str,
    measures: tuple[Measure, Measure],
    models: tuple[Loaded, Loaded],
    saved: tuple[Base, Base],
    latencies: tuple[float, float],
) -> dict[str, Any]:
    """The comparison; student first in each pair.

    Args:
        measures: the primary metric of both on the same rows.
        saved: where the weights of both lie.
        latencies: see `latencies`.

    Returns:
        {"metric", "split", "student", "teacher", "difference", "share_of_score", "share_of_latency",
        "share_of_parameters"}; the difference is paired, student minus teacher.
    """
    mine, theirs = measures
    sides: dict[str, dict[str, Any]] = {
        side: {
            "score": score({primary: measure})[primary],
            "parameters": count_parameters(loaded.model)["total"],
            "weight_bytes": weight_bytes(base),
            "latency_p50_ms": latency,
        }
        for side, measure, loaded, base, latency in zip(SIDES, measures, models, saved, latencies, strict=True)
    }
    return {
        "metric": primary,
        "split": split,
        **sides,
        "difference": difference(mine, theirs),
        "share_of_score": mine() / theirs() if theirs() > 0 else None,
        "share_of_latency": latencies[0] / latencies[1],
        "share_of_parameters": sides["student"]["parameters"] / sides["teacher"]["parameters"],
    }


def weight_bytes(base: Base) -> int:
    """How many bytes the weights of a saved model take, adapters and what lies below them included."""
    return sum(file.stat().st_size for folder in (base.folder, *base.adapters) for file in folder.glob("*.safetensors"))


def latencies(
    models: tuple[Loaded, Loaded], task: Any, examples: Sequence[Example], devices: Devices
) -> tuple[float, float]:
    """Median milliseconds for one row (batch size 1) of both models. They take turns row by row, so that whatever else
    the machine does meets both alike."""
    times: list[list[float]] = []
    for loaded in models:
        predict(loaded, task, examples[:3], devices)
    for example in examples[:LATENCY_ROWS]:
        if len(times) >= LEAST_ROWS and np.sum(times) > MOST_SECONDS:
            break
        times.append([_seconds(loaded, task, example, devices) for loaded in models])
    mine, theirs = np.median(times, axis=0) * 1e3
    return float(mine), float(theirs)


def _seconds(loaded: Loaded, task: Any, example: Example, devices: Devices) -> float:
    began = time.perf_counter()
    predict(loaded, task, [example], devices)
    return time.perf_counter() - began
