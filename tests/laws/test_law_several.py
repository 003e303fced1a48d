"""A recipe of several tasks is one training and as many runs; a rehearsal keeps earlier runs' tasks on the new body."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import Breaker, largest_difference, recipe_of, run_tiny, same, weights

import tiny
from forked import in_two
from tunesmith.answering import Details
from tunesmith.checking import check
from tunesmith.errors import CheckpointError, DataError, ModelError, RecipeError
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.open import Run
from tunesmith.preparing import prepare
from tunesmith.recipe.joint import JointRecipe
from tunesmith.recipe.reading import Located, check_recipe, read_recipe, read_single, write_recipe
from tunesmith.run import resume, run

Bases = Callable[..., Path]
COURSE: dict[str, Any] = {"steps": 6, "evaluate_every": 3, "batch_size": 8, "precision": "fp32", "learning_rate": 3e-3}
OTHERS = ("please", "help", "wrong")


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Path]:
    """Two label sets and entities."""
    return {
        "banking": tiny.write_rows(tmp_path / "banking.jsonl", tiny.make_rows(60)),
        "other": tiny.write_rows(tmp_path / "other.jsonl", tiny.make_rows(30, seed=1, labels=OTHERS)),
        "names": tiny.write_rows(tmp_path / "names.jsonl", tiny.make_entity_rows(40)),
    }


def joint(base: Path, rows: dict[str, Path], output: Path, **sections: Any) -> JointRecipe:
    values: dict[str, Any] = {
        "model": str(base),
        "tasks": {
            "banking": {"data": {"train": str(rows["banking"])}, "judge": {"baselines": ["majority"]}},
            "names": {
                "task": "token-classification", "data": {"train": str(rows["names"])}, "judge": {"baselines": "off"},
            },
        },
        "train": COURSE,
        "machine": {"threads": 1},
        "output": str(output),
        **sections,
    }  # fmt: skip
    return JointRecipe.model_validate(values)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_each_task_becomes_a_run_that_plain_transformers_opens(
    bases: Bases, rows: dict[str, Path], tmp_path: Path, method: str
) -> None:
    finished = run(joint(bases("bert"), rows, tmp_path / "run", method=method))
    assert set(finished.scores["tasks"]) == {"banking", "names"}
    assert finished.manifest["finished"] and (tmp_path / "run" / "report.html").exists()
    recorded = lines(finished.folder.evaluations)
    for name in ("banking", "names"):
        one = Run(tmp_path / "run" / "tasks" / name)
        assert one.manifest["finished"] and one.verdict["why"]
        assert [row["scores"] for row in lines(one.folder.evaluations)] == [
            row["tasks"][name]["scores"] for row in recorded
        ]
        assert one.predict([("card lost",)])
    if method == "full":
        from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

        autos = {"banking": AutoModelForSequenceClassification, "names": AutoModelForTokenClassification}
        opened = {n: auto.from_pretrained(tmp_path / "run" / "tasks" / n / "model") for n, auto in autos.items()}
        bodies = [dict(model.bert.named_parameters()) for model in opened.values()]
        shared = bodies[0].keys() & bodies[1].keys()
        assert len(shared) > 30 and all(torch.equal(bodies[0][name], bodies[1][name]) for name in shared)


@pytest.mark.slow
def test_two_processes_are_one(bases: Bases, rows: dict[str, Path], tmp_path: Path) -> None:
    """Steps in which a process has rows of one task alone, and a head taught first: equal weights of every task."""
    method = {"kind": "lora", "rank": 4, "head_first": {"epochs": 0.5}}
    train = {**COURSE, "precision": "fp64", "batch_size": 7}
    for processes in (1, 2):
        machine = {"threads": 1, "processes": processes, "micro_batch_tokens": 40}
        output = tmp_path / f"run{processes}"
        recipe = joint(bases("bert", dropout=0.0), rows, output, method=method, train=train, machine=machine)
        if processes == 1:
            run(recipe)
        else:
            write_recipe(recipe, tmp_path / "recipe.yaml")
            codes, told = in_two(["run", str(tmp_path / "recipe.yaml")], tmp_path)
            assert codes == [0, 0], told
    for name in ("banking", "names"):
        one, two = (weights(tmp_path / f"run{processes}" / "tasks" / name) for processes in (1, 2))
        assert largest_difference(one, two) <= 1e-12


@pytest.mark.parametrize("at", [2, 5])
def test_an_interrupted_run_of_several_tasks_goes_on(
    bases: Bases, rows: dict[str, Path], tmp_path: Path, at: int
) -> None:
    """At the second step and behind the first checkpoint: the same bytes as in one go."""
    run(joint(bases("bert"), rows, tmp_path / "straight"))
    with pytest.raises(ZeroDivisionError):
        run(joint(bases("bert"), rows, tmp_path / "broken"), voice=Breaker(at))
    again = resume(tmp_path / "broken")
    assert again.manifest["resumed_from"] == (3 if at > 3 else 0)
    for name in ("banking", "names"):
        assert same(tmp_path / "straight" / "tasks" / name, tmp_path / "broken" / "tasks" / name)


def test_a_changed_task_is_refused(bases: Bases, rows: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(joint(bases("bert"), rows, tmp_path / "run"), voice=Breaker(4))
    tiny.write_rows(rows["names"], tiny.make_entity_rows(39))
    with pytest.raises(CheckpointError, match=r"data\.train\.sha256"):
        resume(tmp_path / "run")


def test_a_task_alone_is_trained_beside_and_is_what_that_training_is(
    bases: Bases, rows: dict[str, Path], tmp_path: Path
) -> None:
    recipe = joint(bases("bert"), rows, tmp_path / "run")
    member = recipe.tasks["banking"].but(judge=recipe.tasks["banking"].judge.but(baselines=["alone"]))
    recipe = recipe.but(tasks={**recipe.tasks, "banking": member})
    run(recipe)
    by_hand = run_tiny(
        bases("bert"), rows["banking"], tmp_path / "by_hand", train={**COURSE}, judge={"baselines": "off"}
    )
    assert same(tmp_path / "run" / "alone" / "banking", by_hand.folder.path)
    verdict = Run(tmp_path / "run" / "tasks" / "banking").verdict
    assert verdict["over"] == "alone"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": "prefix"}, "method.kind: prefix is not for several tasks"),
        ({"method": "auto"}, "method.kind: auto"),
        ({"train": {"refit": True}}, "train.refit"),
        ({"train": {"rewrites": ["flat-batch"]}}, "train.rewrites"),
        ({"temperature": 0.5}, "temperature"),
        ({"data": {"train": "x.jsonl"}}, "data: no such setting"),
    ],
)
def test_what_several_tasks_cannot_have_is_refused(change: dict[str, Any], told: str) -> None:
    tasks = {"one": {"data": {"train": "a.jsonl"}}, "two": {"data": {"train": "b.jsonl"}}}
    with pytest.raises(RecipeError, match=told):
        check_recipe(Located(values={"model": "m", "tasks": tasks, **change}))


@pytest.mark.parametrize(
    ("member", "told"),
    [
        ({"task": "language-modeling"}, r"tasks\.two\.task: language-modeling cannot share a body"),
        ({"task": "image-classification"}, "tasks: a body reads images or texts"),
        ({"weight": 2}, r"tasks\.one\.weight: missing"),
        ({"weigth": 2}, r'did you mean "weight"'),
        ({"judge": {"primary": "rouge_l"}}, r"tasks\.two\.judge\.primary"),
    ],
)
def test_a_member_is_checked_as_a_recipe_is(member: dict[str, Any], told: str) -> None:
    tasks = {"one": {"data": {"train": "a.jsonl"}}, "two": {"data": {"train": "b.jsonl"}, **member}}
    with pytest.raises(RecipeError) as caught:
        check_recipe(Located(values={"model": "m", "tasks": tasks}))
    assert any(re.search(told, str(fault)) for fault in caught.value.faults)


def test_a_recipe_of_several_tasks_round_trips(rows: dict[str, Path], tmp_path: Path) -> None:
    recipe = joint(tmp_path, rows, tmp_path / "run", temperature=2.0)
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("temperature", "weights", "quotas"),
    [(1.0, (None, None), (54, 39)), (1000.0, (None, None), (47, 46)), (1.0, (1.0, 5.0), (16, 77))],
)
def test_rows_are_mixed_as_the_recipe_says(
    bases: Bases, rows: dict[str, Path], tmp_path: Path, temperature: float, weights: Any, quotas: tuple[int, int]
) -> None:
    """By size, evenly, by weight: what is taken in an epoch of 93 rows."""
    recipe = joint(bases("bert"), rows, tmp_path / "run", temperature=temperature, train={**COURSE, "steps": 1})
    members = zip(recipe.tasks.items(), weights, strict=True)
    finished = run(recipe.but(tasks={name: member.but(weight=weight) for (name, member), weight in members}))
    told = finished.manifest["tasks"]
    assert tuple(one["quota"] for one in told.values()) == quotas
    assert tuple(one["rows"] for one in told.values()) == (54, 39)
    with pytest.raises(CheckpointError, match="a run of several tasks"):
        finished.predict(["card"])


def test_check_speaks_of_each_task(bases: Bases, rows: dict[str, Path], tmp_path: Path) -> None:
    notes, choices, _ = check(joint(bases("bert"), rows, tmp_path / "run"))
    assert {note.message.partition(":")[0] for note in notes} == {"banking", "names"}
    assert any(choice.key == "machine.device" for choice in choices)


def remembering(base: Path, rows: Path, output: Path, runs: list[Path], share: float, **sections: Any) -> Any:
    rehearsal = {"runs": [str(run) for run in runs], "share": share}
    return recipe_of(base, rows, output, train=COURSE, rehearsal=rehearsal, **sections)


@pytest.fixture
def first(bases: Bases, rows: dict[str, Path], tmp_path: Path) -> Path:
    """A run of the first task."""
    return run_tiny(bases("bert"), rows["banking"], tmp_path / "first", train={**COURSE, "steps": 30}).folder.path


def test_without_a_share_the_new_task_is_learned_as_if_nothing_were_remembered(
    first: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit; and the earlier task's head, which no row of its own has moved, is what it was."""
    naive = run(remembering(first, rows["other"], tmp_path / "naive", [first], 0.0))
    plain = run_tiny(first, rows["other"], tmp_path / "plain", train={**COURSE, "rewrites": "off"})
    assert same(naive.folder.path, plain.folder.path)
    was, now = weights(first), weights(tmp_path / "naive" / "earlier" / "first")
    assert torch.equal(was["classifier.weight"], now["classifier.weight"])
    moved, own = now["bert.encoder.layer.0.output.dense.weight"], weights(naive.folder.path)
    assert not torch.equal(was["bert.encoder.layer.0.output.dense.weight"], moved)
    assert torch.equal(own["bert.encoder.layer.0.output.dense.weight"], moved)


