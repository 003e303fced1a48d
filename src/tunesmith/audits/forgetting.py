"""What a training cost of what the base knew: the same texts, or rows, asked before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation import difference, score
from tunesmith.tasks.metrics import Measure


def compare(
    rows: int, primary: str, after: Mapping[str, Measure], before: Mapping[str, Measure] | None
) -> dict[str, Any]:
    """The comparison, in every metric.

    Args:
        rows: how many were asked.
        primary: the metric that decides in this run.
        after: the tuned model's measures.
        before: the base's on the same rows; None where it has no head to ask.

    Returns:
        {"rows", "texts", "metric", "after", "before": {metric: score}, "change": {metric: score}}; a change is paired,
        after minus before. The last two are None without a before. Rows may be pieces of a text; `texts` are what the
        intervals are over.
    """
    return {
        "rows": rows,
        "texts": after[primary].num_rows,
        "metric": primary,
        "after": score(after),
        "before": score(before) if before else None,
        "change": {name: difference(after[name], before[name]) for name in after} if before else None,
    }
