"""What may be opened: JSON and safetensors whose config asks for no code.

Several holes of the field came through a config file: keys that name code to import (`auto_map`), kernels to fetch
(`_attn_implementation_internal`), or classes to build (`_target_`). Such keys are refused by name wherever they
stand, and of the others only those that the architecture's own config class knows ever reach transformers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError, TunesmithError
from tunesmith.folder import read_json

REFUSED_KEYS = ("auto_map", "trust_remote_code", "_target_", "custom_pipelines", "custom_generate")
READ_UNDECLARED = ("tie_word_embeddings", "scale_decoder_outputs", "decoder_start_token_id")
"""What config classes take without declaring it (T5's does: without these its outputs would be scaled wrongly). Whole
numbers, true and false only."""

HARMLESS_PRIVATE_KEYS = ("_name_or_path", "_commit_hash", "_num_labels", "_diffusers_version")


def switch_off_downloads() -> None:
    """No code is fetched as a kernel, and nothing is reported. The libraries read this when they are first imported."""
    os.environ["USE_HUB_KERNELS"] = "NO"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def check_folder(folder: Path) -> None:
    """Refuse a model folder whose JSON files ask for code. Raises ModelError naming file and key."""
    for file in sorted(folder.glob("*.json")):
        if file.name in ("tokenizer.json", "vocab.json") or file.name.endswith(".safetensors.index.json"):
            continue  # large tables, read by the tokenizers library, in which such keys mean nothing
        for key in _keys(read_json(file), depth=0):
            private = key.startswith("_") and key not in HARMLESS_PRIVATE_KEYS and file.name == "config.json"
            if key in REFUSED_KEYS or private:
                raise ModelError(
                    f"the key {key!r} can make a model run code; it is not opened",
                    str(file),
                    "if you trust its makers, remove the key (the architecture must then be one of transformers' own)",
                )


def check_adapter(folder: Path) -> None:
    """Refuse an adapter folder whose JSON asks for code, or whose weights are not in safetensors."""
    check_folder(folder)
    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or config.get("megatron_config") is not None:
        raise ModelError("not an adapter config that we open", str(folder / "adapter_config.json"))
    if not (folder / "adapter_model.safetensors").is_file():
        remedy = "restore it from a copy; weights in pickle form (.bin) can run code and are not opened"
        raise ModelError("no adapter_model.safetensors", str(folder), remedy)


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Name the folder for whatever a library says of files that are damaged or do not belong together.

    Any kind of error can come out of a hostile or torn file, so all are caught; the first line of each is kept.
    """
    try:
        yield
    except TunesmithError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"cannot be opened ({type(error).__name__}: {reason})", str(folder), "fetch or save the model anew"
        ) from error


def _keys(value: Any, depth: int) -> Iterator[str]:
    if depth > 20:
        return
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _keys(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, depth + 1)


def read_config(folder: Path) -> Any:
    """A model's config, built only from keys that its architecture's own class declares.

    Raises:
        ModelError: an architecture that neither transformers nor we have.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tunesmith.models import efficientnet_lite  # noqa: F401 - makes its architecture known

    values = read_json(folder / "config.json")
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ModelError(f"unknown architecture {model_type!r}", str(folder / "config.json"))
    config_class = CONFIG_MAPPING[model_type]
    known = {item.name for item in dataclasses.fields(config_class)}
    undeclared = {key for key in READ_UNDECLARED if isinstance(values.get(key), int)}
    with opening(folder):
        return config_class.from_dict({key: value for key, value in values.items() if key in known | undeclared})
