"""Two processes are one, over gloo on this machine: once started by the command, else forked (tests/forked.py)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from workbench import command, largest_difference, recipe_of, run_tiny

import tiny
from forked import in_two
from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.recipe.reading import write_recipe
from tunesmith.run import resume

pytestmark = pytest.mark.slow

COURSE: dict[str, Any] = {
    "train": {"steps": 20, "batch_size": 7, "evaluate_every": 10, "precision": "fp64"},
    "machine": {"micro_batch_tokens": 40},
}
# A pull to the start is not among them: it makes the rounding in key biases, which a softmax does not see, grow.
METHODS: dict[str, Any] = {
    "full": "full",
    "lora": {"kind": "lora", "rank": 4},
    "gradual-unfreezing": {"kind": "gradual-unfreezing", "until": 0.5, "mixout": 0.3, "head_first": 1},
    "houlsby": {"kind": "houlsby", "size": 8},
}

Bases = Callable[..., Path]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))


def run_in_two(base: Path, data: Path, output: Path, launched: bool = False, **sections: Any) -> RunFolder:
    """`launched`: by the command itself, which starts two interpreters."""
    machine = {**sections.pop("machine", COURSE["machine"]), "processes": 2}
    recipe = recipe_of(base, data, output, machine=machine, **sections)
    write_recipe(recipe, output.parent / f"{output.name}.yaml")
    arguments = ["run", str(output.parent / f"{output.name}.yaml")]
    if launched:
        ended = command(arguments)
        assert ended.returncode == 0, ended.stderr
    else:
        codes, told = in_two(arguments, output.parent)
        assert codes == [0, 0], told
    return RunFolder(output)


@pytest.mark.parametrize("kind", ["lora"])
def test_a_batch_that_must_stay_whole_is_one_processes_work(bases: Bases, tmp_path: Path, kind: str) -> None:
    """In-batch negatives: one process computes the batch, in pieces that it computes again, the other adds nothing."""
    base, data = bases("bert", dropout=0.0), tiny.write_rows(tmp_path / "train.jsonl", tiny.make_triplets(30))
    task = {"kind": "sentence-similarity", "target": "positive"}
    sections = {**COURSE, "method": METHODS[kind], "task": task, "train": {**COURSE["train"], "steps": 6}}
    alone = run_tiny(base, data, tmp_path / "one", **sections).folder
    both = run_in_two(base, data, tmp_path / "two", **sections)
    name = next(path.name for path in alone.model.glob("*.safetensors"))
    one, two = load_file(alone.model / name), load_file(both.model / name)
    assert largest_difference(one, two) <= 1e-12
    losses = [[row["loss"] for row in lines(folder.steps)] for folder in (alone, both)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


@pytest.mark.parametrize("kind", METHODS)
def test_two_processes_are_one(bases: Bases, data: Path, tmp_path: Path, kind: str) -> None:
    """Twenty steps in fp64 without dropout, some with fewer pieces than ranks, then (once) a refit: equal weights."""
    base = bases("bert", dropout=0.0)
    sections = {**COURSE, "method": METHODS[kind], "train": {**COURSE["train"], "refit": kind == "lora"}}
    alone = run_tiny(base, data, tmp_path / "one", **sections).folder
    both = run_in_two(base, data, tmp_path / "two", launched=kind == "full", **sections)
    assert read_json(both.manifest)["processes"] == 2
    file = next(path.name for path in alone.model.glob("*.safetensors"))
    one, two = load_file(alone.model / file), load_file(both.model / file)
    assert largest_difference(one, two) <= 1e-12
    for was, now in zip(lines(alone.steps), lines(both.steps), strict=True):
        assert (was["phase"], was["step"], was["rows"], was["tokens"]) == (
            now["phase"],
            now["step"],
            now["rows"],
            now["tokens"],
        )
        assert was["loss"] == pytest.approx(now["loss"], abs=1e-12)
        assert was["grad_norm"] == pytest.approx(now["grad_norm"], rel=1e-9)
    assert [row["scores"] for row in lines(alone.evaluations)] == [row["scores"] for row in lines(both.evaluations)]
    assert not both.handover.exists()


def test_another_number_of_processes_is_refused(bases: Bases, data: Path, tmp_path: Path) -> None:
    """A run that two processes began is not continued by one, nor the other way round; both numbers are named.

    And one that two processes trained to the end, but that was cut off before it was judged, is judged by two.
    """
    folder = run_in_two(bases("bert"), data, tmp_path / "two", train={"steps": 4, "evaluate_every": 2})
    whole = folder.scores.read_bytes()
    text = folder.manifest.read_text()
    folder.manifest.write_text(re.sub(r'"finished": "[^"]*"', '"finished": null', text))
    recipe = folder.recipe.read_text()
    assert "processes: 2" in recipe
    with pytest.raises(RecipeError, match=r"machine\.processes: 2 asked for, this is the only process"):
        resume(folder.path)
    folder.recipe.write_text(recipe.replace("processes: 2", "processes: 1"))
    with pytest.raises(CheckpointError, match="; processes was 2, is 1"):
        resume(folder.path)
    folder.recipe.write_text(recipe)
    folder.scores.unlink()
    for _ in range(2):
        codes, told = in_two(["resume", str(folder.path)], tmp_path)
        assert codes == [0, 0], told
        assert folder.scores.read_bytes() == whole
        folder.manifest.write_text(re.sub(r'"finished": "[^"]*"', '"finished": null', folder.manifest.read_text()))
