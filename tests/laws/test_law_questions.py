"""Questions about texts: encoded, learned, answered and scored as SQuAD does."""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import EVERY_METHOD, largest_difference, run_tiny, set_up, train

import tiny
from tunesmith import tasks
from tunesmith.data.rows import Row
from tunesmith.data.sources import read_rows
from tunesmith.evaluation import as_predictions, predict, score
from tunesmith.folder import lines
from tunesmith.recipe import Full, Lora, QuestionAnswering, Settings
from tunesmith.tasks.contract import Answer, Limit
from tunesmith.tasks.question_answering import Found, exact_of, f1_of

Bases = Callable[..., Path]
KIND = "question-answering"
TASK = tasks.build(QuestionAnswering())
COLUMNS = QuestionAnswering().columns


def official(answer: str, gold: str) -> tuple[float, float]:
    """Exact match and F1, written out from the definition of SQuAD's evaluation script."""

    def cleaned(text: str) -> str:
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    mine, theirs = cleaned(answer).split(), cleaned(gold).split()
    same = sum((Counter(mine) & Counter(theirs)).values())
    if not mine or not theirs:
        f1 = float(mine == theirs)
    elif same == 0:
        f1 = 0.0
    else:
        precision, recall = same / len(mine), same / len(theirs)
        f1 = 2 * precision * recall / (precision + recall)
    return float(cleaned(answer) == cleaned(gold)), f1


def test_scores_are_those_of_squad() -> None:
    """On 1,000 random cases, of all rows and of those with and without an answer."""
    source = np.random.default_rng(3)
    words = ["The", "a", "an", "red", "Red,", "card.", "card", "is-it", "", "Ω", "42"]

    def text() -> str:
        return " ".join(source.choice(words, size=source.integers(0, 5)))

    for _ in range(1000):
        golds = [[text() or "x" for _ in range(source.integers(0, 3))] for _ in range(source.integers(1, 6))]
        answers = [gold[0] if gold and source.random() < 0.4 else text() for gold in golds]
        told = [Answer({"text": answer, "start": 0, "end": 0}, 0.5) for answer in answers]
        mine = {name: measure() for name, measure in TASK.measures(as_predictions(golds, told)).items()}
        best = [
            [max(official(answer, other)[side] for other in gold or [""]) for side in (0, 1)]
            for answer, gold in zip(answers, golds, strict=True)
        ]
        assert mine["exact_match"] == pytest.approx(np.mean([exact for exact, _ in best]), abs=1e-12)
        assert mine["answer_f1"] == pytest.approx(np.mean([f1 for _, f1 in best]), abs=1e-12)
        has = [bool(gold) for gold in golds]
        assert ("has_answer_f1" in mine) == (0 < sum(has) < len(has))
        if "has_answer_f1" in mine:
            wanted = np.mean([f1 for (_, f1), there in zip(best, has, strict=True) if there])
            assert mine["has_answer_f1"] == pytest.approx(wanted, abs=1e-12)
            wanted = np.mean([exact for (exact, _), there in zip(best, has, strict=True) if not there])
            assert mine["no_answer_accuracy"] == pytest.approx(wanted, abs=1e-12)


