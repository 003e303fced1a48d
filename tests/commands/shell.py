"""What a command of ours is to a test: a call with an outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; anything else there is a fault."""
        return json.loads(self.out)


Command = Callable[..., Outcome]

RECIPE = """\
model: {base}
data: {{train: train.jsonl, test: test.jsonl}}
train: {{steps: 6, batch_size: 8, learning_rate: 3e-3, precision: fp32, evaluate_every: 3}}
judge: {{baselines: [majority]}}
machine: {{threads: 1}}
"""
