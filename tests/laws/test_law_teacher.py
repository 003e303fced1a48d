"""A teacher is heard as Hinton et al. write it, and not at all where it should not be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_law_resume import COURSE, Cutter, Photographer, PowerCut, assert_same, contents
from workbench import BASES, TASKS, Bench, largest_difference, logits_of, recipe_of, run_tiny, train

import tiny
from forked import in_two
from tunesmith import methods, tasks
from tunesmith.data.rows import Row
from tunesmith.devices import Devices
from tunesmith.errors import CheckpointError, ModelError, RecipeError
from tunesmith.evaluation import predict
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.models.references import find_base
from tunesmith.models.students import spaced
from tunesmith.open import Run
from tunesmith.preparing import apply_method
from tunesmith.recipe import Full, Settings, Teacher
from tunesmith.recipe import tasks as task_settings
from tunesmith.recipe.reading import read_recipe, write_recipe
from tunesmith.run import resume, run
from tunesmith.tasks.contract import Draw, Limit
from tunesmith.tasks.distillation import Distilled, overheard

pytestmark = pytest.mark.usefixtures("own_cache")

Bases = Callable[..., Path]
EXACT: dict[str, Any] = {"steps": 6, "evaluate_every": 3, "batch_size": 8, "precision": "fp64", "learning_rate": 3e-3}
MANY = task_settings.TextClassification(target="labels")
NUMBER = task_settings.TextClassification(target="score")
KINDS: dict[str, tuple[Settings, Callable[[int], list[dict[str, Any]]], str]] = {
    **{kind: (*TASKS[kind], BASES.get(kind, "bert")) for kind in ("text-classification", "token-classification")},
    "many labels": (MANY, lambda many: [
        {"text": row["text"], "labels": [row["label"], "cash"][: i % 3]} for i, row in enumerate(tiny.make_rows(many))
    ], "bert"),
    "number": (NUMBER, lambda many: [
        {"text": row["text"], "score": float(len(row["text"]) % 5)} for row in tiny.make_rows(many)
    ], "bert"),
    "masked": (*TASKS["language-modeling"], "bert+masked"),
    "causal": (task_settings.LanguageModeling(objective="causal"), tiny.make_sentences, "llama+causal"),
    "images": (task_settings.ImageClassification(mix="mixup"), tiny.make_picture_rows, "vit"),
}  # fmt: skip
"""Every kind of answer that a teacher can give."""

DEVICES = Devices(torch.device("cpu"), compute=None, stored=torch.float64, threads=1, micro_batch_tokens=300)


def bench_of(bases: Bases, kind: str, seed: int = 0, **settings: float) -> tuple[Bench, Bench]:
    """A student and its teacher on the same rows, in fp64 without dropout; the student's task hears the teacher."""
    built, make_rows, base = KINDS[kind]
    made = []
    for one in (seed, 5):
        task, method = tasks.build(built), methods.build(Full())
        rows = [Row(values, "rows", number) for number, values in enumerate(make_rows(20), start=1)]
        task.learn(rows)
        loaded = task.load(find_base(str(bases(base, dropout=0.0, seed=one))), one, torch.float64)
        apply_method(method, loaded, one, DEVICES)
        examples = task.encode(rows, loaded.processor, Limit(64))
        examples = [task.drawn(example, Draw(0, 0, row)) for row, example in enumerate(examples)]
        made.append(Bench(loaded, method, task, rows, examples, DEVICES))
    student, teacher = made
    student.task = Distilled(student.task, teacher.loaded, Teacher(model="teacher", **settings))  # type: ignore[arg-type]
    return student, teacher


def loss_of(bench: Bench, rows: Sequence[int] | None = None) -> Any:
    return bench.task.loss(bench.loaded, bench.task.prepare(bench.loaded, bench.batch(rows)))


def total(loss: Any) -> float:
    return float(loss.total.detach())


