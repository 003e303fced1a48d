"""Budgets of the place where a model will work: measured, held against the recipe, and part of the verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from shell import Command

from tunesmith import footprint, surroundings
from tunesmith.audits.budgets import find_budgets, with_budgets
from tunesmith.data.rows import Row
from tunesmith.folder import RunFolder, read_json
from tunesmith.recipe import Deploy, Machine

ANYTHING = ("--set", "judge.min_gain=-1")
"""A gain that every model has: only a budget can say no."""

COST = {"latency_rows": 50, "latency_p50_ms": 9.0, "latency_p99_ms": 12.34, "inference_memory_bytes": 612_345_678}


def settings(**budgets: float) -> list[str]:
    return [part for key, value in budgets.items() for part in ("--set", f"deploy.{key}={value}")]


def test_kept_budgets_let_a_model_ship(tunesmith: Command, recipe: Path, tmp_path: Path) -> None:
    """Both are measured, said with their units wherever reasons are, and change nothing else."""
    ended = tunesmith("run", recipe, *ANYTHING, *settings(latency_ms=60_000, memory_mb=60_000), "--gate")
    folder = RunFolder(tmp_path / "runs" / "small")
    verdict, cost = read_json(folder.verdict), read_json(folder.audits)["cost"]
    assert ended.code == 0 and verdict["ship"] is True
    latency, memory = verdict["budgets"]
    assert (latency["limit"], latency["measured"], latency["kept"]) == (60_000, cost["latency_p99_ms"], True)
    assert (memory["limit"], memory["measured"], memory["kept"]) == (60_000, cost["inference_memory_bytes"] / 1e6, True)
    assert memory["measured"] > 100, "Python and torch alone need more"
    page = " ".join(folder.report.read_text().split())
    assert "Budget deploy.latency_ms" in page and "The budget of 60,000 MB is kept" in page
    assert all(budget["reason"] in ended.out for budget in (latency, memory))


def test_a_broken_budget_forbids_to_ship(tunesmith: Command, recipe: Path, tmp_path: Path) -> None:
    ended = tunesmith("run", recipe, *ANYTHING, *settings(latency_ms=0.001), "--gate")
    folder = RunFolder(tmp_path / "runs" / "small")
    verdict, cost = read_json(folder.verdict), read_json(folder.audits)["cost"]
    assert ended.code == 6 and verdict["ship"] is False and verdict["gain"]["low"] > -1
    [reason] = [line for line in verdict["why"] if "deploy.latency_ms" in line]
    assert reason.startswith("deploy.latency_ms: the budget of 0.001 ms is broken: ") and " ms measured (" in reason
    assert reason in ended.out and "DO NOT SHIP" in ended.out
    assert "inference_memory_bytes" not in cost, "nobody asked"
    assert "The budget of 0.001 ms is broken" in folder.report.read_text()
    assert "A budget is not kept" in folder.report.read_text() and "A budget is not kept" in folder.card.read_text()
    assert "breaks a budget" in folder.card.read_text()


def test_without_baselines_a_broken_budget_is_still_a_no(tunesmith: Command, recipe: Path, tmp_path: Path) -> None:
    ended = tunesmith("run", recipe, "--set", "judge.baselines=off", *settings(latency_ms=0.001), "--gate")
    folder = RunFolder(tmp_path / "runs" / "small")
    assert ended.code == 6 and read_json(folder.verdict)["ship"] is False
    assert "It breaks a budget" in folder.report.read_text()


@pytest.mark.parametrize("given", ["latency_ms=0", "memory_mb=-5", "latency_ms=fast", "latncy_ms=5"])
def test_a_budget_that_is_none_is_refused(given: str, tunesmith: Command, recipe: Path) -> None:
    ended = tunesmith("run", recipe, "--set", f"deploy.{given}")
    assert ended.code == 2 and f"deploy.{given.partition('=')[0]}" in ended.err


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(finished_run: Any) -> None:
    """What this process holds does not count, though the child was started by it."""
    rows, machine = [Row({"text": "where is my card"}, "rows", 1)], Machine(device="cpu")
    before = footprint.measure(finished_run.folder, rows, machine, 1)["inference_memory_bytes"]
    held = bytearray(b"x") * 700_000_000
    after = footprint.measure(finished_run.folder, rows, machine, 1)["inference_memory_bytes"]
    assert len(held) == 700_000_000 and abs(after - before) < 0.2 * before


def test_the_process_that_measures_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of several processes, too; and as every other that we start."""
    given: dict[str, Any] = {}

    def started(_: Any, **more: Any) -> Any:
        given.update(more)
        raise OSError

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("subprocess.run", started)
    footprint.measure(RunFolder(tmp_path), [], Machine(device="cpu"), 1)
    assert given["env"] == surroundings.of_child() and "RANK" not in given["env"]


def test_a_model_that_cannot_be_opened_is_a_fault_and_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row({"text": "where"}, "rows", 1)]
    failed = {"inference_memory_fault": "the process that should have told it failed"}
    assert footprint.measure(RunFolder(tmp_path), rows, Machine(device="cpu"), 1) == failed
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    assert footprint.measure(RunFolder(tmp_path), rows, Machine(device="cpu"), 1) == failed


@pytest.mark.parametrize(
    ("deploy", "change", "kept", "said"),
    [
        (Deploy(latency_ms=12.34), {}, True, "12.3 ms measured"),
        (Deploy(latency_ms=12.33), {}, False, "is broken: 12.3 ms measured"),
        (Deploy(memory_mb=613), {}, True, "the budget of 613 MB is kept: 612 MB measured"),
        (Deploy(memory_mb=612), {}, False, "the budget of 612 MB is broken: 612 MB measured"),
        (
            Deploy(memory_mb=613),
            {"inference_memory_bytes": None, "inference_memory_fault": "it failed"},
            False,
            "the budget of 613 MB is not known to be kept: it could not be measured (it failed)",
        ),
    ],
)
def test_each_budget_is_held_against_its_measurement(
    deploy: Deploy, change: dict[str, Any], kept: bool, said: str
) -> None:
    [budget] = find_budgets(deploy, {**COST, **change})
    assert budget.is_kept == kept and said in budget.reason
    for ship in (True, False, None):
        verdict = with_budgets({"ship": ship, "why": ["so"]}, [budget])
        assert verdict["ship"] == (ship if kept else False)
        assert verdict["why"] == ["so", budget.reason]


def test_no_budget_changes_no_verdict() -> None:
    assert find_budgets(Deploy(), COST) == []
    assert with_budgets({"ship": True, "why": ["so"]}, []) == {"ship": True, "why": ["so"], "budgets": []}
