"""The kinds of method: which weights move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.base import Auto, KindOrMapping, PositiveInt, Settings, Share


class Full(Settings):
    """Every weight moves."""

    kind: Literal["full"] = "full"


class Head(Settings):
    """Only the task's head (and the pooler that feeds it) moves; the body is frozen and runs without dropout."""

    kind: Literal["head"] = "head"


class LastLayers(Settings):
    """The head and the layers nearest to it move; all below are frozen and run without dropout."""

    kind: Literal["last-layers"] = "last-layers"

    layers: PositiveInt = 2
    """How many layers, counted from the head down."""


class Lora(Settings):
    """Low-rank updates beside frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT and in its file format."""

    kind: Literal["lora"] = "lora"

    rank: PositiveInt = 8
    """The rank r of each update."""

    alpha: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Updates are scaled by alpha / rank. `auto` is twice the rank."""

    dropout: Share = 0.0
    """Dropout on the input of each update."""

    target_modules: list[str] | Literal["auto", "all-linear"] = "auto"
    """Names (endings) of the layers to update. `auto` and `all-linear` take every linear layer of the body."""


class AutoMethod(Settings):
    """Full, last layers, head or LoRA, by the number of rows, the size of the model and the memory; said with its
    reason, and written into the run folder."""

    kind: Literal["auto"] = "auto"


Method = Annotated[Full | Head | LastLayers | Lora | AutoMethod, Field(discriminator="kind"), KindOrMapping]
KINDS: dict[str, type[Settings]] = {
    "full": Full,
    "head": Head,
    "last-layers": LastLayers,
    "lora": Lora,
    "auto": AutoMethod,
}
