"""How fast and when weights move: per-layer rates, layers that join, a head taught first, weights held to where they
began; each against the formula of its paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import Bench, recipe_of, run_tiny, set_up, train

import tiny
from tunesmith import preflight
from tunesmith.checking import check
from tunesmith.checkpoints import path_of
from tunesmith.errors import ModelError
from tunesmith.folder import lines
from tunesmith.loop import Course, make_optimizer
from tunesmith.methods.contract import Span
from tunesmith.methods.regularisers import Mixout, StartingPoint, mixed
from tunesmith.models import layers
from tunesmith.recipe import BitFit, Full, GradualUnfreezing, LastLayers, Lora

Bases = Callable[..., Path]

DEPTHS = {
    "classifier.weight": 0,
    "bert.pooler.dense.bias": 0,
    "bert.encoder.layer.2.output.dense.weight": 1,
    "bert.encoder.layer.1.output.dense.weight": 2,
    "bert.encoder.layer.0.attention.self.query.bias": 3,
    "bert.embeddings.word_embeddings.weight": 4,
    "bert.embeddings.LayerNorm.bias": 4,
}
"""How far some weights of a model of three layers lie from its head, by hand."""


def rates_of(bench: Bench, rate: float = 1.0) -> dict[str, float]:
    groups = make_optimizer(bench.loaded, bench.method, rate, 0.01).param_groups
    return {name: group["peak"] for group in groups for name in group["names"]}


@pytest.mark.parametrize("asked", [2.6, 1 / 2.6])
def test_rates_fall_by_layer(bases: Bases, asked: float) -> None:
    """Each layer's rate is that of the one above it through 2.6, however the number is written; decay is as ever."""
    bench = set_up(bases("bert"), Full(layer_decay=asked))
    rates = rates_of(bench, rate=1e-3)
    assert set(rates) == set(bench.weights())
    for name, depth in DEPTHS.items():
        assert rates[name] == pytest.approx(1e-3 / 2.6**depth)
    for group in make_optimizer(bench.loaded, bench.method, 1.0, 0.5).param_groups:
        decays = {parameter.ndim >= 2 for parameter in group["params"]}
        assert decays == {group["weight_decay"] == 0.5}


def test_rates_fall_by_layer_under_adapters_and_in_images(bases: Bases) -> None:
    """Behind PEFT's names, and in a network of convolutions, layers are found, too."""
    lora = rates_of(set_up(bases("bert"), Lora(rank=2, layer_decay=2.0)))
    factor = {name: rate for name, rate in lora.items() if "layer.0." in name}
    assert factor and set(factor.values()) == {1 / 2**3}
    assert {rate for name, rate in lora.items() if "classifier" in name} == {1.0}
    picture = set_up(bases("efficientnet-lite"), Full(layer_decay=2.0), kind="image-classification")
    rates = rates_of(picture)
    blocks = len(layers.blocks(picture.loaded.model))
    assert rates["classifier.weight"] == 1.0
    assert rates[f"efficientnet.blocks.{blocks - 1}.project.weight"] == 0.5
    assert rates["efficientnet.stem.weight"] == pytest.approx(0.5 ** (blocks + 1))


