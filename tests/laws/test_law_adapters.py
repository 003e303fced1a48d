"""What PEFT keeps beside the weights of a base: the formulas of the papers, how many numbers move, what is refused."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from workbench import logits_of, set_up, train

from tunesmith.errors import ModelError
from tunesmith.methods.quantised import quantise
from tunesmith.models.layers import count_parameters
from tunesmith.recipe import Dora, Ia3, Lora, Prefix, Prompt, Qlora

Bases = Callable[..., Path]
quantises = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="bitsandbytes is not installed")


def shapes_of(folder: Path) -> list[tuple[int, int]]:
    """Inputs and outputs of every linear layer of the plain body."""
    model = set_up(folder, Lora(rank=1)).task.load(set_up(folder, Lora(rank=1)).loaded.base, 0, torch.float32).model
    return [
        (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(("classifier", "score"))
    ]


def head_of(family: str) -> int:
    """Numbers of the new head: three classes on 32 numbers; a Llama's has no bias."""
    return 3 * 32 + (3 if family == "bert" else 0)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_as_many_numbers_move_as_the_formulas_say(bases: Bases, family: str) -> None:
    layers = shapes_of(bases(family))
    lora = sum(4 * (inside + outside) for inside, outside in layers) + head_of(family)
    lengths = sum(outside for _, outside in layers)
    keys_and_values = {"bert": 3 * 2 * 32, "llama": 3 * 2 * 16}[family]  # a Llama's are half as wide as it is
    factors = keys_and_values + 3 * 64 + head_of(family)
    wanted = {Lora(rank=4): lora, Dora(rank=4): lora + lengths, Ia3(): factors}
    wanted[Prefix(tokens=4)] = 4 * keys_and_values + head_of(family)
    for method, numbers in wanted.items():
        assert count_parameters(set_up(bases(family), method).loaded.model)["trainable"] == numbers
    if family == "bert":
        prompt = count_parameters(set_up(bases(family), Prompt(tokens=4)).loaded.model)["trainable"]
        assert prompt == 4 * 32 + head_of(family)


@pytest.mark.parametrize("scaling", ["standard", "rank-stabilised"])
@pytest.mark.parametrize("kind", [Lora, Dora])
def test_updates_are_those_of_the_papers(bases: Bases, kind: type[Lora] | type[Dora], scaling: str) -> None:
    """W + s B A, in DoRA each row brought to its learned length; s is alpha / r or alpha / sqrt(r)."""
    bench = set_up(bases("bert"), kind(rank=4, alpha=6, scaling=scaling))
    train(bench, steps=3, learning_rate=1e-2)
    layer = bench.loaded.model.get_submodule("base_model.model.bert.encoder.layer.1.output.dense").eval()
    scale = 6 / (4 if scaling == "standard" else math.sqrt(4))
    outer, inner = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    weight = layer.base_layer.weight + scale * outer @ inner
    if kind is Dora:
        lengths = layer.lora_magnitude_vector["default"].weight
        weight = lengths[:, None] * weight / weight.square().sum(dim=1, keepdim=True).sqrt()
        assert not torch.equal(lengths, layer.base_layer.weight.norm(dim=1)), "lengths were learned"
    inputs = torch.randn(5, weight.shape[1], dtype=torch.float64)
    wanted = inputs @ weight.T + layer.base_layer.bias
    assert float((layer(inputs) - wanted).detach().abs().max()) <= 1e-12
    assert float((layer.base_layer(inputs) - wanted).detach().abs().max()) > 1e-3


