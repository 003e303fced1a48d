"""Scores on lines: each estimate a dot, its interval a bar, all of a table on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.report.record import Score


@dataclass(frozen=True)
class Rail:
    """A score on a line: where its interval begins, how long it is, where the estimate stands; all in percent."""

    left: float
    width: float
    dot: float


@dataclass(frozen=True)
class ScoreLine:
    """A line of a table. `rows` says which or how many rows were judged."""

    who: str
    rows: str
    score: Score
    rail: Rail
    is_judged: bool


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one metric on one scale from `low` to `high`. `heads` names the first two columns and the score."""

    title: str
    meaning: str
    heads: tuple[str, str, str]
    low: float
    high: float
    lines: list[ScoreLine]


def score_table(
    title: str, meaning: str, heads: tuple[str, str, str], scores: Sequence[tuple[str, str, Score]]
) -> ScoreTable:
    """A table of (who, rows, score); the first line is the one that the others are held against."""
    low, high = scale([score[key] for _, _, score in scores for key in ("value", "low", "high")])

    def at(value: float | None) -> float:
        return 100 * ((low if value is None else value) - low) / (high - low)

    lines = [
        ScoreLine(
            who,
            rows,
            score,
            Rail(at(score["low"]), at(score["high"]) - at(score["low"]), at(score["value"])),
            is_judged=index == 0,
        )
        for index, (who, rows, score) in enumerate(scores)
    ]
    return ScoreTable(title, meaning, heads, low, high, lines)


def scale(values: Sequence[float | None]) -> tuple[float, float]:
    """Round ends around the values: tenths of their span's power of ten, and 0 to 1 where it is most of that."""
    known = [value for value in values if value is not None] or [0.0]
    low, high = min(known), max(known)
    if low >= 0 and high <= 1 and high - low > 0.5:
        return 0.0, 1.0
    unit = 10 ** math.floor(math.log10(max(high - low, 1e-6)))
    start, end = math.floor(low / unit) * unit, math.ceil(high / unit) * unit
    return (start, end) if end > start else (start, start + unit)
