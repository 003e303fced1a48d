"""The page of `tunesmith compare`: runs on the same rows as a table, and which of them nothing beats at less cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.report import wording
from tunesmith.report.continual import FIGURES
from tunesmith.report.drawing import FIT, HELD, QUIET, Chart, new_figure, styled, to_svg
from tunesmith.report.rendering import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {
    "trainable": ("Parameters that move", "parameters that move"),
    "seconds": ("Training", "seconds of training"),
    "peak_memory_bytes": ("Peak memory", "bytes of memory at the peak"),
    "model_bytes": ("Size on disk", "bytes on disk"),
}
"""What a run may cost: its title, and its unit."""


def make_comparison(result: Mapping[str, Any]) -> str:
    """One HTML page that stands alone: what `compare` found."""
    charts = [draw_front(result, cost) for cost in ("trainable", "seconds")]
    return render(
        "comparison.html",
        result=result,
        metric=wording.metric(result["primary"]),
        charts=charts,
        remembers=any("forgetting" in run for run in result["runs"]),
        forgetting=FIGURES["forgetting"],
    )


def unbeaten(runs: Sequence[Mapping[str, Any]], cost: str) -> list[bool]:
    """Whether each run is on the Pareto front: none is at least as good for at most the cost, and better in one."""

    def beats(other: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
        better, cheaper = other["score"]["value"] - run["score"]["value"], run[cost] - other[cost]
        return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)

    return [not any(beats(other, run) for other in runs) for run in runs]


def _scale_by_powers(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with a few plain numbers under it, also where all values lie close together."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values) / 1.5, max(values) * 1.5
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(powers) > 3 else (1, 2, 5)
    marks = [step * 10**power for power in powers for step in steps if low <= step * 10**power <= high]
    axes.xaxis.set_major_locator(FixedLocator(marks or [low, high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _powered(value)))


def _powered(value: float) -> str:
    """12000 as 12 k, 3000000 as 3 M; smaller numbers as they are."""
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / unit:g}\N{NO-BREAK SPACE}{letter}"
    return f"{value:g}"


def draw_front(result: Mapping[str, Any], cost: str) -> Chart:
    """Scores with their intervals against one cost on a logarithmic scale, the front marked."""
    runs, metric = result["runs"], wording.metric(result["primary"])
    title, unit = COSTS[cost]
    front = unbeaten(runs, cost)
    caption = (
        f"{metric.title} with its 95 % interval against {unit}. Filled: no other run is at least as good for at "
        "most as much. Numbers are those of the table."
    )
    figure, axes = new_figure()
    with styled():
        for number, (run, is_front) in enumerate(zip(runs, front, strict=True), start=1):
            score, at = run["score"], max(run[cost], 1e-9)
            axes.plot([at, at], [score["low"], score["high"]], color=QUIET, linewidth=0.8)
            axes.plot(
                [at], [score["value"]], "o", color=FIT if is_front else HELD, fillstyle="full" if is_front else "none"
            )
            axes.annotate(str(number), (at, score["value"]), xytext=(5, 3), textcoords="offset points")
        _scale_by_powers(axes, [max(run[cost], 1e-9) for run in runs])
        axes.set(xlabel=unit, ylabel=metric.title)
        svg = to_svg(figure, f"front-{cost}", f"{title}. {caption}")
    rows = [
        [str(number), wording.exact(run["score"]["value"]), f"{run[cost]:,.0f}", "yes" if is_front else "no"]
        for number, (run, is_front) in enumerate(zip(runs, front, strict=True), start=1)
    ]
    return Chart(f"front-{cost}", title, caption, svg, ("Run", metric.title, title, "Unbeaten"), rows)
