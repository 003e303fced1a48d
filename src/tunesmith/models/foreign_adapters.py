"""Adapters as bases: those that PEFT has saved without us, and which kinds can be merged into their base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.folder import read_json
from tunesmith.models import safety

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LENGTHS = ".lora_magnitude_vector"
"""How names of DoRA's lengths end; PEFT takes them with `.weight` behind it, too."""

MERGES = ("LORA", "IA3")
"""Kinds of adapter, in PEFT's words, that end in the weights of their base (DoRA is a kind of LoRA there)."""


def made_elsewhere(folder: Path) -> dict[str, Any]:
    """What a card of ours would say of an adapter without one: its base, and names for the outputs of its own head.

    Raises:
        ModelError: its config names no base.
    """
    safety.check_adapter(folder)
    config = read_json(folder / CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        remedy = "write there, as base_model_name_or_path, the folder or hub id of the model that it was trained on"
        raise ModelError("an adapter that names no base", str(folder / CONFIG), remedy)
    if Path(base).expanduser().is_dir():
        return {"base": str(Path(base).expanduser().absolute()), "labels": _outputs(folder)}
    return {"base": base, "revision": revision, "labels": _outputs(folder)}


def _outputs(folder: Path) -> list[str]:
    """A name for each output of the head that was saved beside an adapter; none if there is no head."""
    from safetensors import safe_open

    with safety.opening(folder), safe_open(folder / WEIGHTS, framework="np") as file:
        heads = [name for name in file.keys() if name.endswith(".weight") and _is_of_head(name)]  # noqa: SIM118
        many = min((file.get_slice(name).get_shape()[0] for name in heads), default=0)
    return [f"LABEL_{number}" for number in range(many)]


def _is_of_head(name: str) -> bool:
    parts = name.split(".")
    return "lora" not in name and any(part in ("classifier", "score", "qa_outputs") for part in parts)


def require_mergeable(folder: Path, card: dict[str, Any]) -> None:
    """Refuse an adapter as a base that cannot be merged into its own.

    Raises:
        ModelError: with what it is.
    """
    kind = read_json(folder / CONFIG).get("peft_type")
    if kind not in MERGES:
        message = f"an adapter of the kind {kind} changes no weights, so that nothing can go on from it"
        raise ModelError(message, str(folder), "name its base as the model, or an adapter of LoRA, DoRA or (IA)3")
    method = card.get("method")
    if isinstance(method, dict) and method.get("kind") == "qlora":
        message = "an adapter that was trained beside 4 bits: on its exact base it would be another model"
        raise ModelError(message, str(folder), "name its base as the model, or train it by lora")


def require_places(folder: Path, model: Any) -> None:
    """Refuse an adapter whose tensors are not exactly those of the model that it was put on: PEFT leaves out what finds
    no place, and answers as if nothing had been learned.

    Raises:
        ModelError: with the first that has no place, or no tensor.
    """
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="np") as file:
        require_tensors(folder, set(file.keys()), model)


def require_tensors(folder: Path, saved: set[str], model: Any) -> None:
    """The same of tensors by the names that they have in the model."""
    from peft import get_peft_model_state_dict

    saved = {name.removesuffix(".weight") if name.endswith(f"{LENGTHS}.weight") else name for name in saved}
    odd = sorted(saved ^ set(get_peft_model_state_dict(model, save_embedding_layers=False)))
    if odd:
        message = f"an adapter for another kind of model: {len(odd)} of its tensors and places do not meet ({odd[0]})"
        raise ModelError(message, str(folder), "it must have been trained on a model with a head like this task's")
