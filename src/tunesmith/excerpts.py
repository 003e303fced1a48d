"""The baselines for written texts: what can be had of the source without writing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.rows import Row
from tunesmith.evaluation import as_predictions
from tunesmith.tasks.contract import Example

MOST_SENTENCES = 5
FITTED_ROWS = 500
_NO_TITLE = r"(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bProf)"
_SENTENCE = re.compile(
    rf"[^\n]+?(?:{_NO_TITLE}[.!?\u061f\u06d4\u0964]+[\"')\]\u201d\u2019\u00bb]*(?=\s|$)|[\u3002\uff01\uff1f]+|(?=\n)|$)"
)
"""A full stop ends a sentence before a space alone: there is one in 3.5, too, and one behind a title."""


@dataclass
class Lead:
    """The first sentences of the source, as many as score best on the training rows (the baseline of news summaries:
    Nenkova 2005, with three)."""

    sentences: int

    @classmethod
    def fit(cls, task: Any, rows: Sequence[Row]) -> Lead:
        some = rows[:: -(-len(rows) // FITTED_ROWS)]
        primary = task.primary(rows)

        def value(sentences: int) -> float:
            texts = cls(sentences).predict(some, ())
            predictions = as_predictions([task.gold(row) for row in some], task.answers(texts, some, {}))
            return float(task.measures(predictions)[primary]())

        return cls(max(range(1, MOST_SENTENCES + 1), key=lambda sentences: (value(sentences), -sentences)))

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[str]:
        return [_first(row["source"], self.sentences) for row in rows]


@dataclass
class Copy:
    """The source as it stands: names, numbers and whatever both languages share."""

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[str]:
        return [row["source"].strip() for row in rows]


def _first(text: str, sentences: int) -> str:
    found = (match[0].strip() for match in _SENTENCE.finditer(text))
    kept = [sentence for sentence in found if any(map(str.isalnum, sentence))][:sentences]
    return " ".join(kept) or text.strip()
