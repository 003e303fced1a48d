"""Elastic weight consolidation: weights that mattered to earlier tasks are held to where they were.

Source: Kirkpatrick et al. 2017, arXiv:1612.00796. What matters is told by `tunesmith.importance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.errors import ModelError
from tunesmith.methods.regularisers import Named
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded


@dataclass
class Elastic:
    """Half of `strength` times the sum of F (w - w0)^2 over the weights of the body that move.

    There is one penalty, whatever the number of earlier tasks: w0 is where this training begins, and F the sum of the
    tasks' importances, all taken there. Kirkpatrick et al. keep a penalty for each task around the weights that it
    ended with; these are not consistent with their own derivation and count the first tasks again with each later one
    (Huszár 2017, arXiv:1712.03847), and they need another copy of the weights for each task. Here earlier rows are at
    hand, so each importance can be taken where the last training ended.

    Attributes:
        strength: lambda of the paper. Importances are mean squared gradients, so small, and smaller still once a task
            is well learned: a strength that is felt is a large number.
        began: copies of the held weights as they began, by name.
        importance: F of each of them, in its shape.
    """

    strength: float
    began: dict[str, torch.Tensor]
    importance: dict[str, torch.Tensor]

    @classmethod
    def of(cls, loaded: Loaded, strength: float, importance: Mapping[str, torch.Tensor]) -> Elastic:
        """Hold a model, as it is now, by what mattered: the weights that move and have an importance. What was drawn
        for the new task (its head, or the new rows of a head that grew) has nothing to be held to.

        Raises:
            ModelError: nothing that moves had a part in the earlier tasks, or the importance is of another model.
        """
        grown = loaded.grown
        held = {
            name: parameter.detach().clone()
            for name, parameter in loaded.model.named_parameters()
            if parameter.requires_grad and name in importance and (grown or not loaded.is_new(name))
        }
        if not held:
            message = "nothing that moves under this method had a part in the earlier tasks, so nothing can be held"
            raise ModelError(message, loaded.base.reference, "leave elastic weights out, or let more of the model move")
        odd = [name for name, weight in held.items() if importance[name].shape != weight.shape]
        if odd:
            message = f"the importance of weights is that of another model ({', '.join(odd[:3])} differ in shape)"
            raise ModelError(message, loaded.base.reference)
        matters = {name: importance[name].to(weight, copy=True) for name, weight in held.items()}
        for name, matter in matters.items():
            if layers.plain_name(name) in grown:
                matter[grown[layers.plain_name(name)] :] = 0
        return cls(strength, held, matters)

    @torch.no_grad()
    def pull(self, parameters: Named) -> float:
        """Add the gradient, strength F (w - w0); the value. Weights without a gradient (frozen at this step) are left
        alone, and so is what is not held."""
        total = 0.0
        for name, parameter in parameters:
            if parameter.grad is not None and name in self.began:
                began, importance = (kept[name].to(parameter.device) for kept in (self.began, self.importance))
                distance = parameter.data - began
                weighted = importance * distance
                parameter.grad.add_(weighted, alpha=self.strength)
                total += 0.5 * self.strength * float((weighted * distance).sum())
        return total


class Consolidated:
    """A method whose weights are held by `elastic`; all else is the method's own, and so is what is saved.

    What holds is no function of the steps: a phase that is resumed, and another process, make the same of the same base
    and rows.
    """

    pulls = True

    def __init__(self, method: Any, elastic: Elastic) -> None:
        self.method, self.elastic = method, elastic

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def groups(self, loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """The method's groups; what is pulled towards where it began is not pulled towards zero, too."""
        found = []
        for group in self.method.groups(loaded, learning_rate, weight_decay):
            held = [name in self.elastic.began for name in group["names"]]
            for is_held in sorted(set(held)):
                places = [place for place, other in enumerate(held) if other == is_held]
                members = {kind: [group[kind][place] for place in places] for kind in ("params", "names")}
                found.append({**group, **members, "weight_decay": 0.0 if is_held else group["weight_decay"]})
        return found

    def pull(self, loaded: Loaded) -> float:
        """The method's own and that of the held weights; both values together."""
        own: float = self.method.pull(loaded)
        return own + self.elastic.pull(list(loaded.model.named_parameters()))
