"""A running mean of weights that move."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Average:
    """mean <- share * mean + (1 - share) * weight after each step; it begins as the weights themselves.

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046, with exponential weights.

    Attributes:
        means: by the names of the parameters; kept in the weights' own type.
    """

    share: float
    means: dict[str, torch.Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def begin(self, model: nn.Module) -> None:
        self.means = {name: parameter.clone() for name, parameter in _moving(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, parameter in _moving(model):
            self.means[name].lerp_(parameter, 1 - self.share)

    @contextlib.contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model with the means as its weights, for the length of the block."""
        moving = _moving(model)
        own = [parameter.data for _, parameter in moving]
        try:
            for name, parameter in moving:
                parameter.data = self.means[name]
            yield
        finally:
            for (_, parameter), weight in zip(moving, own, strict=True):
                parameter.data = weight

    @torch.no_grad()
    def take_place(self, model: nn.Module) -> None:
        """The means become the weights, for good."""
        for name, parameter in _moving(model):
            parameter.copy_(self.means[name])


def _moving(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
