"""A run that was cut off and resumed is the straight run, bit for bit, wherever it was cut."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workbench import WRITERS, recipe_of, run_tiny

import tiny
from forked import Forked
from tunesmith.checkpoints import WEIGHTS
from tunesmith.errors import CheckpointError
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.recipe.reading import write_recipe
from tunesmith.run import resume, run

COURSE: dict[str, Any] = {
    "train": {"steps": 9, "batch_size": 7, "evaluate_every": 4, "checkpoint_every": 2, "refit": True}
}
METHODS: dict[str, Any] = {
    "full": "full",
    "lora": {"kind": "lora", "rank": 4, "dropout": 0.1, "head_first": 1, "layer_decay": 2.6},
    "gradual-unfreezing": {"kind": "gradual-unfreezing", "until": 0.7, "mixout": 0.3, "l2_sp": 0.1, "head_first": 1},
    "average": "full",
    "houlsby": {"kind": "houlsby", "size": 8},
}
"""Whole runs that are cut; that each method's training goes on to the bit is a law of the matrix."""
WATCHED = ("scores.json", "verdict.json", "check.json", "recipe.yaml")

Bases = Callable[..., Path]


class Photographer(Voice):
    """Copies the run folder at every event: each copy is what a kill at that moment would leave behind."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self.folder, self.copies, self.names = folder, copies, list[str]()

    def _copy(self, name: str) -> None:
        if (self.folder / "recipe.yaml").exists():
            shutil.copytree(self.folder, self.copies / f"{len(self.names):02}-{name}")
            self.names.append(name)

    def stage(self, name: str) -> None:
        self._copy(name.replace(" ", "-"))

    def step(self, step: Any, total: int) -> None:
        self._copy(f"step-{step.number}-of-{total}")

    def evaluation(self, step: int, primary: str, scores: Any, best: bool) -> None:
        self._copy(f"evaluation-{step}")


def without_seconds(file: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in lines(file)]


def contents(folder: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on how often it was cut off."""
    run_folder = RunFolder(folder)
    kept: dict[str, Any] = {
        str(file.relative_to(folder)): file.read_bytes()
        for place in ("model", "predictions")
        for file in sorted((folder / place).iterdir())
    }
    kept |= {name: (folder / name).read_bytes() for name in WATCHED}
    kept["steps"] = without_seconds(run_folder.steps)
    kept["evaluations"] = lines(run_folder.evaluations)
    manifest = read_json(run_folder.manifest)
    return kept | {f"manifest {key}": manifest[key] for key in ("ended", "best_step", "steps", "choices", "identity")}


def assert_same(one: dict[str, Any], other: dict[str, Any], cut: str) -> None:
    assert set(one) == set(other), cut
    differing = [name for name in one if one[name] != other[name]]
    assert not differing, f"cut at {cut}: {differing} differ from the straight run"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in METHODS), "quick"])
def test_resume_equals_straight(bases: Bases, data: Path, tmp_path: Path, kind: str) -> None:
    """Cut at every event (full; the others at every fourth): each step of both courses, mid-epoch and with dropout,
    evaluations, before judging, before reporting."""
    straight, copies = tmp_path / "straight", tmp_path / "copies"
    photographer = Photographer(straight, copies)
    method = METHODS.get(kind, "full")
    course = {**COURSE, "train": {**COURSE["train"], "ema": 0.6 if kind in ("average", "gradual-unfreezing") else None}}
    run(recipe_of(bases("bert"), data, straight, method=method, **course), voice=photographer)
    wanted = contents(straight)
    assert any(row["phase"] == "refit" for row in wanted["steps"])
    cuts = sorted(copies.iterdir())
    assert len(cuts) > 9 + 3, photographer.names
    if kind == "quick":
        cuts = [cut for cut in cuts if cut.name.endswith(("step-6-of-9", "judging"))]
        assert len(cuts) == 2
    elif kind != "full":
        cuts = cuts[::4]
    for cut in cuts:
        moved = cut.rename(tmp_path / f"resumed-{cut.name}")
        resume(moved)
        assert_same(contents(moved), wanted, cut.name)
        shutil.rmtree(moved)


@pytest.mark.parametrize("task", WRITERS)
def test_resume_of_a_model_that_writes_equals_straight(writers: Bases, tmp_path: Path, task: str) -> None:
    """Cut in the middle and before judging: the same weights, and the same texts."""
    pairs = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.make_reversals(30))
    straight, copies = tmp_path / "straight", tmp_path / "copies"
    recipe = recipe_of(writers(WRITERS[task]), pairs, straight, task=task, **COURSE)
    run(recipe, voice=Photographer(straight, copies))
    wanted = contents(straight)
    cuts = [cut for cut in sorted(copies.iterdir()) if cut.name.endswith(("step-6-of-9", "judging"))]
    assert len(cuts) == 2
    for cut in cuts:
        moved = cut.rename(tmp_path / f"resumed-{cut.name}")
        resume(moved)
        assert_same(contents(moved), wanted, cut.name)