def test_gold_answers_score_one() -> None:
    golds = [["the card"], [], ["a", "b"]]
    told = [Answer({"text": gold[-1] if gold else "", "start": 0, "end": 0}, 1.0) for gold in golds]
    for name, measured in score(TASK.measures(as_predictions(golds, told))).items():
        assert measured == {"value": 1.0, "low": 1.0, "high": 1.0}, name


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_loss_is_that_of_plain_transformers(bases: Bases, family: str) -> None:
    """Question and text in one window, the model's own loss over given positions."""
    bench = set_up(bases(family, dropout=0.0), Full(), kind=KIND)
    tokenizer, theirs = bench.loaded.processor, []
    for row in bench.rows:  # one by one: plain transformers counts padding as a place for an answer
        batch = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
        offsets, first, last = batch.pop("offset_mapping")[0], 0, 0
        if row["answers"]["texts"]:
            begin = row["answers"]["starts"][0]
            end = begin + len(row["answers"]["texts"][0])
            context = [place for place, owner in enumerate(batch.sequence_ids(0)) if owner == 1]
            [first] = [place for place in context if offsets[place, 0] == begin]
            [last] = [place for place in context if offsets[place, 1] == end]
        with torch.no_grad():
            asked = {"start_positions": torch.tensor([first]), "end_positions": torch.tensor([last])}
            theirs.append(float(bench.loaded.model.eval()(**batch, **asked).loss))
    with torch.no_grad():
        ours = bench.task.loss(bench.loaded, bench.batch())
    assert ours.count == len(bench.rows)
    assert float(ours.total) / ours.count == pytest.approx(np.mean(theirs), abs=1e-12)
    outputs = predict(bench.loaded, bench.task, bench.examples, bench.devices)
    assert bench.task.mean_loss(outputs, bench.examples) == pytest.approx(np.mean(theirs), abs=1e-12)


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_accumulated_equals_whole_batch(bases: Bases, method: Settings) -> None:
    folder = bases("bert", dropout=0.0)

    def trained(budget: int) -> tuple[Any, list[Any]]:
        bench = set_up(folder, method, budget=budget, kind=KIND)
        return bench, train(bench, 3, 8, 2e-3)

    whole, steps = trained(10**9)
    for budget in (1, 60):
        cut, cut_steps = trained(budget)
        # some embeddings have next to no gradient here, and Adam divides by its size
        assert largest_difference(whole.weights(), cut.weights()) <= 1e-10
        assert [step.loss for step in cut_steps] == pytest.approx([step.loss for step in steps], abs=1e-12)


def long_row(answer: str = "refund fee") -> Row:
    words = [tiny.WORDS[index % len(tiny.WORDS)] for index in range(120)]
    words = [word for word in words if word not in ("refund", "fee")]
    words[70:70] = answer.split()
    context = " ".join(words)
    return Row(
        {
            "question": "where is it",
            "context": context,
            "answers": {"texts": [answer], "starts": [context.index(answer)]},
        },
        "rows",
        1,
    )


def test_windows_cover_the_text_and_know_where_the_answer_is(bases: Bases) -> None:
    """Every character of the text is in some window; a window that holds the answer points at it, others at their
    first token; and what it points at is the answer's own text."""
    bench = set_up(bases("bert", dropout=0.0), Full(), kind=KIND)
    row = long_row()
    [example] = bench.task.encode([row], bench.loaded.processor, Limit(40, "windows"))
    assert len(example["windows"]) > 3 and max(example["windows"]) <= 40
    begins = np.cumsum([0, *example["windows"]])
    starts, ends = np.asarray(example["starts"]), np.asarray(example["ends"])
    pointed = 0
    for window, (first, last) in enumerate(np.asarray(example["target"]).reshape(-1, 2)):
        mine = slice(begins[window], begins[window + 1])
        held = (starts[mine] <= row["answers"]["starts"][0]) & (starts[mine] >= 0)
        if (first, last) != (0, 0):
            pointed += 1
            assert row["context"][starts[mine][first] : ends[mine][last]] == "refund fee"
        else:
            assert not (held.any() and (ends[mine] >= row["answers"]["starts"][0] + len("refund fee")).any())
    assert pointed >= 1
    covered = {place for start, end in zip(starts, ends, strict=True) for place in range(max(start, 0), end)}
    assert covered == {place for place, letter in enumerate(row["context"]) if letter != " "}
    assert bench.task.count_cut([row], [example], bench.loaded.processor, Limit(40, "windows")) == 0
    cut = bench.task.encode([row], bench.loaded.processor, Limit(40))
    assert bench.task.count_cut([row], cut, bench.loaded.processor, Limit(40)) == 1
    assert cut[0]["target"] == [0, 0]


def test_a_question_that_fills_the_limit_is_cut_and_counted(bases: Bases) -> None:
    bench = set_up(bases("bert", dropout=0.0), Full(), kind=KIND)
    row = Row({**long_row().values, "question": "why " * 100}, "rows", 1)
    examples = bench.task.encode([row], bench.loaded.processor, Limit(40, "windows"))
    assert max(examples[0]["windows"]) <= 40
    assert bench.task.count_cut([row], examples, bench.loaded.processor, Limit(40, "windows")) == 1


