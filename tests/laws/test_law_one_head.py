"""One head for tasks in turn: what it knew stays where it was, and it answers over all labels without being told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import Breaker, command, recipe_of, run_tiny, same, weights

import tiny
from tunesmith.checking import check
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.methods.consolidation import Consolidated
from tunesmith.models.loaded import Loaded, as_base
from tunesmith.open import Run
from tunesmith.preparing import Work, prepare
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import Located, check_recipe, write_recipe
from tunesmith.rehearsing import remember
from tunesmith.run import resume, run

Bases = Callable[..., Path]
COURSE: dict[str, Any] = {"steps": 6, "evaluate_every": 3, "batch_size": 8, "precision": "fp32", "learning_rate": 3e-3}
OTHERS = ("please", "card", "help", "wrong")
"""One of them is a label of the first task, too."""


@pytest.fixture(scope="module")
def place(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Rows of three tasks, and a run of the first. Look, do not touch."""
    folder = tmp_path_factory.mktemp("chain")
    tiny.write_rows(folder / "one.jsonl", tiny.make_rows(60))
    tiny.write_rows(folder / "two.jsonl", tiny.make_rows(40, seed=1, labels=OTHERS))
    tiny.write_rows(folder / "three.jsonl", tiny.make_rows(30, seed=2, labels=("fee", "rate")))
    yield run_tiny(bases("bert"), folder / "one.jsonl", folder / "first", train={**COURSE, "steps": 30}).folder.path


def growing(model: Path, rows: str, output: Path, runs: list[Path], share: float = 0.4, **sections: Any) -> Recipe:
    rehearsal = {"runs": [str(run) for run in runs], "share": share, "head": "shared", **sections.pop("rehearsal", {})}
    return recipe_of(model, runs[0].parent / rows, output, train=COURSE, rehearsal=rehearsal, **sections)


def prepared(recipe: Recipe) -> Work:
    from tunesmith.devices import choose_devices

    return prepare(recipe, choose_devices(recipe.machine, recipe.train.precision), Voice())


def outputs_of(loaded: Loaded, work: Work) -> torch.Tensor:
    batch = work.task.collate(work.examples["validation"], loaded.processor)
    loaded.model.eval()
    with torch.inference_mode():
        return work.task.logits(loaded, batch)


@pytest.mark.parametrize(
    ("kind", "method"), [("bert", "full"), ("roberta", "full"), ("bert", "lora"), ("llama", "full")]
)
def test_a_head_that_has_grown_says_of_what_it_knew_what_it_said(
    bases: Bases, place: Path, tmp_path: Path, kind: str, method: str
) -> None:
    """Before the first step every weight that the first run had is there to the bit, and so are its outputs; new rows
    are those that a new head has. The base can be had back."""
    first = place
    if (kind, method) != ("bert", "full"):
        rows = place.parent / "one.jsonl"
        first = run_tiny(bases(kind), rows, tmp_path / "first", train=COURSE, method=method).folder.path
    recipe = recipe_of(
        first, place.parent / "two.jsonl", tmp_path / "run", train=COURSE,
        rehearsal={"runs": [str(first)], "head": "shared"},
    )  # fmt: skip
    work, was = prepared(recipe), Run(first)
    had = was.card["labels"]
    assert list(work.task.labels) == [*had, "help", "please", "wrong"]
    assert work.loaded.model.config.id2label == dict(enumerate(work.task.labels))
    new = prepared(recipe.but(rehearsal=None, data=recipe.data.but(train=str(_all_labels(tmp_path)))))
    theirs = was.loaded.model
    if method == "lora":
        from tunesmith.models.heads import without_adapter

        theirs = without_adapter(theirs)
    known, drawn = dict(theirs.named_parameters()), dict(new.loaded.model.named_parameters())
    grown = 0
    for name, weight in work.loaded.model.named_parameters():
        assert torch.equal(weight[: len(known[name])], known[name]), name
        if len(weight) > len(known[name]):
            assert torch.equal(weight[len(had) :], drawn[name][len(had) :])
            grown += 1
    assert grown == (1 if kind == "llama" else 2)
    logits = outputs_of(work.loaded, work)
    was.loaded.model = theirs
    assert torch.allclose(logits[:, : len(had)], outputs_of(was.loaded, work), atol=1e-6)
    before = {name: weight.clone() for name, weight in work.loaded.model.named_parameters()}
    with torch.no_grad():
        for weight in work.loaded.model.parameters():
            weight.add_(1.0)
    with as_base(work.loaded) as base:
        assert all(torch.equal(weight, before[name]) for name, weight in base.named_parameters())


