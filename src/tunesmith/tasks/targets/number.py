"""A number. Letters: B or R rows; one output each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.recipe.classification import Classification as Settings
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import Answer, Decision, Loss, Prediction, Value
from tunesmith.tasks.metrics import Measure


class Number:
    """A number: the squared error of the standardised score. Outputs are in standard deviations of training rows."""

    column = "score"
    problem_type = "regression"
    labels = ("score",)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.mean, self.deviation = 0.0, 1.0
        self.head_bias = None  # 0 is the mean already

    def learn(self, rows: Sequence[Row]) -> None:
        scores = np.array([row["score"] for row in rows], dtype=float)
        self.mean, self.deviation = float(scores.mean()), float(scores.std())
        if scores.min() == scores.max():
            raise DataError("all training rows have the same score", rows[0].file, "there is nothing to learn")

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "mean": self.mean, "deviation": self.deviation}

    def recall(self, learned: Mapping[str, Any]) -> None:
        self.mean, self.deviation = learned["mean"], learned["deviation"]

    def numbers(self, rows: Sequence[Row]) -> list[Any]:
        """Standardised scores; not a number where the row has none."""
        return [(float(s) - self.mean) / self.deviation if (s := row.get("score")) is not None else math.nan
                for row in rows]  # fmt: skip

    def matrix(self, rows: Sequence[Row]) -> np.ndarray:
        """(R, 1) standardised scores."""
        return np.array(self.numbers(rows), dtype=float)[:, None]

    def logits(self, means_R1: np.ndarray) -> np.ndarray:
        return means_R1

    def tensor(self, numbers: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float64)

    def loss(self, logits_B1: torch.Tensor, target_B: torch.Tensor) -> Loss:
        target_B = target_B.to(logits_B1.dtype)
        known_B = target_B.isfinite()
        errors_B = torch.where(known_B, logits_B1[:, 0] - target_B.nan_to_num(), 0.0)
        return Loss((errors_B**2).sum(), float(known_B.sum()))

    def weights_of(self, target_B: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B,) every row counts once that has a score."""
        return target_B.isfinite().to(dtype)

    def gold(self, row: Row) -> Value | None:
        return row.get("score")

    def decide(self, outputs_R1: np.ndarray, golds: Sequence[Any]) -> Decision:
        return {}

    def answers(self, outputs_R1: np.ndarray, decision: Decision) -> list[Answer]:
        return [Answer(float(output) * self.deviation + self.mean) for output in outputs_R1[:, 0]]

    def shares(self, outputs_R1: np.ndarray, decision: Decision) -> None:
        return None

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        gold_R, answer_R = np.array([(p.gold, p.answer) for p in predictions], dtype=float).T
        return {
            "spearman": metrics.spearman(gold_R, answer_R),
            "pearson": metrics.pearson(gold_R, answer_R),
            "rmse": metrics.root_mean_squared_error(gold_R, answer_R),
        }

    def primary(self, rows: Sequence[Row]) -> str:
        return "spearman"

    def severity(self, prediction: Prediction) -> float:
        """The size of the error, in the unit of the scores."""
        return abs(float(prediction.answer) - float(prediction.gold))

    def shown(self, answer: Answer) -> dict[str, Any]:
        return {"score": answer.value}
