"""Several tasks on one body: what is learned is the mean over rows whatever their task, and each task's part stands
alone afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import EVERY_METHOD, TASKS

import tiny
from tunesmith import loop, methods, tasks
from tunesmith.data.mixing import MixedOrder, quotas_beside, quotas_by_temperature, quotas_by_weight
from tunesmith.data.rows import Row
from tunesmith.devices import Devices
from tunesmith.methods.contract import Span
from tunesmith.models.joint import copy_part, join
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import find_base
from tunesmith.preparing import apply_method
from tunesmith.recipe import Settings
from tunesmith.tasks.contract import Limit
from tunesmith.tasks.multitask import MultiTask, Part, count_per_row

KINDS = ("token-classification", "text-classification", "question-answering")
"""The first brings a body without a pooler, the second needs one."""

FITTING = [kind for kind in EVERY_METHOD if kind not in ("prefix", "prompt", "qlora")]


class Bench:
    """Three tasks on one tiny body, under a method."""

    def __init__(self, folder: Path, method: Settings, budget: int = 2048) -> None:
        self.devices = Devices(torch.device("cpu"), None, torch.float64, threads=1, micro_batch_tokens=budget)
        self.tasks: dict[str, Any] = {}
        self.views: dict[str, Loaded] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.base = find_base(str(folder))
        self.settings = method
        for kind in KINDS:
            settings, make_rows = TASKS[kind]
            task = tasks.build(settings)
            rows = [Row(values, "rows", number) for number, values in enumerate(make_rows(12), start=1)]
            task.learn(rows)
            loaded = task.load(self.base, 0, torch.float64)
            self.tasks[kind], self.views[kind] = task, loaded
            self.rows[kind] = task.encode(rows, loaded.processor, Limit(64))
        self.joint = join(self.views)
        self.method = methods.build(method)
        apply_method(self.method, self.joint, 0, self.devices, dropout=0.0)
        self.task = MultiTask(
            {k: Part(self.tasks[k], self.views[k], count_per_row(self.tasks[k], self.views[k], self.rows[k]))
             for k in KINDS}
        )  # fmt: skip
        self.examples = [example for kind in KINDS for example in self.task.marked(kind, self.rows[kind])]
        sizes = tuple(len(self.rows[kind]) for kind in KINDS)
        self.order = MixedOrder(sizes, sizes, batch_size=9, seed=0)

    def train(self, steps: int, order: MixedOrder | None = None) -> list[loop.Step]:
        order = order or self.order
        self.method.begin(self.joint, Span(steps, order.steps_per_epoch, 0))
        optimizer = loop.make_optimizer(self.joint, self.method, 3e-3, 0.01)
        course = loop.Course(steps, 0.06, "linear", 1.0, 0)
        return list(
            loop.train(self.joint, self.method, self.task, self.examples, order, course, optimizer, self.devices)
        )

    def outputs(self, kind: str, loaded: Loaded) -> list[torch.Tensor]:
        """What a task's model answers to its rows."""
        loaded.model.eval()
        inputs = ("input_ids", "attention_mask", "token_type_ids")
        batch = self.tasks[kind].collate(self.rows[kind], loaded.processor)
        with torch.no_grad():
            made = loaded.model(**{name: batch[name] for name in inputs if name in batch})
        return [made[name] for name in ("logits", "start_logits", "end_logits") if name in made]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.make_model(tmp_path / "base", dropout=0.0)


def test_an_epoch_by_size_is_each_row_once() -> None:
    order = MixedOrder((5, 9), (5, 9), batch_size=4, seed=3)
    for epoch in range(3):
        steps = range(epoch * order.steps_per_epoch + 1, (epoch + 1) * order.steps_per_epoch + 1)
        rows = [row for step in steps for row in order.rows_of(step)]
        assert sorted(rows) == list(range(14))
    assert order.rows_of(1) != order.rows_of(1 + order.steps_per_epoch)
    assert order.epoch_of(order.steps_per_epoch) == 1.0


