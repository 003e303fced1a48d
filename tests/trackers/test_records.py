"""The records of a run, read while they are written, cut and replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tunesmith.folder import RunFolder, append, write_lines
from tunesmith.trackers.records import Point, Records, flat


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def row(step: int, phase: str = "fit") -> dict[str, Any]:
    measured = {"loss": 1 / step, "rows": 8, "tokens": 100, "seconds": 0.5}
    return {"phase": phase, "step": step, "epoch": step / 10, **measured}


def evaluation(step: int) -> dict[str, Any]:
    return {"phase": "fit", "step": step, "loss": 2.0, "scores": {"accuracy": {"value": 0.5}}, "best": True}


def steps(points: list[Point]) -> list[tuple[int, bool]]:
    return [(point.step, "validation/loss" in point.values) for point in points]


def test_each_row_comes_once(folder: RunFolder) -> None:
    records = Records(folder, 1000.0)
    assert list(records.new()) == []
    append(folder.steps, row(1))
    assert list(records.new()) == [Point({"train/loss": 1.0, "train/tokens_per_second": 200.0}, 1, 1000.5)]
    assert list(records.new()) == []
    append(folder.steps, row(2))
    append(folder.steps, row(3))
    assert [(point.step, point.when) for point in records.new()] == [(2, 1001.0), (3, 1001.5)]


def test_a_torn_line_waits_for_its_end(folder: RunFolder) -> None:
    records = Records(folder, 0.0)
    append(folder.steps, row(1))
    whole = folder.steps.read_bytes()
    folder.steps.write_bytes(whole + whole[:20])
    assert steps(list(records.new())) == [(1, False)]
    append(folder.steps, row(2))  # cuts the torn line off
    assert steps(list(records.new())) == [(2, False)]


def test_rows_that_a_resume_cuts_come_once(folder: RunFolder) -> None:
    """Also where the file is as long as before when it is looked at again."""
    records = Records(folder, 0.0)
    write_lines(folder.steps, [row(step) for step in (1, 2, 3, 4)])
    assert steps(list(records.new())) == [(1, False), (2, False), (3, False), (4, False)]
    write_lines(folder.steps, [row(1), row(2)])
    assert list(records.new()) == []
    for step in (3, 4, 5):
        append(folder.steps, row(step))
    assert steps(list(records.new())) == [(5, False)]


def test_a_second_phase_begins_at_step_one_again(folder: RunFolder) -> None:
    """`refit` writes the file anew before it goes on, and stands under another name."""
    records = Records(folder, 0.0)
    append(folder.steps, row(1))
    append(folder.steps, row(2))
    assert len(list(records.new())) == 2
    write_lines(folder.steps, [row(1), row(2)])
    append(folder.steps, row(1, "refit"))
    (point,) = records.new()
    assert (point.step, set(point.values)) == (1, {"refit/loss", "refit/tokens_per_second"})


def test_an_evaluation_waits_for_its_step(folder: RunFolder) -> None:
    records = Records(folder, 0.0)
    append(folder.steps, row(1))
    append(folder.evaluations, evaluation(2))
    assert steps(list(records.new())) == [(1, False)]
    append(folder.steps, row(2))
    append(folder.steps, row(3))
    assert steps(list(records.new())) == [(2, False), (2, True), (3, False)]


def test_what_is_no_number_is_left_out(folder: RunFolder) -> None:
    records = Records(folder, 0.0)
    append(folder.steps, {**row(1), "grad_norm": float("nan"), "seconds": 0.0})
    assert [point.values for point in records.new()] == [{"train/loss": 1.0}]


def test_the_files_may_be_replaced_at_any_moment(folder: RunFolder) -> None:
    """A new file under the same inode and of the same length is what it was; a shorter one is read again."""
    records = Records(folder, 0.0)
    write_lines(folder.steps, [row(1), row(2)])
    list(records.new())
    os.truncate(folder.steps, folder.steps.stat().st_size // 2)
    assert list(records.new()) == []
    write_lines(folder.steps, [row(1), row(2), row(3)])
    assert steps(list(records.new())) == [(3, False)]


def test_settings_are_flat_and_plain() -> None:
    nested = {"train": {"steps": None, "rewrites": ["flat-batch"], "epochs": 2.5}, "seed": 0, "columns": {}}
    assert flat(nested) == {"train.steps": "null", "train.rewrites": '["flat-batch"]', "train.epochs": 2.5, "seed": 0}
