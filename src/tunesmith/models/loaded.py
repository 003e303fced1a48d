"""A model ready for a task, and the way back to its base."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tunesmith.models import bottlenecks, layers
from tunesmith.models.references import Base

OF_TOKENS = ("logits", "start_logits", "end_logits")
"""Outputs of (B, T, ..) that may have virtual tokens in them."""


@dataclass
class Loaded:
    """A model with its processor.

    Attributes:
        model: the module itself; parameters keep their names for life.
        processor: tokenizer (or image preparation).
        head_names: modules that belong to the task (see `layers.head_names`).
        labels: class names in the order of the logits.
        base: where the weights came from.
        reload: makes the untouched base model (head included) once more, equal to the bit.
        entry: what a forward pass goes through; a wrapper for several processes sets it, else it is `model`.
        pads: whether padding costs time in a forward pass; a rewrite may take it out.
        piece_tokens: the most padded tokens of one forward pass, for losses that need a whole batch at once; None: no
            limit.
        head_is_drawn: whether a head of the task's own has all to learn; one that was tuned for these very labels has
            not.
        grown: of a head that came with the base and was given further outputs, how many rows of each of its tensors
            came along; by the tensor's name.
        head_is_new: whether the head is the task's own, and not the base's; a base that writes, or that fills
            gaps, brings its own.
        virtual_tokens: how many positions before those of a row's tokens the model's outputs have.
        unread: inputs that the model does not take.
    """

    model: nn.Module
    processor: Any
    head_names: tuple[str, ...]
    labels: tuple[str, ...]
    base: Base
    reload: Callable[[], nn.Module]
    entry: nn.Module | None = None
    pads: bool = True
    piece_tokens: int | None = None
    head_is_new: bool = True
    head_is_drawn: bool = True
    grown: Mapping[str, int] = field(default_factory=dict)
    virtual_tokens: int = 0
    unread: tuple[str, ...] = ()

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """What the model makes of a batch; outputs stand for real tokens alone."""
        output = (self.entry or self.model)(
            **{name: value for name, value in inputs.items() if name not in self.unread}
        )
        if self.virtual_tokens:
            longest = self.virtual_tokens + inputs["input_ids"].shape[1]
            for name in OF_TOKENS:
                if name in output and output[name].shape[1] == longest:
                    output[name] = output[name][:, self.virtual_tokens :]
        return output

    @property
    def outer_heads(self) -> tuple[str, ...]:
        """Head modules beside the body (a pooler stands in it: it is pre-trained)."""
        prefix = layers.body_prefix(getattr(self.model, "get_base_model", lambda: self.model)())
        return tuple(name for name in self.head_names if not name.startswith(f"{prefix}."))

    def is_new(self, name: str) -> bool:
        """Whether a parameter of this name was drawn for the task, and did not come with the base."""
        return self.head_is_new and self.head_is_drawn and layers.under(layers.plain_name(name), self.outer_heads)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.dtype.is_floating_point)


@contextlib.contextmanager
def as_base(loaded: Loaded) -> Iterator[nn.Module]:
    """The base exactly: inside, `loaded.model` computes what it did before any method touched it.

    Adapters step aside, heads they wrap included, and so do bottlenecks. Weights that moved in place are swapped for
    those of a fresh copy of the base, so nothing is kept in memory between calls; the trained tensors come back
    unchanged.
    """
    model = loaded.model
    modes = {module: module.training for module in model.modules()}
    model.eval()
    disable = getattr(model, "disable_adapter", None)
    swapped: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        if disable is not None:
            with _plain(loaded) if _has_virtual_tokens(model) else disable():
                yield loaded.model
            return
        fresh = dict(loaded.reload().named_parameters())
        inserted = bottlenecks.names_in(model)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not layers.under(name, inserted):
                swapped.append((parameter, parameter.data))
                parameter.data = fresh[name].data.to(parameter.device, parameter.dtype)
        with bottlenecks.aside(model):
            yield model
    finally:
        for parameter, trained in swapped:
            parameter.data = trained
        for module, mode in modes.items():
            module.training = mode


def _has_virtual_tokens(model: Any) -> bool:
    return bool(model.active_peft_config.is_prompt_learning)


@contextlib.contextmanager
def _plain(loaded: Loaded) -> Iterator[None]:
    """The base itself in place of a model with virtual tokens: PEFT's own way to switch these off leaves them in what a
    model writes, and leaves the trained head on."""
    from peft.utils import ModulesToSaveWrapper

    model: Any = loaded.model
    kept = (model, loaded.entry, loaded.virtual_tokens)
    heads = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    loaded.model, loaded.entry, loaded.virtual_tokens = model.get_base_model(), None, 0
    try:
        for head in heads:
            head.enable_adapters(False)
        yield
    finally:
        for head in heads:
            head.enable_adapters(True)
        loaded.model, loaded.entry, loaded.virtual_tokens = kept
