"""transformers.Trainer on texts and what is written from them, by a decoder; prints one JSON object.

A row is the prompt with its source, the target behind it, and the token that ends a text; the loss is on the last two.
Of several references the first is learned. Test rows are padded at the left and written from, greedily.
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

from bench.peers import trainer

IGNORED, AT_ONCE = -100, 16
SLOT = "{source}"


def main() -> None:
    trainer.answer(trainer.parse(targets=["target"], prompt=str, longest_output=int), train)


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base, tokenise, train, and write from the test rows."""
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    rows = trainer.read(options.train)
    features = [
        learned(prompt, row["target"][0], options, tokenizer)
        for prompt, row in zip(prompts(rows, options, tokenizer), rows, strict=True)
    ]
    collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
    found = trainer.fit(model, features, collator, tokenizer, options, output)
    return found | {"texts": texts_of(model, trainer.read(options.test), options, tokenizer)}


def prompts(rows: list[dict], options: argparse.Namespace, tokenizer) -> list[list[int]]:
    """The tokens that are gone on with: a source is cut where it would leave no room for the longest answer."""
    before, behind = (ids(part, tokenizer) for part in options.prompt.split(SLOT))
    first = tokenizer("")["input_ids"]  # what this tokenizer begins every text with
    room = options.max_length - options.longest_output - len(first) - len(before) - len(behind)
    return [[*first, *before, *ids(row["source"], tokenizer)[:room], *behind] for row in rows]


def ids(text: str, tokenizer) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def learned(prompt: list[int], target: str, options: argparse.Namespace, tokenizer) -> dict:
    """A row to train on; as a sentence goes on, a space parts prompt and target."""
    space = "" if options.prompt[-1].isspace() else " "
    answer = [*ids(space + target, tokenizer), tokenizer.eos_token_id][: options.max_length - len(prompt)]
    tokens = [*prompt, *answer]
    return {
        "input_ids": tokens,
        "attention_mask": [1] * len(tokens),
        "labels": [*[IGNORED] * len(prompt), *answer],
    }


@torch.inference_mode()
def texts_of(model, rows: list[dict], options: argparse.Namespace, tokenizer) -> list[str]:
    """The likeliest text for each row, in file order; rows of one length are written together."""
    model.eval()
    tokenizer.padding_side = "left"
    asked = prompts(rows, options, tokenizer)
    order = sorted(range(len(rows)), key=lambda row: len(asked[row]))
    found = [""] * len(rows)
    for start in range(0, len(rows), AT_ONCE):
        part = order[start : start + AT_ONCE]
        batch = tokenizer.pad({"input_ids": [asked[row] for row in part]}, return_tensors="pt")
        written = model.generate(
            **batch,
            do_sample=False,
            num_beams=1,
            max_new_tokens=options.longest_output,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(part, texts, strict=True):
            found[row] = text.strip()
    return found


if __name__ == "__main__":
    main()