@pytest.mark.parametrize(
    ("settings", "joins"),
    [
        ({"every": 1.0}, [1, 4, 7, 10, 13]),
        ({"every": 0.5}, [1, 3, 4, 6, 7]),
        ({"until": 0.5}, [1, 3, 5, 7, 9]),
    ],
    ids=str,
)
def test_layers_join_from_the_head_down(bases: Bases, settings: dict[str, Any], joins: list[int]) -> None:
    """Three steps an epoch, sixteen steps: what moves at each step is exactly what has joined by the paper's rule (one
    layer more each epoch), and a layer's moments count from the step that it joined at."""
    bench = set_up(bases("bert", dropout=0.0), GradualUnfreezing(**settings))
    depths = layers.depths(bench.loaded.model, bench.loaded.head_names)
    before = bench.weights()
    optimizers: list[torch.optim.Optimizer] = []
    real = torch.optim.AdamW.__init__
    unused = {"bert.embeddings.position_embeddings.weight", "bert.embeddings.word_embeddings.weight"}

    def look(step: Any) -> None:
        nonlocal before
        now = bench.weights()
        deepest = max(depth for depth, first in enumerate(joins) if first <= step.number)
        for name, weight in now.items():
            moved = not torch.equal(weight, before[name])
            assert moved == (depths[name] <= deepest), f"{name} at step {step.number}"
        before = now
        assert all(parameter.requires_grad for parameter in bench.loaded.model.parameters())

    def kept(self: Any, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        optimizers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "__init__", kept)
        train(bench, steps=16, after=look, warmup_ratio=0.0, lr_scheduler="constant")
    (optimizer,) = optimizers
    names = {id(parameter): name for name, parameter in bench.loaded.model.named_parameters()}
    assert unused <= set(before)
    for parameter, state in optimizer.state.items():
        assert int(state["step"]) == 16 - joins[depths[names[id(parameter)]]] + 1


def test_what_waits_has_no_dropout(bases: Bases) -> None:
    """A layer is in training mode from the step that it joins at."""
    bench = set_up(bases("bert", dropout=0.5), GradualUnfreezing(every=1.0))
    modes: list[list[bool]] = []
    blocks = [block for _, block in layers.blocks(bench.loaded.model)]
    train(bench, steps=9, after=lambda step: modes.append([block.training for block in blocks]))
    assert modes == [[False] * 3] * 3 + [[False, False, True]] * 3 + [[False, True, True]] * 3


