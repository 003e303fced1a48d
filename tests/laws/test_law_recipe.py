"""A recipe survives being written and read, and `--set` is the same as writing it down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import RecipeError
from tunesmith.recipe import Full, Lora, Recipe, TextClassification
from tunesmith.recipe.contradictions import contradictions
from tunesmith.recipe.reading import (
    Located,
    apply_override,
    check_recipe,
    parse_yaml,
    read_recipe,
    scalar,
    to_yaml,
    write_recipe,
)

NUMBERLIKE = [
    "1e-4",
    ".5e3",
    "1_000",
    "1_",
    "0x1f",
    "0o7",
    "012",
    ".5",
    "5.",
    "+1",
    "-0",
    "12:30",
    "2026-11-22",
    "\u0663",
]
WORDLIKE = ["yes", "NO", "null", "~", "true", ".nan", ".inf", "", " ", "-", "?", "---", "é", "日本", "🙂"]
MARKED = ["a: b", "a #b", "# a", "'", '"', "- a", "{", "[a]", "*a", "&a", "!a", "%a", "|", ">", "@a", "`a`"]
BLANKS = ["a\nb", "\n", "a\n", "\ta", "a\rb", "a\x85b", "\u2028", "\ufeff", "\x00", "\x7f"]
TRICKY = st.sampled_from([*NUMBERLIKE, *WORDLIKE, *MARKED, *BLANKS])
TEXT = st.one_of(TRICKY, st.text(max_size=20))
SOME_TEXT = TEXT.filter(lambda text: len(text) >= 1)
COUNT = st.integers(1, 2**40)
SHARE = st.floats(0, 1, exclude_max=True)
AUTO = st.just("auto")


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


BASELINES = TextClassification().baselines

METHOD = st.one_of(
    st.sampled_from(["full", "head", "last-layers", "lora"]),
    st.fixed_dictionaries({"kind": st.just("last-layers"), "layers": COUNT}),
    st.fixed_dictionaries(
        {"kind": st.just("lora")},
        optional={
            "rank": COUNT,
            "alpha": st.one_of(AUTO, st.floats(0, 1e300, exclude_min=True)),
            "dropout": SHARE,
            "target_modules": st.one_of(AUTO, st.just("all-linear"), st.lists(TEXT, max_size=3)),
        },
    ),
)
TRAIN = optional(
    epochs=st.floats(0, 10_000, exclude_min=True),
    steps=st.one_of(st.none(), COUNT),
    batch_size=st.integers(1, 1_000_000),
    learning_rate=st.one_of(AUTO, st.floats(0, 10)),
    warmup_ratio=SHARE,
    lr_scheduler=st.sampled_from(["linear", "cosine", "constant"]),
    weight_decay=st.floats(0, 1),
    max_grad_norm=st.one_of(st.none(), st.floats(0, 1e300, exclude_min=True)),
    precision=st.sampled_from(["auto", "fp32", "bf16", "fp64"]),
    early_stopping_patience=st.one_of(st.none(), COUNT),
    max_length=st.one_of(AUTO, st.integers(4, 10_000_000)),
    evaluate_every=st.one_of(AUTO, COUNT),
    checkpoint_every=st.one_of(AUTO, COUNT),
    refit=st.booleans(),
)
DATA = st.fixed_dictionaries(
    {"train": TEXT},
    optional={
        "validation": st.one_of(SHARE, TEXT),
        "test": st.one_of(st.none(), TEXT, st.floats(0, 1, exclude_min=True, exclude_max=True)),
        "columns": st.dictionaries(TEXT, TEXT, max_size=3),
        "group": st.one_of(st.none(), TEXT),
        "on_bad_row": st.sampled_from(["stop", "skip"]),
        "limit": st.one_of(st.none(), COUNT),
    },
).filter(lambda data: not any(contradictions({"data": data}, str)))
JUDGE = optional(
    primary=st.sampled_from(["auto", "accuracy", "macro_f1"]),
    min_gain=st.floats(-1, 1),
    baselines=st.one_of(st.sampled_from(["auto", "off"]), st.lists(st.sampled_from(BASELINES), max_size=3)),
)
MACHINE = optional(
    device=st.sampled_from(["auto", "cpu", "cuda", "mps"]),
    processes=st.integers(1, 1024),
    threads=st.one_of(AUTO, COUNT),
    micro_batch_tokens=st.one_of(AUTO, COUNT),
)
RECIPES = st.fixed_dictionaries(
    {"model": SOME_TEXT, "data": DATA},
    optional={
        "task": st.just("text-classification"),
        "method": METHOD,
        "train": TRAIN,
        "judge": JUDGE,
        "machine": MACHINE,
        "seed": st.integers(0, 2**31 - 1),
        "output": TEXT,
    },
).map(Recipe.model_validate)


def read_text(text: str) -> Recipe:
    return check_recipe(parse_yaml(text, "recipe.yaml"))


@settings(max_examples=150, deadline=None)
@given(RECIPES)
def test_a_recipe_round_trips(recipe: Recipe) -> None:
    """Every recipe that settings allow is read back from its YAML equal, field by field and type by type."""
    again = read_text(to_yaml(recipe.model_dump(mode="json")))
    assert again == recipe
    assert again.model_dump_json() == recipe.model_dump_json()


FILE_NAMES = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="/\\~"), min_size=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(FILE_NAMES.filter(lambda name: name not in (".", "..")), min_size=3, max_size=3))
def test_a_written_recipe_can_move_with_its_data(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Paths in a written recipe are as seen from it: the file read back names the same places."""
    folder = tmp_path_factory.mktemp("recipes")
    values = {
        "model": "package:some",
        "data": {"train": names[0], "test": f"../{names[1]}"},
        "output": f"runs/{names[2]}",
    }
    recipe = Recipe.model_validate(values).anchored(folder)
    write_recipe(recipe, folder / "deep" / "recipe.yaml")
    assert read_recipe(folder / "deep" / "recipe.yaml") == recipe


