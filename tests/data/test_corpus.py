"""Every odd file is read as it stands, every bad one ends in a message: never a traceback, a hang, or silence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import test_reading_rows as plain

import corpus
from tunesmith.data.rows import Row
from tunesmith.data.sources import read_rows, stop_or_skip, stream_rows
from tunesmith.errors import DataError, Fault
from tunesmith.recipe.classification import TextClassification

COLUMNS = TextClassification().columns
SLOWEST = 2.0


@pytest.mark.parametrize("name", corpus.GOOD)
def test_what_is_odd_but_good_is_read_as_it_stands(name: str, tmp_path: Path) -> None:
    file, content, pairs, said = corpus.GOOD[name]
    path = tmp_path / file
    path.write_bytes(content())
    reading = read_rows(path, COLUMNS, {})
    assert not reading.faults
    assert [(row["text"], row["label"]) for row in reading.rows] == pairs
    assert bool(reading.notes) == bool(said) and said in " ".join(reading.notes)
    streamed = list(stream_rows(path, COLUMNS, {}))
    assert streamed == reading.rows


@pytest.mark.parametrize("name", corpus.BAD)
def test_what_is_bad_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    file, content, said = corpus.BAD[name]
    path = tmp_path / file
    path.write_bytes(content())
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        stop_or_skip(read_rows(path, COLUMNS, {}), "stop")
    assert time.process_time() - began < SLOWEST
    assert str(caught.value).startswith(f"{tmp_path}/{said[0]}"), str(caught.value)
    for part in said[1:]:
        assert part in str(caught.value), str(caught.value)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", [name for name in corpus.BAD if corpus.BAD[name][0].endswith(("csv", "jsonl", "tsv"))])
def test_a_stream_tells_the_same(name: str, tmp_path: Path) -> None:
    file, content, said = corpus.BAD[name]
    path = tmp_path / file
    path.write_bytes(content())
    try:
        faults = [row for row in stream_rows(path, COLUMNS, {}) if isinstance(row, Fault)]
    except DataError as error:
        faults = list(error.faults)
    assert str(faults[0]).startswith(f"{tmp_path}/{said[0]}") or said[0] in str(faults[-1])


def test_the_corpus_is_large_enough() -> None:
    assert len(corpus.BAD) + len(plain.BAD) >= 150 and len(corpus.GOOD) >= 30


def test_places_of_rows_are_lines_or_numbers(tmp_path: Path) -> None:
    places = {}
    for name in ("csv.gz", "json list", "parquet"):
        file, content, _, _ = corpus.GOOD[name]
        (tmp_path / file).write_bytes(content())
        row = list(stream_rows(tmp_path / file, COLUMNS, {}))[1]
        assert isinstance(row, Row)
        places[file] = row.where.removeprefix(f"{tmp_path}/")
    assert places == {"a.csv.gz": "a.csv.gz:3", "a.json": "a.json:row 2", "a.parquet": "a.parquet:row 2"}
