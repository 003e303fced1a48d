"""What a tuned model must beat, on the same rows and metric: cheap answers that need no fine-tuning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from tunesmith.data.batches import length_sorted
from tunesmith.data.rows import Row
from tunesmith.devices import Devices, machine_errors_named
from tunesmith.evaluation import as_predictions, predict
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded, as_base
from tunesmith.tasks.contract import Example, length_of

ANY_TOKEN = r"(?u)\w+|[^\w\s]"
"""A word or a sign: scikit-learn's own pattern leaves out words of one letter, and some texts have no others."""

HASHED_WORDS = 4096

PROBE_STRENGTH = 0.01
"""On standardised features, of which there are often more than rows: a far stronger pull to zero than for words."""

NEIGHBOURS = (1, 3, 5, 10, 20)


class Baseline(Protocol):
    """Fitted once on the training rows; then asked for outputs, one for each row, in the task's own terms."""

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> Sequence[Any] | np.ndarray: ...


@dataclass
class Majority:
    """Always the same: the training rows' mean, and so their commonest label (Jurafsky and Martin: the first baseline
    to report)."""

    output_C: np.ndarray

    @classmethod
    def fit(cls, task: Any, rows: Sequence[Row]) -> Majority:
        return cls(task.target.logits(task.target.matrix(rows).mean(axis=0, keepdims=True))[0])

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> np.ndarray:
        return np.tile(self.output_C, (len(rows), 1))


@dataclass
class Regression:
    """Logistic regression, one for each label where there may be several, or ridge regression for a number
    (scikit-learn)."""

    pipeline: Any
    task: Any

    @classmethod
    def fit(cls, task: Any, rows: Sequence[Row], inputs: Any, *before: Any, strength: float = 10.0) -> Regression:
        """Fit on what `before` makes of the inputs of `rows`. The larger `strength`, the closer to these rows."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline

        matrix_RC, logistic = task.target.matrix(rows), LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        learner, targets = {
            "single_label_classification": (logistic, matrix_RC.argmax(axis=1)),
            "multi_label_classification": (OneVsRestClassifier(logistic), matrix_RC),
            "regression": (Ridge(alpha=10.0 / strength), matrix_RC[:, 0]),
        }[task.target.problem_type]
        pipeline = make_pipeline(*before, learner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few rows of many labels
            pipeline.fit(inputs, targets)
        return cls(pipeline, task)

    def outputs(self, inputs: Any) -> np.ndarray:
        if not len(inputs):
            return np.empty((0, len(self.task.labels)))
        if self.task.target.problem_type == "regression":
            return self.pipeline.predict(inputs)[:, None]
        shares = self.pipeline.predict_proba(inputs)
        if self.task.target.problem_type == "single_label_classification":  # a label without rows is unknown to it
            known, shares = shares, np.zeros((len(shares), len(self.task.labels)))
            shares[:, self.pipeline.classes_] = known
        return self.task.target.logits(shares[:, -len(self.task.labels) :])  # of a single label scikit-learn gives two


@dataclass
class Tfidf:
    """TF-IDF of words and word pairs, then a regression (see `Regression`)."""

    regression: Regression

    @classmethod
    def fit(cls, task: Any, rows: Sequence[Row]) -> Tfidf:
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(token_pattern=ANY_TOKEN, ngram_range=(1, 2), sublinear_tf=True, max_features=100_000)
        return cls(Regression.fit(task, rows, [_text(row) for row in rows], words))

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> np.ndarray:
        return self.regression.outputs([_text(row) for row in rows])


def _text(row: Row) -> str:
    return f"{row['text']} \n {row.get('text_pair') or ''}"


@dataclass
class LinearProbe:
    """A regression on what the frozen base makes of each row (Alain and Bengio 2016, arXiv:1610.01644): what its
    features know without any of them being tuned."""

    regression: Regression
    embed: Callable[[Sequence[Example]], np.ndarray]

    @classmethod
    def fit(
        cls,
        task: Any,
        rows: Sequence[Row],
        examples: Sequence[Example],
        embed: Callable[[Sequence[Example]], np.ndarray],
    ) -> LinearProbe:
        from sklearn.preprocessing import StandardScaler

        return cls(Regression.fit(task, rows, embed(examples), StandardScaler(), strength=PROBE_STRENGTH), embed)

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> np.ndarray:
        return self.regression.outputs(self.embed(examples))


@dataclass
class NearestNeighbours:
    """The mean of the nearest training rows, weighted by cosine, in the space of the frozen base."""

    task: Any
    vectors: np.ndarray
    matrix_RC: np.ndarray
    embed: Callable[[Sequence[Example]], np.ndarray]
    neighbours: int = 1

    @classmethod
    def fit(
        cls,
        task: Any,
        rows: Sequence[Row],
        examples: Sequence[Example],
        held_rows: Sequence[Row],
        held_examples: Sequence[Example],
        embed: Callable[[Sequence[Example]], np.ndarray],
        primary: str,
    ) -> NearestNeighbours:
        """`held_*` is the validation split, on which the number of neighbours is chosen by the primary metric."""
        fitted = cls(task, embed(examples), task.target.matrix(rows).astype(np.float32), embed)
        golds = [task.gold(row) for row in held_rows]
        vectors = embed(held_examples)

        def value(k: int) -> float:
            outputs = fitted._mean(vectors, k)
            answers = task.answers(outputs, held_rows, task.decide(outputs, held_rows))
            return float(task.measures(as_predictions(golds, answers))[primary]())

        fitted.neighbours = max((k for k in NEIGHBOURS if k <= len(rows)), key=lambda k: (value(k), -k))
        return fitted

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> np.ndarray:
        return self._mean(self.embed(examples), self.neighbours)

    def _mean(self, vectors: np.ndarray, k: int) -> np.ndarray:
        """(R, C) outputs: the weighted mean of the k nearest rows' targets."""
        means = [np.empty((0, self.matrix_RC.shape[1]))]
        for start in range(0, len(vectors), 512):
            similarity = vectors[start : start + 512] @ self.vectors.T
            near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            weights = np.maximum(np.take_along_axis(similarity, near, axis=1), 0.0) + 1e-9
            weights /= weights.sum(axis=1, keepdims=True)
            means.append(np.einsum("rk,rkc->rc", weights, self.matrix_RC[near]))
        return self.task.target.logits(np.concatenate(means).astype(float))


