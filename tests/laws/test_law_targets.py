"""Every kind of answer: its loss is torch's, its metrics are those of the field's libraries, and its decisions are made
on the rows they are said to be made on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch.nn import functional
from workbench import run_tiny

import tiny
from tunesmith import tasks
from tunesmith.baselines import Tfidf
from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.evaluation import _resamples, as_predictions, score
from tunesmith.folder import lines
from tunesmith.models.references import find_base
from tunesmith.open import Run
from tunesmith.recipe import ImageClassification, TextClassification
from tunesmith.tasks import metrics
from tunesmith.tasks.contract import Answer, Limit, Prediction
from tunesmith.tasks.long_texts import MOST_WINDOWS, OVERLAP
from tunesmith.tasks.targets import TARGETS

Bases = Callable[..., Path]


def target_of(kind: str, rows: list[dict[str, Any]], **settings: Any) -> Any:
    target = TARGETS[kind](TextClassification(target=kind, **settings))
    target.learn(as_rows(rows))
    return target


def as_rows(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row({"text": "a", **values}, "rows", number) for number, values in enumerate(rows, start=1)]


ONE = [{"label": label} for label in "aaabbc"]
MANY = [{"labels": labels} for labels in (["a"], ["a", "b"], [], ["c"], ["b", "c"], ["a", "b", "c"])]
NUMBERS = [{"score": float(value)} for value in (0, 1, 1.5, 4, 4, 5)]
RANDOM = np.random.default_rng(3)


# losses


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"class_weights": "balanced"}])
def test_one_label_is_torchs_cross_entropy(settings: dict[str, Any]) -> None:
    target = target_of("label", ONE, **settings)
    logits = torch.tensor(RANDOM.normal(size=(6, 3)))
    numbers = target.tensor(target.numbers(as_rows(ONE)))
    loss = target.loss(logits, numbers)
    weights = torch.tensor(target.weights, dtype=torch.float64) if target.weights else None
    wanted = functional.cross_entropy(
        logits, numbers, weight=weights if "label_smoothing" not in settings else None,
        label_smoothing=settings.get("label_smoothing", 0.0),
    )  # fmt: skip
    assert float(loss.total / loss.count) == pytest.approx(float(wanted), abs=1e-12)
    if weights is not None:
        assert target.weights == pytest.approx([6 / 9, 1.0, 2.0])
        assert loss.count == pytest.approx(6.0), "balanced weights keep the rows' number"


def test_focal_loss_is_its_formula_and_falls_back_to_cross_entropy() -> None:
    logits = torch.tensor(RANDOM.normal(size=(6, 3)))
    numbers = torch.tensor([0, 0, 0, 1, 1, 2])
    log = functional.log_softmax(logits, dim=-1)[torch.arange(6), numbers]
    focused = target_of("label", ONE, focal_gamma=2.0).loss(logits, numbers)
    assert float(focused.total) == pytest.approx(float((-log * (1 - log.exp()) ** 2).sum()), abs=1e-12)
    many = target_of("labels", MANY, focal_gamma=1.5)
    wanted = target_of("labels", MANY).tensor(many.numbers(as_rows(MANY))).double()
    share = torch.where(wanted > 0.5, logits.sigmoid(), 1 - logits.sigmoid())
    by_hand = (-(share.log()) * (1 - share) ** 1.5).mean(dim=-1).sum()
    assert float(many.loss(logits, wanted).total) == pytest.approx(float(by_hand), abs=1e-12)


@pytest.mark.parametrize("weights", ["off", "balanced"])
def test_many_labels_are_torchs_binary_cross_entropy(weights: str) -> None:
    target = target_of("labels", MANY, class_weights=weights)
    logits = torch.tensor(RANDOM.normal(size=(6, 3)))
    wanted = target.tensor(target.numbers(as_rows(MANY)))
    assert wanted.tolist()[5] == [1, 1, 1] and wanted.tolist()[2] == [0, 0, 0]
    pulls = torch.tensor(target.weights, dtype=torch.float64) if target.weights else None
    oracle = functional.binary_cross_entropy_with_logits(logits, wanted.double(), pos_weight=pulls, reduction="none")
    loss = target.loss(logits, wanted)
    assert float(loss.total) == pytest.approx(float(oracle.mean(dim=-1).sum()), abs=1e-12)
    assert loss.count == 6


def test_a_number_is_learned_in_its_own_spread() -> None:
    target = target_of("score", NUMBERS)
    numbers = target.tensor(target.numbers(as_rows([*NUMBERS, {}])))
    assert float(numbers[:-1].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(numbers[:-1].std(correction=0)) == pytest.approx(1.0)
    outputs = torch.tensor(RANDOM.normal(size=(7, 1)), requires_grad=True)
    loss = target.loss(outputs, numbers)
    assert float(loss.total.detach()) == pytest.approx(
        float(functional.mse_loss(outputs.detach()[:6, 0], numbers[:6], reduction="sum"))
    )
    assert loss.count == 6, "a row without a score counts nothing"
    loss.total.backward()
    assert torch.isfinite(outputs.grad).all() and float(outputs.grad[6]) == 0.0
    answers = target.answers(numbers.numpy()[:6, None], target.decide(numbers.numpy()[:6, None], []))
    assert [answer.value for answer in answers] == pytest.approx([row["score"] for row in NUMBERS])


@pytest.mark.parametrize(("kind", "rows"), [("label", ONE[:3]), ("labels", [{"labels": []}]), ("score", NUMBERS[3:5])])
def test_rows_that_teach_nothing_are_refused(kind: str, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError):
        target_of(kind, rows)


# metrics

CASES = pytest.mark.parametrize("cases", [100, pytest.param(1000, marks=pytest.mark.slow)])


@CASES
def test_metrics_of_labels_equal_scikit_learn(cases: int) -> None:
    source = np.random.default_rng(1)
    for _ in range(cases):
        rows = int(source.integers(2, 50))
        golds, answers = (source.integers(0, 4, rows).astype(str).tolist() for _ in range(2))
        found = target_of("label", ONE).measures(
            [Prediction(i, g, a) for i, (g, a) in enumerate(zip(golds, answers, strict=False))]
        )
        weighted = sk.f1_score(golds, answers, average="weighted", zero_division=0)
        assert found["weighted_f1"]() == pytest.approx(weighted, abs=1e-12)
        if len(set(golds)) > 1:
            assert found["mcc"]() == pytest.approx(sk.matthews_corrcoef(golds, answers), abs=1e-12)


def many_case(source: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Prediction]]:
    rows = int(source.integers(3, 60))
    gold_RC, scores_RC = source.random((rows, 4)) < 0.3, source.random((rows, 4)).round(1)  # ties are common
    names = "abcd"
    predictions = [
        Prediction(
            row,
            [names[c] for c in np.flatnonzero(gold_RC[row])],
            [names[c] for c in np.flatnonzero(scores_RC[row] >= 0.5)],
            0.5,
            dict(zip(names, scores_RC[row].tolist(), strict=True)),
        )
        for row in range(rows)
    ]
    return gold_RC, scores_RC, predictions


@CASES
def test_metrics_of_many_labels_equal_scikit_learn(cases: int) -> None:
    source = np.random.default_rng(2)
    for _ in range(cases):
        gold_RC, scores_RC, predictions = many_case(source)
        answer_RC = scores_RC >= 0.5
        found = target_of("labels", MANY).measures(predictions)
        occurs = np.flatnonzero((gold_RC | answer_RC).any(axis=0))
        for average in ("micro", "macro", "weighted"):
            wanted = sk.f1_score(gold_RC[:, occurs], answer_RC[:, occurs], average=average, zero_division=0)
            assert found[f"{average}_f1"]() == pytest.approx(wanted, abs=1e-12)
        assert found["exact_match"]() == pytest.approx(sk.accuracy_score(gold_RC, answer_RC))
        present = np.flatnonzero(gold_RC.any(axis=0))
        if len(present):
            wanted = sk.average_precision_score(gold_RC[:, present], scores_RC[:, present], average="macro")
            assert found["mean_average_precision"]() == pytest.approx(wanted, abs=1e-12)


@CASES
def test_correlations_equal_scipy(cases: int) -> None:
    source = np.random.default_rng(4)
    for _ in range(cases):
        gold, answer = source.integers(0, 6, 30).astype(float), source.normal(size=30).round(1)
        assert metrics.spearman(gold, answer)() == pytest.approx(stats.spearmanr(gold, answer).statistic, abs=1e-12)
        assert metrics.pearson(gold, answer)() == pytest.approx(stats.pearsonr(gold, answer).statistic, abs=1e-12)
        rmse = sk.root_mean_squared_error(gold, answer)
        assert metrics.root_mean_squared_error(gold, answer)() == pytest.approx(rmse)
    assert metrics.spearman(gold, np.zeros(30))() == metrics.pearson(gold, np.zeros(30))() == 0.0


PLACES = [{"label": label} for label in ("card/lost", "card/stolen", "cash/fee", "cash")]
GOLDS = {"label": ONE, "labels": MANY, "path": PLACES, "score": NUMBERS}


@pytest.mark.parametrize("settings", [TextClassification, ImageClassification])
@pytest.mark.parametrize("kind", GOLDS)
def test_gold_answers_are_perfect(kind: str, settings: Callable[..., Any]) -> None:
    """Of texts and of images: every metric is 1.0 with an interval of 1.0 to 1.0, a root mean squared error 0."""
    task, rows = tasks.build(settings(target=kind)), as_rows(GOLDS[kind])
    task.learn(rows)
    golds = [task.gold(row) for row in rows]
    shares = (
        [dict.fromkeys(gold, 1.0) | dict.fromkeys(set("abc") - set(gold), 0.0) for gold in golds]
        if kind == "labels"
        else None
    )
    answers = [Answer(gold, 1.0, shares[i] if shares else None) for i, gold in enumerate(golds)]
    measured = score(task.measures(as_predictions(golds, answers)))
    assert task.primary(rows) in measured
    for name, found in measured.items():
        perfect = 0.0 if name in ("rmse", "mae", "ece") else 1.0
        assert found == {side: pytest.approx(perfect) for side in ("value", "low", "high")}, name


def test_every_bootstrap_is_an_explicit_resample() -> None:
    """Also for metrics that go by rank: the weighted value is the value of the rows drawn."""
    gold_RC, scores_RC, _ = many_case(np.random.default_rng(7))
    x, y = np.random.default_rng(8).normal(size=(2, len(gold_RC))).round(1)
    classes = scores_RC.argmax(axis=1)
    made: dict[str, Callable[[np.ndarray], metrics.Measure]] = {
        "map": lambda i: metrics.mean_average_precision(gold_RC[i], scores_RC[i]),
        "spearman": lambda i: metrics.spearman(x[i], y[i]),
        "pearson": lambda i: metrics.pearson(x[i], y[i]),
        "rmse": lambda i: metrics.root_mean_squared_error(x[i], y[i]),
        "ece": lambda i: metrics.calibration_error(scores_RC[i, 0], gold_RC[i, 0]),
        "mcc": lambda i: metrics.matthews(np.eye(4)[classes[i]], gold_RC[i].astype(float)),
        **{
            name: lambda i, name=name: metrics.class_metrics(gold_RC[i], scores_RC[i] > 0.4)[name]
            for name in ("micro_f1", "macro_f1", "weighted_f1")
        },
    }
    (_, counts), *_ = _resamples(len(gold_RC))
    for name, make in made.items():
        whole = make(np.arange(len(gold_RC)))
        for draw in counts[:25]:
            picked = np.repeat(np.arange(len(gold_RC)), draw.astype(int))
            assert float(whole.resampled(draw[None])[0]) == pytest.approx(make(picked)(), abs=1e-10), name


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.95 sure and 3 of 4 right, 0.55 sure and 1 of 2 right."""
    confidence = np.array([0.95] * 4 + [0.55] * 2)
    right = np.array([1, 1, 1, 0, 1, 0], dtype=float)
    assert metrics.calibration_error(confidence, right)() == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)


