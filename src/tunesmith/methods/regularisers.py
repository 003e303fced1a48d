"""Ways to hold weights to where they began. They join any method that moves weights of the model itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tunesmith.devices import whole

Named = Sequence[tuple[str, nn.Parameter]]


@dataclass
class Mixout:
    """W' = (M W0 + (1 - M) W - p W0) / (1 - p), each number of M being 1 with probability p: the mean of W' is W.

    One mask a step, drawn from (seed, step) alone: so how a batch is cut, and how many processes share it, changes
    nothing, and layers keep their parameters and names. The gradient of W is that of W' times (1 - M) / (1 - p).
    Source: Lee et al. 2020, arXiv:1909.11299.

    Attributes:
        began: copies of the weights as they began, by name.
    """

    share: float
    seed: int
    began: dict[str, torch.Tensor]

    @contextlib.contextmanager
    def at_step(self, parameters: Named, step: int) -> Iterator[None]:
        """The mixed weights inside; the real ones, with their own gradients, behind. After an error nothing is lost."""
        kept: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []
        try:
            for number, (name, parameter) in enumerate(parameters):
                stays = self._stays(parameter, step, number)
                kept.append((parameter, parameter.data, stays))
                parameter.data = mixed(parameter.data, self.began[name].to(parameter.device), stays, self.share)
            yield
        finally:
            for parameter, own, stays in kept:
                parameter.data = own
                if parameter.grad is not None:
                    parameter.grad.mul_(stays).div_(1 - self.share)

    def _stays(self, parameter: nn.Parameter, step: int, number: int) -> torch.Tensor:
        """1 - M."""
        mixed_seed = np.random.SeedSequence([self.seed, step, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed_seed[0]) >> 1)  # torch takes 63 bits
        drawn = torch.empty(parameter.shape).bernoulli_(1 - self.share, generator=generator)
        return drawn.to(parameter.device, parameter.dtype)


def mixed(own: torch.Tensor, began: torch.Tensor, stays: torch.Tensor, share: float) -> torch.Tensor:
    """((1 - stays) began + stays own - share began) / (1 - share), all of one shape; `stays` holds zeros and ones."""
    return torch.addcmul(began * (1 - share), stays, own - began).div_(1 - share)


@dataclass
class StartingPoint:
    """L2-SP: half of `strength` times the squared distance of weights to where they began (Li et al. 2018,
    arXiv:1802.01483). Its gradient is added as it is: it does not depend on the rows."""

    strength: float
    began: dict[str, torch.Tensor]

    @torch.no_grad()
    def pull(self, parameters: Named) -> float:
        """Add the gradient; the value. Weights without a gradient (frozen at this step) are left alone."""
        total = 0.0
        for name, parameter in parameters:
            if parameter.grad is not None:
                distance = parameter.data - self.began[name].to(parameter.device)
                parameter.grad.add_(distance, alpha=self.strength)
                total += 0.5 * self.strength * float(whole(distance.square().sum()))
        return total
