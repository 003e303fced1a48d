"""`new`: what it sees in files, what it writes, and that `run` takes it as it stands."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from shell import Command

import tiny
from tunesmith.choices import choose_method
from tunesmith.recipe.reading import read_recipe

ROWS = tiny.make_rows(60)
SEEN: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "our own names": (ROWS, {"target": "label", "columns": {}}),
    "names of one's own": (
        [{"id": i, "queue": row["label"], "body text": row["text"]} for i, row in enumerate(ROWS)],
        {"target": "label", "columns": {"text": "body text", "label": "queue"}},
    ),
    "a pair and a number": (
        [{"sentence1": row["text"], "sentence2": "card", "score": i / 7} for i, row in enumerate(ROWS)],
        {"target": "score", "columns": {"text": "sentence1", "text_pair": "sentence2"}},
    ),
    "a pair, a label and a number": (
        [{"premise": row["text"], "hypothesis": "card", "score": 0.5, "label": row["label"]} for row in ROWS],
        {"target": "label", "columns": {"text": "premise", "text_pair": "hypothesis"}},
    ),
    "lists of labels": (
        [{"comment": row["text"], "marks": [row["label"]]} for row in ROWS],
        {"target": "labels", "columns": {"text": "comment", "labels": "marks"}},
    ),
    "a taxonomy": (
        [{"text": row["text"], "label": "ab"[i % 2], "fine": "abcd"[i % 2] + str(i % 4)} for i, row in enumerate(ROWS)],
        {"target": "path", "columns": {"label": "label/fine"}},
    ),
    "texts alone": (
        [{"id": i, "text": f"{row['text']} " * 20} for i, row in enumerate(ROWS)],
        {"kind": "language-modeling", "target": "language", "columns": {}},
    ),
    "texts and their partners": (
        [{"query": f"{i} {row['text']}", "positive": f"my {row['text']}"} for i, row in enumerate(ROWS)],
        {"kind": "sentence-similarity", "target": "positive", "columns": {"anchor": "query"}},
    ),
    "triplets": (
        [{"anchor": f"{i} {row['text']}", "pos": f"my {row['text']}", "neg": f"no {i}"} for i, row in enumerate(ROWS)],
        {"kind": "sentence-similarity", "target": "triplet", "columns": {"positive": "pos", "negative": "neg"}},
    ),
    "whole numbers as classes": (
        [{"text": row["text"], "label": i % 2} for i, row in enumerate(ROWS)],
        {"target": "label", "columns": {}},
    ),
}


@pytest.mark.parametrize("beside", ["whole", "split"])
def test_folders_of_images_are_recognised(tunesmith: Command, tmp_path: Path, beside: str) -> None:
    """Class folders, alone or in train, validation and test beside each other; the recipe reads them as they are."""
    from tunesmith.data.material import read_material

    splits = ("train", "validation", "test") if beside == "split" else (".",)
    for seed, split in enumerate(splits):
        tiny.make_pictures(tmp_path / "photos" / split, 12, seed=seed)
    done = tunesmith("new", tmp_path / "photos", "-o", tmp_path / "recipe.yaml")
    assert done.code == 0, done.err
    assert "one of 3 labels for each image" in done.out
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert recipe.task.kind == "image-classification" and recipe.train.max_length == "auto"
    named = {split: getattr(recipe.data, split) for split in ("train", "validation", "test")}
    if beside == "split":
        assert {split: Path(name) for split, name in named.items()} == {
            split: tmp_path / "photos" / split for split in splits
        }
    else:
        assert (Path(named["train"]), named["validation"], named["test"]) == (tmp_path / "photos", 0.1, 0.2)
    found = read_material(recipe)
    assert found.task.target == "label" and {row["label"] for row in found.splits.train} == set(tiny.LABELS)


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_validation_rows_that_are_learned_choose_nothing(tunesmith: Command, tmp_path: Path, share: float) -> None:
    """A validation file beside, most of which stands in train, is left alone; named by the user it is taken."""
    rows = [{"text": f"Row number {number} of them all", "label": "ab"[number % 2]} for number in range(100)]
    held = [*rows[: int(50 * share)], *({**row, "text": f"held {row['text']}"} for row in rows[int(50 * share) : 50])]
    for name, some in (("train", rows), ("validation", held)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    assert tunesmith("new", tmp_path, "-o", recipe).code == 0
    found = read_recipe(recipe).data.validation
    assert found == (str(tmp_path / "validation.jsonl") if share < 0.5 else 0.1)
    told = "of the 50 rows in validation.jsonl 30 are in train, too"
    assert (told in recipe.read_text(encoding="utf-8")) == (share > 0.5)
    recipe.unlink()
    assert tunesmith("new", tmp_path, "--validation", tmp_path / "validation.jsonl", "-o", recipe).code == 0
    assert read_recipe(recipe).data.validation == str(tmp_path / "validation.jsonl")


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ({"text": ""}, {"sentence": "of another column {}"}),  # a cell that is missing is no row that was learned
        ({"text": "one {}"}, {"text": ["a", None, 3]}),
        ({"tokens": ["of", "{}"], "tags": ["O", "B-X"]}, {"tokens": ["a", None, 3], "tags": ["O", "O", "O"]}),
        ({"anchor": "the same", "positive": "one {}"}, {"anchor": "the same", "positive": "another {}"}),
        ({"text": "one {}"}, None),
    ],
)
def test_validation_rows_of_any_kind_are_taken_for_unseen(
    tunesmith: Command, tmp_path: Path, train: dict, held: dict | None
) -> None:
    """Whatever its cells are, a file beside whose rows are not in train stays; so does one that cannot be read."""

    def row(pattern: dict, number: int) -> dict:
        filled = json.loads(json.dumps(pattern).replace("{}", f"word{number}"))
        return filled if len(filled) > 1 else {**filled, "label": number % 2}

    plain = {"text": "one {}"} if "text" in train else train
    rows = [row(plain, number) for number in range(60)] + [row(train, number) for number in range(60, 62)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    beside = tmp_path / ("validation.jsonl" if held else "validation.parquet")
    beside.write_text("".join(json.dumps(row(held or {}, number)) + "\n" for number in range(70, 90)) if held else "no")
    done = tunesmith("new", tmp_path, "-o", tmp_path / "recipe.yaml")
    assert done.code == 0, done.err
    assert read_recipe(tmp_path / "recipe.yaml").data.validation == str(beside)


def test_files_that_name_images_are_recognised(tunesmith: Command, tmp_path: Path) -> None:
    paths = tiny.make_pictures(tmp_path / "photos", 24)
    rows = [
        {"id": i, "file_name": str(path.relative_to(tmp_path)), "age": i + 0.5, "caption": "a photo of something"}
        for i, path in enumerate(paths)
    ]
    tiny.write_rows(tmp_path / "rows.jsonl", rows)
    done = tunesmith("new", tmp_path / "rows.jsonl", "-o", tmp_path / "recipe.yaml")
    assert done.code == 0, done.err
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert recipe.task.kind == "image-classification" and recipe.data.columns == {
        "image": "file_name",
        "score": "age",
    }
    assert "a number for each image" in done.out


@pytest.mark.parametrize("name", SEEN)
def test_task_and_columns_are_recognised(tunesmith: Command, tmp_path: Path, name: str) -> None:
    rows, wanted = SEEN[name]
    tiny.write_rows(tmp_path / "data" / "train.jsonl", rows)
    tiny.write_rows(tmp_path / "data" / "test.jsonl", rows[:6])
    done = tunesmith("new", tmp_path / "data", "-o", tmp_path / "recipe.yaml")
    assert done.code == 0, done.err
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert recipe.data.columns == wanted["columns"]
    assert recipe.task.kind == wanted.get("kind", "text-classification")
    assert recipe.task.settled(list(rows[0]), recipe.data.columns).target == wanted["target"]
    assert Path(str(recipe.data.test)).resolve() == tmp_path / "data" / "test.jsonl"
    assert recipe.output.endswith("runs/data")
    assert "#" in done.out and f"tunesmith run {tmp_path / 'recipe.yaml'}" in done.out


@pytest.mark.parametrize("name", ["validation.jsonl", "train"])
def test_a_run_is_called_after_its_data_not_after_a_split(tunesmith: Command, tmp_path: Path, name: str) -> None:
    rows = tiny.write_rows(tmp_path / "notes" / "validation.jsonl", ROWS)
    tiny.make_pictures(tmp_path / "notes" / "train", 6)
    done = tunesmith("new", rows.parent / name, "-o", tmp_path / "recipe.yaml")
    assert done.code == 0 and read_recipe(tmp_path / "recipe.yaml").output.endswith("runs/notes"), done.err


PAIRS = [(f"{row['text']} and then some more words", f"{row['text']}!") for row in ROWS]
WRITTEN: dict[str, tuple[list[dict[str, Any]], str, dict[str, str]]] = {
    "summaries in lists": (
        [{"id": f"a{i}", "document": f"{one} " * 4, "summaries": [other, "a"]} for i, (one, other) in enumerate(PAIRS)],
        "summarization",
        {"source": "document", "target": "summaries"},
    ),
    "short targets": (
        [{"source": f"{long} " * 5, "target": text} for long, text in PAIRS], "summarization", {}
    ),
    "language codes": (
        [{"id": f"a{i}", "en": long, "lug": text} for i, (long, text) in enumerate(PAIRS)],
        "translation",
        {"source": "en", "target": "lug"},
    ),
    "pairs of equal length": ([{"source": long, "target": text} for long, text in PAIRS], "translation", {}),
    "a headline beside a label": (
        [{**row, "text": f"{row['text']} " * 9, "summary": f"{row['text']} {i}"} for i, row in enumerate(ROWS)],
        "text-classification",
        {},
    ),
    "a label called target": (
        [{"text": row["text"], "target": row["label"]} for row in ROWS], "text-classification", {"label": "target"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_texts_to_write_are_told_from_labels(tunesmith: Command, tmp_path: Path, name: str, tiny_base: Path) -> None:
    rows, kind, columns = WRITTEN[name]
    tiny.write_rows(tmp_path / "data" / "train.jsonl", rows)
    done = tunesmith("new", tmp_path / "data", "-o", tmp_path / "recipe.yaml", "--model", tiny_base)
    assert done.code == 0, done.err
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert (recipe.task.kind, recipe.data.columns) == (kind, columns)


def test_a_recipe_for_translations_runs(tunesmith: Command, tmp_path: Path, writers: Any) -> None:
    """By `new` and `run`, then answered in the field's shape."""
    pairs = [{"en": row["source"], "de": row["target"][0]} for row in tiny.make_reversals(60)]
    tiny.write_rows(tmp_path / "pairs.jsonl", pairs)
    done = tunesmith("new", tmp_path / "pairs.jsonl", "-o", tmp_path / "recipe.yaml", "--model", writers("llama"))
    assert done.code == 0 and "English to German" in done.out, done.err
    ran = tunesmith("run", tmp_path / "recipe.yaml", "--json", "--set", "machine.threads=1", "--set", "train.steps=4")
    assert ran.code == 0, ran.err
    assert ran.json["verdict"]["ship"] in (True, False) and ran.json["verdict"]["metric"] == "chrf"
    told = tunesmith("predict", ran.json["run"], "card bank fee", "--json")
    assert told.code == 0 and set(told.json["answers"][0]) == {"translation_text"}
    assert tunesmith("predict", ran.json["run"], "card bank fee").code == 0


