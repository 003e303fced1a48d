"""Texts written from texts: summaries and translations. Letters: B rows (or parts of rows), T tokens, V vocabulary.

A base with an encoder reads the source and writes the target; a decoder alone goes on with a prompt that holds the
source. Both learn the target's tokens and the token that ends it, and nothing of the source.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from tunesmith.data.rows import Row
from tunesmith.errors import ModelError
from tunesmith.models.generators import end_of, goes_on, load_generator
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.writing import SLOT, Writing
from tunesmith.tasks import metrics, text_metrics
from tunesmith.tasks.contract import Answer, Batch, Decision, Draw, Example, Limit, Loss, Prediction, UsualTask, Value
from tunesmith.tasks.long_texts import UNLIMITED
from tunesmith.tasks.metrics import Measure
from tunesmith.tasks.unsupported import new_names, new_numbers

NOT_LEARNED = -100
READ = ("input_ids", "attention_mask")
MOST_PARTS = 32
"""Parts of one source; what it holds beyond them is not read."""

MOST_ROUNDS = 4
"""So often summaries are summarised; what is still too long then is cut off."""

LEAST_ROOM = 8
"""Tokens of a source that a limit must leave room for."""

COUNTED_TARGETS = 5000
USUAL_SHARE, SPARE = 0.99, 1.25
"""`longest_output: auto`: so much more than so large a share of the training targets has, counted on so many of them
that lie evenly."""


class SequenceToSequence(UsualTask):
    """What both kinds share. An output is the written text."""

    labels = ("text",)
    ANSWER: ClassVar[str]
    PRIMARY: ClassVar[str]
    SHOWS_NAMES: ClassVar[bool]

    def __init__(self, settings: Writing) -> None:
        self.settings = settings
        self._targets: list[str] = []
        self._goes_on = False
        self._end = 0

    def learn(self, rows: Sequence[Row]) -> None:
        """Keep some targets; how long they are is known when a tokenizer is."""
        chosen = rows[:: math.ceil(len(rows) / COUNTED_TARGETS) or 1]
        self._targets = [text for row in chosen for text in row["target"]]

    def learned(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "goes_on": self._goes_on}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Nothing was learned that settings and model do not tell."""

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        loaded = load_generator(base, seed, dtype)
        self._goes_on, self._end = goes_on(loaded.model), end_of(loaded.model)
        if self.settings.prompt == "auto":
            self.settings = self.settings.but(prompt=self.usual_prompt() if self._goes_on else SLOT)
        places = getattr(loaded.model.config, "max_position_embeddings", None) or UNLIMITED
        if self.settings.longest_output == "auto":
            lengths = [len(tokens) for tokens in self._tokens_of(self._targets, loaded.processor)]
            longest = min(math.ceil(SPARE * float(np.quantile(lengths, USUAL_SHARE))), places - 1)
            self.settings = self.settings.but(longest_output=longest)
        elif self.settings.longest_output >= places:
            message = (
                f"task.longest_output: {self.settings.longest_output:,} tokens, but the model has {places:,} places"
            )
            raise ModelError(message, base.reference, f"write {places - 1:,} or less")
        config: Any = loaded.model.generation_config
        config.update(max_new_tokens=self.settings.longest_output, num_beams=self.settings.beams)
        return loaded

    def usual_prompt(self) -> str:
        """What a decoder goes on with, where the settings do not say it; SLOT stands for the source."""
        raise NotImplementedError

    def _tokens_of(self, targets: Sequence[str], processor: Any) -> list[list[int]]:
        """The tokens of targets as they are learned: with the token that ends a text."""
        if not targets:
            return []
        if self._goes_on:
            ends_in_space = self.settings.prompt.partition(SLOT)[2][-1:].isspace()
            texts = targets if ends_in_space else [f" {target}" for target in targets]
            found = processor(texts, add_special_tokens=False)["input_ids"]
        else:
            found = processor(text_target=list(targets))["input_ids"]
        return [tokens if tokens[-1:] == [self._end] else [*tokens, self._end] for tokens in found]

    def _frame(self, processor: Any) -> tuple[list[int], list[int]]:
        """The tokens before and behind every source: special ones, and those of the prompt."""
        whole, bare = processor("a")["input_ids"], processor("a", add_special_tokens=False)["input_ids"]
        begin = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
        first, last = whole[:begin], whole[begin + len(bare) :]
        before, _, behind = self.settings.prompt.partition(SLOT)
        parts = [processor(text, add_special_tokens=False)["input_ids"] if text else [] for text in (before, behind)]
        return [*first, *parts[0]], [*parts[1], *(() if self._goes_on else last)]

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """Prompts with their sources (`chunks`: one for each part of a source, end to end, `windows` holding their
        lengths); the references end to end, `lengths` holding theirs; and whether anything was cut off."""
        if not rows:
            return []
        found = self._sources([row["source"] for row in rows], processor, limit)
        return [self._with_targets(source, row, processor, limit) for source, row in zip(found, rows, strict=True)]

    def _sources(self, texts: Sequence[str], processor: Any, limit: Limit) -> list[Example]:
        head, tail = self._frame(processor)
        longest = self.settings.longest_output
        assert isinstance(longest, int)
        room = limit.tokens - len(head) - len(tail) - (longest if self._goes_on else 0)
        if room < LEAST_ROOM:
            message = f"train.max_length: of {limit.tokens} tokens, {max(room, 0)} are left for the text"
            taken = f"{len(head) + len(tail)} are those of the prompt"
            taken += f", {longest} are kept for the answer (task.longest_output)" if self._goes_on else ""
            raise ModelError(message, remedy=f"allow more: {taken}")
        examples: list[Example] = []
        for tokens in processor(list(texts), add_special_tokens=False)["input_ids"]:
            parts = [tokens[first : first + room] for first in range(0, max(len(tokens), 1), room)]
            framed = [[*head, *part, *tail] for part in parts[: MOST_PARTS if limit.policy == "chunks" else 1]]
            example: Example = {"input_ids": [token for part in framed for token in part], "cut": int(len(parts) > 1)}
            if limit.policy == "chunks":
                example |= {"windows": [len(part) for part in framed], "limit": limit.tokens}
            examples.append(example)
        return examples

    def _with_targets(self, source: Example, row: Row, processor: Any, limit: Limit) -> Example:
        targets = self._tokens_of(row.get("target") or [], processor)
        room = limit.tokens - (len(_first_part(source)) if self._goes_on else 0)
        kept = [tokens[:room] for tokens in targets]
        known: Example = {
            "references": [token for tokens in kept for token in tokens],
            "lengths": [len(tokens) for tokens in kept],
            "cut": int(bool(source["cut"]) or kept != targets),
        }
        return {**source, **known}

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        return sum(example["cut"] == 1 for example in examples)

    def drawn(self, example: Example, draw: Draw) -> Example:
        """A source with the target that is to be learned from it; several references take turns."""
        lengths, tokens, source = example["lengths"], example["references"], _first_part(example)
        assert isinstance(lengths, list) and isinstance(tokens, list)
        turn = (draw.epoch + draw.row) % len(lengths)
        begin = sum(lengths[:turn])
        target = tokens[begin : begin + lengths[turn]]
        if self._goes_on:
            return {"input_ids": [*source, *target], "labels": [*[NOT_LEARNED] * len(source), *target]}
        return {"input_ids": source, "labels": target}

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Pad to the longest. Shapes: `input_ids`, `attention_mask` (B, T); of drawn examples `labels`, (B, T) with
        NOT_LEARNED where nothing is learned. Of sources in parts B counts parts; `owner` (B,) is the row of each."""
        learns = "labels" in examples[0]
        parts = [part for example in examples for part in _parts_of(example)]
        at_left = self._goes_on and not learns  # what is written follows the prompt at once
        batch: Batch = {
            "input_ids": _padded(parts, processor.pad_token_id, at_left),
            "attention_mask": _padded([[1] * len(part) for part in parts], 0, at_left),
        }
        if learns:
            batch["labels"] = _padded([example["labels"] for example in examples], NOT_LEARNED, False)  # type: ignore[misc]
        if len(parts) > len(examples):
            many = torch.tensor([len(_parts_of(example)) for example in examples])
            batch["owner"] = torch.repeat_interleave(torch.arange(len(examples)), many)
            batch["limit"] = torch.tensor(examples[0]["limit"])
        return batch

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        """Cross-entropy summed over the tokens of targets, each counting once."""
        labels_BT = batch["labels"]
        inputs: dict[str, Any] = {name: batch[name] for name in READ} | {"use_cache": False}
        model: Any = getattr(loaded.model, "get_base_model", lambda: loaded.model)()
        if self._goes_on:
            first = int((labels_BT != NOT_LEARNED).int().argmax(dim=1).min())
            labels_BT = labels_BT[:, first:]
            if "logits_to_keep" in inspect.signature(model.forward).parameters:
                inputs["logits_to_keep"] = labels_BT.shape[1] + 1
            logits_BTV = loaded(**inputs).logits[:, -labels_BT.shape[1] - 1 : -1]
        else:
            inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels_BT)
            logits_BTV = loaded(**inputs).logits
        exact = logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()
        total = functional.cross_entropy(
            exact.flatten(0, 1), labels_BT.flatten(), ignore_index=NOT_LEARNED, reduction="sum"
        )
        return Loss(total, float((labels_BT != NOT_LEARNED).sum()))

    def predict(self, loaded: Loaded, batch: Batch) -> list[str]:
        """The likeliest text for each row. A source in parts: the summary of the summaries of its parts."""
        return self._written(loaded, batch, MOST_ROUNDS)

    def _written(self, loaded: Loaded, batch: Batch, rounds: int) -> list[str]:
        texts = self._write(loaded, batch)
        if "owner" not in batch:
            return texts
        parts_of: dict[int, list[str]] = {}
        for row, text in zip(batch["owner"].tolist(), texts, strict=True):
            parts_of.setdefault(row, []).append(text)
        long = [row for row, parts in parts_of.items() if len(parts) > 1]
        limit = Limit(int(batch["limit"]), "chunks" if rounds > 1 else "truncate")
        sources = self._sources(["\n".join(parts_of[row]) for row in long], loaded.processor, limit)
        again = {name: tensor.to(loaded.device) for name, tensor in self.collate(sources, loaded.processor).items()}
        summaries = dict(zip(long, self._written(loaded, again, rounds - 1), strict=True))
        return [summaries.get(row, parts[0]) for row, parts in parts_of.items()]

    def _write(self, loaded: Loaded, batch: Batch) -> list[str]:
        inputs = {name: batch[name] for name in READ}
        if self._goes_on and loaded.virtual_tokens:
            return self._write_without_padding(loaded, inputs)
        return self._generate(loaded, inputs)

    def _generate(self, loaded: Loaded, inputs: Batch) -> list[str]:
        model: Any = loaded.model
        written_BT = model.generate(**inputs)
        if self._goes_on:
            written_BT = written_BT[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in loaded.processor.batch_decode(written_BT, skip_special_tokens=True)]

    def _write_without_padding(self, loaded: Loaded, inputs: Batch) -> list[str]:
        """Rows of one length at a time: padding at the left would stand between virtual tokens and the prompt."""
        lengths_B = inputs["attention_mask"].sum(dim=1)
        texts: dict[int, str] = {}
        for length in sorted(set(lengths_B.tolist())):
            rows = (lengths_B == length).nonzero()[:, 0]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Position ids are not supported")  # those of unpadded rows are usual
                written = self._generate(loaded, {name: tensor[rows, -length:] for name, tensor in inputs.items()})
            texts |= dict(zip(rows.tolist(), written, strict=True))
        return [texts[row] for row in range(len(texts))]

    def mean_loss(self, outputs: Sequence[str], examples: Sequence[Example]) -> float | None:
        """None: a text does not tell how likely the gold one was."""
        return None

    def watched(self, number: int) -> Sequence[int]:
        """`watched_rows` of so many, spread evenly."""
        return np.linspace(0, number - 1, min(number, self.settings.watched_rows)).round().astype(int).tolist()

    def gold(self, row: Row) -> Value | None:
        """The texts that count as right; None where the row has none."""
        return row.get("target")

    def decide(self, outputs: Sequence[str], rows: Sequence[Row]) -> Decision:
        return {}

    def answers(self, outputs: Sequence[str], rows: Sequence[Row], decision: Decision) -> list[Answer]:
        """Texts, with the numbers (and, of summaries, names) in them that the source does not hold."""
        return [Answer(self._grounded(text, row["source"])) for text, row in zip(outputs, rows, strict=True)]

    def _grounded(self, text: str, source: str) -> dict[str, Any]:
        names = {"new_names": new_names(text, source)} if self.SHOWS_NAMES else {}
        return {"text": text, "new_numbers": new_numbers(text, source), **names}

    def measures(self, predictions: Sequence[Prediction]) -> dict[str, Measure]:
        """ROUGE, chrF, BLEU and exact match, and the share of rows whose text holds numbers (names) that its source
        does not."""
        if not predictions:
            return {}
        found = text_metrics.measures([p.answer["text"] for p in predictions], [p.gold for p in predictions])
        for name in ("new_numbers", "new_names"):
            if name in predictions[0].answer:
                found[name] = metrics.mean([float(bool(p.answer[name])) for p in predictions])
        return found

    def primary(self, rows: Sequence[Row]) -> str:
        return self.PRIMARY

    def signatures(self) -> dict[str, str]:
        return text_metrics.signatures()

    def severity(self, prediction: Prediction) -> float:
        """How far a text is from its references."""
        text, gold = prediction.answer["text"], tuple(prediction.gold)
        near = text_metrics.chrf_of(text, gold) if self.PRIMARY == "chrf" else text_metrics.rouge_of(text, gold)[2]
        return 1 - near

    def shown(self, answer: Answer, row: Row) -> dict[str, Any]:
        """An answer in the shape that the field's pipelines give."""
        assert isinstance(answer.value, dict)
        return {self.ANSWER: answer.value["text"]}

    def said(self, value: Any, row: Row) -> str:
        """A gold or an answer for people."""
        return str(value["text"]) if isinstance(value, dict) else " | ".join(value or [])


