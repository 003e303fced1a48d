"""Charts as inline SVG: the same run folder gives the same bytes, colours follow the page, texts stay text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from tunesmith.report import wording
from tunesmith.report.findings import Overfitting
from tunesmith.report.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.0, 3.0
"""Inches. Half the page's width, and still readable on a telephone, where it takes the whole."""
MOST_POINTS = 400
MOST_ROWS = 24
MOST_BINS = 40

INK, QUIET, GRID, FIT, HELD, REFIT, WARNING = (f"#0{n}0{n}0{n}" for n in range(1, 8))
_PAGE_COLOURS = {INK: "ink", QUIET: "quiet", GRID: "line", FIT: "fit", HELD: "held", REFIT: "refit", WARNING: "held"}
"""Stand-ins that no one would choose, exchanged for the page's own colours so that dark mode and print work."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tunesmith",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Chart:
    """A picture, its sentence, and the same in figures."""

    name: str
    title: str
    caption: str
    svg: Markup
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


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
    """How long the training rows are, in tokens, and where they are cut."""
    train, limit = record.data["splits"]["train"], int(record.data["max_length"])
    lengths, counts = (np.array(column, dtype=float) for column in zip(*train["lengths"], strict=True))
    longest = int(lengths.max())
    width = max(1, -(-(longest - int(lengths.min()) + 1) // MOST_BINS))
    edges = np.arange(int(lengths.min()), longest + width + 1, width)
    heights, _ = np.histogram(lengths, bins=edges, weights=counts)
    caption = f"Tokens in each training row. The model takes {limit:,}; "
    caption += f"{wording.count(train['cut'], 'longer row')} lost the end." if train["cut"] else "no row was cut."
    figure, axes = _figure()
    with _styled():
        axes.bar(edges[:-1], heights, width=width * 0.9, align="edge", color=FIT)
        near = limit <= 1.3 * longest
        if near:
            axes.axvline(limit, color=HELD, linewidth=1.4, linestyle="--", label=f"cut at {limit:,} tokens")
            _legend(axes)
        axes.set(xlabel="tokens in a row", ylabel="rows")
        axes.grid(axis="x", visible=False)
        svg = _to_svg(figure, "lengths", f"Histogram of row lengths. {caption}")
    names = [f"{a:,}" if width == 1 else f"{a:,} to {a + width - 1:,}" for a in edges[:-1]]
    rows = [[name, f"{int(height):,}"] for name, height in zip(names, heights, strict=True) if height]
    return Chart("lengths", "Length of the rows", caption, svg, ("Tokens", "Rows"), rows)


def _loss(record: Record, overfitting: Overfitting | None) -> Chart:
    figure, axes = _figure()
    rows = record.phase("fit")
    steps, losses = _column(rows, "step"), _column(rows, "loss")
    window = max(5, len(rows) // 30) if len(rows) >= 20 else 1
    held = [row for row in record.evaluations if row["phase"] == "fit" and row["loss"] is not None]
    with _styled():
        axes.plot(*_thin(steps, losses), color=FIT, alpha=0.28, linewidth=0.9)
        axes.plot(*_thin(steps, _smooth(losses, window)), color=FIT, label="training")
        again = record.phase("refit")
        if again:
            smoothed = _smooth(_column(again, "loss"), window)
            axes.plot(*_thin(_column(again, "step"), smoothed), color=REFIT, linestyle=":", label="training again")
        if held:
            axes.plot(_column(held, "step"), _column(held, "loss"), color=HELD, marker="o", markersize=3.6,
                      label="validation")  # fmt: skip
        if overfitting:
            _mark_overfitting(axes, overfitting, held[-1]["step"])
        axes.set(xlabel="step", ylabel="loss")
        _legend(axes)
        caption = "Lower is better."
        caption += f" Thin line: each step; thick line: mean of the last {window:,} steps." if window > 1 else ""
        caption += f" {overfitting.sentence()}" if overfitting else ""
        svg = _to_svg(figure, "loss", f"Training and validation loss over the steps. {caption}")
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
    picked = set(_pick(list(at), MOST_ROWS)) | set(_pick(list(losses), MOST_ROWS))
    return [
        [f"{step:,}", _cell(at.get(step)), wording.exact(losses[step]) if step in losses else ""]
        for step in sorted(picked)
    ]


def _metric(record: Record) -> Chart:
    held = [row for row in record.evaluations if row["phase"] == "fit"]
    scores = [row["scores"][record.primary] for row in held]
    steps, best = _column(held, "step"), record.manifest["best_step"]
    title = wording.metric(record.primary).title
    figure, axes = _figure()
    with _styled():
        axes.fill_between(steps, _column(scores, "low"), _column(scores, "high"), color=HELD, alpha=0.16, linewidth=0)
        axes.plot(steps, _column(scores, "value"), color=HELD, marker="o", markersize=3.6, label="validation")
        if best in steps:
            value = scores[list(steps).index(best)]["value"]
            axes.plot([best], [value], linestyle="", marker="D", markersize=7.5, color=FIT, label="kept step")
        axes.set(xlabel="step", ylabel=title)
        _legend(axes)
        caption = f"Band: 95 % interval. The weights of step {best:,} were kept."
        svg = _to_svg(figure, "metric", f"{title} on the validation rows over the steps. {caption}")
    table = [
        [
            f"{row['step']:,}",
            wording.exact(score["value"]),
            wording.interval(score),
            "kept" if row["step"] == best else "",
        ]
        for row, score in zip(held, scores, strict=True)
    ]
    header = ("Step", title, "95 % interval", "")
    kept = set(_pick(range(len(table)), 2 * MOST_ROWS)) | {i for i, row in enumerate(table) if row[3]}
    return Chart("metric", f"{title} on validation", caption, svg, header, [table[i] for i in sorted(kept)])


def _series(record: Record, key: str, title: str, caption: str) -> Chart:
    figure, axes = _figure()
    rows, again = record.phase("fit"), record.phase("refit")
    with _styled():
        noisy = len(rows) > MOST_POINTS // 2 and key != "learning_rate"
        steps, values = _column(rows, "step"), _column(rows, key)
        if noisy:
            axes.plot(*_thin(steps, values), color=FIT, alpha=0.28, linewidth=0.9)
            caption += f" Thick line: mean of the last {len(rows) // 30:,} steps."
            values = _smooth(values, len(rows) // 30)
        axes.plot(*_thin(steps, values), color=FIT, label="training")
        if again:
            axes.plot(*_thin(_column(again, "step"), _column(again, key)), color=REFIT, linestyle=":",
                      label="training again")  # fmt: skip
            _legend(axes)
        axes.set(xlabel="step", ylabel=title.lower())
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        svg = _to_svg(figure, key, f"{title} over the steps. {caption}")
    picked = _pick(rows, MOST_ROWS)
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


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about MOST_POINTS points: of each stretch its lowest and its highest, so that no peak is lost."""
    if len(x) <= MOST_POINTS:
        return x, y
    kept: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        kept |= {int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])}
    picked = sorted(kept)
    return x[picked], y[picked]


def _pick(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, evenly spread, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _styled() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with _styled():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def _legend(axes: Axes) -> None:
    """Above the axes: there it never hides a curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.1, handlelength=1.6)


def _to_svg(figure: Figure, name: str, label: str) -> Markup:
    """An `<svg>` element to stand in a page: page colours, ids of its own, a label for those who do not see it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a font without some letter: the reader's browser has others
        FigureCanvasSVG(figure).print_svg(out, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    opening = f'<svg class="chart" role="img" aria-label="{escape(label)}" {box[0]} xmlns="http://www.w3.org/2000/svg"'
    svg = re.sub(r"<svg[^>]*>", lambda _: f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    for stand_in, colour in _PAGE_COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    # our own drawing: every text in it is ours or escaped
    return Markup(re.sub(r"\n\s*", "\n", svg).strip())  # noqa: S704
