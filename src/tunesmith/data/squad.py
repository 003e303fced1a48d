"""SQuAD's files as they come: articles of paragraphs of questions, as one row for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith.data.readers import RawRow


def questions_of(raws: Iterable[RawRow]) -> Iterator[RawRow]:
    """Rows that are articles (`paragraphs` of `qas`, as SQuAD's files hold them) become one row for each question,
    numbered through; other rows stay."""
    number = 0
    for raw in raws:
        if raw.fault or not isinstance(raw.values.get("paragraphs"), list):
            number += 1
            yield raw
            continue
        for paragraph in raw.values["paragraphs"]:
            for values in _questions(paragraph, raw.values.get("title")):
                number += 1
                broken = values is None
                fault = "an article's paragraph without `context` and `qas`" if broken else ""
                yield RawRow(number, values or {}, fault)


def _questions(paragraph: Any, title: Any) -> Iterator[dict[str, Any] | None]:
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    if not isinstance(questions, list) or not all(isinstance(one, dict) for one in questions):
        yield None
        return
    for one in questions:
        answers = [] if one.get("is_impossible") is True else one.get("answers", [])
        about = {"id": one.get("id"), "title": title, "context": paragraph.get("context")}
        yield {**about, "question": one.get("question"), "answers": answers}
