"""transformers.Trainer on images and their labels, as its image classification example does it; prints one JSON object.

Training images are a random part of the image, and half of the time its mirror image; test images go through the
folder's own processor. How small a part may be, and how often it is mirrored, is the recipe's; its changes of colour
are not made here. Batch norms: the Trainer calls `model.train()`, so that they take each batch's own statistics and
move the running ones that answer in the end; ours keep the base's.
"""

import argparse
import math
import random
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch.nn import functional
from transformers import AutoImageProcessor, default_data_collator
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from bench.peers import trainer
from tunesmith.models.efficientnet_lite import EfficientNetLiteForImageClassification

LEAST_RATIO, MOST_RATIO = 3 / 4, 4 / 3


class Classifier(EfficientNetLiteForImageClassification):
    """The class gives logits; the Trainer asks the model for the loss."""

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None):
        logits = super().forward(pixel_values).logits
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


class Looks(torch.utils.data.Dataset):
    """Training images, another part of each at every look."""

    def __init__(self, rows: list[dict], names: list[str], processor, crop: float, flip: float) -> None:
        self.files = [Path(row["image"]) for row in rows]
        self.labels = [names.index(row["label"]) for row in rows]
        self.processor, self.crop, self.flip = processor, crop, flip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        image = random_part(opened(self.files[index]), self.crop, self.processor)
        if random.random() < self.flip:
            image = ImageOps.mirror(image)
        ready = self.processor(image, do_resize=False, do_center_crop=False, return_tensors="pt")
        return {"pixel_values": ready["pixel_values"][0], "labels": self.labels[index]}


def main() -> None:
    trainer.answer(trainer.parse(targets=["label"], crop=float, flip=float), train)


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base with a new head, train, and collect the logits of the test images."""
    rows = trainer.read(options.train)
    names = trainer.names_of(rows, options.target)
    processor = AutoImageProcessor.from_pretrained(options.model)
    model = Classifier.from_pretrained(options.model, num_labels=len(names), ignore_mismatched_sizes=True)
    looks = Looks(rows, names, processor, options.crop, options.flip)
    found = trainer.fit(model, looks, default_data_collator, processor, options, output)
    return found | {"names": names, "outputs": outputs(model, trainer.read(options.test), processor)}


def opened(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB")


def random_part(image: Image.Image, least: float, processor) -> Image.Image:
    """torchvision's RandomResizedCrop: a part of `least` to all of the area, at the size that the model takes."""
    width, height = image.size
    size = (processor.crop_size["width"], processor.crop_size["height"])
    for _ in range(10):
        area = width * height * random.uniform(least, 1.0)
        ratio = math.exp(random.uniform(math.log(LEAST_RATIO), math.log(MOST_RATIO)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = random.randint(0, width - wide), random.randint(0, height - tall)
            return image.resize(size, processor.resample, box=(left, top, left + wide, top + tall))
    return ImageOps.fit(image, size, processor.resample)


@torch.inference_mode()
def outputs(model, rows: list[dict], processor) -> list[list[float]]:
    """Logits in file order."""
    model.eval()
    found = []
    for start in range(0, len(rows), 32):
        images = [opened(Path(row["image"])) for row in rows[start : start + 32]]
        found += model(**processor(images, return_tensors="pt")).logits.tolist()
    return found


if __name__ == "__main__":
    main()
