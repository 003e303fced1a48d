"""What is of the right type in a recipe and still cannot be meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tunesmith.errors import Fault
from tunesmith.recipe import remedies


def contradictions(values: dict[str, Any], place: Callable[[tuple[str | int, ...]], str]) -> Iterator[Fault]:
    """Faults of raw values. `place` says where a key stands."""
    data = values.get("data")
    if not isinstance(data, dict):
        return
    held, train, test = data.get("validation"), data.get("train"), data.get("test")
    if isinstance(held, str) and (remedies.is_number(held) or remedies.share_of(held)):
        remedy = remedies.share_of(held) or "write the number without quotes"
        yield Fault(place(("data", "validation")), f"data.validation: {held!r} is no file", remedy)
    if test is not None and test == train:
        message = "data.test: the same file as data.train, so it would judge by rows that were learned"
        yield Fault(place(("data", "test")), message, "name other rows, or leave it out")
    columns = data.get("columns")
    columns = columns if isinstance(columns, dict) else {}
    for name, theirs in columns.items():
        first = next(ours for ours, other in columns.items() if other == theirs)
        if first != name and isinstance(theirs, str):
            message = f"data.columns.{name}: {theirs!r} is already read as {first}"
            yield Fault(place(("data", "columns", name)), message, "name another column, or leave it out")
