"""Elastic weights: what matters is the mean of squared gradients, row by row, and what matters is held by it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from workbench import BASES, EVERY_METHOD, TASKS, WRITERS, Bench, largest_difference, set_up, train

from tunesmith import checkpoints, loop
from tunesmith.checkpoints import Progress
from tunesmith.data.batches import Order
from tunesmith.devices import Devices
from tunesmith.errors import DataError, ModelError
from tunesmith.importance import importance_of, spread, summed
from tunesmith.methods.consolidation import Consolidated, Elastic
from tunesmith.methods.contract import Span
from tunesmith.methods.head_first import HeadAlone
from tunesmith.models.loaded import Loaded
from tunesmith.recipe import BitFit, Full, SentenceSimilarity
from tunesmith.tasks.contract import Draw, Loss, UsualTask
from tunesmith.tasks.sentence_similarity import SentenceSimilarity as Similarity

Bases = Callable[..., Path]
CPU = Devices(torch.device("cpu"), compute=None, stored=torch.float64, threads=1)


class Regression(UsualTask):
    """Logistic regression as a task: an example is its numbers and its class; -1 is a row without one."""

    def collate(self, examples: Sequence[Any], processor: Any) -> dict[str, torch.Tensor]:
        numbers = torch.tensor([example["numbers"] for example in examples], dtype=torch.float64)
        return {"numbers": numbers, "target": torch.tensor([example["target"] for example in examples])}

    def loss(self, loaded: Any, batch: dict[str, torch.Tensor]) -> Loss:
        known = batch["target"] >= 0
        losses = functional.cross_entropy(
            loaded.model(batch["numbers"]), batch["target"].clamp_min(0), reduction="none", weight=self.weight
        )
        return Loss((losses * known).sum(), float((self.weight[batch["target"].clamp_min(0)] * known).sum()))

    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)


def regression(rows: int = 12) -> tuple[Loaded, list[Any]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double()
    loaded: Any = Loaded(model, None, (), (), None, lambda: model)  # type: ignore[arg-type]
    return loaded, [{"numbers": torch.randn(4).tolist(), "target": row % 3} for row in range(rows)]


def test_importance_by_hand() -> None:
    """Of W x + b with a softmax the gradient of a row is (p - e) x^T and p - e: squared, and averaged over rows. What a
    class weighs is divided out; a row without a class is no row."""
    loaded, examples = regression()
    layer = loaded.model[0]
    x_RD = torch.tensor([row["numbers"] for row in examples], dtype=torch.float64)
    gold_RC = functional.one_hot(torch.tensor([row["target"] for row in examples]), 3)
    away_RC = (x_RD @ layer.weight.T + layer.bias).softmax(dim=-1).detach() - gold_RC
    with_unknown = [*examples[:5], {"numbers": [9.0] * 4, "target": -1}, *examples[5:]]
    found = importance_of(loaded, Regression(), with_unknown, CPU, 1000)
    each_RCD = away_RC[:, :, None] * x_RD[:, None, :]
    assert torch.allclose(found["0.weight"], each_RCD.square().mean(dim=0), rtol=1e-12)
    assert torch.allclose(found["0.bias"], away_RC.square().mean(dim=0), rtol=1e-12)
    of_batch = each_RCD.mean(dim=0).square()
    assert float(found["0.weight"].sum()) > 2 * float(of_batch.sum()), "the batch's own gradient is another number"
    with pytest.raises(DataError, match="anything to learn"):
        importance_of(loaded, Regression(), [{"numbers": [9.0] * 4, "target": -1}], CPU, 5)


def test_rows_are_taken_evenly() -> None:
    assert spread(10, 4) == [0, 3, 6, 9] and spread(3, 10) == [0, 1, 2]
    assert spread(10, 1) == [0] and spread(0, 5) == [] and spread(1, 7) == [0]
    assert all(len(set(spread(many, most))) == min(many, most) for many in range(40) for most in range(1, 45))
    loaded, examples = regression()
    some = importance_of(loaded, Regression(), examples, CPU, 4)
    alone = importance_of(loaded, Regression(), [examples[row] for row in spread(12, 4)], CPU, 4)
    assert largest_difference(some, alone) == 0.0


def bench_of(bases: Bases, writers: Bases, kind: str, method: Any = Full()) -> Bench:  # noqa: B008 - it is frozen
    folder = writers(WRITERS[kind]) if kind in WRITERS else bases(BASES.get(kind, "bert"), dropout=0.3)
    return set_up(folder, method, num_rows=6, kind=kind)


@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "sentence-similarity"])
def test_importance_of_every_task(bases: Bases, writers: Bases, kind: str) -> None:
    """It is what backward says of each row alone without dropout; gradients, modes, generators and weights stay."""
    bench = bench_of(bases, writers, kind)
    model, wanted, counted = bench.loaded.model, {}, 0
    model.eval()
    for row, example in enumerate(bench.examples):
        model.zero_grad(set_to_none=True)
        batch = bench.task.collate([bench.task.drawn(example, Draw(0, 0, row))], bench.loaded.processor)
        loss = bench.task.loss(bench.loaded, batch)
        if loss.count:
            loss.total.backward()
            counted += 1
            for name, weight in model.named_parameters():
                square = 0.0 if weight.grad is None else (weight.grad / loss.count) ** 2
                wanted[name] = wanted.get(name, torch.zeros_like(weight)) + square
    model.train()
    marks = {name: torch.full_like(weight, 7.0) for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        weight.grad = marks[name].clone()
    modes, weights = [module.training for module in model.modules()], bench.weights()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    found = importance_of(bench.loaded, bench.task, bench.examples, bench.devices, 100)
    assert found.keys() == wanted.keys()
    for name, part in found.items():  # a Llama's norms compute in single precision
        scale = 1e-12 + 1e-6 * float(wanted[name].max())
        assert torch.allclose(part, wanted[name] / counted, rtol=1e-5, atol=scale), name
    assert max(float(part.max()) for part in found.values()) > 1e-8
    assert all(torch.equal(weight.grad, marks[name]) for name, weight in model.named_parameters())
    assert [module.training for module in model.modules()] == modes
    assert largest_difference(bench.weights(), weights) == 0.0
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert torch.equal(after[0], states[0]) and after[1:] == states[1:]


def test_rows_that_teach_each_other_have_no_importance(bases: Bases) -> None:
    bench = bench_of(bases, bases, "sentence-similarity")
    bench.task = Similarity(SentenceSimilarity(target="triplet", loss="contrastive"))
    with pytest.raises(ModelError, match="learned from each other"):
        importance_of(bench.loaded, bench.task, bench.examples, bench.devices, 5)


def test_what_is_frozen_has_no_importance(bases: Bases) -> None:
    """Nor does what no row reaches: the embedding of a word that does not occur."""
    biases = importance_of(*parts(set_up(bases("bert"), BitFit(), num_rows=6)), 6)
    assert biases and all(name.endswith("bias") or name.startswith("classifier.") for name in biases)
    bench = set_up(bases("bert"), Full(), num_rows=6)
    words = importance_of(*parts(bench), 6)["bert.embeddings.word_embeddings.weight"]
    used = sorted({token for example in bench.examples for token in example["input_ids"]})
    reached = words.sum(dim=1) > 0
    assert reached.nonzero().flatten().tolist() == used


def test_tasks_add_up(bases: Bases) -> None:
    bench = set_up(bases("bert"), Full(), num_rows=6)
    loaded, task, examples, devices = parts(bench)
    first, second = (importance_of(loaded, task, rows, devices, 9) for rows in (examples[:3], examples[3:]))
    both = importance_of(loaded, task, examples, devices, 9)
    total = summed([first, second])
    assert largest_difference({name: part / 2 for name, part in total.items()}, both) < 1e-12
    kept = {name: part.clone() for name, part in first.items()}
    other = summed([first, {"another": torch.ones(2)}])
    assert torch.equal(other["another"], torch.ones(2)) and other.keys() == {*first, "another"}
    assert largest_difference(first, kept) == 0.0, "the parts stay as they are"


def parts(bench: Bench) -> tuple[Any, Any, Any, Any]:
    return bench.loaded, bench.task, bench.examples, bench.devices


def held(bench: Bench, strength: float, fill: float | None = None) -> Elastic:
    """What holds a bench, by the importance of its own rows, or by the same importance for all."""
    found = importance_of(*parts(bench), 5)
    if fill is not None:
        found = {name: torch.full_like(part, fill) for name, part in found.items()}
    bench.method = Consolidated(bench.method, Elastic.of(bench.loaded, strength, found))
    return bench.method.elastic


def test_the_pull_is_the_papers(bases: Bases) -> None:
    """Its gradient is that of half of lambda times the sum of F (w - w0)^2, beside what the method pulls by itself; a
    new head, and what gets no gradient at this step, is left alone."""
    bench = set_up(bases("bert", dropout=0.0), Full(l2_sp=0.01))
    bench.method.begin(bench.loaded, Span(4, 4, 0))
    elastic = held(bench, 30.0)
    weights = dict(bench.loaded.model.named_parameters())
    assert set(elastic.began) == {name for name in weights if not name.startswith("classifier.")}
    waiting = "bert.encoder.layer.1.output.dense.weight"
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.add_(torch.randn_like(weight), alpha=0.1)
            weight.grad = None if name == waiting else torch.ones_like(weight)
    copies = {name: weights[name].detach().clone().requires_grad_() for name in elastic.began if name != waiting}
    squares = {name: (copy - elastic.began[name]).square() for name, copy in copies.items()}
    parts_of_it = [((15.0 * elastic.importance[name] + 0.005) * square).sum() for name, square in squares.items()]
    wanted = torch.stack(parts_of_it).sum()
    wanted.backward()
    assert bench.method.pull(bench.loaded) == pytest.approx(wanted.item(), rel=1e-12)
    for name, weight in weights.items():
        if name != waiting:
            more = copies[name].grad if name in copies else torch.zeros_like(weight)
            assert torch.allclose(weight.grad - 1, more, atol=1e-12), name  # type: ignore[operator]
    assert weights[waiting].grad is None


def test_importance_of_another_model_is_refused(bases: Bases) -> None:
    bench = set_up(bases("bert"), Full())
    with pytest.raises(ModelError, match="nothing that moves"):
        Elastic.of(bench.loaded, 1.0, {"classifier.weight": torch.ones(3, 32), "other": torch.ones(2)})
    with pytest.raises(ModelError, match=r"another model.*pooler"):
        Elastic.of(bench.loaded, 1.0, {"bert.pooler.dense.bias": torch.ones(5)})


@pytest.mark.parametrize("kind", ["full", "last-layers", "lora", "pfeiffer", "gradual-unfreezing"])
def test_a_held_method_moves_the_same_weights(bases: Bases, kind: str) -> None:
    """Every weight is in one group as before, at its rate; what is held does not decay. It trains, and what waits at a
    step does not move however far it lies from where it began."""
    plain, bench = (set_up(bases("bert", dropout=0.0), EVERY_METHOD[kind]) for _ in range(2))
    elastic = held(bench, 1.0)
    for one in (plain, bench):
        one.method.begin(one.loaded, Span(8, 4, 0))
    groups, before = (one.method.groups(one.loaded, 1e-3, 0.1) for one in (bench, plain))
    rates = [{name: group["peak"] for group in found for name in group["names"]} for found in (groups, before)]
    assert rates[0] == rates[1] and sum(len(group["names"]) for group in groups) == len(rates[0])
    named = dict(bench.loaded.model.named_parameters())
    for group in groups:
        assert all(named[name] is weight for name, weight in zip(group["names"], group["params"], strict=True))
        assert len({name in elastic.began for name in group["names"]}) == 1
        assert group["weight_decay"] == 0.0 or group["names"][0] not in elastic.began
    assert any(group["weight_decay"] for group in groups), "a new head decays as ever"
    assert bench.method.some_wait == plain.method.some_wait and bench.method.settings is not None
    began, after_each = bench.weights(), []
    waits = [name for name in elastic.began if "layer.0" in name and kind == "gradual-unfreezing"]
    elastic.began |= {name: elastic.began[name] + 1.0 for name in waits}
    steps = train(bench, steps=4, after=lambda step: after_each.append(bench.weights()))
    assert steps[1].metrics["pull"] > 0
    assert all(torch.equal(after_each[0][name], began[name]) for name in waits)
    assert bool(waits) == (kind == "gradual-unfreezing")


def test_the_head_alone_can_be_held_too(bases: Bases) -> None:
    """Of what moves with a head its pooler came with the base."""
    bench = set_up(bases("bert", dropout=0.0), Full())
    elastic = held(bench, 1e9, fill=1.0)
    bench.method = Consolidated(HeadAlone(), elastic)
    (_, second) = train(bench, steps=2)
    assert second.metrics["pull"] > 0 and bench.method.some_wait
    moved = {
        name
        for name, now in bench.weights().items()
        if name in elastic.began and not torch.equal(now, elastic.began[name])
    }
    assert moved and all("pooler" in name for name in moved)


def test_what_matters_is_forgotten_less() -> None:
    """A second task learned to its end by an optimizer that needs value and gradient to agree: there the task and what
    holds are in balance, which is the minimum of the paper's loss; the first task has lost less than without."""
    loaded, examples = regression(24)
    task, layer = Regression(), loaded.model[0]  # type: ignore[index]
    first = [{**row, "target": int(row["numbers"][0] > 0)} for row in examples]
    second = [{**row, "target": int(row["numbers"][0] + row["numbers"][1] < 0.3)} for row in examples]

    def loss_on(rows: list[Any]) -> torch.Tensor:
        loss = task.loss(loaded, task.collate(rows, None))
        return loss.total / loss.count

    def learn(rows: list[Any], steps: int, elastic: Elastic | None = None) -> None:
        optimizer = torch.optim.LBFGS(layer.parameters(), 1.0, steps, None, 1e-10, 1e-15, 20, "strong_wolfe")

        def judged() -> float:
            optimizer.zero_grad()
            loss = loss_on(rows)
            loss.backward()
            return loss.item() + (elastic.pull(list(loaded.model.named_parameters())) if elastic else 0.0)

        optimizer.step(judged)

    loaded.model.eval()
    learn(first, 4)
    began = {name: weight.detach().clone() for name, weight in loaded.model.named_parameters()}
    importance = importance_of(loaded, task, first, CPU, 24)
    lost = {}
    for strength in (0.0, 20.0):
        loaded.model.load_state_dict(began)
        learn(second, 300, Elastic(strength, began, importance))
        lost[strength] = loss_on(first).item()
    gradients = torch.autograd.grad(loss_on(second), list(layer.parameters()))
    for (name, weight), gradient in zip(loaded.model.named_parameters(), gradients, strict=True):
        assert torch.allclose(gradient, 20.0 * importance[name] * (began[name] - weight), atol=1e-6)
    assert lost[20.0] < 0.7 * lost[0.0]