def test_from_a_csv_to_a_judged_model_in_two_commands(tunesmith: Command, tmp_path: Path, tiny_base: Path) -> None:
    """A table of one's own, in the words of its owner: `new`, then `run`, and a verdict stands."""
    lines = ["ticket,queue", *(f'"{row["text"]}, please",{row["label"]}' for row in ROWS)]
    (tmp_path / "tickets.csv").write_text("\n".join(lines))
    done = tunesmith("new", tmp_path / "tickets.csv", "-o", tmp_path / "recipe.yaml", "--model", tiny_base)
    assert done.code == 0, done.err
    ran = tunesmith("run", tmp_path / "recipe.yaml", "--json", "--set", "machine.threads=1", "--set", "train.steps=4")
    assert ran.code == 0, ran.err
    assert ran.json["verdict"]["ship"] in (True, False) and ran.json["verdict"]["split"] == "test"
    assert Path(ran.json["run"]).name == "tickets"


def test_json_gives_every_choice_with_its_reason(tunesmith: Command, tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "mail.jsonl", ROWS)
    done = tunesmith("new", tmp_path / "mail.jsonl", "-o", tmp_path / "r.yaml", "--json")
    choices = {choice["key"]: choice for choice in done.json["choices"]}
    assert {"model", "task", "data.train", "method", "train.epochs", "train.learning_rate"} <= set(choices)
    assert all(choice["why"] for key, choice in choices.items() if key != "seed")
    assert json.dumps(choices)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": f"text {i}"} for i in range(9)], "no column that could be learned"),
        ([{"id": i // 3, "text": f"text {i}"} for i in range(9)], "no column that could be learned"),
        ([{"label": i} for i in range(9)], "no column of texts"),
        ([], "no rows"),
    ],
)
def test_what_cannot_be_learned_is_said(
    tunesmith: Command, tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    file = tiny.write_rows(tmp_path / "a.jsonl", rows)
    done = tunesmith("new", file, "-o", tmp_path / "r.yaml")
    assert done.code == 3 and said in done.err and "a.jsonl" in done.err
    assert not (tmp_path / "r.yaml").exists()


def test_a_recipe_that_is_there_is_not_overwritten(tunesmith: Command, tmp_path: Path) -> None:
    file = tiny.write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "r.yaml").write_text("mine")
    done = tunesmith("new", file, "-o", tmp_path / "r.yaml")
    assert done.code == 2 and "exists" in done.err
    assert (tmp_path / "r.yaml").read_text() == "mine"
    assert tunesmith("new", tmp_path / "none", "-o", tmp_path / "s.yaml").code == 3
    (tmp_path / "empty").mkdir()
    done = tunesmith("new", tmp_path / "empty", "-o", tmp_path / "s.yaml")
    assert done.code == 3 and "no training file" in done.err


def test_the_method_follows_rows_size_and_memory() -> None:
    assert choose_method(60, 22e6)[0] == "head"
    assert choose_method(300, 22e6)[0] == "last-layers"
    assert choose_method(3000, 22e6)[0] == "full"
    assert choose_method(3000, 110e6)[0] == "lora"
    assert choose_method(30000, 110e6)[0] == "full"
    assert choose_method(30000, 110e6, memory_bytes=2**30)[0] == "lora"
    assert choose_method(30000, 7e9)[0] == "lora"
    assert choose_method(30000, None)[0] == "lora"


def test_auto_method_becomes_one_that_is_written_down(tunesmith: Command, tmp_path: Path, tiny_base: Path) -> None:
    tiny.write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "r.yaml").write_text(f"model: {tiny_base}\ndata: {{train: a.jsonl}}\nmethod: auto\n")
    done = tunesmith("check", tmp_path / "r.yaml", "--json")
    assert done.code == 0, done.err
    (choice,) = [choice for choice in done.json["choices"] if choice["key"] == "method"]
    assert choice["value"] == "head" and "rows" in choice["why"]


