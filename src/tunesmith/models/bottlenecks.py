"""Bottlenecks: small trained layers between the frozen ones of a transformer (adapters in the word's first sense).

Each is a child, called `bottleneck`, of the module whose output or input it changes, by a hook: so all other parameters
keep their names, rewrites that call the modules call it too, and a copy of the model is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.models.sublayers import block_ends

CHILD = "bottleneck"
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "swish": functional.silu,
}


@dataclass(frozen=True)
class Place:
    """Where a bottleneck stands: behind a linear layer or a block (on its output), or before a norm (on what the norm
    takes, reading it normed).

    Attributes:
        module: the module's name.
        width: numbers a position.
    """

    module: str
    form: Literal["behind", "before-norm"]
    width: int


class Bottleneck(nn.Module):
    """up(act(down(x))), to be added to x: d numbers a position, of which r at the narrow place; 2 d r + r + d weights.

    `up` begins as zero, so that at the start the model is its base to the bit; `down` begins as any linear layer, its
    bias zero. (Houlsby et al. 2019, arXiv:1902.00751, draw both from a narrow normal: nearly the base.)

    Attributes:
        rests: whether it stands aside.
    """

    def __init__(self, width: int, size: int, activation: str, like: torch.Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, dtype=like.dtype, device=like.device)
        self.up = nn.Linear(size, width, dtype=like.dtype, device=like.device)
        self.activation = activation
        self.rests = False
        with torch.no_grad():
            for tensor in (self.down.bias, self.up.weight, self.up.bias):
                tensor.zero_()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(.., d) from (.., d)."""
        update: torch.Tensor = self.up(ACTIVATIONS[self.activation](self.down(states)))
        return update


def in_sublayers(model: nn.Module) -> list[Place]:
    """Behind every sub-layer (attention, attention to an encoder, feed-forward), before it is added to the stream.

    Source: Houlsby et al. 2019, arXiv:1902.00751, figure 2.

    Raises:
        ModelError: a block in which fewer than two sub-layers end in a linear layer.
    """
    places: list[Place] = []
    for ends in block_ends(model):
        if len(ends.sublayers) < 2:
            message = f"{ends.block.name}: sub-layers that end in a linear layer: {len(ends.sublayers)}, not two"
            remedy = "use pfeiffer, which needs the block's end alone, or lora"
            raise ModelError(message, getattr(model, "name_or_path", ""), remedy)
        places += [Place(writer.name, "behind", writer.width) for writer in ends.sublayers]
    return places


def in_blocks(model: nn.Module) -> list[Place]:
    """At the end of every block: before its last norm where that is what the block gives, else behind the last sum.

    Source: Pfeiffer et al. 2021, arXiv:2005.00247, as its authors' package `adapters` has it (its `seq_bn`).
    """
    return [
        Place(ends.norm.name, "before-norm", ends.norm.width)
        if ends.norm
        else Place(ends.block.name, "behind", ends.block.width)
        for ends in block_ends(model)
    ]


def insert(model: nn.Module, places: Sequence[Place], size: int, activation: str) -> None:
    """Put a new bottleneck at every place, drawn from torch's generator."""
    for place in places:
        module = model.get_submodule(place.module)
        module.add_module(CHILD, Bottleneck(place.width, size, activation, next(module.parameters())))
        if place.form == "behind":
            module.register_forward_hook(_behind)
        else:
            module.register_forward_pre_hook(_before_norm)


def _behind(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    bottleneck: Any = module.bottleneck
    if bottleneck.rests:
        return output
    if isinstance(output, torch.Tensor):
        return output + bottleneck(output)
    return (output[0] + bottleneck(output[0]), *output[1:])


def _before_norm(module: nn.Module, args: tuple[Any, ...]) -> Any:
    bottleneck: Any = module.bottleneck
    if bottleneck.rests:
        return args
    return (args[0] + bottleneck(module.forward(args[0])), *args[1:])


def names_in(model: nn.Module) -> tuple[str, ...]:
    """The names of all bottlenecks."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, Bottleneck))


@contextlib.contextmanager
def aside(model: nn.Module) -> Iterator[None]:
    """All bottlenecks stand aside inside: what they change is as if they were not there."""
    working = [module for module in model.modules() if isinstance(module, Bottleneck) and not module.rests]
    try:
        for bottleneck in working:
            bottleneck.rests = True
        yield
    finally:
        for bottleneck in working:
            bottleneck.rests = False