READERS: dict[str, tuple[str, Callable[[int], list[dict[str, Any]]]]] = {
    "token-classification": ("bert", tiny.make_entity_rows),
    "question-answering": ("bert", tiny.make_flat_questions),
    "language-modeling": ("bert+masked", tiny.make_sentences),
}
"""Tasks, their bases and rows; images have a law of their own (test_law_images), all tasks one in the matrix."""


@pytest.mark.parametrize("kind", READERS)
def test_resume_of_tasks_that_read_equals_straight(bases: Bases, tmp_path: Path, kind: str) -> None:
    """Cut in the middle of an epoch: the same weights, answers and scores."""
    family, make_rows = READERS[kind]
    rows, held = (tiny.write_rows(tmp_path / f"{seed}.jsonl", make_rows(30 - 20 * seed, seed)) for seed in (0, 1))
    straight, copies = tmp_path / "straight", tmp_path / "copies"
    data = {"validation": str(held)}
    recipe = recipe_of(bases(family), rows, straight, task=kind, data=data, **COURSE)
    run(recipe, voice=Photographer(straight, copies))
    wanted = contents(straight)
    cut = min(cut for cut in copies.iterdir() if cut.name.endswith("step-6-of-9"))
    moved = cut.rename(tmp_path / "resumed")
    resume(moved)
    assert_same(contents(moved), wanted, cut.name)


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


class Cutter(Voice):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: Any, total: int) -> None:
        if step.number == self.at:
            raise PowerCut


def test_resume_after_an_exception_damage_and_leftovers(bases: Bases, data: Path, tmp_path: Path) -> None:
    """A damaged newest checkpoint, a torn line and a half-written checkpoint are passed over, and named."""
    wanted = contents(run_tiny(bases("bert"), data, tmp_path / "straight", **COURSE).folder.path)
    folder = RunFolder(tmp_path / "cut")
    with pytest.raises(PowerCut):
        run(recipe_of(bases("bert"), data, folder.path, **COURSE), voice=Cutter(7))
    newest = folder.checkpoints / "step-000000006" / WEIGHTS
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    (folder.checkpoints / ".staging-step-000000008").mkdir()
    with open(folder.steps, "ab") as file:
        file.write(b'{"phase": "fit", "st')
    finished = resume(folder.path)
    assert_same(contents(folder.path), wanted, "a power cut")
    assert finished.manifest["resumed_from"] == 4
    assert "step-000000006" in finished.manifest["warnings"][0]
    assert not list(folder.checkpoints.glob(".staging-*"))


def test_resume_of_a_finished_run_changes_nothing(finished_run: Any) -> None:
    """A second resume is no second look at the test set."""
    before = {file: file.read_bytes() for file in finished_run.folder.path.rglob("*") if file.is_file()}
    resume(finished_run.folder.path)
    assert before == {file: file.read_bytes() for file in finished_run.folder.path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("change", ["setting", "data", "base"])
def test_resume_refuses_what_was_changed(bases: Bases, data: Path, tmp_path: Path, change: str) -> None:
    """Another rate, other rows, another base: refused, naming what it was and is."""
    base = tmp_path / "base"
    shutil.copytree(bases("bert"), base)
    folder = RunFolder(tmp_path / "cut")
    with pytest.raises(PowerCut):
        run(recipe_of(base, data, folder.path, **COURSE), voice=Cutter(3))
    if change == "setting":
        text = folder.recipe.read_text()
        assert "learning_rate: 0.003" in text
        folder.recipe.write_text(text.replace("learning_rate: 0.003", "learning_rate: 0.004"))
        expected = r"train\.learning_rate was 0\.003, is 0\.004"
    elif change == "data":
        tiny.write_rows(data, tiny.make_rows(31))
        expected = r"data\.train\.sha256 was '\w+', is '\w+'"
    else:
        shutil.copy(bases("bert", seed=5) / "model.safetensors", base / "model.safetensors")
        expected = r"model\.model\.safetensors was '\w+', is '\w+'"
    with pytest.raises(CheckpointError, match=expected):
        resume(folder.path)


@pytest.mark.slow
def test_resume_after_sigterm(bases: Bases, data: Path, tmp_path: Path) -> None:
    """SIGTERM ends a run with 143 and a checkpoint of the very step; resumed, it is the straight run."""
    course = {"train": {"steps": 150, "batch_size": 7, "evaluate_every": 100}}
    wanted = contents(run_tiny(bases("bert"), data, tmp_path / "straight", **course).folder.path)
    folder = RunFolder(tmp_path / "cut")
    write_recipe(recipe_of(bases("bert"), data, folder.path, **course), tmp_path / "recipe.yaml")
    child = Forked(["run", str(tmp_path / "recipe.yaml"), "--json"], tmp_path)
    deadline = time.monotonic() + 120
    while len(lines(folder.steps)) < 5:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143, child.said
    done = lines(folder.steps)[-1]["step"]
    assert 5 <= done < 150
    saved = sorted(folder.checkpoints.iterdir())[-1]
    assert saved.name == f"step-{done:09d}", "a checkpoint of the very step"
    assert json.loads((saved / "state.json").read_bytes())["step"] == done
    finished = resume(folder.path)
    assert finished.manifest["resumed_from"] == done
    assert_same(contents(folder.path), wanted, f"SIGTERM after step {done}")
