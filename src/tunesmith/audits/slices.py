"""The score of parts of the judged rows: by length of the text, and by what a column says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.data.rows import Row
from tunesmith.data.sensitive import mask_names
from tunesmith.evaluation import score
from tunesmith.tasks.contract import Prediction
from tunesmith.tasks.metrics import Measure

MOST_VALUES = 20
REST = "(all others)"
MISSING = "(not given)"
PARTS = 4

Measures = Callable[[Sequence[Prediction]], Mapping[str, Measure]]
Slices = dict[str, dict[str, Any]]
"""By value: {"rows": how many, METRIC: {"value", "low", "high"}}."""


def by_columns(
    columns: Sequence[str], rows: Sequence[Row], predictions: Sequence[Prediction], measures: Measures, metric: str
) -> dict[str, Slices]:
    """Slices by each column: its commonest values, largest first; the rest of them joined. A value may be an address:
    it is named as people may read it."""
    found = {}
    for column in columns:
        values = [_named(rows[prediction.row].get(column)) for prediction in predictions]
        sizes = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        kept = {value for value, _ in sizes[:MOST_VALUES]}
        names = [value if value in kept else REST for value in values]
        scored = _scored(names, predictions, measures, metric)
        shown = mask_names(scored)
        found[column] = {shown[name]: part for name, part in scored.items()}
    return found


def by_length(lengths: Sequence[int], predictions: Sequence[Prediction], measures: Measures, metric: str) -> Slices:
    """Slices by quarters of the rows by their number of tokens, shortest first; fewer where many are equally long."""
    mine = np.array([lengths[prediction.row] for prediction in predictions])
    inner = np.unique(np.quantile(mine, np.arange(1, PARTS) / PARTS, method="lower"))
    parts = np.searchsorted(inner, mine, side="left")
    ends = {part: (int(mine[parts == part].min()), int(mine[parts == part].max())) for part in np.unique(parts)}
    names = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in (ends[part] for part in parts)]
    order = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in ends.values()]
    found = _scored(names, predictions, measures, metric)
    return {name: found[name] for name in order}


def _scored(names: Sequence[str], predictions: Sequence[Prediction], measures: Measures, metric: str) -> Slices:
    members: dict[str, list[Prediction]] = {}
    for name, prediction in zip(names, predictions, strict=True):
        members.setdefault(name, []).append(prediction)
    ranked = sorted(members.items(), key=lambda item: (item[0] == REST, -len(item[1]), item[0]))
    return {name: {"rows": len(mine), **score({metric: measures(mine)[metric]})} for name, mine in ranked}


def _named(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    return str(value).lower() if isinstance(value, bool) else str(value)
