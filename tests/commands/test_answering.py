"""Answering files: the same answers as all at once, in constant memory, killed and resumed, in every kind of file."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import Command

import tiny
from dying import Operations, in_a_child
from forked import Forked
from tunesmith.answering import Details, answer_file
from tunesmith.errors import CheckpointError, DataError, Interrupted, RecipeError
from tunesmith.fitting import Voice
from tunesmith.open import Run
from tunesmith.recipe import Machine, Recipe
from tunesmith.run import run as train

WINDOW = 7
Bases = Callable[..., Path]

ROWS_OF: dict[str, Callable[[dict[str, str], int], dict[str, Any]]] = {
    "label": lambda row, number: row,
    "path": lambda row, number: {**row, "label": f"all/{row['label']}"},
    "labels": lambda row, number: {"text": row["text"], "labels": [row["label"], *(["even"] if number % 2 else [])]},
    "score": lambda row, number: {"text": row["text"], "score": float(tiny.LABELS.index(row["label"]))},
}


@pytest.fixture(scope="module")
def run_of(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """`run_of(kind)`: a finished run of three steps with one layer that answers in this way, made once."""
    made: dict[str, Run] = {}

    def run(kind: str) -> Run:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            rows = [ROWS_OF[kind](row, number) for number, row in enumerate(tiny.make_rows(40))]
            recipe = {
                "model": str(bases("bert", layers=1)),
                "task": {"kind": "text-classification", "target": kind},
                "data": {"train": str(tiny.write_rows(folder / "train.jsonl", rows))},
                "train": {"steps": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
                "judge": {"baselines": "off"},
                "machine": {"threads": 1},
                "output": str(folder / "run"),
            }
            made[kind] = Run(train(Recipe.model_validate(recipe)).folder.path, Machine(threads=1))
            made[kind].predict(["a card"])
        return made[kind]

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Fifty texts of very unequal length, seven windows and one row."""
    return tiny.write_rows(tmp_path / "rows.jsonl", [{"text": row["text"]} for row in tiny.make_rows(50, seed=5)])


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def texts_of(file: Path) -> list[str]:
    return [row["text"] for row in lines_of(file)]