def test_a_model_that_is_not_here_gets_its_rate_at_the_run(tunesmith: Command, tmp_path: Path, tiny_base: Path) -> None:
    """Of a hub id nothing is known without the network: no rate is guessed. A model that is here is looked at."""
    tiny.write_rows(tmp_path / "a.jsonl", [{**row, "text": row["text"] * 9} for row in tiny.make_rows(150)])
    done = tunesmith("new", tmp_path / "a.jsonl", "-o", tmp_path / "r.yaml", "--model", "some/large-model", "--json")
    choices = {choice["key"]: choice["value"] for choice in done.json["choices"]}
    assert (choices["train.learning_rate"], choices["method"]) == ("auto", "lora")
    done = tunesmith("new", tmp_path / "a.jsonl", "-o", tmp_path / "s.yaml", "--model", tiny_base, "--json")
    choices = {choice["key"]: choice["value"] for choice in done.json["choices"]}
    assert isinstance(choices["train.learning_rate"], float)
    assert choices["train.long_text"] == "windows", "this model takes 66 tokens"


HEADERLESS = {
    "a label that comes again": [[f"{row['text']}, please", row["label"]] for row in ROWS],
    "a sentence above sentences": [
        ["My new card has not come yet", "x"],
        *([row["text"], "ab"[i % 2]] for i, row in enumerate(ROWS)),
    ],
    "a number above numbers": [["A dog runs", "0.125"], *([row["text"], str(i / 7)] for i, row in enumerate(ROWS))],
}


