"""What every chart is drawn with: inline SVG, the same run folder gives the same bytes, colours follow the page, texts
stay text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.0, 3.0
"""Inches. Half the page's width, and still readable on a telephone, where it takes the whole."""
MOST_POINTS = 400

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


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about MOST_POINTS points: of each stretch its lowest and its highest, so that no peak is lost."""
    if len(x) <= MOST_POINTS:
        return x, y
    kept: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        kept |= {int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])}
    picked = sorted(kept)
    return x[picked], y[picked]


def pick(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, evenly spread, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def styled() -> Any:
    """The context in which everything is drawn."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def new_figure() -> tuple[Figure, Axes]:
    """An empty chart with few, round marks on both axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def new_pair() -> tuple[Figure, Axes, Axes]:
    """A chart over a low one with the same x axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure = Figure(figsize=(WIDTH, HEIGHT * 1.25), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        figure.patch.set_visible(False)
        for axes in (above, below):
            axes.patch.set_visible(False)
        above.tick_params(labelbottom=False)
        below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    return figure, above, below


def legend(axes: Axes) -> None:
    """Above the axes: there it never hides a curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.1, handlelength=1.6)


def to_svg(figure: Figure, name: str, label: str) -> Markup:
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