@pytest.mark.parametrize(("size", "quota"), [(6, 4), (3, 10)])
def test_a_quota_takes_all_rows_in_turn(size: int, quota: int) -> None:
    """After any number of epochs no row was taken twice more than another."""
    order = MixedOrder((7, size), (7, quota), batch_size=5, seed=1)
    taken: Counter[int] = Counter()
    for step in range(1, 6 * order.steps_per_epoch + 1):
        taken.update(order.rows_of(step))
        if step % order.steps_per_epoch == 0:
            counts = [taken[row] for row in range(7, 7 + size)]
            assert sum(counts) == quota * step // order.steps_per_epoch
            assert max(counts) - min(counts) <= 1


def test_quotas_keep_the_number_of_rows_and_follow_their_rule() -> None:
    assert quotas_by_temperature([900, 100], 1.0) == (900, 100)
    assert quotas_by_temperature([900, 100], 2.0) == (750, 250)  # 30 : 10
    assert quotas_by_weight([600, 300, 100], [1, 1, 2]) == (250, 250, 500)
    assert sum(quotas_by_weight([7, 5, 3], [1, 1, 1])) == 15
    assert quotas_beside(95, [30, 10], 0.05) == (95, 4, 1)
    assert quotas_beside(95, [30, 10], 0.0) == (95, 0, 0)
    assert quotas_beside(95, [1000, 10], 0.05) == (95, 5, 1), "none is left out for being small"


def test_the_loss_is_the_mean_over_rows_of_all_tasks(folder: Path) -> None:
    """Of each task its own mean, each task weighing as many rows as the batch has of it: here all rows of all."""
    bench = Bench(folder, EVERY_METHOD["full"])
    whole = MixedOrder(bench.order.sizes, bench.order.quotas, batch_size=36, seed=0)
    means = []
    for kind in KINDS:
        batch = bench.tasks[kind].collate(bench.rows[kind], bench.views[kind].processor)
        loss = bench.tasks[kind].loss(bench.views[kind], batch)
        means.append(float(loss.total.detach()) / loss.count)
    [step] = bench.train(1, whole)
    assert step.loss == pytest.approx(sum(means) / 3, rel=1e-12)
    assert step.rows == 36


def test_how_a_batch_is_cut_changes_nothing(folder: Path) -> None:
    whole, pieces = (Bench(folder, EVERY_METHOD["full"], budget) for budget in (100_000, 40))
    for one, other in zip(whole.train(4), pieces.train(4), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-12)
    for (name, one), (_, other) in zip(
        whole.joint.model.named_parameters(), pieces.joint.model.named_parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-10), name


@pytest.mark.parametrize("kind", FITTING)
def test_every_method_learns_and_each_part_stands_alone(folder: Path, kind: str) -> None:
    bench = Bench(folder, EVERY_METHOD[kind])
    before = {name: parameter.clone() for name, parameter in bench.joint.model.named_parameters()}
    frozen = [name for name, parameter in bench.joint.model.named_parameters() if not parameter.requires_grad]
    steps = bench.train(24)
    assert mean_loss(steps[-4:]) < 0.95 * mean_loss(steps[:4])
    after = dict(bench.joint.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    for name in KINDS:
        alone = bench.tasks[name].load(bench.base, 0, torch.float64)
        apply_method(methods.build(bench.settings), alone, 0, bench.devices, dropout=0.0)
        untouched = bench.outputs(name, alone)
        copy_part(bench.views[name], alone)
        for mine, theirs, began in zip(
            bench.outputs(name, alone), bench.outputs(name, bench.views[name]), untouched, strict=True
        ):
            assert torch.equal(mine, theirs)
            assert not torch.equal(mine, began)


def test_a_task_without_a_share_moves_nothing_of_its_own(folder: Path) -> None:
    bench = Bench(folder, EVERY_METHOD["full"])
    heads = {n: p.clone() for n, p in bench.joint.model.named_parameters() if "for_text" in n or "for_question" in n}
    assert heads
    sizes = bench.order.sizes
    bench.train(3, MixedOrder(sizes, (sizes[0], 0, 0), batch_size=9, seed=0))
    now = dict(bench.joint.model.named_parameters())
    assert all(torch.equal(tensor, now[name]) for name, tensor in heads.items())


def mean_loss(steps: Sequence[loop.Step]) -> float:
    return math.fsum(step.loss for step in steps) / len(steps)
