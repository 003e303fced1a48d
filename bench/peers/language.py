"""transformers.Trainer on texts, each token learned from those before it; prints one JSON object.

What the library's language modelling example does, but for its packing: a row is one text, cut to `--max-length`.
"""

import argparse

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

from bench.peers import trainer

AT_ONCE = 16


def main() -> None:
    trainer.answer(trainer.parse(targets=["text"]), train)


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base, tokenise, train, and say how expected each test text is."""
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    # Labels by place: this tokenizer pads with the token that ends a text.
    features = [{**row, "labels": row["input_ids"]} for row in encode(options.train, tokenizer, options.max_length)]
    found = trainer.fit(model, features, DataCollatorForSeq2Seq(tokenizer), tokenizer, options, output)
    return found | {"sums": sums(model, encode(options.test, tokenizer, options.max_length), tokenizer)}


def encode(file, tokenizer, max_length: int) -> list[dict]:
    texts = [row["text"] for row in trainer.read(file)]
    return [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]]


@torch.inference_mode()
def sums(model, rows: list[dict], tokenizer) -> list[list[float]]:
    """Summed loss (nats), tokens asked for and how many were likeliest, of each text in file order."""
    model.eval()
    found = []
    for start in range(0, len(rows), AT_ONCE):
        batch = tokenizer.pad(rows[start : start + AT_ONCE], return_tensors="pt")
        logits, asked = model(**batch).logits[:, :-1], batch["input_ids"][:, 1:]
        counts = batch["attention_mask"][:, 1:].bool()
        losses = functional.cross_entropy(logits.transpose(1, 2), asked, reduction="none")
        right = logits.argmax(dim=-1) == asked
        found += [
            [float(row_losses[here].sum()), int(here.sum()), int(row_right[here].sum())]
            for row_losses, row_right, here in zip(losses, right, counts, strict=True)
        ]
    return found


if __name__ == "__main__":
    main()
