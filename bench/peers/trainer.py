"""transformers.Trainer on a text classification set, as its documentation shows it; prints one JSON object.

The default row changes nothing that the documentation's example leaves alone, save what the workload fixes for
both sides (batch, rate, schedule, decay, clip, length). `--precision`, `--sampling` give the tuned rows.
"""

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

PROBLEMS = {
    "label": "single_label_classification",
    "labels": "multi_label_classification",
    "score": "regression",
}


class StepClock(TrainerCallback):
    """Note the time and CPU seconds at the start of training and at the end of every optimizer step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._note()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self._note()

    def _note(self) -> None:
        self.times.append(time.perf_counter())
        self.cpu.append(_cpu_seconds())


class CountingCollator:
    """Pad as usual, and note how many rows, real tokens and places each batch has."""

    def __init__(self, pad: Callable) -> None:
        self.pad = pad
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.places: list[int] = []

    def __call__(self, features: list[dict]) -> dict:
        batch = self.pad(features)
        self.rows.append(len(features))
        # Images have no tokens; pairs of texts that are read apart are not counted.
        self.tokens.append(sum(len(feature.get("input_ids", ())) for feature in features))
        self.places.append(batch["input_ids"].numel() if "input_ids" in batch else 0)
        return batch


def main() -> None:
    """Train, and print step times, counts, memory and (with --test) the raw outputs for the test rows."""
    answer(parse(), train)


def answer(options: argparse.Namespace, work: Callable[[argparse.Namespace, str], dict]) -> None:
    """Set what the options say of the machine, do the work in a scratch folder, and print what it answers."""
    torch.set_num_threads(options.threads)
    if options.precision == "medium":
        torch.set_float32_matmul_precision("medium")
    # The Trainer prints its own log lines to stdout, where only the answer belongs.
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as output:
        transformers.set_seed(options.seed)
        told = work(options, output)
    print(json.dumps(told))


def parse(targets: Sequence[str] = tuple(PROBLEMS), **more: type) -> argparse.Namespace:
    """Read the arguments; `more` are further ones, all of them required, by name and type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--train", required=True, type=Path, help="JSON lines with text (text_pair) and the target")
    parser.add_argument("--test", type=Path, help="JSON lines to answer after training")
    parser.add_argument("--target", choices=targets, default=targets[0], help="the column to learn")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, default=-1)
    length.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--precision", choices=["fp32", "bf16", "medium"], default="fp32")
    parser.add_argument("--sampling", choices=["random", "group_by_length"], default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--pieces", type=int, default=1, help="passes of a step, where a whole batch takes too much memory"
    )
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--warmup-ratio", type=float, default=0.06)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--max-length", type=int, default=128)
    for name, kind in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=True)
    return parser.parse_args()


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base, tokenise, train with the Trainer, and collect the answer."""
    rows = read(options.train)
    names = names_of(rows, options.target)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type=PROBLEMS[options.target],
    )
    features = encode(rows, options.target, names, tokenizer, options.max_length)
    answer = fit(model, features, DataCollatorWithPadding(tokenizer), tokenizer, options, output)
    if options.test:
        answer |= {"names": names, "outputs": outputs(model, read(options.test), tokenizer, options.max_length)}
    return answer


def fit(model, features: list[dict], pad: Callable, tokenizer, options: argparse.Namespace, output: str) -> dict:
    """Train by the Trainer, and say what it did and took."""
    clock, collator = StepClock(), CountingCollator(pad)
    trainer = Trainer(
        model=model,
        args=settings(options, output),
        train_dataset=features,
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[clock],
    )
    result = trainer.train()
    steps = len(clock.times) - 1
    return {
        "seconds": [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)],
        "cpu_seconds": [b - a for a, b in zip(clock.cpu, clock.cpu[1:], strict=False)],
        # The data loader fetches ahead; only the batches that were trained on count.
        "rows": collator.rows[:steps],
        "tokens": collator.tokens[:steps],
        "places": collator.places[:steps],
        "train_loss": result.training_loss,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "optimizer": type(trainer.optimizer.optimizer).__name__,
        "fused": bool(trainer.optimizer.param_groups[0].get("fused")),
        "decay_groups": [
            [g["weight_decay"], sum(p.numel() for p in g["params"])] for g in trainer.optimizer.param_groups
        ],
        "attention": model.config._attn_implementation,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def settings(options: argparse.Namespace, output: str) -> TrainingArguments:
    """Spell out what the workload fixes; all else stays at the Trainer's default (fused AdamW among it)."""
    return TrainingArguments(
        output_dir=output,
        per_device_train_batch_size=options.batch_size // options.pieces,
        gradient_accumulation_steps=options.pieces,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        lr_scheduler_type="linear",
        warmup_steps=options.warmup_ratio,  # below 1 it is a share of all steps
        max_steps=options.steps,
        num_train_epochs=options.epochs,
        bf16=options.precision == "bf16",
        train_sampling_strategy=options.sampling,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=options.seed,
        disable_tqdm=True,
    )


def names_of(rows: list[dict], target: str) -> list[str]:
    """The classes of the training rows; of a number, its own name."""
    if target == "score":
        return ["score"]
    values = (row[target] if target == "labels" else [row[target]] for row in rows)
    return sorted({name for row in values for name in row})


def encode(rows: list[dict], target: str, names: list[str], tokenizer, max_length: int) -> list[dict]:
    """Tokenise all rows before training, as the documentation does; padding is left to the collator.

    A plain list, not a `datasets` table: the Trainer takes both, and reading a list costs it less.
    """
    index = {name: i for i, name in enumerate(names)}
    gold = {
        "label": lambda row: index[row["label"]],
        "labels": lambda row: [float(name in row["labels"]) for name in names],
        "score": lambda row: float(row["score"]),
    }[target]
    encoded = tokenizer(*texts(rows), truncation=True, max_length=max_length)
    return [{**{key: encoded[key][i] for key in encoded}, "labels": gold(row)} for i, row in enumerate(rows)]


def texts(rows: list[dict]) -> list[list[str]]:
    """The inputs as a tokenizer takes them: texts, or texts and their pairs."""
    columns = ("text", "text_pair") if "text_pair" in rows[0] else ("text",)
    return [[row[column] for row in rows] for column in columns]


@torch.inference_mode()
def outputs(model, rows: list[dict], tokenizer, max_length: int) -> list[list[float]]:
    """Logits by a plain loop in file order: with length grouping the Trainer reorders what it predicts on."""
    model.eval()
    found = []
    for start in range(0, len(rows), 64):
        part = texts(rows[start : start + 64])
        batch = tokenizer(*part, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        found += model(**batch).logits.tolist()
    return found


def read(path: Path) -> list[dict]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
