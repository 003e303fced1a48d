"""Files of rows as they come: what is read is what stands there, and what cannot be read is named by file and line."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from tunesmith.data.files import not_utf8
from tunesmith.data.rows import Row
from tunesmith.data.sources import Reading, read_rows, stop_or_skip
from tunesmith.errors import DataError
from tunesmith.recipe.classification import TextClassification

COLUMNS = TextClassification().columns


def read(path: Path, named: dict[str, str] | None = None, extra: tuple[str, ...] = ()) -> Reading:
    return read_rows(path, COLUMNS, named or {}, extra)


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row["text"], row["label"]) for row in rows]


def line(text: object = "a", label: object = "x", **more: object) -> str:
    return json.dumps({"text": text, "label": label, **more}) + "\n"


TWO = line("one", "x") + line("two", "y")

# name: (file, content, rows, the line where each begins)
GOOD: dict[str, tuple[str, str | bytes, list[tuple[str, str]], list[int]]] = {
    "jsonl": ("a.jsonl", TWO, [("one", "x"), ("two", "y")], [1, 2]),
    "no newline at the end": ("a.jsonl", TWO.rstrip("\n"), [("one", "x"), ("two", "y")], [1, 2]),
    "empty lines between": ("a.jsonl", f"\n\n{line('one')}\n{line()}", [("one", "x"), ("a", "x")], [3, 5]),
    "CRLF jsonl": ("a.jsonl", TWO.replace("\n", "\r\n"), [("one", "x"), ("two", "y")], [1, 2]),
    "BOM jsonl": ("a.jsonl", b"\xef\xbb\xbf" + TWO.encode(), [("one", "x"), ("two", "y")], [1, 2]),
    "capital ending": ("A.JSONL", TWO, [("one", "x"), ("two", "y")], [1, 2]),
    "csv": ("a.csv", "text,label\none,x\ntwo,y\n", [("one", "x"), ("two", "y")], [2, 3]),
    "columns in another order": ("a.csv", "label,id,text\nx,1,one\n", [("one", "x")], [2]),
    "CRLF csv": ("a.csv", "text,label\r\none,x\r\ntwo,y\r\n", [("one", "x"), ("two", "y")], [2, 3]),
    "CR csv": ("a.csv", "text,label\rone,x\rtwo,y\r", [("one", "x"), ("two", "y")], [2, 3]),
    "BOM csv": ("a.csv", b"\xef\xbb\xbftext,label\none,x\n", [("one", "x")], [2]),
    "quoted newline": ("a.csv", 'text,label\n"one\nmore",x\ntwo,y\n', [("one\nmore", "x"), ("two", "y")], [2, 4]),
    "quoted comma and quotes": ("a.csv", 'text,label\n"a, ""b""",x\n', [('a, "b"', "x")], [2]),
    "blank lines in a csv": ("a.csv", "text,label\n\none,x\n\n", [("one", "x")], [3]),
    "NA is a text": ("a.csv", "text,label\nNA,x\nnull,nan\n", [("NA", "x"), ("null", "nan")], [2, 3]),
    "NA is a label": ("a.jsonl", line("a", "NA") + line("b", "null"), [("a", "NA"), ("b", "null")], [1, 2]),
    "numbers stay texts in a csv": ("a.csv", "text,label\n007,01\n1e5,1\n", [("007", "01"), ("1e5", "1")], [2, 3]),
    "booleans as labels": ("a.jsonl", line("a", True) + line("b", False), [("a", "true"), ("b", "false")], [1, 2]),
    "whole numbers as labels": ("a.jsonl", line("a", 0) + line("b", -3), [("a", "0"), ("b", "-3")], [1, 2]),
    "labels without their spaces": ("a.csv", "text,label\none, x \n", [("one", "x")], [2]),
    "texts with their spaces": ("a.jsonl", line("  one ", "x"), [("  one ", "x")], [1]),
    "control and invisible characters": ("a.jsonl", line("a\u200b\u202e\u0007"), [("a\u200b\u202e\u0007", "x")], [1]),
    "line separators in a text": ("a.jsonl", '{"text":"a\u2028b\u0085","label":"x"}\n', [("a\u2028b\u0085", "x")], [1]),
    "escaped surrogate pair": ("a.jsonl", '{"text":"\\ud83d\\ude00","label":"x"}\n', [("\U0001f600", "x")], [1]),
    "more columns": ("a.jsonl", line("a", "x", note=[1, {"b": None}]), [("a", "x")], [1]),
    "a column more in a later row": ("a.jsonl", line("a") + line("b", "y", extra=1), [("a", "x"), ("b", "y")], [1, 2]),
}  # fmt: skip

