"""What a row can be: one of several labels, any number of labels, a place in a taxonomy, a number.

A target turns rows into numbers, logits into a loss, and raw outputs into answers with metrics. Each has:
`learn(rows)`, `learned()` and `recall(learned)`; `numbers(rows)` and `tensor(numbers)`; `loss(logits, target)`;
`gold(row)`, `decide(outputs, golds)`, `answers(outputs, decision)`, `shares(outputs, decision)`;
`measures(predictions)`, `primary(rows)`, `severity(prediction)`, `shown(answer)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunesmith.recipe.classification import Classification as Settings
from tunesmith.tasks.targets.many_labels import ManyLabels
from tunesmith.tasks.targets.number import Number
from tunesmith.tasks.targets.one_label import OneLabel, Paths

TARGETS: dict[str, Callable[[Settings], Any]] = {
    "label": OneLabel,
    "labels": ManyLabels,
    "path": Paths,
    "score": Number,
}
