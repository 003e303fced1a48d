"""What the laws work with: a model under a method on a few rows, trained in this process by the real loop, and whole
runs made through the real story."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import tiny
from tunesmith import loop, methods, tasks
from tunesmith.data.batches import Order
from tunesmith.data.rows import Row
from tunesmith.devices import Devices
from tunesmith.fitting import Voice
from tunesmith.methods.contract import Span
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import find_base
from tunesmith.open import Run
from tunesmith.preparing import apply_method
from tunesmith.recipe import (
    BitFit,
    Dora,
    Full,
    GradualUnfreezing,
    Head,
    Houlsby,
    Ia3,
    ImageClassification,
    LanguageModeling,
    LastLayers,
    Lora,
    Machine,
    Pfeiffer,
    Prefix,
    Prompt,
    Qlora,
    QuestionAnswering,
    Recipe,
    SentenceSimilarity,
    Settings,
    Summarization,
    TextClassification,
    TokenClassification,
    Translation,
)
from tunesmith.run import run
from tunesmith.tasks.contract import Limit

EVERY_METHOD: dict[str, Settings] = {
    "full": Full(),
    "head": Head(),
    "last-layers": LastLayers(layers=1),
    "gradual-unfreezing": GradualUnfreezing(until=0.5),
    "bitfit": BitFit(),
    "lora": Lora(rank=4),
    "houlsby": Houlsby(size=8),
    "pfeiffer": Pfeiffer(size=8),
    "dora": Dora(rank=4),
    **({"qlora": Qlora(rank=4)} if find_spec("bitsandbytes") else {}),
    "ia3": Ia3(),
    "prefix": Prefix(tokens=4),
    "prompt": Prompt(tokens=4),
}
TASKS: dict[str, tuple[Settings, Callable[[int], list[dict[str, Any]]]]] = {
    "text-classification": (TextClassification(), tiny.make_rows),
    "token-classification": (TokenClassification(target="tags"), tiny.make_entity_rows),
    "question-answering": (QuestionAnswering(), tiny.make_questions),
    "language-modeling": (LanguageModeling(), tiny.make_sentences),
    "sentence-similarity": (SentenceSimilarity(target="triplet"), tiny.make_triplets),
    "summarization": (Summarization(), tiny.make_reversals),
    "translation": (Translation(), tiny.make_reversals),
    "image-classification": (ImageClassification(), tiny.make_picture_rows),
}
"""Every task with its tiny rows."""

BASES = {"language-modeling": "bert+masked", "image-classification": "vit"}
"""The tiny base of a task that goes on with a base's own head, or is not for texts; others take a bare body."""

WRITERS = {"summarization": "bart", "translation": "llama"}
"""Tasks whose bases write, and of which family each is tried on."""

NOT_FOR_THE_MODEL = ("partner", "share", "target", "window", "position", "row", "rows", "starts", "ends", "owner")
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass
class Bench:
    """A model under a method, its task, and encoded rows."""

    loaded: Loaded
    method: Any
    task: Any
    rows: list[Row]
    examples: list[dict[str, Any]]
    devices: Devices

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of every parameter."""
        return {name: parameter.detach().clone() for name, parameter in self.loaded.model.named_parameters()}

    def batch(self, indices: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        picked = self.examples if indices is None else [self.examples[index] for index in indices]
        return self.task.collate(picked, self.loaded.processor)

    def logits(self) -> torch.Tensor:
        """What the model answers to all rows, without dropout."""
        return logits_of(self.loaded.model, self.batch())


def logits_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """A forward pass in evaluation mode; modes come back as they were."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        logits = model(**{name: tensor for name, tensor in batch.items() if name not in NOT_FOR_THE_MODEL}).logits
    for module, mode in modes.items():
        module.training = mode
    return logits


def set_up(
    folder: Path,
    method: Settings,
    num_rows: int = 20,
    precision: str = "fp64",
    seed: int = 0,
    budget: int = 2048,
    kind: str = "text-classification",
) -> Bench:
    """Load a base, put a method on it, encode rows: as a run does, without a run folder."""
    settings, make_rows = TASKS[kind]
    task = tasks.build(settings)
    rows = [Row(values, "rows", number) for number, values in enumerate(make_rows(num_rows), start=1)]
    task.learn(rows)
    devices = Devices(
        device=torch.device("cpu"), compute=None, stored=DTYPES[precision], threads=1, micro_batch_tokens=budget
    )
    loaded = task.load(find_base(str(folder)), seed, devices.stored)
    built = methods.build(method)
    apply_method(built, loaded, seed, devices)
    return Bench(loaded, built, task, rows, task.encode(rows, loaded.processor, Limit(64)), devices)


def train(
    bench: Bench,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    seed: int = 0,
    weight_decay: float = 0.01,
    warmup_ratio: float = 0.06,
    lr_scheduler: str = "linear",
    max_grad_norm: float | None = 1.0,
    after: Callable[[loop.Step], None] = lambda step: None,
) -> list[loop.Step]:
    """Train a bench by the real loop; `after` is called between steps."""
    order = Order(len(bench.examples), batch_size, seed)
    bench.method.begin(bench.loaded, Span(steps, order.steps_per_epoch, seed))
    optimizer = loop.make_optimizer(bench.loaded, bench.method, learning_rate, weight_decay)
    course = loop.Course(steps, warmup_ratio, lr_scheduler, max_grad_norm, seed)
    done = []
    for step in loop.train(
        bench.loaded, bench.method, bench.task, bench.examples, order, course, optimizer, bench.devices
    ):
        done.append(step)
        after(step)
    return done


def recipe_of(base: Path, data: Path, output: Path, /, **sections: dict[str, Any] | str | int) -> Recipe:
    """A small recipe: eight steps of full fine-tuning, no baselines, one thread; sections change parts of it."""
    values: dict[str, Any] = {
        "model": str(base),
        "data": {"train": str(data)},
        "train": {"steps": 8, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "evaluate_every": 4},
        "judge": {"baselines": "off"},
        "machine": {"threads": 1},
        "output": str(output),
    }
    for name, given in sections.items():
        keeps = isinstance(given, dict) and isinstance(values.get(name), dict)
        values[name] = {**values[name], **given} if keeps else given  # type: ignore[dict-item]
    return Recipe.model_validate(values)


def run_tiny(base: Path, data: Path, output: Path, /, **sections: dict[str, Any] | str | int) -> Run:
    finished = run(recipe_of(base, data, output, **sections))
    finished.machine = Machine(threads=1)
    return finished


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two sets of weights; a missing name is an endless one."""
    if set(one) != set(other):
        return float("inf")
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run folder has saved."""
    [file] = (folder / "model").glob("*.safetensors")
    return load_file(file)


def same(one: Path, other: Path) -> bool:
    """Whether two run folders have saved the same, to the bit."""
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`tunesmith ARGUMENTS`, as a user starts it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    whole = [sys.executable, "-m", "tunesmith", *arguments]
    return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=280)


class Breaker(Voice):
    """Stops the work at its n-th step, whichever stage that is in."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, step: Any, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError
