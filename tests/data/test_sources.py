"""Sources: lists, globs and hubs; streams; the guarded child; files that are none."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import corpus
from tunesmith import surroundings
from tunesmith.data import guard
from tunesmith.data.guard import Limits, guarded_rows
from tunesmith.data.loading import load_splits
from tunesmith.data.readers import RowFile
from tunesmith.data.rows import Row
from tunesmith.data.sources import describe_file, files_of, read_rows, read_source, stream_rows
from tunesmith.errors import DataError, Fault
from tunesmith.folder import sha256
from tunesmith.recipe import Data, Recipe
from tunesmith.recipe.classification import TextClassification
from tunesmith.recipe.data import uses_hub

COLUMNS = TextClassification().columns


def written(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


# lists, globs


def test_lists_and_globs_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        written(tmp_path / f"{name}.csv", f"text,label\n{name},x\n")
    one = read_source(str(tmp_path / "*.csv"), COLUMNS, {})
    assert [row["text"] for row in one.rows] == ["a", "b", "c"]
    two = read_source([str(tmp_path / "c.csv"), str(tmp_path / "[ab].csv")], COLUMNS, {})
    assert [row["text"] for row in two.rows] == ["c", "a", "b"]
    assert one.hashes == [sha256(tmp_path / f"{name}.csv") for name in "abc"]
    assert one.digest == hashlib.sha256("\n".join(one.hashes).encode()).hexdigest() != two.digest


def test_a_name_with_brackets_is_a_name_where_such_a_file_is(tmp_path: Path) -> None:
    name = written(tmp_path / "a[1].csv", "text,label\none,x\n")
    assert files_of(name) == [name]


@pytest.mark.parametrize(("source", "said"), [(["a.csv", "a.csv"], "named twice"), ("no/*.csv", "no file matches")])
def test_files_that_are_named_twice_or_not_there_are_told(source: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        files_of(source)


def test_each_file_is_mapped_for_itself_and_that_is_said(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.csv", "text,label\none,x\n"), written(tmp_path / "b.csv", "body,label\ntwo,y\n")]
    reading = read_source(files, COLUMNS, {})
    assert [row["text"] for row in reading.rows] == ["one", "two"]
    assert any("differ from those of" in note and "text: body" in note for note in reading.notes)
    with pytest.raises(DataError, match=r"c\.csv: no column 'text'"):
        read_source([*files, written(tmp_path / "c.csv", "a,label\none,x\n")], COLUMNS, {})


def test_splits_of_several_files_have_one_hash_and_their_parts(tmp_path: Path) -> None:
    for name in "abt":
        written(tmp_path / f"{name}.jsonl", "".join(corpus.line(f"{name} {n}", n % 2) for n in range(20)))
    data = Data(train=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], test=str(tmp_path / "t.jsonl"))
    splits = load_splits(data, COLUMNS)
    assert len(splits.train) + len(splits.validation) == 40
    assert splits.parts == {
        "train": [sha256(tmp_path / "a.jsonl"), sha256(tmp_path / "b.jsonl")],
        "test": [sha256(tmp_path / "t.jsonl")],
    }
    assert splits.files["test"] == sha256(tmp_path / "t.jsonl") and splits.files["train"] not in splits.parts["train"]


def test_paths_of_lists_and_globs_are_seen_from_the_recipe_and_hubs_are_no_paths() -> None:
    data = {"train": ["a.csv", "b/*.csv"], "validation": "hub:owner/name@main:dev", "test": "~/t.csv"}
    recipe = Recipe.model_validate({"model": "m", "data": data}).anchored("/here")
    assert recipe.data.train == ["/here/a.csv", "/here/b/*.csv"]
    assert recipe.data.validation == "hub:owner/name@main:dev" and uses_hub(recipe.data)
    back = recipe.relative_to("/here/runs")
    assert back.data.train == ["../a.csv", "../b/*.csv"] and back.anchored("/here/runs").data == recipe.data
    assert not uses_hub(Data(train="hub.csv"))


# hubs


class Found:
    """What `datasets` gives, as far as we look at it."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features, self.column_names = columns, features, list(columns)

    def select_columns(self, names: list[str]) -> Found:
        return Found({name: self.columns[name] for name in names}, self.features)

    def __iter__(self) -> Any:
        return (dict(zip(self.columns, cells, strict=True)) for cells in zip(*self.columns.values(), strict=True))


