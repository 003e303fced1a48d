"""One of several labels, or one place in a taxonomy. Letters: B or R rows, C classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.recipe.classification import Classification as Settings
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import Answer, Decision, Loss, Prediction, Value
from tunesmith.tasks.metrics import Measure
from tunesmith.tasks.targets.calibration import fit_temperature, softmax

NO_LABEL = -1
UNBALANCED = 5
"""Above this ratio of the largest to the smallest class, macro-F1 decides instead of accuracy."""

SHOWN_LABELS = 5
"""How many of the likeliest labels an answer carries where only one can be right."""


def focus(logs: torch.Tensor, gamma: float) -> torch.Tensor:
    """What the focal loss weighs by: (1 - p) to the power of gamma, of log p. At p = 1 a power below 1 has no slope."""
    return (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny) ** gamma


class OneLabel:
    """One of several labels: softmax and cross-entropy."""

    column = "label"
    problem_type = "single_label_classification"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.labels: tuple[str, ...] = ()
        self.weights: list[float] | None = None
        self.head_bias: list[float] | None = None

    def learn(self, rows: Sequence[Row]) -> None:
        """Take the classes from the training rows, in the order of their names.

        Raises:
            DataError: fewer than two classes.
        """
        counts = Counter(row["label"] for row in rows)
        self.labels = tuple(sorted(counts))
        if len(self.labels) < 2:
            raise DataError(
                f"only one class ({', '.join(self.labels)}) in the training rows",
                rows[0].file if rows else "",
                "classification needs at least two; is the right column named for `label`?",
            )
        if self.settings.class_weights == "balanced":
            self.weights = [len(rows) / (len(counts) * counts[label]) for label in self.labels]

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "weights": self.weights}

    def recall(self, learned: Mapping[str, Any]) -> None:
        self.labels, self.weights = tuple(learned["labels"]), learned["weights"]

    def numbers(self, rows: Sequence[Row]) -> list[Any]:
        """Each row's class as its index; NO_LABEL where it has none that was learned."""
        index = {label: number for number, label in enumerate(self.labels)}
        return [index.get(row.get("label"), NO_LABEL) for row in rows]

    def matrix(self, rows: Sequence[Row]) -> np.ndarray:
        """(R, C) of 0 and 1."""
        return np.eye(len(self.labels))[self.numbers(rows)]

    def logits(self, shares_RC: np.ndarray) -> np.ndarray:
        """Raw outputs that say these probabilities."""
        return np.log(np.maximum(shares_RC, 1e-9))

    def tensor(self, numbers: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(numbers)

    def loss(self, logits_BC: torch.Tensor, target_B: torch.Tensor) -> Loss:
        """Cross-entropy, with weights, smoothing and focus as the settings ask. `count` is the rows' weight."""
        index_B = target_B.clamp_min(0)
        logs_BC = functional.log_softmax(logits_BC, dim=-1)
        log_B = logs_BC.gather(1, index_B[:, None])[:, 0]
        smoothing, gamma = self.settings.label_smoothing, self.settings.focal_gamma
        loss_B = -log_B if smoothing == 0 else -(1 - smoothing) * log_B - smoothing * logs_BC.mean(dim=-1)
        if gamma > 0:
            loss_B = loss_B * focus(log_B, gamma)
        weight_B = self.weights_of(target_B, loss_B.dtype)
        weight = float(weight_B.sum())
        right_B = (logits_BC.detach().argmax(dim=-1) == target_B).to(loss_B.dtype)
        # the step divides every sum by `count`: over rows of unequal weight, accuracy is weighed alike
        return Loss((loss_B * weight_B).sum(), weight, {"accuracy": float((right_B * weight_B).sum())})

    def weights_of(self, target_B: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B,) what each row counts: 1 or its class's weight; nothing where the label was never learned."""
        weight_B = (target_B != NO_LABEL).to(dtype)
        if self.weights is None:
            return weight_B
        return weight_B * torch.tensor(self.weights, dtype=dtype, device=target_B.device)[target_B.clamp_min(0)]

    def gold(self, row: Row) -> Value | None:
        return row.get("label")

    def decide(self, outputs_RC: np.ndarray, golds: Sequence[Any]) -> Decision:
        """The temperature that makes the labels likeliest (Guo et al. 2017, arXiv:1706.04599)."""
        index = {label: number for number, label in enumerate(self.labels)}
        known = [row for row, gold in enumerate(golds) if gold in index]
        if not known:
            return {"temperature": 1.0}
        right = np.array([index[golds[row]] for row in known])

        def surprise(logits_RC: np.ndarray) -> float:
            logits_RC = logits_RC - logits_RC.max(axis=1, keepdims=True)
            return float(np.mean(np.log(np.exp(logits_RC).sum(axis=1)) - logits_RC[np.arange(len(right)), right]))

        faultless = bool((outputs_RC[known].argmax(axis=1) == right).all())
        return {"temperature": fit_temperature(outputs_RC[known], surprise, faultless)}

    def answers(self, outputs_RC: np.ndarray, decision: Decision) -> list[Answer]:
        return [self._answer(probabilities_C) for probabilities_C in self.shares(outputs_RC, decision)]

    def shares(self, outputs_RC: np.ndarray, decision: Decision) -> np.ndarray:
        return softmax(outputs_RC / decision["temperature"])

    def _answer(self, probabilities_C: np.ndarray) -> Answer:
        first = np.argsort(-probabilities_C, kind="stable")[:SHOWN_LABELS]
        likeliest = {self.labels[c]: float(probabilities_C[c]) for c in first}
        return Answer(self.labels[first[0]], float(probabilities_C[first[0]]), likeliest)

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """Accuracy, F1 averages, Matthews correlation; calibration error where answers carry a score."""
        classes = sorted({str(name) for p in predictions for name in (p.gold, p.answer)})
        index = {label: number for number, label in enumerate(classes)}
        one_hot = np.eye(len(classes))
        gold_RC = one_hot[[index[str(p.gold)] for p in predictions]]
        answer_RC = one_hot[[index[str(p.answer)] for p in predictions]]
        right_R = (gold_RC * answer_RC).sum(axis=1)
        averages = metrics.class_metrics(gold_RC, answer_RC)
        found = {
            "accuracy": metrics.mean(right_R),
            "macro_f1": averages["macro_f1"],
            "weighted_f1": averages["weighted_f1"],
            "mcc": metrics.matthews(gold_RC, answer_RC),
        }
        return found | _calibration(predictions, right_R)

    def primary(self, rows: Sequence[Row]) -> str:
        """Accuracy; macro-F1 where the largest class is over five times the smallest."""
        sizes = Counter(row["label"] for row in rows).values()
        return "macro_f1" if max(sizes) > UNBALANCED * min(sizes) else "accuracy"

    def severity(self, prediction: Prediction) -> float:
        """How bad an answer is: 0 if it is right, else how sure the model was of it."""
        return 0.0 if prediction.answer == prediction.gold else max(prediction.score or 0.0, 1e-9)

    def shown(self, answer: Answer) -> dict[str, Any]:
        """An answer in the shape that the field's pipelines give."""
        return {"label": answer.value, "score": answer.score}


class Paths(OneLabel):
    """A place in a taxonomy, `card/lost`: one softmax over all places, so that the probability of a branch is the sum
    of those below it, and answers of different levels never contradict each other."""

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """Those of one label for whole paths; accuracy down to each level; hierarchical F1, which counts every shared
        ancestor (Kiritchenko et al. 2006)."""
        found = super().measures(predictions)
        golds = [_ancestors(str(p.gold)) for p in predictions]
        answers = [_ancestors(str(p.answer)) for p in predictions]
        shared = [len(set(gold) & set(answer)) for gold, answer in zip(golds, answers, strict=True)]
        sums = np.stack([shared, [len(gold) for gold in golds], [len(answer) for answer in answers]], axis=1)
        found["hierarchical_f1"] = metrics.of_sums(
            sums.astype(float), lambda s: 2 * s[:, 0] / np.maximum(s[:, 1] + s[:, 2], 1e-12)
        )
        for level in range(max(map(len, golds), default=1) - 1):
            right = [
                gold[: level + 1][-1] == answer[: level + 1][-1] for gold, answer in zip(golds, answers, strict=True)
            ]
            found[f"accuracy_level_{level + 1}"] = metrics.mean(right)
        return found

    def _answer(self, probabilities_C: np.ndarray) -> Answer:
        """The likeliest whole path, and with it the probability of each of its ancestors: of all that lies in it, also
        where the ancestor is a label itself."""
        best = super()._answer(probabilities_C)
        branches = {
            branch: float(
                sum(p for label, p in zip(self.labels, probabilities_C, strict=True) if _is_in(label, branch))
            )
            for branch in _ancestors(str(best.value))[:-1]
        }
        return Answer(best.value, best.score, {**best.probabilities, **branches})

    def shown(self, answer: Answer) -> dict[str, Any]:
        levels = [{"label": path, "score": answer.probabilities[path]} for path in _ancestors(str(answer.value))]
        return {**super().shown(answer), "levels": levels}


def _ancestors(path: str) -> list[str]:
    """`a/b/c` as a, a/b, a/b/c."""
    parts = path.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _is_in(path: str, branch: str) -> bool:
    return path == branch or path.startswith(f"{branch}/")


def _calibration(predictions: Sequence[Prediction], right_R: np.ndarray) -> dict[str, Measure]:
    if not predictions or any(p.score is None for p in predictions):
        return {}
    return {"ece": metrics.calibration_error(np.array([p.score for p in predictions], dtype=float), right_R)}
