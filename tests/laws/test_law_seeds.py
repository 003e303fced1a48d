"""The same seed gives the same bytes; another seed does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workbench import EVERY_METHOD, recipe_of, run_tiny

import tiny
from tunesmith.folder import lines, read_json
from tunesmith.recipe.reading import write_recipe

Bases = Callable[..., Path]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Model and predictions, file by file."""
    return {
        f"{place}/{file.name}": file.read_bytes()
        for place in ("model", "predictions")
        for file in (folder / place).iterdir()
    }


@pytest.mark.parametrize("kind", ["full", "gradual-unfreezing", "lora", "houlsby", "prefix"])
def test_same_seed_same_bytes(bases: Bases, tiny_data: Path, tmp_path: Path, kind: str) -> None:
    """Two runs into two folders: every file of model/ and predictions/ is equal; a third seed changes the weights."""
    method = EVERY_METHOD[kind].model_dump()
    one, two, other = (
        run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / name, method=method, seed=seed)
        for name, seed in (("one", 3), ("two", 3), ("other", 4))
    )
    assert bytes_of(one.folder.path) == bytes_of(two.folder.path)
    assert [row["loss"] for row in lines(one.folder.steps)] == [row["loss"] for row in lines(two.folder.steps)]
    differing = {
        name for name, content in bytes_of(other.folder.path).items() if content != bytes_of(one.folder.path)[name]
    }
    assert any(name.endswith(".safetensors") for name in differing)


def test_order_head_and_dropout_follow_the_seed(bases: Bases, tiny_data: Path, tmp_path: Path) -> None:
    """The split does not: another seed holds back the same rows."""
    one, other = (
        run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / str(seed), seed=seed) for seed in (1, 2)
    )
    assert one.manifest["data"] == other.manifest["data"]
    first = [[row["where"] for row in read_json(run.folder.data)["first_batch"]] for run in (one, other)]
    assert first[0] != first[1]
    losses = [lines(run.folder.steps)[0]["loss"] for run in (one, other)]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_hash_randomisation_changes_nothing(bases: Bases, tmp_path: Path) -> None:
    """This process and one with another PYTHONHASHSEED (sets in another order) write the same bytes."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(40))
    words = {f"word {number}" for number in range(40)}
    sections = {"method": EVERY_METHOD["lora"].model_dump(), "judge": {"baselines": "auto"}}
    write_recipe(recipe_of(bases("bert"), data, tmp_path / "other", **sections), tmp_path / "recipe.yaml")
    program = (
        "import sys; from tunesmith import cli; "
        f"print(list({{f'word {{number}}' for number in range({len(words)})}}), flush=True); "
        f"sys.argv = ['tunesmith', 'run', {str(tmp_path / 'recipe.yaml')!r}, '--json']; cli.main()"
    )
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": other_seed}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] != str(list(words)), "sets have the same order: nothing was tested"
    run_tiny(bases("bert"), data, tmp_path / "here", **sections)
    one, two = (bytes_of(tmp_path / name) for name in ("here", "other"))
    assert {name for name in {*one, *two} if one.get(name) != two.get(name)} == set()