def test_a_head_taught_first_leaves_the_body_alone(bases: Bases, tmp_path: Path) -> None:
    """The checkpoint after the head's epochs holds the base's body to the bit and another head; then all moves."""
    from safetensors.torch import load_file

    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))
    method = {"kind": "full", "head_first": {"epochs": 2, "learning_rate": 3e-2}}
    run = run_tiny(bases("bert"), data, tmp_path / "run", method=method, train={"steps": 4})
    phases = [(row["phase"], row["step"]) for row in lines(run.folder.steps)]
    head_steps = max(step for phase, step in phases if phase == "head")
    assert phases == [("head", n + 1) for n in range(head_steps)] + [("fit", n + 1) for n in range(4)]
    assert head_steps == 2 * math.ceil(run.manifest["data"]["train"]["rows"] / 8)
    taught = load_file(path_of(run.folder.checkpoints / "head", head_steps) / "weights.safetensors")
    base = set_up(bases("bert"), Full(), precision="fp32").weights()
    moved = {name for name in base if not torch.equal(taught[name], base[name])}
    assert moved == {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    last = load_file(path_of(run.folder.checkpoints, 4) / "weights.safetensors")
    assert not torch.equal(
        last["bert.encoder.layer.0.output.dense.weight"], base["bert.encoder.layer.0.output.dense.weight"]
    )
    assert "Kumar" in run.folder.paper.read_text() and "head first" in run.folder.paper.read_text()


def test_a_head_that_the_base_brings_is_not_taught_first(bases: Bases, tmp_path: Path) -> None:
    """Where the task always brings it the recipe says so; where this base does, loading it."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(30))
    method = {"kind": "full", "head_first": 1}
    with pytest.raises(ValueError, match=r"method\.head_first: the head of translation comes with the base"):
        recipe_of(bases("bert"), data, tmp_path / "run", task="translation", method=method)
    with pytest.raises(ModelError, match=r"method\.head_first: the head of this task comes with the base"):
        masked, rows = bases("bert+masked"), {"validation": str(data)}
        run_tiny(masked, data, tmp_path / "run", task="language-modeling", method=method, data=rows)


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
@pytest.mark.parametrize("task", ["sentence-similarity", "image-classification"])
def test_what_no_model_of_a_task_can_have_is_refused_by_the_recipe(tmp_path: Path, kind: str, task: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} is not for {task}: its models take no virtual tokens"):
        recipe_of(tmp_path, tmp_path, tmp_path, task=task, method=kind)


def test_mixout_is_the_papers_formula() -> None:
    """100 random tensors: the mixed weights and their gradients are those of the published code."""
    generator = torch.Generator().manual_seed(0)
    for case in range(100):
        share = float(torch.rand((), generator=generator)) * 0.9 + 0.05
        shape = torch.randint(1, 9, (2,), generator=generator).tolist()
        own, began, outer = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
        parameter = torch.nn.Parameter(own.clone())
        regulariser = Mixout(share, seed=case, began={"w": began})
        with regulariser.at_step([("w", parameter)], step=7):
            inside = parameter.detach().clone()
            (parameter * outer).sum().backward()
        stays = regulariser._stays(parameter, 7, 0)
        free = own.clone().requires_grad_()
        published = ((1 - stays) * began + stays * free - share * began) / (1 - share)
        (published * outer).sum().backward()
        assert torch.allclose(inside, published.detach(), rtol=0, atol=1e-12)
        assert torch.allclose(mixed(own, began, stays, share), published.detach(), rtol=0, atol=1e-12)
        assert parameter.grad is not None and free.grad is not None
        assert torch.allclose(parameter.grad, free.grad, rtol=0, atol=1e-12)
        assert torch.equal(parameter.detach(), own)


def test_mixout_keeps_the_mean_and_draws_by_step() -> None:
    """Over many masks the mean of the mixed weights is the weight; another step draws another mask, each the same
    share of the numbers."""
    own, began = torch.full((200, 200), 2.0), torch.full((200, 200), -1.0)
    parameter = torch.nn.Parameter(own.clone())
    regulariser = Mixout(0.3, seed=1, began={"w": began})
    seen = []
    for step in (1, 2):
        with regulariser.at_step([("w", parameter)], step):
            seen.append(parameter.detach().clone())
            assert float(seen[-1].mean()) == pytest.approx(2.0, abs=0.05)
            assert len(seen[-1].unique()) == 2
    assert not torch.equal(*seen)


def test_mixout_takes_every_seed_that_a_recipe_may_have() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    for seed in (0, 2**31 - 1):
        with Mixout(0.5, seed, {"w": torch.zeros(3, 3)}).at_step([("w", parameter)], 10**9):
            assert set(parameter.detach().flatten().tolist()) <= {0.0, 2.0}


def test_mixout_gives_the_weights_back_after_an_error() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    with pytest.raises(ZeroDivisionError), Mixout(0.5, 0, {"w": torch.zeros(3, 3)}).at_step([("w", parameter)], 1):
        raise ZeroDivisionError
    assert torch.equal(parameter.detach(), torch.ones(3, 3))


def test_mixout_mixes_linear_layers_that_move(bases: Bases) -> None:
    """Every linear layer that moves and came with the base, and nothing else, is mixed; what is frozen stays."""
    bench = set_up(bases("bert", dropout=0.0), LastLayers(layers=1, mixout=0.5))
    before = bench.weights()
    bench.method.begin(bench.loaded, Span(4, 2, 0))
    with torch.no_grad():
        for parameter in bench.loaded.model.parameters():
            parameter += 1 if parameter.requires_grad else 0
    was = bench.weights()
    with bench.method.at_step(bench.loaded, 1):
        now = bench.weights()
    changed = {name for name in was if not torch.equal(was[name], now[name])}
    inside = ("bert.encoder.layer.2.", "bert.pooler.")
    linear = {name for name in was if name.startswith(inside) and name.endswith("weight") and "LayerNorm" not in name}
    assert changed == linear
    train(bench, steps=3)
    assert all(torch.equal(weight, before[name]) for name, weight in bench.weights().items() if "layer.0." in name)


def test_the_pull_to_the_start_is_its_gradient(bases: Bases) -> None:
    """The value and the gradient are those of half the strength times the squared distance, by autograd; new weights
    are not pulled, and what is pulled does not decay."""
    strength, bench = 0.7, set_up(bases("bert", dropout=0.0), Full(l2_sp=0.7))
    bench.method.begin(bench.loaded, Span(4, 2, 0))
    began = bench.weights()
    with torch.no_grad():
        for parameter in bench.loaded.model.parameters():
            parameter += torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
    for parameter in bench.loaded.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    value = bench.method.pull(bench.loaded)
    terms = []
    for name, parameter in bench.loaded.model.named_parameters():
        free = parameter.detach().clone().requires_grad_()
        term = 0.5 * strength * (free - began[name]).square().sum()
        term.backward()
        is_new = name.startswith("classifier.")
        terms.append(0.0 if is_new else term.item())
        assert parameter.grad is not None and free.grad is not None
        assert torch.allclose(parameter.grad, 0.25 + free.grad * (not is_new), rtol=0, atol=1e-12), name
    assert value == pytest.approx(sum(terms), rel=1e-12)
    for group in bench.method.groups(bench.loaded, 1.0, 0.5):
        if group["weight_decay"]:
            assert group["names"] == ["classifier.weight"]


def test_the_pull_is_told_and_holds(bases: Bases) -> None:
    """Each step tells it beside the loss of the task; with a strong one weights stay nearer to where they began."""
    moved = {}
    for strength in (None, 10.0):
        bench = set_up(bases("bert", dropout=0.0), Full(l2_sp=strength))
        before = bench.weights()
        steps = train(bench, steps=12, learning_rate=1e-2)
        moved[strength] = sum(
            float((weight - before[name]).square().sum())
            for name, weight in bench.weights().items()
            if not name.startswith("classifier.")
        )
        assert ("pull" in steps[-1].metrics) == (strength is not None)
    assert moved[10.0] < 0.5 * moved[None]


def test_weights_frozen_at_a_step_are_not_pulled() -> None:
    frozen = torch.nn.Parameter(torch.ones(2))
    assert StartingPoint(1.0, {"w": torch.zeros(2)}).pull([("w", frozen)]) == 0.0
    assert frozen.grad is None


@pytest.mark.parametrize(("steps", "share"), [(100, 0.1), (37, 0.25), (10, 0.06), (1, 0.1), (5, 0.0)])
def test_the_slanted_triangle_is_the_papers(steps: int, share: float) -> None:
    """cut = floor(T cut_frac); p = t / cut before it, 1 - (t - cut) / (cut (1 / cut_frac - 1)) after; the rate is
    (1 + p (ratio - 1)) / ratio of the highest, ratio 32. With T cut_frac whole both say the same to the digit."""
    rates = [Course(steps, share, "slanted-triangular", None, seed=0).rate(step) for step in range(1, steps + 1)]
    cut = max(1, math.floor(steps * share))
    fall = cut * (1 / share - 1) if share and steps * share == cut else steps - cut
    for t, rate in enumerate(rates):
        p = t / cut if t < cut else 1 - (t - cut) / max(1, fall)
        assert rate == pytest.approx((1 + p * 31) / 32)
    assert min(rates) >= 1 / 32
    if steps > 1:
        assert rates.index(max(rates)) == cut and max(rates) == 1.0


def test_biases_and_the_head_move(bases: Bases) -> None:
    """By formula for a BERT: 9 d + f + 2 d (norms) a layer, with d the width and f that of the feed-forward layer, d of
    the embedding's norm, the head, and the pooler's bias. A model without biases is refused."""
    bench = set_up(bases("bert"), BitFit())
    config: Any = bench.loaded.model.config
    d, f, layers_, classes = config.hidden_size, config.intermediate_size, config.num_hidden_layers, 3
    moving = sum(p.numel() for p in bench.loaded.model.parameters() if p.requires_grad)
    assert moving == layers_ * (3 * d + d + f + d + 2 * d) + d + d + (d * classes + classes)
    with pytest.raises(ModelError, match="has no biases"):
        set_up(bases("llama"), BitFit())


@pytest.mark.parametrize(("settings", "left"), [({"every": 1.0}, 3), ({"every": 0.3}, 0), ({"until": 0.5}, 0)], ids=str)
def test_layers_that_never_join_are_told(bases: Bases, tmp_path: Path, settings: dict[str, Any], left: int) -> None:
    """Two epochs, one layer each: three of four are left frozen, which a note says and nothing forbids."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))
    method, epochs = {"kind": "gradual-unfreezing", **settings}, {"steps": None, "epochs": 2.0}
    notes, *_ = check(recipe_of(bases("bert"), data, tmp_path / "run", method=method, train=epochs))
    assert [note.count for note in notes if note.code == "layers-never-join"] == [left] * bool(left)


@pytest.mark.parametrize(("depth", "moving"), [(1, 1), (3, 2)])
def test_auto_asks_for_no_more_layers_than_there_are(bases: Bases, tmp_path: Path, depth: int, moving: int) -> None:
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(150))
    recipe = recipe_of(bases("bert", layers=depth), data, tmp_path / "run", method="auto")
    *_, settled = check(recipe)
    assert settled.method == LastLayers(layers=moving)


