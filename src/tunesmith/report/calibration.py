"""Whether the model is as sure as it is right, and what is gained if its least sure answers go to a person."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.report import wording
from tunesmith.report.classes import is_right, members
from tunesmith.report.drawing import FIT, HELD, QUIET, Chart, legend, new_figure, new_pair, styled, thin, to_svg
from tunesmith.report.record import Record, Score
from tunesmith.shares import Share, wilson

BINS = 15
"""As many as the calibration error has."""
KEPT_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
TOLD_SHARE = 0.8
EVEN = 0.02
"""Said and true certainty that differ by less than this on average are called equal."""


@dataclass(frozen=True)
class Bin:
    """Claims whose certainty lies between `low` and `high`: how many, how sure on average, and how many came true."""

    low: float
    high: float
    claims: int
    sure: float
    right: Share


@dataclass(frozen=True)
class Kept:
    """The rows that are answered if only those with at least `threshold` certainty are."""

    asked: float
    rows: int
    share: float
    threshold: float
    right: Share


@dataclass(frozen=True)
class Calibration:
    """What the page shows; `kept` has a line for each share of KEPT_SHARES."""

    sentence: str
    temperature: float | None
    error: Score | None
    error_before: Score | None
    coverage: str
    kept: list[Kept]
    charts: list[Chart]


def calibration(record: Record) -> Calibration | None:
    """None where answers carry no certainty."""
    sure, right = certainties(record.predictions)
    if not len(sure):
        return None
    bins = reliability(*claims(record.predictions))
    if not bins:
        return None
    kept = [keep(sure, right, share) for share in KEPT_SHARES]
    return Calibration(
        sentence=_sentence(record, bins),
        temperature=record.scores.get("calibration", {}).get("temperature"),
        error=record.judged.get("ece"),
        error_before=record.scores.get("calibration", {}).get("ece_before"),
        coverage=_coverage_sentence(record, keep(sure, right, TOLD_SHARE), kept[-1]),
        kept=kept,
        charts=[_draw_reliability(record, bins), _draw_coverage(record, sure, right)],
    )


def certainties(predictions: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """For each row how sure the model was of its answer, and whether it was right; empty where it does not say."""
    if any(row.get("score") is None or row["gold"] is None for row in predictions):
        return np.empty(0), np.empty(0)
    sure = np.array([row["score"] for row in predictions], dtype=float)
    return sure, np.array([is_right(row) for row in predictions], dtype=float)


def claims(predictions: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """What is claimed with a probability, and whether it is so: each answer, each label of each row, or each span."""
    if not predictions or not isinstance(predictions[0]["answer"], list):
        return certainties(predictions)
    spans = [(span, row["gold"]) for row in predictions for span in row["answer"] if isinstance(span, dict)]
    if spans:
        right_spans = [members([span]) <= members(gold) for span, gold in spans]
        return np.array([span["score"] for span, _ in spans], dtype=float), np.array(right_spans, dtype=float)
    sure = [share for row in predictions for share in row["probabilities"].values()]
    right = [label in row["gold"] for row in predictions for label in row["probabilities"]]
    return np.array(sure, dtype=float), np.array(right, dtype=float)


def reliability(sure: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Bins of equal width from 0 to 1; empty ones are left out."""
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums = np.bincount(places, weights=sure, minlength=BINS)
    hits = np.bincount(places, weights=right, minlength=BINS)
    return [
        Bin(place / BINS, (place + 1) / BINS, int(counts[place]), sums[place] / counts[place],
            wilson(round(hits[place]), int(counts[place])))
        for place in np.flatnonzero(counts)
    ]  # fmt: skip


def keep(sure: np.ndarray, right: np.ndarray, share: float) -> Kept:
    """Answer at least this share of the rows, the surest first; rows that are equally sure are answered together."""
    asked = max(1, math.ceil(share * len(sure) - 1e-9))
    exact = float(np.partition(sure, len(sure) - asked)[len(sure) - asked])
    answered = sure >= exact
    rows = int(answered.sum())
    # rounded down, so that nobody who sets the threshold as shown loses a row
    threshold = math.floor(exact * 1e4) / 1e4
    return Kept(share, rows, rows / len(sure), threshold, wilson(int(right[answered].sum()), rows))


def _what(record: Record) -> str:
    return "right" if record.classifies else f"right in every {record.part}"


def _sentence(record: Record, bins: Sequence[Bin]) -> str:
    total = sum(part.claims for part in bins)
    said = sum(part.claims * part.sure for part in bins) / total
    true = sum(part.claims * (part.right.value or 0.0) for part in bins) / total
    if record.classifies:
        first = f"On average it says that it is {wording.share(said)} sure, and it is right in {wording.share(true)}"
    else:
        first = (
            f"On average it gives a {record.part} {wording.share(said)} probability, and {wording.share(true)} of them "
            f"{'are right' if record.has_spans else 'apply'}"
        )
    gap = said - true
    judged = (
        "which fits" if abs(gap) < EVEN else "so it is too sure" if gap > 0 else "so it is less sure than it could be"
    )
    return f"{first}, {judged}." if record.classifies or abs(gap) < EVEN else f"{first}."


