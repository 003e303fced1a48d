"""Weights that several models have in common, held in memory once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from tunesmith.models import layers

Kind = tuple[str, torch.Size, tuple[int, ...], torch.dtype, torch.device]
"""What two tensors must have in common before their numbers are looked at: name, shape, strides, type, device."""


def tensors_of_base(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by the names that they have in the body, which every task's model of it shares.

    To be asked before a method changes the model: what it adds is none of these, and these keep their identity.
    """
    prefix = f"{layers.body_prefix(model)}."
    return {name.removeprefix(prefix): tensor for name, tensor in (*model.named_parameters(), *model.named_buffers())}


class SharedWeights:
    """What opened models hold in common. It keeps nothing alive: weights go with the last model that uses them.

    Two models share a tensor if it has the same name in their bodies and is the same to the bit, so no answer changes.
    Each keeps modules and parameters of its own: one can be used, or set aside, while another thread uses the next.
    What is shared must not be changed in place: one training, or one merge, would change them all.
    """

    def __init__(self) -> None:
        self._held: dict[Kind, list[weakref.ref[torch.Tensor]]] = {}
        self._lock = threading.Lock()

    def share(self, model: nn.Module, base: Mapping[str, torch.Tensor], all_of_it: bool) -> None:
        """Let a model that is ready to answer use what is held already, tensor by tensor, and hold the rest of it.

        Args:
            base: its `tensors_of_base`.
            all_of_it: also what asks for a gradient: of weights that were tuned in place nothing tells which moved.
                Else these belong to an adapter, and are its own whatever they hold.
        """
        here = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        with self._lock:
            for name, tensor in base.items():
                if id(tensor) not in here:
                    continue
                if all_of_it or not tensor.requires_grad:
                    self._share_one(name, tensor)
                else:
                    tensor.data = tensor.data.clone()  # as a view of the base's mapped file it would keep all of that

    def _share_one(self, name: str, tensor: torch.Tensor) -> None:
        kind = (name, tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        held = self._held.setdefault(kind, [])
        same = next((other for other in _alive(held) if _equal_to_the_bit(other, tensor)), None)
        if same is not None:
            tensor.data = same
        held.append(weakref.ref(tensor))


def _alive(held: list[weakref.ref[torch.Tensor]]) -> Iterator[torch.Tensor]:
    """The tensors that are still used, each memory once; those that are not are forgotten."""
    held[:] = [reference for reference in held if reference() is not None]
    used = [tensor.data for reference in held if (tensor := reference()) is not None]
    yield from {tensor.data_ptr(): tensor for tensor in used}.values()


def _equal_to_the_bit(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal as bytes: 0 and -0 are two numbers here, and a NaN is equal to itself."""
    return torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other)))