# decisions


def test_temperature_makes_an_overconfident_model_honest() -> None:
    """Labels drawn from known probabilities, logits three times too large: the temperature found is about three, the
    calibration error falls, and no answer changes."""
    source = np.random.default_rng(0)
    logits = source.normal(size=(4000, 3)) * 1.5
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    golds = ["abc"[source.choice(3, p=share)] for share in shares]
    target = target_of("label", ONE)
    decision = target.decide(3 * logits, golds)
    assert decision["temperature"] == pytest.approx(3.0, rel=0.08)
    before = as_predictions(golds, target.answers(3 * logits, {"temperature": 1.0}))
    after = as_predictions(golds, target.answers(3 * logits, decision))
    assert [p.answer for p in before] == [p.answer for p in after]
    assert target.measures(after)["ece"]() < 0.03 < 0.1 < target.measures(before)["ece"]()


@pytest.mark.parametrize("threshold", ["shared", "per-label", 0.5])
def test_thresholds_are_chosen_where_they_were_asked_for(threshold: Any) -> None:
    """Label a is right from 0.2 on, label b from 0.7: each of its own finds both, 0.5 finds neither."""
    source = np.random.default_rng(0)
    shares = source.uniform(0.01, 0.99, size=(500, 2))
    golds = [
        [name for name, share, limit in zip("ab", row, (0.2, 0.7), strict=True) if share >= limit] for row in shares
    ]
    target = target_of("labels", [{"labels": ["a", "b"]}, {"labels": ["a"]}], threshold=threshold)
    outputs = target.logits(shares)
    decision = {**target.decide(outputs, golds), "temperature": 1.0}
    refit = target.decide(outputs, golds)
    answers = [answer.value for answer in target.answers(outputs, refit)]
    exact = sum(answer == gold for answer, gold in zip(answers, golds, strict=True)) / 500
    if threshold == "per-label":
        assert exact > 0.97 and refit["thresholds"][0] < refit["thresholds"][1]
    else:
        assert len(set(decision["thresholds"])) == 1 and exact < 0.9
    if threshold == 0.5:
        assert decision["thresholds"] == [0.5, 0.5]