def test_a_hub_gives_rows_with_the_names_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []
    classes = datasets.ClassLabel(names=["no", "yes"])
    made = Found({"text": ["a", "b", "c"], "label": [1, 0, -1], "image": [0, 0, 0]}, {"label": classes, "text": None})

    def load_dataset(name: str, **options: Any) -> Found:
        asked.append((name, options))
        return made

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "Dataset", Found)
    reading = read_source("hub:owner/name@v1:dev", COLUMNS, {})
    assert asked == [("owner/name", {"revision": "v1", "split": "dev"})]
    assert [(row["text"], row["label"], row.where) for row in reading.rows] == [
        ("a", "yes", "hub:owner/name@v1:dev:row 1"),
        ("b", "no", "hub:owner/name@v1:dev:row 2"),
    ]
    assert [str(fault) for fault in reading.faults] == ["hub:owner/name@v1:dev:row 3:label: label is missing"]
    assert len(reading.digest) == 64 and any("names of classes" in note for note in reading.notes)
    read_source("hub:owner/name", COLUMNS, {}, split="test")
    assert asked[1] == ("owner/name", {"revision": None, "split": "test"})


def test_a_hub_out_of_reach_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        read_source("hub:nobody/nothing", COLUMNS, {})
    for part in ("hub:nobody/nothing: could not be fetched", "HF_HUB_OFFLINE is set"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="not a data set on a hub"):
        read_source("hub:a/b/c d", COLUMNS, {})


# streams


def test_a_stream_needs_the_same_memory_for_any_number_of_rows(tmp_path: Path) -> None:
    peaks = []
    for many in (3_000, 30_000):
        path = written(tmp_path / f"{many}.jsonl", corpus.line("word " * 20) * many)
        tracemalloc.start()
        assert sum(1 for _ in stream_rows(path, COLUMNS, {})) == many
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0], peaks


def test_a_stream_gives_faults_between_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", corpus.line("one") + "oops\n" + corpus.line("two"))
    rows = list(stream_rows(path, COLUMNS, {}))
    assert [type(row) for row in rows] == [Row, Fault, Row]
    assert str(rows[1]).startswith(f"{path}:2:1: not valid JSON")


def test_a_column_may_begin_late_in_a_stream_but_not_take_anothers_place(tmp_path: Path) -> None:
    early = corpus.line("one") * 1500
    path = written(tmp_path / "a.jsonl", early + corpus.line("two", text_pair="more"))
    *_, last = stream_rows(path, COLUMNS, {})
    assert isinstance(last, Row) and last["text_pair"] == "more"
    swapped = early.replace('"text"', '"body"') + corpus.line("two")
    with pytest.raises(DataError, match=r":1501: column 'text' begins here, after 'body' was read as 'text'"):
        list(stream_rows(written(tmp_path / "b.jsonl", swapped), COLUMNS, {}))


def test_a_stream_that_is_left_early_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(corpus.line("x" * 200).encode() * 50_000))
    before = children()
    rows = stream_rows(path, COLUMNS, {})
    next(rows)
    assert children() > before, "no process reads this: nothing was tested"
    rows.close()  # type: ignore[attr-defined]
    assert children() == before


