"""transformers.Trainer on questions about texts, as its question answering example does it; prints one JSON object.

Texts longer than the limit go in windows that overlap by 128 tokens; "no answer" is said where its score is higher than
that of the best of the twenty likeliest answers, each of at most 30 tokens.
"""

import argparse

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, default_data_collator

from bench.peers import trainer

STRIDE, LIKELIEST, LONGEST = 128, 20, 30


def main() -> None:
    trainer.answer(trainer.parse(targets=["answers"]), train)


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base, tokenise, train, and answer the test rows."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model)
    features = encode(trainer.read(options.train), tokenizer, options.max_length)
    found = trainer.fit(model, features, default_data_collator, tokenizer, options, output)
    return found | {"texts": texts_of(model, trainer.read(options.test), tokenizer, options.max_length)}


def windows(rows: list[dict], tokenizer, max_length: int):
    return tokenizer(
        [row["question"].lstrip() for row in rows], [row["context"] for row in rows], truncation="only_second",
        max_length=max_length, stride=min(STRIDE, max_length // 4), return_overflowing_tokens=True,
        return_offsets_mapping=True, padding="max_length",
    )  # fmt: skip


def encode(rows: list[dict], tokenizer, max_length: int) -> list[dict]:
    """Windows of all rows with the tokens at which the answer begins and ends, 0 where it is not in the window."""
    encoded = windows(rows, tokenizer, max_length)
    features = []
    for number, owner in enumerate(encoded["overflow_to_sample_mapping"]):
        answers, places = rows[owner]["answers"], (0, 0)
        if answers["texts"]:
            begin = answers["starts"][0]
            places = span(encoded, number, begin, begin + len(answers["texts"][0]))
        feature = {
            key: encoded[key][number] for key in ("input_ids", "attention_mask", "token_type_ids") if key in encoded
        }
        features.append({**feature, "start_positions": places[0], "end_positions": places[1]})
    return features


def span(encoded, number: int, begin: int, end: int) -> tuple[int, int]:
    """The first and the last token of these characters; (0, 0) where the window does not hold them whole."""
    parts, offsets = encoded.sequence_ids(number), encoded["offset_mapping"][number]
    inside = [place for place, part in enumerate(parts) if part == 1]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < end:
        return 0, 0
    first = max(place for place in inside if offsets[place][0] <= begin)
    last = min(place for place in inside if offsets[place][1] >= end)
    return first, last


@torch.inference_mode()
def texts_of(model, rows: list[dict], tokenizer, max_length: int) -> list[str]:
    """The answer to each question, "" for none."""
    model.eval()
    found = []
    for row in rows:
        encoded = windows([row], tokenizer, max_length)
        names = [key for key in ("input_ids", "attention_mask", "token_type_ids") if key in encoded]
        output = model(**{name: torch.tensor(encoded[name]) for name in names})
        starts, ends = output.start_logits.numpy(), output.end_logits.numpy()
        none, best = min(float(s[0] + e[0]) for s, e in zip(starts, ends, strict=True)), (-np.inf, "")
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            parts, offsets = encoded.sequence_ids(number), encoded["offset_mapping"][number]
            for i in np.argsort(-start)[:LIKELIEST]:
                for j in np.argsort(-end)[:LIKELIEST]:
                    fits = parts[i] == parts[j] == 1 and i <= j < i + LONGEST
                    if fits and start[i] + end[j] > best[0]:
                        best = (start[i] + end[j], row["context"][offsets[i][0] : offsets[j][1]])
        found.append(best[1] if best[0] >= none else "")
    return found


if __name__ == "__main__":
    main()
