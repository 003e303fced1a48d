"""Every shipped example is a valid recipe, and runs on part of its data with its real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tunesmith.recipe.reading import SCHEMA_FILE, parse_yaml, read_recipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = sorted(EXAMPLES.glob("*/*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_is_valid_and_its_data_is_shipped(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    schema_line = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (recipe.parent / schema_line).resolve() == SCHEMA_FILE.resolve()
    jsonschema.validate(parse_yaml(text, str(recipe)).values, json.loads(SCHEMA_FILE.read_text()))
    settings = read_recipe(recipe)
    assert Path(settings.data.train).is_file()
    assert (Path(settings.data.train).parent / "README.md").is_file(), "shipped data names its licence"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_runs_on_part_of_its_data(recipe: Path, tmp_path: Path) -> None:
    """A real model on real rows, by the public command: far above chance after few steps, with a complete folder."""
    test = Path(read_recipe(recipe).data.test or "").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "test.jsonl").write_text("".join(test[::5]), encoding="utf-8")
    small = ["data.limit=1500", f"data.test={tmp_path / 'test.jsonl'}", "train.steps=60", "train.learning_rate=5e-4"]
    small += [f"output={tmp_path / 'run'}"]
    arguments = [part for setting in small for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "run", str(recipe), "--json", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["scores"]["test"]["accuracy"]["value"] > 0.3  # 77 classes: chance is 0.013
    assert set(result["scores"]["baselines"]) == {"majority", "tfidf", "nearest-neighbours"}
    for name in ("recipe.yaml", "manifest.json", "check.json", "steps.jsonl", "scores.json", "audits.json",
                 "verdict.json", "README.md", "paper.md", "report.html", "model/model.safetensors"):  # fmt: skip
        assert (tmp_path / "run" / name).stat().st_size > 0
