"""A run of each task, asked by the public commands: as a file of every kind, in the terminal, and scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import Command
from workbench import BASES, TASKS, WRITERS, run_tiny

import tiny
from tunesmith.open import Run

ROWS = 60
FIELDS = {
    "text-classification": {"label", "score"},
    "image-classification": {"label", "score"},
    "token-classification": {"entities"},
    "question-answering": {"answer", "score", "start", "end"},
    "sentence-similarity": {"similarity"},
    "language-modeling": {"log_likelihood", "perplexity", "tokens"},
    "summarization": {"summary_text"},
    "translation": {"translation_text"},
}


def as_written(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the workbench as a file holds it."""
    if "image" in row:
        return {**row, "image": str(row["image"])}
    if "answers" in row:
        found = row["answers"]
        return {**row, "answers": {"text": found["texts"], "answer_start": found["starts"]}}
    return row


@pytest.fixture(scope="module")
def asked(
    bases: Callable[..., Path], writers: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Run, Path]]:
    """`asked(kind)`: a finished run of two steps, and a file of labelled rows."""
    made: dict[str, tuple[Run, Path]] = {}

    def run(kind: str) -> tuple[Run, Path]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            settings, make_rows = TASKS[kind]
            file = tiny.write_rows(folder / "rows.jsonl", [as_written(row) for row in make_rows(ROWS)])
            base = writers(WRITERS[kind]) if kind in WRITERS else bases(BASES.get(kind, "bert"))
            sections: dict[str, Any] = {
                "task": settings.model_dump(mode="json"),
                "train": {"steps": 2, "batch_size": 4},
            }
            made[kind] = run_tiny(base, file, folder / "run", **sections, judge={"baselines": "off"}), file
        return made[kind]

    return run


@pytest.mark.parametrize("kind", TASKS)
def test_answers_are_the_same_in_every_kind_of_file(asked: Any, tunesmith: Command, tmp_path: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    run, file = asked(kind)
    for ending in ("jsonl", "csv", "parquet"):
        ended = tunesmith("predict", run.folder.path, "--data", file, "-o", tmp_path / f"out.{ending}")
        assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == ROWS and all(set(line) == {"row", *FIELDS[kind]} for line in lines)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == lines
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == ",".join(lines[0])


@pytest.mark.parametrize("kind", TASKS)
def test_a_row_is_answered_in_the_terminal_and_a_file_scored(asked: Any, tunesmith: Command, kind: str) -> None:
    run, file = asked(kind)
    row = json.loads(file.read_text().splitlines()[0])
    cells = [row[column.name] for column in run.inputs if column.name in row]
    texts = [" ".join(cell) if isinstance(cell, list) else cell for cell in cells]
    ended = tunesmith("predict", run.folder.path, *texts)
    assert ended.code == 0 and ended.out, ended.err
    ended = tunesmith("evaluate", run.folder.path, "--data", file, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["rows"] == ROWS


def test_a_question_without_its_text_is_refused(asked: Any, tunesmith: Command) -> None:
    run, _ = asked("question-answering")
    ended = tunesmith("predict", run.folder.path, "who?")
    assert ended.code == 3 and "1 texts, and a row of this model needs 2" in ended.err
    assert "give question, then context" in ended.err


def test_answers_to_a_question_are_ranked(asked: Any, tunesmith: Command, tmp_path: Path) -> None:
    """Each with its place; probabilities of all that were looked at add up to one; an unsure one may be withheld."""
    run, file = asked("question-answering")
    told = ("--data", file, "--top-k", "3", "--probabilities", "--abstain-below", "1")
    assert tunesmith("predict", run.folder.path, *told, "-o", tmp_path / "out.jsonl").code == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for line in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines()):
        context = rows[line["row"]]["context"]
        assert 1 <= len(line["top"]) <= 3
        assert all(context[one["start"] : one["end"]] == one["answer"] for one in line["top"])
        scores = [one["score"] for one in line["top"]]
        assert scores == sorted(scores, reverse=True) and scores[0] == max(line["scores"].values())
        assert sum(line["scores"].values()) == pytest.approx(1.0)
        assert line["abstained"] and line["answer"] is line["start"] is None
    for ending in ("csv", "parquet"):
        assert tunesmith("predict", run.folder.path, *told, "-o", tmp_path / f"out.{ending}").code == 0
    assert "top1,top1_score,top2" in (tmp_path / "out.csv").read_text().splitlines()[0]
