"""Charts of how training went and of how long the rows are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.report import wording
from tunesmith.report.drawing import (
    FIT,
    HELD,
    MOST_POINTS,
    REFIT,
    WARNING,
    Chart,
    legend,
    new_figure,
    pick,
    styled,
    thin,
    to_svg,
)
from tunesmith.report.findings import Overfitting
from tunesmith.report.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 24
MOST_BINS = 40


def draw_curves(record: Record, overfitting: Overfitting | None) -> list[Chart]:
    """Loss, primary metric, learning rate and gradient norm over the steps; none where no step was recorded."""
    if not record.phase("fit"):
        return []
    charts = [_loss(record, overfitting)]
    if any(row["phase"] == "fit" for row in record.evaluations):
        charts.append(_metric(record))
    rate = "How large the steps were: rising in warm-up, then falling as the schedule says."
    norm = "How hard the rows pulled at the weights, before clipping. A peak marks rows that surprised the model."
    charts.append(_series(record, "learning_rate", "Learning rate", rate))
    limit = record.recipe.train.max_grad_norm
    clipped = f" Larger ones were scaled down to {limit:g}." if limit is not None else ""
    charts.append(_series(record, "grad_norm", "Gradient norm", norm + clipped))
    return charts


def draw_lengths(record: Record) -> Chart:
    """How long the training rows are, in tokens, and how many of them the model takes at once."""
    train, limit = record.data["splits"]["train"], int(record.data["max_length"])
    lengths, counts = (np.array(column, dtype=float) for column in zip(*train["lengths"], strict=True))
    longest = int(lengths.max())
    width = max(1, -(-(longest - int(lengths.min()) + 1) // MOST_BINS))
    edges = np.arange(int(lengths.min()), longest + width + 1, width)
    heights, _ = np.histogram(lengths, bins=edges, weights=counts)
    read = wording.LONG_TEXTS[record.data.get("long_text", "truncate")].format(limit)
    lost = wording.count(train["cut"], "row") if train["cut"] else "no row"
    caption = f"Tokens in each training row. Of longer inputs {read}; so {lost} lost a part."
    figure, axes = new_figure()
    with styled():
        axes.bar(edges[:-1], heights, width=width * 0.9, align="edge", color=FIT)
        near = limit <= 1.3 * longest
        if near:
            axes.axvline(limit, color=HELD, linewidth=1.4, linestyle="--", label=f"{limit:,} tokens at once")
            legend(axes)
        axes.set(xlabel="tokens in a row", ylabel="rows")
        axes.grid(axis="x", visible=False)
        svg = to_svg(figure, "lengths", f"Histogram of row lengths. {caption}")
    names = [f"{a:,}" if width == 1 else f"{a:,} to {a + width - 1:,}" for a in edges[:-1]]
    rows = [[name, f"{int(height):,}"] for name, height in zip(names, heights, strict=True) if height]
    return Chart("lengths", "Length of the rows", caption, svg, ("Tokens", "Rows"), rows)


def _loss(record: Record, overfitting: Overfitting | None) -> Chart:
    figure, axes = new_figure()
    rows = record.phase("fit")
    steps, losses = _column(rows, "step"), _column(rows, "loss")
    window = max(5, len(rows) // 30) if len(rows) >= 20 else 1
    held = [row for row in record.evaluations if row["phase"] == "fit" and row["loss"] is not None]
    with styled():
        axes.plot(*thin(steps, losses), color=FIT, alpha=0.28, linewidth=0.9)
        axes.plot(*thin(steps, _smooth(losses, window)), color=FIT, label="training")
        again = record.phase("refit")
        if again:
            smoothed = _smooth(_column(again, "loss"), window)
            axes.plot(*thin(_column(again, "step"), smoothed), color=REFIT, linestyle=":", label="training again")
        if held:
            axes.plot(_column(held, "step"), _column(held, "loss"), color=HELD, marker="o", markersize=3.6,
                      label="validation")  # fmt: skip
        if overfitting:
            _mark_overfitting(axes, overfitting, held[-1]["step"])
        axes.set(xlabel="step", ylabel="loss")
        legend(axes)
        caption = "Lower is better."
        caption += f" Thin line: each step; thick line: mean of the last {window:,} steps." if window > 1 else ""
        caption += f" {overfitting.sentence()}" if overfitting else ""
        svg = to_svg(figure, "loss", f"Training and validation loss over the steps. {caption}")
    table = _loss_table(rows, held, _smooth(losses, window))
    return Chart("loss", "Loss", caption, svg, ("Step", "Training loss (mean)", "Validation loss"), table)


def _mark_overfitting(axes: Axes, overfitting: Overfitting, last: int) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))
    axes.axvspan(overfitting.step, last, color=WARNING, alpha=0.1, linewidth=0)
    middle = (overfitting.step + last) / 2
    axes.text(middle, 0.96, "overfitting", transform=axes.get_xaxis_transform(), ha="center", va="top", color=WARNING)


def _loss_table(rows: list[dict[str, Any]], held: list[dict[str, Any]], smoothed: np.ndarray) -> list[list[str]]:
    at = {row["step"]: value for row, value in zip(rows, smoothed, strict=True)}
    losses = {row["step"]: row["loss"] for row in held}
    picked = set(pick(list(at), MOST_ROWS)) | set(pick(list(losses), MOST_ROWS))
    return [
        [f"{step:,}", _cell(at.get(step)), wording.exact(losses[step]) if step in losses else ""]
        for step in sorted(picked)
    ]


def _metric(record: Record) -> Chart:
    held = [row for row in record.evaluations if row["phase"] == "fit"]
    scores = [row["scores"][record.primary] for row in held]
    steps, best = _column(held, "step"), record.manifest["best_step"]
    title = wording.metric(record.primary).title
    figure, axes = new_figure()
    with styled():
        axes.fill_between(steps, _column(scores, "low"), _column(scores, "high"), color=HELD, alpha=0.16, linewidth=0)
        axes.plot(steps, _column(scores, "value"), color=HELD, marker="o", markersize=3.6, label="validation")
        if best in steps:
            value = scores[list(steps).index(best)]["value"]
            axes.plot([best], [value], linestyle="", marker="D", markersize=7.5, color=FIT, label="kept step")
        axes.set(xlabel="step", ylabel=title)
        legend(axes)
        caption = f"Band: 95 % interval. The weights of step {best:,} were kept."
        svg = to_svg(figure, "metric", f"{title} on the validation rows over the steps. {caption}")
    table = [
        [
            f"{row['step']:,}",
            wording.exact(score["value"]),
            wording.interval(score),
            "kept" if row["step"] == best else "",
        ]
        for row, score in zip(held, scores, strict=True)
    ]
    header = ("Step", title, "95 % interval", "Weights")
    kept = set(pick(range(len(table)), 2 * MOST_ROWS)) | {i for i, row in enumerate(table) if row[3]}
    return Chart("metric", f"{title} on validation", caption, svg, header, [table[i] for i in sorted(kept)])


def _series(record: Record, key: str, title: str, caption: str) -> Chart:
    figure, axes = new_figure()
    rows, again = record.phase("fit"), record.phase("refit")
    with styled():
        noisy = len(rows) > MOST_POINTS // 2 and key != "learning_rate"
        steps, values = _column(rows, "step"), _column(rows, key)
        if noisy:
            axes.plot(*thin(steps, values), color=FIT, alpha=0.28, linewidth=0.9)
            caption += f" Thick line: mean of the last {len(rows) // 30:,} steps."
            values = _smooth(values, len(rows) // 30)
        axes.plot(*thin(steps, values), color=FIT, label="training")
        if again:
            axes.plot(*thin(_column(again, "step"), _column(again, key)), color=REFIT, linestyle=":",
                      label="training again")  # fmt: skip
            legend(axes)
        axes.set(xlabel="step", ylabel=title.lower())
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        svg = to_svg(figure, key, f"{title} over the steps. {caption}")
    picked = pick(rows, MOST_ROWS)
    table = [[f"{row['step']:,}", _cell(row[key])] for row in picked]
    return Chart(key, title, caption, svg, ("Step", title), table)


def _cell(value: float | None) -> str:
    return wording.MISSING if value is None else f"{value:.4g}"


def _column(rows: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values (of fewer at the start)."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)
