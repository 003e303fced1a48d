"""Nothing sensitive is shown: no file of a run folder that people read holds what looks like personal data or a secret,
wherever in the rows it stood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import run_tiny

import planted
import tiny
from tunesmith.folder import RunFolder, read_json
from tunesmith.open import Run

FOR_MACHINES = ("checkpoints", "model")
"""Weights, and a tokenizer that was never shown the rows."""

HIDDEN = [(kind, text.removesuffix(" please")) for kind, many in planted.HIDDEN.items() for text in many]


def plant(rows: list[dict[str, Any]], column: str = "text") -> list[dict[str, Any]]:
    """Rows with one hidden thing in each, in turn."""
    many = len(HIDDEN)
    return [{**row, column: f"{row['text']} {HIDDEN[i % many][1]} please"} for i, row in enumerate(rows)]


def leaks(folder: RunFolder) -> Iterator[str]:
    """Every place of a hidden thing, as it is or as JSON or HTML writes it, in any case and spacing."""
    for file in sorted(path for path in folder.path.rglob("*") if path.is_file()):
        if file.relative_to(folder.path).parts[0] in FOR_MACHINES:
            continue
        content = re.sub(r"\s|\\n", "", file.read_text("utf-8", errors="replace")).lower()
        for kind, hidden in HIDDEN:
            bare = re.sub(r"\s", "", hidden).lower()
            if any(form in content for form in (bare, bare.replace("&", "&amp;").replace("'", "&#39;"))):
                yield f"{file.name}: {kind} {hidden!r}"


def pieces_shown(folder: RunFolder) -> Iterator[str]:
    """The first batch with the tokens of each row joined again: every letter is a token of the tiny tokenizer."""
    for row in read_json(folder.data)["first_batch"]:
        yield "".join(token.removeprefix("##") for token in row["tokens"]).replace("[UNK]", "?")


@pytest.fixture(scope="module")
def labelled(bases: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Hidden things in texts, in the second of a pair and in a column of slices; a model that has hardly learned."""
    folder = tmp_path_factory.mktemp("shown")
    train, test = plant(tiny.make_rows(120)), plant(plant(tiny.make_rows(60, seed=1)), "text_pair")
    sources = [{**row, "source": HIDDEN[i % len(HIDDEN)][1]} for i, row in enumerate(test)]
    tiny.write_rows(folder / "train.jsonl", [{**row, "text_pair": row["text"], "source": "us"} for row in train])
    tiny.write_rows(folder / "test.jsonl", sources)
    sections: dict[str, Any] = {
        "data": {"test": str(folder / "test.jsonl")},
        "judge": {"slices": ["source"], "baselines": ["majority"]},
        "train": {"steps": 2, "batch_size": 16, "evaluate_every": 2},
    }
    return run_tiny(bases("bert"), folder / "train.jsonl", folder / "run", **sections)


def test_no_file_that_people_read_holds_what_was_hidden(labelled: Run) -> None:
    """Worst errors, suspects, slices, first batch, notes, card, paper, page, predictions: all of it."""
    shown = read_json(labelled.folder.data)
    assert len(shown["worst_errors"]) == 25, "a test without errors shows nothing"
    assert any("[e-mail address]" in row["text"] for row in shown["worst_errors"])
    page = labelled.folder.report.read_text()
    assert "[IBAN]" in page and "the model reads the text itself" in page
    assert list(leaks(labelled.folder)) == []


def test_what_stands_around_it_is_still_shown(labelled: Run) -> None:
    """A masked text can still be judged by a person: the words beside the secret are there."""
    for row in read_json(labelled.folder.data)["worst_errors"]:
        words = row["text"].replace(" | ", " ").split()
        assert sum(word in tiny.WORDS for word in words) >= 3, row["text"]


def test_the_tokens_of_the_first_batch_do_not_spell_it(labelled: Run) -> None:
    """A tokenizer cuts an address into letters, which are as good as the address."""
    joined = list(pieces_shown(labelled.folder))
    assert len(joined) == 8
    assert all("emailaddress" in text or "[" in text for text in joined)
    for text in joined:
        for _, hidden in HIDDEN:
            words = [word for word in re.split(r"\W+", hidden.lower()) if len(word) >= 8 and word.isalpha()]
            assert not any(word in text for word in words if word != "password"), text


def test_slices_by_an_address_stay_apart(labelled: Run) -> None:
    """Different numbers are different slices, and their masked names are numbered."""
    names = list(labelled.scores["slices"]["source"])
    assert len(names) == 21 and {"[phone number]", "[phone number] (2)", "[phone number] (3)"} <= set(names)


@pytest.mark.parametrize("target", ["labels", "score"])
def test_bad_cells_and_other_targets_do_not_tell_it(target: str, bases: Any, tmp_path: Path) -> None:
    """A cell that is no number or list is quoted in the note on bad rows, with its secret masked."""
    values: dict[str, Any] = {"labels": ["a", "b"], "score": 1.5}
    rows = [{"text": row["text"], target: values[target]} for row in plant(tiny.make_rows(60))]
    for index, row in enumerate(rows):
        if target == "score":
            row[target] = float(index % 7)
        elif index % 2:
            row[target] = ["b"]
    bad = [{"text": "where", target: f"ask {hidden}"} for _, hidden in HIDDEN]
    tiny.write_rows(tmp_path / "train.jsonl", [*rows, *bad])
    data = {"on_bad_row": "skip"}
    done = run_tiny(bases("bert"), tmp_path / "train.jsonl", tmp_path / "run", data=data, train={"steps": 2})
    assert len(read_json(done.folder.data)["skipped"]) == len(bad)
    assert list(leaks(done.folder)) == []


def test_labels_that_are_addresses_are_counted_apart_and_masked(bases: Any, tmp_path: Path) -> None:
    """Labels are the names a model answers with: the files of answers keep them, what people read does not."""
    names = ("post@clinic-north.org", "lab@clinic-north.org", "ward@clinic-north.org")
    rows = tiny.make_rows(60)
    names_of = dict(zip(sorted({row["label"] for row in rows}), names, strict=True))
    tiny.write_rows(tmp_path / "train.jsonl", [{**row, "label": names_of[row["label"]]} for row in rows])
    done = run_tiny(bases("bert"), tmp_path / "train.jsonl", tmp_path / "run", train={"steps": 2})
    masked = ["[e-mail address]", "[e-mail address] (2)", "[e-mail address] (3)"]
    assert list(read_json(done.folder.data)["splits"]["train"]["labels"]) == masked
    for name in ("data.json", "check.json", "scores.json", "report.html", "README.md", "paper.md", "audits.json"):
        assert "clinic-north" not in (done.folder.path / name).read_text(), name
    assert done.predict(["where is my card"])[0]["label"] in names