@dataclass
class WordOverlap:
    """Vectors of the words in each text, rare ones weighing more (TF-IDF), hashed into HASHED_WORDS places, so that
    they are as long for every vocabulary; two texts are alike as far as they share words."""

    pipeline: Any
    columns: Sequence[str]

    @classmethod
    def fit(cls, task: Any, rows: Sequence[Row]) -> WordOverlap:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.pipeline import make_pipeline

        words = HashingVectorizer(token_pattern=ANY_TOKEN, n_features=HASHED_WORDS, norm=None)
        pipeline = make_pipeline(words, TfidfTransformer(sublinear_tf=False))
        pipeline.fit([row[name] for name in task.texts for row in rows])
        return cls(pipeline, task.texts)

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[np.ndarray]:
        """(K, HASHED_WORDS) unit vectors of each row's texts."""
        if not rows:
            return []
        parts = [self.pipeline.transform([row[name] for row in rows]).astype(np.float32) for name in self.columns]
        return list(np.stack([part.toarray() for part in parts], axis=1))


@dataclass
class Frequencies:
    """Each token as likely as it is frequent in the training texts, whatever stands around it (one more of each)."""

    task: Any
    processor: Any
    counts_C: np.ndarray

    @classmethod
    def fit(cls, task: Any, processor: Any, examples: Sequence[Example]) -> Frequencies:
        counts_C = np.ones(len(processor))
        for example in examples:
            np.add.at(counts_C, np.asarray(example["input_ids"])[task.askable(example, processor)], 1.0)
        return cls(task, processor, counts_C)

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[np.ndarray]:
        """(3,) of each row, as the task's own."""
        losses_C, likeliest = np.log(self.counts_C.sum()) - np.log(self.counts_C), int(self.counts_C.argmax())
        found = []
        for example in examples:
            asked_VT = self.task.collate([example], self.processor)["asked"].numpy()
            asked_N = asked_VT[asked_VT >= 0]
            found.append(np.array([losses_C[asked_N].sum(), len(asked_N), (asked_N == likeliest).sum()], dtype=float))
        return found


@dataclass
class Opened:
    """A tuned model, asked in the same way as any. `counted` makes of a number of rows what is told how many are
    done."""

    task: Any
    loaded: Loaded
    devices: Devices
    counted: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[Any]:
        return predict(self.loaded, self.task, examples, self.devices, self.counted(len(examples)))


@dataclass
class Untuned(Opened):
    """The base as it is, asked in the same way as the tuned model."""

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[Any]:
        with as_base(self.loaded):
            return super().predict(rows, examples)


def embed(task: Any, loaded: Loaded, examples: Sequence[Example], devices: Devices) -> np.ndarray:
    """Unit vectors (rows, hidden): what the frozen base makes of each row, see `features` of the tasks."""
    lengths = [length_of(example) for example in examples]
    rows: list[np.ndarray] = [np.empty(0)] * len(examples)
    with as_base(loaded) as model, torch.inference_mode(), machine_errors_named():
        body = layers.body(model)
        for piece in length_sorted(lengths, devices.micro_batch_tokens):
            batch = task.collate([examples[i] for i in piece], loaded.processor)
            found_BD = task.features(body, {name: tensor.to(devices.device) for name, tensor in batch.items()}).float()
            for i, vector in zip(piece, torch.nn.functional.normalize(found_BD, dim=-1).cpu().numpy(), strict=True):
                rows[i] = vector
    return np.stack(rows) if rows else np.empty((0, 0))
