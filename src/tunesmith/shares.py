"""A share of rows and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True)
class Share:
    """A share and its 95 % interval; `value` is None where there is nothing to take a share of."""

    value: float | None
    low: float = 0.0
    high: float = 1.0


def wilson(successes: int, trials: int) -> Share:
    """A share with its 95 % score interval.

    Source: Wilson 1927, Journal of the American Statistical Association 22, 209-212.
    """
    if trials == 0:
        return Share(None)
    share, square = successes / trials, Z95 * Z95
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials)) / (1 + square / trials)
    return Share(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))
