"""Kinds of cells: lists of names, numbers, columns joined to a path; and what JSON hides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import corpus
from tunesmith.data.columns import check_cell, read_cell
from tunesmith.data.json_text import depth, doubled_key
from tunesmith.data.sources import read_rows
from tunesmith.errors import DataError
from tunesmith.recipe.classification import TextClassification
from tunesmith.recipe.columns import Column

COLUMNS = TextClassification().columns


def written(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


LABELS, NUMBER = Column("labels", "labels"), Column("score", "number")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (["a", "b"], ["a", "b"]),
        (["b", "a", "b", " a "], ["b", "a"]),
        ([], []),
        ("[]", []),
        ('["a", "b"]', ["a", "b"]),
        (' ["a"]', ["a"]),
        ([1, True], ["1", "true"]),
    ],
)
def test_lists_of_names(value: Any, read: list[str]) -> None:
    assert check_cell(LABELS, value) == (read, "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a,b", "one text ('a,b'), not a list"),
        ("a", "not a list"),
        ("", "not a list"),
        ("[a]", "no list of names (not valid JSON"),
        ("[" * 500 + "]" * 500, "deeper than 200"),
        ({"a": 1}, "an object, not a list"),
        (3, "a number, not a list"),
        (["a", None], "number 2) that is missing"),
        (["a", " "], "number 2) that is empty"),
        ([["a"]], "number 1) that is a list"),
        ([1.5], "a number with a fraction"),
        (["a\0"], "NUL"),
        (["\ud800"], "half a character"),
        (None, "is missing"),
    ],
)
def test_what_is_no_list_of_names(value: Any, said: str) -> None:
    cell, fault = check_cell(LABELS, value)
    assert cell is None and said in fault


@pytest.mark.parametrize(
    ("value", "read"),
    [(1, 1.0), (-2.5, -2.5), ("3", 3.0), (" -1e-3 ", -0.001), (".5", 0.5), ("5.", 5.0), (2**53, 2.0**53)],
)
def test_numbers(value: Any, read: float) -> None:
    cell, fault = check_cell(NUMBER, value)
    assert not fault and cell == read and isinstance(cell, float)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "true/false, not a number"),
        ("3,5", "'3,5', not a plain number"),
        ("1_000", "not a plain number"),
        ("nan", "not a plain number"),
        ("inf", "not a plain number"),
        ("٣", "not a plain number"),
        ("1e999", "not a finite number"),
        (float("nan"), "not a finite number"),
        (float("inf"), "not a finite number"),
        (2**63, "beyond 64 bits"),
        ("", "not a plain number"),
        ([1], "a list, not a number"),
        (None, "is missing"),
    ],
)
def test_what_is_no_number(value: Any, said: str) -> None:
    cell, fault = check_cell(NUMBER, value)
    assert cell is None and said in fault


def test_lists_of_names_and_numbers_from_every_kind_of_file(tmp_path: Path) -> None:
    import pyarrow as pa

    columns = (Column("text", "text"), Column("labels", "labels", is_input=False), Column("score", "number", False))
    rows = [{"text": "a", "labels": ["x", "y"], "score": 0.5}, {"text": "b", "labels": [], "score": 2}]
    written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    written(tmp_path / "a.json", json.dumps(rows))
    written(tmp_path / "a.csv", 'text,labels,score\na,"[""x"", ""y""]",0.5\nb,[],2\n')
    (tmp_path / "a.parquet").write_bytes(corpus.parquet(pa.Table.from_pylist(rows)))
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        reading = read_rows(tmp_path / name, columns, {})
        assert [row.values for row in reading.rows] == [{**row, "score": float(row["score"])} for row in rows], name


def test_a_file_of_one_column_of_lists(tmp_path: Path) -> None:
    only = (Column("labels", "labels"),)
    written(tmp_path / "a.csv", 'labels\n"[""a"", ""b""]"\n[]\n')
    written(tmp_path / "a.json", '{"labels": [["a", "b"], []]}')
    for name in ("a.csv", "a.json"):
        assert [row["labels"] for row in read_rows(tmp_path / name, only, {}).rows] == [["a", "b"], []]


def test_columns_are_joined_to_a_path(tmp_path: Path) -> None:
    named = {"label": "area/topic"}
    path = written(tmp_path / "a.csv", "text,area,topic\none,card,lost\ntwo,card,\nthree,a/b,c\nfour,,\n")
    reading = read_rows(path, COLUMNS, named)
    assert [row["label"] for row in reading.rows] == ["card/lost"]
    assert [str(fault).removeprefix(f"{path}:") for fault in reading.faults] == [
        "3:area/topic: area/topic cannot be joined: topic is missing",
        "4:area/topic: area/topic cannot be joined: area holds a '/' itself ('a/b')",
        "5:area/topic: area/topic is missing",
    ]
    own = written(tmp_path / "b.csv", "text,area,topic,area/topic\none,card,lost,other\n")
    assert read_rows(own, COLUMNS, named).rows[0]["label"] == "other"
    with pytest.raises(DataError, match="no column 'area/topic'"):
        read_rows(written(tmp_path / "c.csv", "text,area\none,card\n"), COLUMNS, named)
    with pytest.raises(DataError, match="no column 'area/topic' \\(named for text\\)"):
        read_rows(path, COLUMNS, {"text": "area/topic", "label": "area"})
    assert read_cell(LABELS, {"a": "x", "b": 1}, ("a", "b")) == (["x/1"], "")


# json


@pytest.mark.parametrize(
    ("content", "deep"),
    [(b"1", 0), (b"[]", 1), (b'{"a":[{"b":1}]}', 3), (b'["[[[[", "\\"[["]', 1), (b'["\\\\", [[]]]', 3), (b'["[[[', 1)],
)
def test_depth_counts_brackets_outside_of_strings(content: bytes, deep: int) -> None:
    assert depth(content) == deep


@pytest.mark.parametrize(
    ("content", "keys", "twice"),
    [
        (b'{"a":1,"b":2}', 2, ""),
        (b'{"a":1,"a":2}', 1, "a"),
        (b'{"a" : 1, "a"\t:2}', 1, "a"),
        (b'{"a":"x\\":y","b":":"}', 2, ""),
        (b'{"a":{"b":1,"c":{"b":1}}}', 1, ""),
        (b'{"a":[{"b":1,"b":1}]}', 1, "b"),
        (b'{"a":1,"\\u0061":2}', 1, "a"),
        (b'{"n":' + b"9" * 5000 + b',"n":1}', 1, "n"),
    ],
)
def test_keys_that_are_given_twice_are_found(content: bytes, keys: int, twice: str) -> None:
    assert doubled_key(content, keys) == twice
