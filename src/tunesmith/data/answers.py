"""Questions about texts as SQuAD has them: nested files as rows, and the answers of a row in one form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith.data.readers import RawRow

Given = dict[str, list[Any]]
"""{"texts": [..], "starts": [..]}: every answer that counts as right, and where it stands; both empty for none."""


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


def given_answers(cell: Any) -> tuple[Given | None, str]:
    """Answers as {"texts", "starts"} from what the field writes: {"text": [..], "answer_start": [..]}, or a list of
    {"text", "answer_start"}; and what is wrong with them. An answer without a start is looked for later."""
    if isinstance(cell, dict):
        texts, starts = cell.get("text"), cell.get("answer_start")
        if isinstance(texts, str):
            texts, starts = [texts], [starts]
        starts = [None] * len(texts) if starts is None and isinstance(texts, list) else starts
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return None, "has no lists `text` and `answer_start` of the same length"
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(cell, list) and all(isinstance(item, dict) for item in cell):
        pairs = [(item.get("text"), item.get("answer_start")) for item in cell]
    else:
        return None, 'is neither {"text": [..], "answer_start": [..]} nor a list of answers'
    for number, (text, start) in enumerate(pairs, start=1):
        if not isinstance(text, str) or not text.strip():
            return None, f"holds an answer (number {number}) without text; no answer at all is an empty list"
        if start is not None and (isinstance(start, bool) or not isinstance(start, int) or start < 0):
            return None, f"holds an answer (number {number}) whose `answer_start` is no whole number from 0 on"
    return {"texts": [text for text, _ in pairs], "starts": [start for _, start in pairs]}, ""


def placed(given: Given, context: str) -> str:
    """Find the starts that are missing, in place; what is wrong with those that are given ("" if nothing)."""
    for number, (text, start) in enumerate(zip(given["texts"], given["starts"], strict=True)):
        if start is None:
            given["starts"][number] = start = context.find(text)
            if start < 0:
                return f"holds an answer (number {number + 1}) that does not stand in the text"
        if context[start : start + len(text)] != text:
            other = context.find(text)
            where = f"it stands at {other}" if other >= 0 else "it stands nowhere in it"
            return f"holds an answer (number {number + 1}) that does not stand at {start} of the text: {where}"
    return ""
