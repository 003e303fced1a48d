"""What is read from scores over tasks and time, against the papers' formulas by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith.audits.continual import average_accuracy, backward_transfer, forgetting, forward_transfer, summarise
from tunesmith.evaluation import RESAMPLES, difference, resampled, score
from tunesmith.tasks.metrics import Measure, mean

BY_HAND = [[0.9, 0.95, 0.7], [0.4, 0.8, 0.6], [0.1, 0.3, 0.75]]
"""A line for each task, a column for each time."""

NAMES = ("mail", "chat", "fax")


def cells(values: list[list[float | None]]) -> list[list[Any]]:
    """Scores that came without their rows."""
    return [[value and {"value": value, "low": value - 0.1, "high": value + 0.1} for value in line] for line in values]


def told(values: list[list[float | None]], begins: Any = None) -> dict[str, Any]:
    count = len(values)
    names = NAMES[:count]
    return summarise(names, names, ["accuracy"] * count, cells(values), begins)


def value(number: Any) -> float:
    return float(number["value"])


def test_the_formulas_by_hand() -> None:
    """Forgetting: (0.95 - 0.7 + 0.8 - 0.6) / 2, its maximum being over all earlier times; backward transfer: (0.7 - 0.9
    + 0.6 - 0.8) / 2; forward transfer: what stands before the diagonal, minus 0.25 and 0.2."""
    R = np.array(BY_HAND)[:, :, None]
    assert average_accuracy(R) == pytest.approx([(0.7 + 0.6 + 0.75) / 3])
    assert forgetting(R).ravel() == pytest.approx([0.25, 0.2])
    assert backward_transfer(R) == pytest.approx([-0.2])
    begins = np.array([0.5, 0.25, 0.2])[:, None]
    assert forward_transfer(R, begins) == pytest.approx([(0.4 - 0.25 + 0.3 - 0.2) / 2])
    found = told(BY_HAND, [None, *cells([[0.25, 0.2]])[0]])
    assert value(found["forgetting"]) == pytest.approx(0.225)
    assert [value(one) for one in found["forgotten"]] == pytest.approx([0.25, 0.2])
    assert value(found["forward_transfer"]) == pytest.approx(0.125)
    assert value(found["backward_transfer"]) == pytest.approx(-0.2)
    assert value(found["average"]) == pytest.approx(0.683333333)
    assert found["average"]["low"] is None, "without rows there is no interval"
    assert found["matrix"] == cells(BY_HAND) and found["rows"] == [None] * 3


def test_a_score_of_before_its_task_counts_for_forgetting() -> None:
    """The paper's maximum is over all earlier times; what was gained is forgetting below 0."""
    assert value(told([[0.5, 0.7], [0.9, 0.8]])["forgetting"]) == pytest.approx(-0.2)
    found = told([[0.5, 0.6, 0.6], [0.9, 0.7, 0.6], [0.1, 0.1, 0.5]])
    assert [value(one) for one in found["forgotten"]] == pytest.approx([0.0, 0.3])


def test_what_was_not_scored_is_not_made_up() -> None:
    """A number that needs a missing score is None; the others are there."""
    usual = told([[0.9, None, 0.7], [None, 0.8, 0.6], [None, None, 0.75]])
    assert value(usual["forgetting"]) == pytest.approx(0.2) and value(usual["backward_transfer"]) == pytest.approx(-0.2)
    assert usual["forward_transfer"] is None and usual["matrix"][1][0] is None
    no_end = told([[0.9, 0.8, None], [None, 0.8, 0.6], [None, None, 0.75]])
    assert no_end["average"] is no_end["forgetting"] is no_end["backward_transfer"] is None
    assert no_end["forgotten"][0] is None and value(no_end["forgotten"][1]) == pytest.approx(0.2)
    late = told([[None, 0.8, 0.7], [None, 0.8, 0.6], [None, None, 0.75]])
    assert late["backward_transfer"] is None and value(late["forgetting"]) == pytest.approx(0.15)
    one = told([[0.9]])
    assert value(one["average"]) == 0.9 and one["forgotten"] == []
    assert one["forgetting"] is one["backward_transfer"] is one["forward_transfer"] is None


def right(rows: int, share: float, seed: int) -> Measure:
    return mean((np.random.default_rng(seed).uniform(size=rows) < share).astype(float))


def test_intervals_are_paired_by_row() -> None:
    """Two tasks: forgetting of the one is the paired difference; the mean over tasks joins what was drawn apart."""
    before, after, last = right(200, 0.9, 0), right(200, 0.7, 1), right(200, 0.8, 2)
    found = summarise(NAMES[:2], NAMES[:2], ["accuracy"] * 2, [[before, after], [None, last]])
    paired = difference(before, after)
    assert found["forgetting"] == found["forgotten"][0] == paired
    assert found["backward_transfer"] == {"value": -paired["value"], "low": -paired["high"], "high": -paired["low"]}
    assert found["matrix"][0] == [score({"a": one})["a"] for one in (before, after)] and found["rows"] == [200, 200]
    alone = score({"a": after})["a"]
    width = found["average"]["high"] - found["average"]["low"]
    assert width < 0.85 * (alone["high"] - alone["low"]), "as many rows of another task are not the same rows"
    again = before  # what did not change has no spread, however wide each score's own interval is
    still = summarise(NAMES[:2], NAMES[:2], ["accuracy"] * 2, [[before, again], [None, last]])
    assert still["forgetting"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    mixed = summarise(NAMES[:2], NAMES[:2], ["a"] * 2, [[score({"a": before})["a"], after], [None, last]])
    assert value(mixed["forgetting"]) == paired["value"] and mixed["forgetting"]["low"] is None


def test_the_best_is_taken_anew_in_each_resample() -> None:
    one, two, end, last = (right(100, 0.8, seed) for seed in (3, 4, 5, 6))
    found = summarise(NAMES, NAMES, ["accuracy"] * 3, [[one, two, end], [None, last, last], [None, None, last]])
    drawn = resampled([one, two, end])
    wanted = np.quantile(np.maximum(drawn[0], drawn[1]) - drawn[2], [0.025, 0.975])
    assert [found["forgotten"][0][end] for end in ("low", "high")] == pytest.approx(wanted)
    assert len(drawn[0]) == RESAMPLES


def test_streams_differ_and_the_first_is_the_usual_one() -> None:
    measure = right(50, 0.5, 0)
    usual, other = resampled([measure])[0], resampled([measure], stream=1)[0]
    assert abs(np.corrcoef(usual, other)[0, 1]) < 0.1
    assert np.array_equal(usual, resampled([measure])[0])


def test_a_matrix_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a cell for each time"):
        summarise(NAMES, NAMES, ["a"] * 3, [*cells(BY_HAND)[:2], cells(BY_HAND)[2][:2]])
    with pytest.raises(ValueError, match="the same rows"):
        last = right(30, 0.5, 0)
        summarise(NAMES[:2], NAMES[:2], ["a"] * 2, [[right(20, 0.5, 0), last], [None, last]])
