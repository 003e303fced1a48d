"""What tasks have in common whose rows, whole, are classes or a number: see `targets` for the kinds of answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tunesmith.data.rows import Row
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.classification import Classification as Settings
from tunesmith.tasks.contract import Answer, Batch, Decision, Example, Loss, Prediction, UsualTask, Value, precise
from tunesmith.tasks.metrics import Measure
from tunesmith.tasks.targets import TARGETS


class Classification(UsualTask):
    """Rows to which the model gives one output for each class (or one number). A task of this kind says how its rows
    become batches, and how a batch becomes `logits`."""

    def __init__(self, settings: Settings) -> None:
        self.settings: Any = settings
        self.target = TARGETS["label" if settings.target == "auto" else settings.target](settings)

    @property
    def problem_type(self) -> str:
        return str(self.target.problem_type)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.target.labels)

    def learn(self, rows: Sequence[Row]) -> None:
        """Take from the training rows what the head's outputs mean."""
        self.target.learn(rows)

    def learned(self) -> dict[str, Any]:
        return dict(self.target.learned())

    def recall(self, learned: Mapping[str, Any]) -> None:
        self.target.recall(learned)

    def logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        """(B, C) outputs of the model, one line for each row."""
        raise NotImplementedError

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        return self.loss_of(precise(self.logits(loaded, batch)), batch)

    def loss_of(self, logits_BC: torch.Tensor, batch: Batch) -> Loss:
        return self.target.loss(logits_BC, batch["target"])

    def weights(self, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
        """(B,) what each row counts."""
        return self.target.weights_of(batch["target"], dtype)

    def predict(self, loaded: Loaded, batch: Batch) -> list[np.ndarray]:
        """Raw logits (C,) of each row, in double precision."""
        return list(self.logits(loaded, batch).cpu().double().numpy())

    def mean_loss(self, outputs: Sequence[np.ndarray], examples: Sequence[Example]) -> float | None:
        """The training loss of given outputs; None if no row has a target."""
        target = self.target.tensor([example["target"] for example in examples])
        loss = self.target.loss(torch.from_numpy(np.stack(outputs)), target)
        return float(loss.total) / loss.count if loss.count else None

    def gold(self, row: Row) -> Value | None:
        return self.target.gold(row)

    def decide(self, outputs: Sequence[np.ndarray], rows: Sequence[Row]) -> Decision:
        return self.target.decide(np.stack(outputs), [self.gold(row) for row in rows])

    def answers(self, outputs: Sequence[np.ndarray], rows: Sequence[Row], decision: Decision) -> list[Answer]:
        return self.target.answers(np.stack(outputs), decision) if len(outputs) else []

    def ranked(self, outputs: Sequence[np.ndarray], rows: Sequence[Row], decision: Decision) -> list[list[dict]] | None:
        """Every label with its probability; None for a number."""
        shares_RC = self.target.shares(np.stack(outputs), decision)
        if shares_RC is None:
            return None
        return [
            [{"label": self.labels[c], "score": float(shares_C[c])} for c in np.argsort(-shares_C, kind="stable")]
            for shares_C in shares_RC
        ]

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        return self.target.measures(predictions) if predictions else {}

    def primary(self, rows: Sequence[Row]) -> str:
        return self.target.primary(rows)

    def severity(self, prediction: Prediction) -> float:
        """How bad an answer is; 0 if it is right."""
        return self.target.severity(prediction)

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]:
        """An answer as JSON, in the shape that the field's pipelines give."""
        return self.target.shown(answer)

    def said(self, value: Value | None, row: Row) -> Any:
        """A gold or an answer for people."""
        return value

    def classes(self, value: Value | None) -> list[str]:
        """The classes that a gold or an answer names."""
        return [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
