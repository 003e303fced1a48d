"""Which classes are found, and which are taken for one another: counted from the stored predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.shares import Share, wilson
from tunesmith.tasks.question_answering import exact_of


@dataclass(frozen=True)
class ClassScore:
    """How one class fares. `support` is the number of rows (or spans) of the class, `answered` how often it was the
    answer."""

    label: str
    support: int
    answered: int
    precision: Share
    recall: Share
    f1: Share


def f1_share(right: int, gold: int, answered: int) -> Share:
    """F1 = 2J / (1 + J) rises with J = right / (gold or answered), a plain share: so J's Wilson interval carries over.
    The denominator is taken as fixed."""
    jaccard = wilson(right, gold + answered - right)
    if jaccard.value is None:
        return Share(None)
    return Share(*(2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high)))


def class_scores(predictions: Sequence[dict[str, Any]]) -> list[ClassScore]:
    """One score for each class that occurs in gold or answers, worst F1 first."""
    golds = Counter(label for row in predictions for label, *_ in members(row["gold"]))
    answers = Counter(label for row in predictions for label, *_ in members(row["answer"]))
    right = Counter(label for row in predictions for label, *_ in members(row["gold"]) & members(row["answer"]))
    scores = [
        ClassScore(
            label,
            golds[label],
            answers[label],
            wilson(right[label], answers[label]),
            wilson(right[label], golds[label]),
            f1_share(right[label], golds[label], answers[label]),
        )
        for label in golds.keys() | answers.keys()
    ]
    return sorted(scores, key=lambda score: (score.f1.value or 0.0, -score.support, score.label))


def is_right(row: dict[str, Any]) -> bool:
    """Whether a prediction is wholly right."""
    if isinstance(row["answer"], dict):  # a piece of a text, against all that count as right
        return exact_of(row["answer"]["text"], row["gold"]) == 1.0
    if isinstance(row["gold"], float):
        return bool(row["answer"] == row["gold"])
    return members(row["answer"]) == members(row["gold"])


def members(value: str | list[Any]) -> set[tuple[Any, ...]]:
    """The parts of a gold or an answer that can each be right: (label,), (label, start, end) of a span."""
    return {
        (item["label"], item["start"], item["end"]) if isinstance(item, dict) else (item,)
        for item in (value if isinstance(value, list) else [value])
    }


def confusions(predictions: Sequence[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """How often each (gold, answer) occurs."""
    return Counter((row["gold"], row["answer"]) for row in predictions)


def top_confusions(counts: Counter[tuple[str, str]], most: int) -> list[tuple[str, str, int]]:
    """The commonest mistakes: (gold, answer, rows), most frequent first."""
    wrong = ((gold, answer, rows) for (gold, answer), rows in counts.items() if gold != answer)
    return sorted(wrong, key=lambda item: (-item[2], item[0], item[1]))[:most]