def test_taxonomies_are_consistent() -> None:
    """A branch is as probable as all that lies below it; shared ancestors count."""
    rows = [{"label": label} for label in ("card/lost", "card/stolen", "cash/fee", "cash")]
    target = target_of("path", rows)
    outputs = np.random.default_rng(0).normal(size=(50, 4))
    for answer in target.answers(outputs, {"temperature": 1.0}):
        shown = target.shown(answer)
        scores = [level["score"] for level in shown["levels"]]
        assert scores == sorted(scores, reverse=True) and scores[-1] == shown["score"]
        assert all(shown["label"].startswith(level["label"]) for level in shown["levels"])
    found = target.measures([Prediction(0, "card/lost", "card/stolen"), Prediction(1, "cash/fee", "cash/fee")])
    assert found["accuracy"]() == 0.5 and found["accuracy_level_1"]() == 1.0
    assert found["hierarchical_f1"]() == pytest.approx(2 * (1 + 2) / 8)


def test_answers_that_are_all_right_are_not_made_surer() -> None:
    """With no wrong row to learn from, the likeliest temperature is the lowest: as if nothing were in doubt."""
    logits = np.array([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]])
    one = target_of("label", [{"label": label} for label in "abc"])
    assert one.decide(logits, ["a", "b", "c"])["temperature"] >= 1.0
    many = target_of("labels", [{"labels": [label]} for label in "abc"])
    assert many.decide(logits - 1.0, [["a"], ["b"], ["c"]])["temperature"] >= 1.0
    assert one.decide(np.tile(logits, (20, 1)), [*"abc" * 19, *"bca"])["temperature"] < 20


