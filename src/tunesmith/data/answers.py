"""The answers of a row in one form, from all that the field writes."""

from __future__ import annotations

from typing import Any

Given = dict[str, list[Any]]
"""{"texts": [..], "starts": [..]}: every answer that counts as right, and where it stands; both empty for none."""


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
        pairs = [(item.get("text"), item.get("answer_start", item.get("start"))) for item in cell]
    else:
        return None, 'is neither {"text": [..], "answer_start": [..]} nor a list of answers'
    for number, (text, start) in enumerate(pairs, start=1):
        if not isinstance(text, str) or not text.strip():
            return None, f"holds an answer (number {number}) without text; no answer at all is an empty list"
        if start is not None and (isinstance(start, bool) or not isinstance(start, int) or start < 0):
            return None, f"holds an answer (number {number}) whose `answer_start` is no whole number from 0 on"
    return {"texts": [text for text, _ in pairs], "starts": [start for _, start in pairs]}, ""


def placed(given: Given, context: str) -> str:
    """Find the starts that are missing and leave white space around answers out, in place; what is wrong with the
    starts that are given ("" if nothing)."""
    for number, (text, start) in enumerate(zip(given["texts"], given["starts"], strict=True)):
        if start is None:
            given["starts"][number] = start = context.find(text)
            if start < 0:
                return f"holds an answer (number {number + 1}) that does not stand in the text"
        if context[start : start + len(text)] != text:
            other = context.find(text)
            where = f"it stands at {other}" if other >= 0 else "it stands nowhere in it"
            return f"holds an answer (number {number + 1}) that does not stand at {start} of the text: {where}"
        given["texts"][number] = text.strip()
        given["starts"][number] = start + len(text) - len(text.lstrip())
    return ""