def _coverage_sentence(record: Record, kept: Kept, whole: Kept) -> str:
    if kept.rows == whole.rows:
        return "The model is equally sure of nearly all rows, so its certainty does not tell the hard ones apart."
    return (
        f"If the {wording.share(1 - kept.share)} least sure rows go to a person, "
        f"{wording.share(kept.right.value or 0)} of the rest are {_what(record)} "
        f"(95\N{NO-BREAK SPACE}% interval {wording.share(kept.right.low)} to "
        f"{wording.share(kept.right.high)}); of all rows it is {wording.share(whole.right.value or 0)}."
    )


def _draw_reliability(record: Record, bins: Sequence[Bin]) -> Chart:
    figure, axes, below = new_pair()
    sure = np.array([part.sure for part in bins])
    right = np.array([part.right.value for part in bins])
    spread = np.array([[part.right.value - part.right.low, part.right.high - part.right.value] for part in bins]).T  # type: ignore[operator]
    thing = "answers" if record.classifies else f"{record.part}s"
    caption = (
        "Dots on the dashed line are as sure as they are right; below it the model is too sure. The bars at a dot are "
        f"its 95 % interval, those at the bottom say how many {thing} lie there."
    )
    with styled():
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1.0, label="as sure as right")
        axes.errorbar(sure, right, yerr=spread, color=FIT, marker="o", markersize=4.5, linestyle="", elinewidth=1.2,
                      label="found")  # fmt: skip
        axes.set(ylabel="share right" if record.classifies else "share that applies", ylim=(-0.02, 1.02))
        legend(axes)
        middles = [(part.low + part.high) / 2 for part in bins]
        below.bar(middles, [part.claims for part in bins], width=0.9 / BINS, color=HELD)
        below.set(xlabel="how sure the model says it is", ylabel=thing, xlim=(-0.01, 1.01))
        below.grid(axis="x", visible=False)
        svg = to_svg(figure, "reliability", f"Share of right {thing} by the certainty that the model states. {caption}")
    header = ("Sure", thing.capitalize(), "Sure on average", "Share right", "95 % interval")
    rows = [
        [f"{part.low:.2f} to {part.high:.2f}", f"{part.claims:,}", f"{part.sure:.3f}", f"{part.right.value:.3f}",
         f"{part.right.low:.3f} to {part.right.high:.3f}"]
        for part in bins
    ]  # fmt: skip
    return Chart("reliability", "Is it as sure as it is right?", caption, svg, header, rows)


def _draw_coverage(record: Record, sure: np.ndarray, right: np.ndarray) -> Chart:
    order = np.argsort(-sure, kind="stable")
    # equally sure rows are answered together: only where the certainty falls does the curve have a point
    ends = np.flatnonzero(np.append(np.diff(sure[order]) < 0, True))
    rows, hits = ends + 1, np.cumsum(right[order])[ends]
    picked = np.unique(np.round(np.linspace(0, len(rows) - 1, 150)).astype(int))
    shares = [wilson(round(hits[i]), int(rows[i])) for i in picked]
    x = 100 * rows[picked] / len(sure)
    low, high = (np.array([100 * getattr(share, name) for share in shares]) for name in ("low", "high"))
    value = np.array([100 * (share.value or 0.0) for share in shares])
    caption = "From the surest rows on the left to all rows on the right. Band: 95 % interval."
    figure, axes = new_figure()
    with styled():
        axes.fill_between(x, low, high, color=FIT, alpha=0.16, linewidth=0)
        axes.plot(*thin(x, value), color=FIT, marker="o" if len(x) < 8 else "", markersize=3.6)
        axes.set(xlabel="rows that the model answers, %", ylabel=f"of them {_what(record)}, %", xlim=(0, 101))
        bottom = max(0.0, float(np.min(value[x >= 5], initial=100.0)) - 8)
        axes.set_ylim(bottom, 100.5)
        svg = to_svg(figure, "coverage", f"Share of right answers by the share of rows that are answered. {caption}")
    table = [
        [f"{x[i]:.1f} %", f"{int(rows[picked[i]]):,}", f"{value[i]:.1f} %", f"{low[i]:.1f} to {high[i]:.1f} %"]
        for i in np.unique(np.round(np.linspace(0, len(x) - 1, 20)).astype(int))
    ]
    header = ("Answered", "Rows", _what(record).capitalize(), "95 % interval")
    return Chart("coverage", "If only the surest rows are answered", caption, svg, header, table)
