"""Adapters on the body inside a model class of our own. They are kept in the body's own names, and what stands behind
the body in files of its own, so that plain libraries open the folder without knowing our class.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.models.foreign_adapters import LENGTHS, WEIGHTS, require_tensors

_WRAPPED = "base_model.model."
_LISTS_OF_LAYERS = ("target_modules", "feedforward_modules")


class BodyWithParts(nn.Module):
    """A model whose body is one of transformers', with parts behind it that have files of their own."""

    base_model_prefix = "body"

    def save_parts(self, folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write what stands behind the body.

        Args:
            tensors: those of the parts, by their names in this model.
        """
        raise NotImplementedError

    def read_parts(self, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors that `save_parts` has written, by their names in this model.

        Raises:
            ModelError: they are of another shape or kind.
        """
        raise NotImplementedError


def save_adapter(model: Any, folder: Path) -> None:
    """Write a PEFT model around a `BodyWithParts` as PEFT would write it around the body alone, its parts beside it.

    Every layer is named in full: the ends of names that PEFT keeps may match more on the plain body (a pooler's
    `dense`) than they do here. DoRA's lengths get the name by which both PEFT and transformers (5.23) find them; by
    the one that PEFT writes transformers does not, and leaves them as they began.
    """
    from peft import TaskType, get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors.torch import save_file

    inner: BodyWithParts = model.get_base_model()
    within = f"{inner.base_model_prefix}."
    tensors = {
        _found_by_both(name.removeprefix(_WRAPPED)): tensor.detach().contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    of_body = {f"{_WRAPPED}{name.removeprefix(within)}": tensors[name] for name in tensors if name.startswith(within)}
    save_file(of_body, folder / WEIGHTS, metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.target_modules = [name for name, module in inner.named_modules() if isinstance(module, BaseTunerLayer)]
    _rename(config, lambda names: sorted(name.removeprefix(within) for name in names))
    config.modules_to_save, config.inference_mode = None, True
    config.task_type = TaskType.FEATURE_EXTRACTION
    config.save_pretrained(str(folder))
    inner.save_parts(folder, {name: tensors[name] for name in tensors if not name.startswith(within)})


def open_adapter(inner: BodyWithParts, folder: Path, heads: Iterable[str]) -> Any:
    """What `save_adapter` has written, on the model of our own again: a PEFT model whose parts can move, too.

    Args:
        heads: names of the parts.

    Raises:
        ModelError: tensors and places do not meet exactly.
    """
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    within = f"{inner.base_model_prefix}."
    config: Any = PeftConfig.from_pretrained(str(folder))
    _rename(config, lambda names: [f"{within}{name}" for name in names])
    config.modules_to_save, config.task_type = list(heads) or None, None
    config.inference_mode = False
    tensors = {
        f"{_WRAPPED}{within}{name.removeprefix(_WRAPPED)}": tensor
        for name, tensor in load_file(folder / WEIGHTS).items()
    }
    tensors |= {f"{_WRAPPED}{name}": tensor for name, tensor in inner.read_parts(folder).items()}
    model = PeftModel(inner, config, autocast_adapter_dtype=False)
    require_tensors(folder, set(tensors), model)
    set_peft_model_state_dict(model, tensors)
    return model


def _found_by_both(name: str) -> str:
    return f"{name}.weight" if name.endswith(LENGTHS) else name


def _rename(config: Any, change: Callable[[Iterable[str]], list[str]]) -> None:
    for kind in _LISTS_OF_LAYERS:
        if names := getattr(config, kind, None):
            setattr(config, kind, change(names))