class Summarization(SequenceToSequence):
    """A shorter text that says what matters in a longer one."""

    ANSWER, PRIMARY = "summary_text", "rouge_l"
    SHOWS_NAMES = True

    def usual_prompt(self) -> str:
        return f"{SLOT}\n\nSummary:"


class Translation(SequenceToSequence):
    """The same text in another language. Names change between languages, so that only new numbers are looked for."""

    ANSWER, PRIMARY = "translation_text", "chrf"
    SHOWS_NAMES = False

    def usual_prompt(self) -> str:
        language = getattr(self.settings, "language", "auto")
        return f"{SLOT}\n\nTranslate to {language}:" if language not in ("", "auto") else f"{SLOT}\n\nTranslation:"


def _first_part(example: Example) -> list[int]:
    return _parts_of(example)[0]


def _parts_of(example: Example) -> list[list[int]]:
    """The parts of a source, each with its prompt; a drawn example and a short source are one."""
    tokens, windows = example["input_ids"], example.get("windows")
    assert isinstance(tokens, list)
    if not isinstance(windows, list):
        return [tokens]
    ends = np.cumsum(windows).tolist()
    return [tokens[end - length : end] for end, length in zip(ends, windows, strict=True)]


def _padded(rows: Sequence[Sequence[int]], fill: int, at_left: bool) -> torch.Tensor:
    """(B, T) of rows of unequal length."""
    longest = max(map(len, rows))
    padded = np.full((len(rows), longest), fill, dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, slice(longest - len(row), None) if at_left else slice(len(row))] = row
    return torch.from_numpy(padded)
