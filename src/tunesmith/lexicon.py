"""The baseline for words: each gets the tag that it bears most often in training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data.rows import Row
from tunesmith.tasks.contract import Example


@dataclass
class Lexicon:
    """A word's tag is the commonest of the training rows' tags for it, O for a word that was never seen (the baseline
    of the CoNLL shared tasks: Tjong Kim Sang and De Meulder 2003, arXiv:cs/0306050, in its simplest form)."""

    task: Any
    counts: dict[str, np.ndarray]

    @classmethod
    def fit(cls, task: Any, rows: Sequence[Row]) -> Lexicon:
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            for word, tag in task.tagged_words(row):
                seen[word][tag] += 1
        return cls(task, {word: np.array([tags[label] for label in task.labels], float) for word, tags in seen.items()})

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[np.ndarray]:
        return [self._logits(row) for row in rows]

    def _logits(self, row: Row) -> np.ndarray:
        words = self.task.words(row)
        unseen = np.eye(len(self.task.labels))[0]
        counts = [
            self.counts.get(words.text[start:end], unseen) for start, end in zip(words.starts, words.ends, strict=True)
        ]
        shares_WC = np.array(counts).reshape(-1, len(self.task.labels))
        shares_WC = shares_WC / shares_WC.sum(axis=1, keepdims=True)
        return np.log(np.maximum(shares_WC, 1e-9))
