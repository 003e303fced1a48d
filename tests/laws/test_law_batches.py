"""How a batch is cut changes nothing, and the loop does what a plain one would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import Bench, largest_difference, set_up, train

from tunesmith.data.batches import Order
from tunesmith.recipe import Full, Lora, Settings

FAMILIES = ("bert", "roberta", "distilbert", "llama")
METHODS = {"full": Full(), "lora": Lora(rank=4)}
STEPS, BATCH, RATE, DECAY, WARMUP, CLIP = 3, 8, 2e-3, 0.05, 0.3, 0.2

Bases = Callable[..., Path]


def trained(folder: Path, method: Settings, budget: int) -> tuple[Bench, list[Any]]:
    bench = set_up(folder, method, budget=budget)
    steps = train(
        bench, STEPS, BATCH, RATE, weight_decay=DECAY, warmup_ratio=WARMUP, max_grad_norm=CLIP, lr_scheduler="linear"
    )
    return bench, steps


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_accumulated_equals_whole_batch(bases: Bases, family: str, kind: str) -> None:
    """One row a piece, some rows a piece, the whole batch in one: the same losses and weights after three steps."""
    folder = bases(family, dropout=0.0)
    whole, whole_steps = trained(folder, METHODS[kind], budget=10**9)
    for budget in (1, 40):
        cut, cut_steps = trained(folder, METHODS[kind], budget)
        assert largest_difference(whole.weights(), cut.weights()) <= 1e-12
        for one, other in zip(whole_steps, cut_steps, strict=True):
            assert one.loss == pytest.approx(other.loss, abs=1e-12)
            assert (one.rows, one.tokens) == (other.rows, other.tokens)


def plain_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """The field's convention, by name: biases and norms do not decay."""
    moving = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    spared = [name for name, _ in moving if name.endswith("bias") or "norm" in name.lower()]
    return [
        {"params": [parameter for name, parameter in moving if name not in spared], "weight_decay": DECAY},
        {"params": [parameter for name, parameter in moving if name in spared], "weight_decay": 0.0},
    ]


def plain_model(folder: Path, kind: str, start: Bench, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Plain transformers (and PEFT), put on the same starting weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, dtype=torch.float64)
    model.config.pad_token_id = 0
    if kind == "lora":
        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.startswith(f"{model.base_model_prefix}.")
        ]
        heads = [name for name, _ in model.named_children() if name not in (model.base_model_prefix, "dropout")]
        config = LoraConfig(r=4, lora_alpha=8, target_modules=linear, modules_to_save=heads)
        model = get_peft_model(model, config, autocast_adapter_dtype=False)
    assert {name for name, _ in model.named_parameters()} == set(weights)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
            assert parameter.requires_grad == start.loaded.model.get_parameter(name).requires_grad, name
    return model


def plain_training(model: torch.nn.Module, bench: Bench) -> list[tuple[float, float]]:
    """Padded batches, the model's own loss, AdamW, clipping: (loss, gradient norm) of each step."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bench.loaded.base.folder)
    optimizer = torch.optim.AdamW(plain_groups(model), lr=RATE, foreach=False)
    order = Order(len(bench.rows), BATCH, seed=0)
    told = []
    model.train()
    for step in range(1, STEPS + 1):
        rows = [bench.rows[index] for index in order.rows_of(step)]
        batch = tokenizer([row["text"] for row in rows], padding="longest", return_tensors="pt")
        batch["labels"] = torch.tensor([bench.task.labels.index(row["label"]) for row in rows])
        warmup = math.ceil(WARMUP * STEPS)
        falls = 1 - (step - 1 - warmup) / (STEPS - warmup)
        for group in optimizer.param_groups:
            group["lr"] = RATE * (step / (warmup + 1) if step <= warmup else falls)
        loss = model(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], CLIP)
        optimizer.step()
        optimizer.zero_grad()
        told.append((loss.item(), norm.item()))
    return told


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_equals_a_plain_one(bases: Bases, family: str, kind: str) -> None:
    """The oracle: a padded loop in plain torch and transformers gives the same losses, norms and weights."""
    folder = bases(family, dropout=0.0)
    start = set_up(folder, METHODS[kind])
    model = plain_model(folder, kind, start, start.weights())
    told = plain_training(model, start)
    bench, steps = trained(folder, METHODS[kind], budget=60)
    assert max(norm for _, norm in told) > CLIP, "clipping must act, or it is not tested"
    for step, (loss, norm) in zip(steps, told, strict=True):
        assert step.loss == pytest.approx(loss, abs=1e-9)
        assert step.grad_norm == pytest.approx(norm, rel=1e-9)
    theirs = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert largest_difference(bench.weights(), theirs) <= 1e-9
    moved = largest_difference(start.weights(), theirs)
    assert moved > 1e-4, "weights must have moved, or nothing was compared"
