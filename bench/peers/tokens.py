"""transformers.Trainer on words and their tags, as its token classification example does it; prints one JSON object.

The first sub-word of each word carries its tag; what is longer than the limit is cut, and its words answered with O.
"""

import argparse

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

from bench.peers import trainer

IGNORED = -100


def main() -> None:
    trainer.answer(trainer.parse(targets=["tags"]), train)


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base, tokenise, train, and tag the test rows."""
    rows = trainer.read(options.train)
    names = sorted({tag for row in rows for tag in row["tags"]})
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForTokenClassification.from_pretrained(options.model, num_labels=len(names))
    features = encode(rows, names, tokenizer, options.max_length)
    found = trainer.fit(model, features, DataCollatorForTokenClassification(tokenizer), tokenizer, options, output)
    test = trainer.read(options.test)
    return found | {"tags": tags_of(model, test, names, tokenizer, options.max_length)}


def encode(rows: list[dict], names: list[str], tokenizer, max_length: int) -> list[dict]:
    """Tokens of all rows, the index of a word's tag at its first sub-word."""
    index = {name: i for i, name in enumerate(names)}
    encoded = tokenizer(
        [row["tokens"] for row in rows], is_split_into_words=True, truncation=True, max_length=max_length
    )
    features = []
    for number, row in enumerate(rows):
        firsts = first_places(encoded.word_ids(number))
        labels = [IGNORED] * len(encoded["input_ids"][number])
        for word, place in firsts.items():
            labels[place] = index[row["tags"][word]]
        features.append({**{key: encoded[key][number] for key in encoded}, "labels": labels})
    return features


def first_places(words: list[int | None]) -> dict[int, int]:
    """The place of each word's first sub-word."""
    places: dict[int, int] = {}
    for place, word in enumerate(words):
        if word is not None:
            places.setdefault(word, place)
    return places


@torch.inference_mode()
def tags_of(model, rows: list[dict], names: list[str], tokenizer, max_length: int) -> list[list[str]]:
    """A tag for each word, in file order."""
    model.eval()
    found = []
    for start in range(0, len(rows), 32):
        part = [row["tokens"] for row in rows[start : start + 32]]
        batch = tokenizer(
            part, is_split_into_words=True, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        likeliest = model(**batch).logits.argmax(dim=-1)
        for number, tokens in enumerate(part):
            firsts = first_places(batch.word_ids(number))
            found.append([
                names[int(likeliest[number, firsts[word]])] if word in firsts else "O" for word in range(len(tokens))
            ])  # fmt: skip
    return found


if __name__ == "__main__":
    main()
