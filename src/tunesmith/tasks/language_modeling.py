"""Texts themselves: gaps to fill, or each next token. Letters: V windows, T tokens, N tokens that are asked for.

A text longer than the model takes is read in windows side by side; each is a row of the batch, so that no text sees
another and none is packed with another. Masks are a pure function of seed, epoch and row; a text that is scored, not
trained on, always has the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data.documents import DOCUMENT
from tunesmith.data.rows import Row
from tunesmith.models.language_models import load_language_model
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.tasks import LanguageModeling as Settings
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import (
    Answer,
    Batch,
    Decision,
    Draw,
    Example,
    Limit,
    Loss,
    Prediction,
    UsualTask,
    Value,
    length_of,
    precise,
)
from tunesmith.tasks.metrics import Measure

DOCUMENT_FIELD = "document"
"""Which text an answer is about a piece of, by its hash."""

NOT_ASKED = -100
NO_WORD = -1
HIDDEN, REPLACED = 0.8, 0.1
"""Of the tokens asked for, so many are hidden and so many replaced at random; the rest stays (Devlin et al. 2019)."""

FOR_THE_MODEL = ("input_ids", "attention_mask", "token_type_ids")


class LanguageModeling(UsualTask):
    """How well a model knows the language of some texts."""

    labels = ("token",)
    problem_type = "single_label_classification"
    needs_head_of_base = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def learn(self, rows: Sequence[Row]) -> None:
        """Nothing: what is asked for is the texts themselves."""

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels)}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Nothing was learned."""

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        return load_language_model(base, self.settings.objective, self.settings.add_tokens, seed, dtype)

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """A text's windows end to end, their lengths, and for each token the word of its window that it belongs to."""
        if not rows:
            return []
        windowed = limit.policy == "windows"
        encoded = processor(
            [row["text"] for row in rows],
            truncation=True,
            max_length=limit.tokens,
            return_overflowing_tokens=windowed,
        )
        windows_of: list[list[int]] = [[] for _ in rows]
        for window, row in enumerate(encoded.get("overflow_to_sample_mapping", range(len(rows)))):
            windows_of[row].append(window)
        return [self._example(encoded, windows) for windows in windows_of]

    def _example(self, encoded: Any, windows: Sequence[int]) -> Example:
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        example: Example = {name: [n for window in windows for n in encoded[name][window]] for name in names}
        example["windows"] = [len(encoded["input_ids"][window]) for window in windows]
        if self.settings.objective == "masked" and self.settings.mask_words:
            words = (word for window in windows for word in encoded.word_ids(window))
            example["words"] = [NO_WORD if word is None else word for word in words]
        return example

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        """How many texts have an end that is not read; of windows none."""
        if limit.policy == "windows":
            return 0
        full = [row["text"] for row, example in zip(rows, examples, strict=True) if length_of(example) >= limit.tokens]
        return sum(len(ids) > limit.tokens for ids in processor(full)["input_ids"]) if full else 0

    def drawn(self, example: Example, draw: Draw) -> Example:
        return (
            {**example, "draw": [draw.seed, draw.epoch, draw.row]} if self.settings.objective == "masked" else example
        )

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest window. Shapes: `input_ids` (what the model sees), `attention_mask`, `asked` (the tokens
        asked for, elsewhere NOT_ASKED) (V, T); `owner` (V,), the row of each window."""
        lengths = [length for example in examples for length in _windows_of(example)]
        shape = (len(lengths), max(lengths))
        parts: dict[str, list[np.ndarray]] = {"input_ids": [], "asked": [], "token_type_ids": []}
        for example in examples:
            seen, asked = self._question(example, processor)
            parts["input_ids"].append(seen)
            parts["asked"].append(asked)
            if "token_type_ids" in example:
                parts["token_type_ids"].append(np.asarray(example["token_type_ids"], dtype=np.int64))
        fills = {"input_ids": processor.pad_token_id, "asked": NOT_ASKED, "token_type_ids": 0}
        batch: Batch = {}
        for name, flat in parts.items():
            if flat:
                padded = np.full(shape, fills[name], dtype=np.int64)
                for window, piece in enumerate(np.split(np.concatenate(flat), np.cumsum(lengths)[:-1])):
                    padded[window, : len(piece)] = piece
                batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = (torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]).long()
        many = [len(_windows_of(example)) for example in examples]
        batch["owner"] = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(many))
        return batch

    def askable(self, example: Example, processor: Any) -> np.ndarray:
        """(T,) which tokens of a text may be asked for: each that something stands before; of gaps each that is no mark
        of the tokenizer's own (an unknown word is a word)."""
        ids = np.asarray(example["input_ids"], dtype=np.int64)
        if self.settings.objective == "causal":
            found = np.ones(len(ids), dtype=bool)
            found[[0, *np.cumsum(_windows_of(example))[:-1]]] = False
            return found
        marks = [number for number in processor.all_special_ids if number != processor.unk_token_id]
        return ~np.isin(ids, marks)

    def _question(self, example: Example, processor: Any) -> tuple[np.ndarray, np.ndarray]:
        """What the model sees of a text, and what it is asked for, window behind window."""
        ids = np.asarray(example["input_ids"], dtype=np.int64)
        asked = np.full_like(ids, NOT_ASKED)
        ends = np.cumsum(_windows_of(example))
        may_be_asked = self.askable(example, processor)
        if self.settings.objective == "causal":
            asked[may_be_asked] = ids[may_be_asked]
            return ids, asked
        draw: Any = example.get("draw", [zlib.crc32(ids.tobytes())])
        source = np.random.default_rng(draw)
        seen = ids.copy()
        words = np.asarray(example["words"]) if "words" in example else np.arange(len(ids))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            places = begin + np.flatnonzero(may_be_asked[begin:end])
            units = np.unique(words[places])
            if not len(units):
                continue
            many = max(1, round(self.settings.mask_share * len(units)))
            chosen = places[np.isin(words[places], source.permutation(units)[:many])]
            fate = source.random(len(chosen))
            asked[chosen] = ids[chosen]
            seen[chosen[fate < HIDDEN]] = processor.mask_token_id
            replaced = chosen[(fate >= HIDDEN) & (fate < HIDDEN + REPLACED)]
            seen[replaced] = source.integers(0, len(processor), len(replaced))
        return seen, asked

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        """The summed cross-entropy (nats) of the tokens asked for."""
        total, count, right = torch.zeros((), device=loaded.device, dtype=loaded.dtype), 0.0, 0.0
        for logits_NC, asked_N, _ in self._asked(loaded, batch):
            losses_N, right_N = _judged(precise(logits_NC), asked_N)
            total = total + losses_N.sum()
            count, right = count + len(losses_N), right + float(right_N.sum())
        return Loss(total, count, {"token_accuracy": right})

    def logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        """(N, C) outputs of the model for each token asked for."""
        return torch.cat([logits_NC for logits_NC, _, _ in self._asked(loaded, batch)])

    def loss_of(self, logits_NC: torch.Tensor, batch: Batch) -> Loss:
        asked_VT = self._asked_of(batch)
        losses_N, right_N = _judged(logits_NC, asked_VT[asked_VT != NOT_ASKED])
        return Loss(losses_N.sum(), float(len(losses_N)), {"token_accuracy": float(right_N.sum())})

    def weights(self, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
        """(N,) each token asked for counts once."""
        asked_VT = self._asked_of(batch)
        return torch.ones_like(asked_VT, dtype=dtype)[asked_VT != NOT_ASKED]

    def token_weights(self, batch: Batch, states: torch.Tensor) -> torch.Tensor:
        """(V, T) 1 where a token is asked for: in the gap, or one place before the token itself."""
        is_asked_VT = (self._asked_of(batch) != NOT_ASKED).to(states.dtype)
        return functional.pad(is_asked_VT, (0, states.shape[1] - is_asked_VT.shape[1]))

    def predict(self, loaded: Loaded, batch: Batch) -> list[np.ndarray]:
        """(3,) of each row: summed loss (nats), tokens asked for, and how many of them were likeliest."""
        found_B3 = np.zeros((int(batch["owner"][-1]) + 1, 3))
        for logits_NC, asked_N, owner_N in self._asked(loaded, batch):
            losses_N, right_N = _judged(precise(logits_NC), asked_N)
            numbers_N3 = torch.stack([losses_N.double(), torch.ones_like(losses_N).double(), right_N.double()], dim=1)
            np.add.at(found_B3, owner_N.cpu().numpy(), numbers_N3.cpu().numpy())
        return list(found_B3)

    def _asked(self, loaded: Loaded, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Logits (N, C), number and row (N,) of each token asked for; so many windows at a time that the logits of a
        long text do not fill the memory."""
        many, longest = batch["input_ids"].shape
        step = max(1, (loaded.piece_tokens or many * longest) // longest)
        for first in range(0, many, step):
            part = {name: tensor[first : first + step] for name, tensor in batch.items()}
            logits_VTC = loaded(**{name: part[name] for name in FOR_THE_MODEL if name in part}).logits
            asked_VT = self._asked_of(part)
            is_asked_VT = asked_VT != NOT_ASKED
            logits_NC = logits_VTC[:, : asked_VT.shape[1]][is_asked_VT]
            yield logits_NC, asked_VT[is_asked_VT], part["owner"][is_asked_VT.nonzero()[:, 0]]

    def _asked_of(self, batch: Batch) -> torch.Tensor:
        """(V, T) what is asked for at each place, elsewhere NOT_ASKED: the token there, or (V, T - 1) the next one."""
        return batch["asked"][:, 1:] if self.settings.objective == "causal" else batch["asked"]

    def mean_loss(self, outputs: Sequence[np.ndarray], examples: Sequence[Example]) -> float | None:
        loss, tokens, _ = np.sum(outputs, axis=0) if len(outputs) else (0.0, 0.0, 0.0)
        return float(loss / tokens) if tokens else None

    def gold(self, row: Row) -> Value | None:
        """A model that knows each token."""
        return {"loss": 0.0, "tokens": 1.0, "right": 1.0}

    def decide(self, outputs: Sequence[np.ndarray], rows: Sequence[Row]) -> Decision:
        return {}

    def answers(self, outputs: Sequence[np.ndarray], rows: Sequence[Row], decision: Decision) -> list[Answer]:
        """The sums of each row; and the text that it is a piece of, if it is one."""
        names = ("loss", "tokens", "right")
        sums = [dict(zip(names, output.tolist(), strict=True)) for output in outputs]
        wholes = [{DOCUMENT_FIELD: row[DOCUMENT]} if row.get(DOCUMENT) else {} for row in rows]
        return [Answer({**sum_, **whole}) for sum_, whole in zip(sums, wholes, strict=True)]

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """Of all tokens asked for: their mean log-probability (nats; its negative is the loss), perplexity, and the
        share that was likeliest. Intervals are over whole texts: pieces of one are alike."""
        if not predictions:
            return {}
        rows_R3 = np.array([[p.answer[name] for name in ("loss", "tokens", "right")] for p in predictions])
        wholes = [p.answer.get(DOCUMENT_FIELD, p.row) for p in predictions]
        place = {whole: index for index, whole in enumerate(dict.fromkeys(wholes))}
        sums_R3 = np.zeros((len(place), 3))
        np.add.at(sums_R3, [place[whole] for whole in wholes], rows_R3)
        return {
            "log_likelihood": metrics.of_sums(sums_R3, lambda sums: -sums[:, 0] / np.maximum(sums[:, 1], 1e-12)),
            "perplexity": metrics.of_sums(sums_R3, lambda sums: np.exp(sums[:, 0] / np.maximum(sums[:, 1], 1e-12))),
            "token_accuracy": metrics.of_sums(sums_R3, lambda sums: sums[:, 2] / np.maximum(sums[:, 1], 1e-12)),
        }

    def primary(self, rows: Sequence[Row]) -> str:
        return "log_likelihood"

    def severity(self, prediction: Prediction) -> float:
        """No text is wrong."""
        return 0.0

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]:
        """How expected a text is; nothing is known of one of which nothing could be asked."""
        value: Any = answer.value
        if not value["tokens"]:
            return {"log_likelihood": None, "perplexity": None, "tokens": 0}
        mean = value["loss"] / value["tokens"]
        return {"log_likelihood": -mean, "perplexity": float(np.exp(mean)), "tokens": int(value["tokens"])}

    def said(self, value: Any, row: Row) -> Any:
        return ""


def _judged(logits_NC: torch.Tensor, asked_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) loss (nats) of each token asked for, and whether it was the likeliest."""
    losses_N = functional.cross_entropy(logits_NC, asked_N, reduction="none")
    return losses_N, logits_NC.detach().argmax(dim=-1) == asked_N


def _windows_of(example: Example) -> list[int]:
    lengths = example["windows"]
    assert isinstance(lengths, list)
    return lengths
