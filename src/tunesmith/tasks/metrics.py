"""Metrics as functions of how often each row is counted, so that a bootstrap needs no second look at the rows.

A resample of the rows is a vector of weights (how often each row was drawn). Most metrics are functions of weighted
sums over rows; those that go by rank take the weights themselves. Letters: R rows, M resamples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15
"""Bins of the expected calibration error (Guo et al. 2017, arXiv:1706.04599)."""


@dataclass(frozen=True)
class Measure:
    """A metric over given rows.

    Attributes:
        num_rows: over how many rows.
        resampled: from (M, R) weights to (M,) values.
    """

    num_rows: int
    resampled: Callable[[np.ndarray], np.ndarray]

    def __call__(self) -> float:
        return float(self.resampled(np.ones((1, self.num_rows)))[0])


def of_sums(statistics: np.ndarray, value: Callable[[np.ndarray], np.ndarray]) -> Measure:
    """A metric from (R, k) numbers for each row, by way of their sums: `value` maps (M, k) sums to (M,)."""
    return Measure(len(statistics), lambda weights_MR: value(weights_MR @ statistics))


def mean(values: Sequence[float] | np.ndarray) -> Measure:
    """The mean of one number for each row."""
    statistics = np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)
    return of_sums(statistics, lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-12))


def class_metrics(gold_RC: np.ndarray, answer_RC: np.ndarray) -> dict[str, Measure]:
    """F1 averaged in three ways from 0/1 membership of gold and answers (as scikit-learn averages, over the classes
    that occur in either)."""
    counts = np.concatenate([gold_RC * answer_RC, gold_RC, answer_RC], axis=1).astype(float)
    return {"micro_f1": of_sums(counts, _micro_f1), "macro_f1": of_sums(counts, _macro_f1),
            "weighted_f1": of_sums(counts, _weighted_f1)}  # fmt: skip


def matthews(gold_RC: np.ndarray, answer_RC: np.ndarray) -> Measure:
    """Matthews correlation for any number of classes (Gorodkin 2004); 0 where all gold or all answers are one class,
    unless all are right."""
    rows = np.ones((len(gold_RC), 1))
    counts = np.concatenate([(gold_RC * answer_RC).sum(axis=1, keepdims=True), rows, gold_RC, answer_RC], axis=1)

    def value(sums: np.ndarray) -> np.ndarray:
        right, all_rows = sums[:, 0], sums[:, 1]
        gold, answered = np.split(sums[:, 2:], 2, axis=1)
        covariance = right * all_rows - (gold * answered).sum(axis=1)
        spread = (all_rows**2 - (gold**2).sum(axis=1)) * (all_rows**2 - (answered**2).sum(axis=1))
        undefined = np.where(right == all_rows, 1.0, 0.0)
        return np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1e-12)), undefined)

    return of_sums(counts.astype(float), value)


def calibration_error(confidence_R: np.ndarray, right_R: np.ndarray) -> Measure:
    """Expected calibration error: the gap between confidence and share of right answers, averaged over equal-width
    bins by their rows."""
    bins = np.minimum((confidence_R * BINS).astype(int), BINS - 1)
    gaps_RB = np.zeros((len(bins), BINS))
    gaps_RB[np.arange(len(bins)), bins] = right_R - confidence_R
    statistics = np.concatenate([gaps_RB, np.ones((len(bins), 1))], axis=1)
    return of_sums(statistics, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / np.maximum(sums[:, -1], 1e-12))


def mean_average_precision(gold_RC: np.ndarray, scores_RC: np.ndarray) -> Measure:
    """Average precision of each label that has a gold row, averaged over these labels (mAP)."""

    def value(weights_MR: np.ndarray) -> np.ndarray:
        total, labels = np.zeros(len(weights_MR)), np.zeros(len(weights_MR))
        for gold_R, scores_R in zip(gold_RC.T, scores_RC.T, strict=True):
            precision, occurs = _average_precision(gold_R, scores_R, weights_MR)
            total, labels = total + precision, labels + occurs
        return total / np.maximum(labels, 1)

    return Measure(len(gold_RC), value)


def _average_precision(gold_R: np.ndarray, scores_R: np.ndarray, weights_MR: np.ndarray) -> tuple[np.ndarray, ...]:
    """(M,) average precision, 0 where no gold row was drawn, and whether one was. Equal scores are one threshold."""
    order = np.argsort(-scores_R, kind="stable")
    ranked = scores_R[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    weights = weights_MR[:, order]
    taken = np.cumsum(weights, axis=1)[:, ends]
    found = np.cumsum(weights * gold_R[order], axis=1)[:, ends]
    gained = np.diff(found, axis=1, prepend=0.0)
    area = (gained * found / np.maximum(taken, 1e-12)).sum(axis=1)
    return area / np.maximum(found[:, -1], 1e-12), (found[:, -1] > 0).astype(float)


def pearson(gold_R: np.ndarray, answer_R: np.ndarray) -> Measure:
    """Pearson's correlation; 0 where either side is constant."""
    gold, answer = gold_R - gold_R.mean(), answer_R - answer_R.mean()
    statistics = np.stack([np.ones_like(gold), gold, answer, gold**2, answer**2, gold * answer], axis=1)
    return of_sums(statistics, _correlation)


