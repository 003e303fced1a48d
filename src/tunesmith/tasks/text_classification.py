"""What a text, or a pair of texts, is: see `targets` for the kinds of answer, `long_texts` for what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tunesmith.data.rows import Row
from tunesmith.models.heads import SEQUENCES, load_classifier
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.tasks import long_texts
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.contract import BODY_INPUTS, Batch, Example, Limit


class TextClassification(Classification):
    """A head on the model's sentence vector. The answer for a row of several windows is the mean of their logits."""

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        kind = replace(SEQUENCES, problem_type=self.target.problem_type)
        return load_classifier(base, self.labels, seed, dtype, kind, self.target.head_bias)

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """Tokens and target of each row."""
        numbers = self.target.numbers(rows)
        texts = long_texts.encode_texts(rows, processor, limit)
        return [{**text, "target": number} for text, number in zip(texts, numbers, strict=True)]

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        return long_texts.count_cut(rows, examples, processor, limit)

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest. Shapes: `input_ids`, `attention_mask` (W, T), W windows; `owner` (W,), the row of each;
        `target` as the target has it, rows first."""
        windows = [window for row, example in enumerate(examples) for window in _windows_of(row, example)]
        lengths = [last - first for _, first, last in windows]
        shape = (len(windows), max(lengths))
        batch: Batch = {}
        for name in ("input_ids", "token_type_ids"):
            if name not in examples[0]:
                continue
            padded = np.full(shape, processor.pad_token_id if name == "input_ids" else 0, dtype=np.int64)
            for i, (row, first, last) in enumerate(windows):
                padded[i, : last - first] = examples[row][name][first:last]  # type: ignore[index]
            batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = (torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]).long()
        batch["target"] = self.target.tensor([example["target"] for example in examples])
        if len(windows) > len(examples):
            batch["owner"] = torch.tensor([row for row, _, _ in windows])
        return batch

    def logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        logits_WC = loaded(**{name: batch[name] for name in BODY_INPUTS if name in batch}).logits
        if "owner" not in batch:
            return logits_WC
        sums_BC = logits_WC.new_zeros(len(batch["target"]), logits_WC.shape[1]).index_add(0, batch["owner"], logits_WC)
        return sums_BC / torch.bincount(batch["owner"])[:, None].to(sums_BC.dtype)

    def token_weights(self, batch: Batch, states: torch.Tensor) -> torch.Tensor:
        """(W, T) all real tokens of a row share what it counts."""
        mask_WT, weight_B = batch["attention_mask"].to(states.dtype), self.weights(batch, states.dtype)
        owner = batch.get("owner", torch.arange(len(weight_B), device=mask_WT.device))
        tokens_B = torch.zeros_like(weight_B).index_add(0, owner, mask_WT.sum(dim=1))
        return mask_WT * (weight_B / tokens_B)[owner][:, None]


def _windows_of(row: int, example: Example) -> list[tuple[int, int, int]]:
    """(row, first, last) of each window in the row's tokens."""
    ids = example["input_ids"]
    assert isinstance(ids, list)
    lengths = example.get("windows", [len(ids)])
    ends = np.cumsum(lengths).tolist()
    return [(row, end - length, end) for end, length in zip(ends, lengths, strict=True)]  # type: ignore[arg-type]
