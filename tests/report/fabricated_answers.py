"""Answers written by hand, for every kind of target, with all that a run says of them beside accuracy."""

from __future__ import annotations

import random
from typing import Any

from tunesmith.audits.slices import by_columns, by_length
from tunesmith.data.rows import Row
from tunesmith.recipe import TextClassification
from tunesmith.tasks.contract import Prediction
from tunesmith.tasks.targets import TARGETS

Answers = list[dict[str, Any]]


def predictions(target: str, labels: tuple[str, ...], number: int) -> Answers:
    """Mostly right answers; the later a class, the worse, and the less sure the model, the more often wrong."""
    source = random.Random(0)
    make = {"label": _one, "path": _one, "labels": _several, "score": _number}[target]
    return [{"row": row, **make(labels, row, source)} for row in range(number)]


def _one(labels: tuple[str, ...], row: int, source: random.Random) -> dict[str, Any]:
    gold = labels[row % len(labels)]
    sure = 1 - 0.5 * source.random() ** 2
    right = source.random() < sure - 0.15 * (row % len(labels)) / len(labels)
    answer = gold if right else source.choice(labels)
    others = [label for label in labels if label != answer][:4]
    rest = {label: (1 - sure) / (len(others) + 1) for label in others}
    return {"gold": gold, "answer": answer, "score": round(sure, 6), "probabilities": {answer: sure, **rest}}


def _several(labels: tuple[str, ...], row: int, source: random.Random) -> dict[str, Any]:
    gold = sorted({label for label in labels if source.random() < 0.3})
    probabilities = {label: source.betavariate(5, 2) if label in gold else source.betavariate(2, 5) for label in labels}
    answer = sorted(label for label, share in probabilities.items() if share >= 0.5)
    score = 1.0
    for share in probabilities.values():
        score *= max(share, 1 - share)
    return {"gold": gold, "answer": answer, "score": score, "probabilities": probabilities}


def _number(labels: tuple[str, ...], row: int, source: random.Random) -> dict[str, Any]:
    gold = round(source.uniform(1.0, 5.0), 2)
    return {"gold": gold, "answer": gold + 0.1 + source.gauss(0, 0.5), "score": None, "probabilities": {}}


def _wide(value: float, half: float) -> dict[str, float]:
    return {
        "value": value,
        "low": max(-1.0, value - half),
        "high": value + half if value > 1 else min(1.0, value + half),
    }


def scores_of(target: str, answers: Answers) -> dict[str, dict[str, float]]:
    """Every metric of the target, with intervals that are made up."""
    task = TARGETS[target](TextClassification(target=target))
    measures = task.measures([Prediction(**answer) for answer in answers])
    return {name: _wide(measure(), 0.0345 if target == "score" else 0.0123) for name, measure in measures.items()}


def further_scores(target: str, labels: tuple[str, ...], answers: Answers, primary: str) -> dict[str, Any]:
    """Calibration and slices as a run writes them (intervals of slices are real)."""
    task = TARGETS[target](TextClassification(target=target))
    found = [Prediction(**answer) for answer in answers]
    source = random.Random(2)
    rows = [Row({"channel": source.choice(("mail", "chat", "phone"))}, "test.jsonl", row) for row in range(len(found))]
    lengths = [source.randint(4, 60) for _ in found]
    decision: dict[str, Any] = {} if target == "score" else {"temperature": 1.2345}
    if target == "labels":
        decision["thresholds"] = [round(0.3 + 0.4 * place / len(labels), 4) for place in range(len(labels))]
    before = {"value": 0.0777, "low": 0.0666, "high": 0.0888} if target in ("label", "path") else None
    return {
        "calibration": {**decision, "ece_before": before},
        "slices": by_columns(["channel"], rows, found, task.measures, primary),
        "by_length": by_length(lengths, found, task.measures, primary),
    }