# name: (file, content, what must stand in the message)
BAD: dict[str, tuple[str, str | bytes, list[str]]] = {
    "empty jsonl": ("a.jsonl", "", ["a.jsonl: no rows"]),
    "empty csv": ("a.csv", "", ["a.csv:1", "no header"]),
    "only newlines": ("a.jsonl", "\n\n\n", ["a.jsonl: no rows"]),
    "only newlines, csv": ("a.csv", "\n\n", ["a.csv:1", "no header"]),
    "header only": ("a.csv", "text,label\n", ["a.csv: no rows"]),
    "only a BOM": ("a.jsonl", b"\xef\xbb\xbf", ["a.jsonl: no rows"]),
    "unclosed quote": ("a.csv", 'text,label\n"one,x\ntwo,y\n', ["a.csv:", "quote"]),
    "text after a quote": ("a.csv", 'text,label\n"one"more,x\n', ["a.csv:2", "not valid CSV"]),
    "too few cells": ("a.csv", "text,label\none,x\ntwo\n", ["a.csv:3", "1 cells under 2 columns"]),
    "too many cells": ("a.csv", "text,label\none, and more,x\n", ["a.csv:2", "3 cells under 2 columns"]),
    "no header": ("a.csv", "one,x\ntwo,y\n", ["a.csv", "no column 'text'", "there are: one, x", "no header line?"]),
    "duplicate header": ("a.csv", "text,label,text\none,x,two\n", ["a.csv:1", "'text' is there twice"]),
    "empty header": ("a.csv", ",\none,x\n", ["a.csv:1", "no header"]),
    "empty cell": ("a.csv", "text,label\n,x\none,x\n", ["a.csv:2:text", "missing"]),
    "blank cell": ("a.csv", "text,label\n   ,x\n", ["a.csv:2:text", "is empty"]),
    "empty label": ("a.csv", "text,label\none,\n", ["a.csv:2:label", "missing"]),
    "line after a quoted newline": ("a.csv", 'text,label\n"a\n\nb",x\ntwo\n', ["a.csv:5", "1 cells"]),
    "Latin-1 csv": ("a.csv", "text,label\ncaf\xe9,x\n".encode("latin-1"), ["a.csv:2", "not UTF-8"]),
    "Latin-1 jsonl": ("a.jsonl", b'{"text":"one","label":"x"}\n{"text":"caf\xe9","label":"x"}\n', ["a.jsonl:2"]),
    "invalid UTF-8 first": ("a.csv", b"\xfftext,label\none,x\n", ["a.csv:1:1", "not UTF-8 (byte 0, 0xFF)", "iconv"]),
    "half a UTF-16 csv": ("a.csv", "text,label\none,x\n".encode("utf-16")[:-1], ["a.csv", "not UTF-16"]),
    "half a UTF-16 jsonl": ("a.jsonl", TWO.encode("utf-16")[:-1], ["a.jsonl", "not UTF-16"]),
    "lone surrogate": ("a.jsonl", '{"text":"a\\ud800b","label":"x"}\n', ["a.jsonl:1"]),
    "surrogate bytes": ("a.jsonl", b'{"text":"a\xed\xa0\x80b","label":"x"}\n', ["a.jsonl:1"]),
    "not JSON": ("a.jsonl", line() + "text,label\n", ["a.jsonl:2", "not valid JSON"]),
    "trailing comma": ("a.jsonl", '{"text":"a","label":"x",}\n', ["a.jsonl:1:24", "not valid JSON", "comma"]),
    "truncated last line": ("a.jsonl", TWO + '{"text": "thr', ["a.jsonl:3", "it ends in the middle"]),
    "an array a line": ("a.jsonl", '["a", "x"]\n', ["a.jsonl:1", "not a JSON object"]),
    "a text a line": ("a.jsonl", '"a"\n', ["a.jsonl:1", "not a JSON object"]),
    "one array over all": ("a.jsonl", "[\n" + line().strip() + "\n]\n", ["a.jsonl:1"]),
    "NaN": ("a.jsonl", '{"text":"a","label":NaN}\n', ["a.jsonl:1:21", "NaN is no JSON number"]),
    "Infinity": ("a.jsonl", '{"text":"a","label":Infinity}\n', ["a.jsonl:1:21", "Infinity is no JSON number"]),
    "deep arrays": ("a.jsonl", '{"text":' + "[" * 100_000 + "]" * 100_000 + ',"label":"x"}\n', ["a.jsonl:1"]),
    "deep objects": ("a.jsonl", '{"text":' + '{"a":' * 100_000 + "1" + "}" * 100_001 + "\n", ["a.jsonl:1"]),
    "a fraction as label": ("a.jsonl", line("a", 1.5), ["a.jsonl:1:label", "a number with a fraction"]),
    "a whole float as label": ("a.jsonl", line("a", 1.0), ["a.jsonl:1:label", "fraction"]),
    "over 64 bits": ("a.jsonl", '{"text":"a","label":18446744073709551616}\n', ["a.jsonl:1:label"]),
    "a number as text": ("a.jsonl", line(3), ["a.jsonl:1:text", "a number, not text"]),
    "true as text": ("a.jsonl", line(True), ["a.jsonl:1:text", "true/false, not text"]),
    "a list as text": ("a.jsonl", line(["a"]), ["a.jsonl:1:text", "a list, not text"]),
    "an object as label": ("a.jsonl", line("a", {"b": 1}), ["a.jsonl:1:label", "an object"]),
    "a list as label": ("a.jsonl", line("a", ["x"]), ["a.jsonl:1:label", "a list"]),
    "null text": ("a.jsonl", line() + line(None), ["a.jsonl:2:text", "is missing"]),
    "null label": ("a.jsonl", line("a", None), ["a.jsonl:1:label", "is missing"]),
    "blank text": ("a.jsonl", line(" \t\u00a0\n"), ["a.jsonl:1:text", "is empty"]),
    "label left out in row 2": ("a.jsonl", line() + '{"text":"b"}\n', ["a.jsonl:2:label", "is missing"]),
    "mixed types late": ("a.jsonl", line() * 300 + line("a", [1]), ["a.jsonl:301:label"]),
    "missing column": ("a.jsonl", '{"txt":"a","label":"x"}\n', ["a.jsonl", "no column 'text'", "are: txt, label"]),
    "both columns missing": ("a.csv", "a,b\n1,2\n", ["no column 'text'", "no column 'label'"]),
    "no columns": ("a.jsonl", "{}\n", ["a.jsonl", "no column 'text'"]),
    "unknown ending": ("a.xls", TWO, ["a.xls", "unknown kind of file '.xls'", ".jsonl"]),
    "no ending": ("rows", TWO, ["rows", "unknown kind"]),
    "a fake csv": ("a.csv", b"PAR1\x00\x00\xff\xfe", ["a.csv", "a Parquet file"]),
    "a zip called jsonl": ("a.jsonl", b"PK\x03\x04\x14\x00\xff", ["a.jsonl", "a zip archive"]),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_read_is_what_stands_there(name: str, tmp_path: Path) -> None:
    file, content, rows, lines = GOOD[name]
    reading = read(written(tmp_path, file, content))
    assert not reading.faults, reading.faults
    assert pairs(reading.rows) == rows
    assert [row.line for row in reading.rows] == lines
    assert reading.rows[0].where == f"{tmp_path / file}:{lines[0]}"


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    file, content, said = BAD[name]
    path = written(tmp_path, file, content)
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        stop_or_skip(read(path), "stop")
    assert time.process_time() - began < 2
    assert caught.value.exit_code == 3
    assert str(path.parent) in str(caught.value)
    for part in said:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"x" + "é".encode() * 500_000 + b"\xff", ":1:500002: not UTF-8 (byte 1000001, 0xFF)"),
        (b"x" + "é".encode() * 500_000, ""),
        (b"text\r" + b"x" * 200_000 + b"\rab\xc3", ":3:3: not UTF-8 (byte 200008, 0xC3)"),
        (b"text\r\nab\xc3\r\n", ":2:3: not UTF-8 (byte 8, 0xC3)"),
    ],
)
def test_a_wrong_byte_is_found_without_holding_the_line(content: bytes, place: str, tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", content)
    tracemalloc.start()
    said = str(not_utf8(path, packed=False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert place in said and peak < 1_000_000


MAIL = "anna" + "@x.de"
LONG = "k" * 5000
NAMES_TWICE = {
    "a.csv": f"{MAIL},{MAIL}\na,b\n",
    "b.csv": f"{LONG},{LONG}\na,b\n",
    "c.jsonl": f'{{"{MAIL}": 1, "{MAIL}": 2}}\n',
    "d.jsonl": f'{{"{LONG}": 1, "{LONG}": 2}}\n',
    "e.json": f'[{{"{MAIL}": 1, "{MAIL}": 2}}]',
    "f.json": f'{{"{MAIL}": [1], "{LONG}": 2}}',
    "g.json": f'{{"{MAIL}": [1], "{LONG}": [1, 2]}}',
}


@pytest.mark.parametrize("file", NAMES_TWICE)
def test_names_in_messages_are_masked_and_short(file: str, tmp_path: Path) -> None:
    """Where a header is missing, names are cells."""
    (tmp_path / file).write_text(NAMES_TWICE[file])
    with pytest.raises(DataError) as caught:
        stop_or_skip(read_rows(tmp_path / file, COLUMNS, {}), "stop")
    said = str(caught.value).replace(str(tmp_path), "")
    assert MAIL not in said and len(said) < 800, said


def test_there_are_enough_odd_and_bad_files() -> None:
    assert len(GOOD) + len(BAD) >= 40


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.csv", "text,label\na\0b,x\n"),
        ("a.jsonl", '{"text":"a\\u0000b","label":"x"}\n'),
        ("a.jsonl", '{"text":"a\0b","label":"x"}'),
    ],
    ids=["csv", "escaped", "raw"],
)
def test_nul_is_kept_as_it_stands_or_refused_and_never_cuts_a_text(file: str, content: str, tmp_path: Path) -> None:
    path = written(tmp_path, file, content)
    try:
        reading = read(path)
    except DataError as error:
        assert f"{path}:" in str(error)
        return
    if reading.faults:
        assert reading.faults[0].where.startswith(f"{path}:")
    else:
        assert pairs(reading.rows) == [("a\0b", "x")]


# what is not a file of rows


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "gone")
    for name in ("pipe", "folder", "loop", "zero", "dead", "missing"):
        with pytest.raises(DataError) as caught:
            read(tmp_path / f"{name}.jsonl")
        assert f"{name}.jsonl" in str(caught.value)