@pytest.mark.parametrize("name", HEADERLESS)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_first_row_is_not_taken_for_names(tunesmith: Command, tmp_path: Path, name: str, ending: str) -> None:
    write_table(tmp_path / f"a.{ending}", HEADERLESS[name])
    done = tunesmith("new", tmp_path / f"a.{ending}", "-o", tmp_path / "r.yaml")
    assert done.code == 3 and "first row looks like a row" in done.err and "put a line" in done.err
    assert not (tmp_path / "r.yaml").exists()


NAMES = {
    "short names": ["mail", "queue"],
    "one of the labels": ["message", tiny.LABELS[0]],
    "a survey": ["How much do you like what you have bought from us?", "Which of our queues did you write to"],
    "numbers": ["0", "1"],
}


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_names(tunesmith: Command, tmp_path: Path, name: str) -> None:
    write_table(tmp_path / "a.csv", [NAMES[name], *([f"{row['text']}, please", row["label"]] for row in ROWS)])
    done = tunesmith("new", tmp_path / "a.csv", "-o", tmp_path / "r.yaml")
    assert done.code == 0, done.err
    assert list(read_recipe(tmp_path / "r.yaml").data.columns.values()) == NAMES[name]


def write_table(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)


@pytest.mark.parametrize(
    "column",
    ["queue\nseed: 7", "queue\r\nseed: 7", "queue\u2028seed: 7", "queue \x07", "a # b: c", " ".join(["queue"] * 60)],
)
def test_a_name_of_any_form_stays_in_its_place(tunesmith: Command, tmp_path: Path, column: str) -> None:
    rows = [{"mail": row["text"], column: row["label"]} for row in ROWS]
    done = tunesmith("new", tiny.write_rows(tmp_path / "a.jsonl", rows), "-o", tmp_path / "r.yaml")
    assert done.code == 0, done.err
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.seed == 0 and recipe.data.columns == {"text": "mail", "label": column}


