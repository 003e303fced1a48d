"""A save may die, or the disk fail, at any operation; any damage is seen; what is read is what was saved."""

from __future__ import annotations

import errno
import functools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from torch import nn

from dying import Operations, in_a_child
from tunesmith import checkpoints
from tunesmith.checkpoints import MANIFEST, MOMENTS, STATE, WEIGHTS, Progress, newest_valid, path_of, save
from tunesmith.errors import CheckpointError, ResourceError
from tunesmith.models.loaded import Loaded

IDENTITY = {"seed": 0, "train.steps": 40, "data.train.sha256": "ab" * 32}
KILLED = 137


@functools.cache
def model_at(step: int) -> tuple[Loaded, torch.optim.AdamW]:
    """A model and its optimizer whose every number tells the step. Made once: a forked child could not go backward."""
    torch.manual_seed(step)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    group = {"params": [parameter for _, parameter in named], "names": [name for name, _ in named]}
    optimizer = torch.optim.AdamW([group], lr=1e-3)
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    loaded = Loaded(model, None, (), (), None, reload=lambda: model)  # type: ignore[arg-type]
    return loaded, optimizer


def save_at(place: Path, step: int, best: int | None = None) -> Path:
    progress = Progress(step=step, best_step=step if best is None else best, best_value=0.5)
    return save(place, *model_at(step), progress, IDENTITY)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


# what is read is what was saved


