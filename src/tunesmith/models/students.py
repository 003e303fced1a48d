"""A smaller model from a larger one: some of its layers, all the rest as it is (Sanh et al. 2019, arXiv:1910.01108)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.folder import to_json
from tunesmith.models import layers
from tunesmith.models.cache import kept
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base

DEPTHS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
"""By what names configs say how many layers there are."""

KINDS_OF_LAYERS = "layer_types"
"""Where a config says of each layer which kind it is."""


def student_of(teacher: Base, many: int, kind: str, dtype: torch.dtype, load: Callable[[], Loaded]) -> Base:
    """A base of so many of the teacher's layers, evenly spaced, its head included, as a plain transformers folder.

    The folder is in the cache under the hashes of the teacher's files, and can be made anew from them.

    Args:
        kind: of the task whose head is on it.
        dtype: the numbers that its weights are kept in.
        load: opens the teacher whole, adapters merged; not called if the folder is there.

    Raises:
        ModelError: it has fewer layers, or its layers are not one stack.
        ResourceError: no room in the cache.
    """

    def write(folder: Path) -> None:
        loaded = load()
        cut(loaded.model, many)
        loaded.model.save_pretrained(folder)  # type: ignore[operator]
        loaded.processor.save_pretrained(folder)

    hashes = teacher.hashes()
    about = to_json([sorted(hashes.items()), kind, str(dtype), many])
    size = sum((teacher.folder / name).stat().st_size for name in hashes)
    return Base(teacher.reference, kept(f"student-{hashlib.sha256(about).hexdigest()[:16]}", write, size))


def cut(model: nn.Module, many: int) -> None:
    """Take layers out of a model in place, and say so in its config."""
    place, found = stack(model)
    if many > len(found):
        raise ModelError(f"teacher.layers: {many} asked for, the teacher has {len(found)}", remedy="write fewer")
    config: Any = model.config
    fields = [name for name in DEPTHS if getattr(config, name, None) == len(found)]
    if not fields:
        message = "teacher.layers: the teacher's config does not say how many layers it has, so it cannot say fewer"
        raise ModelError(message, remedy="name a smaller model in `model` and leave teacher.layers out")
    chosen = spaced(len(found), many)
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList([found[index] for index in chosen]))
    setattr(config, fields[0], many)
    kinds = getattr(config, KINDS_OF_LAYERS, None)
    if isinstance(kinds, list) and len(kinds) == len(found):
        setattr(config, KINDS_OF_LAYERS, [kinds[index] for index in chosen])


def stack(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """The one list that a model's layers stand in: its name, and the layers from the input on.

    Raises:
        ModelError: there are several, as of an encoder with a decoder or of a convolutional network.
    """
    found = layers.blocks(model)
    places = dict.fromkeys(name.rpartition(".")[0] for name, _ in found)
    if len(places) != 1:
        message = f"teacher: its layers are {len(places)} stacks, so none of them is its n-th or its last"
        raise ModelError(message, remedy="leave teacher.layers and teacher.hidden out: its answers can be learned")
    return next(iter(places)), [layer for _, layer in found]


def spaced(whole: int, many: int) -> list[int]:
    """So many of `whole` places, evenly spaced, the first and the last among them: of 12, 6 are 0, 2, 4, 7, 9, 11, as
    DistilBERT took them. One alone is the first, which knows what embeddings look like."""
    return [0] if many == 1 else [round(index * (whole - 1) / (many - 1)) for index in range(many)]
