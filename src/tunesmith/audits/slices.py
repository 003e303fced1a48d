"""The score of parts of the judged rows: by length of the text, and by what a column says.

A part that is too small says nothing: numbers that mostly differ are put together by size, and rare values are joined.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from tunesmith.data.rows import Row
from tunesmith.data.sensitive import mask_names
from tunesmith.evaluation import score
from tunesmith.tasks.contract import Prediction
from tunesmith.tasks.metrics import Measure

MOST_VALUES = 20
REST = "(all others)"
MISSING = "(not given)"
PARTS = 4
FEW_NUMBERS = 8
"""So many different numbers (stars, levels) are values; more of them are put in parts."""

LONGEST_WHOLE = 30
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")

Number = int | float
Measures = Callable[[Sequence[Prediction]], Mapping[str, Measure]]
Slices = dict[str, dict[str, Any]]
"""By value: {"rows": how many, METRIC: {"value", "low", "high"}}."""


def by_columns(
    columns: Sequence[str], rows: Sequence[Row], predictions: Sequence[Prediction], measures: Measures, metric: str
) -> dict[str, Slices]:
    """Slices by each column: parts of its numbers, smallest first, or its commonest values, largest first; the rest of
    them joined. A value may be an address: it is named as people may read it."""
    found = {}
    for column in columns:
        names, parts = _in_parts([rows[prediction.row].get(column) for prediction in predictions])
        sizes = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
        kept = {*parts, *(name for name, _ in sizes[:MOST_VALUES])}
        scored = _scored([name if name in kept else REST for name in names], predictions, measures, metric)
        shown = mask_names(scored)
        found[column] = {shown[name]: scored[name] for name in dict.fromkeys([*parts, *scored])}
    return found


def by_length(lengths: Sequence[int], predictions: Sequence[Prediction], measures: Measures, metric: str) -> Slices:
    """Slices by quarters of the rows by their number of tokens, shortest first; fewer where many are equally long."""
    mine = [lengths[prediction.row] for prediction in predictions]
    limits = _limits(mine)
    order = [_span(f"{low:,}", f"{high:,}") for low, high in limits]
    found = _scored([order[_place(number, limits)] for number in mine], predictions, measures, metric)
    return {name: found[name] for name in order}


def _in_parts(values: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The name of each value's slice, and the names of the parts that numbers were put in, smallest first.

    Numbers that mostly differ (an age, a time) would each be a slice of a row or two, of which nothing can be said.
    A word among them ("unknown") stays a slice of its own.
    """
    names = [_named(value) for value in values]
    numbers = {index: number for index, value in enumerate(values) if (number := _number(value)) is not None}
    given = sum(name != MISSING for name in names)
    if len(set(numbers.values())) <= FEW_NUMBERS or 2 * len(numbers) <= given:
        return names, []
    limits = _limits(numbers.values())
    parts = [_span(_rounded(low), _rounded(high)) for low, high in limits]
    if len(set(parts)) < len(parts):
        parts = [_span(str(low), str(high)) for low, high in limits]
    for index, number in numbers.items():
        names[index] = parts[_place(number, limits)]
    return names, parts


def _limits(numbers: Iterable[Number]) -> list[tuple[Number, Number]]:
    """The smallest and largest number of each of up to PARTS parts, which hold as equal shares of the numbers as can
    be while equal ones stay together. Two different numbers are two parts at least: one part alone tells nothing."""
    sizes = sorted(Counter(numbers).items())
    counts = list(accumulate(size for _, size in sizes))
    inner = range(len(sizes) - 1)
    wanted = [counts[-1] * part / PARTS for part in range(1, PARTS)] if inner else []
    ends = sorted({min(inner, key=lambda end: abs(counts[end] - share)) for share in wanted})
    begins = [0, *(end + 1 for end in ends)]
    return [(sizes[begin][0], sizes[end][0]) for begin, end in zip(begins, [*ends, len(sizes) - 1], strict=True)]


def _place(number: Number, limits: Sequence[tuple[Number, Number]]) -> int:
    return bisect_left(limits, number, key=lambda part: part[1])


def _number(value: Any) -> Number | None:
    """A cell as a number, also where a CSV gives its text; None for a name, of which one with a 0 in front is one."""
    if isinstance(value, str) and _PLAIN_NUMBER.fullmatch(value.strip()):
        is_whole = len(value) < LONGEST_WHOLE and value.strip().removeprefix("-").isdigit()
        return int(value) if is_whole else float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and not math.isnan(value) else None


def _rounded(number: Number) -> str:
    """A number for a name: whole ones with all digits (a year is no 1,998), others with six of them."""
    if isinstance(number, int) or (number.is_integer() and abs(number) < 2**53):
        return str(int(number))
    return f"{number:.6g}" if abs(number) < 1e6 else f"{number:.2f}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _scored(names: Sequence[str], predictions: Sequence[Prediction], measures: Measures, metric: str) -> Slices:
    members: dict[str, list[Prediction]] = {}
    for name, prediction in zip(names, predictions, strict=True):
        members.setdefault(name, []).append(prediction)
    ranked = sorted(members.items(), key=lambda item: (item[0] == REST, -len(item[1]), item[0]))
    return {name: {"rows": len(mine), **score({metric: measures(mine)[metric]})} for name, mine in ranked}


def _named(value: Any) -> str:
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    if is_missing or not str(value).strip():
        return MISSING
    return str(value).lower() if isinstance(value, bool) else str(value)
