"""What a file holds, by the names of its columns and what stands in them: which task, which columns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.data.columns import listing, short
from tunesmith.data.image_folders import ENDINGS
from tunesmith.data.tags import kind_of_tag
from tunesmith.errors import DataError
from tunesmith.recipe.classification import IMAGE, Classification, ImageClassification, TextClassification
from tunesmith.recipe.languages import language_of
from tunesmith.recipe.tasks import (
    ANCHOR,
    NEGATIVE,
    SPANS,
    TAGS,
    TOKENS,
    LanguageModeling,
    QuestionAnswering,
    SentenceSimilarity,
    Task,
    TokenClassification,
)
from tunesmith.recipe.writing import SOURCE, TARGET, TRANSLATED, TRANSLATION, Summarization, Translation

PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("text", "text_pair"), ("question", "context"),
         ("question1", "question2"), ("query", "passage"))  # fmt: skip
MOST_CLASSES_SHARE = 0.5
POSITIVE_NAMES = ("positive", "pos")
"""Other names of a partner (passage, answer) stand in files of other tasks, too."""

NUMBERING = ("id", "idx", "index", "guid", "uid")
"""Names that say which row it is: what stands there is not learned, though it may occur several times."""

LOOKED_AT_LISTS = 1000
LONG_TEXT = 200
"""Characters, on average, from which on texts without anything to learn beside them are taken for running text."""


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
    for look in (_words_with_tags, _questions, _texts_with_spans, _texts_with_partners, _summaries, _translations):
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
    try:
        columns = list(_columns(table, where))
    except DataError as error:
        if found := _texts_alone(table):
            return found
        raise error from None
    task = TextClassification().settled(table.columns, {line.key: line.value for line in columns})
    return Found(task, columns, _reason(task, table, columns))


def _texts_alone(table: Table) -> Found | None:
    """Long texts, and nothing beside them that could be learned: their language."""
    texts = [name for name in table.columns if is_text(table.values(name))]
    name = max(texts, key=lambda name: mean_length(table.values(name)), default=None)
    if name is None or mean_length(table.values(name)) < LONG_TEXT:
        return None
    return Found(
        LanguageModeling(), [Line("text", name, "the texts")], "long texts alone: their language can be learned"
    )


def _words_with_tags(table: Table) -> Found | None:
    """Lists of words beside lists of names of the same lengths."""
    lists = [name for name in table.columns if _are_lists_of_names(table.values(name))]
    for name in (name for name in TOKENS.names if name in lists):
        for other in sorted(lists, key=lambda other: (other not in TAGS.names, table.columns.index(other))):
            rows = [row for row in table.rows if row.get(name) is not None and row.get(other) is not None]
            if other != name and rows and all(_are_as_many(row[name], row[other]) for row in rows):
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
    if not given or not all(_are_answers(value) for value in given[:LOOKED_AT_LISTS]):
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


def _texts_with_partners(table: Table) -> Found | None:
    """Texts beside texts that belong to them, by the names that the field gives these columns."""
    texts = [name for name in table.columns if is_text(table.values(name))]
    names = [
        next((name for name in own if name in texts), None) for own in (ANCHOR.names, POSITIVE_NAMES, NEGATIVE.names)
    ]
    if names[0] is None or names[1] is None:
        return None
    target: Literal["positive", "triplet"] = "positive" if names[2] is None else "triplet"
    columns = [
        Line(column, name, what)
        for column, name, what in zip(
            ("anchor", "positive", "negative"),
            names,
            ("the texts to search by", "the text that belongs to each", "one that does not"),
            strict=True,
        )
        if name is not None
    ]
    why = f"each text has a partner to be found ({short(names[1])})"
    return Found(SentenceSimilarity(target=target), columns, why)


def _are_as_many(words: Any, tags: Any) -> bool:
    return isinstance(words, list) and isinstance(tags, list) and len(words) == len(tags)


def _are_answers(value: Any) -> bool:
    """Whether a cell holds answers as the field writes them, be it none."""
    if isinstance(value, dict):
        return "text" in value
    return isinstance(value, list) and all(isinstance(item, dict) and "text" in item for item in value)


SUMMARIES = ("summary", "summaries", "highlights", "tldr", "abstract")
LABELLED = {"label", "labels"}
SHORTER = 2
"""A summary is on average so many times shorter than its text."""


def _summaries(table: Table) -> Found | None:
    """Texts beside much shorter ones: by names of their own, or as any source and target. Beside a label (a review with
    its headline and its stars) they are one more input."""
    if LABELLED & set(table.columns):
        return None
    for names in (SUMMARIES, TARGET.names):
        source = next((name for name in SOURCE.names if is_text(table.values(name))), None)
        target = next((name for name in names if name in table.columns and _are_texts(table.values(name))), None)
        if source is None or target is None:
            continue
        ratio = mean_length(table.values(source)) / max(1.0, mean_length(_firsts(table.values(target))))
        if ratio >= SHORTER:
            many = any(isinstance(value, list) for value in table.values(target))
            why = f"each text has {'summaries' if many else 'a summary'}, {ratio:.0f} times shorter ({short(target)})"
            columns = [Line("source", source, "the texts"), Line("target", target, "what is to be written")]
            return Found(Summarization(), columns, why)
    return None


def _translations(table: Table) -> Found | None:
    """Texts in two languages, by codes or by the names of source and target."""
    if LABELLED & set(table.columns):
        return None
    texts = [name for name in table.columns if _are_texts(table.values(name))]
    codes = [name for name in texts if language_of(name) and _are_sentences(table.values(name))]
    pair = [next((name for name in column.names if name in texts), "") for column in (TRANSLATED, TRANSLATION)]
    if len(codes) == 2:
        pair = codes
        why = f"the same text in two languages: {' to '.join(map(language_of, codes))}, in the order of columns"
    elif all(pair):
        why = f"texts of about the same length, in pairs ({short(pair[1])}): translations"
    else:
        return None
    source, target = pair
    columns = [Line("source", source, "what is translated"), Line("target", target, "the translation")]
    return Found(Translation(), columns, why)


def _are_texts(values: Sequence[Any]) -> bool:
    """Texts, or lists of them; names of a few classes are none."""
    some = values[:LOOKED_AT_LISTS]
    lists = all(isinstance(value, list) and value and all(isinstance(item, str) for item in value) for value in some)
    firsts = _firsts(some) if lists or is_text(some) else []
    return bool(firsts) and len(set(firsts)) > MOST_CLASSES_SHARE * len(firsts)


def _are_sentences(values: Sequence[Any]) -> bool:
    """Whether most are of several words, or of a script without spaces: a column `id` holds no Indonesian."""
    some = _firsts(values[:LOOKED_AT_LISTS])
    return sum(" " in text.strip() or not text.isascii() for text in some) > len(some) / 2


def _firsts(values: Sequence[Any]) -> list[Any]:
    return [value[0] if isinstance(value, list) and value else value for value in values]


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
        for name in (name for name in rest if name.lower() not in NUMBERING):
            values = table.values(name)
            if _suits(target, values) and (target != "score" or _have_fractions(values)):
                return Line(TextClassification.TARGETS[target].name, name, f"holds {what}")
    told = f"beside the input there are: {listing(rest)}; to learn the language of the texts themselves, write task: "
    raise DataError("no column that could be learned", where, f"{told}language-modeling")


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
    named = all(isinstance(value, str | int) and str(value).strip() for value in values)
    return named and 2 <= len(set(values)) <= max(2, MOST_CLASSES_SHARE * len(values))


def _have_fractions(values: Sequence[Any]) -> bool:
    """Whether all are numbers (as a CSV holds them, too), some not whole: whole ones are more likely classes or ids."""
    try:
        return any(not float(value).is_integer() for value in values)
    except (TypeError, ValueError):
        return False


def _reason(task: Classification, table: Table, columns: Sequence[Line]) -> str:
    line, target = columns[-1], task.target
    pairs = any(line.key == "text_pair" for line in columns)
    each = "for each pair of texts" if pairs else f"for each {task.INPUTS[0].name}"
    if target == "score":
        told = "; for vectors to search and compare by: task: sentence-similarity" if pairs else ""
        return f"a number {each} ({short(line.value)}){told}"
    if target == "labels":
        kinds = {item for values in table.values(line.value) for item in values}
        return f"any of {len(kinds)} labels {each} ({short(line.value)})"
    parts = str(line.value).split("/") if target == "path" else [line.value]
    many = len({tuple(str(row.get(part)) for part in parts) for row in table.rows})
    return f"one of {many} {'places in a taxonomy' if target == 'path' else 'labels'} {each} ({short(line.value)})"


def mean_length(values: Sequence[Any]) -> float:
    return statistics.fmean(len(str(value)) for value in values)
