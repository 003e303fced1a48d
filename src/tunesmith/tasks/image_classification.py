"""What an image is: see `targets` for the kinds of answer, `views` for what training does to images.

An example holds no pixels but the way to them: an image is decoded when its batch is made, so that memory holds the
images of one piece alone. Letters: B images, C channels or classes, H and W places, D numbers of a body.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from tunesmith.data.images import open_picture, thumbnail
from tunesmith.data.rows import Row
from tunesmith.errors import ModelError
from tunesmith.models.heads import IMAGES, load_classifier
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base
from tunesmith.recipe.classification import ImageClassification as Settings
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.contract import Batch, Draw, Example, Limit, Loss
from tunesmith.tasks.views import Changes, mixed

PATCH_PIXELS = 16 * 16
"""An image counts as work by patches of this area, which is what a vision transformer reads as one token."""


class ImageClassification(Classification):
    """A head on what the body makes of the whole image."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.changes = Changes(settings.crop, settings.flip, settings.jitter)

    def load(self, base: Base, seed: int, dtype: torch.dtype) -> Loaded:
        kind = replace(IMAGES, problem_type=self.target.problem_type)
        loaded = load_classifier(base, self.labels, seed, dtype, kind, self.target.head_bias)
        _require_fitting(loaded)
        return loaded

    def encode(self, rows: Sequence[Row], processor: Any, limit: Limit) -> list[Example]:
        """The path (its bytes as numbers, which is what examples hold), the work and the target of each row."""
        height, width = size_of(processor)
        work = -(-height * width // PATCH_PIXELS)
        numbers = zip(rows, self.target.numbers(rows), strict=True)
        return [
            {"path": list(os.fsencode(row["image"].path)), "patches": work, "target": number} for row, number in numbers
        ]

    def count_cut(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any, limit: Limit) -> int:
        return 0

    def count_bare(self, rows: Sequence[Row], examples: Sequence[Example], processor: Any) -> int:
        return 0

    def drawn(self, example: Example, draw: Draw) -> Example:
        return {**example, "draw": [draw.seed, draw.epoch, draw.row]}

    def units(self, examples: Sequence[Example]) -> Sequence[int] | None:
        """Images that are mixed stay together, in pairs of neighbours."""
        if self.settings.mix == "off" or not all("draw" in example for example in examples):
            return None
        return [index // 2 for index in range(len(examples))]

    def collate(self, examples: Sequence[Example], processor: Any) -> Batch:
        """`pixel_values` (B, 3, H, W); `target` as the target has it; where images are mixed also `partner` and `share`
        (B,): with which one, and how much of an image is itself."""
        pixels_BCHW = torch.cat([self._pixels(example, processor) for example in examples])
        batch: Batch = {"target": self.target.tensor([example["target"] for example in examples])}
        draws = [Draw(*example["draw"]) for example in examples if "draw" in example]  # type: ignore[misc]
        if self.settings.mix != "off" and draws:
            pixels_BCHW, shares = mixed(self.settings.mix, self.settings.mix_alpha, pixels_BCHW, draws)
            partners = [min(index ^ 1, len(draws) - 1) for index in range(len(draws))]
            batch |= {"partner": torch.tensor(partners), "share": torch.tensor(shares, dtype=torch.float64)}
        return {"pixel_values": pixels_BCHW, **batch}

    def _pixels(self, example: Example, processor: Any) -> torch.Tensor:
        """(1, 3, H, W) of an example: as it is judged, or as this look at it has it."""
        image = open_picture(os.fsdecode(bytes(example["path"])))  # type: ignore[arg-type]
        whole = True
        if "draw" in example:
            draw = Draw(*example["draw"])  # type: ignore[misc]
            image = self.changes.apply(image, draw, size_of(processor), _filter_of(processor))
            whole = not self.changes.crops
        ready = {} if whole else {"do_resize": False, "do_center_crop": False}
        return processor(images=[image], return_tensors="pt", **ready)["pixel_values"]

    def logits(self, loaded: Loaded, batch: Batch) -> torch.Tensor:
        return loaded(pixel_values=batch["pixel_values"].to(loaded.dtype)).logits

    def loss_of(self, logits_BC: torch.Tensor, batch: Batch) -> Loss:
        """The target's loss; of mixed images that of both targets, by their shares."""
        if "partner" not in batch:
            return super().loss_of(logits_BC, batch)
        target = batch["target"]
        total, count, metrics = logits_BC.new_zeros(()), 0.0, dict[str, float]()
        pairs = zip(batch["partner"].tolist(), batch["share"].tolist(), strict=True)
        for row, (partner, share) in enumerate(pairs):
            for other, part in ((row, share), (partner, 1 - share)):
                loss = self.target.loss(logits_BC[row : row + 1], target[other : other + 1])
                total, count = total + part * loss.total, count + part * loss.count
                for name, value in loss.metrics.items():
                    metrics[name] = metrics.get(name, 0.0) + part * value
        return Loss(total, count, metrics)

    def weights(self, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
        """(B,) what each image counts; a mixed one by its shares of both."""
        weight_B = super().weights(batch, dtype)
        if "partner" not in batch:
            return weight_B
        share_B = batch["share"].to(dtype)
        return share_B * weight_B + (1 - share_B) * weight_B[batch["partner"]]

    def token_weights(self, batch: Batch, states: torch.Tensor) -> torch.Tensor:
        """(B, T) all places of an image share what it counts."""
        return (self.weights(batch, states.dtype) / states.shape[1])[:, None].expand(states.shape[:2])

    def features(self, body: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """(B, D) what the body hands to a head: its pooled features, or the mean over all places."""
        dtype = next(body.parameters()).dtype
        output = body(pixel_values=batch["pixel_values"].to(dtype))
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        hidden = output.last_hidden_state  # (B, T, D) of a transformer, (B, D, H, W) of a convolutional network
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))

    def seen(self, example: Example, processor: Any) -> dict[str, Any]:
        """The pixels that the model gets, as an image again."""
        return {"picture": thumbnail(_as_image(self._pixels(example, processor)[0], processor))}

    def illustration(self, row: Row) -> dict[str, str]:
        return {"picture": thumbnail(open_picture(row["image"].path))}


@lru_cache(maxsize=8)
def size_of(processor: Any) -> tuple[int, int]:
    """(H, W) that a processor brings every image to. It is asked, since its settings can say so in many ways.

    Raises:
        ModelError: images of different shapes come out in different sizes, so that they make no batch.
    """
    from PIL import Image

    shapes = [
        processor(images=[Image.new("RGB", size)], return_tensors="np")["pixel_values"].shape[-2:]
        for size in ((640, 480), (480, 640))
    ]
    if shapes[0] != shapes[1]:
        remedy = "give `size` a height and a width in its preprocessor_config.json, or let it crop the middle"
        raise ModelError("its preparation gives images of different sizes, which make no batch", remedy=remedy)
    return int(shapes[0][0]), int(shapes[0][1])


def _require_fitting(loaded: Loaded) -> None:
    """Try the model on a blank image as its preparation makes them: another size, or number of colours, would otherwise
    be found out in the middle of a run.

    Raises:
        ModelError: it does not take it.
    """
    blank = torch.zeros(1, 3, *size_of(loaded.processor), dtype=loaded.dtype)
    was_training = loaded.model.training
    loaded.model.eval()
    try:
        with torch.inference_mode():
            loaded.model(pixel_values=blank)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"the model does not take images as its preparation makes them ({reason})"
        remedy = "config.json and preprocessor_config.json must be of one model, for images in colour"
        raise ModelError(message, str(loaded.base.folder), remedy) from None
    finally:
        loaded.model.train(was_training)


def _filter_of(processor: Any) -> int:
    """How a processor averages pixels to change an image's size, as Pillow's number; bicubic if it does not say."""
    given = getattr(processor, "resample", None)
    return 3 if given is None else int(given)


def _as_image(pixels_CHW: torch.Tensor, processor: Any) -> Any:
    from PIL import Image

    values_HWC = pixels_CHW.permute(1, 2, 0).double().numpy()
    if processor.do_normalize:
        values_HWC = values_HWC * np.asarray(processor.image_std) + np.asarray(processor.image_mean)
    if processor.do_rescale:
        values_HWC = values_HWC / processor.rescale_factor
    return Image.fromarray(values_HWC.round().clip(0, 255).astype(np.uint8))
