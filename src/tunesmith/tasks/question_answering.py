"""Where in a text the answer to a question stands. Letters: V windows, T tokens, K candidates.

The model says for each token how likely an answer begins or ends there. A text that is longer than the model takes is
read in overlapping windows, each with the question; where one does not hold the answer it learns to point at its first
token, which is also how "no answer" is said (Devlin et al. 2019, arXiv:1810.04805; Rajpurkar et al. 2018,
arXiv:1806.03822).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data.rows import Row
from tunesmith.errors import DataError, ModelError
from tunesmith.models.heads import QUESTIONS, load_classifier
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.tasks import QuestionAnswering as Settings
from tunesmith.tasks import metrics, no_answer
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
from tunesmith.tasks.long_texts import MOST_WINDOWS, OVERLAP
from tunesmith.tasks.metrics import Measure
from tunesmith.tasks.targets.calibration import softmax

NOT_TEXT = -1
UNKNOWN = -100
QUESTION_SHARE = 2
"""A question may take one part in so many of the limit; what is longer is cut, so that the text keeps its room."""

LIKELIEST = 20
"""So many beginnings and ends of each window are paired, and so many answers of each row are kept."""

SHOWN_ANSWERS = 5
FOR_THE_MODEL = ("input_ids", "token_type_ids", "attention_mask")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Found:
    """What the model says of a row: candidates (K, 3) of first character, end and score (the sum of both logits), the
    best first; the score of no answer (the least of its windows); the loss of its windows and their number."""

    candidates: np.ndarray
    no_answer: float
    loss: float = 0.0
    windows: int = 0


class QuestionAnswering(UsualTask):
    """A beginning and an end for each question."""

    labels = ("start", "end")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def learn(self, rows: Sequence[Row]) -> None:
        """Nothing: the head has the same two outputs for all rows. Raises DataError where there is nothing to learn."""
        if rows and not any((row.get("answers") or {}).get("texts") for row in rows):
            message = "no training row has an answer"
            raise DataError(message, rows[0].file, "name the column of answers under data.columns as `answers: THEIRS`")

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels)}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Nothing was learned."""

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        loaded = load_classifier(base, self.labels, seed, dtype, QUESTIONS)
        if not getattr(loaded.processor, "is_fast", False):
            message = "this tokenizer does not say where its tokens stand in the text"
            raise ModelError(message, str(base.folder), "take a base with a tokenizer.json")
        return loaded

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """Windows of question and text end to end; for each token its characters in the text (NOT_TEXT outside of it);
        for each window the tokens at which the answer begins and ends, its first token where it is not in it."""
        if not rows:
            return []
        windowed = limit.policy == "windows"
        encoded = processor(
            _short_questions(rows, processor, limit),
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=limit.tokens,
            stride=limit.tokens // QUESTION_SHARE // OVERLAP if windowed else 0,
            return_overflowing_tokens=windowed,
            return_offsets_mapping=True,
        )
        windows_of: list[list[int]] = [[] for _ in rows]
        for window, row in enumerate(encoded.get("overflow_to_sample_mapping", range(len(rows)))):
            if len(windows_of[row]) < MOST_WINDOWS:
                windows_of[row].append(window)
        return [_example(encoded, windows, row) for row, windows in zip(rows, windows_of, strict=True)]

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        """How many texts (or questions) have an end that no window holds."""
        cut = 0
        questions = _short_questions(rows, processor, limit)
        for row, example, question in zip(rows, examples, questions, strict=True):
            ends = np.asarray(example["ends"])
            rest = row["context"][max(0, int(ends.max(initial=0))) :]
            full = int(example["windows"][-1]) >= limit.tokens  # type: ignore[index]
            cut += question != row["question"] or (full and bool(rest.strip()))
        return cut

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest. Shapes: `input_ids`, `attention_mask`, `starts`, `ends` (V, T); `target` (V, 2); `owner`
        (V,), the row of each window."""
        lengths = [length for example in examples for length in example["windows"]]  # type: ignore[union-attr]
        fills = {"input_ids": processor.pad_token_id, "token_type_ids": 0, "starts": NOT_TEXT, "ends": NOT_TEXT}
        batch: Batch = {}
        for name in (name for name in fills if name in examples[0]):
            flat = np.concatenate([np.asarray(example[name]) for example in examples])
            padded = np.full((len(lengths), max(lengths)), fills[name], dtype=np.int64)
            begin = 0
            for window, length in enumerate(lengths):
                padded[window, :length] = flat[begin : begin + length]
                begin += length
            batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
        target = np.concatenate([np.asarray(example["target"], dtype=np.int64) for example in examples])
        batch["target"] = torch.from_numpy(target).view(-1, 2)
        many = [len(example["windows"]) for example in examples]  # type: ignore[arg-type]
        batch["owner"] = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(many))
        return batch

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        """The mean of both cross-entropies, each window counting once."""
        losses_V, known_V = self._losses(*self._logits(loaded, batch), batch)
        return Loss(losses_V.sum(), float(known_V.sum()))

    def predict(self, loaded: Loaded, batch: Batch) -> list[Found]:
        start_VT, end_VT = self._logits(loaded, batch)
        losses_V, known_V = self._losses(start_VT, end_VT, batch)
        told = [tensor.cpu().double().numpy() for tensor in (start_VT, end_VT, losses_V, known_V)]
        starts_VT, ends_VT, owner_V = (batch[name].cpu().numpy() for name in ("starts", "ends", "owner"))
        found = []
        for row in range(int(owner_V[-1]) + 1):
            mine = owner_V == row
            start, end, losses, known = (values[mine] for values in told)
            candidates = _candidates(start, end, starts_VT[mine], ends_VT[mine], self.settings.longest_answer)
            no_answer = float((start[:, 0] + end[:, 0]).min())
            found.append(Found(candidates, no_answer, float(losses.sum()), int(known.sum())))
        return found

    def _logits(self, loaded: Loaded, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(V, T) of beginning and end; padding has none of the probability."""
        output = loaded(**{name: batch[name] for name in FOR_THE_MODEL if name in batch})
        padding_VT = ~batch["attention_mask"].bool()
        lowest = torch.finfo(output.start_logits.dtype).min
        return (
            output.start_logits.masked_fill(padding_VT, lowest),
            output.end_logits.masked_fill(padding_VT, lowest),
        )

    def _losses(self, start_VT: torch.Tensor, end_VT: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        known_V = batch["target"][:, 0] != UNKNOWN
        target_V2 = batch["target"].clamp_min(0)
        both = [
            functional.cross_entropy(
                logits_VT if logits_VT.dtype == torch.float64 else logits_VT.float(),
                target_V2[:, side],
                reduction="none",
            )
            for side, logits_VT in enumerate((start_VT, end_VT))
        ]
        return (both[0] + both[1]) / 2 * known_V, known_V

    def mean_loss(self, outputs: Sequence[Found], examples: Sequence[Example]) -> float | None:
        """The training loss; None if no row has answers. (Computed with the outputs, which keep only the best.)"""
        windows = sum(output.windows for output in outputs)
        return sum(output.loss for output in outputs) / windows if windows else None

    def gold(self, row: Row) -> Value | None:
        """The texts that count as right; none where the row says that there is no answer."""
        answers = row.get("answers")
        return None if answers is None else list(answers["texts"])

    def decide(self, outputs: Sequence[Found], rows: Sequence[Row]) -> Decision:
        """How much likelier than its best answer "no answer" must be to be given, by what it would do to the mean F1 of
        these rows (see `no_answer`); null, never, where every row has an answer."""
        golds = [self.gold(row) for row in rows]
        known = [index for index, gold in enumerate(golds) if gold is not None]
        if all(golds[index] for index in known):
            return {"no_answer": None}
        leads, gains = [], []
        for index in known:
            best = outputs[index].candidates
            leads.append(outputs[index].no_answer - (best[0, 2] if len(best) else -np.inf))
            text = _text(best[0], rows[index]) if len(best) else ""
            gains.append(f1_of(text, golds[index]) - f1_of("", golds[index]))  # type: ignore[arg-type]
        return {"no_answer": no_answer.least_lead(np.asarray(leads), np.asarray(gains))}

    def answers(self, outputs: Sequence[Found], rows: Sequence[Row], decision: Decision) -> list[Answer]:
        return [self._answer(output, row, decision["no_answer"]) for output, row in zip(outputs, rows, strict=True)]

    def ranked(self, outputs: Sequence[Found], rows: Sequence[Row], decision: Decision) -> list[list[dict]] | None:
        """The candidates of each row, and no answer, which is called ""."""
        return [_likely(output, row, decision["no_answer"]) for output, row in zip(outputs, rows, strict=True)]

    def _answer(self, found: Found, row: Row, least_lead: float | None) -> Answer:
        """The best candidate, or none."""
        likely = _likely(found, row, least_lead)
        shares = {one["answer"]: one["score"] for one in likely}
        first = dict(list(shares.items())[:SHOWN_ANSWERS])
        best = found.candidates[0, 2] if len(found.candidates) else -np.inf
        if not len(found.candidates) or (least_lead is not None and found.no_answer - best > least_lead):
            return Answer({"text": "", "start": 0, "end": 0}, shares.get("", 0.0), first)
        text, (start, end) = _text(found.candidates[0], row), found.candidates[0, :2]
        return Answer({"text": text, "start": int(start), "end": int(end)}, shares[text], first)

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """Exact match and F1 by SQuAD's own normalisation, of all rows and of those with and without an answer."""
        if not predictions:
            return {}
        exact = np.array([exact_of(p.answer["text"], p.gold) for p in predictions])
        f1 = np.array([f1_of(p.answer["text"], p.gold) for p in predictions])
        found = {"answer_f1": metrics.mean(f1), "exact_match": metrics.mean(exact)}
        answered = np.array([bool(p.gold) for p in predictions], dtype=float)
        if 0 < answered.sum() < len(answered):
            found |= {
                "has_answer_f1": _mean_of(f1, answered),
                "has_answer_exact": _mean_of(exact, answered),
                "no_answer_accuracy": _mean_of(exact, 1 - answered),
            }
        return found

    def primary(self, rows: Sequence[Row]) -> str:
        return "answer_f1"

    def severity(self, prediction: Prediction) -> float:
        """How much of the answer is wrong, and how sure the model was of it."""
        return (1 - f1_of(prediction.answer["text"], prediction.gold)) * max(prediction.score or 0.0, 1e-9)

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]:
        """An answer in the shape that the field's pipelines give."""
        assert isinstance(answer.value, dict)
        return {
            "answer": answer.value["text"],
            "score": answer.score,
            "start": answer.value["start"],
            "end": answer.value["end"],
        }

    def said(self, value: Any, row: Row) -> str:
        """A gold or an answer for people."""
        texts = [value["text"]] if isinstance(value, dict) else value or []
        return " | ".join(dict.fromkeys(text for text in texts if text)) or "(no answer)"


