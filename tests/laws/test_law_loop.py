"""What the loop says about itself is true."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook
from workbench import logits_of, recipe_of, run_tiny, set_up, train

import tiny
from tunesmith import checkpoints
from tunesmith.data.batches import Order
from tunesmith.devices import Devices
from tunesmith.errors import NumbersError, ResourceError
from tunesmith.evaluation import predict
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder, lines
from tunesmith.loop import Course, make_optimizer
from tunesmith.recipe import Full
from tunesmith.run import resume, run
from tunesmith.tasks.text_classification import TextClassification

Bases = Callable[..., Path]


def test_the_recorded_figures_are_true(bases: Bases) -> None:
    """Loss: the mean over the rows of the step with the weights before it. Norm: of that mean's gradient. Tokens: real
    ones, counted in the texts. Rows: the last batch of an epoch is smaller, and its mean is over fewer."""
    bench = set_up(bases("bert", dropout=0.0), Full(), num_rows=20, budget=50)
    order = Order(20, 8, seed=0)
    before = [bench.weights()]
    steps = train(bench, steps=5, after=lambda step: before.append(bench.weights()))
    assert [step.rows for step in steps] == [8, 8, 4, 8, 8]
    assert [step.epoch for step in steps] == pytest.approx([0.4, 0.8, 1.0, 1.4, 1.8])
    plain = bench.task.load(bench.loaded.base, 0, torch.float64).model
    for step, weights in zip(steps, before[:-1], strict=True):
        plain.load_state_dict(weights, strict=False)
        plain.zero_grad()
        rows = order.rows_of(step.number)
        texts = [bench.rows[row]["text"] for row in rows]
        batch = bench.loaded.processor(texts, padding=True, return_tensors="pt")
        assert step.tokens == int(batch["attention_mask"].sum())
        labels = torch.tensor([bench.task.labels.index(bench.rows[row]["label"]) for row in rows])
        loss = functional.cross_entropy(plain.eval()(**batch).logits, labels)
        loss.backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in plain.parameters() if p.grad is not None))
        assert step.loss == pytest.approx(loss.item(), abs=1e-12)
        assert step.grad_norm == pytest.approx(norm, rel=1e-10)


def test_the_recorded_validation_loss_is_true(bases: Bases, tiny_data: Path, tmp_path: Path) -> None:
    """The last evaluation's loss and accuracy, recomputed from the last checkpoint."""
    finished = run_tiny(
        bases("bert"), tiny_data / "train.jsonl", tmp_path / "run", data={"validation": str(tiny_data / "test.jsonl")}
    )
    bench = set_up(bases("bert"), Full(), precision="fp32")
    last = lines(finished.folder.evaluations)[-1]
    checkpoints.load_weights(checkpoints.path_of(finished.folder.checkpoints, last["step"]), bench.loaded)
    rows = tiny.make_rows(21, seed=1)
    batch = dict(bench.loaded.processor([row["text"] for row in rows], padding=True, return_tensors="pt"))
    logits = logits_of(bench.loaded.model, batch)
    labels = torch.tensor([tiny.LABELS.index(row["label"]) for row in rows])
    assert last["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), abs=1e-5)
    accuracy = float((logits.argmax(dim=-1) == labels).float().mean())
    assert last["scores"]["accuracy"]["value"] == pytest.approx(accuracy)


SHAPES = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("steps", "ratio"), [(100, 0.1), (100, 0.0), (7, 0.06), (1, 0.06), (3, 0.99)])
def test_schedules_have_their_shape(shape: str, steps: int, ratio: float) -> None:
    """A straight rise over the warm-up share, the highest rate right after it, then the named fall; never negative,
    never 0 while there are steps to take."""
    course = Course(steps, ratio, shape, None, seed=0)
    warmup = math.ceil(ratio * steps)
    rates = [course.rate(step) for step in range(1, steps + 1)]
    assert rates[:warmup] == pytest.approx([(step + 1) / (warmup + 1) for step in range(warmup)])
    rest = steps - warmup
    assert rates[warmup:] == pytest.approx([SHAPES[shape](done / rest) for done in range(rest)])
    assert all(0 < rate <= 1 for rate in rates)
    if rest:
        assert max(rates) == rates[warmup] == 1.0


def test_clipping_scales_to_the_norm(bases: Bases) -> None:
    """The gradient the optimizer sees has the norm asked for where it was larger, and is untouched where smaller."""
    for limit in (0.01, 1e6, None):
        bench = set_up(bases("bert", dropout=0.0), Full())
        seen: list[float] = []
        parameters = [parameter for parameter in bench.loaded.model.parameters() if parameter.requires_grad]

        def look(*_: Any, parameters: list[Any] = parameters, seen: list[float] = seen) -> None:
            seen.append(math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None)))

        handle = register_optimizer_step_pre_hook(look)
        try:
            (step,) = train(bench, steps=1, max_grad_norm=limit)
        finally:
            handle.remove()
        assert step.grad_norm > 0.01
        assert seen == [pytest.approx(0.01 if limit == 0.01 else step.grad_norm, rel=1e-3)]