def test_rehearsal_moves_the_earlier_head_and_goes_on_where_it_was_cut(
    first: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    straight = run(remembering(first, rows["other"], tmp_path / "straight", [first], 0.4))
    earlier = tmp_path / "straight" / "earlier" / "first"
    assert not torch.equal(weights(first)["classifier.weight"], weights(earlier)["classifier.weight"])
    assert Run(earlier).scores["judged_on"] == "validation"
    assert next(step["rows"] for step in lines(straight.folder.steps)) == COURSE["batch_size"]
    with pytest.raises(ZeroDivisionError):
        run(remembering(first, rows["other"], tmp_path / "broken", [first], 0.4), voice=Breaker(5))
    resume(tmp_path / "broken")
    assert same(tmp_path / "straight", tmp_path / "broken")
    assert same(earlier, tmp_path / "broken" / "earlier" / "first")


def test_a_third_task_takes_the_heads_where_the_second_left_them(
    first: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    second = run(remembering(first, rows["other"], tmp_path / "second", [first], 0.4)).folder.path
    third = run(
        remembering(second, rows["names"], tmp_path / "third", [first, second], 0.0, task="token-classification")
    )
    for name, was in (("first", second / "earlier" / "first"), ("second", second)):
        now = weights(tmp_path / "third" / "earlier" / name)
        assert torch.equal(now["classifier.weight"], weights(was)["classifier.weight"])
    assert third.manifest["finished"]
    assert RunFolder(tmp_path / "third" / "earlier" / "first").scores.exists()


def test_elastic_weights_pull_at_the_body(first: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    """From the second step on (at the first nothing is away from where it began), and only where they are asked for."""
    made = []
    for strength in (0.0, 10.0):
        recipe = remembering(first, rows["other"], tmp_path / f"run-{strength}", [first], 0.0)
        finished = run(recipe.but(rehearsal=recipe.rehearsal.but(ewc=strength)))
        pulls = [step.get("pull", 0.0) for step in lines(finished.folder.steps)]
        assert pulls[0] == 0.0
        assert all((pull > 0) == (strength > 0) for pull in pulls[1:])
        made.append(finished.folder.path)
    assert not same(*made)


def test_the_matrix_over_tasks_and_time(first: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    """What each folder says, in its place; forgetting is the drop from the best of them."""
    second = run(remembering(first, rows["other"], tmp_path / "second", [first], 0.0))
    told = read_json(second.folder.audits)["continual"]
    scores = [
        Run(place).scores["validation"]["accuracy"]["value"]
        for place in (first, tmp_path / "second" / "earlier" / "first", tmp_path / "second")
    ]
    assert told["tasks"] == ["first", "second"]
    assert [[cell and cell["value"] for cell in line] for line in told["matrix"]] == [scores[:2], [None, scores[2]]]
    assert told["forgetting"]["value"] == pytest.approx(scores[0] - scores[1])
    assert told["forgetting"]["low"] <= told["forgetting"]["value"] <= told["forgetting"]["high"]
    assert told["average"]["value"] == pytest.approx((scores[1] + scores[2]) / 2)
    assert "Earlier tasks" in second.folder.report.read_text(encoding="utf-8")


def test_an_earlier_run_that_cannot_be_had_is_named(first: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    """By `check`, too: nothing there, a run of several tasks, one that is not finished."""
    manifest = RunFolder(first).manifest
    unfinished = {**read_json(manifest), "finished": None}
    for run_folder, told in ((tmp_path / "nowhere", "no run in this folder"), (first, "is not finished")):
        if run_folder == first:
            manifest.write_text(json.dumps(unfinished))
        for work in (check, run):
            with pytest.raises(ModelError, match=told):
                work(remembering(first, rows["other"], tmp_path / "run", [run_folder], 0.1))


def test_rows_that_are_no_longer_those_of_the_earlier_run_are_refused(
    first: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    tiny.write_rows(rows["banking"], tiny.make_rows(59))
    with pytest.raises(DataError, match="no longer those of this run"):
        run(remembering(first, rows["other"], tmp_path / "run", [first], 0.1))
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_saved_of_an_earlier_task_answers_as_it_was_judged(
    first: Path, rows: dict[str, Path], tmp_path: Path, method: str
) -> None:
    """Through a chain of text, tokens and text, behind which the first task's model is what it was but for the body:
    its pooler and its head did not move."""
    tokens = {"task": "token-classification", "method": method}
    second = run(remembering(first, rows["names"], tmp_path / "second", [first], 0.0, **tokens)).folder.path
    recipe = remembering(second, rows["other"], tmp_path / "third", [first, second], 0.0, method=method)
    run(recipe.but(train=recipe.train.but(learning_rate=1e-9)))
    for place in (second / "earlier" / "first", tmp_path / "third" / "earlier" / "first"):
        kept = lines(RunFolder(place).predictions("validation"))
        opened = Run(place)
        held = prepare(read_single(RunFolder(place).recipe), opened._devices, Voice()).splits.validation
        again = opened.answer_rows(held, Details(False, 0, None))
        assert [row["answer"] for row in kept] == [answer["label"] for answer in again]
        assert [row["score"] for row in kept] == pytest.approx([answer["score"] for answer in again], abs=1e-5)
    if method == "full":
        before, after = weights(second / "earlier" / "first"), weights(tmp_path / "third" / "earlier" / "first")
        assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-6


def test_a_part_goes_on_with_its_whole_only(bases: Bases, rows: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(joint(bases("bert"), rows, tmp_path / "run"), voice=Breaker(2))
    with pytest.raises(CheckpointError, match="a part of another run") as caught:
        resume(tmp_path / "run" / "tasks" / "names")
    assert f"tunesmith resume {tmp_path / 'run'}`" in str(caught.value.faults[0])
    finished = resume(tmp_path / "run")
    told = (tmp_path / "run" / "tasks" / "names" / "paper.md").read_text(encoding="utf-8")
    assert "learned at once with banking" in told
    assert finished.manifest["finished"]


def test_heads_of_another_body_are_noted_and_no_adapter_hides_them(
    first: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    """A chain in which the first head did not ride along."""
    second = run_tiny(first, rows["other"], tmp_path / "second", train=COURSE).folder.path
    run(remembering(second, rows["names"], tmp_path / "third", [first, second], 0.0, task="token-classification"))
    notes = read_json(RunFolder(tmp_path / "third").check)
    assert len([note for note in notes if note["code"] == "other-body"]) == 1
    adapter = {"task": "token-classification", "method": "lora"}
    with pytest.raises(ModelError, match="lora saves no body"):
        run(remembering(second, rows["names"], tmp_path / "fourth", [first, second], 0.0, **adapter))


def test_a_head_first_is_the_new_one(first: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    method = {"kind": "full", "head_first": {"epochs": 1}}
    run(remembering(first, rows["other"], tmp_path / "run", [first], 0.0, method=method))
    was, now = weights(first), weights(tmp_path / "run" / "earlier" / "first")
    assert torch.equal(was["classifier.weight"], now["classifier.weight"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "language-modeling"}, "rehearsal: not for language-modeling"),
        ({"train": {"refit": True}}, "rehearsal: not with train.refit"),
        ({"machine": {"processes": 2}}, "rehearsal: not with several processes"),
        ({"method": "prompt"}, "rehearsal: not with method prompt"),
        ({"rehearsal": {"runs": ["a/x", "b/x"]}}, "rehearsal.runs: .* 'x' is taken"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(change: dict[str, Any], told: str) -> None:
    values = {"model": "m", "data": {"train": "a.jsonl"}, "rehearsal": {"runs": ["runs/x"]}, **change}
    with pytest.raises(RecipeError, match=told):
        check_recipe(Located(values=values))