def _likely(found: Found, row: Row, least_lead: float | None) -> list[dict[str, Any]]:
    """Each different answer with its probability among the candidates and no answer, likeliest first, and where it
    stands best."""
    scores = [*found.candidates[:, 2], *([] if least_lead is None else [found.no_answer])]
    if not scores:
        return []
    places = [(int(start), int(end)) for start, end in found.candidates[:, :2]] + [(0, 0)] * (least_lead is not None)
    likely: dict[str, dict[str, Any]] = {}
    for (start, end), probability in zip(places, softmax(np.array(scores)[None, :])[0], strict=True):
        text = row["context"][start:end]
        one = likely.setdefault(text, {"answer": text, "score": 0.0, "start": start, "end": end})
        one["score"] += float(probability)
    return sorted(likely.values(), key=lambda one: -one["score"])


def _short_questions(rows: Sequence[Row], processor: Any, limit: Limit) -> list[str]:
    """Questions, cut where they would leave the text too little room."""
    most = limit.tokens // QUESTION_SHARE
    offsets = processor([row["question"] for row in rows], add_special_tokens=False, return_offsets_mapping=True)
    return [
        row["question"] if len(places) <= most else row["question"][: places[most - 1][1]]
        for row, places in zip(rows, offsets["offset_mapping"], strict=True)
    ]


