"""The order of rows and their split are pure functions of what they should depend on, and of nothing else."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.batches import Order, cut, length_sorted, share_out
from tunesmith.data.rows import Row, hash_share, input_key
from tunesmith.data.splits import split_rows, take
from tunesmith.recipe.classification import TextClassification

COLUMNS = TextClassification().columns
VARIANTS = ("text number {}", "Text NUMBER {}", "  text\tnumber {} ", "text\u00a0number {}", "ｔext number {}")
"""One input as people write it: case, blanks and Unicode form aside these are equal."""

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.tuples(st.integers(0, 59), st.sampled_from(VARIANTS)).map(lambda pair: pair[1].format(pair[0])),
            "label": st.sampled_from("abcdef"),
            "case": st.sampled_from([str(number) for number in range(15)]),
        }
    ),
    max_size=60,
).map(lambda values: [Row(value, "rows", line) for line, value in enumerate(values, start=1)])


def key_of(row: Row) -> str:
    return input_key(row, COLUMNS)


def number_of(row: Row) -> str:
    """What a row is about, told without the code under test: all variants end with their number."""
    return str(row["text"]).split()[-1]


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**31 - 1))
@settings(max_examples=100, deadline=None)
def test_an_epoch_takes_each_row_once(rows: int, batch: int, seed: int) -> None:
    """Each epoch is a permutation; no batch but the last is smaller; asked in any order the answers are the same."""
    order = Order(rows, batch, seed)
    per_epoch = math.ceil(rows / batch)
    numbers = list(range(1, 3 * per_epoch + 1))
    taken = {number: order.rows_of(number) for number in numbers}
    for epoch in range(3):
        mine = [taken[number] for number in range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1)]
        assert sorted(row for piece in mine for row in piece) == list(range(rows))
        assert {len(piece) for piece in mine[:-1]} <= {batch}
        assert order.epoch_of((epoch + 1) * per_epoch) == epoch + 1
    random.Random(seed).shuffle(numbers)
    fresh = Order(rows, batch, seed)
    assert all(fresh.rows_of(number) == taken[number] for number in numbers)


def test_order_depends_on_seed_and_epoch() -> None:
    """Other seeds and other epochs have other orders; the batch size only says where an epoch is cut."""
    epochs = {tuple(Order(50, 50, seed).rows_of(number)) for seed in range(4) for number in (1, 2, 3)}
    assert len(epochs) == 12
    small, large = Order(50, 7, 3), Order(50, 20, 3)
    epoch = [row for number in range(1, 9) for row in small.rows_of(number)]
    assert epoch == [row for number in range(1, 4) for row in large.rows_of(number)]
    assert [small.epoch_of(number) for number in (1, 7, 8, 9)] == pytest.approx([0.14, 0.98, 1.0, 1.14])


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(1, 400), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_cut_loses_nothing(lengths: list[int], budget: int, in_pairs: bool) -> None:
    """Every row is in one piece, no piece is over the budget unless it is one unit, and no unit is split."""
    units = [index // 2 for index in range(len(lengths))] if in_pairs else None
    pieces = cut(lengths, budget, units)
    assert sorted(row for piece in pieces for row in piece) == list(range(len(lengths)))
    for piece in pieces:
        one_unit = len({units[row] if units else row for row in piece}) == 1
        assert len(piece) * max(lengths[row] for row in piece) <= budget or one_unit
    if units:
        homes = defaultdict(set)
        for number, piece in enumerate(pieces):
            for row in piece:
                homes[units[row]].add(number)
        assert all(len(home) == 1 for home in homes.values())
    for ranks in (1, 2, 3):
        dealt = share_out(pieces, lengths, ranks)
        assert sorted(tuple(piece) for mine in dealt for piece in mine) == sorted(map(tuple, pieces))
    assert sorted(row for piece in length_sorted(lengths, budget) for row in piece) == list(range(len(lengths)))


@given(ROWS, st.floats(0.01, 0.9))
@settings(max_examples=200, deadline=None)
def test_duplicates_never_straddle(rows: list[Row], share: float) -> None:
    """Equal inputs (case, spaces and Unicode form aside) are on one side; nothing is lost or doubled."""
    train, validation = split_rows(rows, share, COLUMNS, None)
    assert not {number_of(row) for row in train} & {number_of(row) for row in validation}
    assert sorted(row.line for row in [*train, *validation]) == [row.line for row in rows]


@given(ROWS, st.floats(0.01, 0.9))
@settings(max_examples=200, deadline=None)
def test_groups_never_straddle(rows: list[Row], share: float) -> None:
    train, validation = split_rows(rows, share, COLUMNS, "case")
    assert not {row["case"] for row in train} & {row["case"] for row in validation}
    assert len(train) + len(validation) == len(rows)


@given(ROWS, ROWS, st.floats(0.01, 0.9), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_appended_rows_move_nobody(rows: list[Row], more: list[Row], share: float, source: random.Random) -> None:
    """By the threshold a row's side depends on its own input alone: not on other rows, their order or their number."""
    _, held = split_rows(rows, share, COLUMNS, None, stratum=None)
    together = [*rows, *more]
    source.shuffle(together)
    _, held_later = split_rows(together, share, COLUMNS, None, stratum=None)
    assert {key_of(row) for row in held} == {key_of(row) for row in held_later} & {key_of(row) for row in rows}
    assert all((hash_share(key_of(row)) < share) == (key_of(row) in {key_of(h) for h in held}) for row in rows)


@given(ROWS, st.floats(0.01, 0.9))
@settings(max_examples=300, deadline=None)
def test_each_class_is_judged_and_learned(rows: list[Row], share: float) -> None:
    """A class with two distinct inputs that no other class shares has one in validation and one in train."""
    labels_of = defaultdict(set)
    for row in rows:
        labels_of[key_of(row)].add(row["label"])
    inputs = defaultdict(set)
    for key, labels in labels_of.items():
        if len(labels) == 1:
            inputs[next(iter(labels))].add(key)
    train, validation = split_rows(rows, share, COLUMNS, None)
    for label, keys in inputs.items():
        if len(keys) >= 2:
            assert any(row["label"] == label for row in validation), f"{label} is never judged"
            assert any(row["label"] == label for row in train), f"{label} is never learned"


@given(ROWS, st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_a_larger_limit_contains_a_smaller(rows: list[Row], one: int, other: int) -> None:
    """`data.limit` picks by hash, keeps file order, and never takes more."""
    few, many = take(rows, min(one, other), COLUMNS), take(rows, max(one, other), COLUMNS)
    assert {row.line for row in few} <= {row.line for row in many}
    assert len(few) == min(one, other, len(rows))
    assert [row.line for row in few] == sorted(row.line for row in few)


def test_the_share_is_a_share() -> None:
    """Over many inputs the threshold holds back the share asked for."""
    rows = [Row({"text": f"text number {number}", "label": "a"}, "rows", number) for number in range(4000)]
    _, validation = split_rows(rows, 0.1, COLUMNS, None)
    assert len(validation) / len(rows) == pytest.approx(0.1, abs=0.02)
