"""Checkpoints: staged, hashed, atomic; the newest *valid* one is resumed, and a resumed run is exact.

A checkpoint holds the weights that move (frozen ones come from the base), the optimizer's moments and the progress
of the run, as safetensors and JSON. Where processes share the weights out, each writes files of its own with its part;
parts of a tensor follow each other along its first dimension. Generators need no saving: they are seeded anew at every
step. The manifest, with a size and a SHA-256 for every file, is written last; the folder appears under its final name
by one rename.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tunesmith import folder as folders
from tunesmith.devices import Devices, is_part, laid_out_like, own_part
from tunesmith.errors import CheckpointError, ResourceError
from tunesmith.models.averages import Average
from tunesmith.models.loaded import Loaded

FORMAT = 1
KEEP = 2
MEAN = "mean"
WEIGHTS, MOMENTS, STATE, MANIFEST = "weights.safetensors", "moments.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{9})")


ALONE = Devices(torch.device("cpu"), None, torch.float32, threads=1)
"""A process that holds the whole model."""


def files_of(kind: str, ranks: int) -> list[str]:
    """The names of the files of WEIGHTS or MOMENTS: one, or one of each rank that holds a part."""
    stem = kind.removesuffix(".safetensors")
    return [kind] if ranks == 1 else [f"{stem}-{rank + 1}-of-{ranks}.safetensors" for rank in range(ranks)]


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
    devices: Devices = ALONE,
) -> Path:
    """Write a checkpoint and remove those no longer needed (all but the newest two and the best).

    Args:
        devices: those that share the weights out, all of which must call this; else one calls it for all.

    Raises:
        ResourceError: the disk is full; earlier checkpoints are untouched.
    """
    final = path_of(place, progress.step)
    staged = place / f"{folders.STAGING}{final.name}"
    tensors = {WEIGHTS: weights_of(loaded), MOMENTS: _moments_of(optimizer) | _means_of(average)}
    needed = sum(map(_bytes_of, tensors.values())) + 100_000
    if devices.agree(int(devices.is_first and _is_valid(final))):
        return final  # a step has one content: to write it again could only lose it
    try:
        with folders.disk_errors_named(final, needed):
            if devices.is_first:
                place.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(place)
                require_space(place, needed)
                staged.mkdir()
            devices.wait()
            for kind, named in tensors.items():
                save_file(_own(named, devices.is_first), staged / files_of(kind, devices.world_size)[devices.rank])
            devices.wait()
            if devices.is_first:
                (staged / STATE).write_bytes(folders.to_json(progress))
                _write_manifest(staged, identity, devices.world_size)
                folders.put_in_place(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    if devices.is_first:
        rotate(place, best_step=progress.best_step)
    devices.wait()  # nobody may look for it before it is there
    return final


def _own(tensors: Mapping[str, torch.Tensor], is_first: bool) -> dict[str, torch.Tensor]:
    """What a rank writes: its parts, and the first rank all that is not shared out."""
    return {name: own_part(tensor).contiguous() for name, tensor in tensors.items() if is_first or is_part(tensor)}


def _write_manifest(staged: Path, identity: Mapping[str, Any], ranks: int) -> None:
    files = {}
    for name in (*files_of(WEIGHTS, ranks), *files_of(MOMENTS, ranks), STATE):
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
    ranks = _ranks_of(manifest)
    named = {*files_of(WEIGHTS, ranks), *files_of(MOMENTS, ranks), STATE}
    if manifest["format"] != FORMAT or set(manifest["files"]) != named:
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
    """Put a checkpoint's weights into the model, be it whole or this rank's part.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = {name: tensor.shape for name, tensor in weights_of(loaded).items()}
    parameters = dict(loaded.model.named_parameters())
    buffers = dict(loaded.model.named_buffers())
    stored = _shapes(path, WEIGHTS)
    if stored != own:
        odd = sorted(set(stored) ^ set(own))[:5]
        raise CheckpointError(f"its weights are not those of this model ({', '.join(odd)})", where=str(path))
    with torch.no_grad():
        for name, tensor in _tensors(path, WEIGHTS):
            target = buffers[name.removeprefix("buffer:")] if name.startswith("buffer:") else parameters[name]
            target.copy_(laid_out_like(tensor, target))


def load_means(path: Path, loaded: Loaded, average: Average) -> None:
    """Put a checkpoint's running means into `average`."""
    parameters = dict(loaded.model.named_parameters())
    average.means = {name: laid_out_like(mean, parameters[name]) for kind, name, mean in _kept(path) if kind == MEAN}


def load_moments(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's moments into the optimizer."""
    parameters = dict(_named(optimizer))
    for kind, name, tensor in _kept(path):
        if kind != MEAN and name in parameters:
            moment = tensor if kind == "step" else laid_out_like(tensor, parameters[name])
            optimizer.state[parameters[name]][kind] = moment


def _kept(path: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Moments and means: which it is, of which weight, and its numbers."""
    for key, tensor in _tensors(path, MOMENTS):
        kind, _, name = key.partition(":")
        yield kind, name, tensor


def _tensors(path: Path, kind: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a checkpoint's WEIGHTS or MOMENTS one by one, each of them whole."""
    with _holders(path, kind) as holders:
        for name, files in holders.items():
            parts = [file.get_tensor(name) for file in files]
            yield name, parts[0] if len(parts) == 1 else torch.cat(parts)


def _shapes(path: Path, kind: str) -> dict[str, torch.Size]:
    """The same, but of each its shape alone."""
    shapes = {}
    with _holders(path, kind) as holders:
        for name, files in holders.items():
            parts = [file.get_slice(name).get_shape() for file in files]
            shapes[name] = torch.Size([sum(part[0] for part in parts), *parts[0][1:]] if len(parts) > 1 else parts[0])
    return shapes


@contextmanager
def _holders(path: Path, kind: str) -> Iterator[dict[str, list[Any]]]:
    """For each name the open files that hold a part of it, in the order of ranks."""
    holders: dict[str, list[Any]] = {}
    with ExitStack() as stack:
        for name in files_of(kind, _ranks_of(_read_manifest(path / MANIFEST))):
            file = stack.enter_context(safe_open(path / name, framework="pt"))
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                holders.setdefault(key, []).append(file)
        yield holders


def _ranks_of(manifest: Mapping[str, Any]) -> int:
    """How many ranks wrote: each one file of weights and one of moments, beside the state."""
    return max(1, len(manifest["files"]) // 2)