def close(one: Any, other: Any) -> bool:
    """Equal, numbers to a rounding of the last digits: batches are cut otherwise."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=1e-6)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


# the same answers


@pytest.mark.parametrize("kind", ROWS_OF)
def test_a_file_is_answered_as_all_rows_at_once(run_of: Any, rows: Path, tmp_path: Path, kind: str) -> None:
    run = run_of(kind)
    wanted = [{"row": number, **answer} for number, answer in enumerate(run.predict(texts_of(rows)))]
    done = answer_file(run, rows, tmp_path / "out.jsonl", window_rows=WINDOW)
    assert done == {"rows": 50, "output": str(tmp_path / "out.jsonl")}
    assert close(lines_of(tmp_path / "out.jsonl"), wanted)
    assert close(list(run.predict_file(rows)), wanted)
    assert not (tmp_path / "out.jsonl.partial").exists()


@pytest.mark.parametrize("kind", ROWS_OF)
def test_every_kind_of_file_holds_the_same(run_of: Any, rows: Path, tmp_path: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    details = Details() if kind == "score" else Details(probabilities=True, top_k=2, abstain_below=0.4)
    for ending in ("jsonl", "csv", "parquet"):
        answer_file(run_of(kind), rows, tmp_path / f"out.{ending}", details, window_rows=WINDOW)
    wanted = lines_of(tmp_path / "out.jsonl")
    table = pq.ParquetFile(tmp_path / "out.parquet")
    assert table.num_row_groups == 8
    maps = [{**row, **({"scores": dict(row["scores"])} if "scores" in row else {})} for row in table.read().to_pylist()]
    assert maps == wanted
    with open(tmp_path / "out.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == len(wanted) == 50
    for cell, line in zip(cells, wanted, strict=True):
        assert int(cell["row"]) == line["row"] and float(cell["score"]) == line["score"]
        for name in ("labels", "levels", "scores"):
            assert name not in line or (json.loads(cell[name]) if cell[name] else None) == line[name]
        if "label" in line:
            assert cell["label"] == (line["label"] or "")
        for rank, likely in enumerate(line.get("top", ()), start=1):
            assert cell[f"top{rank}"] == likely["label"] and float(cell[f"top{rank}_score"]) == likely["score"]


def test_rows_of_other_kinds_of_file_have_the_same_answers(run_of: Any, rows: Path, tmp_path: Path) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    run, texts = run_of("label"), texts_of(rows)
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress("\n".join(["text", *texts]).encode()))
    (tmp_path / "one.jsonl").write_text("".join(line + "\n" for line in rows.read_text().splitlines()[:20]))
    (tmp_path / "two.jsonl").write_text("".join(line + "\n" for line in rows.read_text().splitlines()[20:]))
    answer_file(run, rows, tmp_path / "wanted.jsonl", window_rows=WINDOW)
    both = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for number, data in enumerate((tmp_path / "rows.parquet", tmp_path / "rows.csv.gz", both)):
        answer_file(run, data, tmp_path / f"{number}.jsonl", window_rows=WINDOW)
        assert (tmp_path / f"{number}.jsonl").read_bytes() == (tmp_path / "wanted.jsonl").read_bytes()


def test_probabilities_the_likeliest_and_abstention(run_of: Any, rows: Path) -> None:
    run = run_of("label")
    plain = run.predict(texts_of(rows))
    middle = sorted(answer["score"] for answer in plain)[25]
    told = run.predict(texts_of(rows), probabilities=True, top_k=2, abstain_below=middle)
    for before, after in zip(plain, told, strict=True):
        assert sorted(after["scores"]) == sorted(tiny.LABELS)
        assert sum(after["scores"].values()) == pytest.approx(1.0)
        ranked = sorted(after["scores"].items(), key=lambda pair: -pair[1])
        assert after["top"] == [{"label": label, "score": p} for label, p in ranked[:2]]
        assert after["abstained"] == (before["score"] < middle) == (after["label"] is None)
        assert after["score"] == before["score"] and (after["abstained"] or after["label"] == before["label"])
    assert sum(answer["abstained"] for answer in told) == 25
    assert all(len(answer["top"]) == 3 for answer in run.predict(["a card"], top_k=9)), "all there are"
    withheld = run_of("labels").predict(["a card"], abstain_below=1.0)
    assert withheld[0]["labels"] is None and withheld[0]["abstained"]


@pytest.mark.parametrize("details", [{"probabilities": True}, {"top_k": 1}, {"abstain_below": 0.5}])
def test_a_number_has_no_probabilities(run_of: Any, details: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="a number"):
        run_of("score").predict(["a card"], **details)


# killed, and resumed


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(run_of: Any, tmp_path: Path) -> None:
    """SIGKILL ten times: every row once, in order, the same bytes."""
    run = run_of("label")
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.make_rows(1500, seed=6))
    straight, out = tmp_path / "straight.csv", tmp_path / "out.csv"
    began = time.monotonic()
    answer_file(run, rows, straight, Details(top_k=2), window_rows=WINDOW)
    whole = time.monotonic() - began
    source, kills = random.Random(8), 0
    while kills < 10:
        pid = os.fork()
        if pid == 0:
            try:
                answer_file(run, rows, out, Details(top_k=2), window_rows=WINDOW)
            finally:
                os._exit(0)
        time.sleep(source.uniform(0.0, whole / 6))
        os.kill(pid, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        if out.exists():
            assert out.read_bytes() == straight.read_bytes()
            out.unlink()
    answer_file(run, rows, out, Details(top_k=2), window_rows=WINDOW)
    assert out.read_bytes() == straight.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_it_may_die_before_any_change_to_the_disk(run_of: Any, tmp_path: Path, ending: str) -> None:
    run = run_of("label")
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.make_rows(9, seed=6))
    straight, out = tmp_path / f"straight.{ending}", tmp_path / f"out.{ending}"
    answer_file(run, rows, straight, window_rows=4)
    fatal = 0
    while True:
        fatal += 1
        operations = Operations(fatal, lambda: os._exit(9))

        def act(operations: Operations = operations) -> None:
            with operations.watched():
                answer_file(run, rows, out, window_rows=4)

        if in_a_child(act) == 0:
            break
        answer_file(run, rows, out, window_rows=4, force=out.exists())
        assert out.read_bytes() == straight.read_bytes(), fatal
        assert not out.with_name(f"{out.name}.partial").exists(), fatal
        out.unlink()
    assert fatal > 20


class Signalling(Voice):
    """Sends a signal to this process once some rows are answered."""

    def __init__(self, number: int, rows: int) -> None:
        self.number, self.rows, self.heard = number, rows, []

    def say(self, text: str) -> None:
        self.heard.append(text)

    def answered(self, rows: int, total: int | None) -> None:
        assert total == 50
        if self.number and rows >= self.rows:
            number, self.number = self.number, 0
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_between_windows_and_say_how_to_go_on(
    run_of: Any, rows: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run, out = run_of("label"), tmp_path / "out.jsonl"
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        answer_file(run, rows, out, voice=Signalling(number, 2 * WINDOW), window_rows=WINDOW)
    assert caught.value.exit_code == 128 + number
    kept = sorted((tmp_path / "out.jsonl.partial").glob("part-*.jsonl"))
    assert len(kept) == 2 and not out.exists()
    before = {part.name: part.stat().st_mtime_ns for part in kept}
    voice = Signalling(0, 0)
    calls: list[int] = []
    answer_rows, run.answer_rows = run.answer_rows, lambda *given: calls.append(len(given[0])) or answer_rows(*given)
    try:
        answer_file(run, rows, out, voice=voice, window_rows=WINDOW)
    finally:
        del run.answer_rows
    assert voice.heard == ["14 rows were answered before; going on"] and sum(calls) == 36 and before
    assert [line["row"] for line in lines_of(out)] == list(range(50))


def begun(run: Run, rows: Path, out: Path, **options: Any) -> Path:
    with pytest.raises(Interrupted):
        answer_file(run, rows, out, voice=Signalling(signal.SIGINT, WINDOW), window_rows=WINDOW, **options)
    return out.with_name(f"{out.name}.partial")


def test_another_input_model_or_option_is_refused_by_name(run_of: Any, rows: Path, tmp_path: Path) -> None:
    run, out = run_of("label"), tmp_path / "out.jsonl"
    place = begun(run, rows, out)
    with pytest.raises(CheckpointError, match=r"another top-k.*remove this folder"):
        answer_file(run, rows, out, Details(top_k=1), window_rows=WINDOW)
    with pytest.raises(CheckpointError, match="another model"):
        answer_file(run_of("path"), rows, out, window_rows=WINDOW)
    kept = rows.read_text()
    rows.write_text(kept + '{"text": "one more"}\n')
    with pytest.raises(CheckpointError, match="another input") as caught:
        answer_file(run, rows, out, window_rows=WINDOW)
    assert caught.value.exit_code == 3 and str(place) in str(caught.value)
    shutil.rmtree(place)
    assert answer_file(run, rows, out, window_rows=WINDOW)["rows"] == 51


def test_a_torn_part_is_answered_again(run_of: Any, rows: Path, tmp_path: Path) -> None:
    run, out = run_of("label"), tmp_path / "out.jsonl"
    answer_file(run, rows, tmp_path / "straight.jsonl", window_rows=WINDOW)
    part = next(begun(run, rows, out).glob("part-*"))
    part.write_bytes(part.read_bytes()[:100])
    answer_file(run, rows, out, window_rows=WINDOW)
    assert out.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()


# what is there already


def test_nothing_of_others_is_replaced(tunesmith: Command, run_of: Any, rows: Path, tmp_path: Path) -> None:
    folder, out = run_of("label").folder.path, tmp_path / "out.jsonl"
    out.write_text("mine")
    done = tunesmith("predict", folder, "--data", rows, "-o", out)
    assert done.code == 2 and "--force" in done.err and out.read_text() == "mine"
    assert tunesmith("predict", folder, "--data", rows, "-o", out, "--force").code == 0
    assert len(lines_of(out)) == 50
    kept = rows.read_text()
    assert tunesmith("predict", folder, "--data", rows, "-o", rows, "--force").code == 2 and rows.read_text() == kept
    (tmp_path / "new.csv.partial").mkdir()
    (tmp_path / "new.csv.partial" / "thesis.txt").write_text("mine")
    done = tunesmith("predict", folder, "--data", rows, "-o", tmp_path / "new.csv")
    assert done.code == 3 and (tmp_path / "new.csv.partial" / "thesis.txt").read_text() == "mine"
    assert tunesmith("predict", folder, "--data", rows, "-o", tmp_path / "new.xlsx").code == 2
    assert tunesmith("predict", folder, "--data", rows, "-o", tmp_path).code == 2


def test_two_at_once_are_refused(run_of: Any, rows: Path, tmp_path: Path) -> None:
    from tunesmith import folder

    out = tmp_path / "out.jsonl"
    place = begun(run_of("label"), rows, out)
    with folder.claim(place, "it"), pytest.raises(CheckpointError, match="another process"):
        answer_file(run_of("label"), rows, out, window_rows=WINDOW)


# bad rows


@pytest.fixture
def bad_rows(tmp_path: Path) -> Path:
    """Twenty rows; the 17th has no text, the 19th is no JSON: two windows are whole before them."""
    lines = [json.dumps({"text": row["text"]}) for row in tiny.make_rows(20, seed=5)]
    lines[16], lines[18] = '{"text": null}', "{"
    (tmp_path / "bad.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "bad.jsonl"


def test_a_bad_row_stops_and_what_was_answered_stays(run_of: Any, bad_rows: Path, tmp_path: Path) -> None:
    run, out = run_of("label"), tmp_path / "out.csv"
    for _ in range(2):
        with pytest.raises(DataError, match=r"bad\.jsonl:17") as caught:
            answer_file(run, bad_rows, out, window_rows=WINDOW)
        assert caught.value.exit_code == 3 and "bad.jsonl:19" in str(caught.value) and "skip" in str(caught.value)
        assert len(list((tmp_path / "out.csv.partial").glob("part-*"))) == 2 and not out.exists()
    done = answer_file(run, bad_rows, out, on_bad_row="skip", window_rows=WINDOW)
    assert done["rows"] == 20 and done["faults"] == 2
    answer_file(run, bad_rows, tmp_path / "straight.csv", on_bad_row="skip", window_rows=WINDOW)
    assert out.read_bytes() == (tmp_path / "straight.csv").read_bytes()


def test_skipped_rows_have_a_line_with_their_fault(
    tunesmith: Command, run_of: Any, bad_rows: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    folder = run_of("label").folder.path
    printed = tunesmith("predict", folder, "--data", bad_rows, "--on-bad-row", "skip")
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["row"] for line in lines] == list(range(20))
    assert [line["row"] for line in lines if "fault" in line] == [16, 18]
    assert "bad.jsonl:17" in lines[16]["fault"] and "label" not in lines[16]
    tunesmith("predict", folder, "--data", bad_rows, "--on-bad-row", "skip", "-o", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in table] == lines
    assert tunesmith("predict", folder, "--data", bad_rows, "--on-bad-row", "guess").code == 2
    assert tunesmith("predict", folder, "--data", bad_rows).code == 3


def test_a_file_mended_before_anything_was_answered_is_simply_answered(run_of: Any, tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", [{"text": None}, {"text": "a card"}])
    with pytest.raises(DataError):
        answer_file(run_of("label"), rows, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.partial").exists()
    tiny.write_rows(rows, [{"text": "cash"}, {"text": "a card"}])
    assert answer_file(run_of("label"), rows, tmp_path / "out.csv")["rows"] == 2


def test_a_file_of_bad_rows_only(run_of: Any, tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", [{"text": None}, {"text": " "}])
    for ending in ("jsonl", "csv", "parquet"):
        done = answer_file(run_of("label"), rows, tmp_path / f"out.{ending}", on_bad_row="skip")
        assert done["rows"] == done["faults"] == 2


# memory and pipes

MEASURED = """
import resource, sys
from pathlib import Path
from tunesmith.answering import answer_file
from tunesmith.open import Run
from tunesmith.recipe import Machine
run = Run(sys.argv[1], Machine(threads=1))
for rows in sys.argv[2:]:
    answer_file(run, Path(rows), Path(rows).with_suffix(".out.jsonl"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak_memory(run: Run, *files: Path) -> list[int]:
    """Of one process that answers one file after the other, after each."""
    command = [sys.executable, "-c", MEASURED, str(run.folder.path), *map(str, files)]
    return [int(peak) for peak in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(run_of: Any, tmp_path: Path) -> None:
    """Less than 430 bytes for each further row: an answer that is held takes more."""
    files = [tmp_path / f"{number}.jsonl" for number in (5_000, 35_000)]  # bench/answering.py does a million
    for rows in files:
        with open(rows, "w") as file:
            file.writelines(f'{{"text": "card lost {index % 97}"}}\n' for index in range(int(rows.stem)))
    small, large = peak_memory(run_of("label"), *files)
    assert large - small <= 30_000 * 430


def test_a_reader_of_the_pipe_may_leave(run_of: Any, tmp_path: Path) -> None:
    """Long before its end: a pipe holds 64 kB, and the answers are several times as long."""
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.make_rows(3000))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = Forked(["predict", str(run_of("label").folder.path), "--data", str(rows)], tmp_path, out=pipe)
    with open(pipe) as answers:
        assert json.loads(answers.readline())["row"] == 0
    assert process.wait() == 0 and process.said == ""


def test_a_word_for_bad_rows_that_is_none_is_refused(run_of: Any, bad_rows: Path, tmp_path: Path) -> None:
    for word in ("raise", "Skip", ""):
        with pytest.raises(RecipeError, match="stop or skip"):
            run_of("label").predict_file(bad_rows, on_bad_row=word)
        with pytest.raises(RecipeError, match="stop or skip"):
            answer_file(run_of("label"), bad_rows, tmp_path / "out.csv", on_bad_row=word)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "out.csv.partial").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), (" \n", "is empty"), ("ab\udcff", "half a character"), ("a\0", "NUL")]
)
def test_a_text_must_be_what_a_row_may_hold(tunesmith: Command, run_of: Any, text: str, said: str) -> None:
    done = tunesmith("predict", run_of("label").folder.path, "a card", text)
    assert done.code == 3 and said in done.err and "input:2" in done.err
    for wrong in (("a", text), ("a", "b", "c"), 5, None):
        with pytest.raises(DataError):
            run_of("label").predict([wrong])


