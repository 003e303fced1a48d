"""Rows of words with tags and of texts with spans: what is accepted, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from tunesmith.data import checks
from tunesmith.data.sources import read_rows
from tunesmith.recipe import TokenClassification

TAGS, SPANS = TokenClassification(target="tags").columns, TokenClassification(target="spans").columns


def read(tmp_path: Path, columns: Any, row: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    file = tiny.write_rows(tmp_path / "rows.jsonl", [row])
    reading = read_rows(file, columns, {})
    return [row.values for row in reading.rows], [str(fault).removeprefix(f"{file}:") for fault in reading.faults]


def span(start: object, end: object, label: object = "PER", **more: object) -> dict[str, object]:
    return {"start": start, "end": end, "label": label, **more}


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ({"tokens": ["Ada", "", "🙂"], "tags": ["B-PER", "O", "O"]}, (["Ada", "", "🙂"], ["B-PER", "O", "O"])),
        ({"words": ["a"], "ner_tags": [3]}, (["a"], ["3"])),
        ({"tokens": '["a", "b"]', "tags": '["O", "O"]'}, (["a", "b"], ["O", "O"])),
        ({"tokens": "Ada lives.", "tags": ["B-PER", "O", "O"]}, ("Ada lives.", ["B-PER", "O", "O"])),
        ({"tokens": ["[", "NA", "null"], "tags": ["O", "O", "O"]}, (["[", "NA", "null"], ["O", "O", "O"])),
        ({"tokens": ["same", "same"], "tags": ["B-X", "B-X"]}, (["same", "same"], ["B-X", "B-X"])),
    ],
)
def test_words_and_tags_are_read(tmp_path: Path, row: dict[str, Any], cells: tuple[Any, Any]) -> None:
    rows, faults = read(tmp_path, TAGS, row)
    assert not faults and (rows[0]["tokens"], rows[0]["tags"]) == cells


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "1:tags: tags are 1 for 2 words: each word needs its own"),
        ({"tokens": "Ada lives.", "tags": ["O", "O"]}, "tags are 2 for 3 words"),
        ({"tokens": [], "tags": []}, "tokens is empty"),
        ({"tokens": [" ", ""], "tags": ["O", "O"]}, "tokens is empty"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "holds a word (number 2) that is missing"),
        ({"tokens": ["a", 3], "tags": ["O", "O"]}, "holds a word (number 2) that is a number, not text"),
        ({"tokens": ["a\0"], "tags": ["O"]}, "holds a word (number 1) that holds a NUL character"),
        ({"tokens": {"a": 1}, "tags": ["O"]}, "tokens is an object, not a list of words"),
        ({"tokens": "[1", "tags": ["O"]}, "tags are 1 for 2 words"),
        ({"tokens": ["a"], "tags": "O"}, "tags is one text ('O'), not a list of tags"),
        ({"tokens": ["a"], "tags": [""]}, "holds a tag (number 1) that is empty"),
        ({"tokens": ["a"], "tags": [None]}, "holds a tag (number 1) that is missing"),
        ({"tokens": ["a"], "tags": None}, "tags is missing"),
    ],
)
def test_bad_words_and_tags_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    rows, faults = read(tmp_path, TAGS, row)
    assert not rows and len(faults) == 1 and said in faults[0], faults


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [span(0, 3)],
        [span(4, 9, "LOC"), span(0, 3)],
        [{"start": 0, "end": 3, "entity_group": "PER", "score": 0.9, "word": "Ada"}],
        [{"start": 0, "end": 3, "slot": "PER", "text": "Ada"}],
        json.dumps([span(0, 3)]),
    ],
)
def test_spans_are_read_by_the_names_of_the_field(tmp_path: Path, spans: Any) -> None:
    rows, faults = read(tmp_path, SPANS, {"text": "Ada lives", "spans": spans})
    given = json.loads(spans) if isinstance(spans, str) else spans
    assert not faults and [found["start"] for found in rows[0]["spans"]] == sorted(item["start"] for item in given)
    assert all(set(found) == {"start", "end", "label"} for found in rows[0]["spans"])


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([span(0, 99)], "ends at 99, and the text has 9 characters"),
        ([span(0, 5), span(3, 9)], "overlap (at 3)"),
        ([span(3, 3)], "goes from 3 to 3"),
        ([span(-1, 3)], "goes from -1 to 3"),
        ([span("0", 3)], "no whole numbers"),
        ([span(0, True)], "no whole numbers"),
        ([span(0, 3, None)], "has no label"),
        ([span(0, 3, " ")], "has no label"),
        (["PER"], "is no object like"),
        ("PER", "one text ('PER'), not a list of spans"),
        ({"start": 0}, "an object, not a list of spans"),
        (None, "spans is missing"),
    ],
)
def test_bad_spans_are_named(tmp_path: Path, spans: Any, said: str) -> None:
    rows, faults = read(tmp_path, SPANS, {"text": "Ada lives", "spans": spans})
    assert not rows and len(faults) == 1 and said in faults[0], faults


def test_tags_against_the_scheme_are_a_finding(tmp_path: Path) -> None:
    """Counted and placed; a tidy file has none."""
    good = [{"tokens": ["a", "b", str(i)], "tags": ["B-X", "I-X", "O"]} for i in range(10)]
    bad = [*good, {"tokens": ["c", "d", "e"], "tags": ["O", "I-X", "O"]}]
    for rows, places in ((good, {}), (bad, {"train": [10]})):
        found = read_rows(tiny.write_rows(tmp_path / "rows.jsonl", rows), TAGS, {}).rows
        broken = [one for one in checks.find_all({"train": found}, TAGS) if one.code == "broken-tags"]
        assert [dict(one.rows) for one in broken] == ([places] if places else [])


def test_copies_and_contradictions_of_tagged_rows_are_found(tmp_path: Path) -> None:
    """The order of tags counts: the same words tagged another way contradict each other."""
    rows = [
        {"tokens": ["Paris", "Hilton"], "tags": ["B-PER", "I-PER"]},
        {"tokens": ["paris", "hilton"], "tags": ["B-PER", "I-PER"]},
        {"tokens": ["Paris", "Hilton"], "tags": ["I-PER", "B-PER"]},
    ]
    found = {
        one.code: dict(one.rows)
        for one in checks.find_all(
            {"train": read_rows(tiny.write_rows(tmp_path / "r.jsonl", rows), TAGS, {}).rows}, TAGS
        )
    }
    assert found["duplicate"] == {"train": [1]} and found["conflicting-label"] == {"train": [0, 1, 2]}
