"""How far answered numbers are from the true ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.report import wording
from tunesmith.report.drawing import FIT, HELD, QUIET, Chart, legend, new_figure, styled, to_svg
from tunesmith.report.record import Record, Score
from tunesmith.shares import Z95

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
MOST_DOTS = 600
"""Above this many rows dots would hide one another: squares then show how many lie where."""
SQUARES = 30
GROUPS = 10
ERROR_BINS = 31


@dataclass(frozen=True)
class Numbers:
    """What the page shows of a number. `quantiles` holds (share of the rows, their largest error)."""

    sentence: str
    quantiles: list[tuple[float, Score]]
    charts: list[Chart]


def numbers(record: Record) -> Numbers | None:
    """None where answers are no numbers."""
    if not record.predictions or not all(isinstance(row["answer"], float | int) for row in record.predictions):
        return None
    gold, answer = np.array([(row["gold"], row["answer"]) for row in record.predictions], dtype=float).T
    errors = answer - gold
    quantiles = [(point, quantile(np.abs(errors), point)) for point in QUANTILES]
    sentence = _sentence(errors, quantiles)
    return Numbers(sentence, quantiles, [_draw_answers(record, gold, answer), _draw_errors(record, errors)])


def quantile(values: np.ndarray, point: float) -> Score:
    """A quantile with its 95 % interval: the two values between whose ranks it lies, whatever the distribution
    (binomial ranks in their normal approximation)."""
    ordered, many = np.sort(values), len(values)
    half = Z95 * math.sqrt(many * point * (1 - point))
    first = min(max(math.floor(many * point - half), 0), many - 1)
    last = min(max(math.ceil(many * point + half), 0), many - 1)
    return {"value": float(np.quantile(values, point)), "low": float(ordered[first]), "high": float(ordered[last])}


def _sentence(errors: np.ndarray, quantiles: list[tuple[float, Score]]) -> str:
    by_point = dict(quantiles)
    mean = float(errors.mean())
    half = Z95 * float(errors.std(ddof=1)) / math.sqrt(len(errors)) if len(errors) > 1 else math.inf
    side = "too high" if mean > 0 else "too low"
    bias = f"On average answers are {wording.short(abs(mean))} {side} (95\N{NO-BREAK SPACE}% interval of answer minus "
    bias += f"true score {wording.short(mean - half)} to {wording.short(mean + half)})"
    if abs(mean) <= half:
        bias += ", which may be mere chance"
    return (
        f"Half of the answers are off by {wording.short(by_point[0.5]['value'])} or less, one in ten by more than "
        f"{wording.short(by_point[0.9]['value'])}. {bias}."
    )


def _draw_answers(record: Record, gold: np.ndarray, answer: np.ndarray) -> Chart:
    ends = (min(gold.min(), answer.min()), max(gold.max(), answer.max()))
    margin = 0.03 * (ends[1] - ends[0]) or 1.0
    low, high = float(ends[0] - margin), float(ends[1] + margin)
    many = len(gold) > MOST_DOTS
    mark = "Darker squares hold more rows." if many else "Each dot is a row."
    caption = f"{mark} On the dashed line the answer is the true score; above it the answer is too high."
    figure, axes = new_figure()
    with styled():
        if many:
            _squares(axes, gold, answer, (low, high))
        else:
            axes.plot(gold, answer, linestyle="", marker="o", markersize=3.4, markeredgewidth=0, color=FIT, alpha=0.45)
        axes.plot([low, high], [low, high], color=QUIET, linestyle="--", linewidth=1.1, label="answer = true score")
        legend(axes)
        axes.set(xlabel="true score", ylabel="answer", xlim=(low, high), ylim=(low, high))
        svg = to_svg(figure, "answers", f"Answers against true scores on the {record.split} rows. {caption}")
    header = ("True score", "Rows", "Mean answer", "Mean error", "95 % interval of the mean error")
    return Chart("answers", "Answers against true scores", caption, svg, header, _groups(gold, answer))


def _squares(axes: Axes, gold: np.ndarray, answer: np.ndarray, ends: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    counts, x_edges, y_edges = np.histogram2d(gold, answer, bins=SQUARES, range=(ends, ends))
    width = x_edges[1] - x_edges[0]
    for column, line in np.argwhere(counts > 0):
        depth = 0.12 + 0.88 * math.sqrt(counts[column, line] / counts.max())
        corner = (x_edges[column], y_edges[line])
        axes.add_patch(Rectangle(corner, width, width, color=FIT, alpha=round(depth, 2), linewidth=0))


def _groups(gold: np.ndarray, answer: np.ndarray) -> list[list[str]]:
    """Rows in groups of about equal size by their true score."""
    edges = np.unique(np.quantile(gold, np.linspace(0, 1, GROUPS + 1)))
    places = np.clip(np.searchsorted(edges, gold, side="right") - 1, 0, max(0, len(edges) - 2))
    rows = []
    for place in np.unique(places):
        mine = places == place
        errors = (answer - gold)[mine]
        half = Z95 * errors.std(ddof=1) / math.sqrt(len(errors)) if len(errors) > 1 else math.inf
        mean = float(errors.mean())
        between = f"{mean - half:+.3g} to {mean + half:+.3g}" if math.isfinite(half) else wording.MISSING
        ends = (wording.short(float(end)) for end in (gold[mine].min(), gold[mine].max()))
        answered = wording.short(float(answer[mine].mean()))
        rows.append([" to ".join(ends), f"{len(errors):,}", answered, f"{mean:+.3g}", between])
    return rows


def _draw_errors(record: Record, errors: np.ndarray) -> Chart:
    reach = float(np.abs(errors).max()) or 1.0
    heights, edges = np.histogram(errors, bins=ERROR_BINS, range=(-reach, reach))
    caption = "Answer minus true score: right of 0 the answer is too high, left of it too low."
    figure, axes = new_figure()
    with styled():
        axes.bar(edges[:-1], heights, width=0.92 * (edges[1] - edges[0]), align="edge", color=FIT)
        axes.axvline(0, color=HELD, linewidth=1.3, linestyle="--")
        axes.set(xlabel="answer minus true score", ylabel="rows")
        axes.grid(axis="x", visible=False)
        svg = to_svg(figure, "errors-drawn", f"How often which error occurs on the {record.split} rows. {caption}")
    rows = [
        [f"{start:+.3g} to {end:+.3g}", f"{height:,}"]
        for start, end, height in zip(edges[:-1], edges[1:], heights, strict=True)
        if height
    ]
    return Chart("errors-drawn", "How far answers are off", caption, svg, ("Error", "Rows"), rows)
