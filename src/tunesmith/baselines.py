"""What a tuned model must beat, on the same rows and metric: cheap answers that need no fine-tuning."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from tunesmith.data.batches import length_sorted
from tunesmith.data.rows import Row
from tunesmith.devices import Devices, machine_errors_named
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded, as_base
from tunesmith.tasks.contract import Example, length_of

BODY_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
ANY_TOKEN = r"(?u)\w+|[^\w\s]"
"""A word or a sign: scikit-learn's own pattern leaves out words of one letter, and some texts have no others."""

NEIGHBOURS = (1, 3, 5, 10, 20)

Answers = list[tuple[str, float]]


class Baseline(Protocol):
    """Fitted once on the training rows; then asked for answers with scores."""

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> Answers: ...


@dataclass
class Majority:
    """Always the commonest training label, scored by its share (Jurafsky and Martin: the first baseline to report)."""

    label: str
    share: float

    @classmethod
    def fit(cls, rows: Sequence[Row]) -> Majority:
        counts = Counter(row["label"] for row in rows)
        label = min(counts, key=lambda name: (-counts[name], name))
        return cls(label, counts[label] / len(rows))

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> Answers:
        return [(self.label, self.share)] * len(rows)


@dataclass
class Tfidf:
    """TF-IDF of words and word pairs, then logistic regression (scikit-learn)."""

    pipeline: Any

    @classmethod
    def fit(cls, rows: Sequence[Row]) -> Tfidf:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        words = TfidfVectorizer(token_pattern=ANY_TOKEN, ngram_range=(1, 2), sublinear_tf=True, max_features=100_000)
        pipeline = make_pipeline(words, LogisticRegression(C=10.0, max_iter=200, tol=1e-3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            pipeline.fit([_text(row) for row in rows], [row["label"] for row in rows])
        return cls(pipeline)

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> Answers:
        if not rows:
            return []
        probabilities = self.pipeline.predict_proba([_text(row) for row in rows])
        best = probabilities.argmax(axis=1)
        return [(str(self.pipeline.classes_[b]), float(probabilities[i, b])) for i, b in enumerate(best)]


def _text(row: Row) -> str:
    return f"{row['text']} \n {row.get('text_pair') or ''}"


@dataclass
class NearestNeighbours:
    """A vote of the nearest training rows, weighted by cosine, in the mean-pooled space of the frozen base."""

    vectors: np.ndarray
    labels: np.ndarray
    classes: list[str]
    embed: Callable[[Sequence[Example]], np.ndarray]
    neighbours: int = 1

    @classmethod
    def fit(
        cls,
        rows: Sequence[Row],
        examples: Sequence[Example],
        held_rows: Sequence[Row],
        held_examples: Sequence[Example],
        embed: Callable[[Sequence[Example]], np.ndarray],
    ) -> NearestNeighbours:
        """`held_*` is the validation split, on which the number of neighbours is chosen."""
        classes = sorted({row["label"] for row in rows})
        labels = np.array([classes.index(row["label"]) for row in rows])
        fitted = cls(embed(examples), labels, classes, embed)
        golds = [row["label"] for row in held_rows]
        vectors = embed(held_examples)

        def right(k: int) -> int:
            return sum(a == g for (a, _), g in zip(fitted._vote(vectors, k), golds, strict=True))

        fitted.neighbours = max((k for k in NEIGHBOURS if k <= len(rows)), key=lambda k: (right(k), -k))
        return fitted

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> Answers:
        return self._vote(self.embed(examples), self.neighbours)

    def _vote(self, vectors: np.ndarray, k: int) -> Answers:
        answers: Answers = []
        for start in range(0, len(vectors), 512):
            similarity = vectors[start : start + 512] @ self.vectors.T
            near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            for row, members in enumerate(near):
                votes = np.zeros(len(self.classes))
                np.add.at(votes, self.labels[members], np.maximum(similarity[row, members], 0.0) + 1e-9)
                best = int(votes.argmax())
                answers.append((self.classes[best], float(votes[best] / votes.sum())))
        return answers


def embed(task: Any, loaded: Loaded, examples: Sequence[Example], devices: Devices) -> np.ndarray:
    """Unit vectors (rows, hidden): the mean of the frozen base's last hidden states over real tokens."""
    lengths = [length_of(example) for example in examples]
    rows: list[np.ndarray] = [np.empty(0)] * len(examples)
    with as_base(loaded) as model, torch.inference_mode(), machine_errors_named():
        body = layers.body(model)
        for piece in length_sorted(lengths, devices.micro_batch_tokens):
            batch = task.collate([examples[i] for i in piece], loaded.processor)
            inputs = {name: batch[name].to(devices.device) for name in BODY_INPUTS if name in batch}
            hidden_BTD = body(**inputs).last_hidden_state.float()
            mask_BT1 = inputs["attention_mask"][:, :, None].float()
            mean_BD = (hidden_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)
            for i, vector in zip(piece, torch.nn.functional.normalize(mean_BD, dim=-1).cpu().numpy(), strict=True):
                rows[i] = vector
    return np.stack(rows) if rows else np.empty((0, 0))