def test_no_strength_is_no_pull(bases: Bases) -> None:
    plain, none = (set_up(bases("bert"), Full()) for _ in range(2))
    held(none, 0.0)
    train(plain, steps=3, weight_decay=0.0)
    assert all("pull" not in step.metrics for step in train(none, steps=3, weight_decay=0.0))
    assert largest_difference(plain.weights(), none.weights()) < 1e-12


def test_a_held_run_resumes_exactly(bases: Bases, tmp_path: Path) -> None:
    """The same from a checkpoint in the middle, with weights held anew by the base and the rows alone."""

    def begin() -> tuple[Bench, Any, Any]:
        bench = set_up(bases("bert"), Full(mixout=0.2), precision="fp32")
        held(bench, 100.0)
        bench.method.begin(bench.loaded, Span(6, 3, 0))
        optimizer = loop.make_optimizer(bench.loaded, bench.method, 3e-3, 0.01)
        return bench, optimizer, (Order(20, 8, 0), loop.Course(6, 0.1, "linear", 1.0, 0), optimizer, bench.devices)

    bench, optimizer, rest = begin()
    pulls = []
    for step in loop.train(bench.loaded, bench.method, bench.task, bench.examples, *rest):
        pulls.append(step.metrics.get("pull", 0.0))
        if step.number == 3:
            checkpoints.save(tmp_path, bench.loaded, optimizer, Progress(step=3), {})
    again, optimizer, rest = begin()
    path = checkpoints.path_of(tmp_path, 3)
    checkpoints.load_weights(path, again.loaded)
    checkpoints.load_moments(path, optimizer)
    steps = list(loop.train(again.loaded, again.method, again.task, again.examples, *rest, start=3))
    assert [step.metrics["pull"] for step in steps] == pulls[3:] and all(pulls[1:])
    assert largest_difference(bench.weights(), again.weights()) == 0.0


def test_a_held_run_is_saved_as_its_method_saves_it(bases: Bases, tmp_path: Path) -> None:
    bench = set_up(bases("bert"), Full(), precision="fp32")
    held(bench, 1.0)
    train(bench, steps=2)
    bench.method.save(bench.loaded, tmp_path)
    assert bench.method.base_to_open(tmp_path, "base") == str(tmp_path)
    assert bench.method.open(bench.loaded, tmp_path) is bench.loaded
    assert bench.method.merge(bench.loaded) is bench.loaded.model
    assert (tmp_path / "model.safetensors").exists()
