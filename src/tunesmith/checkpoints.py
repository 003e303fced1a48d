"""Checkpoints: staged, hashed, atomic; the newest *valid* one is resumed, and a resumed run is exact.

A checkpoint holds the weights that move (frozen ones come from the base), the optimizer's moments and the progress
of the run, as safetensors and JSON. Generators need no saving: they are seeded anew at every step. The manifest, with
a size and a SHA-256 for every file, is written last; the folder appears under its final name by one rename.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tunesmith import folder as folders
from tunesmith.errors import CheckpointError, ResourceError
from tunesmith.models.averages import Average
from tunesmith.models.loaded import Loaded

FORMAT = 1
KEEP = 2
MEAN = "mean"
WEIGHTS, MOMENTS, STATE, MANIFEST = "weights.safetensors", "moments.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{9})")


@dataclass
class Progress:
    """What the run has come to, beside weights and moments. Plain numbers only."""

    step: int = 0
    best_step: int = 0
    best_value: float | None = None
    evaluations_without_gain: int = 0
    ended: str = ""
    """Why training is over ("" while it is not)."""


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint on disk."""

    path: Path
    progress: Progress
    identity: Mapping[str, Any] = field(default_factory=dict)


def path_of(place: Path, step: int) -> Path:
    return place / f"step-{step:09d}"


def save(
    place: Path,
    loaded: Loaded,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: Mapping[str, Any],
    average: Average | None = None,
) -> Path:
    """Write a checkpoint and remove those no longer needed (all but the newest two and the best).

    Raises:
        ResourceError: the disk is full; earlier checkpoints are untouched.
    """
    final = path_of(place, progress.step)
    staged = place / f"{folders.STAGING}{final.name}"
    weights, moments = weights_of(loaded), _moments_of(optimizer) | _means_of(average)
    needed = _bytes_of(weights) + _bytes_of(moments) + 100_000
    if _is_valid(final):  # a step has one content: to write it again could only lose it
        return final
    try:
        with folders.disk_errors_named(final, needed):
            place.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(place)
            require_space(place, needed)
            staged.mkdir()
            save_file(weights, staged / WEIGHTS)
            save_file(moments, staged / MOMENTS)
            (staged / STATE).write_bytes(folders.to_json(progress))
            _write_manifest(staged, identity)
            folders.put_in_place(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    rotate(place, best_step=progress.best_step)
    return final


def _write_manifest(staged: Path, identity: Mapping[str, Any]) -> None:
    files = {}
    for name in (WEIGHTS, MOMENTS, STATE):
        folders.flush_file(staged / name)
        files[name] = {"bytes": (staged / name).stat().st_size, "sha256": folders.sha256(staged / name)}
    manifest = {"format": FORMAT, "files": files, "identity": dict(identity)}
    folders.write_bytes(staged / MANIFEST, folders.to_json({**manifest, "sha256": _seal(manifest)}))


def _seal(manifest: Mapping[str, Any]) -> str:
    """The manifest's own hash: what vouches for the other files must not itself change unseen."""
    return hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def require_space(place: Path, needed: int) -> None:
    """Raise ResourceError unless `needed` bytes are free where `place` lies."""
    free = folders.free_bytes(place)
    if free < needed:
        raise ResourceError(
            f"not enough disk space: {needed:,} bytes needed, {free:,} bytes free",
            where=str(place),
            remedy="free some space, then `tunesmith resume` the run folder; earlier checkpoints are untouched",
        )


def weights_of(loaded: Loaded) -> dict[str, torch.Tensor]:
    """The weights that move and the buffers that training may change, by name."""
    weights = {
        name: parameter.detach().contiguous()
        for name, parameter in loaded.model.named_parameters()
        if parameter.requires_grad
    }
    for name, buffer in loaded.model.named_buffers():
        if buffer.dtype.is_floating_point:
            weights[f"buffer:{name}"] = buffer.detach().contiguous()
    return weights


def _moments_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    moments: dict[str, torch.Tensor] = {}
    for name, parameter in _named(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{key}:{name}"] = value.detach().contiguous()
    return moments


def _means_of(average: Average | None) -> dict[str, torch.Tensor]:
    return {f"{MEAN}:{name}": mean.contiguous() for name, mean in (average.means if average else {}).items()}


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, torch.nn.Parameter]]:
    return [
        (name, parameter)
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    ]