def test_a_checkpoint_gives_back_weights_buffers_moments_and_progress(place: Path) -> None:
    saved, saved_optimizer = model_at(7)
    progress = Progress(7, 5, 0.25, 2, "early stopping")
    save(place, saved, saved_optimizer, progress, IDENTITY)
    found, faults = newest_valid(place)
    assert found is not None and not faults
    assert found.progress == progress and found.identity == IDENTITY
    loaded, optimizer = model_at.__wrapped__(8)
    frozen = loaded.model[0].weight.clone()
    checkpoints.load_weights(found.path, loaded)
    checkpoints.load_moments(found.path, optimizer)
    state, expected = loaded.model.state_dict(), saved.model.state_dict()
    for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"):
        assert torch.equal(state[name], expected[name]), name
    assert torch.equal(state["0.weight"], frozen), "what does not move is not in a checkpoint"
    for mine, theirs in zip(optimizer.state.values(), saved_optimizer.state.values(), strict=True):
        assert set(mine) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_the_newest_two_and_the_best_are_kept(place: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        save_at(place, step, best=min(step, 10))
    assert sorted(child.name for child in place.iterdir()) == ["step-000000010", "step-000000020", "step-000000025"]


def test_an_empty_or_missing_place_has_no_checkpoint(place: Path) -> None:
    assert newest_valid(place) == (None, [])
    place.mkdir()
    assert newest_valid(place) == (None, [])


def test_weights_of_another_model_are_refused(place: Path) -> None:
    path = save_at(place, 5)
    loaded, _ = model_at.__wrapped__(5)
    loaded.model[0].requires_grad_(True)
    with pytest.raises(CheckpointError, match="not those of this model"):
        checkpoints.load_weights(path, loaded)


def test_another_identity_is_refused_field_by_field(place: Path) -> None:
    found = checkpoints.read(save_at(place, 5))
    checkpoints.require_same(found, IDENTITY)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.require_same(found, {"seed": 1, "train.steps": 40, "processes": 2})
    for said in ("seed was 0, is 1", "processes was None, is 2", "data.train.sha256 was"):
        assert said in str(caught.value)
    assert "train.steps" not in str(caught.value)


# dying at every operation

Scene = tuple[Callable[[Path], None], Callable[[Path], object], set[int | None]]


def _two_before(place: Path) -> None:
    save_at(place, 5)
    save_at(place, 10)


def _three_before(place: Path) -> None:
    save_at(place, 5, best=5)
    save_at(place, 10, best=5)
    save_at(place, 15, best=5)


def _leftovers(place: Path) -> None:
    save_at(place, 5)
    shutil.copytree(path_of(place, 5), place / ".staging-step-000000010")
    shutil.copytree(path_of(place, 5), place / ".staging-old-step-000000010")


def _damaged_before(place: Path) -> None:
    _two_before(place)
    (path_of(place, 10) / WEIGHTS).write_bytes(b"")


SCENES: dict[str, Scene] = {
    "the first save": (lambda place: None, lambda place: save_at(place, 5), {None, 5}),
    "a save that rotates": (_two_before, lambda place: save_at(place, 15), {10, 15}),
    "a save that drops the best so far": (_three_before, lambda place: save_at(place, 20), {15, 20}),
    "a save among leftovers": (_leftovers, lambda place: save_at(place, 10), {5, 10}),
    "a save over a damaged one": (_damaged_before, lambda place: save_at(place, 10), {5, 10}),
    "a save over a good one": (_two_before, lambda place: save_at(place, 10), {5, 10}),
    "a save over the only one": (lambda place: save_at(place, 5) and None, lambda place: save_at(place, 5), {5}),
}
SAVED_BEFORE = ("a save over a good one", "a save over the only one")
"""A step has one content, so here there may be nothing to write."""


@pytest.mark.parametrize("scene", SCENES)
def test_a_save_that_dies_at_any_operation_leaves_a_valid_checkpoint(scene: str, tmp_path: Path) -> None:
    before, act, allowed = SCENES[scene]
    model = tmp_path / "before"
    before(model)
    model.mkdir(exist_ok=True)
    everything = Operations()
    shutil.copytree(model, tmp_path / "whole")
    with everything.watched():
        act(tmp_path / "whole")
    if scene not in SAVED_BEFORE:
        assert everything.count >= 15 and {"open", "write", "fsync", "replace", "mkdir"} <= set(everything.names)
    for fatal in range(1, everything.count + 1):
        place = tmp_path / f"dies-{fatal}"
        shutil.copytree(model, place)
        operations = Operations(fatal, fail=lambda: os._exit(KILLED))

        def die(place: Path = place, operations: Operations = operations) -> None:
            with operations.watched():
                act(place)

        assert in_a_child(die) == KILLED
        found, _ = newest_valid(place)
        step = found.progress.step if found else None
        assert step in allowed, f"killed before operation {fatal} ({everything.names[fatal - 1]}): {step} is left"
        assert act(place) and save_at(place, 25), "the next saves must work among what a killed one left"
        assert not list(place.glob(".staging-*"))
    newest, faults = newest_valid(tmp_path / "whole")
    assert newest is not None and newest.progress.step == max(step for step in allowed if step) and not faults


WRITING = ("mkdir", "open", "write", "save_file", "save_file, half", "replace", "fsync")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("scene", ["the first save", "a save that rotates"])
def test_a_disk_that_fills_up_at_any_operation_is_named_and_loses_nothing(
    scene: str, number: int, tmp_path: Path
) -> None:
    before, act, allowed = SCENES[scene]
    model = tmp_path / "before"
    before(model)
    everything = Operations()
    shutil.copytree(model, tmp_path / "whole") if model.exists() else None
    with everything.watched():
        act(tmp_path / "whole")
    before_rotation = everything.names.index("replace", everything.names.index("replace") + 1)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    tried = 0
    for fatal in range(1, before_rotation + 2):
        if everything.names[fatal - 1] not in WRITING:
            continue
        place = tmp_path / f"full-{fatal}"
        shutil.copytree(model, place) if model.exists() else None
        tried += 1
        with Operations(fatal, fail).watched(), pytest.raises(ResourceError) as caught:
            act(place)
        assert caught.value.exit_code == 5
        assert all(said in str(caught.value) for said in (str(place), "bytes needed", "bytes free")), str(caught.value)
        found, faults = newest_valid(place)
        assert (found.progress.step if found else None) in allowed and not faults
        assert not list(place.glob(".staging-*"))
        assert act(place), "with space again the save works"
    assert tried >= 10


def test_too_little_space_is_refused_before_anything_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_at(place, 5)
    monkeypatch.setattr(checkpoints.folders, "free_bytes", lambda path: 1000)
    with pytest.raises(ResourceError, match=r"bytes needed, 1,000 bytes free"):
        save_at(place, 10)
    assert sorted(child.name for child in place.iterdir()) == ["step-000000005"]


# damage


@pytest.fixture
def two(place: Path) -> Path:
    """Checkpoints of steps 5 and 10."""
    save_at(place, 5)
    save_at(place, 10)
    return place


FILES = (WEIGHTS, MOMENTS, STATE, MANIFEST)


def seen(place: Path, step: int = 10) -> bool:
    """Whether damage to a step was seen, named, and passed over for the step before."""
    found, faults = newest_valid(place)
    return found is not None and found.progress.step == 5 and len(faults) == 1 and f"step-{step:09d}" in faults[0]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("length", ["0", "1", "half", "all but one"])
def test_a_truncated_file_is_seen(two: Path, file: str, length: str) -> None:
    target = path_of(two, 10) / file
    size = target.stat().st_size
    # a manifest ends with a newline, which means nothing: cut the brace before it too
    short = size - (2 if file == MANIFEST else 1)
    os.truncate(target, {"0": 0, "1": 1, "half": size // 2, "all but one": short}[length])
    assert seen(two)


@pytest.mark.parametrize("file", FILES)
def test_forty_flipped_bits_are_each_seen(two: Path, file: str) -> None:
    target = path_of(two, 10) / file
    whole = target.read_bytes()
    source = random.Random(40)
    for _ in range(40):
        at = source.randrange(len(whole) * 8)
        spoilt = bytearray(whole)
        spoilt[at // 8] ^= 1 << (at % 8)
        target.write_bytes(spoilt)
        if file == MANIFEST and _means_the_same(bytes(spoilt), whole):
            continue
        assert seen(two), f"bit {at}: {whole[max(0, at // 8 - 20) : at // 8 + 20]!r}"


def _means_the_same(one: bytes, other: bytes) -> bool:
    try:
        return bool(orjson.loads(one) == orjson.loads(other))
    except orjson.JSONDecodeError:
        return False


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda target, other: target.write_bytes(b"\0" * target.stat().st_size),
        lambda target, other: target.unlink(),
        lambda target, other: target.write_bytes(target.read_bytes() + b"\0"),
        lambda target, other: shutil.copyfile(other, target),
        lambda target, other: (target.unlink(), target.mkdir()),
        lambda target, other: (target.rename(target.with_name("kept")), target.symlink_to(target.with_name("kept"))),
        lambda target, other: (target.unlink(), target.symlink_to("/nowhere")),
        lambda target, other: (target.unlink(), os.mkfifo(target)),
    ],
    ids=["zeros", "deleted", "longer", "of another step", "a folder", "a link", "a dead link", "a pipe"],
)
def test_a_spoilt_file_is_seen(two: Path, file: str, spoil: Callable[[Path, Path], Any]) -> None:
    spoil(path_of(two, 10) / file, path_of(two, 5) / file)
    assert seen(two)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": None},
        {"files": {}},
        {"files": []},
        {"files": None},
        {"files": {"../../evil": {"bytes": 1, "sha256": ""}}},
        {"files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}},
        {"files": {WEIGHTS: None, MOMENTS: None, STATE: None}},
        {"files": {WEIGHTS: {}, MOMENTS: {}, STATE: {}}},
        {"identity": None},
        {"identity": [1]},
    ],
    ids=str,
)
def test_a_manifest_that_is_not_ours_is_seen(two: Path, change: dict[str, Any]) -> None:
    file = path_of(two, 10) / MANIFEST
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), **change}))
    assert seen(two)


