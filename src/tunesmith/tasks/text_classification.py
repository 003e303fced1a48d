"""One label for each text, or pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.models.heads import load_sequence_classifier
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.tasks import TextClassification as Settings
from tunesmith.tasks.contract import Batch, Example, Loss, Measure, Prediction

NO_LABEL = -1
UNBALANCED = 5
"""Above this ratio of the largest to the smallest class, macro-F1 decides instead of accuracy."""


@dataclass
class TextClassification:
    """Cross-entropy over a linear head on the model's sentence vector."""

    settings: Settings
    labels: tuple[str, ...] = ()

    def learn_labels(self, rows: Sequence[Row]) -> None:
        """Take the classes from the training rows, in the order of their names.

        Raises:
            DataError: fewer than two classes.
        """
        self.labels = tuple(sorted({row["label"] for row in rows}))
        if len(self.labels) < 2:
            raise DataError(
                f"only one class ({', '.join(self.labels)}) in the training rows",
                rows[0].file if rows else "",
                "classification needs at least two; is the right column named for `label`?",
            )

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        return load_sequence_classifier(base, self.labels, seed, dtype)

    def encode(self, rows: Sequence[Row], processor: Any, max_length: int) -> list[Example]:
        """Token ids, cut at `max_length` with special tokens kept, and the label's index (or NO_LABEL)."""
        if not rows:
            return []
        pairs = [row.get("text_pair") or "" for row in rows] if any(row.get("text_pair") for row in rows) else None
        encoded = processor([row["text"] for row in rows], pairs, truncation=True, max_length=max_length)
        index = {label: number for number, label in enumerate(self.labels)}
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        return [
            {**{name: encoded[name][i] for name in names}, "label": index.get(row.get("label"), NO_LABEL)}
            for i, row in enumerate(rows)
        ]

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest. Shapes: `input_ids`, `attention_mask` (B, T); `label` (B,)."""
        lengths = [len(example["input_ids"]) for example in examples]  # type: ignore[arg-type]
        shape = (len(examples), max(lengths))
        batch: Batch = {}
        for name in examples[0]:
            if name == "label":
                batch[name] = torch.tensor([example[name] for example in examples])
                continue
            filler = processor.pad_token_id if name == "input_ids" else 0
            padded = np.full(shape, filler, dtype=np.int64)
            for i, example in enumerate(examples):
                padded[i, : lengths[i]] = example[name]
            batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = (torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]).long()
        return batch

    def units(self, examples: Sequence[Example]) -> None:
        return None

    def prepare(self, loaded: Loaded, batch: Batch) -> Batch:
        return batch

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        logits_BC = self._logits(loaded, batch)
        statistics = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
        total = functional.cross_entropy(statistics, batch["label"], reduction="sum", ignore_index=NO_LABEL)
        right = int((statistics.detach().argmax(dim=-1) == batch["label"]).sum())
        return Loss(total, int((batch["label"] != NO_LABEL).sum()), {"accuracy": right})

    def predict(self, loaded: Loaded, batch: Batch) -> list[tuple[str, float]]:
        probabilities_BC = self._logits(loaded, batch).double().softmax(dim=-1)
        scores, answers = probabilities_BC.max(dim=-1)
        return [(self.labels[answer], score) for answer, score in zip(answers.tolist(), scores.tolist(), strict=True)]

    def _logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        return loaded(**{name: tensor for name, tensor in batch.items() if name != "label"}).logits

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """Accuracy, and F1 averaged over the classes that occur in gold or answers (as scikit-learn averages)."""
        golds, answers = [p.gold for p in predictions], [p.answer for p in predictions]
        classes = sorted({str(name) for name in (*golds, *answers)})
        index = {label: number for number, label in enumerate(classes)}
        gold_RC = np.eye(len(classes))[[index[str(gold)] for gold in golds]]
        answer_RC = np.eye(len(classes))[[index[answer] for answer in answers]]
        right_RC = gold_RC * answer_RC
        counts = np.concatenate([right_RC, gold_RC, answer_RC], axis=1)
        correct = np.stack([right_RC.sum(axis=1), np.ones(len(golds))], axis=1)
        return {
            "accuracy": Measure(correct, lambda sums: sums[..., 0] / sums[..., 1]),
            "macro_f1": Measure(counts, _macro_f1),
        }

    def primary(self, rows: Sequence[Row]) -> str:
        """Accuracy; macro-F1 where the largest class is over five times the smallest."""
        sizes = Counter(row["label"] for row in rows).values()
        return "macro_f1" if max(sizes) > UNBALANCED * min(sizes) else "accuracy"


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """Mean F1 over classes from (..., 3C) sums of right, gold and answered; classes in neither do not count."""
    right, gold, answered = np.split(sums, 3, axis=-1)
    occurs = (gold + answered) > 0
    f1 = np.where(occurs, 2 * right / np.maximum(gold + answered, 1e-12), 0.0)
    return f1.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