def _bytes_of(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def rotate(place: Path, best_step: int) -> None:
    """Remove all but the newest two checkpoints and the best."""
    steps = _steps(place)
    for step in steps[:-KEEP]:
        if step != best_step:
            shutil.rmtree(path_of(place, step))


def _steps(place: Path) -> list[int]:
    """Steps of the checkpoints under their final names, oldest first."""
    if not place.is_dir():
        return []
    return sorted(int(match[1]) for child in place.iterdir() if (match := _NAME.fullmatch(child.name)))


def _remove_leftovers(place: Path) -> None:
    """Remove what a killed writer left under a staging name."""
    for child in place.glob(f"{folders.STAGING}*"):
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def newest_valid(place: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose every file is as it was written, and what was wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints and not one of them is valid; nothing is deleted.
    """
    faults: list[str] = []
    for step in reversed(_steps(place)):
        path = path_of(place, step)
        try:
            return read(path), faults
        except CheckpointError as error:
            faults.append(str(error))
    if faults:
        raise CheckpointError(
            "no checkpoint of this run is valid: " + "; ".join(faults),
            where=str(place),
            remedy="restore them from a copy, or remove the folder to start over",
        )
    return None, faults


def read(path: Path) -> Checkpoint:
    """Check a checkpoint's files against its manifest. Raises CheckpointError naming file, expected and found."""
    manifest = _read_manifest(path / MANIFEST)
    for name, expected in manifest["files"].items():
        file = path / name
        _require_file(file)
        found = file.stat().st_size
        if found != expected["bytes"]:
            raise CheckpointError(f"{expected['bytes']:,} bytes expected, {found:,} found", where=str(file))
        if folders.sha256(file) != expected["sha256"]:
            raise CheckpointError("its content is not what was written (SHA-256 differs)", where=str(file))
    progress = Progress(**orjson.loads((path / STATE).read_bytes()))
    return Checkpoint(path, progress, manifest["identity"])


def _is_valid(path: Path) -> bool:
    try:
        return bool(read(path))
    except CheckpointError:
        return False


def _read_manifest(file: Path) -> dict[str, Any]:
    _require_file(file)
    manifest = folders.read_json(file)
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _seal(manifest):
        raise CheckpointError("not a manifest of ours, or no longer what was written", where=str(file))
    if manifest["format"] != FORMAT or set(manifest["files"]) != {WEIGHTS, MOMENTS, STATE}:
        raise CheckpointError(f"a manifest of another format ({manifest['format']})", where=str(file))
    return manifest


def _require_file(file: Path) -> None:
    if file.is_symlink() or not file.is_file():
        raise CheckpointError("missing", where=str(file))


def require_same(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with a checkpoint of other settings, data or base. Raises CheckpointError, field by field."""
    was, now = dict(checkpoint.identity), orjson.loads(orjson.dumps(dict(identity)))
    changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in changed)
        raise CheckpointError(
            f"this run was made otherwise: {listed}",
            where=str(checkpoint.path),
            remedy="undo the change, or start a new run in another folder",
        )


def load_weights(path: Path, loaded: Loaded) -> None:
    """Put a checkpoint's weights into the model. Raises CheckpointError if names or shapes differ."""
    tensors = _tensors(path / WEIGHTS)
    own = weights_of(loaded)
    if set(tensors) != set(own) or any(tensors[name].shape != own[name].shape for name in own):
        odd = sorted(set(tensors) ^ set(own))[:5]
        raise CheckpointError(f"its weights are not those of this model ({', '.join(odd)})", where=str(path / WEIGHTS))
    parameters = dict(loaded.model.named_parameters())
    buffers = dict(loaded.model.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            target = buffers[name.removeprefix("buffer:")] if name.startswith("buffer:") else parameters[name]
            target.copy_(tensor)


def load_means(path: Path, loaded: Loaded, average: Average) -> None:
    """Put a checkpoint's running means into `average`."""
    devices = {name: parameter.device for name, parameter in loaded.model.named_parameters()}
    means = {
        key.partition(":")[2]: mean for key, mean in _tensors(path / MOMENTS).items() if key.startswith(f"{MEAN}:")
    }
    average.means = {name: mean.to(devices[name]) for name, mean in means.items()}


def load_moments(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's moments into the optimizer."""
    tensors = _tensors(path / MOMENTS)
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(":")
        if kind != MEAN:
            state.setdefault(name, {})[kind] = tensor
    for name, parameter in _named(optimizer):
        if name in state:
            moments = {
                kind: tensor if kind == "step" else tensor.to(parameter.device) for kind, tensor in state[name].items()
            }
            optimizer.state[parameter] = moments


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