def children() -> set[str]:
    """The processes that this one has started and not yet buried."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


# the guarded child


CRIMES = {
    "signal 11 (SIGSEGV)": "os.kill(os.getpid(), 11)",
    "signal 9 (SIGKILL)": "os.kill(os.getpid(), 9)",
    "more than 1 seconds of processor time": "[None for _ in iter(int, 1)]",
    "gave nothing for 1 seconds": "time.sleep(60)",
    "broke down": "print('no json', flush=True)",
    "ended with code 7": "sys.exit(7)",
    "ended with code 0": "pass",
    "code 1 (ValueError: strange)": "raise ValueError('strange')",
    "more than 0.5 GB of memory": "bytearray(2_000_000_000)",
}


@pytest.mark.parametrize("said", CRIMES)
def test_a_reader_that_dies_hangs_or_bloats_is_a_message(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crime = (
        "import os, resource, sys, time; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2);"
        f"resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), 9)); {CRIMES[said]}"
    )
    monkeypatch.setattr(guard, "COMMAND", (sys.executable, "-c", crime))
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    silence = 1.0 if "nothing" in said else 30.0
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        list(guarded_rows(RowFile(path, "parquet"), Limits(500_000_000, 1, silence)))
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert time.monotonic() - began < 10


def test_the_child_keeps_to_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"[" + b'{"text":"a","label":"x"},' * 400_000 + b'{"text":"a","label":"x"}]'))
    with pytest.raises(DataError, match=r"needs more than 0\.2 GB of memory"):
        list(guarded_rows(RowFile(path, "json", packed=True), Limits(200_000_000, 60, 60)))


def test_the_child_imports_nothing_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("orjson", "csv", "pyarrow"):
        written(tmp_path / f"{name}.py", "open('canary', 'w').close()\n")
    (tmp_path / "a.parquet").write_bytes(corpus.parquet(corpus.table()))
    monkeypatch.chdir(tmp_path)
    assert len(read_rows("a.parquet", COLUMNS, {}).rows) == 2 and not (tmp_path / "canary").exists()


def test_the_child_is_alone_without_a_connection_and_finds_this_very_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every process that is started for one job: the same surroundings, one thread besides."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("PYTHONPATH", "/elsewhere"), ("OMP_NUM_THREADS", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    told = "import json, os; print(json.dumps({'error': {'message': json.dumps(dict(os.environ))}}))"
    monkeypatch.setattr(guard, "COMMAND", (sys.executable, "-c", told))
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError) as caught:
        list(guarded_rows(RowFile(path, "parquet")))
    found = orjson.loads(caught.value.message)
    assert {name: found.get(name) for name in surroundings.of_child()} == surroundings.of_child(OMP_NUM_THREADS="1")
    assert found["PYTHONPATH"].split(os.pathsep) == [str(Path(guard.__file__).parents[2]), "/elsewhere"]
    assert found["HF_HUB_OFFLINE"] == "1" and found["OMP_NUM_THREADS"] == "1"
    assert not {"RANK", "WORLD_SIZE"} & set(found) and found["PATH"] == os.environ["PATH"]


def test_plain_lines_are_read_without_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "COMMAND", ("/no/such/program",))
    assert read_rows(written(tmp_path / "a.csv", "text,label\none,x\n"), COLUMNS, {}).rows
    assert not guard.needs_guard(describe_file(written(tmp_path / "a.json", corpus.LIST)))


# what is no file, and what does not stay the same


def test_what_is_no_regular_file_is_told_by_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, target in (("loop", "loop.csv"), ("zero", "/dev/zero"), ("dead", "gone"), ("memory", "/proc/self/mem")):
        (tmp_path / f"{name}.csv").symlink_to(target)
    said = {
        "pipe": "a pipe",
        "folder": "a folder",
        "loop": "a link that leads to itself",
        "zero": "a device",
        "dead": "a link to a file that is not there",
        "memory": "cannot be read",
        "missing": "no such file",
        "a" * 300: "cannot be read (File name too long)",
    }
    for name, words in said.items():
        with pytest.raises(DataError) as caught:
            read_rows(tmp_path / f"{name}.csv", COLUMNS, {})
        assert str(caught.value).startswith(f"{tmp_path}/{name}.csv: ") and words in str(caught.value)
    with pytest.raises(DataError, match="NUL"):
        read_rows("a\0b.csv", COLUMNS, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\none,x\n")
    os.chmod(path, 0)
    with pytest.raises(DataError, match="Permission denied"):
        read_rows(path, COLUMNS, {})


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_that_changes_while_it_is_read_is_told(name: str, tmp_path: Path) -> None:
    more = "one,x\n" if name == "a.csv" else corpus.line("one", "x")
    path = written(tmp_path / name, "text,label\n" * (name == "a.csv") + more * 5000)
    rows = stream_rows(path, COLUMNS, {})
    next(rows)
    with open(path, "a") as file:
        file.write(more)
    with pytest.raises(DataError, match="changed while it was read"):
        list(rows)


def test_a_file_that_changes_between_reading_and_hashing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    written(path, "text,label\none,x\n")

    def replaced(file: Path) -> str:
        written(path, "text,label\nother,y\n")
        return sha256(file)

    monkeypatch.setattr("tunesmith.data.sources.sha256", replaced)
    with pytest.raises(DataError, match="changed while it was read"):
        read_rows(path, COLUMNS, {})


# speed


@pytest.mark.slow
def test_reading_costs_a_few_times_its_parser(tmp_path: Path) -> None:
    """100,000 rows against the bare parser on the same lines, in turns: a ratio, since machines differ."""
    path = written(
        tmp_path / "a.jsonl", "".join(corpus.line(f"a question, number {n}: where?", n % 77) for n in range(100_000))
    )

    def bare() -> int:
        with open(path, "rb") as file:
            return len([orjson.loads(line) for line in file])

    def seconds(work: Callable[[], int]) -> float:
        began = time.process_time()
        assert work() == 100_000
        return time.process_time() - began

    turns = [(seconds(bare), seconds(lambda: len(read_rows(path, COLUMNS, {}).rows))) for _ in range(3)]
    assert min(ours / floor for floor, ours in turns) < 25, "13 where it was written"
