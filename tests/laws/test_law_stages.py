"""One recipe of several trainings is those trainings one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from workbench import Breaker, recipe_of, run_tiny

import tiny
from forked import in_two
from tunesmith.checking import check
from tunesmith.errors import DataError, RecipeError
from tunesmith.folder import RunFolder, read_json
from tunesmith.open import Run
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import read_recipe, write_recipe
from tunesmith.run import resume, run

Bases = Callable[..., Path]
SHORT: dict[str, Any] = {"steps": 4, "evaluate_every": 2, "batch_size": 8, "precision": "fp32", "learning_rate": 3e-3}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return tiny.write_rows(tmp_path / "texts.jsonl", tiny.make_sentences(40))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(60))


def staged(base: Path, texts: Path, labelled: Path, output: Path, **sections: Any) -> Recipe:
    """A head for gaps on the frozen body, then the language, then labels."""
    stage = {"task": "language-modeling", "data": {"train": str(texts)}, "train": SHORT, "judge": {"baselines": "off"}}
    stages = [{**stage, "method": "head"}, stage]
    given: dict[str, Any] = {"stages": stages, "train": SHORT, "judge": {"baselines": ["without-stages"]}, **sections}
    return recipe_of(base, labelled, output, **given)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model" / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(bool((mine[name] == theirs[name]).all()) for name in mine)


def test_stages_are_runs_one_after_the_other(bases: Bases, texts: Path, labelled: Path, tmp_path: Path) -> None:
    """Bit for bit the weights of three runs by hand; the training without stages is a baseline, scored as that run."""
    base, output = bases("bert"), tmp_path / "run"
    finished = run(staged(base, texts, labelled, output))
    language: dict[str, Any] = {"task": "language-modeling", "train": SHORT}
    first = run_tiny(base, texts, tmp_path / "first", method="head", **language)
    second = run_tiny(first.folder.path, texts, tmp_path / "second", **language)
    third = run_tiny(second.folder.path, labelled, tmp_path / "third", train=SHORT)
    without = run_tiny(base, labelled, tmp_path / "without", train=SHORT)
    folders = [output / "stages" / name for name in ("1-language-modeling", "2-language-modeling", "without-stages")]
    for mine, theirs in zip([*folders, output], (first, second, without, third), strict=True):
        assert same(mine, theirs.folder.path), mine
    assert finished.manifest["base"]["reference"] == str(folders[1])
    assert finished.scores["baselines"]["without-stages"]["accuracy"] == without.scores["validation"]["accuracy"]
    assert finished.verdict["over"] == "without-stages"
    assert not same(output, without.folder.path), "the stages changed nothing: nothing was tested"
    again = finished.predict(["card", "cash"])
    assert again == third.predict(["card", "cash"])


def test_a_refit_does_not_judge_the_baseline_by_rows_that_it_learned(
    bases: Bases, texts: Path, labelled: Path, tmp_path: Path
) -> None:
    course = {**SHORT, "steps": 40, "evaluate_every": 40, "refit": True}
    finished = run(staged(bases("bert"), texts, labelled, tmp_path / "run", train=course))
    own = RunFolder(tmp_path / "run" / "stages" / "without-stages")
    theirs, mine = finished.scores["baselines"]["without-stages"], read_json(own.scores)["validation"]
    assert theirs == mine
    kept = finished.folder.predictions("baseline-without-stages-validation")
    assert kept.read_bytes() == own.predictions("validation").read_bytes()


@pytest.fixture(scope="module")
def straight(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All stages in one go. Look, do not touch."""
    folder = tmp_path_factory.mktemp("straight")
    texts = tiny.write_rows(folder / "texts.jsonl", tiny.make_sentences(40))
    labelled = tiny.write_rows(folder / "train.jsonl", tiny.make_rows(60))
    return run(staged(bases("bert"), texts, labelled, folder / "run"))


@pytest.mark.parametrize("at", [3, 7, 10, 15])
def test_what_was_interrupted_in_any_stage_goes_on(
    bases: Bases, straight: Run, texts: Path, labelled: Path, tmp_path: Path, at: int
) -> None:
    """In the first, the second, the training without stages, the last: the same bytes as in one go, and what was
    finished is not trained again."""
    base = bases("bert")
    output = tmp_path / "broken"
    with pytest.raises(ZeroDivisionError):
        run(staged(base, texts, labelled, output), voice=Breaker(at))
    done = [place for place in sorted((output / "stages").iterdir()) if finished(place)]
    before = [read_json(RunFolder(place).manifest) for place in done]
    again = resume(output)
    assert len(done) == (at - 1) // 4
    assert [read_json(RunFolder(place).manifest) for place in done] == before
    assert same(again.folder.path, straight.folder.path)
    assert again.scores["validation"] == straight.scores["validation"]


def test_all_stages_are_looked_at_before_the_first_begins(
    bases: Bases, texts: Path, labelled: Path, tmp_path: Path
) -> None:
    """A stop in the last training is told by `check`, and by `run` before anything is written; of what an earlier
    stage brings (a head for gaps) none complains."""
    recipe = staged(bases("bert"), texts, labelled, tmp_path / "run", train={**SHORT, "learning_rate": 0.0})
    notes, _, settled = check(recipe)
    stops = [note for note in notes if note.level == "stop"]
    assert [note.code for note in stops] == ["rate-zero"] and not stops[0].message.startswith("stage")
    assert any(note.message.startswith("stage 2, language-modeling: ") for note in notes)
    assert settled.stages == recipe.stages and settled.method.kind == "full"
    with pytest.raises(DataError, match="learning rate is 0"):
        run(recipe)
    assert not (tmp_path / "run").exists()


