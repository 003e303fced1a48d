"""How raw outputs become probabilities that mean what they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: np.ndarray, surprise: Callable[[np.ndarray], float], faultless: bool) -> float:
    """The number to divide logits by so that the true answers surprise least.

    Args:
        faultless: whether every answer is right. Then the surest answers surprise least, and a temperature below 1
            would say nothing but how few rows there are.
    """
    from scipy.optimize import minimize_scalar

    bounds = (0.0 if faultless else math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    found = minimize_scalar(lambda log: surprise(logits / math.exp(log)), bounds=bounds, method="bounded")
    return round(math.exp(found.x), 6)


def softmax(logits_RC: np.ndarray) -> np.ndarray:
    raised = np.exp(logits_RC - logits_RC.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))
