"""Who learns and who judges: by hash alone, so that nobody straddles and nobody moves."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from tunesmith.data.loading import hash_of, load_splits
from tunesmith.data.rows import Row, hash_share, input_key, normalised
from tunesmith.data.splits import overlap, split_rows, take
from tunesmith.errors import DataError
from tunesmith.recipe import Data
from tunesmith.recipe.classification import TEXT, TextClassification

COLUMNS = TextClassification().columns


def rows_of(*texts: str, label: str = "x", **more: object) -> list[Row]:
    return [Row({"text": text, "label": label, **more}, "f", number) for number, text in enumerate(texts, start=1)]


def many(number: int, seed: int = 0) -> list[Row]:
    return [Row(dict(row), "f", line) for line, row in enumerate(tiny.make_rows(number, seed=seed), start=1)]


def texts(rows: list[Row]) -> set[str]:
    return {row["text"] for row in rows}


def split(rows: list[Row], share: float = 0.2, group: str | None = None) -> tuple[list[Row], list[Row]]:
    return split_rows(rows, share, COLUMNS, group)


def test_every_row_goes_to_one_side_in_file_order() -> None:
    rows = many(300)
    train, validation = split(rows)
    assert sorted([*train, *validation], key=lambda row: row.line) == rows
    for side in (train, validation):
        assert [row.line for row in side] == sorted(row.line for row in side)
    assert 0.12 < len(validation) / len(rows) < 0.28


def test_the_share_is_kept_over_many_rows() -> None:
    rows = rows_of(*(f"text number {index}" for index in range(20_000)))
    for share in (0.01, 0.1, 0.5):
        assert abs(len(split(rows, share)[1]) / len(rows) - share) < 0.01
    assert split(rows, 0.0)[1] == []


def test_appended_rows_move_nobody() -> None:
    rows = many(200)
    _, before = split(rows)
    _, after = split([*rows, *many(100, seed=7)])
    assert texts(before) <= texts(after)
    assert texts(after) & texts(rows) == texts(before)


def test_order_file_and_place_do_not_matter() -> None:
    rows = many(200)
    shuffled = [Row(row.values, "elsewhere", number) for number, row in enumerate(rows[::-1])]
    random.Random(3).shuffle(shuffled)
    assert texts(split(rows)[1]) == texts(split(shuffled)[1])


def test_the_split_is_the_same_in_every_process() -> None:
    program = (
        "from tunesmith.data.rows import hash_share; print([hash_share(k) for k in ('', 'a', 'caf\\u00e9', '\\x1f')])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": place},
        ).stdout
        for seed, place in (("0", "C"), ("1", "C.UTF-8"))
    }
    assert printed == {f"{[hash_share(key) for key in ('', 'a', 'café', chr(31))]}\n"}


def test_a_place_never_changes_between_releases() -> None:
    """Golden numbers: were they to change, old runs could not be compared with new ones."""
    assert [round(hash_share(key), 12) for key in ("", "card", "where is my card")] == GOLDEN


GOLDEN = [0.89316751609, 0.906753985382, 0.222118323116]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is my card", "where IS my CARD"),
        ("where  is\tmy\ncard", "where is my card"),
        (" padded ", "padded"),
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01ne", "fine"),
        ("Stra\u00dfe", "STRASSE"),
        ("\uff21\uff22", "ab"),
        ("a\u00a0b", "a b"),
    ],
)
def test_what_readers_take_for_the_same_never_straddles(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    train, validation = split(rows_of(one, other, *(f"filler {index}" for index in range(50))), 0.5)
    sides = [side for side in (train, validation) if texts(side) & {one, other}]
    assert len(sides) == 1


def test_what_is_not_the_same_keeps_apart() -> None:
    assert normalised("card") != normalised("cards") and normalised("a b") != normalised("ab")
    pair = Row({"text": "a", "text_pair": "b c"}, "f", 1)
    assert input_key(pair, COLUMNS) != input_key(Row({"text": "a b", "text_pair": "c"}, "f", 1), COLUMNS)
    assert input_key(pair, COLUMNS) != input_key(Row({"text": "a"}, "f", 1), COLUMNS)


def test_equal_inputs_with_different_labels_stay_together() -> None:
    rows = [row for index in range(100) for row in (*rows_of(f"t{index}", label="x"), *rows_of(f"t{index}", label="y"))]
    train, validation = split(rows, 0.3)
    assert not texts(train) & texts(validation)
    assert len(validation) % 2 == 0


def test_rows_of_a_group_never_straddle() -> None:
    source = random.Random(1)
    rows = [
        Row({"text": f"text {index}", "label": source.choice("xyz"), "case": source.randrange(40)}, "f", index)
        for index in range(400)
    ]
    train, validation = split(rows, 0.3, group="case")
    cases = [{row["case"] for row in side} for side in (train, validation)]
    assert cases[0] and cases[1] and not cases[0] & cases[1]


def test_each_class_with_two_inputs_is_validated() -> None:
    labels = [f"class {index}" for index in range(40)]
    rows = [Row({"text": f"{label} {k}", "label": label}, "f", k) for label in labels for k in range(3)]
    train, validation = split(rows, 0.05)
    assert {row["label"] for row in validation} == set(labels)
    assert {row["label"] for row in train} == set(labels)


def test_a_class_with_one_input_is_learnt_from_or_held_but_never_forced() -> None:
    rows = [*many(100), *rows_of("only one", label="rare"), *rows_of("ONLY  one", label="rare")]
    for row in split(rows, 0.0001)[1]:
        assert row["label"] != "rare"


def test_a_larger_limit_contains_a_smaller_one_in_file_order() -> None:
    rows = many(200)
    small, large = take(rows, 20, COLUMNS), take(rows, 60, COLUMNS)
    assert len(small) == 20 and len(large) == 60 and texts(small) <= texts(large)
    assert [row.line for row in large] == sorted(row.line for row in large)
    assert take(rows, None, COLUMNS) == take(rows, 1000, COLUMNS) == rows
    assert [row.line for row in small] != list(range(1, 21)), "spread over the file, not its head"


def test_overlap_finds_every_planted_row() -> None:
    train, test = many(100), many(50, seed=9)
    planted = {3: "  WHERE is my   card ", 17: train[4]["text"].upper()}
    train.append(rows_of("where is my card")[0])
    for index, text in planted.items():
        test[index] = Row({"text": text, "label": "card"}, "g", index)
    assert [index for index in overlap(test, train, COLUMNS) if index in planted] == sorted(planted)
    fresh = rows_of("not seen before", "nor this")
    assert overlap(fresh, train, COLUMNS) == []


# a recipe's data


def write(folder: Path, name: str, rows: list[dict[str, str]]) -> str:
    return str(tiny.write_rows(folder / name, rows))


def test_the_files_of_a_recipe_become_three_splits(tmp_path: Path) -> None:
    files = {
        name: write(tmp_path, f"{name}.jsonl", tiny.make_rows(30, seed=seed))
        for seed, name in enumerate(("a", "b", "c"))
    }
    splits = load_splits(Data(train=files["a"], validation=files["b"], test=files["c"]), COLUMNS)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [30, 30, 30]
    assert set(splits.files) == {"train", "validation", "test"} and len(set(splits.files.values())) == 3
    assert list(splits.named()) == ["train", "validation", "test"]


def test_a_test_share_is_split_off_first_and_does_not_move(tmp_path: Path) -> None:
    """No input in two splits, each share as large as asked, and the same sealed rows whatever else is asked."""
    rows = [{"text": f"text number {number // 2}", "label": "ab"[number % 4 // 2]} for number in range(4000)]
    data = Data(train=write(tmp_path, "a.jsonl", rows), validation=0.1, test=0.2)
    splits = load_splits(data, COLUMNS)
    parts = [texts(part) for part in (splits.train, splits.validation, splits.test)]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 2000 and splits.leaked == []
    assert len(splits.test) / 4000 == pytest.approx(0.2, abs=0.03)
    assert len(splits.validation) / (4000 - len(splits.test)) == pytest.approx(0.1, abs=0.02)
    for other in (data.but(limit=300), data.but(validation=0.3)):
        assert texts(load_splits(other, COLUMNS).test) == parts[2]
    assert splits.files["test"] == splits.files["train"] and splits.parts["test"] == splits.parts["train"]


def test_a_test_share_keeps_groups_whole_and_classes_on_both_sides(tmp_path: Path) -> None:
    rows = [{"text": f"t {number}", "label": "ab"[number % 2], "case": number // 4} for number in range(40)]
    rows += [{"text": f"rare {number}", "label": "c", "case": 100 + number} for number in range(3)]
    splits = load_splits(Data(train=write(tmp_path, "a.jsonl", rows), test=0.1, group="case"), COLUMNS)
    cases = [{row["case"] for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert not cases[0] & cases[2] and not cases[1] & cases[2]
    assert {row["label"] for row in splits.test} == {row["label"] for row in splits.train} == {"a", "b", "c"}


def test_rows_without_a_group_go_by_their_input() -> None:
    """They are no group: with a third of them, a third of the rows would go to one side together."""
    rows = [Row({"text": f"text {n}", "label": "a", "case": None if n % 3 else n}, "rows", n) for n in range(3000)]
    kept, held = split_rows(rows, 0.2, COLUMNS, "case", stratum=None)
    assert all(0.1 < sum(row["case"] is None for row in part) / len(part) < 0.9 for part in (kept, held))
    assert len(held) / 3000 == pytest.approx(0.2, abs=0.03)


def test_refit_learns_validation_rows_so_they_leak_too(tmp_path: Path) -> None:
    rows = tiny.make_rows(60)
    files = [write(tmp_path, f"{n}.jsonl", part) for n, part in enumerate((rows[:30], rows[30:50], rows[40:60]))]
    data = Data(train=files[0], validation=files[1], test=files[2])
    plain, refit = (load_splits(data, COLUMNS, learns_validation=learns) for learns in (False, True))
    known = texts(plain.validation) | texts(plain.train)
    assert refit.leaked == [index for index, row in enumerate(plain.test) if row["text"] in known]
    assert set(plain.leaked) < set(refit.leaked)


def test_test_rows_that_are_in_train_are_found(tmp_path: Path) -> None:
    rows = tiny.make_rows(60)
    train, test = write(tmp_path, "a.jsonl", rows), write(tmp_path, "t.jsonl", [*tiny.make_rows(5, seed=3), *rows[:60]])
    splits = load_splits(Data(train=train, test=test), COLUMNS)
    assert set(splits.leaked) == {
        index for index, row in enumerate(splits.test) if row["text"] in texts(splits.train)
    } and len(splits.leaked) == len(splits.train)


def test_skipped_rows_of_every_file_are_named(tmp_path: Path) -> None:
    for name in ("a", "t"):
        (tmp_path / f"{name}.jsonl").write_text("oops\n")
        with open(tmp_path / f"{name}.jsonl", "a") as file:
            file.writelines(f'{{"text": "{name} {index}", "label": "{index % 2}"}}\n' for index in range(40))
    data = Data(train=str(tmp_path / "a.jsonl"), test=str(tmp_path / "t.jsonl"), on_bad_row="skip")
    splits = load_splits(data, COLUMNS)
    assert [fault.where for fault in splits.skipped] == [str(tmp_path / "a.jsonl:1:1"), str(tmp_path / "t.jsonl:1:1")]
    with pytest.raises(DataError, match=r"a\.jsonl:1:1: not valid JSON"):
        load_splits(data.but(on_bad_row="stop"), COLUMNS)


def test_no_rows_left_to_validate_on_is_told(tmp_path: Path) -> None:
    one = write(tmp_path, "one.jsonl", [{"text": "only", "label": "x"}])
    ten = write(tmp_path, "ten.jsonl", [{"text": "same", "label": "x"}] * 10)
    with pytest.raises(DataError, match="no rows left to test on"):
        load_splits(Data(train=ten, validation=one, test=1e-9), COLUMNS)
    with pytest.raises(DataError, match="no rows left to"):
        load_splits(Data(train=one, validation=0.5), COLUMNS)
    with pytest.raises(DataError, match="no rows left to validate on"):
        load_splits(Data(train=write(tmp_path, "a.jsonl", tiny.make_rows(20)), validation=0.0), COLUMNS)


def test_the_hash_of_rows_tells_any_change(tmp_path: Path) -> None:
    rows = many(20)
    first = hash_of(rows, COLUMNS)
    assert hash_of(many(20), COLUMNS) == first
    assert hash_of(rows[::-1], COLUMNS) != first and hash_of(rows[:-1], COLUMNS) != first
    changed = [*rows[:-1], Row({**rows[-1].values, "label": "other"}, "f", 20)]
    assert hash_of(changed, COLUMNS) != first


def test_pieces_of_a_text_stay_together_where_a_group_is_named_that_they_do_not_have() -> None:
    rows = [Row({"text": f"{number}", "(document)": f"d{number // 20}"}, "f", number) for number in range(400)]
    kept, held = split_rows(rows, 0.3, [TEXT], "patient", None)
    assert held and kept
    assert not {row["(document)"] for row in kept} & {row["(document)"] for row in held}
