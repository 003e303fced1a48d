"""Which words of a text are names of what. Letters: N words, W words of one row, C tags.

A word's tag is read at its first sub-word token. A text that is longer than the model takes is read in overlapping
windows; each word is read in that window where it stands furthest from the edges, and learned there alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data import tags as schemes
from tunesmith.data.rows import Row
from tunesmith.data.tags import OUTSIDE, Words, words_of
from tunesmith.errors import DataError, ModelError
from tunesmith.models.heads import TOKENS, load_classifier
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.tasks import TokenClassification as Settings
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
    precise,
)
from tunesmith.tasks.long_texts import MOST_WINDOWS, OVERLAP
from tunesmith.tasks.metrics import Measure
from tunesmith.tasks.targets.calibration import softmax

NO_TAG = -100
UNREAD = -1
SURELY_OUTSIDE = 20.0
"""The logit of O for a word that no token stands for."""

FOR_THE_MODEL = ("input_ids", "token_type_ids", "attention_mask")


class TokenClassification(UsualTask):
    """A head on every token. Answers are spans of characters."""

    problem_type = "single_label_classification"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.labels: tuple[str, ...] = ()
        self.scheme = "BIO"

    def learn(self, rows: Sequence[Row]) -> None:
        """Take tags and scheme from the training rows.

        Raises:
            DataError: nothing is tagged.
        """
        given = [self._tags(row, self.words(row)) for row in rows]
        self.scheme = schemes.scheme_of(tags for tags in given if tags is not None)
        found = {tag for tags in given for tag in tags or ()} - {OUTSIDE}
        if not found:
            where = rows[0].file if rows else ""
            raise DataError("no word of the training rows is tagged", where, "is the right column named?")
        self.labels = (OUTSIDE, *sorted(found))

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "scheme": self.scheme}

    def recall(self, learned: Mapping[str, Any]) -> None:
        self.labels, self.scheme = tuple(learned["labels"]), learned["scheme"]

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        loaded = load_classifier(base, self.labels, seed, dtype, TOKENS)
        if not getattr(loaded.processor, "is_fast", False):
            message = "this tokenizer does not say where its tokens stand in the text"
            raise ModelError(message, str(base.folder), "take a base with a tokenizer.json")
        return loaded

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """Tokens of each row, its windows end to end; for each word its token, its characters and its tag."""
        if not rows:
            return []
        every = [self.words(row) for row in rows]
        windowed = limit.policy == "windows"
        encoded = processor(
            [words.text for words in every],
            truncation=True,
            max_length=limit.tokens,
            stride=(limit.tokens - processor.num_special_tokens_to_add()) // OVERLAP if windowed else 0,
            return_overflowing_tokens=windowed,
            return_offsets_mapping=True,
        )
        owners = encoded.get("overflow_to_sample_mapping", range(len(rows)))
        windows_of: list[list[int]] = [[] for _ in rows]
        for window, row in enumerate(owners):
            if len(windows_of[row]) < MOST_WINDOWS:
                windows_of[row].append(window)
        index = {label: number for number, label in enumerate(self.labels)}
        examples = []
        for row, words, windows in zip(rows, every, windows_of, strict=True):
            tags = self._tags(row, words)
            target = [NO_TAG] * len(words.starts) if tags is None else [index.get(tag, NO_TAG) for tag in tags]
            examples.append(_example(encoded, windows, words, target))
        return examples

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        """How many rows have words at their end that no window holds."""
        return sum(_is_cut(example, limit) for example in examples)

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest. Shapes: `input_ids`, `attention_mask` (V, T), V windows; of all words of all rows, one
        after the other (N,): `window` and `position` of its token (UNREAD without one), `target`, `row`."""
        lengths = [length for example in examples for length in example["windows"]]  # type: ignore[union-attr]
        begins = np.cumsum([0, *lengths])
        batch: Batch = {}
        for name in ("input_ids", "token_type_ids"):
            if name in examples[0]:
                flat = np.concatenate([np.asarray(example[name]) for example in examples])
                padded = np.full((len(lengths), max(lengths)), processor.pad_token_id if name == "input_ids" else 0)
                for window, length in enumerate(lengths):
                    padded[window, :length] = flat[begins[window] : begins[window] + length]
                batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
        first_window, columns = 0, []
        for row, example in enumerate(examples):
            places = np.asarray(example["places"], dtype=np.int64)
            mine = np.cumsum([0, *example["windows"]])  # type: ignore[misc]
            window_W = np.where(places == UNREAD, 0, np.searchsorted(mine, places, side="right") - 1)
            position_W = np.where(places == UNREAD, UNREAD, places - mine[window_W])
            target_W = np.asarray(example["target"], dtype=np.int64)
            columns.append(np.stack([window_W + first_window, position_W, target_W, np.full(len(places), row)]))
            first_window += len(mine) - 1
        names = ("window", "position", "target", "row")
        batch |= dict(zip(names, torch.from_numpy(np.concatenate(columns, axis=1)), strict=True))
        batch["rows"] = torch.tensor(len(examples))
        return batch

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        """Cross-entropy, each word counting once."""
        return self.loss_of(precise(self.logits(loaded, batch)), batch)

    def loss_of(self, logits_NC: torch.Tensor, batch: Batch) -> Loss:
        known_N, target_N = self._known(batch), batch["target"].clamp_min(0)
        loss_N = functional.cross_entropy(logits_NC, target_N, reduction="none") * known_N
        right_N = (logits_NC.detach().argmax(dim=-1) == target_N) & known_N
        return Loss(loss_N.sum(), float(known_N.sum()), {"word_accuracy": float(right_N.sum())})

    def predict(self, loaded: Loaded, batch: Batch) -> list[np.ndarray]:
        """Of each row the logits of its words (W, C), in double precision."""
        logits_NC = self.logits(loaded, batch).cpu().double().numpy()
        position_N, row_N = batch["position"].cpu().numpy(), batch["row"].cpu().numpy()
        logits_NC[position_N == UNREAD] = SURELY_OUTSIDE * np.eye(len(self.labels))[0]
        ends = np.searchsorted(row_N, np.arange(int(batch["rows"])), side="right")
        return np.split(logits_NC, ends[:-1])

    @staticmethod
    def _known(batch: Batch) -> torch.Tensor:
        """(N,) whether a word has a tag that was learned, and a token that the model reads."""
        return (batch["target"] != NO_TAG) & (batch["position"] != UNREAD)

    def weights(self, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
        """(N,) each word counts once."""
        return self._known(batch).to(dtype)

    def token_weights(self, batch: Batch, states: torch.Tensor) -> torch.Tensor:
        """(V, T) 1 where a word is read."""
        places = (batch["window"], batch["position"].clamp_min(0))
        empty = torch.zeros(states.shape[:2], dtype=states.dtype, device=states.device)
        return empty.index_put(places, self.weights(batch, states.dtype), accumulate=True)

    def logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        """(N, C) outputs of the model for each word."""
        logits_VTC = loaded(**{name: batch[name] for name in FOR_THE_MODEL if name in batch}).logits
        return logits_VTC[batch["window"], batch["position"]]

    def mean_loss(self, outputs: Sequence[np.ndarray], examples: Sequence[Example]) -> float | None:
        """The training loss of given outputs; None if no word has a tag."""
        total, count = 0.0, 0
        for output, example in zip(outputs, examples, strict=True):
            target, places = np.asarray(example["target"]), np.asarray(example["places"])
            known = np.flatnonzero((target != NO_TAG) & (places != UNREAD))
            probabilities = softmax(output[known])
            total -= float(np.log(np.maximum(probabilities[np.arange(len(known)), target[known]], 1e-300)).sum())
            count += len(known)
        return total / count if count else None

    def gold(self, row: Row) -> Value | None:
        """The spans that a row says: [{"start", "end", "label"}] in characters of its text."""
        words = self.words(row)
        if self.settings.target == "spans":
            spans = row.get("spans")
            return None if spans is None else [dict(span) for span in spans]
        tags = self._tags(row, words)
        if tags is None:
            return None
        return [
            {"start": words.starts[span.first], "end": words.ends[span.last - 1], "label": span.kind}
            for span in schemes.spans_of(tags, self.scheme)
        ]

    def decide(self, outputs: Sequence[np.ndarray], rows: Sequence[Row]) -> Decision:
        return {}

    def answers(self, outputs: Sequence[np.ndarray], rows: Sequence[Row], decision: Decision) -> list[Answer]:
        return [self._answer(logits_WC, self.words(row)) for logits_WC, row in zip(outputs, rows, strict=True)]

    def _answer(self, logits_WC: np.ndarray, words: Words) -> Answer:
        """The spans of the likeliest tags, each with the mean probability of its tags; the row's own is that of its
        least sure word. A word of which the model has no token neither begins, ends nor parts a span."""
        unread_C = SURELY_OUTSIDE * np.eye(logits_WC.shape[1])[0]
        read_W = np.flatnonzero((logits_WC != unread_C).any(axis=1))
        if not len(read_W):
            return Answer([], 1.0)
        probabilities_WC = softmax(logits_WC[read_W])
        best_W, sure_W = probabilities_WC.argmax(axis=1), probabilities_WC.max(axis=1)
        spans = [
            {
                "start": words.starts[read_W[span.first]],
                "end": words.ends[read_W[span.last - 1]],
                "label": span.kind,
                "score": float(sure_W[span.first : span.last].mean()),
                **({"mended": True} if span.mended else {}),
            }
            for span in schemes.spans_of([self.labels[c] for c in best_W], self.scheme)
        ]
        return Answer(spans, float(sure_W.min()))

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """Strict scores of spans: right is what begins, ends and is called as the gold says (CoNLL's evaluation)."""
        if not predictions:
            return {}
        sums = np.array([_counts(p) for p in predictions], dtype=float)
        return {
            "entity_f1": metrics.of_sums(sums, lambda s: _share(2 * s[:, 0], s[:, 1] + s[:, 2])),
            "entity_precision": metrics.of_sums(sums, lambda s: _share(s[:, 0], s[:, 2])),
            "entity_recall": metrics.of_sums(sums, lambda s: _share(s[:, 0], s[:, 1])),
            "exact_match": metrics.mean([_keys(p.gold) == _keys(p.answer) for p in predictions]),
        }

    def primary(self, rows: Sequence[Row]) -> str:
        return "entity_f1"

    def severity(self, prediction: Prediction) -> float:
        """0 if all spans are right, else how sure the model was of the surest wrong one, or of the row."""
        gold, answer = _keys(prediction.gold), _keys(prediction.answer)
        if gold == answer:
            return 0.0
        wrong = [float(span["score"]) for span in prediction.answer if not _keys([span]) <= gold]
        return max([*wrong, prediction.score or 0.0, 1e-9])

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]:
        """Spans in the shape that the field's pipelines give for grouped entities."""
        text = self.words(row).text
        assert isinstance(answer.value, list)
        return {
            "entities": [
                {
                    "entity_group": span["label"],  # type: ignore[index]
                    "score": span["score"],  # type: ignore[index]
                    "word": text[span["start"] : span["end"]],  # type: ignore[index]
                    "start": span["start"],  # type: ignore[index]
                    "end": span["end"],  # type: ignore[index]
                }
                for span in answer.value
            ]
        }

    def said(self, value: Value | None, row: Row) -> list[str]:
        """Spans for people: `Paris (LOC)`."""
        text = self.words(row).text
        spans = value if isinstance(value, list) else []
        return [f"{text[span['start'] : span['end']]} ({span['label']})" for span in spans if isinstance(span, dict)]

    def classes(self, value: Value | None) -> list[str]:
        return [span["label"] for span in value or () if isinstance(span, dict)]  # type: ignore[union-attr]

    def words(self, row: Row) -> Words:
        """A row's text and where its words are."""
        return words_of(row["tokens"] if self.settings.target == "tags" else row["text"])

    def tagged_words(self, row: Row) -> list[tuple[str, str]]:
        """A row's words, each with its tag; none where the row has no answer."""
        words = self.words(row)
        tags = self._tags(row, words) or []
        return [(words.text[words.starts[i] : words.ends[i]], tag) for i, tag in enumerate(tags)]

    def _tags(self, row: Row, words: Words) -> list[str] | None:
        """One tag for each word; None where the row has no answer."""
        if self.settings.target == "tags":
            return row.get("tags")
        spans = row.get("spans")
        if spans is None:
            return None
        return schemes.tags_of([(span["start"], span["end"], span["label"]) for span in spans], words)


