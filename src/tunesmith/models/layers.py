"""A model's parts in order of depth, found by structure and not by architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn


def body_prefix(model: nn.Module) -> str:
    """The name under which a task model holds its pre-trained body (`bert`, `roberta`, `model`)."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if prefix and hasattr(model, prefix) else ""


def body(model: nn.Module) -> nn.Module:
    """The pre-trained body of a task model, adapters that wrap the model looked through."""
    unwrap = getattr(model, "get_base_model", None)
    plain = unwrap() if unwrap is not None else model
    prefix = body_prefix(plain)
    return getattr(plain, prefix) if prefix else plain


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that belong to the task: all beside the body, and the pooler inside it."""
    prefix = body_prefix(model)
    if not prefix:
        return ()
    beside = [
        name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())
    ]
    pooler = getattr(getattr(model, prefix), "pooler", None)
    return (*beside, f"{prefix}.pooler") if isinstance(pooler, nn.Module) else tuple(beside)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers, from the input to the head: every ModuleList of blocks of one kind, be it one block.

    Lists inside another such list (experts, attention parts) are not layers. An encoder's layers come before its
    decoder's, as the model registers them.
    """
    found: list[tuple[str, nn.Module]] = []
    prefixes: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in prefixes):
            continue
        kinds = {type(child) for child in module}
        if len(module) >= 1 and len(kinds) == 1 and any(True for _ in module.parameters()):
            prefixes.append(name)
            found += [(f"{name}.{index}", child) for index, child in enumerate(module)]
    return found


def depths(model: nn.Module, head_names: tuple[str, ...]) -> dict[str, int]:
    """How far each parameter lies from the head: 0 for the head itself, 1 for the block nearest to it, and so on; what
    comes before the first block (embeddings) is one further than that block. What lies between two blocks, or behind
    the last one, belongs to the block before it."""
    names = [name for name, _ in blocks(model)]
    found: dict[str, int] = {}
    depth = len(names) + 1
    for name, _ in model.named_parameters():
        if under(plain_name(name), head_names):
            found[name] = 0
            continue
        inside = next((place for place, block in enumerate(names) if under(name, (block,))), None)
        depth = depth if inside is None else len(names) - inside
        found[name] = depth
    return found


_WRAPPED = "base_model.model."
_SAVED_HEAD = ".modules_to_save.default"


def plain_name(name: str) -> str:
    """A parameter's name as the model has it without a wrapper of PEFT's around it."""
    return name.removeprefix(_WRAPPED).replace(_SAVED_HEAD, "")


def is_linear(module: nn.Module) -> bool:
    """A linear layer, also one whose weight lies the other way (GPT-2 has these), or a convolution of one place: that
    is linear, the same at every place."""
    from transformers.pytorch_utils import Conv1D

    is_pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear | Conv1D) or is_pointwise


def is_norm(module: nn.Module) -> bool:
    """A norm with a scale: layer norms, those by the root mean square, and others that are called so."""
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and isinstance(weight, nn.Parameter) and weight.ndim == 1


def under(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a parameter's or module's name lies under one of the given modules."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def set_training_mode(model: nn.Module) -> None:
    """Train mode where something moves, evaluation mode where all is frozen.

    A frozen layer then computes the same at every step (no dropout noise in features that cannot adapt to it, no
    running statistics that move), which is also what lets its output be computed once. Batch norms keep to the base's
    statistics everywhere: with the batch's own, a row's loss would depend on the rows that it is computed with, and so
    on how a batch is cut. Their scales and shifts move like other weights.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for _, module in _frozen_parts(model):
        module.eval()


_DROPOUTS = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout",
    "dropout_prob",
    "attn_dropout_prob",
)
"""What modules call a share that they drop by a function of their own. Whole paths that are left out (`drop_path`) are
another thing."""


def set_dropout(model: nn.Module, share: float) -> None:
    """Give every dropout in a model this share, be it a module of its own or a number that a layer keeps."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = share
        for name in _DROPOUTS:
            if type(getattr(module, name, None)) in (float, int):
                setattr(module, name, share)


def _frozen_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules that hold parameters none of which is trained."""
    for name, child in model.named_children():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            yield name, child
        else:
            yield from ((f"{name}.{inner}", module) for inner, module in _frozen_parts(child))


def count_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers the model holds and how many of them move; a shared tensor counts once, and a weight that is
    kept in 4 bits as the numbers that it stands for."""
    unique = {id(parameter): parameter for parameter in model.parameters()}.values()
    packed = {id(one): one.quant_state.shape for one in unique if getattr(one, "quant_state", None) is not None}  # type: ignore[attr-defined]
    return {
        "total": sum(math.prod(packed.get(id(parameter), parameter.shape)) for parameter in unique),
        "trainable": sum(parameter.numel() for parameter in unique if parameter.requires_grad),
    }