FURTHER: dict[str, tuple[dict[str, Any], Any]] = {
    "one phase": ({}, None),
    "a running mean": ({"ema": 0.9}, None),
    "four phases": ({"ema": 0.9, "refit": True}, {"epochs": 1}),
}


@pytest.mark.parametrize("case", FURTHER)
def test_checkpoints_need_what_was_said(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The room that is asked for holds all checkpoints of all phases and one more, and is at most twice as large."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))
    further, head_first = FURTHER[case]
    course = {"steps": 6, "evaluate_every": 1, "checkpoint_every": 1, **further}
    method = {"kind": "full", "head_first": head_first}
    sections: dict[str, Any] = {"train": course, "method": method}
    run = run_tiny(bases("bert"), data, tmp_path / "run", **sections)
    sizes: dict[Path, int] = {}
    for file in run.folder.checkpoints.rglob("*.safetensors"):
        sizes[file.parent] = sizes.get(file.parent, 0) + file.stat().st_size
    needed = sum(sizes.values()) + max(sizes.values())
    monkeypatch.setattr(preflight.folders, "free_bytes", lambda path: 0)
    [note] = preflight._on_disk(
        recipe_of(bases("bert"), data, tmp_path / "run", **sections), run.manifest["parameters"]["trainable"]
    )
    asked = int(note.message.split("about ")[1].split(" bytes")[0].replace(",", ""))
    assert needed <= asked <= 2 * needed


@pytest.mark.parametrize("family", ("bert", "roberta", "distilbert", "llama"))
def test_dropout_is_what_the_recipe_says(bases: Bases, family: str) -> None:
    """At 0 a model in training mode answers twice the same; at another share it does not."""
    bench = set_up(bases(family, dropout=0.3), Full())
    batch = {name: tensor for name, tensor in bench.batch().items() if name in ("input_ids", "attention_mask")}
    for share in (0.0, 0.4):
        layers.set_dropout(bench.loaded.model, share)
        bench.loaded.model.train()
        with torch.no_grad():
            one, other = (bench.loaded.model(**batch).logits for _ in range(2))
        assert torch.equal(one, other) == (share == 0.0)


def test_the_running_mean_is_judged_and_saved(bases: Bases, tmp_path: Path) -> None:
    """The kept model is the mean of the weights of the best step, by hand from every step's checkpoint; the weights
    that train on are not touched by it."""
    from safetensors.torch import load_file

    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))
    course = {"steps": 2, "evaluate_every": 1, "checkpoint_every": 1}
    plain = run_tiny(bases("bert"), data, tmp_path / "plain", train=course)
    run = run_tiny(bases("bert"), data, tmp_path / "run", train={**course, "ema": 0.75})
    mean = set_up(bases("bert"), Full(), precision="fp32").weights()
    for step in range(1, run.manifest["best_step"] + 1):
        weights, same = (
            load_file(path_of(one.folder.checkpoints, step) / "weights.safetensors") for one in (run, plain)
        )
        assert all(torch.equal(weights[name], same[name]) for name in mean)
        mean = {name: 0.75 * mean[name] + 0.25 * weights[name] for name in mean}
    kept = load_file(run.folder.model / "model.safetensors")
    assert all(torch.allclose(kept[name], mean[name], rtol=0, atol=1e-6) for name in mean)
    assert not torch.equal(kept["classifier.weight"], weights["classifier.weight"])
