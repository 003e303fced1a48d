"""Finds a task's columns in a file's own, and checks each cell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.data.answers import given_answers, placed
from tunesmith.data.image_guard import find_picture
from tunesmith.data.json_text import JsonFault, parse
from tunesmith.data.sensitive import mask
from tunesmith.data.tags import span_cell, words_of
from tunesmith.errors import DataError, Fault
from tunesmith.recipe.columns import Column

Places = dict[str, tuple[str, ...]]
"""Our column -> the file's. More than one: their cells are joined with "/" to a path (`label/fine_label`)."""

SPAN_EXAMPLE = '[{"start": 0, "end": 4, "label": "PER"}]'
JOINED_KINDS = ("label", "labels")
_PLAIN_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def map_columns(
    found: Sequence[str], wanted: Sequence[Column], named: Mapping[str, str], where: str
) -> tuple[Places, list[str]]:
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
    mapping: Places = {}
    notes: list[str] = []
    faults: list[Fault] = []
    listed = listing(found)
    known = {column.name for column in wanted}
    for ours in named:
        if ours not in known:
            reads = ", ".join(sorted(known))
            faults.append(Fault(where, f"data.columns: this task reads no column {ours!r}", f"it reads {reads}"))
    for column in wanted:
        theirs = named.get(column.name)
        if theirs is not None:
            parts = _parts(theirs, column, found)
            if parts:
                mapping[column.name] = parts
            else:
                faults.append(Fault(where, f"no column {theirs!r} (named for {column.name})", f"there are: {listed}"))
            continue
        taken = {part for parts in mapping.values() for part in parts} | set(named.values())
        near = next((name for name in column.names if name in found and name not in taken), None)
        if near is not None:
            mapping[column.name] = (near,)
            if near != column.name:
                notes.append(f"{where}: column {near!r} is read as {column.name!r}")
        elif column.required:
            remedy = f"there are: {listed}; name it under data.columns as `{column.name}: THEIR_NAME`"
            faults.append(Fault(where, f"no column {column.name!r}", remedy))
    if faults:
        raise DataError(faults[0].message, faults=faults)
    return mapping, notes


def _parts(theirs: str, column: Column, found: Sequence[str]) -> tuple[str, ...]:
    """The file's columns that a named one stands for; none if the file has them not."""
    if theirs in found:
        return (theirs,)
    parts = tuple(theirs.split("/"))
    return parts if column.kind in JOINED_KINDS and len(parts) > 1 and all(part in found for part in parts) else ()


def usual_names(found: Sequence[str], wanted: Sequence[Column], usual: Mapping[str, str]) -> dict[str, str]:
    """Those of usual names (ours: theirs) that a file has."""
    asked = {column.name: column for column in wanted if column.name in usual}
    return {ours: usual[ours] for ours, column in asked.items() if _parts(usual[ours], column, found)}


def listing(names: Sequence[str], most: int = 30) -> str:
    """Column names for a message; a file may have thousands, names of any length, or a row where names should be."""
    return (", ".join(map(short, names[:most])) or "none") + (
        f" and {len(names) - most:,} more" if len(names) > most else ""
    )


def short(name: str) -> str:
    """One column's name for a message."""
    masked = mask(name)
    return masked if len(masked) <= 60 else f"{masked[:57]}..."


def read_cell(
    column: Column, values: Mapping[str, Any], places: Sequence[str], folder: Path = Path()
) -> tuple[Any, str]:
    """A row's cell as the task reads it, and what is wrong with it ("" if nothing). `folder` is where paths in it are
    seen from."""
    if len(places) == 1:
        return check_cell(column, values.get(places[0]), folder)
    path, fault = _joined(values, places)
    if fault or path is None:
        return None, fault or ("is missing" if column.required else "")
    return ([path] if column.kind == "labels" else path), ""


