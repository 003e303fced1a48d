"""A rewritten model computes what the plain one computes, and is the plain one again when the rewrite is undone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from workbench import EVERY_METHOD, Bench, largest_difference, run_tiny, set_up, train

import tiny
from tunesmith.data.batches import budget_for, cut, share_out
from tunesmith.devices import seed_everything
from tunesmith.errors import RecipeError
from tunesmith.models.layers import set_training_mode
from tunesmith.recipe import Settings
from tunesmith.rewrites import REWRITES, fitting, rewritten, try_out
from tunesmith.rewrites.flat_batch import COUNTS_POSITIONS_FROM_PADDING, FlatBatch, Layout

Bases = Callable[..., Path]
FAMILIES = {"bert": "bert", "electra": "electra", "roberta": "roberta"}
"""One architecture for each distinct way; xlm-roberta and camembert are roberta under other names."""
WAYS = ("full", "head", "lora", "houlsby")
"""Methods for the other families: all moves, nothing below moves, linear layers are wrapped, a hook stands behind them;
what else methods do is a choice among these, and BERT is tried under every one."""


def trained(folder: Path, method: Settings, names: list[str], budget: int = 2048) -> tuple[Bench, list[Any]]:
    bench = set_up(folder, method, budget=budget)
    with rewritten([bench.loaded], names):
        steps = train(bench, steps=3, weight_decay=0.05, warmup_ratio=0.3, max_grad_norm=0.2)
    return bench, steps


KINDS = [kind for kind in EVERY_METHOD if kind not in ("qlora", "prefix", "prompt")]
CELLS = [(family, kind) for family in FAMILIES for kind in KINDS if family == "bert" or kind in WAYS]


@pytest.mark.parametrize(("family", "kind"), CELLS)
@pytest.mark.parametrize("name", REWRITES)
def test_rewritten_training_equals_plain_training(bases: Bases, family: str, name: str, kind: str) -> None:
    """In double precision and without dropout: losses, gradients' norms and weights of three steps on ragged rows.

    4 bits compute in single precision; virtual tokens are an obstacle, as `test_law_virtual_tokens` shows."""
    folder = bases(family, dropout=0.0)
    plain, plain_steps = trained(folder, EVERY_METHOD[kind], [])
    for budget in (2048, 30):
        other, other_steps = trained(folder, EVERY_METHOD[kind], [name], budget)
        assert largest_difference(plain.weights(), other.weights()) <= 1e-11
        for one, two in zip(plain_steps, other_steps, strict=True):
            assert one.loss == pytest.approx(two.loss, abs=1e-12)
            assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-9)
            assert (one.rows, one.tokens, one.metrics) == (two.rows, two.tokens, two.metrics)


@pytest.mark.parametrize("name", REWRITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_in_row_order_and_undone_without_a_trace(bases: Bases, family: str, name: str) -> None:
    """Rows keep their places; after undoing, the plain path is back to the last bit."""
    bench = set_up(bases(family), EVERY_METHOD["full"], num_rows=23)
    before = bench.logits()
    with rewritten([bench.loaded], [name]):
        assert not bench.loaded.pads
        inside = bench.logits()
    assert torch.allclose(before, inside, rtol=0, atol=1e-12)
    assert torch.equal(before, bench.logits())
    assert bench.loaded.pads
    assert not any("forward" in vars(module) for module in bench.loaded.model.modules())


def test_a_padding_token_in_the_text_and_pairs(bases: Bases) -> None:
    """RoBERTa counts positions past padding ids, wherever they stand; BERT tells the texts of a pair apart."""
    for family in ("roberta", "bert"):
        bench = set_up(bases(family, dropout=0.0), EVERY_METHOD["full"], num_rows=6)
        batch = bench.batch()
        batch["input_ids"][2, 2] = bench.loaded.processor.pad_token_id
        if "token_type_ids" in batch:
            batch["token_type_ids"][:, 3:] = 1
            batch["token_type_ids"] *= batch["attention_mask"]
        inputs = {name: tensor for name, tensor in batch.items() if name != "target"}
        bench.loaded.model.eval()
        plain = bench.loaded(**inputs).logits
        with rewritten([bench.loaded], ["flat-batch"]):
            assert torch.allclose(plain, bench.loaded(**inputs).logits, rtol=0, atol=1e-12)


def losses(bench: Bench, number: int) -> list[float]:
    """The loss of one batch in training mode, under many seeds."""
    set_training_mode(bench.loaded.model)
    found = []
    for seed in range(number):
        seed_everything(seed, 1, 0)
        with torch.no_grad():
            found.append(float(bench.task.loss(bench.loaded, bench.batch()).total))
    return found


@pytest.mark.parametrize("where", ["attention", "elsewhere"])
def test_dropout_has_the_same_distribution(bases: Bases, where: str) -> None:
    """Other masks, equal in law: mean and spread of the loss over many seeds agree within sampling error."""
    number = 200
    bench = set_up(bases("bert", dropout=0.3), EVERY_METHOD["full"], num_rows=12, precision="fp32")
    with torch.no_grad():
        for parameter in bench.loaded.model.parameters():
            parameter *= 3.0  # a tiny random model hardly notices dropout at its initial scale
    for name, module in bench.loaded.model.named_modules():
        if isinstance(module, torch.nn.Dropout) and ("self" in name) != (where == "attention"):
            module.p = 0.0
    plain = losses(bench, number)
    with rewritten([bench.loaded], ["flat-batch"]):
        flat = losses(bench, number)
    error = ((stdev(plain) ** 2 + stdev(flat) ** 2) / number) ** 0.5
    assert abs(fmean(plain) - fmean(flat)) <= 4 * error
    assert 0.75 <= stdev(flat) / stdev(plain) <= 1.33


def test_frozen_blocks_run_without_dropout(bases: Bases) -> None:
    """`last-layers` keeps frozen blocks in evaluation mode, rewritten or not: below the top nothing is random."""
    bench = set_up(bases("bert", dropout=0.5), EVERY_METHOD["head"], num_rows=12)
    set_training_mode(bench.loaded.model)
    states = []
    with rewritten([bench.loaded], ["flat-batch"]), torch.no_grad():
        for _ in range(2):
            inputs = {name: tensor for name, tensor in bench.batch().items() if name != "target"}
            states.append(bench.loaded.model.bert(**FlatInputs(bench)(inputs)).last_hidden_state)
    assert torch.equal(*states)


class FlatInputs:
    """The batch as the rewrite hands it to the body (its entry is a hook on the whole model)."""

    def __init__(self, bench: Bench) -> None:
        (self.hook,) = bench.loaded.model._forward_pre_hooks.values()
        self.model = bench.loaded.model

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(self.hook(self.model, (), inputs)[1])


def test_layout_of_a_ragged_batch() -> None:
    layout = Layout.of(torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 1, 0]]))
    assert layout.order.tolist() == [1, 3, 0, 2]
    assert layout.firsts.tolist() == [0, 1, 3, 6]
    assert layout.order[layout.back].tolist() == [0, 1, 2, 3]
    assert [(g.rows, g.tokens, g.length) for g in layout.groups] == [
        (slice(0, 1), slice(0, 1), 1),
        (slice(1, 2), slice(1, 3), 2),
        (slice(2, 4), slice(3, 9), 3),
    ]


def test_what_does_not_fit_is_said_or_refused(bases: Bases, tmp_path: Path) -> None:
    """`auto` passes over a model that a rewrite was not made for; asked for by name it is an error."""
    bench = set_up(bases("llama"), EVERY_METHOD["full"])
    names, why = fitting(bench.loaded, torch.device("cpu"))
    assert names == [] and "llama" in why
    assert "llama" not in COUNTS_POSITIONS_FROM_PADDING
    assert fitting(set_up(bases("bert"), EVERY_METHOD["lora"]).loaded, torch.device("cpu"))[0] == ["flat-batch"]
    assert fitting(bench.loaded, torch.device("cuda"))[0] == []
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(40))
    with pytest.raises(RecipeError, match=r"flat-batch does not fit.*llama"):
        run_tiny(bases("llama"), data, tmp_path / "run", train={"rewrites": ["flat-batch"]})


def test_a_rewrite_that_errs_is_left_out(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong attention scale is found on the first rows; the run then is the plain run, to the bit, and says so."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(40))
    plain = run_tiny(bases("bert"), data, tmp_path / "off", train={"rewrites": "off"})
    good = run_tiny(bases("bert"), data, tmp_path / "good")
    (trial,) = good.manifest["rewrites"]
    assert trial["name"] == "flat-batch" and trial["used"] and trial["difference"] <= trial["tolerance"] == 5e-5
    assert plain.manifest["rewrites"] == []
    assert plain.manifest["model_sha256"] != good.manifest["model_sha256"], "dropout masks fall elsewhere"
    attend = FlatBatch._attend
    monkeypatch.setattr(FlatBatch, "_attend", lambda self, attention, *states: 1.1 * attend(self, attention, *states))
    bench = set_up(bases("bert"), EVERY_METHOD["full"])
    (found,) = try_out(["flat-batch"], bench.loaded, bench.task, bench.examples, bench.devices)
    assert not found.used and found.difference > 1e-3
    wrong = run_tiny(bases("bert"), data, tmp_path / "wrong")
    assert [trial["used"] for trial in wrong.manifest["rewrites"]] == [False]
    assert wrong.manifest["model_sha256"] == plain.manifest["model_sha256"]


def test_every_rank_has_work() -> None:
    """Without padding a batch is one piece; with ranks it is cut so that each has a part of about equal weight."""
    lengths = [3, 9, 4, 20, 7, 7, 12, 5]
    assert len(cut(lengths, 2048, None, pads=False)) == 1
    for ranks in (2, 3):
        pieces = cut(lengths, budget_for(lengths, 2048, ranks), None, pads=False)
        loads = [sum(lengths[i] for piece in mine for i in piece) for mine in share_out(pieces, lengths, ranks, False)]
        assert min(loads) > 0 and sum(loads) == sum(lengths)