def test_smoothing_does_not_turn_a_rare_label_around() -> None:
    """Of a row without a rare label, the label's weight must not count: it would teach to give it."""
    rows = [{"labels": ["rare"]}, *({"labels": ["common"]} for _ in range(999))]
    target = target_of("labels", rows, class_weights="balanced", label_smoothing=0.1)
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    without = target.tensor(target.numbers(as_rows([{"labels": ["common"]}])))
    target.loss(logits, without).total.backward()
    rare = target.labels.index("rare")
    assert logits.grad is not None and logits.grad[0, rare] > 0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_slope_where_an_answer_is_certain(gamma: float) -> None:
    for kind, rows in (("label", ONE), ("labels", MANY)):
        target = target_of(kind, rows, focal_gamma=gamma)
        logits = torch.full((len(rows), len(target.labels)), 60.0, requires_grad=True)
        target.loss(logits, target.tensor(target.numbers(as_rows(rows)))).total.backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_equal_scores_are_found_whatever_their_rounding() -> None:
    with pytest.raises(DataError, match="the same score"):
        target_of("score", [{"score": 0.1}] * 3)


# long texts


@pytest.mark.parametrize("policy", ["truncate", "head_tail", "windows"])
def test_long_texts(bases: Bases, policy: str) -> None:
    """Nothing exceeds the limit; what is kept is where it is said to be; windows hold every word and overlap."""
    task = tasks.build(TextClassification(target="label"))
    words = [word for word in tiny.WORDS if len(word) > 1][:40]
    rows = as_rows([{"text": " ".join(words), "label": "x"}, {"text": "card", "label": "y"},
                    {"text": "why", "text_pair": " ".join(words), "label": "y"}])  # fmt: skip
    task.learn(rows)
    processor = task.load(_base(bases), 0, torch.float32).processor
    limit = Limit(16, policy)
    examples = task.encode(rows, processor, limit)
    batch = task.collate(examples, processor)
    assert batch["input_ids"].shape[1] <= 16
    assert task.count_cut(rows, examples, processor, limit) == (0 if policy == "windows" else 2)
    texts = [processor.decode(ids, skip_special_tokens=True).split() for ids in batch["input_ids"]]
    if policy == "truncate":
        assert texts[0] == words[:14]
    if policy == "head_tail":
        assert texts[0] == [*words[:3], *words[-11:]]
        assert texts[2][0] == "why" and texts[2][-1] == words[-1]
    if policy == "windows":
        owner = batch["owner"].tolist()
        assert owner == sorted(owner) and owner.count(1) == 1
        for row in (0, 2):
            mine = [text for text, of in zip(texts, owner, strict=True) if of == row]
            assert {word for text in mine for word in text} >= set(words)
            assert all(set(one) & (set(two) - {"why"}) for one, two in itertools.pairwise(mine))
        assert all(text[0] == "why" for text, of in zip(texts, owner, strict=True) if of == 2)