def _joined(values: Mapping[str, Any], places: Sequence[str]) -> tuple[str | None, str]:
    """The cells of several columns as one path of a taxonomy. None if all are empty."""
    cells = [values.get(place) for place in places]
    if all(cell is None for cell in cells):
        return None, ""
    names: list[str] = []
    for place, cell in zip(places, cells, strict=True):
        name, fault = _name_of(cell)
        if fault:
            return None, f"cannot be joined: {place} {fault}"
        if "/" in name:
            return None, f"cannot be joined: {place} holds a '/' itself ({_shown(name)})"
        names.append(name)
    return "/".join(names), ""


def check_cell(column: Column, value: Any, folder: Path = Path()) -> tuple[Any, str]:
    """A cell as the task reads it, and what is wrong with it ("" if nothing)."""
    if value is None:
        return None, "" if not column.required else "is missing"
    cell, fault = _CELLS[column.kind](value)
    return find_picture(cell, folder) if column.kind == "image" and not fault else (cell, fault)


def _text_cell(value: Any) -> tuple[Any, str]:
    if not isinstance(value, str):
        return None, f"is {_kind_of(value)}, not text"
    if not value or value.isspace():
        return None, "is empty"
    return value, _broken(value)


def _broken(text: str) -> str:
    """What no tokenizer or file could take of a text."""
    if "\0" in text:
        return f"holds a NUL character (at {text.index(chr(0)) + 1})"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"holds half a character (a lone surrogate, at {error.start + 1})"
    return ""


def _label_cell(value: Any) -> tuple[Any, str]:
    if isinstance(value, bool):
        return ("true" if value else "false"), ""
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**63
        return (str(value), "") if fits else (None, "is a number beyond 64 bits; write it as a text")
    if isinstance(value, str):
        stripped = value.strip()
        return (stripped, _broken(stripped)) if stripped else (None, "is empty")
    if isinstance(value, float) and abs(value) >= 2**53:
        return None, "is a fraction or a number beyond 64 bits, of which digits are lost; write it as a text"
    return None, f"is {_kind_of(value)}, not a name or a whole number"


def _name_of(value: Any) -> tuple[str, str]:
    """A label inside of a list or a path, where none may be missing."""
    name, fault = (None, "is missing") if value is None else _label_cell(value)
    return str(name), fault


def _labels_cell(value: Any) -> tuple[Any, str]:
    """A list of names, equal ones taken once."""
    names, fault = _names_in(value, "name")
    return (None, fault) if fault else (list(dict.fromkeys(names)), "")


def _tags_cell(value: Any) -> tuple[Any, str]:
    """A list of tags, one for each word."""
    tags, fault = _names_in(value, "tag")
    return (None, fault) if fault else (tags, "")


def _names_in(value: Any, what: str) -> tuple[list[str], str]:
    items, fault = _list_of(value, f"{what}s", '["one", "two"]')
    names: list[str] = []
    for number, item in enumerate(items, start=1):
        name, wrong = _name_of(item)
        if wrong:
            return [], f"holds a {what} (number {number}) that {wrong}"
        names.append(name)
    return names, fault


def _list_of(value: Any, what: str, example: str) -> tuple[list[Any], str]:
    """A list. A text is read only where it is a JSON list (so a CSV can hold one)."""
    if isinstance(value, str):
        try:
            value = parse(value.encode("utf-8", "surrogatepass")) if value.lstrip().startswith("[") else value
        except JsonFault as fault:
            return [], f"is no list of {what} ({fault.message})"
        if isinstance(value, str):
            return [], f"is one text ({_shown(value)}), not a list of {what}; write it as {example}"
    return (value, "") if isinstance(value, list) else ([], f"is {_kind_of(value)}, not a list of {what}")


def _tokens_cell(value: Any) -> tuple[Any, str]:
    """A list of words (JSON in a text, too); or a text, whose words are then found (see `tags.words_of`)."""
    if isinstance(value, str) and not _is_json_list(value):
        return _text_cell(value)
    words, fault = _list_of(value, "words", '["two", "words"]')
    for number, word in enumerate(words, start=1):
        wrong = "" if isinstance(word, str) else "is missing" if word is None else f"is {_kind_of(word)}, not text"
        if wrong := wrong or _broken(word):
            return None, f"holds a word (number {number}) that {wrong}"
    return (words, "") if any(map(str.strip, words)) else (None, fault or "is empty")


