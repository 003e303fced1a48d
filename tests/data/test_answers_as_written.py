"""Rows of entities and questions as they are really written: scripts, marks, schemes, articles, secrets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.checks import find_all
from tunesmith.data.columns import check_cell, misfit
from tunesmith.data.loading import load_splits
from tunesmith.data.rows import Row
from tunesmith.data.sensitive import mask_all, mask_beside
from tunesmith.data.sources import read_rows
from tunesmith.data.tags import spans_of, tags_of, words_of
from tunesmith.errors import DataError
from tunesmith.proposal import propose
from tunesmith.recipe import Data
from tunesmith.recipe.classification import LABEL, TEXT
from tunesmith.recipe.tasks import ANSWERS, SPANS, TOKENS, QuestionAnswering, TokenClassification
from tunesmith.tasks.question_answering import QuestionAnswering as Task

SPANNED, TAGGED = TokenClassification(target="spans").columns, TokenClassification(target="tags").columns


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("北京大学在中国", [(0, 4, "ORG"), (5, 7, "LOC")]),
        ("東京タワーに行く", [(0, 5, "LOC")]),
        ("ประเทศไทย", [(6, 9, "LOC")]),
        ("Cafe\u0301 Royal now", [(0, 11, "ORG")]),
        ("नरेन्द्र मोदी आज", [(0, 13, "PER")]),
        ("I \u2764\ufe0f NY", [(2, 7, "LOC")]),
        ("Zoë in Ωmega", [(0, 3, "PER"), (7, 12, "LOC")]),
    ],
)
def test_spans_of_every_script_survive_their_tags(text: str, spans: list[tuple[int, int, str]]) -> None:
    words = words_of(text)
    told = [(words.starts[span.first], words.ends[span.last - 1], span.kind)
            for span in spans_of(tags_of(spans, words), "BIO")]  # fmt: skip
    assert told == spans


def test_plain_words_are_what_they_were() -> None:
    words = words_of("Don't pay 3.5 €, naïve Zoë!")
    assert [words.text[a:b] for a, b in zip(words.starts, words.ends, strict=True)] == [
        "Don", "'", "t", "pay", "3", ".", "5", "€", ",", "naïve", "Zoë", "!",
    ]  # fmt: skip


def test_tags_of_many_spans_take_no_square_of_time() -> None:
    words = words_of("word " * 20_000)
    spans = [(50 * i, 50 * i + 14, "A") for i in range(2_000)]
    began = time.process_time()
    tags = tags_of(spans, words)
    assert time.process_time() - began < 1.0
    assert tags.count("B-A") == 2_000 and tags.count("I-A") == 4_000


def test_bmes_is_read() -> None:
    assert [(s.first, s.last) for s in spans_of(["B-PER", "M-PER", "E-PER", "O", "S-PER"], "IOBES")] == [(0, 3), (4, 5)]


def codes(columns: Any, train: list[dict[str, Any]], test: list[dict[str, Any]] | None = None) -> set[str]:
    def rows(values: list[dict[str, Any]]) -> list[Row]:
        return [Row(value, "rows", number) for number, value in enumerate(values, start=1)]

    return {
        found.code for found in find_all({"train": rows(train), "validation": [], "test": rows(test or [])}, columns)
    }


def test_tags_without_names_are_told() -> None:
    named = [{"tokens": ["Ada", "lives", str(i)], "tags": ["B-PER", "O", "O"]} for i in range(9)]
    assert "odd-tags" not in codes(TAGGED, named)
    for tags in (["1", "0", "0"], ["B", "I", "O"]):
        assert "odd-tags" in codes(TAGGED, [{**row, "tags": tags} for row in named])


def test_spans_that_no_answer_can_be_are_told() -> None:
    good = [{"text": f"Ada paid {i}", "spans": [{"start": 0, "end": 3, "label": "PER"}]} for i in range(9)]
    assert "lost-spans" not in codes(SPANNED, good)
    inside = {"text": "5kg", "spans": [{"start": 0, "end": 1, "label": "NUM"}]}
    assert "lost-spans" in codes(SPANNED, [*good, inside])


def test_a_split_that_asks_for_nothing_is_told() -> None:
    row = {"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]}
    none = {"tokens": ["she", "lives"], "tags": ["O", "O"]}
    assert "nothing-asked" in codes(TAGGED, [row] * 9, [none] * 9)
    assert "nothing-asked" not in codes(TAGGED, [row] * 9, [row] * 9)


def test_white_space_around_spans_and_answers_is_left_out() -> None:
    spans, fault = check_cell(SPANS, [{"start": 3, "end": 9, "label": "LOC"}])
    assert not fault and not misfit(SPANS, {"text": "in Paris now", "spans": spans})
    assert spans == [{"start": 3, "end": 8, "label": "LOC"}]
    answers, fault = check_cell(ANSWERS, [{"text": " Paris ", "start": 11}])
    assert not fault and not misfit(ANSWERS, {"context": "He lives in Paris ", "answers": answers})
    assert answers == {"texts": ["Paris"], "starts": [12]}
    assert "white space" in misfit(SPANS, {"text": "a  b", "spans": [{"start": 1, "end": 3, "label": "X"}]})
    assert "NUL" in check_cell(SPANS, [{"start": 0, "end": 1, "label": "a\0b"}])[1]


def test_a_text_that_begins_with_a_bracket_is_a_text() -> None:
    assert check_cell(TOKENS, "[Music] hello Ada") == ("[Music] hello Ada", "")
    assert check_cell(TOKENS, '["hello", "Ada"]') == (["hello", "Ada"], "")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_paragraphs_of_other_tasks_are_theirs(tmp_path: Path) -> None:
    """A column that happens to be called so neither hides rows nor makes them bad."""
    rows = [{"text": "a", "label": "x", "paragraphs": given} for given in ([], ["p"], [{"text": "p"}])]
    reading = read_rows(write(tmp_path / "a.jsonl", rows), (TEXT, LABEL), {})
    assert [row.line for row in reading.rows] == [1, 2, 3] and not reading.faults


def article(**question: Any) -> dict[str, Any]:
    return {
        "title": "T",
        "case": "7",
        "paragraphs": [{"context": "The card.", "qas": [{"question": "What?", **question}]}],
    }


def test_articles_keep_their_line_and_what_they_say_besides(tmp_path: Path) -> None:
    answered = article(answers=[{"text": "card", "answer_start": 4}])
    reading = read_rows(
        write(tmp_path / "a.jsonl", [answered, answered]), QuestionAnswering().columns, {}, extra=("case",)
    )
    assert [(row.line, row["case"]) for row in reading.rows] == [(1, "7"), (2, "7")]


def test_a_question_without_answers_is_not_one_without_an_answer(tmp_path: Path) -> None:
    columns = QuestionAnswering().columns
    with pytest.raises(DataError, match="no column 'answers'"):
        read_rows(write(tmp_path / "a.jsonl", [article()]), columns, {})
    reading = read_rows(write(tmp_path / "b.jsonl", [article(is_impossible=True)]), columns, {})
    assert reading.rows[0]["answers"] == {"texts": [], "starts": []}
    flat = {"question": "q", "context": "the card", "answers": [{"text": "card"}], "is_impossible": True}
    reading = read_rows(write(tmp_path / "c.jsonl", [flat]), columns, {})
    assert reading.rows[0]["answers"]["texts"] == []
    with pytest.raises(DataError, match="no training row has an answer"):
        Task(QuestionAnswering()).learn(reading.rows)


def test_questions_about_one_text_stay_together(tmp_path: Path) -> None:
    """As `new` proposes it, and as the rows are then split."""
    rows = [
        {"question": f"q{i}", "context": f"the card {i // 4}", "answers": [{"text": "card", "answer_start": 4}]}
        for i in range(80)
    ]
    path = write(tmp_path / "train.jsonl", rows)
    [group] = [line.value for line in propose(path) if line.key == "data.group"]
    splits = load_splits(Data(train=str(path), validation=0.3, group=group), QuestionAnswering().columns)
    assert not {row["context"] for row in splits.train} & {row["context"] for row in splits.validation}


def test_pieces_of_a_secret_are_hidden_too() -> None:
    text = "the password: hunter2xyz9 is old"
    assert "hunter2xyz9" in text and mask_beside("hunter2xyz9 (P)", text) == "[written-out password or key]"
    assert mask_beside(["is old", "hunter2xyz9"], text) == ["is old", "[written-out password or key]"]
    words = text.replace(":", " :").split()
    assert "hunter2xyz9" not in mask_all(words) and mask_all(words)[0] == "the" and len(mask_all(words)) == len(words)
    assert mask_all(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("found", "target"),
    [(("text", "entities"), "spans"), (("tokens", "ner_tags"), "tags"), (("sentence", "annotations"), "spans"),
     (("words", "labels"), "tags"), (("text", "tags"), "spans")],
)  # fmt: skip
def test_the_target_is_one_whose_columns_are_there(found: tuple[str, ...], target: str) -> None:
    assert TokenClassification().settled(found, {}).target == target
