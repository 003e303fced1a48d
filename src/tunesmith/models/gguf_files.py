"""Quantised weights in a GGUF file, taken apart once into plain numbers and kept in the cache as safetensors.

Taking them apart costs much more than reading them, so it is done once for each file: the folder is called by the
file's hash, and whatever is in the cache can be made anew.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

from tunesmith.errors import ModelError
from tunesmith.folder import read_json, sha256, write_json
from tunesmith.models import safety
from tunesmith.models.cache import kept

GGUF = ".gguf"
BYTES_FOR_EACH = 8
"""About how much larger plain numbers are than those of four bits, for the message of a full disk."""


def unpacked(file: Path) -> Path:
    """The folder with config, safetensors (fp32) and tokenizer of a GGUF file; made if it is not there.

    Raises:
        ModelError: the package `gguf` is not installed, or the file is damaged or of an unknown architecture.
        ResourceError: no room in the cache.
    """
    return kept(f"gguf-{sha256(file)[:16]}", partial(_open_and_unpack, file), BYTES_FOR_EACH * file.stat().st_size)


def _open_and_unpack(file: Path, folder: Path) -> None:
    with safety.opening(file):
        _unpack(file, folder)


def _unpack(file: Path, folder: Path) -> None:
    """Write what transformers reads of the file; what says that it was quantised goes, since it no longer is."""
    if importlib.util.find_spec("gguf") is None:
        remedy = "pip install --no-deps gguf"
        raise ModelError("weights in GGUF form need the package `gguf`, which is not installed", str(file), remedy)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.models.heads import quiet_library  # here, since heads are read from bases, and bases from here

    quiet_library()
    named = {"gguf_file": file.name, "local_files_only": True}
    AutoTokenizer.from_pretrained(file.parent, **named).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **named)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {key: value for key, value in config.items() if not key.startswith("_")})
