"""Rows that a run keeps are a uniform sample that follows from seed and rows alone; they stand in for files that are
gone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from workbench import Breaker, recipe_of, run_tiny

import tiny
from tunesmith.compare import compare
from tunesmith.data.loading import hash_of
from tunesmith.data.reservoir import keep, read_reservoir
from tunesmith.data.rows import Row
from tunesmith.data.sources import read_source
from tunesmith.errors import CheckpointError, DataError, RecipeError
from tunesmith.folder import RunFolder, lines, read_json, write_lines
from tunesmith.open import Run
from tunesmith.recipe import TextClassification, TokenClassification
from tunesmith.recipe.reading import Located, check_recipe
from tunesmith.run import resume, run

Bases = Callable[..., Path]
COURSE: dict[str, Any] = {"steps": 6, "evaluate_every": 3, "batch_size": 8, "precision": "fp32", "learning_rate": 3e-3}
COLUMNS = TextClassification(target="label").columns


def rows_of(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(one, "rows.jsonl", number) for number, one in enumerate(values, start=1)]


def test_what_is_kept_follows_from_seed_and_rows_alone() -> None:
    """Not from their order or their file; a smaller sample is part of a larger one; another seed is another sample."""
    values = tiny.make_rows(80)
    mixed = random.Random(0).sample(values, len(values))
    kept = keep(rows_of(values), COLUMNS, 20, seed=3)
    assert len(kept) == 20 and all(one in values for one in kept)
    assert [values.index(one) for one in kept] == sorted(values.index(one) for one in kept)
    again = keep([Row(one, "other.csv", 0) for one in mixed], COLUMNS, 20, seed=3)
    assert sorted(map(str, again)) == sorted(map(str, kept))
    assert all(one in kept for one in keep(rows_of(values), COLUMNS, 7, seed=3))
    assert keep(rows_of(values), COLUMNS, 20, seed=4) != kept
    assert keep(rows_of(values), COLUMNS, 100, seed=3) == values


def test_every_row_is_as_likely_as_any_other() -> None:
    """How often each of 40 rows is among 10, over 600 seeds: chi-square, for draws without replacement, of each row and
    of each place in the file."""
    values, seeds, most = tiny.make_rows(40), 600, 10
    rows, counts = rows_of(values), np.zeros(40)
    for seed in range(seeds):
        for one in keep(rows, COLUMNS, most, seed):
            counts[values.index(one)] += 1
    expected = seeds * most / 40
    # a row's variance is n p (1 - p), and the covariances add up to a factor (R - 1) / R
    statistic = float(((counts - expected) ** 2).sum() / (expected * (1 - most / 40))) * 39 / 40
    assert chi2.cdf(statistic, df=39) < 0.99
    assert chi2.cdf(statistic, df=39) > 0.01


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (COLUMNS, [{"text": "a \u2028 \U0001f600", "text_pair": "b", "label": "1"}, {"text": "c", "label": "NA"}]),
        (TokenClassification(target="tags").columns, tiny.make_entity_rows(3)),
        (
            TokenClassification(target="spans").columns,
            [{"text": "a new card", "spans": [{"start": 2, "end": 10, "label": "THING"}]}, {"text": "no", "spans": []}],
        ),
    ],
)
def test_kept_rows_are_the_rows(columns: Any, values: list[dict[str, Any]], tmp_path: Path) -> None:
    """Written, and read again: the same by their hash."""
    rows = read_source(str(tiny.write_rows(tmp_path / "rows.jsonl", values)), columns, {}).rows
    write_lines(tmp_path / "reservoir.jsonl", keep(rows, columns, 10, seed=0), private=True)
    again = read_reservoir(tmp_path / "reservoir.jsonl", columns).rows
    assert hash_of(again, columns) == hash_of(rows, columns)
    assert [row.values for row in again] == [row.values for row in rows]


@pytest.fixture
def first(bases: Bases, tmp_path: Path) -> Path:
    """A run that keeps rows under names of its own, with a test file."""
    for name, number in (("one", 60), ("test", 15)):
        rows = tiny.make_rows(number, seed=number)
        tiny.write_rows(tmp_path / f"{name}.jsonl", [{"said": row["text"], "label": row["label"]} for row in rows])
    tiny.write_rows(tmp_path / "two.jsonl", tiny.make_rows(40, seed=1, labels=("please", "help")))
    data = {"test": str(tmp_path / "test.jsonl"), "columns": {"text": "said"}, "keep_rows": 12}
    return run_tiny(bases("bert"), tmp_path / "one.jsonl", tmp_path / "first", train=COURSE, data=data).folder.path


def remembering(first: Path, output: str, head: str = "own", **sections: Any) -> Any:
    rehearsal = {"runs": [str(first)], "share": 0.4, "head": head}
    data = first.parent / "two.jsonl"
    return recipe_of(first, data, first.parent / output, train=COURSE, rehearsal=rehearsal, **sections)


def test_a_run_keeps_rows_for_its_owner_alone(first: Path) -> None:
    kept = RunFolder(first).reservoir
    assert kept.stat().st_mode & 0o777 == 0o600
    told = lines(kept)
    source = [json.loads(line) for line in (first.parent / "one.jsonl").read_text().splitlines()]
    assert len(told) == 12 and all({"said": row["text"], "label": row["label"]} in source for row in told)


def test_none_is_kept_unasked(finished_run: Run) -> None:
    assert not finished_run.folder.reservoir.exists()


@pytest.mark.parametrize("head", ["own", "shared"])
def test_kept_rows_stand_in_for_files_that_are_gone(first: Path, head: str) -> None:
    """The test file is there, so the task is judged again on it; a run that was cut goes on; nothing is copied on."""
    whole = run(remembering(first, "whole", head))
    assert not [note for note in read_json(whole.folder.check) if note["code"] == "reservoir"]
    assert read_json(RunFolder(whole.folder / "earlier" / "first").manifest)["data"]["train"]["rows"] > 40
    (first.parent / "one.jsonl").unlink()
    second = run(remembering(first, "second", head))
    notes = {note["code"]: note["level"] for note in read_json(second.folder.check)}
    assert notes["reservoir"] == "info" and "not-judged-again" not in notes
    earlier = Run(second.folder / "earlier" / "first")
    told = earlier.manifest["data"]
    assert told["train"]["rows"] == 12 and "validation" not in told
    assert told["test"] == Run(first).manifest["data"]["test"]
    assert earlier.scores["judged_on"] == "test" and "validation" not in earlier.scores
    assert earlier.folder.report.exists() and earlier.card["decision"] == Run(first).card["decision"]
    assert not earlier.folder.reservoir.exists()
    assert compare([str(first), str(earlier.folder.path)])["rows"] == 15
    continual = read_json(second.folder.audits)["continual"]
    assert continual["matrix"][0][1]["value"] == earlier.scores["test"]["accuracy"]["value"]
    assert continual["forgetting"]["low"] is not None
    with pytest.raises(ZeroDivisionError):
        run(remembering(first, "broken", head), voice=Breaker(5))
    resume(first.parent / "broken")
    for place in ("", "earlier/first/"):
        one, other = (first.parent / name / f"{place}model/model.safetensors" for name in ("second", "broken"))
        assert one.read_bytes() == other.read_bytes()


def test_what_was_deleted_is_not_written_again(first: Path) -> None:
    """Nor does it stay where it is not wanted any more; trainings beside a run copy nothing."""
    rows = tiny.write_rows(first.parent / "notes.jsonl", tiny.make_sentences(5))
    stage = {"task": "text-classification", "data": {"train": str(first.parent / "two.jsonl")}}
    recipe = recipe_of(first, first.parent / "two.jsonl", first.parent / "kept", train=COURSE, data={"keep_rows": 5},
                       stages=[stage], judge={"baselines": ["without-stages"]})  # fmt: skip
    assert rows.exists() and [beside.data.keep_rows for beside in recipe.beside] == [0]
    recipe = recipe.but(stages=[], judge=recipe.judge.but(baselines="off"))
    kept = RunFolder(first.parent / "kept").reservoir
    with pytest.raises(ZeroDivisionError):
        run(recipe, voice=Breaker(4))
    assert kept.exists()
    kept.unlink()
    resume(first.parent / "kept")
    assert not kept.exists()
    with pytest.raises(ZeroDivisionError):
        run(recipe.but(output=str(first.parent / "other")), voice=Breaker(4))
    other = RunFolder(first.parent / "other")
    page = other.recipe.read_text(encoding="utf-8")
    other.recipe.write_text(page.replace("keep_rows: 5", "keep_rows: 0"), encoding="utf-8")
    assert other.reservoir.exists()
    resume(other.path)
    assert not other.reservoir.exists()


def test_a_lost_test_file_costs_no_training_row(first: Path) -> None:
    """The files of the training rows are there and unchanged, so all of them are rehearsed."""
    (first.parent / "test.jsonl").unlink()
    second = run(remembering(first, "second"))
    told = read_json(RunFolder(second.folder / "earlier" / "first").manifest)["data"]
    assert told["train"]["rows"] == Run(first).manifest["data"]["train"]["rows"] > 12 and "validation" in told
    codes = {note["code"] for note in read_json(second.folder.check)}
    assert "not-judged-again" in codes and "reservoir" not in codes


def test_few_kept_rows_are_shown_as_often_as_all_were(first: Path) -> None:
    """The share of an epoch goes by the rows that a task had, not by those that are left."""
    whole = run(remembering(first, "whole")).folder / "earlier" / "first"
    (first.parent / "one.jsonl").unlink()
    left = run(remembering(first, "left")).folder / "earlier" / "first"
    was, now = (read_json(RunFolder(place).manifest)["part_of"]["rows"] for place in (whole, left))
    assert was == now > 12


@pytest.mark.parametrize("head", ["own", "shared"])
def test_where_judged_rows_are_gone_nothing_is_said_of_them(first: Path, head: str) -> None:
    """The task is rehearsed, its model is kept, its cell is empty; a third run can go on from there."""
    for name in ("one", "test"):
        (first.parent / f"{name}.jsonl").unlink()
    second = run(remembering(first, "second", head))
    notes = {note["code"]: note["level"] for note in read_json(second.folder.check)}
    assert notes["not-judged-again"] == "warn"
    earlier = Run(second.folder / "earlier" / "first")
    assert earlier.manifest["finished"] and not earlier.folder.scores.exists()
    assert earlier.predict(["card lost"])[0]["label"] in earlier.manifest["labels"]
    continual = read_json(second.folder.audits)["continual"]
    assert continual["matrix"][0] == [Run(first).scores["test"]["accuracy"], None]
    assert continual["forgetting"] is None and continual["average"] is None
    assert "not scored" in second.folder.report.read_text(encoding="utf-8")
    with pytest.raises(CheckpointError, match="not judged again"):
        compare([str(first), str(earlier.folder.path)])
    third = remembering(first, "third", head)
    rehearsal = third.rehearsal.but(runs=[str(first), str(second.folder.path)])
    run(third.but(model=str(second.folder.path), rehearsal=rehearsal))
    assert Run(first.parent / "third" / "earlier" / "first").manifest["finished"]


def test_lines_may_be_taken_out_and_a_file_that_is_gone_is_missed(first: Path) -> None:
    """What is left is rehearsed, by the head that knows more labels; without the file all is as if none were kept."""
    kept = RunFolder(first).reservoir
    tiny.write_rows(first.parent / "one.jsonl", tiny.make_rows(59))
    of_one_label = [line for line in kept.read_bytes().splitlines(keepends=True) if b'"label":"cash"' in line]
    kept.write_bytes(b"".join(of_one_label))
    recipe = remembering(first, "second")
    run(recipe.but(rehearsal=recipe.rehearsal.but(share=0.0)))
    earlier = Run(first.parent / "second" / "earlier" / "first")
    assert earlier.manifest["data"]["train"]["rows"] == len(of_one_label) < 12
    assert earlier.manifest["learned"] == Run(first).manifest["learned"]
    was, now = (place.loaded.model.classifier.weight for place in (Run(first), earlier))
    assert torch.equal(was, now)
    kept.unlink()
    with pytest.raises(DataError):
        run(remembering(first, "third"))


@pytest.mark.parametrize(
    ("task", "told"),
    [("image-classification", "data.keep_rows: not for image"), ("language-modeling", "data.keep_rows: not for lang")],
)
def test_rows_that_nobody_could_rehearse_are_not_kept(task: str, told: str) -> None:
    values = {"model": "m", "task": task, "data": {"train": "a.jsonl", "keep_rows": 5}}
    with pytest.raises(RecipeError, match=told):
        check_recipe(Located(values=values))
