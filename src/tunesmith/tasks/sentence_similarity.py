"""How alike texts are, by the cosine of their vectors. Letters: B rows, V texts, T tokens, D numbers of a vector, Q
anchors, P texts to find.

A row is two sentences with a score, an anchor with its positive, or these with a negative. Sentence vectors: Reimers
and Gurevych 2019, arXiv:1908.10084; the other positives of a batch as negatives: Henderson et al. 2017,
arXiv:1705.00652.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tunesmith.data.batches import length_sorted
from tunesmith.data.rows import Row, normalised
from tunesmith.errors import DataError
from tunesmith.models.encoders import load_encoder
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.tasks import SentenceSimilarity as Settings
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import (
    Answer,
    Batch,
    Decision,
    Example,
    Limit,
    Loss,
    Prediction,
    UsualTask,
    Value,
)
from tunesmith.tasks.metrics import Measure

FOR_THE_MODEL = ("input_ids", "attention_mask", "token_type_ids")
SCORED_TOGETHER = 32
"""In-batch losses of rows that are scored, not trained on, are taken over so many rows at a time."""

RANKED_AT_ONCE = 256
SHOWN_AT = (1, 5, 10)


class SentenceSimilarity(UsualTask):
    """Vectors whose cosine says how alike their texts are."""

    labels = ("similarity",)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.target = "score" if settings.target == "auto" else settings.target
        self.texts = [column.name for column in settings.columns if column.is_input]
        self.low, self.high = 0.0, 1.0

    def learn(self, rows: Sequence[Row]) -> None:
        """The scale of the scores: the lowest is a cosine of 0, the highest one of 1."""
        if self.target != "score":
            return
        scores = [float(row["score"]) for row in rows]
        self.low, self.high = min(scores), max(scores)
        if self.low == self.high:
            raise DataError("all training rows have the same score", rows[0].file, "there is nothing to learn")

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "low": self.low, "high": self.high}

    def recall(self, learned: Mapping[str, Any]) -> None:
        self.low, self.high = learned["low"], learned["high"]

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        return load_encoder(base, None if self.settings.pooling == "auto" else self.settings.pooling, seed, dtype)

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """The tokens of a row's texts end to end, `texts` their lengths; the cosine to learn, nan if there is none."""
        names = self._texts_in(rows)
        parts = [self._tokens([row[name] for row in rows], processor, limit.tokens) for name in names]
        examples: list[Example] = []
        for index, row in enumerate(rows):
            mine = [part[index] for part in parts]
            flat = {name: [number for text in mine for number in text[name]] for name in mine[0]}
            score = row.get("score") if self.target == "score" else None
            cosine = float("nan") if score is None else (float(score) - self.low) / (self.high - self.low)
            examples.append({**flat, "texts": [len(text["input_ids"]) for text in mine], "target": cosine})
        return examples

    def _texts_in(self, rows: Sequence[Row]) -> list[str]:
        """The columns of texts that these rows have: to be answered they need no negative."""
        return [name for name in self.texts if all(row.get(name) is not None for row in rows)]

    def _tokens(self, texts: Sequence[str], processor: Any, most: int) -> list[dict[str, list[int]]]:
        if not texts:
            return []
        encoded = processor(list(texts), truncation=True, max_length=most)
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        return [{name: encoded[name][index] for name in names} for index in range(len(texts))]

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        """How many rows have a text that is longer than the model reads."""
        cut = 0
        for row, example in zip(rows, examples, strict=True):
            names = self._texts_in([row])
            full = [name for name, length in zip(names, _texts_of(example), strict=True) if length >= limit.tokens]
            whole = self._tokens([row[name] for name in full], processor, 10 * max(1, *(len(row[n]) for n in names)))
            cut += any(len(text["input_ids"]) > limit.tokens for text in whole)
        return cut

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest text. Shapes: `input_ids`, `attention_mask` (V, T), a row's texts side by side; `target`
        (B,)."""
        lengths = [length for example in examples for length in _texts_of(example)]
        batch: Batch = {}
        for name in ("input_ids", "token_type_ids"):
            if name not in examples[0]:
                continue
            flat = np.concatenate([np.asarray(example[name], dtype=np.int64) for example in examples])
            fill = processor.pad_token_id if name == "input_ids" else 0
            padded = np.full((len(lengths), max(lengths)), fill, dtype=np.int64)
            for text, (end, length) in enumerate(zip(np.cumsum(lengths), lengths, strict=True)):
                padded[text, :length] = flat[end - length : end]
            batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
        batch["target"] = torch.tensor([example["target"] for example in examples], dtype=torch.float64)
        return batch

    def units(self, examples: Sequence[Example]) -> Sequence[int] | None:
        """Rows that are each other's negatives stay together."""
        return [0] * len(examples) if self._is_in_batch else None

    @property
    def _is_in_batch(self) -> bool:
        return self.target == "positive" or (self.target == "triplet" and self.settings.loss == "contrastive")

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        vectors_BKD = self._vectors(loaded, batch)
        losses_B = self._losses(vectors_BKD, batch["target"], _texts_as_numbers(batch))
        known_B = losses_B.isfinite() if self.target == "score" else torch.ones_like(losses_B, dtype=torch.bool)
        return Loss(torch.where(known_B, losses_B, 0.0).sum(), float(known_B.sum()))

    def _losses(self, vectors_BKD: torch.Tensor, target_B: torch.Tensor, text_V: torch.Tensor) -> torch.Tensor:
        """(B,) of each row; of rows without a score nan.

        Args:
            text_V: equal numbers for equal texts, row by row.
        """
        if vectors_BKD.dtype != torch.float64:
            vectors_BKD = vectors_BKD.float()
        unit_BKD = functional.normalize(vectors_BKD, dim=-1)
        first_BD, second_BD = unit_BKD[:, 0], unit_BKD[:, 1]
        if self._is_in_batch:
            similar_BP = first_BD @ unit_BKD[:, 1:].transpose(0, 1).flatten(0, 1).T
            hidden_BP = _no_negatives(text_V.view(len(first_BD), -1)).to(similar_BP.device)
            logits_BP = (similar_BP / self.settings.temperature).masked_fill(hidden_BP, float("-inf"))
            return functional.cross_entropy(logits_BP, torch.arange(len(logits_BP)), reduction="none")
        near_B = (first_BD * second_BD).sum(dim=-1)
        if self.target == "triplet":
            far_B = (first_BD * unit_BKD[:, 2]).sum(dim=-1)
            return functional.relu(far_B - near_B + self.settings.margin)
        return (near_B - target_B.to(near_B.dtype)) ** 2

    def _vectors(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        """(B, K, D). A batch that is too large for one pass goes in pieces whose inner values are computed again on the
        way back (Gao et al. 2021, arXiv:2101.06983), so that memory holds those of one piece."""
        inputs = {name: batch[name] for name in FOR_THE_MODEL if name in batch}
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        many = len(lengths)
        if loaded.piece_tokens is None or many * max(lengths) <= loaded.piece_tokens or not self._is_in_batch:
            vectors_VD = loaded(**inputs)
        else:
            places, found = [], []
            for piece in length_sorted(lengths, loaded.piece_tokens):
                longest = max(lengths[i] for i in piece)
                part = {name: tensor[piece, :longest] for name, tensor in inputs.items()}
                found.append(_again(loaded, part) if torch.is_grad_enabled() else loaded(**part))
                places += piece
            order = torch.empty(many, dtype=torch.long)
            order[places] = torch.arange(many)
            vectors_VD = torch.cat(found)[order.to(found[0].device)]
        return vectors_VD.view(len(batch["target"]), many // len(batch["target"]), -1)

    def predict(self, loaded: Loaded, batch: Batch) -> list[np.ndarray]:
        """(K, D) unit vectors of each row's texts."""
        vectors_BKD = self._vectors(loaded, batch)
        unit_BKD = functional.normalize(
            vectors_BKD if vectors_BKD.dtype == torch.float64 else vectors_BKD.float(), dim=-1
        )
        return list(unit_BKD.cpu().numpy())

    def mean_loss(self, outputs: Sequence[np.ndarray], examples: Sequence[Example]) -> float | None:
        """The training loss; in-batch losses over SCORED_TOGETHER rows at a time."""
        total, count = 0.0, 0
        step = SCORED_TOGETHER if self._is_in_batch else max(1, len(outputs))
        for first in range(0, len(outputs), step):
            mine = examples[first : first + step]
            vectors_BKD = torch.from_numpy(np.stack(outputs[first : first + step])).double()
            target_B = torch.tensor([example["target"] for example in mine], dtype=torch.float64)
            losses_B = self._losses(vectors_BKD, target_B, _texts_of_rows_as_numbers(mine))
            known_B = losses_B.isfinite() if self.target == "score" else torch.ones_like(losses_B, dtype=torch.bool)
            total, count = total + float(losses_B[known_B].sum()), count + int(known_B.sum())
        return total / count if count else None

    def gold(self, row: Row) -> Value | None:
        """The score; where texts are to be found, that the row's own comes first."""
        return row.get("score") if self.target == "score" else {"rank": 1}

    def decide(self, outputs: Sequence[np.ndarray], rows: Sequence[Row]) -> Decision:
        return {}

    def answers(self, outputs: Sequence[np.ndarray], rows: Sequence[Row], decision: Decision) -> list[Answer]:
        """The cosine on the scale of the scores; or that with the positive, and its rank among all of these rows."""
        if not outputs:
            return []
        vectors_RKD = np.stack(outputs)
        similar_R = (vectors_RKD[:, 0] * vectors_RKD[:, 1]).sum(axis=-1, dtype=float)
        if self.target == "score":
            return [Answer(self.low + (self.high - self.low) * float(similar)) for similar in similar_R]
        ranks_R = _ranks(vectors_RKD, rows, self._texts_in(rows))
        return [
            Answer({"rank": float(rank), "similarity": float(similar)})
            for rank, similar in zip(ranks_R, similar_R, strict=True)
        ]

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        if not predictions:
            return {}
        if self.target == "score":
            gold_R, answer_R = np.array([(p.gold, p.answer) for p in predictions], dtype=float).T
            return {
                "spearman": metrics.spearman(gold_R, answer_R),
                "pearson": metrics.pearson(gold_R, answer_R),
                "rmse": metrics.root_mean_squared_error(gold_R, answer_R),
            }
        rank_R = np.array([p.answer["rank"] for p in predictions], dtype=float)
        found: dict[str, Measure] = {f"recall_at_{k}": metrics.mean((rank_R <= k).astype(float)) for k in SHOWN_AT}
        last = SHOWN_AT[-1]
        found[f"mrr_at_{last}"] = metrics.mean(np.where(rank_R <= last, 1 / rank_R, 0.0))
        found[f"ndcg_at_{last}"] = metrics.mean(np.where(rank_R <= last, 1 / np.log2(1 + rank_R), 0.0))
        return found

    def primary(self, rows: Sequence[Row]) -> str:
        return self.settings.primaries[0]

    def severity(self, prediction: Prediction) -> float:
        """How far off the score is; how far down the right text came."""
        if self.target == "score":
            return abs(float(prediction.answer) - float(prediction.gold))
        return float(prediction.answer["rank"]) - 1

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]:
        """The cosine; and the score that it stands for, where scores were learned. (A rank means something only among
        rows that are searched together.)"""
        if isinstance(answer.value, dict):
            return {"similarity": answer.value["similarity"]}
        score = float(answer.value)  # type: ignore[arg-type]
        return {"similarity": (score - self.low) / (self.high - self.low), "score": score}

    def said(self, value: Any, row: Row) -> Any:
        """A score, or the place at which the right text came."""
        return f"place {value['rank']:g}" if isinstance(value, dict) else value


def _texts_of(example: Example) -> list[int]:
    lengths = example["texts"]
    assert isinstance(lengths, list)
    return lengths


def _again(loaded: Loaded, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    vectors_VD: torch.Tensor = checkpoint(lambda: loaded(**inputs), use_reentrant=False)
    return vectors_VD


def _texts_as_numbers(batch: Batch) -> torch.Tensor:
    """(V,) equal numbers for equal texts of a batch."""
    _, number_V = torch.unique(batch["input_ids"], dim=0, return_inverse=True)
    return number_V


def _texts_of_rows_as_numbers(examples: Sequence[Example]) -> torch.Tensor:
    """(V,) the same, of rows that are not padded."""
    known: dict[tuple[int, ...], int] = {}
    numbers = []
    for example in examples:
        ids: Any = example["input_ids"]
        for end, length in zip(np.cumsum(_texts_of(example)), _texts_of(example), strict=True):
            numbers.append(known.setdefault(tuple(ids[end - length : end]), len(known)))
    return torch.tensor(numbers)


def _no_negatives(text_BK: torch.Tensor) -> torch.Tensor:
    """(B, B (K - 1)), all positives, then all negatives: true where a text is no wrong answer for a row, though it is
    not the row's own positive: it is the same text, or belongs to the same anchor.

    Args:
        text_BK: equal numbers for equal texts.
    """
    mine_B1, parts = text_BK[:, 1:2], [text_BK[None, :, k] for k in range(1, text_BK.shape[1])]
    hidden = [mine_B1 == theirs_1B for theirs_1B in parts]
    hidden[0] = (hidden[0] | (text_BK[:, :1] == text_BK[None, :, 0])).fill_diagonal_(False)
    return torch.cat(hidden, dim=1)


def _ranks(vectors_RKD: np.ndarray, rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """(R,) the place of each row's positive among all distinct positives and negatives of these rows, from 1.

    Positives that other rows give to the same anchor do not stand in the way; texts of equal cosine share their mean
    place, so that a model to which all texts are alike finds nothing.
    """
    anchors = [normalised(row[names[0]]) for row in rows]
    texts = [[normalised(row[name]) for name in names[1:]] for row in rows]
    place: dict[str, int] = {}
    for mine in texts:
        for text in mine:
            place.setdefault(text, len(place))
    vectors_PD = np.empty((len(place), vectors_RKD.shape[-1]))
    for row, mine in enumerate(texts):
        for slot, text in enumerate(mine):
            vectors_PD[place[text]] = vectors_RKD[row, slot + 1]
    right: dict[str, set[int]] = defaultdict(set)
    for anchor, mine in zip(anchors, texts, strict=True):
        right[anchor].add(place[mine[0]])
    ranks_R = np.empty(len(rows))
    for first in range(0, len(rows), RANKED_AT_ONCE):
        similar_QP = vectors_RKD[first : first + RANKED_AT_ONCE, 0].astype(float) @ vectors_PD.T
        for query, similar_P in enumerate(similar_QP):
            row = first + query
            mine_P = similar_P[place[texts[row][0]]]
            others_P = np.delete(similar_P, list(right[anchors[row]]))
            ranks_R[row] = 1 + (others_P > mine_P).sum() + (others_P == mine_P).sum() / 2
    return ranks_R