def test_what_windows_leave_unread_is_counted(bases: Bases) -> None:
    """A partner that had to be cut, and text beyond the last window; but no text that the last window just holds."""
    task = tasks.build(TextClassification(target="label"))
    word = next(word for word in tiny.WORDS if len(word) > 1)
    just_all = 14 + (MOST_WINDOWS - 1) * (14 - 14 // OVERLAP)  # of 16 tokens two are special
    long, pair = (lambda many: {"text": " ".join([word] * many), "label": "x"}), {"text_pair": " ".join([word] * 13)}
    rows = as_rows([long(just_all), long(just_all + 1), {**long(13), **pair}, {**long(40), "text_pair": word}, long(3)])
    task.learn([*rows, *as_rows([{"text": word, "label": "y"}])])
    processor = task.load(_base(bases), 0, torch.float32).processor
    for index, lost in enumerate((0, 1, 1, 0, 0)):
        row, limit = rows[index : index + 1], Limit(16, "windows")
        assert task.count_cut(row, task.encode(row, processor, limit), processor, limit) == lost, index
    assert task.count_cut(rows, task.encode(rows, processor, limit), processor, limit) == 2


def test_a_task_of_a_single_label_has_its_baseline() -> None:
    rows = [{"text": f"{'urgent' if n % 3 else 'later'} {n}", "labels": ["urgent"] if n % 3 else []} for n in range(30)]
    task = tasks.build(TextClassification(target="labels"))
    task.learn(as_rows(rows))
    outputs = Tfidf.fit(task, as_rows(rows)).predict(as_rows(rows), [])
    assert outputs.shape == (30, 1) and ((outputs[:, 0] > 0) == [bool(row["labels"]) for row in rows]).all()


def _base(bases: Bases) -> Any:
    from tunesmith.models.references import find_base

    return find_base(str(bases("bert")))


# whole runs

TASK_ROWS: dict[str, Callable[[dict[str, str], int], dict[str, Any]]] = {
    "label": lambda row, number: row,
    "path": lambda row, number: {**row, "label": f"all/{row['label']}"},
    "labels": lambda row, number: {"text": row["text"], "labels": [row["label"], *(["even"] if number % 2 else [])]},
    "score": lambda row, number: {"text": row["text"], "score": float(tiny.LABELS.index(row["label"])) * 10 + 100},
}


@pytest.mark.drawn
@pytest.mark.parametrize("policy", ["truncate", "windows"])
@pytest.mark.parametrize("kind", TASK_ROWS)
def test_every_target_runs_from_file_to_answers(bases: Bases, tmp_path: Path, kind: str, policy: str) -> None:
    """Train, judge, report, open again: the answers of the opened model are those of the run."""
    train, test = (
        tiny.write_rows(tmp_path / name, [TASK_ROWS[kind](row, i) for i, row in enumerate(tiny.make_rows(many, seed))])
        for name, many, seed in (("train.jsonl", 60, 0), ("test.jsonl", 24, 1))
    )
    task: dict[str, Any] = {"kind": "text-classification"}
    if kind == "path":
        task["target"] = "path"
    run = run_tiny(
        bases("bert"), train, tmp_path / "run", data={"train": str(train), "test": str(test)}, task=task,
        train={"max_length": 12, "long_text": policy}, judge={"baselines": "auto"},
    )  # fmt: skip
    assert run.manifest["identity"]["task.target"] == kind
    assert run.folder.report.exists() and run.folder.card.exists() and run.folder.paper.exists()
    recorded = lines(run.folder.predictions("test"))
    again = list(Run(run.folder.path, machine=run.machine).predict_file(test))
    key = {"labels": "labels", "score": "score"}.get(kind, "label")
    if kind == "score":
        assert [row["answer"] for row in recorded] == pytest.approx([row[key] for row in again], rel=1e-5)
    else:
        assert [row["answer"] for row in recorded] == [row[key] for row in again]
    measured = run.evaluate(test)["scores"]
    primary = run.scores["primary"]
    assert measured[primary]["value"] == pytest.approx(run.scores["test"][primary]["value"], abs=1e-6)
    assert set(run.scores["baselines"]) == {"majority", "tfidf", "nearest-neighbours"}


def test_a_step_divides_by_the_weight_of_its_rows(bases: Bases, tmp_path: Path) -> None:
    """In a batch of one row its weight cancels, be it less than one or more: nothing else would be the mean."""
    rows = [
        {"text": row["text"], "label": "rare" if n % 8 == 0 else "common"} for n, row in enumerate(tiny.make_rows(40))
    ]
    train = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    losses = []
    for weights in ("off", "balanced"):
        run = run_tiny(
            bases("bert", dropout=0.0), train, tmp_path / weights,
            task={"kind": "text-classification", "class_weights": weights},
            train={"batch_size": 1, "learning_rate": 1e-12, "steps": 12}, judge={"baselines": "off"},
        )  # fmt: skip
        losses.append([step["loss"] for step in lines(run.folder.steps)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_settings_are_worked_out_from_the_columns() -> None:
    def settle(found: list[str], named: dict[str, str] | None = None) -> str:
        return TextClassification().settled(found, named or {}).target

    assert settle(["text", "label"]) == "label"
    assert settle(["text", "labels"]) == "labels"
    assert settle(["sentence1", "sentence2", "score"]) == "score"
    assert settle(["sentence1", "sentence2", "score", "label"]) == "label", "the commoner kind first"
    assert settle(["a", "b", "c"], {"score": "b"}) == "score", "what the recipe names comes first"
    assert settle(["text", "rating", "topic"], {"label": "topic"}) == "label"
    assert settle(["text", "label", "fine_label"], {"label": "label/fine_label"}) == "path"
    assert settle(["text"]) == "label"


def test_scores_have_intervals_for_every_metric() -> None:
    _, _, predictions = many_case(np.random.default_rng(9))
    for name, measured in score(target_of("labels", MANY).measures(predictions)).items():
        assert measured["low"] <= measured["value"] <= measured["high"], name


def test_a_new_head_of_many_labels_begins_with_their_odds(bases: Callable[..., Path]) -> None:
    """Before the first step each label is as probable as it is frequent; balanced classes begin even,
    and a head that was trained before is left as it is."""
    labels = [["a"], ["a", "b"], ["a"], []] * 5
    rows = [Row({"text": f"card {i}", "labels": given}, "rows", i) for i, given in enumerate(labels, start=1)]
    base = find_base(str(bases("bert", dropout=0.0)))
    for class_weights, wanted in (("off", [15.5 / 21, 5.5 / 21]), ("balanced", None)):
        task = tasks.build(TextClassification(target="labels", class_weights=class_weights))
        task.learn(rows)
        bias = task.load(base, 0, torch.float64).model.classifier.bias.detach()
        if wanted is not None:
            assert torch.sigmoid(bias).tolist() == pytest.approx(wanted, abs=1e-6)
        else:
            assert float(bias.abs().max()) < 0.1, "positive rows weigh as much as negative ones"
        again = tasks.build(TextClassification(target="labels", class_weights=class_weights))
        again.recall(task.learned())
        assert torch.equal(again.load(base, 0, torch.float64).model.classifier.bias.detach(), bias)