def _is_json_list(text: str) -> bool:
    if not text.lstrip().startswith("["):
        return False
    try:
        return isinstance(parse(text.encode("utf-8", "surrogatepass")), list)
    except JsonFault:
        return False


def _spans_cell(value: Any) -> tuple[Any, str]:
    """A list of spans, in the order of the text."""
    items, fault = _list_of(value, "spans", SPAN_EXAMPLE)
    spans = []
    for number, item in enumerate(items, start=1):
        span, wrong = span_cell(item)
        if span is not None and (wrong := _broken(span["label"])):
            return None, f"holds a span (number {number}) whose label {wrong}"
        if span is None:
            return None, f"holds a span (number {number}) that {wrong}"
        spans.append(span)
    return (None, fault) if fault else (sorted(spans, key=lambda span: (span["start"], span["end"])), "")


def _answers_cell(value: Any) -> tuple[Any, str]:
    """The right answers to a question. A text is read only where it is JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = parse(value.encode("utf-8", "surrogatepass"))
        except JsonFault as fault:
            return None, f"is no list of answers ({fault.message})"
    return given_answers(value)


def misfit(column: Column, values: Mapping[str, Any]) -> str:
    """What is wrong with an answer beside the input that it speaks about ("" if nothing)."""
    answer, about = values.get(column.name), values.get(column.about)
    if answer is None or about is None:
        return ""
    if column.kind == "tags":
        words = len(about) if isinstance(about, list) else len(words_of(about).starts)
        return f"are {len(answer)} for {words} words: each word needs its own" if words != len(answer) else ""
    if column.kind == "answers":
        return placed(answer, about)
    reach = 0
    for span in answer:
        if span["end"] > len(about):
            return f"holds a span that ends at {span['end']}, and the text has {len(about)} characters"
        if span["start"] < reach:
            return f"holds spans that overlap (at {span['start']}); of overlapping ones a model can give one"
        reach = span["end"]
        covered = about[span["start"] : span["end"]]
        if not covered.strip():
            return f"holds a span of white space (at {span['start']})"
        span["start"] += len(covered) - len(covered.lstrip())
        span["end"] -= len(covered) - len(covered.rstrip())
    return ""


def _number_cell(value: Any) -> tuple[Any, str]:
    if isinstance(value, str):
        if not _PLAIN_NUMBER.fullmatch(value.strip()):
            return None, f"is {_shown(value)}, not a plain number (like -12.5)"
        value = float(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None, f"is {_kind_of(value)}, not a number"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None, "is a number beyond 64 bits"
    number = float(value)
    return (number, "") if math.isfinite(number) else (None, "is not a finite number")


def _shown(text: str) -> str:
    text = mask(text)  # before it is cut: half a number proves nothing, and would stay
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _kind_of(value: Any) -> str:
    names = {bool: "true/false", int: "a number", float: "a number with a fraction", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _texts_cell(value: Any) -> tuple[Any, str]:
    """One or more texts, each of which would be right. A text is read as a list where it is a JSON list of texts."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parsed = parse(value.encode("utf-8", "surrogatepass"))
        except JsonFault:
            parsed = None
        value = parsed if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed) else value
    items = value if isinstance(value, list) else [value]
    if not items:
        return None, "is an empty list"
    for number, item in enumerate(items, start=1):
        fault = "is missing" if item is None else _text_cell(item)[1]
        if fault:
            return None, f"holds a text (number {number}) that {fault}" if isinstance(value, list) else fault
    return list(items), ""


_CELLS: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "text": _text_cell,
    "label": _label_cell,
    "labels": _labels_cell,
    "number": _number_cell,
    "tokens": _tokens_cell,
    "tags": _tags_cell,
    "spans": _spans_cell,
    "answers": _answers_cell,
    "texts": _texts_cell,
    "image": _text_cell,
}