def test_a_stage_that_needs_a_head_first_stops_before_it_costs(
    bases: Bases, texts: Path, labelled: Path, tmp_path: Path
) -> None:
    recipe = staged(bases("bert"), texts, labelled, tmp_path / "run")
    with pytest.raises(DataError, match="stage 1, language-modeling: the base has no head"):
        run(recipe.but(stages=recipe.stages[1:]))


@pytest.mark.slow
def test_two_processes_go_through_all_stages(bases: Bases, texts: Path, labelled: Path, tmp_path: Path) -> None:
    base, exact = bases("bert", dropout=0.0), {**SHORT, "precision": "fp64"}
    both = {"train": exact, "machine": {"processes": 2, "threads": 1}}
    recipe = staged(base, texts, labelled, tmp_path / "two", **both)
    recipe = recipe.but(stages=[stage.but(train=recipe.train) for stage in recipe.stages])
    write_recipe(recipe, tmp_path / "two.yaml")
    codes, told = in_two(["run", str(tmp_path / "two.yaml")], tmp_path)
    assert codes == [0, 0], told
    one = run(recipe.but(machine=recipe.machine.but(processes=1), output=str(tmp_path / "one")))
    mine, theirs = weights(one.folder.path), weights(tmp_path / "two")
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= 1e-12
    assert finished(tmp_path / "two" / "stages" / "without-stages")


def finished(place: Path) -> bool:
    folder = RunFolder(place)
    return folder.manifest.exists() and bool(read_json(folder.manifest).get("finished"))


def test_without_its_baseline_nothing_is_trained_twice(
    bases: Bases, texts: Path, labelled: Path, tmp_path: Path
) -> None:
    run(staged(bases("bert"), texts, labelled, tmp_path / "run", judge={"baselines": ["majority"]}))
    assert sorted(place.name for place in (tmp_path / "run" / "stages").iterdir()) == [
        "1-language-modeling", "2-language-modeling",
    ]  # fmt: skip


def test_a_fault_in_a_stage_is_placed(tmp_path: Path) -> None:
    page = tmp_path / "recipe.yaml"
    page.write_text(
        "model: package:x\n"
        "stages:\n"
        "  - task: language-modeling\n"
        "    data: {train: a.jsonl}\n"
        "    train: {epohcs: 3}\n"
        "  - task: no-such\n"
        "    data: {train: b.jsonl}\n"
        "  - data: {train: c.jsonl}\n"
        "    judge: {primary: perplexity}\n"
        "data: {train: d.jsonl}\n"
    )
    with pytest.raises(RecipeError) as caught:
        read_recipe(page)
    told = [str(fault) for fault in caught.value.faults]
    assert len(told) == 3
    assert "recipe.yaml:5:13" in told[0] and 'did you mean "epochs"?' in told[0]
    assert "recipe.yaml:6:" in told[1] and "no such kind 'no-such'" in told[1]
    assert "judge.primary: this task's metrics are" in told[2] and "recipe.yaml:8:" in told[2]


def test_paths_of_stages_are_relative_to_the_recipe(tmp_path: Path) -> None:
    page = tmp_path / "recipe.yaml"
    page.write_text("model: m\nstages: [{task: language-modeling, data: {train: a.jsonl}}]\ndata: {train: b.jsonl}\n")
    assert read_recipe(page).stages[0].data.train == str(tmp_path / "a.jsonl")


def test_a_recipe_without_stages_has_no_such_baseline(tmp_path: Path) -> None:
    page = tmp_path / "recipe.yaml"
    page.write_text("model: m\ndata: {train: b.jsonl}\njudge: {baselines: [without-stages]}\n")
    with pytest.raises(RecipeError, match="none of this task's"):
        read_recipe(page)


def test_a_setting_of_a_stage_is_overridden_by_its_number(tmp_path: Path) -> None:
    page = tmp_path / "recipe.yaml"
    page.write_text("model: m\nstages: [{task: language-modeling, data: {train: a.jsonl}}]\ndata: {train: b.jsonl}\n")
    recipe = read_recipe(page, ["stages.0.train.steps=7", "stages.0.task.mask_share=0.3"])
    assert recipe.stages[0].train.steps == 7 and recipe.stages[0].task.mask_share == 0.3  # type: ignore[union-attr]
    assert recipe.train.steps is None
    with pytest.raises(RecipeError, match=r"there is no stage '1'; the recipe has 1, from 0"):
        read_recipe(page, ["stages.1.train.steps=7"])
    with pytest.raises(RecipeError, match="no such setting"):
        read_recipe(page, ["stages.0.train.stepps=7"])


def test_other_tokens_are_no_baseline(bases: Bases, texts: Path, tmp_path: Path) -> None:
    """Where a stage brought words of its own, the training without it would be asked for other tokens."""
    task = {"kind": "language-modeling", "add_tokens": ["qqq", "zyx"]}
    stage = {
        "task": task,
        "data": {"train": str(texts)},
        "train": SHORT,
        "judge": {"baselines": "off"},
        "method": "head",
    }
    sections: dict[str, Any] = {"task": "language-modeling", "judge": {"baselines": ["without-stages", "frequencies"]}}
    finished = run(recipe_of(bases("bert+masked"), texts, tmp_path / "run", stages=[stage], train=SHORT, **sections))
    assert set(finished.scores["baselines"]) == {"frequencies"}