def test_weight_decay_spares_biases_and_norms(bases: Bases) -> None:
    """With a rate too small to learn and a heavy decay only matrices shrink."""
    bench = set_up(bases("bert", dropout=0.0), Full())
    before = bench.weights()
    for parameter in bench.loaded.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(bench.loaded, bench.method, 0.1, 0.5)
    optimizer.step()
    for name, weight in bench.weights().items():
        spared = name.endswith("bias") or "LayerNorm" in name
        assert torch.allclose(weight, before[name] * (1.0 if spared else 0.95)), name


POISON = 5


class Poison(Voice):
    """From the fifth step on the task's loss is NaN."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch

    def step(self, step: Any, total: int) -> None:
        if step.number == POISON - 1:
            true_loss = TextClassification.loss

            def loss(task: Any, loaded: Any, batch: Any) -> Any:
                found = true_loss(task, loaded, batch)
                return dataclasses.replace(found, total=found.total * float("nan"))

            self.patch.setattr(TextClassification, "loss", loss)


def test_nan_ends_the_run_with_the_last_finite_checkpoint(
    bases: Bases, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4; steps.jsonl ends before; the weights of the step before are kept, finite; and with the fault gone
    the run goes on to what it would have been."""
    sections: dict[str, Any] = {"train": {"evaluate_every": 100}}
    wanted = run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / "straight", **sections)
    folder = RunFolder(tmp_path / "run")
    wrong = pytest.raises(NumbersError, match=f"the loss is nan at step {POISON}")
    with monkeypatch.context() as patch, wrong as caught:
        run(recipe_of(bases("bert"), tiny_data / "train.jsonl", folder.path, **sections), voice=Poison(patch))
    assert caught.value.exit_code == 4
    assert [row["step"] for row in lines(folder.steps)] == [1, 2, 3, 4]
    kept = checkpoints.newest_valid(folder.checkpoints)[0]
    assert kept is not None and kept.progress.step == POISON - 1
    assert all(bool(weight.isfinite().all()) for weight in load_file(kept.path / checkpoints.WEIGHTS).values())
    finished = resume(folder.path)
    assert finished.manifest["model_sha256"] == wanted.manifest["model_sha256"]


def test_an_infinite_gradient_ends_the_run_too(bases: Bases) -> None:
    """A finite loss with a gradient that is not: stopped before any weight moves."""
    bench = set_up(bases("bert"), Full())
    weight = bench.loaded.model.classifier.bias
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before = bench.weights()
    with pytest.raises(NumbersError, match="the gradient's norm is"):
        train(bench, steps=2)
    assert all(torch.equal(before[name], now) for name, now in bench.weights().items())


def test_rows_without_a_target_do_not_end_a_refit(bases: Bases, tmp_path: Path) -> None:
    """A validation label that no training row has: its rows teach nothing, also where a whole batch is of them."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(8))
    held = [{"text": f"my {word}", "label": "unknown"} for word in ("card", "cash", "app")] + tiny.make_rows(3, seed=2)
    validation = tiny.write_rows(tmp_path / "held.jsonl", held)
    finished = run_tiny(
        bases("bert"),
        data,
        tmp_path / "run",
        data={"validation": str(validation)},
        train={"steps": 14, "batch_size": 1, "refit": True, "evaluate_every": 14},
    )
    assert finished.manifest["finished"]


def test_memory_running_out_in_prediction_is_named(bases: Bases) -> None:
    """Out of memory while predicting is an error that says what to change (exit 5), as it is while training."""
    bench = set_up(bases("bert"), Full())

    class Hungry(TextClassification):
        def predict(self, loaded: Any, batch: Any) -> Any:
            raise MemoryError("no more")

    hungry = Hungry(bench.task.settings)
    hungry.recall(bench.task.learned())
    with pytest.raises(ResourceError):
        predict(bench.loaded, hungry, bench.examples, bench.devices)
    assert not torch.is_inference_mode_enabled()


def test_a_model_is_never_given_more_tokens_than_it_has_positions(bases: Bases, tmp_path: Path) -> None:
    """RoBERTa counts positions from its padding id on: of 66 positions 65 can be used, whatever its tokenizer says."""
    import json
    import shutil

    base = tmp_path / "base"
    shutil.copytree(bases("roberta"), base)
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 10**9}))
    rows = [{**row, "text": f"{row['text']} " + "card " * 80} for row in tiny.make_rows(20)]
    data = tiny.write_rows(tmp_path / "train.jsonl", rows)
    finished = run_tiny(base, data, tmp_path / "run", train={"steps": 2})
    assert finished.card["max_length"] <= 65


def test_devices_are_plain_values() -> None:
    """Two equal choices of device are equal: nothing hides in them."""
    one = Devices(torch.device("cpu"), None, torch.float32, threads=1)
    assert one == Devices(torch.device("cpu"), None, torch.float32, threads=1) and one.precision == "fp32"
