"""A model shared out among processes to be trained, and the whole one that the first of them judges with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch

from tunesmith.devices import Devices, whole
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded


def shared_out(loaded: Loaded, devices: Devices) -> Loaded:
    """What is trained: this rank's part of the model. `loaded` stays whole on the first rank, by a copy, since only
    there anything is judged or saved; elsewhere it is the part itself from now on.

    A loss never cuts what it is given into passes of its own (`piece_tokens`): ranks must make equally many.
    """
    model = copy.deepcopy(loaded.model) if devices.is_first else loaded.model
    devices.share_out(model, [block for _, block in layers.blocks(model)])
    return replace(loaded, model=model, piece_tokens=None)


@torch.no_grad()
def gather(trained: Loaded, means: Mapping[str, torch.Tensor], loaded: Loaded, devices: Devices) -> None:
    """Put the weights that move (of those in `means` the mean) and the buffers into the first rank's whole model, one
    by one. Every rank must call this."""
    targets = dict(loaded.model.named_parameters()) | dict(loaded.model.named_buffers())
    moving = [(name, parameter) for name, parameter in trained.model.named_parameters() if parameter.requires_grad]
    for name, tensor in [*moving, *trained.model.named_buffers()]:
        gathered = whole(means.get(name, tensor))
        if devices.is_first:
            targets[name].copy_(gathered)