@pytest.fixture(scope="module")
def named_run(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose recipe names columns: `body`, and a path of `field` and `topic`."""
    folder = tmp_path_factory.mktemp("named")
    rows = [
        {"body": row["text"], "field": "all", "topic": row["label"], "text": "no text"} for row in tiny.make_rows(40)
    ]
    recipe = {
        "model": str(bases("bert", layers=1)),
        "data": {
            "train": str(tiny.write_rows(folder / "train.jsonl", rows)),
            "columns": {"text": "body", "label": "field/topic"},
        },
        "train": {"steps": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
        "judge": {"baselines": "off"},
        "machine": {"threads": 1},
        "output": str(folder / "run"),
    }
    return Run(train(Recipe.model_validate(recipe)).folder.path, Machine(threads=1))


def test_files_like_those_of_the_training_need_no_names(tunesmith: Command, named_run: Run, tmp_path: Path) -> None:
    """Columns are found by the recipe's names, and by our own where a file has those."""
    trained = named_run.folder.path.parent / "train.jsonl"
    rows = lines_of(trained)
    theirs = [dict(answer) for answer in named_run.predict_file(trained)]
    assert [answer["score"] for answer in theirs] == pytest.approx(
        [answer["score"] for answer in named_run.predict([row["body"] for row in rows])], abs=1e-5
    )
    answer_file(named_run, trained, tmp_path / "out.jsonl")
    assert lines_of(tmp_path / "out.jsonl") == theirs
    ours = [{"text": row["body"], "label": f"all/{row['topic']}"} for row in rows]
    own = tiny.write_rows(tmp_path / "own.jsonl", ours)
    assert list(named_run.predict_file(own)) == theirs
    scored = [named_run.evaluate(file)["scores"] for file in (trained, own)]
    assert scored[0] == scored[1]
    assert tunesmith("evaluate", named_run.folder.path, "--data", trained).code == 0
    other = list(named_run.predict_file(trained, columns={"text": "text"}))
    assert len({answer["score"] for answer in other}) == 1, "the caller's names stand alone"


def test_a_model_from_before_columns_were_kept_still_opens(named_run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(named_run.folder.path, tmp_path / "run")
    card = json.loads((folder / "model" / "tunesmith.json").read_text())
    assert card.pop("columns") == {"text": "body", "label": "field/topic"}
    (folder / "model" / "tunesmith.json").write_text(json.dumps(card))
    old = Run(folder, Machine(threads=1))
    assert old.usual_columns == {}
    trained = named_run.folder.path.parent / "train.jsonl"
    assert list(old.predict_file(trained, columns={"text": "body"})) == list(named_run.predict_file(trained))
    for wrong in ([], {"text": 5}, "text"):
        (folder / "model" / "tunesmith.json").write_text(json.dumps({**card, "columns": wrong}))
        with pytest.raises(CheckpointError, match="card"):
            Run(folder).predict(["a card"])


@pytest.mark.parametrize(
    "answer",
    [
        {"summary_text": "short"},
        {"translation_text": "kurz"},
        {"similarity": 0.5, "score": 2.5},
        {"log_likelihood": -1.0, "perplexity": 2.7, "tokens": 3},
    ],
)
def test_answers_of_every_task_fit_into_parquet(tmp_path: Path, answer: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    from tunesmith.answer_files import WRITERS
    from tunesmith.folder import write_lines

    line = {"row": 0, **answer}
    write_lines(tmp_path / "part.jsonl", [line])
    WRITERS[".parquet"]([tmp_path / "part.jsonl"], tmp_path / "out", False)
    assert pq.read_table(tmp_path / "out").to_pylist() == [line]