def _example(encoded: Any, windows: Sequence[int], row: Row) -> Example:
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    flat: dict[str, list[int]] = {name: [] for name in (*names, "starts", "ends")}
    lengths, target = [], list[int]()
    answers = row.get("answers")
    for window in windows:
        belongs = np.array([owner == 1 for owner in encoded.sequence_ids(window)], dtype=bool)
        offsets = np.asarray(encoded["offset_mapping"][window], dtype=np.int64).reshape(-1, 2)
        belongs &= offsets[:, 1] > offsets[:, 0]
        starts, ends = (np.where(belongs, offsets[:, side], NOT_TEXT) for side in (0, 1))
        target += [UNKNOWN, UNKNOWN] if answers is None else _target(answers, starts, ends)
        for name in names:
            flat[name] += encoded[name][window]
        flat["starts"] += starts.tolist()
        flat["ends"] += ends.tolist()
        lengths.append(len(offsets))
    known: Example = {"windows": lengths, "target": target}
    return {**flat, **known}


def _target(answers: Mapping[str, Sequence[Any]], starts: np.ndarray, ends: np.ndarray) -> list[int]:
    """The first and last token of the first answer; the window's first token where it is not wholly in it."""
    if not answers["texts"]:
        return [0, 0]
    begin = answers["starts"][0]
    end = begin + len(answers["texts"][0])
    inside = np.flatnonzero(starts != NOT_TEXT)
    if not len(inside) or starts[inside[0]] > begin or ends[inside[-1]] < end:
        return [0, 0]
    first = inside[np.searchsorted(ends[inside], begin, side="right")]
    last = inside[np.searchsorted(starts[inside], end, side="left") - 1]
    return [int(first), int(last)] if first <= last else [0, 0]


