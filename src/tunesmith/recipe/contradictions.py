"""What is of the right type in a recipe and still cannot be meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tunesmith.errors import Fault
from tunesmith.recipe import remedies

Path = tuple[str | int, ...]


def contradictions(values: dict[str, Any], place: Callable[[Path], str]) -> Iterator[Fault]:
    """Faults of raw values. `place` says where a key stands."""
    yield from _of_data(values.get("data"), (), place)
    tasks = values.get("tasks")
    for name, member in tasks.items() if isinstance(tasks, dict) else ():
        if isinstance(member, dict):
            yield from _of_data(member.get("data"), ("tasks", name), place)


def _of_data(data: Any, above: Path, place: Callable[[Path], str]) -> Iterator[Fault]:
    """Those of one `data:`, which stands below `above`."""
    if not isinstance(data, dict):
        return
    prefix = ".".join([*map(str, above), "data"])
    held, train, test = data.get("validation"), data.get("train"), data.get("test")
    if isinstance(held, str) and (remedies.is_number(held) or remedies.share_of(held)):
        remedy = remedies.share_of(held) or "write the number without quotes"
        yield Fault(place((*above, "data", "validation")), f"{prefix}.validation: {held!r} is no file", remedy)
    if test is not None and test == train:
        message = f"{prefix}.test: the same file as {prefix}.train, so it would judge by rows that were learned"
        yield Fault(place((*above, "data", "test")), message, "name other rows, or leave it out")
    columns = data.get("columns")
    columns = columns if isinstance(columns, dict) else {}
    for name, theirs in columns.items():
        first = next(ours for ours, other in columns.items() if other == theirs)
        if first != name and isinstance(theirs, str):
            message = f"{prefix}.columns.{name}: {theirs!r} is already read as {first}"
            yield Fault(place((*above, "data", "columns", name)), message, "name another column, or leave it out")