def spearman(gold_R: np.ndarray, answer_R: np.ndarray) -> Measure:
    """Spearman's rank correlation, ties at their mean rank; ranks are taken anew in each resample."""
    to_gold, to_answer = _weighted_ranks(gold_R), _weighted_ranks(answer_R)

    def value(weights_MR: np.ndarray) -> np.ndarray:
        gold_MR, answer_MR = to_gold(weights_MR), to_answer(weights_MR)
        parts = (np.ones_like(gold_MR), gold_MR, answer_MR, gold_MR**2, answer_MR**2, gold_MR * answer_MR)
        return _correlation(np.stack([(weights_MR * part).sum(axis=1) for part in parts], axis=1))

    return Measure(len(gold_R), value)


def root_mean_squared_error(gold_R: np.ndarray, answer_R: np.ndarray) -> Measure:
    statistics = np.stack([(gold_R - answer_R) ** 2, np.ones(len(gold_R))], axis=1)
    return of_sums(statistics, lambda sums: np.sqrt(sums[:, 0] / np.maximum(sums[:, 1], 1e-12)))


def _weighted_ranks(values_R: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From (M, R) weights to (M, R) ranks, centred on 0 and as a share of the rows drawn."""
    _, group_R = np.unique(values_R, return_inverse=True)
    groups = int(group_R.max()) + 1 if len(group_R) else 0

    def ranks(weights_MR: np.ndarray) -> np.ndarray:
        drawn = np.stack([np.bincount(group_R, weights, minlength=groups) for weights in weights_MR])
        middle = np.cumsum(drawn, axis=1) - drawn / 2
        total = np.maximum(drawn.sum(axis=1, keepdims=True), 1e-12)
        return (middle / total - 0.5)[:, group_R]

    return ranks


def _correlation(sums: np.ndarray) -> np.ndarray:
    """From sums of 1, x, y, xx, yy, xy."""
    count, x, y, xx, yy, xy = (sums[:, i] for i in range(6))
    count = np.maximum(count, 1e-12)
    covariance, spread_x, spread_y = xy - x * y / count, xx - x * x / count, yy - y * y / count
    varies = (spread_x > 1e-12 * np.maximum(xx, 1e-300)) & (spread_y > 1e-12 * np.maximum(yy, 1e-300))
    return np.where(varies, covariance / np.sqrt(np.where(varies, spread_x * spread_y, 1.0)), 0.0)


def _thirds(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(M, C) F1, gold counts, right answers and gold + answered, from (M, 3C) sums of right, gold and answered."""
    right, gold, answered = np.split(sums, 3, axis=-1)
    either = gold + answered
    return np.where(either > 0, 2 * right / np.maximum(either, 1e-12), 0.0), gold, right, either


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    f1, _, _, either = _thirds(sums)
    return f1.sum(axis=-1) / np.maximum((either > 0).sum(axis=-1), 1)


def _weighted_f1(sums: np.ndarray) -> np.ndarray:
    f1, gold, _, _ = _thirds(sums)
    return (f1 * gold).sum(axis=-1) / np.maximum(gold.sum(axis=-1), 1e-12)


def _micro_f1(sums: np.ndarray) -> np.ndarray:
    _, _, right, either = _thirds(sums)
    return 2 * right.sum(axis=-1) / np.maximum(either.sum(axis=-1), 1e-12)
