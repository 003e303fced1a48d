"""How a training image is looked at: a part of it, mirrored, in other light; and pairs of images mixed.

Every draw is a pure function of (seed, epoch, row), and each kind of change has numbers of its own, so that switching
one off leaves the others as they were. Letters: B images, C channels, H and W places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tunesmith.tasks.contract import Draw

if TYPE_CHECKING:
    from PIL import Image

CROPPING, FLIPPING, COLOURING, MIXING = range(4)
"""What random numbers are drawn for."""

MOST_STRETCH = 4 / 3
"""A part may be so many times wider, or narrower, than the image's own shape."""


@dataclass(frozen=True)
class Changes:
    """The settings of a training image, as in the recipe."""

    crop: float
    flip: float
    jitter: float

    @property
    def crops(self) -> bool:
        return self.crop < 1

    def apply(self, image: Image.Image, draw: Draw, size: tuple[int, int], resample: int) -> Image.Image:
        """The image as this look at it has it; of `size` (H, W) where a part of it is taken, else of its own."""
        if self.crops:
            box = part_of(image.size, self.crop, numbers(draw, CROPPING))
            image = image.resize((size[1], size[0]), resample, box=box)
        if numbers(draw, FLIPPING).random() < self.flip:
            from PIL import ImageOps

            image = ImageOps.mirror(image)
        return recoloured(image, self.jitter, numbers(draw, COLOURING)) if self.jitter else image


def numbers(draw: Draw, purpose: int) -> np.random.Generator:
    """The random numbers of one look at one row, for one purpose."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([draw.seed, draw.epoch, draw.row, purpose])))


def part_of(size: tuple[int, int], least: float, source: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a part that holds from `least` to all of an image. `size` is (width, height)."""
    share = source.uniform(least, 1.0)
    stretch = math.exp(source.uniform(-0.5, 0.5) * math.log(MOST_STRETCH))
    # what would be wider than the image gives its excess to the other side, so that the area stays what was drawn
    wide = min(1.0, math.sqrt(share) * stretch)
    tall = min(1.0, share / wide)
    wide = min(1.0, share / tall)
    left, top = source.uniform(0, 1 - wide), source.uniform(0, 1 - tall)
    width, height = size
    return left * width, top * height, (left + wide) * width, (top + tall) * height


def recoloured(image: Image.Image, jitter: float, source: np.random.Generator) -> Image.Image:
    """Brightness, contrast and colour each multiplied by 1 - jitter to 1 + jitter."""
    from PIL import ImageEnhance

    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(float(source.uniform(1 - jitter, 1 + jitter)))
    return image


def mixed(kind: str, alpha: float, pixels_BCHW: torch.Tensor, draws: list[Draw]) -> tuple[torch.Tensor, list[float]]:
    """Images mixed in pairs of neighbours (the last of an odd number stays alone), and each one's share in itself.

    Args:
        kind: mixup or cutmix.
        alpha: shares come from Beta(alpha, alpha).
        draws: of each image; those of a pair's first one decide for both.
    """
    out_BCHW, shares = pixels_BCHW.clone(), [1.0] * len(draws)
    for first in range(0, len(draws) - 1, 2):
        one, other = pixels_BCHW[first], pixels_BCHW[first + 1]
        source = numbers(draws[first], MIXING)
        share = float(source.beta(alpha, alpha))
        if kind == "cutmix":
            rows, columns, share = _window(one.shape[1:], share, source)
            out_BCHW[first, :, rows, columns] = other[:, rows, columns]
            out_BCHW[first + 1, :, rows, columns] = one[:, rows, columns]
        else:
            out_BCHW[first] = share * one + (1 - share) * other
            out_BCHW[first + 1] = share * other + (1 - share) * one
        shares[first] = shares[first + 1] = share
    return out_BCHW, shares


def _window(size: torch.Size, share: float, source: np.random.Generator) -> tuple[slice, slice, float]:
    """A window of about 1 - share of the area around a random place, and the share that it really leaves."""
    height, width = size
    half = math.sqrt(1 - share) / 2
    middle, centre = source.uniform(0, height), source.uniform(0, width)
    top, bottom = (round(min(max(middle + sign * half * height, 0), height)) for sign in (-1, 1))
    left, right = (round(min(max(centre + sign * half * width, 0), width)) for sign in (-1, 1))
    return slice(top, bottom), slice(left, right), 1 - (bottom - top) * (right - left) / (height * width)
