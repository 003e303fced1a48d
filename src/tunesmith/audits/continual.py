"""What was kept of earlier tasks: the matrix of scores over tasks and time, and what is read from it.

Letters: T tasks, and as many times, each the end of the training on one task, in their order; M resamples. A matrix
here has a line for each task and a column for each time; in the papers it is the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation import RESAMPLES, Score, interval, resampled, score
from tunesmith.tasks.metrics import Measure

Cell = Measure | Score | None
"""A task at a time: its measure on its test rows, or a score alone, or nothing where it was not scored."""

Number = Score | dict[str, float | None] | None
"""A figure with its interval; low and high are None where a score came alone, all is None where it cannot be had."""


def summarise(
    tasks: Sequence[str],
    times: Sequence[str],
    metrics: Sequence[str],
    matrix: Sequence[Sequence[Cell]],
    begins: Sequence[Cell] | None = None,
) -> dict[str, Any]:
    """What the report shows.

    Rows of a task are drawn anew together for all its times, and apart from those of the other tasks: so differences
    over time are paired by row. All metrics are such that more is better.

    Args:
        tasks: their names, in the order in which they were learned.
        times: what each time is called; task k was learned at time k.
        metrics: of each task the metric of its scores.
        matrix: (T, T) cells.
        begins: (T,) of each task how it is answered without having learned any task, where that is known.

    Returns:
        {"tasks", "times", "metrics", "rows": [how many of each task, or None], "matrix": [[score or None]], "average",
        "forgetting", "backward_transfer", "forward_transfer": number or None, "forgotten": [number or None]}: see the
        functions below; "forgotten" is the forgetting of each task.

    Raises:
        ValueError: the matrix is not square, or a task was not always scored on as many rows.
    """
    if len(times) != len(tasks) or any(len(line) != len(times) for line in matrix):
        raise ValueError("each task has a time at which it was learned, and each line a cell for each time")
    known = begins if begins is not None else [None] * len(tasks)
    rows = [_rows_of([*line, begin]) for line, begin in zip(matrix, known, strict=True)]
    values, draws = _stacked([[*line, begin] for line, begin in zip(matrix, known, strict=True)])

    def figure(read: Any) -> Number:
        return _figure(read(values), None if draws is None else read(draws))

    return {
        "tasks": list(tasks),
        "times": list(times),
        "metrics": list(metrics),
        "rows": rows,
        "matrix": [[_score(cell) for cell in line] for line in matrix],
        "average": figure(lambda R: average_accuracy(R[:, :-1])),
        "forgetting": figure(lambda R: _mean(forgetting(R[:, :-1]))),
        "backward_transfer": figure(lambda R: backward_transfer(R[:, :-1])),
        "forward_transfer": figure(lambda R: forward_transfer(R[:, :-1], R[:, -1])),
        "forgotten": [figure(lambda R, task=task: forgetting(R[:, :-1])[task]) for task in range(len(tasks) - 1)],
    }


def average_accuracy(R_TTM: np.ndarray) -> np.ndarray:
    """(M,) the mean over all tasks at the end; nan if one of them was not scored then.

    Source: ACC of Lopez-Paz and Ranzato 2017, arXiv:1706.08840, section 2.
    """
    return _mean(R_TTM[:, -1])


def forgetting(R_TTM: np.ndarray) -> np.ndarray:
    """(T - 1, M) of each task but the last the best score at any time before the end, minus that at the end; nan where
    one of the two is missing. Where times before the end were not scored the best of the others stands for all, so it
    may be more. Below 0: it is better than ever. The paper's forgetting is the mean over these tasks.

    Source: Chaudhry et al. 2018, arXiv:1801.10112, definition 1 and equation 3.
    """
    earlier = np.where(np.isnan(R_TTM[:-1, :-1]), -np.inf, R_TTM[:-1, :-1]).max(axis=1, initial=-np.inf)
    return np.where(np.isinf(earlier), np.nan, earlier) - R_TTM[:-1, -1]


def backward_transfer(R_TTM: np.ndarray) -> np.ndarray:
    """(M,) the mean, over all tasks but the last, of the score at the end minus that right after the task was learned;
    nan where one is missing. Below 0: later tasks took something away.

    Source: BWT of Lopez-Paz and Ranzato 2017, arXiv:1706.08840, section 2.
    """
    places = np.arange(len(R_TTM) - 1)
    return _mean(R_TTM[:-1, -1] - R_TTM[places, places])


def forward_transfer(R_TTM: np.ndarray, begins_TM: np.ndarray) -> np.ndarray:
    """(M,) the mean, over all tasks but the first, of the score right before the task was learned minus that of a model
    that learned no task; nan where one is missing, as it is where a head is new to the body.

    Source: FWT of Lopez-Paz and Ranzato 2017, arXiv:1706.08840, section 2.
    """
    places = np.arange(1, len(R_TTM))
    return _mean(R_TTM[places, places - 1] - begins_TM[1:])


def _mean(values_TM: np.ndarray) -> np.ndarray:
    """(M,) the mean over the first axis; nan of nothing."""
    return values_TM.mean(axis=0) if len(values_TM) else np.full(values_TM.shape[1:], np.nan)


def _stacked(lines: Sequence[Sequence[Cell]]) -> tuple[np.ndarray, np.ndarray | None]:
    """(T, cells, 1) values and (T, cells, M) draws of all lines; None where one of them has none."""
    found = [_values(line, stream) for stream, line in enumerate(lines)]
    drawn = [draws for _, draws in found if draws is not None]
    return np.stack([values for values, _ in found]), np.stack(drawn) if len(drawn) == len(found) else None


def _values(cells: Sequence[Cell], stream: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(cells, 1) values, nan where there is none, and (cells, M) draws; None where a score came without its rows."""
    values = np.full((len(cells), 1), np.nan)
    measured = {place: cell for place, cell in enumerate(cells) if isinstance(cell, Measure)}
    for place, cell in enumerate(cells):
        if cell is not None:
            values[place] = cell() if isinstance(cell, Measure) else cell["value"]
    if len(measured) < sum(cell is not None for cell in cells):
        return values, None
    draws = np.full((len(cells), RESAMPLES), np.nan)
    for place, drawn in zip(measured, resampled(list(measured.values()), stream), strict=True):
        draws[place] = drawn
    return values, draws


def _rows_of(cells: Sequence[Cell]) -> int | None:
    """How many rows a task was scored on; None if that is not known."""
    found = {cell.num_rows for cell in cells if isinstance(cell, Measure)}
    if len(found) > 1:
        raise ValueError("a task must be scored on the same rows at all times")
    return found.pop() if found else None


def _score(cell: Cell) -> Score | None:
    return score({"it": cell})["it"] if isinstance(cell, Measure) else cell


def _figure(value_1: np.ndarray, draws_M: np.ndarray | None) -> Number:
    value = float(value_1[0])
    if np.isnan(value):
        return None
    return {"value": value, "low": None, "high": None} if draws_M is None else interval(value, draws_M)