def found(*candidates: tuple[int, int, float], no_answer: float) -> Found:
    return Found(np.array(candidates, dtype=float).reshape(-1, 3), no_answer)


def test_the_lead_of_no_answer_is_the_models_own_or_better_by_more_than_an_error() -> None:
    """Chosen is the threshold with the best mean F1 of these rows; where what the model says itself is no more than a
    standard error worse, that. Without unanswerable rows none is chosen."""
    source, kept = np.random.default_rng(11), Counter[bool]()
    for _ in range(300):
        rows, outputs = [], []
        for _ in range(source.integers(1, 40)):
            there = source.random() < 0.5
            answers = {"texts": ["one two"], "starts": [0]} if there else {"texts": [], "starts": []}
            rows.append(Row({"question": "q", "context": "one two three", "answers": answers}, "r", 1))
            end = int(source.choice([3, 7, 13]))
            outputs.append(found((0, end, float(source.integers(-3, 4))), no_answer=float(source.integers(-3, 4))))
        decision = TASK.decide(outputs, rows)

        def f1(threshold: float | None) -> np.ndarray:
            answers = TASK.answers(outputs, rows, {"no_answer": threshold})  # noqa: B023
            golds = [TASK.gold(row) for row in rows]  # noqa: B023
            return np.array([f1_of(a.value["text"], gold) for a, gold in zip(answers, golds, strict=True)])

        if all(row["answers"]["texts"] for row in rows):
            assert decision == {"no_answer": None}
            continue
        best = max((f1(t) for t in np.arange(-7.5, 8.0)), key=lambda scores: float(scores.mean()))
        more = best - f1(0.0)
        is_clear = more.mean() > more.std() / math.sqrt(len(more)) + 1e-12
        assert f1(decision["no_answer"]).mean() == pytest.approx((best if is_clear else f1(0.0)).mean(), abs=1e-12)
        kept[is_clear] += 1
    assert min(kept[True], kept[False]) > 20


def test_probabilities_of_answers_and_none_are_one_distribution() -> None:
    row = Row({"question": "q", "context": "one two one", "answers": {"texts": [], "starts": []}}, "r", 1)
    output = found((0, 3, 2.0), (8, 11, 1.0), (4, 7, 0.0), no_answer=1.5)
    [answer] = TASK.answers([output], [row], {"no_answer": 0.0})
    assert answer.value == {"text": "one", "start": 0, "end": 3}
    assert sum(answer.probabilities.values()) == pytest.approx(1.0) and set(answer.probabilities) == {"one", "two", ""}
    [none] = TASK.answers([output], [row], {"no_answer": -1.0})
    assert none.value == {"text": "", "start": 0, "end": 0} and none.score == answer.probabilities[""]


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Cards",
            "paragraphs": [
                {
                    "context": "The card is red. Ωmega is not.",
                    "qas": [
                        {"id": "1", "question": "What is red?", "answers": [{"text": "The card", "answer_start": 0}]},
                        {"id": "2", "question": "Who?", "is_impossible": True, "answers": [],
                         "plausible_answers": [{"text": "red", "answer_start": 12}]},
                    ],
                }
            ],
        },
        {"title": "More", "paragraphs": [{"context": "Ωmega", "qas": [
            {"id": "3", "question": "Which?", "answers": [{"text": "Ωmega", "answer_start": 0}]}]}]},
    ],
}  # fmt: skip


