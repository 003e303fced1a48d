"""Recipes as people write them: what is accepted, and how every fault is named with its place."""

from __future__ import annotations

import functools
import math
import random
import re
import string
import time
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe, methods
from tunesmith.recipe.reading import (
    SCHEMA_FILE,
    check_recipe,
    parse_yaml,
    read_recipe,
    scalar,
    schema,
    to_yaml,
    write_recipe,
)

GOOD = "model: package:x\ndata: {train: rows.jsonl}\n"
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("recipe*.yaml"))


def read(text: str, overrides: tuple[str, ...] = ()) -> Recipe:
    from tunesmith.recipe.reading import apply_override

    located = parse_yaml(text, "r.yaml")
    for override in overrides:
        apply_override(located, override)
    return check_recipe(located)


def faults_of(text: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read(text, overrides)
    assert caught.value.exit_code == 2
    return [str(fault) for fault in caught.value.faults]


# (text, the start of the only fault, a part of it)
BAD: dict[str, tuple[str, str, str]] = {
    # typos of keys
    "top key": (GOOD + "metod: lora\n", "r.yaml:3:1: metod: no such setting", 'did you mean "method"?'),
    "data key": ("model: m\ndata: {train: a, tset: b}\n", "r.yaml:2:18: data.tset", 'did you mean "test"?'),
    "train key": (GOOD + "train:\n  epocs: 3\n", "r.yaml:4:3: train.epocs", 'did you mean "epochs"?'),
    "judge key": (GOOD + "judge: {mingain: 0}\n", "r.yaml:3:9: judge.mingain", 'did you mean "min_gain"?'),
    "machine key": (GOOD + "machine: {thread: 1}\n", "r.yaml:3:11: machine.thread", 'did you mean "threads"?'),
    "method key": (GOOD + "method: {kind: lora, rnak: 8}\n", "r.yaml:3:22: method.rnak", 'did you mean "rank"?'),
    "a task's name that is no name": (
        "model: m\ntasks:\n  my intent: {data: {train: a}}\n  b: {data: {train: b}}\n",
        "r.yaml:3:3: tasks.my intent: 'my intent' is not a plain name",
        "write my-intent",
    ),
    "key of another kind": (GOOD + "method: {kind: head, rank: 8}\n", "r.yaml:3:22: method.rank", "no such setting"),
    "key of another section": (GOOD + "epochs: 3\n", "r.yaml:3:1: epochs", 'did you mean "train.epochs"?'),
    "misspelt, elsewhere": (GOOD + "lerning_rate: 1\n", "r.yaml:3:1: lerning_rate", 'mean "train.learning_rate"?'),
    "camel case": (GOOD + "train: {batchSize: 4}\n", "r.yaml:3:9: train.batchSize", 'did you mean "batch_size"?'),
    "dashes": (GOOD + "train: {batch-size: 4}\n", "r.yaml:3:9: train.batch-size", 'did you mean "batch_size"?'),
    "nothing near": (GOOD + "xyzzy: 1\n", "r.yaml:3:1: xyzzy: no such setting", "there are: model, stages, task"),
    "merge key": (GOOD + "<<: {seed: 1}\n", "r.yaml:3:1: <<: no such setting", ""),
    # kinds
    "unknown method": (GOOD + "method: lorra\n", "r.yaml:3:1: method: no such kind 'lorra'", 'did you mean "lora"?'),
    "unknown method kind": (GOOD + "method: {kind: adapter}\n", "r.yaml:3:1: method: no such kind", "there are: full"),
    "unknown task": (GOOD + "task: text-clasification\n", "r.yaml:3:1: task", "text-classification"),
    "method without kind": (GOOD + "method: {rank: 8}\n", "r.yaml:3:1: method: `kind` is missing", "method: lora"),
    # wrong types
    "epochs a word": (GOOD + "train: {epochs: many}\n", "r.yaml:3:9: train.epochs: 'many' is not", "number"),
    "batch a fraction": (GOOD + "train: {batch_size: 1.5}\n", "r.yaml:3:9: train.batch_size: 1.5 is not", "integer"),
    "refit a word": (GOOD + "train: {refit: maybe}\n", "r.yaml:3:9: train.refit: 'maybe' is not", "boolean"),
    "NO is a word": (GOOD + "judge: {baselines: NO}\n", "r.yaml:3:9: judge.baselines: 'NO' is not", ""),
    "model a number": ("model: 3\ndata: {train: a}\n", "r.yaml:1:1: model: 3 is not", "string"),
    "model null": ("model:\ndata: {train: a}\n", "r.yaml:1:1: model: None is not", "string"),
    "model a list": ("model: [a]\ndata: {train: a}\n", "r.yaml:1:1: model: ['a'] is not", "string"),
    "data a word": ("model: m\ndata: rows.jsonl\n", "r.yaml:2:1: data: 'rows.jsonl' is not", ""),
    "train a list": (GOOD + "train: [1]\n", "r.yaml:3:1: train: [1] is not", ""),
    "method a number": (GOOD + "method: 5\n", "r.yaml:3:1: method", ""),
    "method a list": (GOOD + "method: [lora]\n", "r.yaml:3:1: method", ""),
    "columns a list": ("model: m\ndata: {train: a, columns: [b]}\n", "r.yaml:2:18: data.columns: ['b'] is not", ""),
    "a column a number": ("model: m\ndata: {train: a, columns: {text: 3}}\n", "r.yaml:2:28: data.columns.text", ""),
    "seed a fraction": (GOOD + "seed: 0.5\n", "r.yaml:3:1: seed: 0.5 is not", "integer"),
    "seed true": (GOOD + "seed: true\n", "r.yaml:3:1: seed: True is not", ""),
    "octal": (GOOD + "seed: 0o17\n", "r.yaml:3:1: seed: '0o17' is not", "integer"),
    # out of range
    "epochs 0": (GOOD + "train: {epochs: 0}\n", "r.yaml:3:9: train.epochs: 0 is not greater than 0", ""),
    "epochs -1": (GOOD + "train: {epochs: -1}\n", "r.yaml:3:9: train.epochs: -1 is not", "greater than 0"),
    "steps 0": (GOOD + "train: {steps: 0}\n", "r.yaml:3:9: train.steps: 0 is not", "greater than or equal to 1"),
    "batch huge": (GOOD + "train: {batch_size: 1e9}\n", "r.yaml:3:9: train.batch_size", ""),
    "validation 1.0": ("model: m\ndata: {train: a, validation: 1.0}\n", "r.yaml:2:18: data.validation: 1.0", "less"),
    "warm-up 2": (GOOD + "train: {warmup_ratio: 2}\n", "r.yaml:3:9: train.warmup_ratio: 2 is not less than 1", ""),
    "rate inf": (GOOD + "train: {learning_rate: .inf}\n", "r.yaml:3:9: train.learning_rate", ""),
    "rate nan": (GOOD + "train: {learning_rate: .nan}\n", "r.yaml:3:9: train.learning_rate", ""),
    "rate 1e999": (GOOD + "train: {learning_rate: 1e999}\n", "r.yaml:3:9: train.learning_rate", ""),
    "seed -1": (GOOD + "seed: -1\n", "r.yaml:3:1: seed: -1 is not", "greater than or equal to 0"),
    "seed 2**63": (GOOD + f"seed: {2**63}\n", "r.yaml:3:1: seed", "less than"),
    "a number of 500 digits": (GOOD + f"seed: {'9' * 500}\n", "r.yaml:3:1: seed", ""),
    "unknown precision": (GOOD + "train: {precision: fp8}\n", "r.yaml:3:9: train.precision: 'fp8' is not", "'fp32'"),
    "unknown baseline": (
        GOOD + "judge: {baselines: [magic]}\n",
        "r.yaml:3:21: judge.baselines.0: 'magic' is not",
        "tfidf",
    ),
    "unknown metric": (GOOD + "judge: {primary: bleu}\n", "r.yaml:3:9: judge.primary", "accuracy, macro_f1"),
    # missing
    "no model": ("data: {train: a}\n", "r.yaml:1:1: model: missing", "add it"),
    "no data": ("model: m\n", "r.yaml:1:1: data: missing", "add it"),
    "no train": ("model: m\ndata: {test: a}\n", "r.yaml:2:1: data.train: missing", "add it"),
    "empty model": ("model: ''\ndata: {train: a}\n", "r.yaml:1:1: model", ""),
    # YAML itself
    "empty": ("", "r.yaml: the recipe is empty", "`model:`"),
    "comments only": ("# nothing\n", "r.yaml: the recipe is empty", ""),
    "a list": ("- model: m\n", "r.yaml:1:1: a recipe is a mapping", ""),
    "a word": ("model\n", "r.yaml:1:1: a recipe is a mapping", ""),
    "key twice": (GOOD + "seed: 1\nseed: 2\n", "r.yaml:4:1: seed: this key is given twice", "keep one"),
    "inner key twice": (GOOD + "train: {epochs: 1, epochs: 2}\n", "r.yaml:3:20: train.epochs: this key", ""),
    "a key that is a list": (GOOD + "[a, b]: 1\n", "r.yaml:3:1: a key must be a plain word", ""),
    "own tag": (GOOD + "seed: !now 1\n", "r.yaml:3:7: tags", "remove it"),
    "python tag": (GOOD + "output: !!python/object/apply:os.system [ls]\n", "r.yaml:3:9: tags", "remove it"),
    "python name tag": (GOOD + "output: !!python/name:os.system\n", "r.yaml:3:9: tags", "remove it"),
    "binary tag": (GOOD + "output: !!binary aGk=\n", "r.yaml:3:9: tags", "remove it"),
    "str tag": (GOOD + "output: !!str 5\n", "r.yaml:3:9: tags", "remove it"),
    "alias": (GOOD + "output: *a\n", "r.yaml:3:9: aliases", "write the value out"),
    "anchor alone": (GOOD + "seed: &a 1\n", "r.yaml:3:7: ", "anchor"),
    "tab": (GOOD + "train:\n\tepochs: 1\n", "r.yaml:4:1: not valid YAML", "indent with spaces"),
    "unclosed": (GOOD + "train: {epochs: 1\n", "r.yaml:4:1: not valid YAML", ""),
    "unclosed quote": (GOOD + "output: 'x\n", "r.yaml:", "not valid YAML"),
    "bad indent": (GOOD + "train:\n    epochs: 1\n  steps: 2\n", "r.yaml:5:3: not valid YAML", ""),
    "two documents": (GOOD + "---\nseed: 1\n", "r.yaml:3:1: not valid YAML", ""),
    "NUL": (GOOD + "output: a\0b\n", "r.yaml", "not valid YAML"),
    "no space": ("model:m\ndata: {train: a}\n", "r.yaml:2:5: not valid YAML", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe_is_named_with_its_place(name: str) -> None:
    text, start, part = BAD[name]
    faults = faults_of(text)
    assert faults[0].startswith(start) and part in faults[0], faults
    lines = {fault.split(":")[1] for fault in faults}
    assert len(lines) == 1, "one fault is not told as faults of several lines"


def test_there_are_forty_bad_recipes() -> None:
    assert len(BAD) >= 40


def test_three_faults_are_named_in_one_go() -> None:
    text = "model: m\ndata: {train: a, tset: b}\nmethod: {kind: lora, rnak: 8}\ntrain:\n  epochs: many\n"
    faults = faults_of(text)
    assert len(faults) == 3
    assert [fault.partition(": ")[0] for fault in faults] == ["r.yaml:2:18", "r.yaml:3:22", "r.yaml:5:3"]


def test_faults_of_yaml_and_of_settings_come_together() -> None:
    faults = faults_of(GOOD + "seed: 1\nseed: 2\nmetod: x\noutput: !x y\n")
    assert {fault.partition(": ")[0] for fault in faults} >= {"r.yaml:4:1", "r.yaml:5:1", "r.yaml:6:9"}


@pytest.mark.parametrize(("deep", "end"), [("[", "]"), ("{a: ", "}")])
@pytest.mark.parametrize("depth", [60, 400, 1_500])
@pytest.mark.timeout(30)
def test_deep_nesting_is_refused_in_time(deep: str, end: str, depth: int) -> None:
    began = time.process_time()
    assert "nested deeper" in faults_of(GOOD + "output: " + deep * depth + end * depth + "\n")[0]
    assert time.process_time() - began < 2


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text(GOOD + "output: '" + "x" * 1_000_000 + "'\n")
    began = time.process_time()
    with pytest.raises(RecipeError, match="larger than 1,000,000 bytes"):
        read_recipe(file)
    assert time.process_time() - began < 2


def test_a_billion_laughs_are_refused_at_the_first() -> None:
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    bomb = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}, *{old}]\n" for old, new in pairs)
    assert re.search("aliases|anchors", faults_of(GOOD + bomb)[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00\x00", "not UTF-8"),
        (b"model: \xff\n", "not UTF-8 text (byte 7)"),
        (GOOD.encode("utf-16"), "not UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(said)):
        read_recipe(tmp_path / "r.yaml")


def test_a_byte_order_mark_and_carriage_returns_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + (GOOD + "seed: 3\n").replace("\n", "\r\n").encode())
    assert read_recipe(tmp_path / "r.yaml").seed == 3


def test_no_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="this is a folder"):
        read_recipe(tmp_path)


# values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("3E5", 3e5), ("1.", 1.0), (".5", 0.5), ("-2", -2), ("+2", 2), ("1_000", 1000), ("1_0.5", 10.5),
        ("010", 10), ("0x1F", "0x1F"), ("0o17", "0o17"), ("1:30", "1:30"), ("NO", "NO"), ("no", "no"), ("yes", "yes"),
        ("on", "on"), ("off", "off"), ("Y", "Y"), ("true", True), ("False", False), ("~", None), ("null", None),
        ("", None), ("2024-01-01", "2024-01-01"), ("1e", "1e"), ("e4", "e4"), (".", "."), ("1.2.3", "1.2.3"),
        ("-", "-"), ("_1", "_1"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert scalar(text) == value and type(scalar(text)) is type(value)


def test_infinite_and_undefined_numbers_never_pass() -> None:
    assert math.isnan(scalar(".nan")) and math.isnan(scalar(".inf"))


def test_1e_4_is_a_number_and_quoted_numbers_are_text() -> None:
    recipe = read(GOOD + "train: {learning_rate: 1e-4}\noutput: '5'\n")
    assert recipe.train.learning_rate == 1e-4
    assert recipe.output == "5"


def test_a_method_by_name_alone_is_its_kind() -> None:
    assert read(GOOD + "method: lora\n").method == read(GOOD + "method: {kind: lora}\n").method


# suggestions


def one_edit(name: str, source: random.Random) -> str:
    """A name with one letter left out, doubled, changed, added, or swapped with the next."""
    at, letter = source.randrange(len(name)), source.choice(string.ascii_lowercase)
    edits = {
        "left out": name[:at] + name[at + 1 :],
        "doubled": name[: at + 1] + name[at:],
        "changed": name[:at] + letter + name[at + 1 :],
        "added": name[:at] + letter + name[at:],
        "swapped": name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
    }
    return edits[source.choice(list(edits))]


def settings_of_recipes() -> list[tuple[str, str]]:
    """Every setting as (how its section is written, its name)."""
    named = [("", name) for name in Recipe.model_fields]
    for section in ("data", "train", "judge", "machine"):
        named += [(section, name) for name in Recipe.model_fields[section].annotation.model_fields]
    for kind, settings in methods.KINDS.items():
        named += [(f"method {kind}", name) for name in settings.model_fields if name != "kind"]
    return named


def with_typo(section: str, typo: str) -> str:
    if not section:
        return GOOD + f"{typo}: 1\n"
    if section == "data":
        return f"model: m\ndata: {{train: a, {typo}: 1}}\n"
    if section.startswith("method"):
        return GOOD + f"method: {{kind: {section.split()[1]}, {typo}: 1}}\n"
    return GOOD + f"{section}: {{{typo}: 1}}\n"


def test_of_300_typos_at_least_95_percent_get_the_right_suggestion() -> None:
    source = random.Random(20)
    everything = settings_of_recipes()
    known = {name for _, name in everything}
    wrong = []
    tried = 0
    while tried < 300:
        section, name = source.choice(everything)
        typo = one_edit(name, source)
        if not typo or typo in known:
            continue
        tried += 1
        fault = faults_of(with_typo(section, typo))[0]
        if f'did you mean "{name}"?' not in fault:
            wrong.append((section, name, typo, fault))
    assert len(wrong) <= 15, wrong


# schema


def test_the_shipped_schema_is_the_one_the_settings_make() -> None:
    import orjson

    assert orjson.loads(SCHEMA_FILE.read_bytes()) == schema(), "run `python -m tunesmith.recipe.reading`"


@functools.cache
def validator() -> Any:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_the_schema_takes_the_examples(file: Path) -> None:
    read_recipe(file)
    assert not list(validator().iter_errors(parse_yaml(file.read_text(), str(file)).values))


@pytest.mark.parametrize(
    "name",
    [
        "top key", "data key", "train key", "judge key", "machine key", "epochs a word", "batch a fraction",
        "refit a word", "model a number", "data a word", "epochs 0", "seed -1", "unknown precision", "no model",
        "no data", "unknown method", "unknown baseline",
    ],
)  # fmt: skip
def test_an_editor_finds_by_the_schema_what_the_reader_finds(name: str) -> None:
    assert list(validator().iter_errors(parse_yaml(BAD[name][0], "r.yaml").values))
    assert not list(validator().iter_errors(parse_yaml(GOOD, "r.yaml").values))


# --set


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=7", "seed", 7),
        ("train.epochs=2.5", "train.epochs", 2.5),
        ("train.learning_rate=1e-4", "train.learning_rate", 1e-4),
        ("train.steps=null", "train.steps", None),
        ("train.early_stopping_patience=", "train.early_stopping_patience", None),
        ("judge.baselines=[majority, tfidf]", "judge.baselines", ["majority", "tfidf"]),
        ("judge.baselines=off", "judge.baselines", "off"),
        ("method=lora", "method.kind", "lora"),
        ("method.kind=lora", "method.kind", "lora"),
        ("method={kind: lora, rank: 4}", "method.rank", 4),
        ("data.columns.text=body", "data.columns", {"text": "body"}),
        ("data.columns={text: body}", "data.columns", {"text": "body"}),
        ("output=a=b", "output", "a=b"),
        (" train.epochs =3", "train.epochs", 3),
        ("output='1e-4'", "output", "1e-4"),
        ("train.refit=true", "train.refit", True),
        ("data.test=null", "data.test", None),
    ],
)
def test_set_reaches_every_setting(override: str, key: str, value: Any) -> None:
    found: Any = read(GOOD, (override,))
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_set_changes_one_setting_of_a_kind_given_by_name() -> None:
    recipe = read(GOOD + "method: lora\n", ("method.rank=2",))
    assert recipe.method.kind == "lora" and recipe.method.rank == 2


def test_set_of_another_kind_drops_the_settings_of_the_first() -> None:
    assert read(GOOD + "method: {kind: lora, rank: 4}\n", ("method.kind=head",)).method.kind == "head"
    assert read(GOOD + "method: {kind: lora, rank: 4}\n", ("method.kind=lora",)).method.rank == 4


def test_the_last_set_counts() -> None:
    assert read(GOOD, ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "not of the form key=value"),
        ("=1", "not of the form key=value"),
        ("a..b=1", "not of the form key=value"),
        (".seed=1", "not of the form key=value"),
        ("sede=1", 'did you mean "seed"?'),
        ("train.epcohs=1", 'did you mean "epochs"?'),
        ("train.epochs=many", "train.epochs: 'many' is not"),
        ("train.epochs={", "not valid YAML"),
        ("method={kind: lora, rank: 1, rank: 2}", "given twice"),
        ("output=!!python/name:os.system", "tags"),
        ("output=!now x", "tags"),
        ("output=*a", "aliases"),
        ("seed.deeper=1", "seed"),
    ],
)
def test_a_bad_set_names_itself(override: str, said: str) -> None:
    faults = faults_of(GOOD, (override,))
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"--set {override}") and said in faults[0]


