"""A head that grows: what it knows stays in its first rows, new outputs come behind."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tunesmith.models import layers
from tunesmith.models.loaded import Loaded


def grown(wider: Loaded, narrower: Loaded) -> Loaded:
    """The wider of two models of one base with the head of the narrower one in it. The labels of the narrower come
    first in the wider: their outputs are what they were, those of the others as they were drawn.

    Returns:
        `wider`; its `reload` makes the same once more, and its `grown` names what has new rows.
    """
    heads = wider.outer_heads
    had = _take_over(wider.model, narrower.model, heads)

    def remake() -> nn.Module:
        model = wider.reload()
        _take_over(model, narrower.reload(), heads)
        return model

    return replace(wider, reload=remake, grown=had)


@torch.no_grad()
def _take_over(model: nn.Module, narrower: nn.Module, heads: tuple[str, ...]) -> dict[str, int]:
    """Copy a head into one with more outputs, which are its first dimension. Returns, of each tensor that is larger,
    how many rows it took over."""
    known, had = dict(narrower.named_parameters()), {}
    for name, weight in model.named_parameters():
        if layers.under(name, heads):
            weight[: len(known[name])] = known[name]
            if len(known[name]) < len(weight):
                had[name] = len(known[name])
    return had
