"""Photos to sort, through the public commands."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from shell import Command

import tiny
from forked import Forked
from tunesmith.folder import RunFolder, lines, read_json

Bases = Callable[..., Path]
RECIPE = """\
model: {base}
task: image-classification
data: {{train: photos/train, test: photos/test}}
train: {{steps: 6, batch_size: 8, learning_rate: 1e-5, precision: fp32, evaluate_every: 3}}
machine: {{threads: 1}}
output: run
"""
"""A rate so low that the answers stay those of a random head, and errors are many."""


@pytest.fixture(scope="module")
def place(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe beside photos in class folders."""
    folder = tmp_path_factory.mktemp("sorting")
    tiny.make_pictures(folder / "photos" / "train", 40)
    tiny.make_pictures(folder / "photos" / "test", 21, seed=1)
    (folder / "recipe.yaml").write_text(RECIPE.format(base=bases("vit")))
    return folder


@pytest.fixture
def run_folder(place: Path, tunesmith: Command) -> RunFolder:
    """The finished run, made once."""
    if not (place / "run").exists():
        done = tunesmith("run", place / "recipe.yaml", "--json")
        assert done.code == 0, done.err
    return RunFolder(place / "run")


def test_check_says_nothing_of_tokens(place: Path, tunesmith: Command) -> None:
    done = tunesmith("check", place / "recipe.yaml", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert {choice["key"] for choice in told["choices"]} >= {"task.target", "judge.primary"}
    assert not {choice["key"] for choice in told["choices"]} & {"train.max_length", "train.long_text"}
    assert not {note["code"] for note in told["notes"]} & {"truncated", "no-tokens", "personal-data"}


def test_names_of_images_are_masked(place: Path, tunesmith: Command, tmp_path: Path) -> None:
    """A photo may be called after a person."""
    for index, path in enumerate(tiny.make_pictures(tmp_path / "photos" / "train", 24)):
        path.rename(path.with_name(f"jo.doe@house.org-{index}.png"))
    tiny.make_pictures(tmp_path / "photos" / "test", 9, seed=1)
    base = (place / "recipe.yaml").read_text().splitlines()[0].partition(": ")[2]
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=base).replace("test: photos/test", "validation: 0.3"))
    done = tunesmith("run", tmp_path / "recipe.yaml", "--json")
    assert done.code == 0, done.err
    for name in ("data.json", "report.html", "README.md", "paper.md"):
        assert "jo.doe" not in (tmp_path / "run" / name).read_text(), name


