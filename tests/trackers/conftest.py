"""Runs with a tracker, and a library of a test's own for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import library
import pytest

from tunesmith.fitting import Voice
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import read_recipe

Behave = Callable[[str], None]


class Listener(Voice):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Put the test's library before all others on the path, and say what it does."""
    place = tmp_path / "library"
    place.mkdir()
    library.make(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))

    def say(behaviour: str) -> None:
        monkeypatch.setenv("BEHAVIOUR", behaviour)

    say("")
    return say


@pytest.fixture
def tracked(finished_run: Any, tmp_path: Path) -> Recipe:
    """The recipe of the finished run, for a run with the test's tracker and without baselines in another folder."""
    recipe = read_recipe(finished_run.folder.recipe)
    judge = recipe.judge.but(baselines="off")
    return recipe.but(judge=judge, track=[library.NAME], output=str(tmp_path / "tracked"))


@pytest.fixture
def run_copy(finished_run: Any, tmp_path: Path) -> Path:
    """A finished run that no tracker has seen."""
    copy = tmp_path / "copy"
    shutil.copytree(finished_run.folder.path, copy)
    return copy
