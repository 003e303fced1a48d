"""How to learn: which weights move. One file a family, one row here. A method never knows the task."""

from __future__ import annotations

from typing import Any

from tunesmith.methods.freezing import FullTuning, HeadTuning, LastLayersTuning
from tunesmith.methods.low_rank import LoraTuning
from tunesmith.recipe.base import Settings

METHODS: dict[str, Any] = {
    "full": FullTuning,
    "head": HeadTuning,
    "last-layers": LastLayersTuning,
    "lora": LoraTuning,
}


def build(settings: Settings) -> Any:
    """The method for a recipe's `method:`."""
    return METHODS[settings.kind](settings)  # type: ignore[attr-defined]
