"""The commands, called in this process as the shell would call them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from shell import RECIPE, Command, Outcome

import tiny


@pytest.fixture
def tunesmith(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`tunesmith("run", recipe, "--json")`: the outcome of one command."""
    from tunesmith import cli

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tunesmith", *map(str, arguments)])
        capsys.readouterr()
        code = cli._run(debug=False)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err, printed.err
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path) -> Path:
    """A recipe of six steps beside its rows, in a folder of its own."""
    tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(40))
    tiny.write_rows(tmp_path / "test.jsonl", tiny.make_rows(21, seed=1))
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE.format(base=tiny_base))
    return file


@pytest.fixture
def run_copy(finished_run: Any, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_run.folder.path, folder)
    return folder
