"""QLoRA: LoRA beside a body whose weights are kept in 4 bits, by bitsandbytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.low_rank import LowRankTuning
from tunesmith.models import layers
from tunesmith.models.heads import put_heads_in_place
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.methods import Qlora

PACKS_FOR_CPU = "support_avx512bf16_for_cpu"
"""The attribute by which a layer of bitsandbytes knows whether it may pack its weights."""


class QloraTuning(LowRankTuning):
    """dequantise(W4) + s B A: W4 in NormalFloat of 4 bits, its scales quantised once more (about 4.1 bits a number).

    The base of such a run is the quantised one: that is what the adapter steps aside for. The weights are quantised
    when they have been loaded, so that loading itself needs the memory of the whole base. Source: Dettmers et al. 2023,
    arXiv:2305.14314.
    """

    settings: Qlora

    def apply(self, loaded: Loaded) -> Loaded:
        quantise(loaded)
        return super().apply(loaded)

    def open(self, loaded: Loaded, folder: Path) -> Loaded:
        quantise(loaded)
        return super().open(loaded, folder)

    @torch.no_grad()
    def merge(self, loaded: Loaded) -> nn.Module:
        """The plain model with what the 4 bits stand for and the updates in its weights; as large as the base."""
        wrapper: Any = loaded.model
        model: Any = put_heads_in_place(wrapper)
        model.is_loaded_in_4bit = False
        for name, module in list(model.named_modules()):
            if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
                exact = module.base_layer
                linear: Any = _plain(exact, loaded.dtype) if _is_quantised(exact) else exact
                linear.weight += module.get_delta_weight("default").to(linear.weight.dtype)
                _replace(model, name, linear)
            elif _is_quantised(module) and not name.endswith(".base_layer"):
                _replace(model, name, _plain(module, loaded.dtype))
        merged: nn.Module = model
        return merged


def quantise(loaded: Loaded) -> None:
    """Keep the weights of the body's linear layers in 4 bits. Those that the architecture wants exact (T5's `wo`) stay.

    Raises:
        ModelError: bitsandbytes is not installed, or the body has no such layers.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        message = "method: qlora: the package bitsandbytes is not installed"
        raise ModelError(message, remedy='pip install "tunesmith[quant]"')
    model: Any = loaded.model
    exact = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and not layers.under(name, loaded.outer_heads)
        and name.rpartition(".")[2] not in exact
    ]
    if not names:
        message = "method: qlora: the body has no linear layers that can be kept in 4 bits"
        raise ModelError(message, loaded.base.reference, "use lora")
    for name in names:
        _replace(model, name, _in_4_bits(model.get_submodule(name)))
    model.is_loaded_in_4bit = True  # PEFT asks for this


def _in_4_bits(linear: nn.Linear) -> nn.Module:
    import bitsandbytes

    exact = linear.weight.dtype
    made: nn.Module = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=exact if exact != torch.float64 else torch.float32,
        compress_statistics=True,
        quant_type="nf4",
    )
    # On CPUs with AVX512-BF16 it would pack the weights for answering, in place: their scales are then rounded to
    # bfloat16 for good, also in the training that goes on, and rows shorter than a block of 64 cannot be packed at all.
    setattr(made, PACKS_FOR_CPU, False)
    weight = linear.weight.detach().float()
    made.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
    ).to(weight.device)
    made.bias = linear.bias
    return made


def _plain(quantised: Any, dtype: torch.dtype) -> nn.Linear:
    """A linear layer of what 4 bits stand for."""
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(quantised.weight.data, quantised.weight.quant_state).to(dtype)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=quantised.bias is not None, device=weight.device)
    linear.weight = nn.Parameter(weight)
    if quantised.bias is not None:
        linear.bias = quantised.bias
    return linear


def _is_quantised(module: nn.Module) -> bool:
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