def test_dora_begins_as_the_base(bases: Bases) -> None:
    """The lengths begin as the norms of the rows."""
    bench = set_up(bases("bert"), Dora(rank=4))
    plain = bench.task.load(bench.loaded.base, 0, torch.float64)
    batch = {name: bench.batch()[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        difference = bench.loaded.model.eval()(**batch).logits - plain.model.eval()(**batch).logits
    assert float(difference.abs().max()) <= 1e-12


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_the_outer_matrix_alone_is_faster(bases: Bases, kind: type[Lora] | type[Dora]) -> None:
    """LoRA+: B's rate is a multiple of that of A, of lengths and of the head; lengths are never decayed."""
    bench = set_up(bases("bert"), kind(rank=4, b_rate_factor=16))
    rates, decays = {}, {}
    for group in bench.method.groups(bench.loaded, 1e-3, 0.1):
        rates |= dict.fromkeys(group["names"], group["lr"])
        decays |= dict.fromkeys(group["names"], group["weight_decay"])
    assert {rate for name, rate in rates.items() if ".lora_B." in name} == {1e-3 * 16}
    assert {rate for name, rate in rates.items() if ".lora_B." not in name} == {1e-3}
    assert all(decays[name] == (0.0 if "magnitude" in name or name.endswith("bias") else 0.1) for name in decays)


IN_AND_OUT = {
    "bert": ({"key", "value"}, {"output.dense"}),
    "distilbert": ({"k_lin", "v_lin"}, {"ffn.lin2"}),
    "electra": ({"key", "value"}, {"output.dense"}),
    "llama": ({"k_proj", "v_proj"}, {"mlp.down_proj"}),
    "vit": ({"k_proj", "v_proj"}, {"mlp.fc2"}),
    "bart": ({"k_proj", "v_proj"}, {"fc2"}),
    "t5": ({"k", "v"}, {"DenseReluDense.wo"}),
    "gpt2": ({"c_attn"}, {"mlp.c_proj"}),
}
"""What is scaled at its outputs, and what at its inputs, written out by hand."""


@pytest.mark.parametrize("family", IN_AND_OUT)
def test_factors_stand_at_keys_values_and_feed_forward_layers(bases: Bases, writers: Bases, family: str) -> None:
    writes = family in ("bart", "t5", "gpt2")
    kind = {"vit": "image-classification", "gpt2": "translation"}.get(family, "text-classification")
    folder = writers(family) if writes else bases(family)
    bench = set_up(folder, Ia3(), kind="summarization" if writes else kind)
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for name, module in bench.loaded.model.named_modules():
        if hasattr(module, "ia3_l") and not name.endswith("ia3_l"):
            found[module.is_feedforward].add(".".join(name.split(".")[-2:]))
            width = module.ia3_l["default"].numel()
            assert width == (module.in_features if module.is_feedforward else module.out_features)
    outputs, inputs = IN_AND_OUT[family]
    assert {name.rpartition(".")[2] for name in found[False]} == outputs
    assert {name if name in inputs else name.rpartition(".")[2] for name in found[True]} == inputs


def test_what_matches_nothing_is_refused_with_what_there_is(bases: Bases) -> None:
    for method in (Lora(target_modules=["qeury"]), Dora(target_modules=["qeury"]), Ia3(target_modules=["qeury"])):
        with pytest.raises(ModelError, match=r"target_modules: no linear layer is called qeury; there are: dense, key"):
            set_up(bases("bert"), method)
    with pytest.raises(ModelError, match=r"feedforward_modules: no linear layer is called lin2; there are: dense"):
        set_up(bases("bert"), Ia3(feedforward_modules=["lin2"]))
    with pytest.raises(ModelError, match=r"feedforward_modules: .*key is scaled at its outputs already"):
        set_up(bases("bert"), Ia3(feedforward_modules=["key"]))


def test_a_model_without_keys_is_refused_with_what_there_is(bases: Bases) -> None:
    with pytest.raises(ModelError, match=r"ia3: no keys and values are known in this model.*there are: "):
        set_up(bases("efficientnet-lite"), Ia3(), kind="image-classification")


NF4 = (-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.0795803, 0.1609302,
       0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)  # fmt: skip
"""The sixteen values of the paper's appendix."""


@quantises
def test_4_bits_hold_the_nearest_of_sixteen_values(bases: Bases) -> None:
    """Every number of a quantised layer is one of NF4's times its block's largest, up to the scales' own 8 bits; heads
    are exact, and what a weight counts for is what it stands for."""
    bench = set_up(bases("bert"), Qlora(rank=4), precision="fp32")
    plain = bench.task.load(bench.loaded.base, 0, torch.float32).model
    name = "bert.encoder.layer.1.output.dense"
    layer = bench.loaded.model.get_submodule(f"base_model.model.{name}").base_layer
    blocks = plain.get_submodule(name).weight.detach().reshape(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NF4)
    nearest = values[(blocks / scales)[..., None].sub(values).abs().argmin(dim=-1)] * scales
    found = layer(torch.eye(64)).T - layer.bias[:, None]
    assert float((found.detach().reshape(-1, 64) - nearest).abs().max()) <= 0.02 * float(scales.max())
    assert layer.weight.numel() == blocks.numel() // 2 and layer.weight.element_size() == 1
    lora = set_up(bases("bert"), Lora(rank=4), precision="fp32")
    assert count_parameters(bench.loaded.model) == count_parameters(lora.loaded.model)
    head = bench.loaded.model.get_submodule("base_model.model.classifier.original_module")
    assert torch.equal(head.weight, plain.classifier.weight)


@quantises
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_merged_4_bits_are_what_they_stand_for(bases: Bases, family: str) -> None:
    """A plain model with the same logits, without a trace of PEFT or of 4 bits."""
    bench = set_up(
        bases(family), Qlora(rank=4, target_modules=["dense"] if family == "bert" else "auto"), precision="fp32"
    )
    train(bench, steps=4, learning_rate=1e-2)
    unmerged = bench.logits()
    merged = bench.method.merge(bench.loaded)
    assert all(parameter.dtype == torch.float32 for parameter in merged.parameters())
    assert not any(
        part in name for part in ("lora", "base_layer", "modules_to_save") for name, _ in merged.named_modules()
    )
    assert float((logits_of(merged, bench.batch()) - unmerged).abs().max()) <= 1e-5


@quantises
def test_a_t5_keeps_exact_what_it_wants_exact(writers: Bases) -> None:
    """Its feed-forward parts cast their input to the dtype of `wo`: to bytes, were that quantised."""
    bench = set_up(writers("t5"), Qlora(rank=4), precision="fp32", kind="summarization")
    kinds = {name.removesuffix(".base_layer").rpartition(".")[2]: type(module).__name__
             for name, module in bench.loaded.model.named_modules() if name.endswith(".base_layer")}  # fmt: skip
    assert kinds["wo"] == "Linear" and kinds["wi"] == kinds["q"] == "Linear4bit"


@quantises
def test_what_stayed_exact_is_merged_too(writers: Bases) -> None:
    bench = set_up(writers("t5"), Qlora(rank=4), precision="fp32", kind="summarization")
    with torch.no_grad():
        for name, parameter in bench.loaded.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0.0, 0.1)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    inputs = {"input_ids": ids, "decoder_input_ids": ids[:, :2]}
    model: Any = bench.loaded.model.eval()
    with torch.no_grad():
        unmerged = model(**inputs).logits
        with model.disable_adapter():
            plain = model(**inputs).logits
        merged: Any = bench.method.merge(bench.loaded)
        found = merged(**inputs).logits
    kinds = {type(module) for name, module in merged.named_modules() if name.endswith((".wo", ".q"))}
    assert kinds == {torch.nn.Linear}
    assert float((found - unmerged).abs().max()) <= 1e-4 < 1e-2 < float((plain - unmerged).abs().max())


def test_without_the_package_it_is_named(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = set_up(bases("bert"), Lora(rank=2))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r'bitsandbytes is not installed; pip install "tunesmith\[quant\]"'):
        quantise(bench.loaded)