def test_reasons_and_lists_of_columns_are_masked_and_short(tunesmith: Command, tmp_path: Path) -> None:
    address, long = "anna" + "@x.de", "k" * 5000
    rows = [{"mail": row["text"], address: row["label"], long: None} for row in ROWS]
    done = tunesmith("new", tiny.write_rows(tmp_path / "a.jsonl", rows), "-o", tmp_path / "r.yaml")
    reasons = [line.partition("  # ")[2] for line in (tmp_path / "r.yaml").read_text().splitlines()]
    assert done.code == 0 and not any(address in reason for reason in reasons)
    for number, rows in enumerate([[{address: 1, long: 2}], [{"text": "one", address: None, long: None}]]):
        done = tunesmith("new", tiny.write_rows(tmp_path / f"{number}.jsonl", rows), "-o", tmp_path / "s.yaml")
        assert done.code == 3 and address not in done.err and len(done.err) < 800


def test_texts_with_a_number_far_down_are_seen(tunesmith: Command, tmp_path: Path) -> None:
    rows = [{"mail": row["text"], "queue": row["label"]} for row in tiny.make_rows(1001)]
    rows[1000]["mail"] = 5
    done = tunesmith("new", tiny.write_rows(tmp_path / "a.jsonl", rows), "-o", tmp_path / "r.yaml")
    assert done.code == 0, done.err


@pytest.mark.parametrize("unsuitable", [None, "id"])
def test_the_recipe_learns_what_it_says(tunesmith: Command, tmp_path: Path, unsuitable: str | None) -> None:
    """A run takes `label` before `score`, unless the recipe names the score."""
    rows = [
        {"text": row["text"], "label": unsuitable and f"{unsuitable}{i}", "score": i / 7} for i, row in enumerate(ROWS)
    ]
    done = tunesmith("new", tiny.write_rows(tmp_path / "a.jsonl", rows), "-o", tmp_path / "r.yaml")
    assert done.code == 0 and "a number for each text" in done.out, done.err
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.task.settled(list(rows[0]), recipe.data.columns).target == "score"


def test_the_only_other_file_of_a_folder_is_trained_on(tunesmith: Command, tmp_path: Path) -> None:
    for name in ("cv_pool", "test"):
        tiny.write_rows(tmp_path / "data" / f"{name}.jsonl", ROWS)
    done = tunesmith("new", tmp_path / "data", "-o", tmp_path / "r.yaml")
    assert done.code == 0, done.err
    data = read_recipe(tmp_path / "r.yaml").data
    assert [Path(str(path)).name for path in (data.train, data.test)] == ["cv_pool.jsonl", "test.jsonl"]
    tiny.write_rows(tmp_path / "data" / "other.jsonl", ROWS)
    assert tunesmith("new", tmp_path / "data", "-o", tmp_path / "s.yaml").code == 3


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"\xff" * 64, (9).to_bytes(8, "little") + b'{"a": 1}', b"\2" + bytes(7) + b"[]"]
)
def test_torn_weights_are_told(tunesmith: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    file = tiny.write_rows(tmp_path / "a.jsonl", ROWS)
    done = tunesmith("new", file, "-o", tmp_path / "r.yaml", "--model", tmp_path / "model")
    assert done.code == 3 and "cannot be opened" in done.err and "model" in done.err
