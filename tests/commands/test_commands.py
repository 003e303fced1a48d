"""Every verb by the public command line: what it prints, what it leaves, and the code it ends with."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import resource
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from shell import Command

import corpus
import tiny
from tunesmith.folder import read_json, write_json

VERBS = ("check", "run", "resume", "evaluate", "predict", "compare", "list", "doctor")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def line_count(file: Path) -> int:
    return len(file.read_text().splitlines())


# run


def test_run_trains_judges_and_ends_with_0(tunesmith: Command, recipe: Path) -> None:
    done = tunesmith("run", recipe)
    folder = recipe.parent / "runs" / "small"
    assert done.code == 0, done.err
    assert any(word in done.out for word in ("SHIP", "NO VERDICT")) and "accuracy" in done.out
    for name in ("recipe.yaml", "manifest.json", "check.json", "steps.jsonl", "scores.json", "verdict.json"):
        assert (folder / name).exists(), name
    assert line_count(folder / "steps.jsonl") == 6
    assert json.loads((folder / "manifest.json").read_text())["finished"]
    assert {"tunesmith.json", "config.json", "model.safetensors"} <= {
        file.name for file in (folder / "model").iterdir()
    }


def test_run_with_json_prints_one_object_and_logs_json_lines(tunesmith: Command, recipe: Path) -> None:
    done = tunesmith("run", recipe, "--json", "--set", "output=there")
    assert done.code == 0, done.err
    assert {"run", "verdict", "scores", "cost"} <= set(done.json)
    assert done.json["run"] == str(recipe.parent / "there")
    events = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert {"stage", "said", "step", "evaluation"} == {event["event"] for event in events}


def test_run_into_a_used_folder_ends_with_2_names_resume_and_touches_nothing(
    tunesmith: Command, recipe: Path, run_copy: Path
) -> None:
    before = bytes_of(run_copy)
    done = tunesmith("run", recipe, "--set", f"output={run_copy}")
    assert done.code == 2
    assert f"tunesmith resume {run_copy}" in done.err
    assert bytes_of(run_copy) == before


def test_set_overrides_the_recipe(tunesmith: Command, recipe: Path) -> None:
    done = tunesmith("run", recipe, "--set", "train.steps=2", "--set", "method=head", "--set", "output=two")
    assert done.code == 0, done.err
    assert line_count(recipe.parent / "two" / "steps.jsonl") == 2
    manifest = json.loads((recipe.parent / "two" / "manifest.json").read_text())
    assert manifest["parameters"]["trainable"] < manifest["parameters"]["total"]
    assert manifest["identity"]["method.kind"] == "head"


def test_a_stop_ends_with_3_names_its_code_and_can_be_accepted(tunesmith: Command, recipe: Path) -> None:
    still = ("--set", "train.learning_rate=0")
    checked = tunesmith("check", recipe, *still)
    assert checked.code == 3 and "rate-zero" in checked.out
    stopped = tunesmith("run", recipe, *still)
    assert stopped.code == 3 and "rate-zero" in stopped.err
    assert not (recipe.parent / "runs" / "small" / "recipe.yaml").exists()
    accepted = tunesmith("run", recipe, *still, "--accept", "rate-zero")
    assert accepted.code == 0, accepted.err


def test_gate_ends_with_6_unless_the_verdict_says_ship(tunesmith: Command, recipe: Path) -> None:
    done = tunesmith("run", recipe, "--gate", "--set", "judge.min_gain=1")
    assert done.code == 6 and "verdict" in done.err
    assert (recipe.parent / "runs" / "small" / "verdict.json").exists()
    assert tunesmith("resume", recipe.parent / "runs" / "small", "--gate").code == 6
    assert tunesmith("resume", recipe.parent / "runs" / "small").code == 0


def test_a_verdict_of_null_does_not_pass_the_gate(tunesmith: Command, recipe: Path) -> None:
    assert tunesmith("run", recipe, "--gate", "--set", "judge.baselines=off").code == 6


def test_weights_that_are_not_finite_end_with_4_and_name_the_step_and_rows(
    tunesmith: Command, recipe: Path, tiny_base: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    spoilt = recipe.parent / "spoilt"
    shutil.copytree(tiny_base, spoilt)
    weights = load_file(spoilt / "model.safetensors")
    weights["encoder.layer.0.attention.self.query.weight"][0, 0] = torch.nan
    save_file(weights, spoilt / "model.safetensors", metadata={"format": "pt"})
    done = tunesmith("run", recipe, "--set", "model=./spoilt", "--set", "judge.baselines=off")
    assert done.code == 4
    assert "nan at step 1" in done.err and "training rows" in done.err
    folder = recipe.parent / "runs" / "small"
    assert not (folder / "model").exists() and not list((folder / "checkpoints").glob("step-*"))


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond this: what a disk or a quota that fills up in the middle of a write looks like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_with_5_names_path_needed_and_free_and_can_be_resumed(
    tunesmith: Command, recipe: Path
) -> None:
    with largest_file(100_000):  # the weights are larger
        done = tunesmith("run", recipe)
    assert done.code == 5, done.err
    last = done.err.strip().splitlines()[-1]
    assert "bytes needed" in last and "bytes free" in last and "step-000000003" in last
    folder = recipe.parent / "runs" / "small"
    assert not list(folder.rglob(".staging-*")), "what was half written is gone"
    assert tunesmith("resume", folder).code == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('{"text": "a", "label": "x"}\n{"text": 3, "label": "y"}\n', "train.jsonl:2:text"),
        ('{"text": "a", "label": "x"}\nnot json\n', "train.jsonl:2"),
        ("", "train.jsonl: no rows"),
        ('{"text": "one", "label": "x"}\n{"text": "two", "label": "x"}\n', "one class"),
    ],
)
def test_bad_rows_end_with_3_and_are_named(tunesmith: Command, recipe: Path, rows: str, said: str) -> None:
    (recipe.parent / "train.jsonl").write_text(rows)
    for verb in ("check", "run"):
        done = tunesmith(verb, recipe)
        assert done.code == 3, (verb, done.err)
        assert said in done.err


def test_a_bad_recipe_ends_with_2_and_names_line_and_column(tunesmith: Command, recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "metod: lora\n")
    for verb in ("check", "run"):
        done = tunesmith(verb, recipe)
        assert done.code == 2
        assert f'{recipe}:6:1: metod: no such setting; did you mean "method"?' in done.err


def test_a_missing_base_ends_with_3(tunesmith: Command, recipe: Path) -> None:
    for reference in ("./nowhere", "package:no-such-package-here"):
        done = tunesmith("check", recipe, "--set", f"model={reference}")
        assert done.code == 3, done.err


# check


def test_check_prints_notes_choices_and_the_resolved_recipe(tunesmith: Command, recipe: Path) -> None:
    plain = tunesmith("check", recipe)
    assert plain.code == 0, plain.err
    assert "few-rows" in plain.out and "train.max_length" in plain.out
    answer = tunesmith("check", recipe, "--json").json
    assert {"code", "level", "where", "message", "remedy", "source", "count"} <= set(answer["notes"][0])
    assert {choice["key"] for choice in answer["choices"]} >= {"judge.primary", "train.max_length"}
    assert "auto" not in json.dumps(answer["recipe"])
    assert not (recipe.parent / "runs").exists(), "a check writes nothing"


# resume


def test_resume_of_a_finished_run_ends_with_0_and_changes_nothing(tunesmith: Command, run_copy: Path) -> None:
    before = bytes_of(run_copy)
    plain, answered = tunesmith("resume", run_copy), tunesmith("resume", run_copy, "--json")
    assert plain.code == answered.code == 0
    assert "finished" in plain.err and answered.json["verdict"]
    assert bytes_of(run_copy) == before


def test_resume_where_no_run_is_ends_with_3_and_makes_nothing(tunesmith: Command, tmp_path: Path) -> None:
    done = tunesmith("resume", tmp_path / "nowhere")
    assert done.code == 3 and "no run in this folder" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_an_interrupted_run_is_resumed_to_the_same_bytes(tunesmith: Command, recipe: Path) -> None:
    from tunesmith.fitting import Voice
    from tunesmith.recipe.reading import read_recipe
    from tunesmith.run import run

    class Cut(Voice):
        def step(self, step: Any, total: int) -> None:
            if step.number == 5:
                raise KeyboardInterrupt

    settings = ["train.checkpoint_every=2", "output=cut"]
    with pytest.raises(KeyboardInterrupt):
        run(read_recipe(recipe, settings), voice=Cut())
    assert tunesmith("run", recipe, "--set", settings[0], "--set", "output=straight").code == 0
    assert tunesmith("resume", recipe.parent / "cut").code == 0
    for name in ("model/model.safetensors", "scores.json", "evaluations.jsonl", "predictions/test.jsonl"):
        assert (recipe.parent / "cut" / name).read_bytes() == (recipe.parent / "straight" / name).read_bytes(), name
    assert json.loads((recipe.parent / "cut" / "manifest.json").read_text())["resumed_from"] == 4


@pytest.mark.parametrize("has_checkpoints", [True, False])
@pytest.mark.parametrize(
    ("was", "is_now", "said"),
    [
        ("seed: 0", "seed: 1", "seed was 0, is 1"),
        ("steps: 12", "steps: 7", "train.steps was 12, is 7"),
        ("weight_decay: 0.01", "weight_decay: 0.02", "train.weight_decay was 0.01, is 0.02"),
    ],
)
def test_resume_refuses_a_changed_recipe_field_by_field(
    tunesmith: Command, run_copy: Path, was: str, is_now: str, said: str, has_checkpoints: bool
) -> None:
    unfinish(run_copy)
    if not has_checkpoints:
        shutil.rmtree(run_copy / "checkpoints")
    file = run_copy / "recipe.yaml"
    assert was in file.read_text()
    file.write_text(file.read_text().replace(was, is_now))
    done = tunesmith("resume", run_copy)
    assert done.code == 3 and said in done.err
    assert done.err.count(", is ") == 1, "only what changed is named"


def test_a_run_killed_before_its_recipe_was_written_can_be_started_with_another(
    tunesmith: Command, run_copy: Path
) -> None:
    """Where no recipe.yaml is, there is no run: what was left behind refuses nothing. But checkpoints are of some run:
    nothing goes on from them unasked, nothing overwrites them."""
    text = (run_copy / "recipe.yaml").read_text().replace("seed: 0", "seed: 1")
    (run_copy / "recipe.yaml").unlink()
    file = run_copy / "other.yaml"
    file.write_text(text)
    done = tunesmith("run", file, "--set", f"output={run_copy}")
    assert done.code == 2 and "checkpoints of a run whose recipe is gone" in done.err
    shutil.rmtree(run_copy / "checkpoints")
    done = tunesmith("run", file, "--set", f"output={run_copy}")
    assert done.code == 0, done.err
    assert json.loads((run_copy / "manifest.json").read_text())["seed"] == 1


def test_resume_refuses_changed_data_and_a_changed_base(
    tunesmith: Command, recipe: Path, tiny_base: Path, bases: Any
) -> None:
    shutil.copytree(tiny_base, recipe.parent / "base")
    assert tunesmith("run", recipe, "--set", "model=./base").code == 0
    folder = recipe.parent / "runs" / "small"
    unfinish(folder)
    rows = recipe.parent / "train.jsonl"
    kept = rows.read_text()
    rows.write_text(kept.replace("card", "cash", 1))
    done = tunesmith("resume", folder)
    assert done.code == 3 and "data.train.sha256 was" in done.err
    rows.write_text(kept)
    shutil.copy(bases("bert", seed=5) / "model.safetensors", recipe.parent / "base" / "model.safetensors")
    done = tunesmith("resume", folder)
    assert done.code == 3 and "model.model.safetensors was" in done.err
    shutil.copy(tiny_base / "model.safetensors", recipe.parent / "base" / "model.safetensors")
    tokenizer = recipe.parent / "base" / "tokenizer.json"
    tokenizer.write_text(
        tokenizer.read_text()
        .replace('"lowercase":true', '"lowercase":false')
        .replace('"lowercase": true', '"lowercase": false')
    )
    done = tunesmith("resume", folder)
    assert done.code == 3 and "model.tokenizer.json was" in done.err


def unfinish(folder: Path) -> None:
    """As if the run had been killed before its last line was written."""
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "finished": None}))


def test_a_run_folder_in_use_is_refused(tunesmith: Command, run_copy: Path) -> None:
    from tunesmith.folder import RunFolder

    unfinish(run_copy)
    with RunFolder(run_copy).claim():
        done = tunesmith("resume", run_copy)
    assert done.code == 3 and "another process" in done.err


# evaluate


def test_each_look_at_the_sealed_test_is_counted(tunesmith: Command, run_copy: Path, tiny_data: Path) -> None:
    assert line_count(run_copy / "looks.jsonl") == 1  # the run's own
    first = tunesmith("evaluate", run_copy, "--data", tiny_data / "test.jsonl", "--json")
    second = tunesmith("evaluate", run_copy, "--data", tiny_data / "test.jsonl")
    assert first.code == second.code == 0
    assert first.json["looks_at_test"] == 2
    assert line_count(run_copy / "looks.jsonl") == 3
    assert [json.loads(line)["by"] for line in (run_copy / "looks.jsonl").read_text().splitlines()] == [
        "run",
        "evaluate",
        "evaluate",
    ]


def test_a_look_at_other_rows_is_not_counted(tunesmith: Command, run_copy: Path, tiny_data: Path) -> None:
    done = tunesmith("evaluate", run_copy, "--data", tiny_data / "train.jsonl", "--json")
    assert done.json["rows"] == 40 and done.json["looks_at_test"] == 1


def test_evaluate_gives_the_scores_of_the_run(tunesmith: Command, run_copy: Path, tiny_data: Path) -> None:
    done = tunesmith("evaluate", run_copy, "--data", tiny_data / "test.jsonl", "--json")
    scores = json.loads((run_copy / "scores.json").read_text())["test"]
    assert done.json["scores"].keys() == scores.keys()
    for name, score in scores.items():
        assert done.json["scores"][name] == pytest.approx(score, abs=1e-6), name


def test_evaluate_without_labels_a_model_or_a_file_ends_with_3(
    tunesmith: Command, run_copy: Path, tmp_path: Path, tiny_data: Path
) -> None:
    bare = tiny.write_rows(tmp_path / "bare.jsonl", [{"text": "where is my card"}])
    done = tunesmith("evaluate", run_copy, "--data", bare)
    assert done.code == 3 and "label" in done.err
    assert tunesmith("evaluate", run_copy, "--data", tmp_path / "none.jsonl").code == 3
    assert tunesmith("evaluate", tmp_path, "--data", tiny_data / "test.jsonl").code == 3


# predict


def test_predict_answers_texts(tunesmith: Command, finished_run: Any) -> None:
    plain = tunesmith("predict", finished_run.folder.path, "where is my card", "top up by cash")
    assert plain.code == 0 and len(plain.out.splitlines()) == 2
    answers = tunesmith("predict", finished_run.folder.path, "where is my card", "top up by cash", "--json").json
    assert [set(answer) for answer in answers["answers"]] == [{"label", "score"}] * 2
    assert all(0 < answer["score"] <= 1 for answer in answers["answers"])


def test_how_expected_a_text_is_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """What a language model answers has no score."""
    from tunesmith.printing import print_answers

    print_answers(["my card"], [{"log_likelihood": -1.0, "perplexity": 2.7182, "tokens": 1200}], as_json=False)
    assert capsys.readouterr().out == "perplexity 2.718 (1,200 tokens)  my card\n"


def test_predict_without_a_model_that_it_can_open_says_what_is_there_and_what_to_do(
    tunesmith: Command, run_copy: Path, recipe: Path
) -> None:
    card = run_copy / "model" / "tunesmith.json"
    whole = card.read_text()
    cases: dict[Path, tuple[str, str]] = {
        recipe.parent / "nowhere": ("nowhere: no such folder", "name a run folder"),
        recipe: ("small.yaml: not a folder", "name a run folder"),
        recipe.parent: (f"{recipe.parent}: no run in this folder", "name a run folder"),
        run_copy / "model": ("model: the model of a run, not a run folder", f"name the run folder: {run_copy}\n"),
    }
    for place, said in cases.items():
        done = tunesmith("predict", place, "where is my card")
        assert done.code == 3 and all(words in done.err for words in said), done.err
    for part, known in (("method", "lora"), ("task", "text-classification")):
        card.write_text(json.dumps({**json.loads(whole), part: {"kind": "newer"}}))
        done = tunesmith("predict", run_copy, "where is my card")
        assert done.code == 3 and f"tunesmith.json: a {part} of an unknown kind, 'newer'" in done.err, done.err
        assert "the version that trained it" in done.err and known in done.err
    card.unlink()
    done = tunesmith("predict", run_copy, "where is my card")
    assert done.code == 3 and f"no finished model in this folder; `tunesmith resume {run_copy}`" in done.err


def test_predict_answers_a_file_as_the_run_did(
    tunesmith: Command, finished_run: Any, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    done = tunesmith("predict", finished_run.folder.path, "--data", tiny_data / "test.jsonl", "-o", out, "--json")
    assert done.json == {"rows": 21, "output": str(out)}
    mine = [json.loads(line) for line in out.read_text().splitlines()]
    theirs = (finished_run.folder.path / "predictions" / "test.jsonl").read_text().splitlines()
    assert [row["label"] for row in mine] == [json.loads(line)["answer"] for line in theirs]
    assert [row["row"] for row in mine] == list(range(21))


def test_predict_to_stdout_is_the_same(tunesmith: Command, finished_run: Any, tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    tunesmith("predict", finished_run.folder.path, "--data", tiny_data / "test.jsonl", "-o", out)
    done = tunesmith("predict", finished_run.folder.path, "--data", tiny_data / "test.jsonl")
    assert done.out == out.read_text()


def test_csv_answers_hold_no_formula(tunesmith: Command, recipe: Path) -> None:
    formulas = ("=1+1", "+cmd", "-2+3", "@sum(a1)")
    tiny.write_rows(recipe.parent / "train.jsonl", tiny.make_rows(40, labels=formulas))
    settings = ("--set", "data.test=null", "--set", "train.steps=2")
    assert tunesmith("run", recipe, *settings).code == 0
    out = recipe.parent / "answers.csv"
    done = tunesmith("predict", recipe.parent / "runs" / "small", "--data", recipe.parent / "train.jsonl", "-o", out)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 40
    assert {row["label"][0] for row in rows} == {"'"}
    assert {row["label"][1:] for row in rows} <= set(formulas)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_every_start_of_a_formula_is_neutralised(start: str, tmp_path: Path) -> None:
    from tunesmith.answer_files import Parts

    rows = [{"row": 0, "label": f"{start}HYPERLINK(1)", "score": 0.5}, {"row": 1, "label": "a=b", "score": 0.5}]
    parts = Parts(tmp_path / "answers.csv")
    with parts.claimed({"format": 1}):
        parts.write(0, rows)
        parts.join(with_faults=False, abstains=False)
        parts.put_in_place()
    with open(tmp_path / "answers.csv", newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert labels == [f"'{start}HYPERLINK(1)", "a=b"]


def test_predict_wants_texts_or_a_file_not_both(tunesmith: Command, finished_run: Any, tiny_data: Path) -> None:
    folder = finished_run.folder.path
    assert tunesmith("predict", folder).code == 2
    assert tunesmith("predict", folder, "a text", "--data", tiny_data / "test.jsonl").code == 2


def test_a_bad_row_stops_predict_before_anything_is_written(
    tunesmith: Command, finished_run: Any, tmp_path: Path
) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", [{"text": "a card"}, {"text": None}])
    done = tunesmith("predict", finished_run.folder.path, "--data", rows, "-o", tmp_path / "out.jsonl")
    assert done.code == 3 and "rows.jsonl:2:text" in done.err
    assert not (tmp_path / "out.jsonl").exists()


# compare, list, doctor


def test_compare_puts_the_best_first_with_paired_intervals(tunesmith: Command, recipe: Path) -> None:
    for name, steps in (("short", 1), ("long", 6)):
        assert tunesmith("run", recipe, "--set", f"train.steps={steps}", "--set", f"output={name}").code == 0
    folders = [recipe.parent / name for name in ("short", "long")]
    plain, answered = tunesmith("compare", *folders), tunesmith("compare", *folders, "--json")
    assert plain.code == answered.code == 0
    best, worse = answered.json["runs"]
    assert best["score"]["value"] >= worse["score"]["value"]
    assert best["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert worse["difference"]["low"] <= worse["difference"]["value"] <= worse["difference"]["high"]
    assert answered.json["rows"] == 21 and answered.json["split"] == "test"
    page = recipe.parent / "table.html"
    assert tunesmith("compare", *folders, "-o", page).code == 0
    written = page.read_text()
    assert f"{best['score']['value']:.4f}" in written and written.count("<svg") == 2 and "http-equiv" in written
    assert tunesmith("compare", *folders, "-o", recipe.parent).code == 2


def test_compare_refuses_one_run_unfinished_runs_and_other_rows(
    tunesmith: Command, recipe: Path, finished_run: Any
) -> None:
    assert tunesmith("compare", finished_run.folder.path).code == 2
    assert tunesmith("compare", finished_run.folder.path, recipe.parent).code == 3
    tiny.write_rows(recipe.parent / "test.jsonl", tiny.make_rows(21, seed=9))
    assert tunesmith("run", recipe, "--set", "train.steps=1").code == 0
    done = tunesmith("compare", finished_run.folder.path, recipe.parent / "runs" / "small")
    assert done.code == 3 and "other rows" in done.err


def test_compare_refuses_a_run_that_ended_behind_its_verdict(
    tunesmith: Command, finished_run: Any, run_copy: Path
) -> None:
    manifest = read_json(run_copy / "manifest.json")
    del manifest["cost"]
    write_json(run_copy / "manifest.json", manifest)
    done = tunesmith("compare", finished_run.folder.path, run_copy)
    assert done.code == 3 and "not a finished run" in done.err and "tunesmith resume" in done.err


def test_a_look_that_cannot_be_counted_is_named(tunesmith: Command, run_copy: Path, tiny_data: Path) -> None:
    (run_copy / "looks.jsonl").unlink()
    (run_copy / "looks.jsonl").mkdir()
    done = tunesmith("evaluate", run_copy, "--data", tiny_data / "test.jsonl")
    assert done.code == 2 and "looks.jsonl: cannot be written" in done.err and done.out == ""


def test_a_look_that_cannot_be_counted_is_refused_before_anything_is_answered(
    tunesmith: Command, run_copy: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.open import Run

    def answer(*_: Any) -> Any:
        raise AssertionError("rows were answered in vain")

    access, ledger, before = os.access, run_copy / "looks.jsonl", bytes_of(run_copy)

    def readable(place: Any, mode: int) -> bool:
        return not (mode & os.W_OK and Path(place) in (run_copy, ledger)) and access(place, mode)

    monkeypatch.setattr(os, "access", readable)
    with monkeypatch.context() as idle:
        idle.setattr(Run, "_answer", answer)
        done = tunesmith("evaluate", run_copy, "--data", tiny_data / "test.jsonl")
    assert done.code == 2 and f"{ledger}: cannot be written (Permission denied)" in done.err, done.err
    assert "sealed test" in done.err and "evaluate on other rows" in done.err and done.out == ""
    assert tunesmith("evaluate", run_copy, "--data", tiny_data / "train.jsonl").code == 0, "no look, nothing to count"
    assert bytes_of(run_copy) == before


def test_a_place_that_nobody_may_write_to_is_refused_before_any_work(
    tunesmith: Command, recipe: Path, finished_run: Any, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = recipe.parent / "barred"
    barred.mkdir()
    seen, access = Path.is_file, os.access

    def is_file(path: Path) -> bool:
        if barred in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return seen(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != barred and access(place, mode))
    rows = tiny_data / "test.jsonl"
    for command in (
        ("new", rows, "-o", barred / "r.yaml"),
        ("check", recipe, "--set", f"output={barred}/run"),
        ("run", recipe, "--set", f"output={barred}/run"),
        ("predict", finished_run.folder.path, "--data", rows, "-o", barred / "out.csv"),
    ):
        done = tunesmith(*command)
        assert done.code == 2 and f"error: {barred}" in done.err and "Permission denied" in done.err, done.err
        assert "; name a place" in done.err and not list(barred.iterdir())


def test_an_output_that_lies_in_a_file_is_a_fault_of_the_option(
    tunesmith: Command, finished_run: Any, tiny_data: Path, tmp_path: Path
) -> None:
    notes, rows = tmp_path / "notes.txt", tiny_data / "test.jsonl"
    notes.write_text("mine")
    done = tunesmith("predict", finished_run.folder.path, "--data", rows, "-o", notes / "out.csv")
    assert done.code == 2 and "it lies in a file" in done.err
    done = tunesmith("new", rows, "-o", notes / "r.yaml")
    assert done.code == 2 and "cannot be written" in done.err and notes.read_text() == "mine"


def test_too_little_memory_anywhere_ends_with_5(tunesmith: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(what: str) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr("tunesmith.printing.list_kinds", too_much)
    done = tunesmith("list", "methods")
    assert done.code == 5 and "out of memory (Unable to allocate 9 GiB); take fewer rows" in done.err


def test_list_names_every_kind(tunesmith: Command) -> None:
    from tunesmith.recipe import methods, tasks

    for what, table in (("methods", methods.KINDS), ("tasks", tasks.KINDS)):
        answer = tunesmith("list", what, "--json")
        assert answer.code == 0
        assert [row["kind"] for row in answer.json] == list(table)
        assert all(row["about"] for row in answer.json)
        assert all(kind in tunesmith("list", what).out for kind in table)
    assert tunesmith("list", "models", "--json").code == 0
    assert tunesmith("list", "cakes").code == 2


def test_doctor_tells_versions_and_hardware(tunesmith: Command) -> None:
    answer = tunesmith("doctor", "--json")
    assert answer.code == 0
    assert {"python", "torch", "transformers", "tunesmith"} <= set(answer.json["versions"])
    assert answer.json["hardware"]["cores"] >= 1
    assert "torch" in tunesmith("doctor").out


# usage


@pytest.mark.parametrize(
    "arguments",
    [
        ("trian",),
        ("run",),
        ("run", "--no-such-option", "x.yaml"),
        ("run", "no-such-recipe.yaml"),
        ("run", "."),
        ("predict",),
        ("compare",),
        ("list",),
        ("evaluate", "somewhere"),
        ("run", "a.yaml", "b.yaml"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_one_error(tunesmith: Command, arguments: tuple[str, ...]) -> None:
    done = tunesmith(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ") and "fault of ours" not in done.err


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", "trian.epochs=3", "train.epochs=many"])
def test_a_bad_set_ends_with_2_and_names_itself(tunesmith: Command, recipe: Path, override: str) -> None:
    done = tunesmith("check", recipe, "--set", override)
    assert done.code == 2
    assert f"--set {override}" in done.err


def test_a_fault_of_ours_ends_with_1_and_says_so(tunesmith: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith import printing

    def fail(what: str) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(printing, "list_kinds", fail)
    done = tunesmith("list", "methods")
    assert done.code == 1
    assert "ZeroDivisionError: on purpose" in done.err and "--debug" in done.err


@pytest.mark.parametrize("debug", [False, True])
def test_what_libraries_will_change_some_day_is_told_with_debug_alone(
    debug: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import cli

    def app(**_: Any) -> None:
        for module in ("transformers.modeling_utils", "somebody.else"):
            warnings.warn_explicit("it will change", FutureWarning, f"{module}.py", 1, module)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr("sys.argv", ["tunesmith", *["--debug"] * debug])
    with warnings.catch_warnings(record=True) as told, pytest.raises(SystemExit) as ended:
        warnings.simplefilter("always")
        cli.main()
    assert ended.value.code == 0 and len(told) == 1 + debug


def test_control_c_ends_with_130(tunesmith: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith import printing

    def fail(what: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(printing, "list_kinds", fail)
    assert tunesmith("list", "methods").code == 130


def test_every_verb_explains_itself(tunesmith: Command) -> None:
    overview = tunesmith("--help")
    assert overview.code == 0 and "Exit codes" in overview.out
    for verb in VERBS:
        assert verb in overview.out
        explained = tunesmith(verb, "--help")
        assert explained.code == 0 and "--json" in explained.out, verb


# files of rows


@pytest.mark.parametrize(
    "name",
    [
        "Latin-1 tsv",
        "csv without a header",
        "cut archive",
        "archive in an archive",
        "gzip bomb",
        "fake parquet",
        "offsets out of the buffer",
        "parquet with a null",
        "100,000 open",
        "duplicate key",
        "NaN in json",
        "UTF-16 without a mark",
    ],
)
def test_bad_files_end_with_3_and_no_traceback(tunesmith: Command, recipe: Path, name: str) -> None:
    file, content, said = corpus.BAD[name]
    (recipe.parent / file).write_bytes(content())
    done = tunesmith("check", recipe, "--set", f"data.train={file}")
    assert done.code == 3, done.err
    for part in said:
        assert part in done.err


def test_other_kinds_lists_and_globs_are_read_and_said(tunesmith: Command, recipe: Path) -> None:
    rows = [json.loads(line) for line in (recipe.parent / "train.jsonl").read_text().splitlines()]
    half = "".join(f"{row['text']};{row['label']}\n" for row in rows[:20])
    (recipe.parent / "part-1.csv").write_text("text;label\n" + half)
    (recipe.parent / "part-2.parquet").write_bytes(corpus.parquet(pa.Table.from_pylist(rows[20:])))
    plain = tunesmith("check", recipe, "--json")
    done = tunesmith("check", recipe, "--set", "data.train=part-*", "--json")
    assert plain.code == done.code == 0, done.err
    assert any("separated by a semicolon" in note["message"] for note in done.json["notes"])
    listed = tunesmith("check", recipe, "--set", "data.train=[part-1.csv, part-2.parquet]", "--json")
    assert listed.json["notes"] == done.json["notes"] and listed.json["choices"] == done.json["choices"]


def test_a_look_at_a_part_or_a_copy_of_the_sealed_test_is_counted(
    tunesmith: Command, recipe: Path, tiny_data: Path
) -> None:
    rows = [json.loads(line) for line in (tiny_data / "test.jsonl").read_text().splitlines()]
    tiny.write_rows(recipe.parent / "part-1.jsonl", rows[:11])
    tiny.write_rows(recipe.parent / "part-2.jsonl", rows[11:])
    (recipe.parent / "copy.parquet").write_bytes(corpus.parquet(pa.Table.from_pylist(rows)))
    done = tunesmith("run", recipe, "--set", "data.test=part-*.jsonl", "--json")
    assert done.code == 0, done.err
    run = recipe.parent / "runs" / "small"
    assert len(json.loads((run / "manifest.json").read_text())["data"]["test"]["files_sha256"]) == 2
    for name, looks in (("part-2.jsonl", 2), ("part-*.jsonl", 3), ("copy.parquet", 4), ("train.jsonl", 4)):
        done = tunesmith("evaluate", run, "--data", recipe.parent / name, "--json")
        assert done.json["looks_at_test"] == looks, name