def test_the_report_shows_images(run_folder: RunFolder) -> None:
    """Thumbnails of the worst errors, of suspects and of the first batch, as images that open; nothing is fetched; no
    word of tokens that there are none of."""
    page = run_folder.report.read_text()
    shown = read_json(run_folder.data)
    assert shown["max_length"] is None and shown["worst_errors"]
    found = re.findall(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"', page)
    wanted = [row["picture"] for row in (*shown["worst_errors"], *shown["suspects"]["shown"], *shown["first_batch"])]
    assert [f"data:image/jpeg;base64,{content}" for content in found] == wanted
    for content in found:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert max(image.size) <= 112
    assert "http" not in re.sub(r"https://(arxiv|doi)\S+", "", page.partition("<main")[2].partition("Make it again")[0])
    assert len(page.encode()) < 2_000_000 and "One image" not in page and "A row is one image" in page
    told = page.partition('id="scores"')[2].partition('id="again"')[0]
    assert not re.search(r"\btokens?\b", told) and "Lost a part" not in page
    assert all(row["where"].startswith(str(run_folder.path.parent)) for row in shown["first_batch"])


def test_card_and_paper_say_what_is_true_of_images(run_folder: RunFolder) -> None:
    card, paper = run_folder.card.read_text(), run_folder.paper.read_text()
    assert "pipeline_tag: image-classification" in card and "AutoModelForImageClassification" in card
    assert "lost a part" not in card + paper and "tokens" not in paper.partition("## Hyper")[0]
    assert "type: imagefolder" in card and "base64" not in card
    assert "logistic regression on the frozen base" in paper and "pedregosa2011scikit" in paper


@pytest.mark.slow
def test_the_card_s_code_runs(run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the card tells a stranger to type, typed."""
    code = run_folder.card.read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(run_folder.model)
    source = next((run_folder.path.parent / "photos" / "test").glob("*/*.png"))
    Image.open(source).save(tmp_path / "photo.jpg")
    done = Forked(code, tmp_path)
    assert done.wait() == 0, done.said
    label, share = done.printed.split()
    assert label in tiny.LABELS and 0 < float(share) <= 1


def test_predict_takes_paths_folders_and_files(run_folder: RunFolder, tunesmith: Command, tmp_path: Path) -> None:
    """One answer for a photo, however it is named, and the one that judging gave."""
    photos = run_folder.path.parent / "photos" / "test"
    paths = sorted(photos.glob("*/*.png"))
    recorded = [row["answer"] for row in lines(run_folder.predictions("test"))]
    named = tunesmith("predict", run_folder.path, *paths, "--json").json["answers"]
    assert [answer["label"] for answer in named] == recorded and set(named[0]) == {"label", "score"}
    out = tmp_path / "answers.jsonl"
    done = tunesmith("predict", run_folder.path, "--data", photos, "-o", out, "--top-k", "2")
    assert done.code == 0, done.err
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["label"] for answer in answers] == recorded and len(answers[0]["top"]) == 2
    rows = tiny.write_rows(tmp_path / "rows.jsonl", [{"image": str(path)} for path in paths])
    streamed = tunesmith("predict", run_folder.path, "--data", rows).out.splitlines()
    assert [json.loads(line)["label"] for line in streamed] == recorded
    said = tunesmith("predict", run_folder.path, paths[0]).out
    assert recorded[0] in said and str(paths[0]) in said


def test_steps_tell_rows_and_no_tokens(run_folder: RunFolder) -> None:
    told = lines(run_folder.steps)
    assert {row["tokens"] for row in told} == {0} and max(row["rows"] for row in told) == 8


def test_evaluate_counts_a_look_at_the_folder_of_the_test(run_folder: RunFolder, tunesmith: Command) -> None:
    before = len(lines(run_folder.looks))
    done = tunesmith("evaluate", run_folder.path, "--data", run_folder.path.parent / "photos" / "test", "--json")
    assert done.code == 0 and done.json["looks_at_test"] == before + 1
    scores = read_json(run_folder.scores)["test"]
    assert done.json["scores"]["accuracy"]["value"] == pytest.approx(scores["accuracy"]["value"])


BAD_PHOTOS = {"gone.png": "is not there", "torn.png": "is no image of a kind that we read", ".": "is a folder"}


@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_a_photo_that_is_none_ends_with_3(run_folder: RunFolder, tunesmith: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    ended = tunesmith("predict", run_folder.path, tmp_path / name)
    assert ended.code == 3 and BAD_PHOTOS[name] in ended.err and "input:1" in ended.err


def test_bad_images_in_a_run_are_all_named(bases: Bases, tunesmith: Command, tmp_path: Path) -> None:
    """Before anything is loaded; with skip they are left out and told."""
    paths = tiny.make_pictures(tmp_path / "photos" / "train", 24)
    tiny.make_pictures(tmp_path / "photos" / "test", 6, seed=1)
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:60])
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=bases("vit")))
    ended = tunesmith("run", tmp_path / "recipe.yaml")
    assert ended.code == 3 and all(str(path) in ended.err for path in paths[:2]) and "2 bad rows" in ended.err
    done = tunesmith("check", tmp_path / "recipe.yaml", "--set", "data.on_bad_row=skip", "--json")
    [note] = [note for note in done.json["notes"] if note["code"] == "bad-rows"]
    assert done.code == 0 and note["count"] == 2


@pytest.mark.parametrize("setting", ["train.max_length=64", "train.long_text=truncate"])
def test_settings_of_tokens_are_refused(place: Path, tunesmith: Command, setting: str) -> None:
    ended = tunesmith("check", place / "recipe.yaml", "--set", setting)
    assert ended.code == 2 and f"{setting.partition('=')[0]}: this task has no use for it" in ended.err


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("mix_alpha: 2.0", "task.mix_alpha: does nothing where mix is off"),
        ("threshold: 0.5", "task.threshold: does nothing where the target is label"),
        ("crop: 0", "task.crop"),
        ("mix: cutout", "task.mix"),
    ],
)
def test_settings_that_cannot_act_are_refused(place: Path, tunesmith: Command, task: str, said: str) -> None:
    file = place / "odd.yaml"
    text = (place / "recipe.yaml").read_text()
    file.write_text(text.replace("task: image-classification", f"task: {{kind: image-classification, {task}}}"))
    ended = tunesmith("check", file)
    assert ended.code == 2 and said in ended.err and "odd.yaml:2" in ended.err


@pytest.mark.slow
def test_a_memory_budget_is_measured_on_images(place: Path, tunesmith: Command) -> None:
    done = tunesmith(
        "run", place / "recipe.yaml", "--set", "deploy.memory_mb=100000", "--set", "deploy.latency_ms=100000",
        "--set", f"output={place / 'budget'}", "--set", "train.steps=1", "--set", "judge.baselines=off", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    budgets = {budget["key"]: budget for budget in done.json["verdict"]["budgets"]}
    assert budgets["deploy.memory_mb"]["kept"] and budgets["deploy.memory_mb"]["measured"] > 100
    assert budgets["deploy.latency_ms"]["kept"]