def _example(encoded: Any, windows: Sequence[int], words: Words, target: list[int]) -> Example:
    """A row's windows end to end, and the place of each word's first token where it stands furthest inside."""
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    flat: dict[str, list[int]] = {name: [] for name in names}
    lengths: list[int] = []
    places = np.full(len(words.starts), UNREAD, dtype=np.int64)
    depths = np.full(len(words.starts), -1, dtype=np.int64)
    starts_W, ends_W = np.asarray(words.starts), np.asarray(words.ends)
    for number, window in enumerate(windows):
        found, inside = _first_tokens(encoded, window, starts_W, ends_W, begins=number == 0)
        # the text's own beginning and end are no edges
        left = inside - inside.min(initial=0) if number else np.full(len(inside), 10**9)
        right = inside.max(initial=0) - inside if number < len(windows) - 1 else np.full(len(inside), 10**9)
        depth = np.minimum(left, right)
        deeper = depth > depths[found]
        places[found[deeper]] = sum(lengths) + inside[deeper]
        depths[found[deeper]] = depth[deeper]
        for name in names:
            flat[name] += encoded[name][window]
        lengths.append(len(encoded["input_ids"][window]))
    known: Example = {"windows": lengths, "places": places.tolist(), "target": target}
    return {**flat, **known}