# columns


@pytest.mark.parametrize("alias", ["sentence", "sentence1", "premise", "content", "body", "utterance", "query"])
def test_known_aliases_are_taken_and_said(alias: str, tmp_path: Path) -> None:
    reading = read(written(tmp_path, "a.jsonl", json.dumps({alias: "one", "intent": "x"}) + "\n"))
    assert pairs(reading.rows) == [("one", "x")]
    assert any(repr(alias) in note and "'text'" in note for note in reading.notes)
    assert any("'intent'" in note and "'label'" in note for note in reading.notes)


def test_our_own_name_comes_before_an_alias_and_is_not_said(tmp_path: Path) -> None:
    reading = read(written(tmp_path, "a.jsonl", line("one", "x", body="other", category="other")))
    assert pairs(reading.rows) == [("one", "x")] and not reading.notes


def test_named_columns_come_before_everything(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", line("one", "x", body="two", queue="y"))
    reading = read(path, {"text": "body", "label": "queue"})
    assert pairs(reading.rows) == [("two", "y")] and not reading.notes


def test_a_column_named_for_one_thing_is_not_taken_for_another(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", json.dumps({"sentence1": "one", "sentence2": "two", "label": "x"}) + "\n")
    plain, swapped = read(path), read(path, {"text": "sentence2", "text_pair": "sentence1"})
    assert (plain.rows[0]["text"], plain.rows[0]["text_pair"]) == ("one", "two")
    assert (swapped.rows[0]["text"], swapped.rows[0]["text_pair"]) == ("two", "one")
    alone = read(path, {"text": "sentence2"})
    assert alone.rows[0]["text"] == "two" and alone.rows[0].get("text_pair") is None


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"text": "nowhere"}, "no column 'nowhere' (named for text)"),
        ({"txet": "text"}, "this task reads no column 'txet'"),
        ({"text": "nowhere", "label": "gone"}, "no column 'gone' (named for label)"),
    ],
)
def test_a_wrong_name_under_columns_is_told_with_what_there_is(
    named: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(written(tmp_path, "a.jsonl", line()), named)
    assert said in str(caught.value)


def test_faults_name_their_own_columns(tmp_path: Path) -> None:
    reading = read(written(tmp_path, "a.jsonl", json.dumps({"body": 3, "queue": "x"}) + "\n"), {"label": "queue"})
    assert reading.faults[0].where.endswith("a.jsonl:1:body")


def test_an_optional_column_may_be_missing_here_and_there(tmp_path: Path) -> None:
    reading = read(
        written(tmp_path, "a.jsonl", line("a", "x", text_pair="p") + line("b", "y", text_pair=None) + line("c"))
    )
    assert [row.get("text_pair") for row in reading.rows] == ["p", None, None]


def test_a_group_column_is_kept_and_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", line("a", "x", case=7))
    assert read(path, extra=("case",)).rows[0]["case"] == 7
    with pytest.raises(DataError, match="no column 'patient'"):
        read(path, extra=("patient",))


# stop or skip


def test_all_bad_rows_are_counted_and_the_first_twenty_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", line() + line(None) * 30 + line("b"))
    with pytest.raises(DataError) as caught:
        stop_or_skip(read(path), "stop")
    assert str(caught.value).count("text is missing") == 20
    assert "30 bad rows (10 more not shown)" in str(caught.value) and "on_bad_row: skip" in str(caught.value)


def test_skip_keeps_the_good_rows_and_the_names_of_the_bad(tmp_path: Path) -> None:
    content = line("a") + "not json\n" + line(None) + line("b", "y") + '{"text": "cut'
    reading = read(written(tmp_path, "a.jsonl", content))
    stop_or_skip(reading, "skip")
    assert pairs(reading.rows) == [("a", "x"), ("b", "y")]
    assert [fault.where.rpartition("a.jsonl:")[2] for fault in reading.faults] == ["2:1", "3:text", "5:14"]


def test_skip_does_not_skip_everything(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        stop_or_skip(read(written(tmp_path, "a.jsonl", line(None) * 3)), "skip")


def test_skip_leaves_out_ragged_rows_of_a_csv(tmp_path: Path) -> None:
    reading = read(written(tmp_path, "a.csv", 'text,label\none,x\ntwo\n"a\nb",y\nthree,z,more\nfour,x\n'))
    assert pairs(reading.rows) == [("one", "x"), ("a\nb", "y"), ("four", "x")]
    assert [row.line for row in reading.rows] == [2, 4, 7]
    assert [fault.where.rpartition(":")[2] for fault in reading.faults] == ["3", "6"]


def test_a_long_text_is_read_whole(tmp_path: Path) -> None:
    text = "word " * 400_000
    for path in (
        written(tmp_path, "a.jsonl", line(text)),
        written(tmp_path, "a.csv", f"text,label\n{text},x\n"),
    ):
        assert read(path).rows[0]["text"] == text


def test_a_column_may_begin_in_any_row(tmp_path: Path) -> None:
    """JSON rows leave out what is empty: a pair's second text that the first row lacks is still read, and a first row
    without a text is one bad row, not an end."""
    file = written(tmp_path, "a.jsonl", line("one", "x") + line("two", "y", text_pair="more"))
    assert [row.get("text_pair") for row in read(file).rows] == [None, "more"]
    file = written(tmp_path, "b.jsonl", '{"label": "x"}\n' + TWO)
    reading = read(file)
    assert pairs(reading.rows) == [("one", "x"), ("two", "y")]
    assert [fault.where for fault in reading.faults] == [f"{file}:1:text"]
    with pytest.raises(DataError, match="no column 'text'"):
        read(written(tmp_path, "c.jsonl", "{}\n{}\n"))
