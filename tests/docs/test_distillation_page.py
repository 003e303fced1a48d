"""The recipe on the page about teachers runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from workbench import run_tiny

import tiny
from tunesmith.recipe.reading import read_recipe
from tunesmith.run import run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "distillation.md"


@pytest.mark.usefixtures("own_cache")
def test_the_recipe_of_the_page_runs(bases: Callable[..., Path], tmp_path: Path) -> None:
    """With the steps of a moment: it is read, a student of three layers is cut, taught and judged by what it names."""
    fenced = dict(re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE))
    name = fenced[""].split()[-1]
    (tmp_path / name).write_text(fenced["yaml"], encoding="utf-8")
    train = tiny.write_rows(tmp_path / "tickets.jsonl", tiny.make_rows(40))
    tiny.write_rows(tmp_path / "tickets_test.jsonl", tiny.make_rows(21, seed=1))
    run_tiny(bases("bert", layers=5), train, tmp_path / "runs" / "tickets", train={"steps": 4})
    recipe = read_recipe(tmp_path / name, ["train.steps=4", "train.precision=fp32", "machine.threads=1"])
    finished = run(recipe)
    assert finished.folder.path == tmp_path / "runs" / "student"
    assert finished.loaded.model.config.num_hidden_layers == 3
    assert set(finished.scores["baselines"]) == {"tfidf", "without-teacher"}
