"""Finds a task's columns in a file's own, and checks each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import DataError, Fault
from tunesmith.recipe.tasks import Column


def map_columns(
    found: Sequence[str], wanted: Sequence[Column], named: Mapping[str, str], where: str
) -> tuple[dict[str, str], list[str]]:
    """Which of a file's columns serves as each of ours.

    Args:
        found: the file's column names.
        wanted: the task's columns.
        named: the recipe's `data.columns` (ours: theirs).
        where: the file, for messages.

    Returns:
        ours -> theirs, and one sentence for each alias that was taken without being named.

    Raises:
        DataError: a named column is not in the file, a required one cannot be found, or a name is not the task's.
    """
    mapping: dict[str, str] = {}
    notes: list[str] = []
    faults: list[Fault] = []
    listed = ", ".join(found) or "none"
    known = {column.name for column in wanted}
    for ours in named:
        if ours not in known:
            faults.append(Fault(where, f"data.columns: this task reads no column {ours!r}", f"it reads {known}"))
    for column in wanted:
        theirs = named.get(column.name)
        if theirs is not None:
            if theirs not in found:
                faults.append(Fault(where, f"no column {theirs!r} (named for {column.name})", f"there are: {listed}"))
            else:
                mapping[column.name] = theirs
            continue
        taken = set(mapping.values()) | set(named.values())
        near = next((name for name in (column.name, *column.aliases) if name in found and name not in taken), None)
        if near is not None:
            mapping[column.name] = near
            if near != column.name:
                notes.append(f"{where}: column {near!r} is read as {column.name!r}")
        elif column.required:
            remedy = f"there are: {listed}; name it under data.columns as `{column.name}: THEIR_NAME`"
            faults.append(Fault(where, f"no column {column.name!r}", remedy))
    if faults:
        raise DataError(faults[0].message, faults=faults)
    return mapping, notes


def check_cell(column: Column, value: Any) -> tuple[Any, str]:
    """A cell as the task reads it, and what is wrong with it ("" if nothing)."""
    if value is None:
        return None, "" if not column.required else "is missing"
    return _CELLS[column.kind](value)


def _text_cell(value: Any) -> tuple[Any, str]:
    if not isinstance(value, str):
        return None, f"is {_kind_of(value)}, not text"
    if not value.strip():
        return None, "is empty"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return None, "holds half a character (a lone surrogate)"
    return value, ""


def _label_cell(value: Any) -> tuple[Any, str]:
    if isinstance(value, bool):
        return ("true" if value else "false"), ""
    if isinstance(value, int):
        return str(value), ""
    if isinstance(value, str):
        stripped = value.strip()
        return (stripped, "") if stripped else (None, "is empty")
    return None, f"is {_kind_of(value)}, not a name or a whole number"


def _labels_cell(value: Any) -> tuple[Any, str]:
    if not isinstance(value, list):
        return None, f"is {_kind_of(value)}, not a list of labels"
    cells = [_label_cell(item) for item in value]
    faults = [fault for _, fault in cells if fault]
    return (None, f"holds a label that {faults[0]}") if faults else (sorted({label for label, _ in cells}), "")


def _number_cell(value: Any) -> tuple[Any, str]:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    return (number, "") if math.isfinite(number) else (None, f"is {value!r:.40}, not a number")


def _kind_of(value: Any) -> str:
    names = {bool: "true/false", int: "a number", float: "a number with a fraction", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


_CELLS = {"text": _text_cell, "label": _label_cell, "labels": _labels_cell, "number": _number_cell}
