"""What a file holds, by the names of its columns and what stands in them: which task, which columns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.columns import listing, short
from tunesmith.data.image_folders import ENDINGS
from tunesmith.data.tags import kind_of_tag
from tunesmith.errors import DataError
from tunesmith.recipe.tasks import (
    IMAGE,
    SPANS,
    TAGS,
    TOKENS,
    Classification,
    ImageClassification,
    QuestionAnswering,
    Task,
    TextClassification,
    TokenClassification,
)

PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("text", "text_pair"), ("question", "context"),
         ("question1", "question2"), ("query", "passage"))  # fmt: skip
MOST_CLASSES_SHARE = 0.5
LOOKED_AT_LISTS = 1000


@dataclass(frozen=True)
class Line:
    """A setting of the proposed recipe, and why it is so."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Table:
    """What was seen of a file: its rows as they stand."""

    rows: list[dict[str, Any]]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def values(self, column: str) -> list[Any]:
        return [row[column] for row in self.rows if row.get(column) is not None]


@dataclass(frozen=True)
class Found:
    """A task that a file was recognised as: its settings with the target worked out, the columns that it reads, why."""

    task: Task
    columns: list[Line]
    why: str

    def to_name(self, table: Table) -> list[Line]:
        """The columns that a run would not find by their own names alone: it would take another target first."""
        named = {line.key: line.value for line in self.columns if line.key != line.value}
        found = type(self.task)().settled(table.columns, named).target == self.task.target
        return [line for line in self.columns if line.key in named or (line is self.columns[-1] and not found)]


def recognise(table: Table, where: str) -> Found:
    """The task that a table's columns speak of.

    Raises:
        DataError: no column that could be an input or be learned.
    """
    for look in (_words_with_tags, _questions, _texts_with_spans):
        if found := look(table):
            return found
    return _images_with_target(table, where) or _texts_with_target(table, where)


def _images_with_target(table: Table, where: str) -> Found | None:
    """Paths that end like images, under a name that the field uses for them."""
    names = [name for name in IMAGE.names if is_text(table.values(name))]
    name = next((name for name in names if all(path.lower().endswith(ENDINGS) for path in table.values(name))), None)
    if name is None:
        return None
    columns = [Line("image", name, "the paths of the images"), _target(table, {name}, where)]
    task = ImageClassification().settled(table.columns, {line.key: line.value for line in columns})
    return Found(task, columns, _reason(task, table, columns))


def _texts_with_target(table: Table, where: str) -> Found:
    columns = list(_columns(table, where))
    task = TextClassification().settled(table.columns, {line.key: line.value for line in columns})
    return Found(task, columns, _reason(task, table, columns))


def _words_with_tags(table: Table) -> Found | None:
    """Lists of words beside lists of names of the same lengths."""
    lists = [name for name in table.columns if _are_lists_of_names(table.values(name))]
    for name in (name for name in TOKENS.names if name in lists):
        for other in sorted(lists, key=lambda other: (other not in TAGS.names, table.columns.index(other))):
            rows = [row for row in table.rows if row.get(name) is not None and row.get(other) is not None]
            if other != name and rows and all(len(row[name]) == len(row[other]) for row in rows):
                kinds = {kind_of_tag(str(tag)) for row in rows for tag in row[other]} - {""}
                many = "1 type" if len(kinds) == 1 else f"{len(kinds)} types"
                why = f"each word is tagged: {many} ({short(other)})"
                columns = [Line("tokens", name, "the lists of words"), Line("tags", other, "a tag for each word")]
                return Found(TokenClassification(target="tags"), columns, why)
    return None


def _questions(table: Table) -> Found | None:
    """Questions, texts and answers, by the names that SQuAD gave them, or articles of them."""
    task = QuestionAnswering()
    names = [next((name for name in column.names if name in table.columns), None) for column in task.columns]
    if None in names or not is_text(table.values(str(names[0]))) or not is_text(table.values(str(names[1]))):
        return None
    given = table.values(str(names[2]))
    if not given or not all(isinstance(value, dict | list) for value in given[:LOOKED_AT_LISTS]):
        return None
    none = sum(not (value.get("text") if isinstance(value, dict) else value) for value in given) / len(given)
    why = f"where in a text the answer stands{f'; {none:.0%} of the questions have none' if none else ''}"
    told = ("the questions", "the texts", "the answers")
    columns = [Line(column.name, name, what) for column, name, what in zip(task.columns, names, told, strict=True)]
    return Found(task, columns, why)