def _all_labels(folder: Path) -> Path:
    """Rows of as many labels as the grown head has."""
    return tiny.write_rows(folder / "many.jsonl", tiny.make_rows(60, labels=("a", "b", "c", "d", "e", "f")))


def test_the_answer_is_a_share_of_all_labels(place: Path, tmp_path: Path) -> None:
    """By our own door and by plain transformers, of rows of either task; and it goes on where it was cut."""
    from transformers import AutoModelForSequenceClassification

    straight = run(growing(place, "two.jsonl", tmp_path / "straight", [place]))
    labels = straight.manifest["labels"]
    assert labels == [*Run(place).manifest["labels"], "help", "please", "wrong"]
    for text in ("card lost", "please wait"):
        [told] = straight.predict([text], probabilities=True)
        assert set(told["scores"]) == set(labels)
        assert sum(told["scores"].values()) == pytest.approx(1)
    opened = AutoModelForSequenceClassification.from_pretrained(straight.folder.model)
    assert list(opened.config.id2label.values()) == labels and opened.classifier.out_features == len(labels)
    earlier = RunFolder(tmp_path / "straight" / "earlier" / "first")
    assert same(tmp_path / "straight", earlier.path)
    assert read_json(earlier.manifest)["part_of"]["rows"] > 0
    assert not torch.equal(weights(place)["classifier.weight"], weights(earlier.path)["classifier.weight"][:3])
    assert "One head" in straight.folder.paper.read_text(encoding="utf-8")
    assert "the same head" in earlier.paper.read_text(encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        run(growing(place, "two.jsonl", tmp_path / "broken", [place]), voice=Breaker(5))
    assert resume(tmp_path / "broken").manifest["resumed_from"] == 3
    assert same(tmp_path / "straight", tmp_path / "broken")


def test_without_a_share_no_earlier_row_is_learned(place: Path, tmp_path: Path) -> None:
    """Then the steps are those of the new rows alone, and the earlier task is judged all the same, over all labels."""
    naive = run(growing(place, "two.jsonl", tmp_path / "naive", [place], share=0.0))
    taken = [step["rows"] for step in lines(naive.folder.steps)]
    assert sum(taken[:5]) == naive.manifest["data"]["train"]["rows"] == 33
    earlier = Run(tmp_path / "naive" / "earlier" / "first")
    assert earlier.manifest["part_of"]["rows"] == 0
    answered = lines(earlier.folder.predictions("validation"))
    assert {row["gold"] for row in answered} <= set(Run(place).manifest["labels"])
    assert all({"please", "help", "wrong"} & set(row["probabilities"]) for row in answered)
    told = read_json(naive.folder.audits)["continual"]
    assert told["matrix"][0][0]["value"] == Run(place).scores["validation"]["accuracy"]["value"]
    assert told["matrix"][0][1]["value"] == earlier.scores["validation"]["accuracy"]["value"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_third_task_grows_the_head_of_the_second(place: Path, tmp_path: Path, method: str) -> None:
    second = run(growing(place, "two.jsonl", tmp_path / "second", [place], method=method)).folder.path
    runs = [place, second]
    third = run(growing(second, "three.jsonl", tmp_path / "third", runs, method=method))
    assert third.manifest["labels"] == [*Run(second).manifest["labels"], "fee", "rate"]
    for name in ("first", "second"):
        earlier = Run(tmp_path / "third" / "earlier" / name)
        assert earlier.manifest["part_of"]["rows"] > 0
        kept = lines(earlier.folder.predictions("validation"))
        held = prepared(_as_it_was(runs[name == "second"])).splits.validation
        assert [row["gold"] for row in kept] == [row["label"] for row in held]
        again = earlier.predict([row["text"] for row in held])
        assert [row["answer"] for row in kept] == [answer["label"] for answer in again]
        assert [row["score"] for row in kept] == pytest.approx([answer["score"] for answer in again], abs=1e-5)
    told = read_json(third.folder.audits)["continual"]
    assert [[cell is not None for cell in line] for line in told["matrix"]] == [
        [True, True, True], [False, True, True], [False, False, True]
    ]  # fmt: skip


def test_heads_of_their_own_go_on_where_one_head_was(place: Path, tmp_path: Path) -> None:
    """The other way of rehearsal, behind it: what each earlier task brings is that head, which no row has moved."""
    second = run(growing(place, "two.jsonl", tmp_path / "second", [place])).folder.path
    own = growing(second, "three.jsonl", tmp_path / "third", [place, second], 0.0, rehearsal={"head": "own"})
    assert run(own).manifest["labels"] == ["fee", "rate"]
    for name in ("first", "second"):
        now = tmp_path / "third" / "earlier" / name
        assert torch.equal(weights(now)["classifier.weight"], weights(second)["classifier.weight"])
        assert read_json(RunFolder(now).manifest)["labels"] == Run(second).manifest["labels"]


def _as_it_was(place: Path) -> Recipe:
    from tunesmith.recipe.reading import read_single

    return read_single(RunFolder(place).recipe).but(rehearsal=None)


def test_an_adapter_brings_its_whole_head(place: Path, tmp_path: Path) -> None:
    """Opened by plain transformers and PEFT on the first run's model, it answers as it does here."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    finished = run(growing(place, "two.jsonl", tmp_path / "second", [place], method="lora"))
    work, labels = prepared(_as_it_was(place)), finished.manifest["labels"]
    base = AutoModelForSequenceClassification.from_pretrained(
        place / "model", num_labels=len(labels), ignore_mismatched_sizes=True
    )
    mine = outputs_of(finished.loaded, work)
    finished.loaded.model = PeftModel.from_pretrained(base, finished.folder.model)
    assert mine.shape[1] == len(labels) == 6
    assert torch.allclose(mine, outputs_of(finished.loaded, work), atol=1e-6)


def test_labels_that_are_known_grow_nothing(place: Path, tmp_path: Path) -> None:
    """Further rows of the labels that it has: the head goes on as it is."""
    work = prepared(growing(place, "one.jsonl", tmp_path / "run", [place]))
    assert list(work.task.labels) == Run(place).card["labels"] and not work.loaded.grown
    assert torch.equal(work.loaded.model.classifier.weight, Run(place).loaded.model.classifier.weight)


def test_elastic_weights_hold_the_rows_that_came_along(place: Path, tmp_path: Path) -> None:
    """Those of the earlier labels by what they mattered, new ones not at all."""
    recipe = growing(place, "two.jsonl", tmp_path / "run", [place], share=0.0, rehearsal={"ewc": 10.0})
    work = prepared(recipe)
    together = remember(recipe, work, Voice()).join()
    assert isinstance(together.method, Consolidated)
    matters = together.method.elastic.importance
    assert (matters["classifier.weight"][:3] > 0).any() and not matters["classifier.weight"][3:].any()
    assert (matters["classifier.bias"][:3] > 0).any() and not matters["classifier.bias"][3:].any()
    assert any(name.startswith("bert.encoder") for name in matters)
    pulls = [step.get("pull", 0.0) for step in lines(run(recipe).folder.steps)]
    assert pulls[0] == 0.0 and all(pull > 0 for pull in pulls[1:])


def test_baselines_answer_by_the_labels_that_they_saw(place: Path, tmp_path: Path) -> None:
    """The new rows alone teach them: a head of more labels must not shift what they say."""
    judge = {"baselines": ["majority", "tfidf", "nearest-neighbours"]}
    finished = run(growing(place, "two.jsonl", tmp_path / "run", [place], judge=judge))
    for name in judge["baselines"]:
        answered = lines(finished.folder.predictions(f"baseline-{name}-validation"))
        assert {row["answer"] for row in answered} <= set(OTHERS)
    assert finished.scores["baselines"]["tfidf"]["accuracy"]["value"] > 0.5


def test_rows_of_another_task_are_learned_too(place: Path, tmp_path: Path) -> None:
    """A test row that another task under the same head was trained on is no unseen row: counted, told, left out."""
    one, two = (Run(place).manifest["data"], place.parent / "two.jsonl")
    learned = lines(place.parent / "one.jsonl")[:5]
    mine = tiny.write_rows(tmp_path / "test.jsonl", [*learned, *tiny.make_rows(15, seed=9, labels=OTHERS)])
    recipe = growing(place, two.name, tmp_path / "run", [place], data={"test": str(mine)})
    finished = run(recipe)
    kept = prepared(_as_it_was(place)).splits.train
    seen = sum(any(row["text"] == other["text"] for other in kept) for row in lines(mine))
    assert seen >= 1 and one["train"]["rows"] == len(kept)
    assert read_json(finished.folder.data)["leaked"] >= seen
    assert "test_without_overlap" in finished.scores
    [note] = [note for note in read_json(finished.folder.check) if note["code"] == "test-in-other-task"]
    assert note["level"] == "warn" and note["count"] >= 1


def test_one_new_label_is_told_what_to_do(place: Path, tmp_path: Path) -> None:
    tiny.write_rows(place.parent / "single.jsonl", tiny.make_rows(20, labels=("refund",)))
    with pytest.raises(DataError, match="a head grows by two labels or more"):
        prepared(growing(place, "single.jsonl", tmp_path / "run", [place]))


def test_a_head_for_images_grows(bases: Bases, tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path / "one", 24)
    tiny.make_pictures(tmp_path / "two", 24, seed=1, labels=("red", "green", "blue"))
    task = {"task": "image-classification", "train": {**COURSE, "steps": 2}}
    first = run_tiny(bases("vit"), tmp_path / "one", tmp_path / "first", **task).folder.path
    rehearsal = {"runs": [str(first)], "share": 0.4, "head": "shared"}
    second = run_tiny(first, tmp_path / "two", tmp_path / "second", **task, rehearsal=rehearsal)
    assert second.manifest["labels"] == [*Run(first).manifest["labels"], "blue", "green", "red"]
    assert Run(tmp_path / "second" / "earlier" / "first").scores["judged_on"] == "validation"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "token-classification"}, "rehearsal.head: one head for all is not for token-classification"),
        ({"task": {"kind": "text-classification", "target": "labels"}}, "rehearsal.head: .* not labels"),
        ({"task": {"kind": "text-classification", "class_weights": "balanced"}}, "task.class_weights"),
    ],
)
def test_a_recipe_that_cannot_have_one_head_is_refused(change: dict[str, Any], told: str) -> None:
    values = {"model": "m", "data": {"train": "a.jsonl"}, "rehearsal": {"runs": ["runs/x"], "head": "shared"}}
    with pytest.raises(RecipeError, match=told):
        check_recipe(Located(values={**values, **change}))


def test_a_head_that_cannot_grow_is_refused(bases: Bases, place: Path, tmp_path: Path) -> None:
    """By `check`, too, with exit code 2: a model that is none of the runs, rows of another kind, a head that does not
    know all earlier labels."""
    names = tiny.write_rows(tmp_path / "names.jsonl", tiny.make_entity_rows(40))
    entities = run_tiny(bases("bert"), names, tmp_path / "names", task="token-classification", train=COURSE)
    plain = run_tiny(place, place.parent / "two.jsonl", tmp_path / "plain", train=COURSE).folder.path
    output = tmp_path / "run"
    path = {"task": {"kind": "text-classification", "target": "path"}}
    for recipe, told in (
        (growing(bases("bert"), "two.jsonl", output, [place]), "which is none of rehearsal.runs"),
        (growing(place, "two.jsonl", output, [place, entities.folder.path]), "is a run for token-classification"),
        (growing(plain, "three.jsonl", output, [place, plain]), "does not know 2 labels of"),
    ):
        for work in (check, run):
            with pytest.raises(RecipeError, match=told):
                work(recipe)
    with pytest.raises(ModelError, match="no run in this folder"):
        check(growing(place, "two.jsonl", output, [place, tmp_path / "nowhere"]))
    with pytest.raises(ValueError, match="not path"):
        growing(place, "two.jsonl", output, [place], **path)
    write_recipe(growing(bases("bert"), "two.jsonl", output, [place]), tmp_path / "recipe.yaml")
    ended = command(["run", str(tmp_path / "recipe.yaml")])
    assert ended.returncode == 2 and "rehearsal.head" in ended.stderr


def test_one_head_is_that_of_a_plain_model(place: Path, tmp_path: Path) -> None:
    """It needs no joint model, so exact speed-ups are for it, too; `check` says the same."""
    recipe = growing(place, "two.jsonl", tmp_path / "run", [place])
    finished = run(recipe)
    assert {trial["name"] for trial in finished.manifest["rewrites"]} and not lines(finished.folder.looks)
    notes, _, settled = check(recipe.but(output=str(tmp_path / "other")))
    assert settled.train == prepared(recipe).recipe.train and settled.train.rewrites
    assert [note.code for note in notes] == [note["code"] for note in read_json(finished.folder.check)]
