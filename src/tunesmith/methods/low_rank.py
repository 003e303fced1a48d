"""Low-rank updates beside frozen weights, by PEFT: LoRA and DoRA."""

from __future__ import annotations

from typing import Any

from tunesmith.methods.adapters import AdapterTuning, called, lies_the_other_way, linear_layers
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.methods import Dora, Lora, LowRank


class LowRankTuning(AdapterTuning):
    """W + s B A with B (out x r) zero and A (r x in) random at the start; s is alpha / r, or alpha / sqrt(r) where
    scaling is rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732)."""

    settings: LowRank
    learns_lengths = False
    """Whether each row of a weight has a learned length."""

    def config(self, loaded: Loaded) -> Any:
        from peft import LoraConfig

        asked, linear = self.settings.target_modules, linear_layers(loaded)
        targets = linear if isinstance(asked, str) else called(asked, linear, "target_modules")
        return LoraConfig(
            r=self.settings.rank,
            lora_alpha=2 * self.settings.rank if self.settings.alpha == "auto" else self.settings.alpha,
            lora_dropout=self.settings.dropout,
            target_modules=targets,
            fan_in_fan_out=lies_the_other_way(loaded, targets[0]),
            use_rslora=self.settings.scaling == "rank-stabilised",
            use_dora=self.learns_lengths,
            bias="none",
        )

    def rate_factor(self, name: str) -> float:
        """B may move faster than A (LoRA+, Hayou et al. 2024, arXiv:2402.12354)."""
        is_outer = ".lora_B." in name
        return self.settings.b_rate_factor or 1.0 if is_outer else 1.0

    def decays(self, loaded: Loaded, name: str) -> bool:
        """Lengths are pulled no more than norms are; those of a convolution have as many dimensions as its weight."""
        return ".lora_magnitude_vector." not in name


class LoraTuning(LowRankTuning):
    """r (in + out) numbers a layer.

    Source: Hu et al. 2021, arXiv:2106.09685.
    """

    settings: Lora


class DoraTuning(LowRankTuning):
    """m (W + s B A) / |W + s B A|, the norm and m (out) by rows, m beginning as the norms of W: r (in + out) + out
    numbers a layer. As the paper proposes, no gradient goes through the norm.

    Source: Liu et al. 2024, arXiv:2402.09353.
    """

    settings: Dora
    learns_lengths = True
