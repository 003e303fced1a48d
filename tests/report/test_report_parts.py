"""What the page says beyond the scores: certainty, coverage, sizes of errors, levels, labels, parts of the rows."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import numpy as np
import pytest
from fabricated import DIGEST, make_run
from test_report_page import Page, numbers, read

from tunesmith import folder as folders
from tunesmith.audits.slices import MOST_VALUES, by_columns, by_length
from tunesmith.audits.suspects import find_suspects
from tunesmith.data.rows import Row
from tunesmith.recipe import TextClassification
from tunesmith.report.calibration import BINS, keep, reliability
from tunesmith.report.label_sets import slips
from tunesmith.report.numbers import quantile
from tunesmith.report.page import make_page
from tunesmith.report.record import read_record
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import Prediction
from tunesmith.tasks.targets import TARGETS

PATHS = ("card/lost", "card/stolen", "cash/fee/abroad", "cash/fee/home", "transfer")
VARIANTS = {
    "label": {"target": "label"},
    "labels": {"target": "labels", "labels": ("bug", "docs", "easy", "slow")},
    "path": {"target": "path", "labels": PATHS},
    "score": {"target": "score"},
}


@pytest.mark.parametrize("target", VARIANTS)
def test_every_target_has_a_whole_page(report, target):
    """Well formed, every number of scores.json in it, every chart with a table, and the parts that belong to it."""
    folder = report(**VARIANTS[target])
    text = read(folder)
    page = Page(text)
    assert folder.report.stat().st_size < 2_000_000
    scores = folders.read_json(folder.scores)
    shown = {float(found["value"]) for tag, found in page.attributes if tag == "data"}
    assert set(numbers(scores)) <= shown
    assert page.tags.count("svg") == len(re.findall("<summary>In figures</summary>", text))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert all(link[1:] in ids for link in page.values("href"))
    for heading, targets in {
        "How sure it is": ("label", "labels", "path"),
        "How far answers are off": ("score",),
        "Level by level": ("path",),
        "Labels missed and labels added": ("labels",),
        "Labels that may be wrong": ("label", "path"),
        "By channel": tuple(VARIANTS),
        "By length of the text": tuple(VARIANTS),
    }.items():
        assert (heading in text) == (target in targets), heading


def test_bins_agree_with_the_calibration_error():
    source = np.random.default_rng(0)
    sure = source.uniform(0, 1, 500)
    sure[:2] = 0.0, 1.0
    right = (source.uniform(0, 1, 500) < sure**2).astype(float)
    bins = reliability(sure, right)
    gap = sum(part.claims * abs(part.right.value - part.sure) for part in bins) / 500
    assert gap == pytest.approx(metrics.calibration_error(sure, right)(), abs=1e-12)
    assert sum(part.claims for part in bins) == 500 and len(bins) == BINS
    assert all(part.low <= part.sure <= part.high for part in bins)


def test_coverage_by_hand():
    """The surest first; rows that are equally sure are answered together; a threshold as shown loses none."""
    sure = np.array([0.9, 0.8, 0.8, 0.71239, 0.6])
    right = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    assert (keep(sure, right, 0.2).rows, keep(sure, right, 0.2).right.value) == (1, 1.0)
    half = keep(sure, right, 0.4)
    assert (half.rows, half.threshold) == (3, 0.8) and half.right.value == pytest.approx(2 / 3)
    most = keep(sure, right, 0.8)
    assert most.rows == 4 and most.threshold == 0.7123 and int((sure >= most.threshold).sum()) == 4
    assert keep(sure, right, 1.0).right.value == 0.6


def test_quantile_has_an_interval_that_covers():
    """Of 400 samples of 60 rows about 95 % of the intervals hold the true median and the true 90 % point."""
    source = np.random.default_rng(1)
    for point, true in ((0.5, np.log(2)), (0.9, np.log(10))):
        found = [quantile(source.exponential(size=60), point) for _ in range(400)]
        assert 0.92 < np.mean([score["low"] <= true <= score["high"] for score in found]) <= 1.0
        assert all(score["low"] <= score["value"] <= score["high"] for score in found)
    assert quantile(np.array([3.0]), 0.99) == {"value": 3.0, "low": 3.0, "high": 3.0}


def test_slips_by_hand():
    rows = [
        {"gold": ["a", "b"], "answer": ["a", "c"]},
        {"gold": ["b"], "answer": ["c"]},
        {"gold": ["b"], "answer": ["b"]},
        {"gold": [], "answer": ["a"]},
    ]
    found = slips(rows)
    assert found.whole == 1
    assert [(slip.label, slip.rows, slip.beside, slip.beside_rows) for slip in found.missed] == [("b", 2, "c", 2)]
    assert found.missed[0].share.value == pytest.approx(2 / 3)
    assert [(slip.label, slip.rows, slip.beside) for slip in found.added] == [("c", 2, "b"), ("a", 1, "")]


def test_wrong_labels_are_found():
    """Ten labels of 300 are exchanged: with an honest model they are the first suspects."""
    source = np.random.default_rng(2)
    rows = []
    for row in range(300):
        true = "abc"[row % 3]
        sure = source.uniform(0.7, 0.99)
        others = [name for name in "abc" if name != true]
        gold = others[0] if row < 10 else true
        rows.append(
            Prediction(row, gold, true, sure, {true: sure, others[0]: 0.6 * (1 - sure), others[1]: 0.4 * (1 - sure)})
        )
    found = find_suspects(rows)
    assert 3 <= len(found) <= 10
    assert {suspect.index for suspect in found} <= set(range(10))
    assert all(suspect.given < suspect.usual for suspect in found)


def test_suspects_need_a_sure_answer_and_a_label_that_was_kept_or_bounded():
    kept = {"a": 0.9, "b": 0.05, "c": 0.03, "d": 0.01, "e": 0.005}
    rows = [Prediction(0, "z", "a", 0.9, kept), *(Prediction(n, "z", "z", 0.8, {"z": 0.8}) for n in range(1, 5))]
    assert [suspect.index for suspect in find_suspects([*rows, Prediction(5, "a", "a", 0.9, kept)])] == [0]
    assert find_suspects(rows) == [], "nothing bears the label a, so how sure is usual there is not known"
    path = Prediction(0, "x/y", "a/b", 0.9, {"a/b": 0.9, "a/c": 0.06, "a": 0.96})
    (suspect,) = find_suspects(
        [path, Prediction(1, "a/b", "a/b", 0.9, {"a/b": 0.9}), Prediction(2, "x/y", "x/y", 0.9, {"x/y": 0.9})]
    )
    assert suspect.given == pytest.approx(0.04)


def _measures(predictions):
    return TARGETS["label"](TextClassification(target="label")).measures(predictions)


def test_slices_hold_every_row_once():
    rows = [Row({"n": row % 30 if row % 2 else "x"}, "f", row) for row in range(300)]
    predictions = [Prediction(row, "a", "a" if row % 3 else "b") for row in range(300)]
    slices = by_columns(["n", "absent"], rows, predictions, _measures, "accuracy")
    assert len(slices["n"]) <= MOST_VALUES + 1
    assert sum(part["rows"] for part in slices["n"].values()) == 300
    assert next(iter(slices["n"])) == "x" and slices["n"]["x"]["rows"] == 150
    assert set(slices["absent"]) == {"(not given)"}
    assert slices["n"]["x"]["accuracy"]["low"] <= slices["n"]["x"]["accuracy"]["value"] == pytest.approx(2 / 3)
    lengths = by_length([row // 3 for row in range(300)], predictions, _measures, "accuracy")
    assert sum(part["rows"] for part in lengths.values()) == 300 and len(lengths) == 4
    assert next(iter(lengths)).startswith("0 to ")
    assert list(by_length([7] * 300, predictions, _measures, "accuracy")) == ["7"]


def _by_column(values):
    """Rows of each slice of a column that holds these values, in the order in which they are shown."""
    rows = [Row({"n": value}, "f", number) for number, value in enumerate(values, start=1)]
    predictions = [Prediction(row, "a", "a" if row % 3 else "b") for row in range(len(rows))]
    found = by_columns(["n"], rows, predictions, _measures, "accuracy")["n"]
    assert sum(part["rows"] for part in found.values()) == len(rows), "every row once"
    return {name: part["rows"] for name, part in found.items()}


AGES = [18 + row % 60 for row in range(120)]
QUARTERS = {"18 to 32": 30, "33 to 47": 30, "48 to 62": 30, "63 to 77": 30}
COLUMNS = {
    "numbers": (AGES, QUARTERS),
    "text of a csv": ([str(age) for age in AGES], QUARTERS),
    "missing": ([*AGES, None, "", " ", float("nan")], {**QUARTERS, "(not given)": 4}),
    "a word": ([*AGES, "unknown", "unknown", None], {**QUARTERS, "unknown": 2, "(not given)": 1}),
    "fractions": (
        [number / 3 for number in range(1, 21)],
        {"0.333333 to 1.66667": 5, "2 to 3.33333": 5, "3.66667 to 5": 5, "5.33333 to 6.66667": 5},
    ),
    "times": (
        [1640995200.0 + day for day in range(12)],
        {f"{first} to {first + 2}": 3 for first in range(1640995200, 1640995212, 3)},
    ),
    "many of the lowest": ([0] * 60 + list(range(1, 41)), {"0": 60, "1 to 15": 15, "16 to 40": 25}),
    "many of the highest": (list(range(20)) + [99] * 80, {"0 to 19": 20, "99": 80}),
    "few different": ([row % 8 for row in range(80)], {str(star): 10 for star in range(8)}),
    "names": ([f"00{row}" for row in range(12)], dict.fromkeys(sorted(f"00{row}" for row in range(12)), 1)),
    "flags": ([row % 2 == 0 for row in range(9)], {"true": 5, "false": 4}),
    "mostly words": ([*AGES, *["x"] * 120], {"x": 120, **{str(age): 2 for age in range(18, 37)}, "(all others)": 82}),
}  # fmt: skip


@pytest.mark.parametrize(("values", "slices"), COLUMNS.values(), ids=COLUMNS)
def test_numbers_that_mostly_differ_are_put_in_parts(values, slices):
    found = _by_column(values)
    assert found == slices and list(found) == list(slices)


def test_parts_of_numbers_have_different_names_and_keep_equal_numbers_together():
    found = _by_column([1 + row / 1e9 for row in range(40)])
    assert len(found) == 4 and set(found.values()) == {10}
    for values in ([row * row % 97 for row in range(300)], [int(1.5**row) for row in range(30)], [1.5] * 9 + AGES):
        limits = [[float(end) for end in name.split(" to ")] for name in _by_column(values)]
        ends = [end for pair in limits for end in (pair[0], pair[-1])]
        assert ends == sorted(ends) and 2 <= len(limits) <= 4
        assert all(pair[-1] < other[0] for pair, other in pairwise(limits)), "no number is in two parts"


def test_lengths_that_are_mostly_cut_off_are_still_two_parts():
    predictions = [Prediction(row, "a", "a" if row % 3 else "b") for row in range(300)]
    lengths = by_length([*range(60), *[512] * 240], predictions, _measures, "accuracy")
    assert {name: part["rows"] for name, part in lengths.items()} == {"0 to 59": 60, "512": 240}


def test_a_weak_slice_is_named(fresh):
    folder = fresh()
    scores = folders.read_json(folder.scores)
    scores["slices"]["channel"]["fax<b>"] = {"rows": 40, "accuracy": {"value": 0.1, "low": 0.05, "high": 0.2}}
    folders.write_json(folder.scores, scores)
    text = make_page(read_record(folder))
    assert "It is weaker on some rows" in text and "channel = fax&lt;b&gt;" in text and "fax<b>" not in text


def test_a_run_from_an_older_version_is_shown_without_the_new_parts(fresh):
    folder = fresh()
    scores, data = folders.read_json(folder.scores), folders.read_json(folder.data)
    folders.write_json(
        folder.scores, {k: v for k, v in scores.items() if k not in ("slices", "by_length", "calibration")}
    )
    folders.write_json(folder.data, {k: v for k, v in data.items() if k not in ("suspects", "target")})
    answers = [
        {k: v for k, v in row.items() if k != "probabilities"} for row in folders.lines(folder.predictions("test"))
    ]
    folders.write_lines(folder.predictions("test"), answers)
    text = make_page(read_record(folder))
    assert "Labels that may be wrong" not in text and "Parts of the rows" not in text


def test_a_large_report_is_small_and_quick(tmp_path):
    """100,000 rows of 150 classes: at most ten seconds of the processor's time, at most 2 MB."""
    folder = make_run(tmp_path / "large", labels=tuple(f"class_{n:03d}" for n in range(150)), test_rows=100_000)
    began = time.process_time()
    text = make_page(read_record(folder))
    seconds = time.process_time() - began
    print(f"{seconds:.2f} s, {len(text.encode()):,} bytes")
    assert seconds < 10 and len(text.encode()) < 2_000_000
    assert DIGEST in text