def test_faults_of_file_and_set_come_together() -> None:
    faults = faults_of(GOOD + "metod: x\n", ("train.epochs=many", "seed"))
    assert len(faults) == 3


# paths and round trip


def test_paths_are_seen_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "r.yaml").write_text("model: ../base\ndata: {train: ../rows.jsonl, test: /abs/t.jsonl}\n")
    recipe = read_recipe(tmp_path / "deep" / "r.yaml")
    assert recipe.data.train == str(tmp_path / "rows.jsonl") and recipe.data.test == "/abs/t.jsonl"
    assert recipe.model == str(tmp_path / "base")
    assert recipe.output == str(tmp_path / "deep" / "runs" / "r")


def test_a_recipe_called_recipe_is_named_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(GOOD)
    assert read_recipe(tmp_path / "recipe.yaml").output == str(tmp_path / "runs" / tmp_path.name)


@pytest.mark.parametrize(
    "extra",
    ["", "method: {kind: lora, rank: 3, target_modules: [query]}\n", "data2: 0\n", "output: './NO'\nseed: 5\n"],
)
def test_a_recipe_written_and_read_is_the_same(tmp_path: Path, extra: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD + extra.replace("data2: 0", "train: {max_grad_norm: null, learning_rate: 1e-4}"))
    recipe = read_recipe(file)
    write_recipe(recipe, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml").but(output="x") == recipe.but(output="x")


@pytest.mark.parametrize(
    "text",
    [
        "NO",
        "1e-4",
        "null",
        "true",
        "~",
        "a: b",
        "# x",
        "'",
        '"',
        "é\u2028x",
        "- a",
        "5",
        "",
        " pad ",
        "a\nb",
        "!x",
        "*a",
    ],
)
def test_any_text_survives_writing_and_reading(text: str) -> None:
    values = {"model": text, "data": {"train": text}}
    assert parse_yaml(to_yaml(values), "r.yaml").values == values
