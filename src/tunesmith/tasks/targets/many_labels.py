"""Any number of labels. Letters: R or B rows, C labels, T thresholds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import Answer, Decision, Loss, Prediction, Value
from tunesmith.tasks.metrics import Measure
from tunesmith.tasks.targets.calibration import fit_temperature, sigmoid
from tunesmith.tasks.targets.one_label import OneLabel, focus

THRESHOLDS = np.linspace(0.02, 0.98, 97)


class ManyLabels(OneLabel):
    """Any number of labels: a sigmoid and binary cross-entropy for each.

    A new head begins with each label's own odds in the training rows (Lin et al. 2017, arXiv:1708.02002, section 4.1).
    Begun with even odds, the first steps push all rows the same way, away from all labels, and a small model's body can
    be pushed with them until it tells no row from another.
    """

    column = "labels"
    problem_type = "multi_label_classification"

    def learn(self, rows: Sequence[Row]) -> None:
        counts = Counter(label for row in rows for label in row["labels"])
        self.labels = tuple(sorted(counts))
        if not self.labels:
            raise DataError(
                "no row has a label", rows[0].file if rows else "", "is the right column named for `labels`?"
            )
        if self.settings.class_weights == "balanced":
            self.weights = [max(1, len(rows) - counts[label]) / counts[label] for label in self.labels]
        pulls = self.weights or [1.0] * len(self.labels)
        self.head_bias = [
            math.log(pull * (counts[label] + 0.5) / (len(rows) - counts[label] + 0.5))
            for label, pull in zip(self.labels, pulls, strict=True)
        ]

    def learned(self) -> dict[str, Any]:
        return {**super().learned(), "head_bias": self.head_bias}

    def recall(self, learned: Mapping[str, Any]) -> None:
        super().recall(learned)
        self.head_bias = learned.get("head_bias")

    def numbers(self, rows: Sequence[Row]) -> list[Any]:
        """Each row's labels as their indices; labels that were not learned are left out."""
        index = {label: number for number, label in enumerate(self.labels)}
        return [sorted(index[label] for label in row.get("labels") or () if label in index) for row in rows]

    def matrix(self, rows: Sequence[Row]) -> np.ndarray:
        return self._members([row.get("labels") for row in rows])

    def logits(self, shares_RC: np.ndarray) -> np.ndarray:
        kept_RC = np.clip(shares_RC, 1e-6, 1 - 1e-6)
        return np.log(kept_RC) - np.log1p(-kept_RC)

    def tensor(self, numbers: Sequence[Any]) -> torch.Tensor:
        """(B, C) of 0 and 1."""
        target_BC = torch.zeros(len(numbers), len(self.labels))
        for row, labels in enumerate(numbers):
            target_BC[row, labels] = 1.0
        return target_BC

    def loss(self, logits_BC: torch.Tensor, target_BC: torch.Tensor) -> Loss:
        """Binary cross-entropy, averaged over labels, summed over rows. `weights` are those of positive rows."""
        target_BC = target_BC.to(logits_BC.dtype)
        smoothing, gamma = self.settings.label_smoothing, self.settings.focal_gamma
        soft_BC = target_BC * (1 - smoothing) + smoothing / 2
        positive_BC, negative_BC = functional.logsigmoid(logits_BC), functional.logsigmoid(-logits_BC)
        pulls = torch.ones(len(self.labels)) if self.weights is None else torch.tensor(self.weights)
        pulls = pulls.to(device=logits_BC.device, dtype=logits_BC.dtype)
        loss_BC = -(soft_BC * positive_BC + (1 - soft_BC) * negative_BC)
        loss_BC = loss_BC * torch.where(target_BC > 0.5, pulls, 1.0)
        if gamma > 0:
            loss_BC = loss_BC * focus(torch.where(target_BC > 0.5, positive_BC, negative_BC), gamma)
        right = ((logits_BC.detach() > 0) == (target_BC > 0.5)).all(dim=-1).sum()
        return Loss(loss_BC.mean(dim=-1).sum(), len(logits_BC), {"exact_match": float(right)})

    def weights_of(self, target_BC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B,) every row counts once."""
        return torch.ones(len(target_BC), dtype=dtype, device=target_BC.device)

    def gold(self, row: Row) -> Value | None:
        labels = row.get("labels")
        return None if labels is None else sorted(labels)

    def decide(self, outputs_RC: np.ndarray, golds: Sequence[Any]) -> Decision:
        """A temperature for all, and from which probability on a label is given: by micro-F1, or each by its own F1."""
        gold_RC = self._members(golds)

        def surprise(logits_RC: np.ndarray) -> float:
            return float(np.mean(np.logaddexp(0, np.where(gold_RC > 0.5, -logits_RC, logits_RC))))

        faultless = bool(((outputs_RC > 0) == (gold_RC > 0.5)).all())
        temperature = fit_temperature(outputs_RC, surprise, faultless) if len(golds) else 1.0
        asked = self.settings.threshold
        if isinstance(asked, float):
            return {"temperature": temperature, "thresholds": [asked] * len(self.labels)}
        shares_RC = sigmoid(outputs_RC / temperature)
        right_TC, either_TC = np.zeros((2, len(THRESHOLDS), len(self.labels)))
        for index, threshold in enumerate(THRESHOLDS):  # one at a time: all at once may be gigabytes
            given_RC = shares_RC >= threshold
            right_TC[index], either_TC[index] = (given_RC * gold_RC).sum(axis=0), (given_RC + gold_RC).sum(axis=0)
        if asked == "shared":
            right_TC, either_TC = right_TC.sum(axis=1, keepdims=True), either_TC.sum(axis=1, keepdims=True)
        f1_TC = right_TC / np.maximum(either_TC, 1)
        best = np.broadcast_to(THRESHOLDS[_middle_of_best(f1_TC)], (len(self.labels),))
        # a label that no validation row has tells nothing about its threshold
        chosen = np.where(gold_RC.any(axis=0), best, 0.5) if asked == "per-label" else best
        return {"temperature": temperature, "thresholds": [round(float(t), 4) for t in chosen]}

    def _members(self, label_sets: Sequence[Any]) -> np.ndarray:
        """(R, C) of 0 and 1; labels that were not learned have no column."""
        index = {label: number for number, label in enumerate(self.labels)}
        members_RC = np.zeros((len(label_sets), len(self.labels)))
        for row, labels in enumerate(label_sets):
            members_RC[row, [index[label] for label in labels or () if label in index]] = 1.0
        return members_RC

    def answers(self, outputs_RC: np.ndarray, decision: Decision) -> list[Answer]:
        thresholds_C = np.asarray(decision["thresholds"])
        return [
            self._several(probabilities_C, probabilities_C >= thresholds_C)
            for probabilities_C in self.shares(outputs_RC, decision)
        ]

    def shares(self, outputs_RC: np.ndarray, decision: Decision) -> np.ndarray:
        return sigmoid(outputs_RC / decision["temperature"])

    def _several(self, probabilities_C: np.ndarray, given_C: np.ndarray) -> Answer:
        """The labels above their thresholds. The score is that of the whole set, as if labels were independent."""
        given = sorted(label for label, is_given in zip(self.labels, given_C, strict=True) if is_given)
        score = float(np.prod(np.where(given_C, probabilities_C, 1 - probabilities_C)))
        order = np.argsort(-probabilities_C, kind="stable")
        return Answer(given, score, {self.labels[c]: float(probabilities_C[c]) for c in order})

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """F1 averages, share of rows with exactly the right labels, and mAP where answers carry probabilities."""
        names = sorted({label for p in predictions for label in (*(p.gold or ()), *p.answer)})
        index = {label: number for number, label in enumerate(names)}
        gold_RC, answer_RC = np.zeros((2, len(predictions), len(names)))
        scores_RC = np.zeros((len(predictions), len(names)))
        for row, p in enumerate(predictions):
            gold_RC[row, [index[label] for label in p.gold or ()]] = 1.0
            answer_RC[row, [index[label] for label in p.answer]] = 1.0
            for label in index.keys() & p.probabilities.keys():
                scores_RC[row, index[label]] = p.probabilities[label]
        found = metrics.class_metrics(gold_RC, answer_RC)
        right_R = (gold_RC == answer_RC).all(axis=1)
        found["exact_match"] = metrics.mean(right_R)
        if predictions and all(p.probabilities for p in predictions):
            found["mean_average_precision"] = metrics.mean_average_precision(gold_RC, scores_RC)
        return found

    def primary(self, rows: Sequence[Row]) -> str:
        return "micro_f1"

    def shown(self, answer: Answer) -> dict[str, Any]:
        return {"labels": answer.value, "score": answer.score, "scores": dict(answer.probabilities)}


def _middle_of_best(values_TC: np.ndarray) -> np.ndarray:
    """(C,) the middle index among those that are equally best: a threshold far from where the answers change."""
    best_TC = values_TC >= values_TC.max(axis=0) - 1e-12
    first, last = best_TC.argmax(axis=0), len(best_TC) - 1 - best_TC[::-1].argmax(axis=0)
    middle = (first + last) // 2
    return np.where(best_TC[middle, np.arange(best_TC.shape[1])], middle, first)
