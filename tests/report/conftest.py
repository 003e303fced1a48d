"""Run folders made by hand, with their texts written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated import make_run

from tunesmith.folder import RunFolder
from tunesmith.report.card import make_card
from tunesmith.report.paper import make_paper
from tunesmith.report.record import read_record
from tunesmith.report.writing import write_report

Report = Callable[..., RunFolder]


@pytest.fixture
def fresh(tmp_path: Path) -> Report:
    """`fresh(**variant)`: a run folder of that variant with its three texts; to do with as one likes."""

    def make(**variant: object) -> RunFolder:
        folder = make_run(tmp_path / "tickets", **variant)  # type: ignore[arg-type]
        write_report(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Like `fresh`, but each variant is made once: look, do not touch."""
    made: dict[str, RunFolder] = {}

    def make(**variant: object) -> RunFolder:
        key = repr(sorted(variant.items()))
        if key not in made:
            made[key] = make_run(tmp_path_factory.mktemp("report") / "tickets", **variant)  # type: ignore[arg-type]
            write_report(made[key])
        return made[key]

    return make


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., tuple[RunFolder, str, str]]:
    """`texts(**variant)`: a run folder, its card and its paper; without the page, whose charts take time."""

    def make(**variant: object) -> tuple[RunFolder, str, str]:
        folder = make_run(tmp_path / "tickets", **variant)  # type: ignore[arg-type]
        record = read_record(folder)
        return folder, make_card(record), make_paper(record)

    return make
