"""The baseline for questions about texts: the sentence that shares most with the question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.data.rows import Row
from tunesmith.data.tags import words_of
from tunesmith.tasks.contract import Example
from tunesmith.tasks.question_answering import Found

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


@dataclass
class Overlap:
    """The sentence of the text whose words share most with the question's, each word weighing by how rare it is among
    the training texts (after the sliding window of Richardson et al. 2013)."""

    rarity: dict[str, float]
    unseen: float

    @classmethod
    def fit(cls, rows: Sequence[Row]) -> Overlap:
        counts = Counter(word for row in rows for word in _words(row["context"]))
        rarity = {word: math.log((1 + len(rows)) / (1 + count)) for word, count in counts.items()}
        return cls(rarity, math.log(1 + len(rows)))

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[Found]:
        return [Found(self._ranked(row), 0.0) for row in rows]

    def _ranked(self, row: Row) -> np.ndarray:
        """(K, 3) of sentences: first character, end, summed rarity of shared words."""
        asked = _words(row["question"])
        found = []
        for match in _SENTENCE.finditer(row["context"]):
            text = match[0]
            begin = match.start() + len(text) - len(text.lstrip())
            if text.strip():
                shared = sum(self.rarity.get(word, self.unseen) for word in asked & _words(text))
                found.append((begin, begin + len(text.strip()), shared))
        return np.array(sorted(found, key=lambda one: (-one[2], one[0])), dtype=float).reshape(-1, 3)


def _words(text: str) -> set[str]:
    words = words_of(text.lower())
    return {words.text[start:end] for start, end in zip(words.starts, words.ends, strict=True)}
