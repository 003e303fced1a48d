"""How to learn: which weights move. One file a family, one row here. A method never knows the task."""

from __future__ import annotations

from typing import Any

from tunesmith.methods.bottlenecks import HoulsbyTuning, PfeifferTuning
from tunesmith.methods.low_rank import DoraTuning, LoraTuning
from tunesmith.methods.own_weights import BiasTuning, FullTuning, GradualTuning, HeadTuning, LastLayersTuning
from tunesmith.methods.quantised import QloraTuning
from tunesmith.methods.rescaling import Ia3Tuning
from tunesmith.methods.virtual_tokens import PrefixTuning, PromptTuning
from tunesmith.recipe.base import Settings

METHODS: dict[str, Any] = {
    "full": FullTuning,
    "head": HeadTuning,
    "last-layers": LastLayersTuning,
    "gradual-unfreezing": GradualTuning,
    "bitfit": BiasTuning,
    "lora": LoraTuning,
    "houlsby": HoulsbyTuning,
    "pfeiffer": PfeifferTuning,
    "dora": DoraTuning,
    "qlora": QloraTuning,
    "ia3": Ia3Tuning,
    "prefix": PrefixTuning,
    "prompt": PromptTuning,
}


def build(settings: Settings) -> Any:
    """The method for a recipe's `method:`."""
    return METHODS[settings.kind](settings)  # type: ignore[attr-defined]
