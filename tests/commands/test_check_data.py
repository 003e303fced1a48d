"""What `check` and `run` say of data, by the public command: codes, counts, places, and nothing of the texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shell import Command

import planted

RECIPE = """\
model: {base}
data: {{train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
train: {{steps: 2, batch_size: 8, precision: fp32}}
judge: {{baselines: [majority]}}
machine: {{threads: 1}}
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=tiny_base))
    return tmp_path


def by_code(notes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {note["code"]: note for note in notes}


def test_planted_faults_are_reported_with_code_count_and_rows(tunesmith: Command, folder: Path) -> None:
    faults = planted.plant(planted.banking())
    planted.write(faults.files, folder)
    answered = tunesmith("check", folder / "recipe.yaml", "--json")
    assert answered.code == 0, answered.err
    notes = by_code(answered.json["notes"])
    for code, places in faults.places.items():
        assert {Path(place).name for place in notes[code]["rows"]} == places, code
        assert notes[code]["count"] == len(notes[code]["rows"]) == len(places)
        assert notes[code]["where"] == notes[code]["rows"][0]
    told = tunesmith("check", folder / "recipe.yaml")
    assert told.code == 0 and "conflicting-label: 30 inputs have different labels" in told.out
    lines = told.out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if "near-test-in-train" in line)
    assert lines[place + 1].count(".jsonl:") == 3 and lines[place + 1].endswith("and 22 more")


@pytest.mark.parametrize("seed", range(10))
def test_clean_sets_give_no_warning(tunesmith: Command, folder: Path, seed: int) -> None:
    planted.write(planted.clean(seed), folder)
    answered = tunesmith("check", folder / "recipe.yaml", "--json")
    assert answered.code == 0, answered.err
    warned = {note["code"] for note in answered.json["notes"] if note["level"] != "info"}
    assert warned <= {"truncated"}, "tiny models read little"


def test_a_thousand_places_are_named_and_all_rows_counted(tunesmith: Command, folder: Path) -> None:
    files = planted.clean(0)
    files["train"] = files["train"] * 7
    planted.write(files, folder)
    note = by_code(tunesmith("check", folder / "recipe.yaml", "--json").json["notes"])["duplicate"]
    assert note["count"] == 180 * 6 and len(note["rows"]) == 1000


def test_no_part_of_a_secret_or_an_address_is_in_any_output(tunesmith: Command, folder: Path) -> None:
    """Neither printed nor logged nor written into check.json, wherever in the data it stands."""
    hidden = [text for many in planted.HIDDEN.values() for text in many]
    files = planted.clean(1)
    for index, text in enumerate(hidden):
        for split in files:
            files[split][index]["text"] += f" {text} so"
    for index, text in enumerate(planted.HIDDEN["e-mail address"]):
        files["train"][-1 - index]["label"] = text  # the wrong column read as the label
        files["test"][-1 - index]["label"] = f"also {text}"
    planted.write(files, folder)
    done = [tunesmith("check", folder / "recipe.yaml", *more) for more in ((), ("--json",))]
    done.append(tunesmith("run", folder / "recipe.yaml", "--set", "output=once"))
    done.append(tunesmith("run", folder / "recipe.yaml", "--json", "--set", "output=again"))
    assert [outcome.code for outcome in done] == [0] * 4, [outcome.err for outcome in done]
    kept = [(folder / name / "check.json").read_text() for name in ("once", "again")]
    notes = by_code(json.loads(kept[0]))
    assert notes["secrets"]["count"] == 3 * 14 and notes["personal-data"]["count"] >= 3 * (len(hidden) - 14)
    outputs = [output for outcome in done for output in (outcome.out, outcome.err)] + kept
    for text in hidden:
        for piece in (text, text[: len(text) // 2], text[len(text) // 2 :]):
            assert not any(piece in output or json.dumps(piece)[1:-1] in output for output in outputs), piece


def test_bad_rows_are_named_by_their_places(tunesmith: Command, folder: Path) -> None:
    planted.write(planted.clean(2), folder)
    with open(folder / "train.jsonl", "a") as file:
        file.write('oops\n{"text": " ", "label": "red"}\n')
    answered = tunesmith("check", folder / "recipe.yaml", "--json", "--set", "data.on_bad_row=skip")
    assert answered.code == 0, answered.err
    note = by_code(answered.json["notes"])["bad-rows"]
    assert [Path(place).name for place in note["rows"]] == ["train.jsonl:181:1", "train.jsonl:182:text"]
