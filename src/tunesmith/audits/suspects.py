"""Rows whose given label may be wrong: confident learning in its simplest form (Northcutt et al. 2021,
arXiv:1911.00068)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.tasks.contract import Prediction

SURE = 0.5
"""An answer with less than this is no word against a label, however unsure the model usually is."""


@dataclass(frozen=True)
class Suspect:
    """A row under suspicion.

    Attributes:
        index: its place among the given predictions.
        given: the probability of the given label; where it is not among those that were kept, the most it can be.
        usual: the mean probability of this label in the rows that bear it.
    """

    index: int
    given: float
    usual: float


def find_suspects(predictions: Sequence[Prediction]) -> list[Suspect]:
    """Rows in which the given label is less probable than it usually is where it is given, and another one at least as
    probable as it usually is; the largest fall of the given label first."""
    given = [_probability_of_gold(prediction) for prediction in predictions]
    by_label: dict[str, list[float]] = defaultdict(list)
    for prediction, share in zip(predictions, given, strict=True):
        by_label[prediction.gold].append(share)
    usual = {label: float(np.mean(shares)) for label, shares in by_label.items()}
    found = [
        Suspect(index, share, usual[prediction.gold])
        for index, (prediction, share) in enumerate(zip(predictions, given, strict=True))
        if prediction.answer != prediction.gold
        and share < usual[prediction.gold]
        and (prediction.score or 0.0) >= max(SURE, usual.get(prediction.answer, 1.0))
    ]
    return sorted(found, key=lambda suspect: (suspect.given - suspect.usual, suspect.index))


def _probability_of_gold(prediction: Prediction) -> float:
    """Only the likeliest labels are kept: of another we know that it is less probable than these, and than what they
    leave over."""
    kept = prediction.probabilities
    if prediction.gold in kept:
        return kept[prediction.gold]
    # of a path's answer the branches above it are kept too: they hold it, and are no labels beside it
    labels = [share for name, share in kept.items() if not str(prediction.answer).startswith(f"{name}/")]
    return max(0.0, min([*labels, 1 - sum(labels)], default=0.0))