def _candidates(
    start_VT: np.ndarray, end_VT: np.ndarray, starts_VT: np.ndarray, ends_VT: np.ndarray, longest: int
) -> np.ndarray:
    """(K, 3) first character, end, score: of all windows, the best of each span, best first."""
    best: dict[tuple[int, int], float] = {}
    for start_T, end_T, starts_T, ends_T in zip(start_VT, end_VT, starts_VT, ends_VT, strict=True):
        inside = np.flatnonzero(starts_T != NOT_TEXT)
        firsts = inside[np.argsort(-start_T[inside], kind="stable")[:LIKELIEST]]
        lasts = inside[np.argsort(-end_T[inside], kind="stable")[:LIKELIEST]]
        scores = start_T[firsts][:, None] + end_T[lasts][None, :]
        width = lasts[None, :] - firsts[:, None]
        for i, j in zip(*np.nonzero((width >= 0) & (width < longest)), strict=True):
            span = (int(starts_T[firsts[i]]), int(ends_T[lasts[j]]))
            best[span] = max(best.get(span, -np.inf), float(scores[i, j]))
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:LIKELIEST]
    return np.array([[*span, score] for span, score in ranked], dtype=float).reshape(-1, 3)


def _text(candidate: np.ndarray, row: Row) -> str:
    return str(row["context"][int(candidate[0]) : int(candidate[1])])


def _mean_of(values: np.ndarray, chosen: np.ndarray) -> Measure:
    """The mean over chosen rows; that of all of them where a resample draws none."""
    sums, whole = np.stack([values * chosen, chosen], axis=1), float((values * chosen).sum() / chosen.sum())
    return metrics.of_sums(sums, lambda s: np.where(s[:, 1] > 0, s[:, 0] / np.maximum(s[:, 1], 1e-12), whole))


def normalised_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_of(answer: str, golds: Sequence[str] | None) -> float:
    """1 if an answer is one of those that count as right; with none of them, if nothing was answered."""
    given = normalised_answer(answer)
    return float(any(given == normalised_answer(gold) for gold in golds or [""]))


def f1_of(answer: str, golds: Sequence[str] | None) -> float:
    """The best F1 of words against the answers that count as right; without words on a side, whether both have none."""
    return max(_word_f1(normalised_answer(answer).split(), normalised_answer(gold).split()) for gold in golds or [""])


def _word_f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    shared = (Counter(answer) & Counter(gold)).total()
    return 2 * shared / (len(answer) + len(gold)) if shared else 0.0