def test_one_more_file_in_the_manifest_is_refused_and_never_opened(two: Path) -> None:
    file = path_of(two, 10) / MANIFEST
    manifest = orjson.loads(file.read_bytes())
    manifest["files"]["extra.bin"] = manifest["files"][STATE]
    shutil.copyfile(path_of(two, 10) / STATE, path_of(two, 10) / "extra.bin")
    file.write_bytes(orjson.dumps(manifest))
    assert seen(two)


def test_files_that_no_manifest_names_are_left_alone(two: Path) -> None:
    (path_of(two, 10) / "optimizer.pt").write_bytes(b"not ours")
    (two / "notes.txt").write_text("mine")
    (two / "step-1").mkdir()
    (two / "step-000000099.bak").mkdir()
    found, faults = newest_valid(two)
    assert found is not None and found.progress.step == 10 and not faults


def test_a_file_under_the_name_of_a_checkpoint_is_seen(two: Path) -> None:
    (two / "step-000000099").write_text("not a folder")
    found, faults = newest_valid(two)
    assert found is not None and found.progress.step == 10
    assert "step-000000099" in faults[0]


def test_where_all_are_bad_each_is_named_and_nothing_is_deleted(two: Path) -> None:
    for step in (5, 10):
        (path_of(two, step) / WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        newest_valid(two)
    assert caught.value.exit_code == 3
    assert "step-000000005" in str(caught.value) and "step-000000010" in str(caught.value)
    assert (path_of(two, 5) / MOMENTS).exists() and (path_of(two, 10) / MOMENTS).exists()


# numbers


def test_a_loss_that_is_not_finite_leaves_the_last_finite_step_from_which_the_run_goes_on(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import loop
    from tunesmith.errors import NumbersError
    from tunesmith.recipe import Recipe
    from tunesmith.run import resume, run

    def recipe(name: str) -> Recipe:
        settings = {
            "model": str(tiny_base),
            "data": {split: str(tiny_data / f"{split}.jsonl") for split in ("train", "test")},
            "train": {"steps": 8, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "evaluate_every": 3},
            "judge": {"baselines": "off"},
            "machine": {"threads": 1},
        }
        return Recipe.model_validate({**settings, "output": str(tmp_path / name)})

    backward, calls = loop._backward, []

    def spoilt(*arguments: Any) -> Any:
        calls.append(1)
        answer = backward(*arguments)
        return (float("nan"), *answer[1:]) if len(calls) == 6 else answer

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_backward", spoilt)
        with pytest.raises(NumbersError, match="nan at step 6"):
            run(recipe("spoilt"))
    found, _ = newest_valid(tmp_path / "spoilt" / "checkpoints")
    assert found is not None and found.progress.step == 5
    assert all(bool(tensor.isfinite().all()) for tensor in dict(checkpoints._tensors(found.path, WEIGHTS)).values())
    resume(tmp_path / "spoilt")
    run(recipe("straight"))
    for name in ("model/model.safetensors", "scores.json", "evaluations.jsonl"):
        assert (tmp_path / "spoilt" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