def _texts_with_spans(table: Table) -> Found | None:
    """Texts beside lists of objects with a start and an end, and no label for the whole text."""
    text = next((name for name in TextClassification().columns[0].names if is_text(table.values(name))), None)
    if text is None or any(name in table.columns for name in TextClassification.TARGETS["label"].names):
        return None
    for name in sorted(table.columns, key=lambda name: name not in SPANS.names):
        spans = [span for row in table.values(name) if isinstance(row, list) for span in row]
        if spans and all(isinstance(span, dict) and {"start", "end"} <= span.keys() for span in spans):
            why = f"spans of the text are named ({short(name)})"
            columns = [Line("text", text, "the column of texts"), Line("spans", name, "the spans of each text")]
            return Found(TokenClassification(target="spans"), columns, why)
    return None


def _are_lists_of_names(values: Sequence[Any]) -> bool:
    return bool(values) and all(
        isinstance(value, list) and all(isinstance(item, str | int) for item in value)
        for value in values[:LOOKED_AT_LISTS]
    )


def _columns(table: Table, where: str) -> Iterator[Line]:
    """Text, its pair and the target: by their names, or else by what stands in them."""
    found, settings = table.columns, TextClassification()
    text, pair, _ = settings.columns
    texts = [name for name in found if is_text(table.values(name))]
    first, second = next((both for both in PAIRS if set(both) <= set(texts)), (None, None))
    first = first or next((name for name in text.names if name in texts), None)
    first = first or max(texts, key=lambda name: mean_length(table.values(name)), default=None)
    if first is None:
        raise DataError("no column of texts", where, f"there are: {listing(found)}")
    yield Line("text", first, "the column of texts")
    second = second or next((name for name in pair.names if name in texts and name != first), None)
    if second:
        yield Line("text_pair", second, "the second text of each row")
    yield _target(table, {first, second}, where)


def _target(table: Table, taken: set[str | None], where: str) -> Line:
    rest = [name for name in table.columns if name not in taken]
    for target, column in TextClassification.TARGETS.items():
        name = next((name for name in column.names if name in rest), None)
        if name is not None and target != "path" and _suits(target, table.values(name)):
            return _deeper(table, name, rest) if target == "label" else Line(column.name, name, f"the {column.name}")
    holds = {"label": "few different values", "labels": "lists of names", "score": "numbers with fractions"}
    for target, what in holds.items():
        for name in rest:
            values = table.values(name)
            if _suits(target, values) and (target != "score" or _have_fractions(values)):
                return Line(TextClassification.TARGETS[target].name, name, f"holds {what}")
    raise DataError("no column that could be learned", where, f"beside the input there are: {listing(rest)}")


def _deeper(table: Table, label: str, rest: Sequence[str]) -> Line:
    """A label, or a path where another column divides its classes further."""
    for name in rest:
        values = [(row.get(label), row.get(name)) for row in table.rows]
        if name == label or not all(isinstance(value, str) for pair in values for value in pair):
            continue
        pairs, inner = set(values), {value for _, value in values}
        if len(pairs) == len(inner) > len({value for value, _ in values}) and _suits("label", table.values(name)):
            coarse = short(label)
            places = f"each {short(name)} lies in one {coarse}: a taxonomy ({len(inner)} places)"
            why = f"{places}. Only {coarse}: write `{coarse}`"
            return Line("label", f"{label}/{name}", why)
    return Line("label", label, "the label")


def is_text(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values[:1000])


def _suits(target: str, values: Sequence[Any]) -> bool:
    """Whether a column could be such a target."""
    if not values:
        return False
    if target == "labels":
        return all(isinstance(value, list) and all(isinstance(item, str | int) for item in value) for value in values)
    if target == "score":
        are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return are_numbers or _have_fractions(values)
    named = all(isinstance(value, str | int) for value in values)
    return named and 2 <= len(set(values)) <= max(2, MOST_CLASSES_SHARE * len(values))


def _have_fractions(values: Sequence[Any]) -> bool:
    """Whether all are numbers (as a CSV holds them, too), some not whole: whole ones are more likely classes or ids."""
    try:
        return any(not float(value).is_integer() for value in values)
    except (TypeError, ValueError):
        return False


def _reason(task: Classification, table: Table, columns: Sequence[Line]) -> str:
    line, target = columns[-1], task.target
    each = f"for each {task.INPUTS[0].name}"
    if target == "score":
        return f"a number {each} ({short(line.value)})"
    if target == "labels":
        kinds = {item for values in table.values(line.value) for item in values}
        return f"any of {len(kinds)} labels {each} ({short(line.value)})"
    parts = str(line.value).split("/") if target == "path" else [line.value]
    many = len({tuple(str(row.get(part)) for part in parts) for row in table.rows})
    return f"one of {many} {'places in a taxonomy' if target == 'path' else 'labels'} {each} ({short(line.value)})"


def mean_length(values: Sequence[Any]) -> float:
    return statistics.fmean(len(str(value)) for value in values)
