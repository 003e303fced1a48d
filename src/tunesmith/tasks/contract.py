"""What a task is: a few verbs and a few facts. No task knows which method trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tunesmith.data.rows import Row
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.tasks.metrics import Measure

Example = dict[str, list[int] | int | float]
"""A row as numbers: `input_ids` and what goes with them, and the target. Unpadded."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Limit:
    """The most tokens of an input, and what is done with more: truncate, head_tail, windows or chunks."""

    tokens: int
    policy: str = "truncate"


Value = str | list[str] | float | list[dict[str, Any]] | dict[str, Any]
"""What is answered for a row: a label (or a path), a list of labels, a number, a list of spans, a piece of a text."""

Decision = dict[str, Any]
"""What turns raw outputs into answers (temperature, thresholds): chosen on validation rows, kept beside the model."""


def length_of(example: Example) -> int:
    """How much work a row is: its real tokens, or the patches of 16 x 16 pixels of an image."""
    if "patches" in example:
        return int(example["patches"])  # type: ignore[arg-type]
    tokens = example["input_ids"]
    assert isinstance(tokens, list)
    return len(tokens)


def tokens_of(example: Example) -> int:
    """Real tokens of a row; none of an image."""
    return 0 if "patches" in example else length_of(example)


@dataclass(frozen=True)
class Loss:
    """A loss before any division: the step divides `total` and every metric by the sum of `count` over micro-batches
    and ranks. `count` is a number of rows, or their weight."""

    total: torch.Tensor
    count: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An answer for one row.

    Attributes:
        value: what is answered.
        score: the probability that it is right, as the model sees it; None for a number.
        probabilities: of the labels, likeliest first: all of them where several may be given, else the first few.
    """

    value: Value
    score: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """An answer beside the truth. `row` counts from 0 in the split; `gold` is None where the row has none."""

    row: int
    gold: Any
    answer: Any
    score: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, row: int, gold: Value | None, answer: Answer) -> Prediction:
        return cls(row, gold, answer.value, answer.score, answer.probabilities)


@dataclass(frozen=True)
class Draw:
    """Which look at a row this is. Masks and augmentation are a pure function of it, so that a resumed run, and any
    number of processes, sees the same ones."""

    seed: int
    epoch: int
    row: int


class Task(Protocol):
    """The contract.

    `labels` names the outputs; `learn` sets it from the training rows, before `load`. `others` are models besides that
    take part in the loss and do not move; `some_wait` says whether in some steps weights that move get no gradient.
    `units` numbers what a cut of a
    batch must not split (pairs, groups); None where each row stands alone. `apart` numbers kinds of rows that no piece
    may hold together; None where there is one kind. An output is whatever `predict` gives for a
    row, before any decision; for a classifier its raw logits. `ranked` are all that could be answered for a row,
    likeliest first, each with its "score"; None where there are no such. `drawn` makes the example that this look at a
    row trains on; examples that come to `collate` without it are answered or scored. `count_bare` says of how many rows
    the model sees nothing; `features` are what the frozen body makes of each row of a batch (rows, numbers).
    `mean_loss` is None where outputs do not tell the loss (or no row has a target). `watched` is which of so many
    validation rows are answered at each evaluation while training; `signatures` says how a metric was computed, where
    the field has a form for that. `seen` and `illustration` are for people: an example as the model sees it, and a row
    beside its text.
    """

    labels: tuple[str, ...]
    others: tuple[Loaded, ...]
    some_wait: bool

    def learn(self, rows: Sequence[Row]) -> None: ...

    def learned(self) -> dict[str, Any]: ...

    def recall(self, learned: Mapping[str, Any]) -> None: ...

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded: ...

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]: ...

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int: ...

    def count_bare(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any) -> int: ...

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch: ...

    def units(self, examples: Sequence[Example]) -> Sequence[int] | None: ...

    def apart(self, examples: Sequence[Example]) -> Sequence[int] | None: ...

    def drawn(self, example: Example, draw: Draw) -> Example: ...

    def prepare(self, loaded: Loaded, batch: Batch) -> Batch: ...

    def loss(self, loaded: Loaded, batch: Batch) -> Loss: ...

    def predict(self, loaded: Loaded, batch: Batch) -> list[Any]: ...

    def features(self, body: torch.nn.Module, batch: Batch) -> torch.Tensor: ...

    def mean_loss(self, outputs: Sequence[Any], examples: Sequence[Example]) -> float | None: ...

    def watched(self, number: int) -> Sequence[int]: ...

    def gold(self, row: Row) -> Value | None: ...

    def decide(self, outputs: Sequence[Any], rows: Sequence[Row]) -> Decision: ...

    def answers(self, outputs: Sequence[Any], rows: Sequence[Row], decision: Decision) -> list[Answer]: ...

    def ranked(self, outputs: Sequence[Any], rows: Sequence[Row], decision: Decision) -> list[list[dict]] | None: ...

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]: ...

    def signatures(self) -> dict[str, str]: ...

    def primary(self, rows: Sequence[Row]) -> str: ...

    def severity(self, prediction: Prediction) -> float: ...

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]: ...

    def said(self, value: Value | None, row: Row) -> Any: ...

    def seen(self, example: Example, processor: Any) -> dict[str, Any]: ...

    def illustration(self, row: Row) -> dict[str, str]: ...

    def classes(self, value: Value | None) -> list[str]: ...


BODY_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Taught(Task, Protocol):
    """What a task says besides if a teacher can be heard in it (`distillation`). Lines are what the loss is a sum of:
    rows, or words, or tokens asked for.

    `problem_type` is how the outputs of a line are meant, in transformers' words. `logits` are a model's outputs, one
    line for each; `loss_of` is the task's loss of such, and `weights` (N,) how much of its `count` is each line's.
    `token_weights` (V, T) shares the same out among the tokens that lead to it; `states` is of their shape.
    """

    problem_type: str

    def logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor: ...

    def loss_of(self, logits: torch.Tensor, batch: Batch) -> Loss: ...

    def weights(self, batch: Batch, dtype: torch.dtype) -> torch.Tensor: ...

    def token_weights(self, batch: Batch, states: torch.Tensor) -> torch.Tensor: ...


def precise(logits: torch.Tensor) -> torch.Tensor:
    """Logits in single precision at least: a loss loses digits in less."""
    return logits if logits.dtype == torch.float64 else logits.float()


class UsualTask:
    """What most tasks do alike: rows are texts, stand alone, are the same at every look, all watched, answered without
    labels. `needs_head_of_base` says whether the task only goes on with a head that the base has."""

    needs_head_of_base = False
    some_wait = False
    others: tuple[Loaded, ...] = ()

    def count_bare(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any) -> int:
        """How many rows are special tokens and nothing else; how many of those a tokenizer adds is its own affair."""
        special = {pair: processor.num_special_tokens_to_add(pair=pair) for pair in (False, True)}
        pairs = zip(rows, examples, strict=True)
        return sum(length_of(example) <= special[bool(row.get("text_pair"))] for row, example in pairs)

    def units(self, examples: Sequence[Example]) -> Sequence[int] | None:
        return None

    def apart(self, examples: Sequence[Example]) -> Sequence[int] | None:
        return None

    def drawn(self, example: Example, draw: Draw) -> Example:
        return example

    def prepare(self, loaded: Loaded, batch: Batch) -> Batch:
        return batch

    def watched(self, number: int) -> Sequence[int]:
        return range(number)

    def signatures(self) -> dict[str, str]:
        return {}

    def features(self, body: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """(B, D) the mean of the last hidden states over real tokens; of a row in windows, over those of all."""
        inputs = {name: batch[name] for name in BODY_INPUTS if name in batch}
        hidden_WTD = body(**inputs).last_hidden_state.float()
        mask_WT1 = inputs["attention_mask"][:, :, None].float()
        sums_BD, counts_B1 = (hidden_WTD * mask_WT1).sum(dim=1), mask_WT1.sum(dim=1)
        if "owner" in batch:
            owner, rows = batch["owner"], int(batch["owner"].max()) + 1
            sums_BD, counts_B1 = (x.new_zeros(rows, x.shape[1]).index_add(0, owner, x) for x in (sums_BD, counts_B1))
        return sums_BD / counts_B1

    def ranked(self, outputs: Sequence[Any], rows: Sequence[Row], decision: Decision) -> list[list[dict]] | None:
        return None

    def seen(self, example: Example, processor: Any) -> dict[str, Any]:
        """The tokens."""
        return {"tokens": processor.convert_ids_to_tokens(example["input_ids"])}

    def illustration(self, row: Row) -> dict[str, str]:
        return {}

    def classes(self, value: Any) -> list[str]:
        return []