SETTABLE = {
    "train": TRAIN,
    "judge": JUDGE,
    "machine": MACHINE,
    "data": DATA,
}


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_set_equals_the_file_having_it(data: st.DataObject) -> None:
    """`--set section.key=value` gives the recipe that the file gives with that line in it."""
    section = data.draw(st.sampled_from(sorted(SETTABLE)))
    given_values = data.draw(SETTABLE[section])
    start: dict[str, Any] = {"model": "m", "data": {"train": "t"}}
    written = {**start, section: {**start.get(section, {}), **given_values}}
    located = Located(values={**start, "data": {"train": "t"}})
    for key, value in given_values.items():
        text = to_yaml({"value": value}).partition("value:")[2].strip("\n")
        if "\n" in text or isinstance(value, dict | list):
            return  # an option is one line; lists and mappings are below, in flow style
        apply_override(located, f"{section}.{key}={text}")
    assert check_recipe(located) == Recipe.model_validate(written)


@pytest.mark.parametrize(
    ("option", "section"),
    [
        ("method=lora", {"method": "lora"}),
        ("method={kind: lora, rank: 4}", {"method": {"kind": "lora", "rank": 4}}),
        ("judge.baselines=[tfidf, majority]", {"judge": {"baselines": ["tfidf", "majority"]}}),
        ("data={train: other, columns: {text: body}}", {"data": {"train": "other", "columns": {"text": "body"}}}),
        ("data.columns.text=body", {"data": {"train": "t", "columns": {"text": "body"}}}),
        ("train.steps=null", {"train": {"steps": None}}),
        ("train.learning_rate=1e-4", {"train": {"learning_rate": 0.0001}}),
        ("seed=7", {"seed": 7}),
    ],
)
def test_set_of_every_shape(option: str, section: dict[str, Any]) -> None:
    """Lists, mappings, kinds, null and deep keys, as the shell gives them."""
    located = Located(values={"model": "m", "data": {"train": "t"}})
    apply_override(located, option)
    assert check_recipe(located) == Recipe.model_validate({"model": "m", "data": {"train": "t"}, **section})


def test_set_of_a_setting_of_a_kind_keeps_or_changes_the_kind() -> None:
    """`method.rank` under lora keeps lora's other settings; another kind starts afresh."""
    located = Located(values={"model": "m", "data": {"train": "t"}, "method": {"kind": "lora", "alpha": 3.0}})
    apply_override(located, "method.rank=2")
    assert check_recipe(located).method == Lora(rank=2, alpha=3.0)
    apply_override(located, "method.kind=full")
    assert check_recipe(located).method == Full()


@pytest.mark.parametrize(
    "option",
    ["method={kind: lora, rank: 4, rank: 8}", "train.steps=!x 3", "train.steps=1\nother: 2"],
    ids=["a key twice", "a tag", "two lines"],
)
def test_set_hides_no_fault_that_a_file_would_show(option: str) -> None:
    """What is a fault in a file is a fault in an option."""
    key, _, value = option.partition("=")
    lines = [f"{part}:" for part in key.split(".")]
    nested = "\n".join("  " * depth + line for depth, line in enumerate(lines))
    with pytest.raises(RecipeError):
        read_text(f"model: m\ndata: {{train: t}}\n{nested} {value}\n")
    with pytest.raises(RecipeError):
        located = Located(values={"model": "m", "data": {"train": "t"}})
        apply_override(located, option)
        check_recipe(located)


@settings(max_examples=200, deadline=None)
@given(st.one_of(TEXT, st.from_regex(r"[-+]?[0-9_]{1,6}(\.[0-9_]{0,3})?([eE][-+]?[0-9_]{1,3})?", fullmatch=True)))
def test_every_plain_scalar_has_a_reading(text: str) -> None:
    """No text makes the reader fall over; numbers come out as numbers."""
    value = scalar(text)
    assert value is None or isinstance(value, bool | int | float | str)


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(TRICKY, max_size=8).map(" ".join), st.lists(TRICKY).map("\n".join)))
def test_any_text_is_a_recipe_or_a_named_fault(text: str) -> None:
    """Whatever a file holds, it is read or refused with a place; nothing else is raised."""
    try:
        read_text(text)
    except RecipeError as error:
        assert all(fault.message for fault in error.faults)


def test_a_home_folder_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` in a path means the home folder, wherever the recipe lies."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = Recipe.model_validate({"model": "~/base", "data": {"train": "~/rows.jsonl"}}).anchored(tmp_path / "here")
    assert Path(recipe.model).expanduser() == tmp_path / "home" / "base"
    assert Path(recipe.data.train).expanduser() == tmp_path / "home" / "rows.jsonl"
