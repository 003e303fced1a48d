"""Predict over a split, score, and say how sure the scores are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tunesmith.data.batches import length_sorted
from tunesmith.devices import Devices, machine_errors_named
from tunesmith.models.layers import set_training_mode
from tunesmith.models.loaded import Loaded
from tunesmith.tasks.contract import Answer, Batch, Draw, Example, Prediction, Value, length_of
from tunesmith.tasks.metrics import Measure

RESAMPLES = 2000
INTERVAL = 0.95
BOOTSTRAP_SEED = 20_240_229
"""Fixed, so that the same predictions always get the same interval."""

Score = dict[str, float]
"""{"value", "low", "high"}: the estimate and its 95 % interval."""


def predict(
    loaded: Loaded,
    task: Any,
    examples: Sequence[Example],
    devices: Devices,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Any]:
    """The task's raw output for each of `examples`, in their order; in the stored dtype and without dropout."""
    outputs: list[Any] = [None] * len(examples)
    done = 0
    with machine_errors_named(), torch.inference_mode():
        for piece, batch in _passes(loaded, task, examples, devices):
            for index, output in zip(piece, task.predict(loaded, batch), strict=True):
                outputs[index] = output
            done += len(piece)
            progress(done)
    return outputs


def mean_loss(
    loaded: Loaded, task: Any, outputs: Sequence[Any], examples: Sequence[Example], devices: Devices
) -> float | None:
    """The training loss over `examples`, without dropout: as their outputs tell it, or by a pass of its own where they
    do not (a text tells nothing of other texts) or are those of some rows only. None if no row has a target."""
    told = task.mean_loss(outputs, examples) if len(outputs) == len(examples) else None
    if told is not None:
        return float(told)
    total = count = 0.0
    first = [task.drawn(example, Draw(seed=0, epoch=0, row=0)) for example in examples]
    with machine_errors_named(), torch.inference_mode():
        for _, batch in _passes(loaded, task, first, devices):
            loss = task.loss(loaded, task.prepare(loaded, batch))
            total, count = total + float(loss.total), count + loss.count
    return total / count if count else None


def _passes(
    loaded: Loaded, task: Any, examples: Sequence[Example], devices: Devices
) -> Iterator[tuple[list[int], Batch]]:
    """Length-sorted batches with the positions of their rows, the model in evaluation mode and without gradients."""
    was_training = loaded.model.training
    entry, loaded.entry = loaded.entry, None
    loaded.model.eval()
    try:
        for piece in length_sorted([length_of(example) for example in examples], devices.micro_batch_tokens):
            batch = task.collate([examples[i] for i in piece], loaded.processor)
            yield piece, {name: tensor.to(devices.device) for name, tensor in batch.items()}
    finally:
        loaded.entry = entry
        if was_training:
            set_training_mode(loaded.model)


def score(measures: Mapping[str, Measure]) -> dict[str, Score]:
    """Each metric's value and 95 % percentile-bootstrap interval over rows."""
    num_rows = next(iter(measures.values())).num_rows if measures else 0
    if num_rows == 0:
        return {}
    draws = resampled(list(measures.values()))
    return {name: interval(measure(), drawn) for (name, measure), drawn in zip(measures.items(), draws, strict=True)}


def difference(mine: Measure, theirs: Measure) -> Score:
    """Mine minus theirs on the same rows, with a paired 95 % interval: both see the same resampled rows."""
    if mine.num_rows != theirs.num_rows:
        raise ValueError("a paired difference needs the same rows on both sides")
    my_draws, their_draws = resampled([mine, theirs])
    return interval(mine() - theirs(), my_draws - their_draws)


def mean_of(scores: Sequence[Score]) -> Score:
    """The mean of scores on independent rows; each side of its interval from the same sides of theirs, as errors of
    independent estimates add up."""
    many = len(scores)
    value = math.fsum(one["value"] for one in scores) / many
    below, above = (
        math.sqrt(math.fsum((one[side] - one["value"]) ** 2 for one in scores)) / many for side in ("low", "high")
    )
    return {"value": value, "low": value - below, "high": value + above}


def resampled(measures: Sequence[Measure], stream: int = 0) -> list[np.ndarray]:
    """(RESAMPLES,) values of each measure of the same rows, all on the same resampled rows; those of another `stream`
    are drawn on their own, as rows of another kind must be."""
    draws = [np.empty(RESAMPLES) for _ in measures]
    for part, weights in _resamples(measures[0].num_rows, stream) if measures else ():
        for measure, drawn in zip(measures, draws, strict=True):
            drawn[part] = measure.resampled(weights)
    return draws


def interval(value: float, draws: np.ndarray) -> Score:
    """A value with its 95 % percentile interval."""
    low, high = np.quantile(draws, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


def _resamples(num_rows: int, stream: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
    """How often each row is drawn in each resample, in parts of bounded memory: (slice, (resamples, rows) counts)."""
    generator = np.random.Generator(np.random.Philox(key=[BOOTSTRAP_SEED + stream, num_rows]))
    size = max(1, min(RESAMPLES, 20_000_000 // max(1, num_rows)))
    block = max(1, 10_000 // max(1, num_rows))  # drawn at once: few calls for few rows, and what is drawn stays near
    for start in range(0, RESAMPLES, size):
        many = min(size, RESAMPLES - start)
        counts = np.empty((many, num_rows))
        for k in range(0, many, block):
            drawn = generator.integers(0, num_rows, (min(block, many - k), num_rows))
            drawn += np.arange(len(drawn))[:, None] * num_rows
            counts[k : k + block] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield slice(start, start + many), counts


def as_predictions(golds: Sequence[Value | None], answers: Sequence[Answer]) -> list[Prediction]:
    pairs = enumerate(zip(golds, answers, strict=True))
    return [Prediction.of(row, gold, answer) for row, (gold, answer) in pairs]