def by_hand(kind: str, student: Bench, teacher: Bench, temperature: float) -> float:
    """T^2 KL(teacher || student), summed over lines, in numpy, from the models' plain outputs."""
    found = 0.0
    for example in student.examples:
        batch = student.task.collate([example], student.loaded.processor)
        mine, theirs = (logits_of(bench.loaded.model, batch).double().numpy() for bench in (student, teacher))
        if kind == "number":
            found += float(((mine - theirs) ** 2).sum())
            continue
        if kind == "token-classification":
            mine, theirs = (x[batch["window"].numpy(), batch["position"].numpy()] for x in (mine, theirs))
        if kind in ("masked", "causal"):
            asked = batch["asked"].numpy()
            mine, theirs = ((x[:, :-1] if kind == "causal" else x) for x in (mine, theirs))
            asked = asked[:, 1:] if kind == "causal" else asked
            mine, theirs = mine[asked != -100], theirs[asked != -100]
        if kind == "many labels":
            p, q = (1 / (1 + np.exp(-x / temperature)) for x in (theirs, mine))
            divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
            found += temperature**2 * float(divergence.mean(axis=-1).sum())
        else:
            p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True) for x in (theirs, mine))
            found += temperature**2 * float((p * np.log(p / q)).sum())
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "images"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_the_formula(bases: Bases, kind: str, temperature: float) -> None:
    """(1 - alpha) of the task's own loss and alpha of the teacher's, row by row and by hand."""
    student, teacher = bench_of(bases, kind, temperature=temperature, alpha=0.3)
    own = student.task.task.loss(student.loaded, student.batch())
    mixed = loss_of(student)
    soft = by_hand(kind, student, teacher, temperature)
    assert soft > 1e-3, "teacher and student say the same: nothing was tested"
    assert total(mixed) == pytest.approx(0.7 * total(own) + 0.3 * soft, rel=1e-10)
    assert mixed.count == own.count
    assert mixed.metrics["teacher_loss"] == pytest.approx(soft, rel=1e-10)
    assert mixed.metrics["task_loss"] == pytest.approx(total(own), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_the_teacher_has_nothing_to_learn(bases: Bases, kind: str) -> None:
    """At alpha 1 the loss and every gradient of a student that is its teacher are 0, what its last layer says too."""
    student, teacher = bench_of(bases, kind, seed=5, alpha=1.0, hidden=0.5)
    loss = loss_of(student)
    loss.total.backward()
    gradients = [p.grad for p in student.loaded.model.parameters() if p.grad is not None]
    assert abs(total(loss)) <= 1e-12 * max(1.0, loss.count)
    assert gradients and max(float(gradient.abs().max()) for gradient in gradients) <= 1e-10
    other, _ = bench_of(bases, kind, seed=0, alpha=1.0, hidden=0.5)
    assert total(loss_of(other)) > 1e-3
    assert all(p.grad is None for p in teacher.loaded.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_may_be_cut_anyhow(bases: Bases, kind: str) -> None:
    """The loss of all rows is the sum over any parts of them, hidden states included."""
    student, _ = bench_of(bases, kind, alpha=0.5, hidden=0.7)
    whole = loss_of(student)
    parts = [loss_of(student, rows) for rows in (range(8), range(8, 10), range(10, 20))]
    assert sum(total(part) for part in parts) == pytest.approx(total(whole), rel=1e-10)
    assert sum(part.count for part in parts) == whole.count
    assert whole.metrics["teacher_distance"] > 1e-3


def test_the_distance_of_hidden_states_by_hand(bases: Bases) -> None:
    """1 minus the cosine at each real token, the mean over the tokens of a row."""
    student, teacher = bench_of(bases, "text-classification", alpha=0.0, hidden=1.0)
    away = 0.0
    for example in student.examples:
        batch = {name: torch.tensor([example[name]]) for name in ("input_ids", "attention_mask") if name in example}
        with torch.no_grad():
            mine, theirs = (bench.loaded.model.bert(**batch).last_hidden_state[0] for bench in (student, teacher))
        cosines = (mine * theirs).sum(-1) / (mine.norm(dim=-1) * theirs.norm(dim=-1))
        away += float((1 - cosines).mean())
    loss = loss_of(student)
    assert loss.metrics["teacher_distance"] == pytest.approx(away, rel=1e-9)
    assert total(loss) == pytest.approx(loss.metrics["task_loss"] + away, rel=1e-9)


def test_classes_of_other_weight_weigh_the_teachers_word_alike(bases: Bases) -> None:
    student, _ = bench_of(bases, "text-classification", alpha=1.0)
    even = loss_of(student)
    student.task.target.weights = [2.0, 2.0, 2.0]
    twice = loss_of(student)
    assert total(twice) == pytest.approx(2 * total(even)) and twice.count == 2 * even.count


@pytest.mark.parametrize("micro_batch_tokens", [24, 10_000])
def test_accumulated_is_the_whole_batch(bases: Bases, micro_batch_tokens: int) -> None:
    """However a batch is cut, the trained weights are the same."""
    made = []
    for budget in (micro_batch_tokens, 300):
        student, _ = bench_of(bases, "text-classification", alpha=0.5, hidden=0.5)
        student.devices = replace(DEVICES, micro_batch_tokens=budget)
        train(student, 4)
        made.append(student.weights())
    assert largest_difference(*made) <= 1e-11


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", tiny.make_rows(40))


@pytest.fixture(scope="module")
def teacher(bases: Bases, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tuned teacher of three layers. Look, do not touch."""
    course = {"steps": 20, "learning_rate": 3e-3, "precision": "fp64", "evaluate_every": 10}
    return run_tiny(bases("bert"), data, tmp_path_factory.mktemp("teacher") / "run", train=course)


def weights(finished: Run) -> dict[str, Any]:
    return load_file(finished.folder.model / "model.safetensors")


def taught(teacher: Run, **settings: Any) -> dict[str, Any]:
    return {"model": str(teacher.folder.path), **settings}


@pytest.mark.parametrize("family", ["Bert", "Albert"])
def test_the_last_layer_is_heard_once_a_pass(family: str) -> None:
    """Also where layers are shared, and one is passed through three times: what the last of them gives."""
    import transformers

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = getattr(transformers, f"{family}Config")(vocab_size=20, **size)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    batches = [torch.randint(3, 20, shape) for shape in ((2, 5), (3, 4))]
    with torch.no_grad(), overheard(model, True) as heard:
        states = [model(input_ids=ids, output_hidden_states=True).hidden_states[-1] for ids in batches]
    assert len(heard) == 2 and all(torch.equal(mine, state) for mine, state in zip(heard, states, strict=True))
    with torch.no_grad():
        model(input_ids=batches[0])
    assert len(heard) == 2


def test_who_does_not_hear_the_teacher_takes_its_path(tmp_path: Path) -> None:
    """Its baseline differs in the teacher alone, so it has no rewrites that the run itself could not have."""
    pairs = []
    for hidden in (0.0, 0.5):
        recipe = recipe_of(
            tmp_path / "base", tmp_path / "a", tmp_path / "run", teacher={"model": "t", "hidden": hidden}
        )
        other = recipe.without_teacher()
        assert other.teacher is not None and (other.teacher.alpha, other.teacher.hidden) == (0, 0)
        pairs.append((recipe.train.rewrites, other.train.rewrites))
    assert pairs == [("auto", "auto"), ("auto", "off")]


def test_at_alpha_0_nothing_is_heard(bases: Bases, data: Path, teacher: Run, tmp_path: Path) -> None:
    """The plain training, bit for bit, with dropout: losses and weights."""
    base = bases("bert", seed=3)
    plain = run_tiny(base, data, tmp_path / "plain", train=EXACT)
    deaf = run_tiny(base, data, tmp_path / "deaf", train=EXACT, teacher=taught(teacher, alpha=0.0))
    heard = run_tiny(base, data, tmp_path / "heard", train=EXACT, teacher=taught(teacher, alpha=0.5))
    losses = [[row["loss"] for row in lines(made.folder.steps)] for made in (plain, deaf, heard)]
    assert losses[0] == losses[1] != losses[2]
    assert largest_difference(weights(plain), weights(deaf)) == 0 < largest_difference(weights(plain), weights(heard))


def test_a_teacher_of_no_weight_is_the_plain_loss(bases: Bases) -> None:
    """Heard and weighed by nothing: the same bits as the task's own loss and gradients."""
    student, _ = bench_of(bases, "text-classification", alpha=1e-300)
    plain = student.task.task.loss(student.loaded, student.batch())
    heard = loss_of(student)
    assert total(heard) == total(plain) and heard.metrics["teacher_loss"] > 0


def test_the_teacher_is_rewritten_with_its_student(bases: Bases, data: Path, tmp_path: Path) -> None:
    """The faster path is taken by both and gives the same weights; where one of them cannot take it, neither does."""
    base = bases("bert", dropout=0.0)
    one = run_tiny(base, data, tmp_path / "teacher", train=EXACT)
    asked: dict[str, Any] = {"teacher": taught(one, layers=2)}
    fast = run_tiny(one.folder.path, data, tmp_path / "fast", train=EXACT, **asked)
    plain = run_tiny(one.folder.path, data, tmp_path / "off", train={**EXACT, "rewrites": "off"}, **asked)
    assert [trial["used"] for trial in fast.manifest["rewrites"]] == [True] and not plain.manifest["rewrites"]
    assert 0 < largest_difference(weights(fast), weights(plain)) <= 1e-9
    other = run_tiny(bases("distilbert"), data, tmp_path / "other", train=EXACT)
    mixed = recipe_of(other.folder.path, data, tmp_path / "mixed", train=EXACT, teacher=taught(one, alpha=0.7))
    choices = {choice["key"]: choice for choice in run(mixed).manifest["choices"]}
    assert choices["train.rewrites"]["value"] == [] and "distilbert" in choices["train.rewrites"]["why"]


def test_resume_equals_straight(bases: Bases, data: Path, teacher: Run, tmp_path: Path) -> None:
    straight, copies = tmp_path / "straight", tmp_path / "copies"
    settings = taught(teacher, hidden=0.3, layers=2)
    recipe = recipe_of(teacher.folder.path, data, straight, teacher=settings, **COURSE)
    run(recipe, voice=Photographer(straight, copies))
    wanted = contents(straight)
    cuts = [cut for cut in sorted(copies.iterdir()) if cut.name.endswith(("step-6-of-9", "judging"))]
    assert len(cuts) == 2
    for cut in cuts:
        moved = cut.rename(tmp_path / f"resumed-{cut.name}")
        resume(moved)
        assert_same(contents(moved), wanted, cut.name)


def test_another_teacher_is_refused_on_resume(bases: Bases, data: Path, teacher: Run, tmp_path: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher.folder.path, copy)
    folder = RunFolder(tmp_path / "cut")
    recipe = recipe_of(bases("bert"), data, folder.path, teacher={"model": str(copy)}, **COURSE)
    with pytest.raises(PowerCut):
        run(recipe, voice=Cutter(3))
    file = copy / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"teacher\.model\.safetensors was '\w+', is '\w+'"):
        resume(folder.path)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_student_is_the_teacher_with_fewer_layers(data: Path, teacher: Run, tmp_path: Path, layers: int) -> None:
    """Its first weights are the teacher's, layer by layer; one of all layers answers as the teacher; what was trained
    opens in plain transformers with the same answers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    course = {**EXACT, "learning_rate": 0.0}
    settings = taught(teacher, layers=layers)
    still = run(recipe_of(teacher.folder.path, data, tmp_path / "still", train=course, teacher=settings), ["rate-zero"])
    mine, theirs = weights(still), weights(teacher)
    for name, tensor in mine.items():
        place = name.split(".")
        if "layer" in place:
            number = place.index("layer") + 1
            place[number] = str(spaced(3, layers)[int(place[number])])
        assert torch.equal(tensor, theirs[".".join(place)]), name
    assert len({name.split(".")[3] for name in mine if ".layer." in name}) == layers
    texts = ["card", "my cash is lost", "transfer to the bank please"]
    if layers == 3:
        assert still.outputs([Row({"text": text}, "", 1) for text in texts])[0] == pytest.approx(
            teacher.outputs([Row({"text": text}, "", 1) for text in texts])[0], abs=1e-12
        )
    tuned = run_tiny(teacher.folder.path, data, tmp_path / "tuned", train=EXACT, teacher=settings)
    plain = AutoModelForSequenceClassification.from_pretrained(tuned.folder.model, dtype=torch.float64).eval()
    assert plain.config.num_hidden_layers == layers and len(plain.bert.encoder.layer) == layers
    tokenizer = AutoTokenizer.from_pretrained(tuned.folder.model)
    with torch.no_grad():
        logits = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    opened, task = tuned.load(DEVICES), tuned._task
    examples = task.encode([Row({"text": text}, "", 1) for text in texts], opened.processor, Limit(64))
    assert np.abs(np.stack(predict(opened, task, examples, DEVICES)) - logits).max() <= 1e-12


def test_layers_are_spaced_as_distilbert_took_them() -> None:
    assert spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert [spaced(6, many) for many in (1, 2, 6)] == [[0], [0, 5], list(range(6))]
    for whole in range(1, 30):
        for many in range(1, whole + 1):
            chosen = spaced(whole, many)
            assert len(set(chosen)) == many and chosen[0] == 0 and (many == 1 or chosen[-1] == whole - 1)


@pytest.mark.parametrize(("task", "base", "rows"), [
    ("token-classification", "distilbert", tiny.make_entity_rows),
    ("language-modeling", "bert+masked", tiny.make_sentences),
    ({"kind": "language-modeling", "objective": "causal"}, "llama+causal", tiny.make_sentences),
], ids=["tags", "gaps", "next tokens"])  # fmt: skip
def test_other_bodies_are_cut(bases: Bases, tmp_path: Path, task: Any, base: str, rows: Any) -> None:
    """Whatever a config calls its number of layers; tied heads stay tied."""
    data = tiny.write_rows(tmp_path / "train.jsonl", rows(40))
    whole = run_tiny(bases(base), data, tmp_path / "teacher", task=task)
    settings = taught(whole, layers=2, hidden=0.5)
    student = run_tiny(whole.folder.path, data, tmp_path / "student", task=task, teacher=settings)
    config = read_json(student.folder.model / "config.json")
    assert 2 in (config.get("num_hidden_layers"), config.get("n_layers"))
    found = read_json(student.folder.audits)["distillation"]
    assert 0 < found["student"]["parameters"] < found["teacher"]["parameters"]
    assert 0 < found["student"]["weight_bytes"] < found["teacher"]["weight_bytes"]


def test_an_image_teacher(bases: Bases, tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path / "pictures", 30)
    task = {"kind": "image-classification", "mix": "cutmix"}
    whole = run_tiny(bases("vit"), tmp_path / "pictures", tmp_path / "teacher", task=task)
    settings = taught(whole, layers=1, hidden=0.5)
    student = run_tiny(whole.folder.path, tmp_path / "pictures", tmp_path / "student", task=task, teacher=settings)
    assert read_json(student.folder.model / "config.json")["num_hidden_layers"] == 1


def test_a_teacher_may_be_an_adapter(bases: Bases, data: Path, tmp_path: Path) -> None:
    """Adapters are merged before a student is cut; one of all layers is the teacher but for rounding."""
    whole = run_tiny(bases("bert"), data, tmp_path / "teacher", method={"kind": "lora", "rank": 4})
    settings = taught(whole, layers=3, alpha=1.0)
    recipe = recipe_of(whole.folder.path, data, tmp_path / "s", teacher=settings, train={"learning_rate": 0.0})
    student = run(recipe, ["rate-zero"])
    assert lines(student.folder.steps)[0]["teacher_loss"] < 0.1
    rows = [Row({"text": "my cash is lost"}, "", 1)]
    assert student.outputs(rows)[0] == pytest.approx(whole.outputs(rows)[0], abs=1e-5)


@pytest.mark.parametrize(("base", "objective"), [("llama+causal", "causal"), ("bert+masked", "masked")])
def test_a_language_model_tuned_by_an_adapter_goes_on(bases: Bases, tmp_path: Path, base: str, objective: str) -> None:
    """Merged, with the tokens that were added for it, it answers as the run did; and a student can be cut from it."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(40))
    task = {"kind": "language-modeling", "objective": objective, "add_tokens": ["lostcard"]}
    whole = run_tiny(bases(base), data, tmp_path / "teacher", task=task, method={"kind": "lora", "rank": 4})
    settings = task_settings.LanguageModeling(objective=objective)  # type: ignore[arg-type]
    merged = tasks.build(settings).load(find_base(str(whole.folder.path)), 0, torch.float64)
    tokens = merged.processor(["my lostcard is lost"], return_tensors="pt")
    tokens.pop("token_type_ids", None)
    opened = whole.load(DEVICES)
    assert opened.processor("lostcard")["input_ids"] == merged.processor("lostcard")["input_ids"]
    with torch.no_grad():
        mine, theirs = (model.eval()(**tokens).logits for model in (merged.model, opened.model))
        plain = tasks.build(settings.but(add_tokens=["lostcard"])).load(find_base(str(bases(base))), 0, torch.float64)
        untuned = plain.model.eval()(**tokens).logits
    assert float((mine - theirs).abs().max()) <= 1e-6 < 1e-3 < float((mine - untuned).abs().max())
    student = run_tiny(whole.folder.path, data, tmp_path / "s", task=task, teacher=taught(whole, layers=2))
    assert read_json(student.folder.model / "config.json")["num_hidden_layers"] == 2
    other = {"causal": "masked", "masked": "causal"}[objective]
    with pytest.raises(ModelError, match=f"was not trained for language-modeling with the objective {other}"):
        tasks.build(settings.but(objective=other)).load(find_base(str(whole.folder.path)), 0, torch.float64)


def test_the_student_beside_its_teacher(data: Path, teacher: Run, tmp_path: Path) -> None:
    """Scores, sizes and times of both, on the same rows; and the baselines that were asked for."""
    test = tiny.write_rows(tmp_path / "test.jsonl", tiny.make_rows(21, seed=1))
    recipe = recipe_of(
        teacher.folder.path, data, tmp_path / "run", data={"train": str(data), "test": str(test)},
        teacher=taught(teacher, layers=1), judge={"baselines": ["majority", "teacher", "without-teacher"]},
    )  # fmt: skip
    finished = run(recipe)
    found = read_json(finished.folder.audits)["distillation"]
    assert found["split"] == "test" and found["metric"] == finished.scores["primary"]
    assert found["student"]["score"] == finished.scores["test"]["accuracy"]
    alone = teacher.evaluate(test)["scores"]["accuracy"]
    assert found["teacher"]["score"] == alone
    assert found["difference"]["value"] == pytest.approx(found["student"]["score"]["value"] - alone["value"])
    assert found["share_of_score"] == pytest.approx(found["student"]["score"]["value"] / alone["value"])
    assert found["teacher"]["parameters"] == teacher.manifest["parameters"]["total"]
    assert found["share_of_parameters"] == found["student"]["parameters"] / found["teacher"]["parameters"] < 1
    assert found["teacher"]["weight_bytes"] == (teacher.folder.model / "model.safetensors").stat().st_size
    assert found["share_of_latency"] > 0
    assert set(finished.scores["baselines"]) == {"majority", "teacher", "without-teacher"}
    deaf = Run(tmp_path / "run" / "without-teacher")
    plain = run(recipe.but(teacher=recipe.teacher and recipe.teacher.but(alpha=0.0), output=str(tmp_path / "plain"),
                           judge=recipe.judge.but(baselines="off")))  # fmt: skip
    assert largest_difference(weights(deaf), weights(plain)) == 0 < largest_difference(weights(deaf), weights(finished))
    page, card, paper = (finished.folder.path / name for name in ("report.html", "README.md", "paper.md"))
    kept = f"{100 * found['share_of_parameters']:.1f} % of its parameters"
    assert [kept in " ".join(file.read_text().split()) for file in (page, card, paper)] == [True] * 3
    assert "Beside its teacher" in page.read_text() and "Beside its teacher" in card.read_text()
    assert "began as 1 layer of its teacher" in paper.read_text() and "hinton2015distilling" in paper.read_text()
    assert str(teacher.folder.path) not in page.read_text() + card.read_text() + paper.read_text()
    assert finished.scores["baselines"]["without-teacher"]["accuracy"] == deaf.scores["test"]["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["labels", "score"])
def test_other_targets_from_file_to_report(bases: Bases, tmp_path: Path, target: str) -> None:
    """Many labels and a number, long texts in windows: cut, taught, judged; a test that was not the teacher's is told
    of, and one that was is not."""
    make = KINDS["many labels" if target == "labels" else "number"][1]
    files = {name: str(tiny.write_rows(tmp_path / f"{name}.jsonl", make(40))) for name in ("train", "test")}
    course = {"steps": 4, "long_text": "windows", "max_length": 12}
    sections: dict[str, Any] = {"data": files, "task": {"target": target}, "train": course}
    whole = run_tiny(bases("bert"), Path(), tmp_path / "teacher", **sections)
    student = run_tiny(whole.folder.path, Path(), tmp_path / "student", teacher=taught(whole, layers=1), **sections)
    assert read_json(student.folder.audits)["distillation"]["difference"]["low"] is not None
    assert "teacher-knows-test" not in [note["code"] for note in read_json(student.folder.check)]
    other = tiny.write_rows(tmp_path / "other.jsonl", make(39))
    sections["data"] = {**files, "test": str(other)}
    told = run_tiny(whole.folder.path, Path(), tmp_path / "other", teacher=taught(whole, hidden=0.5), **sections)
    assert "teacher-knows-test" in [note["code"] for note in read_json(told.folder.check)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a task that cannot be taught": ({"task": "question-answering"}, "teacher: not for question-answering yet"),
    "an adapter of what was cut": ({"method": "lora", "layers": 2}, "method: lora is not for a student that is cut"),
    "another model than the cut one": ({"model": "elsewhere", "layers": 2}, "must name the same folder"),
    "stages before a cut": ({"stages": [{"data": {"train": "x"}}], "layers": 2}, "teacher.layers: a student that is"),
    "a rewrite that reads less": ({"train": {"rewrites": ["flat-batch"]}, "hidden": 0.5}, "train.rewrites: teacher.h"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recipe_that_cannot_be_meant_is_refused(tmp_path: Path, case: str) -> None:
    given, message = REFUSED[case]
    teacher = {"model": "runs/teacher", **{name: given[name] for name in ("layers", "hidden") if name in given}}
    rest = {name: value for name, value in given.items() if name not in ("layers", "hidden")}
    page = tmp_path / "recipe.yaml"
    page.write_text(json.dumps({"model": "runs/teacher", "data": {"train": "a.jsonl"}, "teacher": teacher, **rest}))
    with pytest.raises(RecipeError) as caught:
        read_recipe(page)
    assert [message in str(fault) for fault in caught.value.faults] == [True], caught.value.faults


def test_who_does_not_fit_is_no_teacher(bases: Bases, data: Path, teacher: Run, tmp_path: Path) -> None:
    """Other labels, another task, another vocabulary, other widths, too many layers: each is named before training."""

    def refused(message: str, base: Path | None = None, rows: Path = data, **sections: Any) -> None:
        with pytest.raises(ModelError, match=message):
            run(recipe_of(base or bases("bert"), rows, tmp_path / "no", **{"teacher": taught(teacher), **sections}))
        assert not (tmp_path / "no" / "recipe.yaml").exists()

    fewer = tiny.write_rows(tmp_path / "two.jsonl", tiny.make_rows(40, labels=("card", "loan")))
    refused(r"labels are others: in these rows alone: loan; the teacher's alone: cash, transfer", rows=fewer)
    tagged = tiny.write_rows(tmp_path / "tagged.jsonl", tiny.make_entity_rows(40))
    refused("its task's kind is text-classification", rows=tagged, task="token-classification")
    refused("its task's target is label, this recipe's is path", task={"target": "path"})
    other = tmp_path / "other"
    shutil.copytree(bases("bert"), other)
    for name in ("vocab.txt", "tokenizer.json"):
        if (other / name).exists():
            (other / name).write_text((other / name).read_text().replace("card", "dark"))
    refused("its tokenizer is another than the student's", base=other)
    refused("4 asked for, the teacher has 3", base=teacher.folder.path, teacher=taught(teacher, layers=4))
    with pytest.raises(CheckpointError, match="no such folder"):
        run(recipe_of(bases("bert"), data, tmp_path / "no", teacher={"model": str(tmp_path / "nowhere")}))


def test_paths_move_with_the_recipe(tmp_path: Path) -> None:
    page = tmp_path / "recipe.yaml"
    page.write_text("model: runs/a\ndata: {train: b.jsonl}\nteacher: {model: runs/a, layers: 2}\n")
    recipe = read_recipe(page)
    assert recipe.teacher is not None and recipe.teacher.model == recipe.model == str(tmp_path / "runs" / "a")
    (tmp_path / "deep").mkdir()
    write_recipe(recipe, tmp_path / "deep" / "recipe.yaml")
    assert "model: ../runs/a" in (tmp_path / "deep" / "recipe.yaml").read_text()
    again = read_recipe(tmp_path / "deep" / "recipe.yaml")
    assert again.teacher == recipe.teacher and again.model == recipe.model


def test_an_unknown_setting_of_a_teacher_has_a_near_one(tmp_path: Path) -> None:
    page = tmp_path / "recipe.yaml"
    page.write_text("model: m\ndata: {train: b.jsonl}\nteacher: {model: runs/a, temprature: 2}\n")
    with pytest.raises(RecipeError, match="no such setting") as caught:
        read_recipe(page)
    assert 'did you mean "temperature"?' in str(caught.value.faults[0])


@pytest.mark.slow
def test_two_processes_hear_the_same_teacher(bases: Bases, data: Path, teacher: Run, tmp_path: Path) -> None:
    whole = run_tiny(bases("bert", dropout=0.0), data, tmp_path / "teacher", train={**EXACT, "steps": 12})
    sections: dict[str, Any] = {"teacher": taught(whole, layers=2, hidden=0.5), "train": EXACT}
    alone = run_tiny(whole.folder.path, data, tmp_path / "one", **sections)
    machine = {"processes": 2, "threads": 1, "micro_batch_tokens": 40}
    write_recipe(recipe_of(whole.folder.path, data, tmp_path / "two", machine=machine, **sections), tmp_path / "2.yaml")
    codes, told = in_two(["run", str(tmp_path / "2.yaml")], tmp_path)
    assert codes == [0, 0], told
    assert largest_difference(weights(alone), weights(Run(tmp_path / "two"))) <= 1e-12
