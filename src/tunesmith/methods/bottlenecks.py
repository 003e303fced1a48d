"""Bottlenecks in a frozen body: Houlsby's in every sub-layer, Pfeiffer's at the end of every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.errors import CheckpointError, ModelError
from tunesmith.folder import read_json, write_json
from tunesmith.methods.contract import UsualMethod
from tunesmith.models import bottlenecks, layers
from tunesmith.models.bottlenecks import Place
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import BOTTLENECKS
from tunesmith.recipe.methods import Houlsby, Pfeiffer

FORMAT = 1
WEIGHTS = "bottlenecks.safetensors"
RESTORE = "restore the run's model folder from a copy"


class _BottleneckTuning(UsualMethod):
    """What both share: the bottlenecks, a new head and, if asked for, the blocks' norms move. What moved is saved, and
    where the bottlenecks stand: opening looks for nothing."""

    settings: Any

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def find(self, model: nn.Module) -> list[Place]:
        """Where bottlenecks belong."""
        raise NotImplementedError

    def apply(self, loaded: Loaded) -> Loaded:
        places = self.find(loaded.model)
        norms = _norms_of_blocks(loaded.model) if self.settings.norms else ()
        return self._insert(loaded, places, norms)

    def _insert(self, loaded: Loaded, places: Sequence[Place], norms: tuple[str, ...]) -> Loaded:
        self._places, self._norms = list(places), norms
        loaded.model.requires_grad_(False)
        bottlenecks.insert(loaded.model, places, self.settings.size, self.settings.activation)
        heads = loaded.outer_heads if loaded.head_is_new else ()
        moving = (*heads, *norms, *bottlenecks.names_in(loaded.model))
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_(layers.under(name, moving))
        return loaded

    def merge(self, loaded: Loaded) -> nn.Module:
        """What bends cannot be added into a weight."""
        message = f"{self.settings.kind}: bottlenecks cannot be merged into the base"
        raise ModelError(message, loaded.base.reference, "open the run with tunesmith, or train with lora")

    def save(self, loaded: Loaded, folder: Path) -> None:
        """The weights that move, and what is needed to put them back into the base."""
        from safetensors.torch import save_file

        save_file(_moving(loaded.model), folder / WEIGHTS)
        about = {
            "format": FORMAT,
            "kind": self.settings.kind,
            "size": self.settings.size,
            "activation": self.settings.activation,
            "places": [asdict(place) for place in self._places],
            "norms": list(self._norms),
        }
        write_json(folder / BOTTLENECKS, about)

    def base_to_open(self, folder: Path, base: str) -> str:
        """What to load so that `open` can do the rest: the base that the bottlenecks were made for."""
        return base

    def open(self, loaded: Loaded, folder: Path) -> Loaded:
        """Raises CheckpointError if the two files are not those of this method on this base."""
        places, norms = self._read_places(folder / BOTTLENECKS)
        holds = {name for name, module in loaded.model.named_modules() if any(True for _ in module.parameters())}
        if odd := [name for name in (*(place.module for place in places), *norms) if name not in holds]:
            raise CheckpointError(f"this base has no {', '.join(odd[:3])}", str(folder / BOTTLENECKS), RESTORE)
        self._insert(loaded, places, norms)
        _fill(loaded.model, folder / WEIGHTS)
        return loaded

    def _read_places(self, file: Path) -> tuple[list[Place], tuple[str, ...]]:
        about = read_json(file) if file.is_file() else None
        try:
            said = {name: about[name] for name in ("format", "kind", "size", "activation")}  # type: ignore[index]
            places = [Place(**place) for place in about["places"]]  # type: ignore[index]
            norms = tuple(str(name) for name in about["norms"])  # type: ignore[index]
            good = len({place.module for place in places}) == len(places) and all(
                isinstance(place.module, str)
                and place.form in ("behind", "before-norm")
                and type(place.width) is int
                and 0 < place.width <= 2**24
                for place in places
            )
        except (KeyError, TypeError):
            good = False
        if not good:
            raise CheckpointError("not a description of bottlenecks of ours", str(file), RESTORE)
        settings = self.settings
        wanted = {
            "format": FORMAT, "kind": settings.kind, "size": settings.size, "activation": settings.activation,
        }  # fmt: skip
        if odd := [f"{name} is {said[name]!r}, not {wanted[name]!r}" for name in wanted if said[name] != wanted[name]]:
            raise CheckpointError(f"not what the card beside it says: {', '.join(odd)}", str(file), RESTORE)
        return places, norms


class HoulsbyTuning(_BottleneckTuning):
    """In every sub-layer, on what it adds to the stream. Source: Houlsby et al. 2019, arXiv:1902.00751."""

    settings: Houlsby

    def find(self, model: nn.Module) -> list[Place]:
        return bottlenecks.in_sublayers(model)


class PfeifferTuning(_BottleneckTuning):
    """At the end of every block. Source: Pfeiffer et al. 2021, arXiv:2005.00247."""

    settings: Pfeiffer

    def find(self, model: nn.Module) -> list[Place]:
        return bottlenecks.in_blocks(model)


def _norms_of_blocks(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        f"{name}.{inner}"
        for name, block in layers.blocks(model)
        for inner, module in block.named_modules()
        if layers.is_norm(module)
    )


def _moving(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().contiguous() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def _fill(model: nn.Module, file: Path) -> None:
    """Put saved weights into the model. Raises CheckpointError if the file is torn, or names or shapes differ."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read ({type(error).__name__})", str(file), RESTORE) from None
    own = _moving(model)
    odd = sorted({*saved} ^ {*own}) or [name for name in own if saved[name].shape != own[name].shape]
    if odd:
        message = f"its weights are not those of this model ({', '.join(odd[:3])})"
        raise CheckpointError(message, str(file), RESTORE)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