def _first_tokens(
    encoded: Any, window: int, starts_W: np.ndarray, ends_W: np.ndarray, begins: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The words whose first token stands in a window, and its position there."""
    offsets = np.asarray(encoded["offset_mapping"][window], dtype=np.int64).reshape(-1, 2)
    belongs = np.array([owner == 0 for owner in encoded.sequence_ids(window)], dtype=bool)
    places = np.flatnonzero(belongs & (offsets[:, 1] > offsets[:, 0]))
    if not len(places) or not len(starts_W):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    token_starts, token_ends = offsets[places, 0], offsets[places, 1]
    first = np.searchsorted(token_ends, starts_W, side="right")  # the first token that reaches beyond the word's start
    inside = first < len(places)
    at = np.minimum(first, len(places) - 1)
    inside &= (token_starts[at] < ends_W) & (ends_W > starts_W)
    if not begins:  # a window may begin in the middle of a word: its first token stands in the window before
        inside &= (at > 0) | (token_starts[at] <= starts_W)
    words = np.flatnonzero(inside)
    return words, places[at[words]]


def _is_cut(example: Example, limit: Limit) -> bool:
    places, windows = example["places"], example["windows"]
    assert isinstance(places, list) and isinstance(windows, list)
    return bool(places) and places[-1] == UNREAD and windows[-1] >= limit.tokens


def _keys(spans: Any) -> set[tuple[int, int, str]]:
    return {(span["start"], span["end"], span["label"]) for span in spans or ()}


def _counts(prediction: Prediction) -> tuple[int, int, int]:
    """Right, gold and answered spans."""
    gold, answer = _keys(prediction.gold), _keys(prediction.answer)
    return len(gold & answer), len(gold), len(answer)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is nothing to find, or nothing was found."""
    return np.where(whole > 0, part / np.maximum(whole, 1e-12), 0.0)
