"""From where on a question gets no answer."""

from __future__ import annotations

import numpy as np


def least_lead(leads_R: np.ndarray, gains_R: np.ndarray) -> float:
    """How far "no answer" must lead before a model's best answer to be given.

    The threshold is the one with the highest sum of gains on these rows (as SQuAD 2's evaluation chooses it; Rajpurkar
    et al. 2018, arXiv:1806.03822). But it stays 0, what the model says itself, where that is worse by no more than one
    standard error (Breiman et al. 1984, section 3.4.3): of few rows the highest is the highest by chance.

    Args:
        leads_R: by how much "no answer" leads, row by row; infinite where there is no answer to give.
        gains_R: what giving the answer rather than none adds to the score, from -1 to 1.
    """
    order = np.argsort(leads_R, kind="stable")
    leads, gains = leads_R[order], gains_R[order]
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    apart = np.concatenate([[True], leads[1:] > leads[:-1], [True]])  # no threshold parts equal leads
    best = int(np.where(apart, sums, -np.inf).argmax())  # so many, those with the smallest lead, are answered
    own = int(np.searchsorted(leads, 0.0, side="right"))
    more, parted = float(sums[best] - sums[own]), gains[min(best, own) : max(best, own)]
    if more**2 <= float((parted**2).sum()) - more**2 / len(leads):  # its standard error, the other rows being equal
        return 0.0
    if best == 0:
        return float(leads[0]) - 1.0
    if best == len(leads):
        return float(leads[-1])
    return float((leads[best - 1] + leads[best]) / 2)
