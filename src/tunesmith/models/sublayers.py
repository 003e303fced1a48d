"""Where the blocks of a transformer write to their residual stream, found by following one small forward pass back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models import layers


@dataclass(frozen=True)
class Writer:
    """A module by its name, and how wide the stream is that it writes to."""

    name: str
    width: int


@dataclass
class BlockEnds:
    """What one block writes.

    Attributes:
        block: the block itself.
        sublayers: the linear layers whose outputs are added to the stream, in the order of their calls.
        norm: the norm behind the last sum (models that norm behind it, as BERT does), or None.
    """

    block: Writer
    sublayers: list[Writer]
    norm: Writer | None


@dataclass
class _Seen:
    """One block's forward pass. Outputs are kept, so that their places in the graph keep their identity."""

    entered: torch.Tensor | None = None
    left: torch.Tensor | None = None
    outputs: list[tuple[str, nn.Module, torch.Tensor]] = field(default_factory=list)


def block_ends(model: nn.Module) -> list[BlockEnds]:
    """Every block's ends, found on the body of `model`. Nothing of the model changes.

    From what a block gives the gradients' graph is followed back until a linear layer wrote what is added: whatever is
    reached through sums, norms and scales alone is a sub-layer's end. So it matters neither what modules are called,
    nor whether norms come first or last, nor how many sub-layers a block has, nor that attention has norms of its own.

    Raises:
        ModelError: no blocks that take and give (rows, places, width), as those of transformers do.
    """
    seen = _pass_through(model)
    found = [_ends_of(name, one) for name, one in seen.items() if one.left is not None]
    if not found:
        message = "this model has no blocks of a transformer"
        remedy = "bottlenecks are inserted into these; use lora, last-layers or full"
        raise ModelError(message, getattr(model, "name_or_path", ""), remedy)
    return found


def _pass_through(model: nn.Module) -> dict[str, _Seen]:
    """What each block does in one forward pass of a few places, without dropout; of shared blocks, the first time."""
    modes = {module: module.training for module in model.modules()}
    seen: dict[str, _Seen] = {}
    handles: list[Any] = []
    for name, block in layers.blocks(model):
        one = seen[name] = _Seen()
        handles += [
            block.register_forward_pre_hook(_enter(one), with_kwargs=True),
            block.register_forward_hook(_leave(one)),
            *(
                module.register_forward_hook(_note(one, f"{name}.{inner}"))
                for inner, module in block.named_modules()
                if layers.is_linear(module) or layers.is_norm(module)
            ),
        ]
    body = layers.body(model).eval()
    try:
        with torch.enable_grad():
            body(**_small_inputs(body))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen


def _small_inputs(body: Any) -> dict[str, torch.Tensor]:
    """One row of four tokens, or one empty image."""
    own = next(parameter for parameter in body.parameters() if parameter.dtype.is_floating_point)
    if body.main_input_name == "pixel_values":
        size = body.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.zeros(1, body.config.num_channels, height, width, dtype=own.dtype, device=own.device)
        return {"pixel_values": pixels}
    ids = torch.ones(1, 4, dtype=torch.long, device=own.device)
    mask = {"attention_mask": torch.ones_like(ids)}
    return {"input_ids": ids, **mask, **({"decoder_input_ids": ids} if body.config.is_encoder_decoder else {})}


def _enter(seen: _Seen) -> Any:
    """The stream enters a block as a leaf, so that nothing before the block belongs to its graph."""

    def hook(block: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        stream = args[0] if args else inputs.get("hidden_states")
        if not isinstance(stream, torch.Tensor):
            return None
        entered = stream.detach().requires_grad_()
        if seen.entered is None:
            seen.entered = entered
        return ((entered, *args[1:]), inputs) if args else (args, {**inputs, "hidden_states": entered})

    return hook


def _leave(seen: _Seen) -> Any:
    def hook(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        left = output if isinstance(output, torch.Tensor) else output[0]
        is_stream = seen.entered is not None and left.ndim == 3 and left.shape == seen.entered.shape
        if is_stream and seen.left is None:
            seen.left = left

    return hook


def _note(seen: _Seen, name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        if seen.left is None:
            seen.outputs.append((name, module, output))

    return hook


def _ends_of(name: str, seen: _Seen) -> BlockEnds:
    assert seen.left is not None
    width = seen.left.shape[-1]
    linear = {output.grad_fn: (place, output) for place, module, output in seen.outputs if layers.is_linear(module)}
    reached = [linear[node] for node in _written(seen.left.grad_fn, linear.keys())]
    writers = {place for place, output in reached if output.shape == seen.left.shape}
    norms = [
        place
        for place, module, output in seen.outputs
        if layers.is_norm(module) and output.grad_fn is seen.left.grad_fn
    ]
    called = dict.fromkeys(place for place, _, _ in seen.outputs if place in writers)
    return BlockEnds(
        Writer(name, width),
        [Writer(place, width) for place in called],
        Writer(norms[-1], width) if norms else None,
    )


def _written(end: Any, linear: Any) -> Iterator[Any]:
    """The linear layers' nodes that are met first on all ways back from `end`."""
    waiting, known = [end], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if node in linear:
            yield node
        else:
            waiting += [before for before, _ in node.next_functions]