def test_nested_and_flat_files_are_the_same_rows(tmp_path: Path) -> None:
    """SQuAD's files as they come, the flat rows of the field, and answers without their starts."""
    nested = tmp_path / "squad.json"
    nested.write_text(json.dumps(SQUAD))
    flat = [
        {"question": "What is red?", "context": "The card is red. Ωmega is not.",
         "answers": {"text": ["The card"], "answer_start": [0]}},
        {"question": "Who?", "context": "The card is red. Ωmega is not.", "answers": {"text": [], "answer_start": []}},
        {"question": "Which?", "context": "Ωmega", "answers": [{"text": "Ωmega"}]},
    ]  # fmt: skip
    rows = [read_rows(file, COLUMNS, {}) for file in (nested, tiny.write_rows(tmp_path / "flat.jsonl", flat))]
    assert not rows[0].faults and not rows[1].faults
    assert [row.values for row in rows[0].rows] == [row.values for row in rows[1].rows]
    assert [row.line for row in rows[0].rows] == [1, 2, 3]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"text": ["red"], "answer_start": [3]}, "does not stand at 3 of the text: it stands at 12"),
        ({"text": ["blue"], "answer_start": [3]}, "does not stand at 3 of the text: it stands nowhere in it"),
        ([{"text": "blue"}], "does not stand in the text"),
        ({"text": ["red"], "answer_start": []}, "no lists `text` and `answer_start` of the same length"),
        ({"text": [""], "answer_start": [0]}, "without text; no answer at all is an empty list"),
        ({"text": ["red"], "answer_start": [-1]}, "no whole number from 0 on"),
        ({"text": ["red"], "answer_start": ["12"]}, "no whole number from 0 on"),
        ({"wrong": 1}, "no lists `text`"),
        ("red", "nor a list of answers"),
        ("[1", "is no list of answers"),
        (3, "nor a list of answers"),
        (None, "is missing"),
    ],
)
def test_bad_answers_are_named(tmp_path: Path, answers: Any, said: str) -> None:
    row = {"question": "What?", "context": "The card is red.", "answers": answers}
    reading = read_rows(tiny.write_rows(tmp_path / "rows.jsonl", [row]), COLUMNS, {})
    assert not reading.rows and len(reading.faults) == 1 and said in str(reading.faults[0]), reading.faults


@pytest.mark.parametrize("kind", ["full", "head", "lora"])
def test_a_run_opens_in_plain_libraries_and_answers_in_characters(bases: Bases, tmp_path: Path, kind: str) -> None:
    """The saved folder gives equal logits in transformers or PEFT; answers stand at their characters."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    base = bases("bert", dropout=0.0)
    rows = tiny.make_flat_questions(60)
    train_file = tiny.write_rows(tmp_path / "train.jsonl", rows)
    run = run_tiny(
        base, train_file, tmp_path / "run", method=EVERY_METHOD[kind].model_dump(), task=KIND,
        train={"steps": 80, "learning_rate": 1e-2, "evaluate_every": 40}, judge={"baselines": "auto"},
    )  # fmt: skip
    assert run.scores["primary"] == "answer_f1" and "overlap" in run.scores["baselines"]
    folder, tokenizer = run.folder.model, AutoTokenizer.from_pretrained(run.folder.model)
    if kind == "lora":
        from peft import PeftModel

        # AutoPeftModelForQuestionAnswering would drop `token_type_ids` (peft 0.21)
        plain = PeftModel.from_pretrained(AutoModelForQuestionAnswering.from_pretrained(base), folder)
    else:
        plain = AutoModelForQuestionAnswering.from_pretrained(folder)
    batch = tokenizer(["where is the card"], [rows[0]["context"]], return_tensors="pt")
    with torch.no_grad():
        theirs, ours = plain.eval()(**batch), run.loaded.model(**batch)
    assert float((theirs.start_logits - ours.start_logits).abs().max()) <= 1e-5
    assert float((theirs.end_logits - ours.end_logits).abs().max()) <= 1e-5
    asked = [(row["question"], row["context"]) for row in rows[:8]]
    for (_, context), answer in zip(asked, run.predict(asked), strict=True):
        assert context[answer["start"] : answer["end"]] == answer["answer"] and 0 <= answer["score"] <= 1
    assert all({"row", "gold", "answer", "score"} <= set(row) for row in lines(run.folder.predictions("validation")))
    assert "Right answers" in run.folder.report.read_text() or run.scores["validation"]["exact_match"]["value"] == 1


def test_no_answer_and_wrong_answers_are_told_apart() -> None:
    assert exact_of("", []) == f1_of("", []) == 1.0
    assert exact_of("red", []) == f1_of("red", []) == 0.0
    assert exact_of("", ["red"]) == f1_of("", ["red"]) == 0.0
