"""SQuAD's files as they come: articles of paragraphs of questions, as one row for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith.data.readers import RawRow

NOT_OF_THE_QUESTION = ("paragraphs", "qas", "is_impossible", "plausible_answers")


def questions_of(raws: Iterable[RawRow], counted: bool) -> Iterator[RawRow]:
    """Rows that are articles (`paragraphs` of `qas`, as SQuAD's files hold them) become one row for each question,
    with all that article and paragraph say beside it; other rows stay, but for answers that `is_impossible` denies.

    Args:
        counted: whether rows are told by their number; then questions are numbered through, else they keep the line.
    """
    number = 0
    for raw in raws:
        if raw.fault or not _is_article(raw.values):
            number += 1
            denied = raw.values.get("is_impossible") is True and bool(raw.values.get("answers"))
            yield RawRow(raw.line, {**raw.values, "answers": []}, raw.fault) if denied else raw
            continue
        for paragraph in raw.values["paragraphs"]:
            for values in _questions(paragraph, raw.values):
                number += 1
                broken = values is None
                fault = "an article's paragraph without `context` and `qas`" if broken else ""
                yield RawRow(number if counted else raw.line, values or {}, fault)


def _is_article(values: dict[str, Any]) -> bool:
    paragraphs = values.get("paragraphs")
    return isinstance(paragraphs, list) and any(isinstance(one, dict) and "qas" in one for one in paragraphs)


def _questions(paragraph: Any, article: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    if not isinstance(questions, list) or not all(isinstance(one, dict) for one in questions):
        yield None
        return
    for one in questions:
        values = {**article, **paragraph, **one}
        if one.get("is_impossible") is True:
            values["answers"] = []  # the answers that are given then are only plausible
        yield {name: value for name, value in values.items() if name not in NOT_OF_THE_QUESTION}
