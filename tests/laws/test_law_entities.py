"""Words, tags and spans: read as the field reads them, learned once each, answered in characters of the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import EVERY_METHOD, largest_difference, logits_of, run_tiny, set_up, train

import tiny
from tunesmith import tasks
from tunesmith.data.rows import Row
from tunesmith.data.tags import scheme_of, spans_of, tags_of, words_of
from tunesmith.evaluation import as_predictions, predict, score
from tunesmith.folder import lines
from tunesmith.recipe import Full, Lora, Settings, TokenClassification
from tunesmith.tasks.contract import Answer, Limit
from tunesmith.tasks.token_classification import NO_TAG, UNREAD

Bases = Callable[..., Path]
KIND = "token-classification"
TASK = tasks.build(TokenClassification(target="tags"))


def conll_spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """The rules of CoNLL's evaluation script, written out for prefixes B I E S O: where a chunk ends and one starts."""
    found, start = set(), None
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        ends = (
            (before in "BI" and prefix in "BSO")
            or before in "ES"
            or (before != "O" and kind != kind_before)
        )  # fmt: skip
        starts = (
            prefix in "BS"
            or (before in "ESO" and prefix in "EI")
            or (prefix != "O" and kind != kind_before)
        )  # fmt: skip
        if ends and start is not None:
            found.add((start, place, kind_before))
            start = None
        if starts:
            start = place
        before, kind_before = prefix, kind
    return found


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "I"])
def test_spans_are_those_of_conll(prefixes: str) -> None:
    """On 1,000 random sequences, most of them against their scheme."""
    source = np.random.default_rng(len(prefixes))
    names = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in "XY")]
    for _ in range(1000):
        tags = [str(source.choice(names)) for _ in range(source.integers(0, 9))]
        scheme = {"BI": "BIO", "BIES": "IOBES", "I": "IO"}[prefixes]
        assert {(span.first, span.last, span.kind) for span in spans_of(tags, scheme)} == conll_spans(tags), tags


@pytest.mark.parametrize(
    ("tags", "scheme", "mended"),
    [
        ("B-X I-X O B-Y", "BIO", []),
        ("I-X O B-X I-Y", "BIO", [(0, 1), (3, 4)]),
        ("I-X I-X B-X O I-Y", "IOB1", []),
        ("X X O Y", "IO", []),
        ("S-X B-Y I-Y E-Y O", "IOBES", []),
        ("U-X B-Y I-Y L-Y O", "IOBES", []),
        ("B-Y I-Y O E-X S-X", "IOBES", [(0, 2), (3, 4)]),
    ],
)
def test_schemes_are_found_and_what_breaks_them_is_marked(
    tags: str, scheme: str, mended: list[tuple[int, int]]
) -> None:
    given = tags.split()
    assert scheme_of([given]) == scheme
    assert [(span.first, span.last) for span in spans_of(given, scheme) if span.mended] == mended


def test_strict_scores_equal_nervaluate() -> None:
    """Precision, recall and F1 on 1,000 random cases of rows, spans and types."""
    from nervaluate import Evaluator

    source = np.random.default_rng(7)

    def spans() -> list[dict[str, Any]]:
        ends = sorted(source.choice(20, size=2 * int(source.integers(0, 4)), replace=False).tolist())
        return [
            {"start": start, "end": end, "label": str(source.choice(["X", "Y"]))}
            for start, end in zip(ends[::2], ends[1::2], strict=True)
        ]

    def altered(gold: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [span for span in gold if source.random() < 0.7] if source.random() < 0.7 else spans()

    for _ in range(1000):
        golds = [spans() for _ in range(source.integers(1, 6))]
        answers = [altered(gold) for gold in golds]
        told = [Answer([{**span, "score": 0.5} for span in answer], 0.5) for answer in answers]
        mine = {name: measure() for name, measure in TASK.measures(as_predictions(golds, told)).items()}
        theirs = Evaluator(golds, answers, tags=["X", "Y"], loader="dict").evaluate()["overall"]["strict"]
        assert mine["entity_precision"] == pytest.approx(theirs.precision, abs=1e-12)
        assert mine["entity_recall"] == pytest.approx(theirs.recall, abs=1e-12)
        assert mine["entity_f1"] == pytest.approx(theirs.f1, abs=1e-12)


def test_gold_spans_score_one() -> None:
    rows = [Row(values, "rows", number) for number, values in enumerate(tiny.make_entity_rows(12), start=1)]
    golds = [TASK.gold(row) for row in rows]
    told = [Answer([{**span, "score": 1.0} for span in gold], 1.0) for gold in golds]
    for name, measured in score(TASK.measures(as_predictions(golds, told))).items():
        assert measured == {"value": 1.0, "low": 1.0, "high": 1.0}, name


@pytest.mark.parametrize("text", ["Dr. Smith lives in  Zürich.", "𝕏 met Ada\u200b Lovelace 🙂!", "a", "שלום, Ada"])
def test_spans_become_tags_and_spans_again(text: str) -> None:
    """Characters are code points; each word alone, and all together, as a span."""
    words = words_of(text)
    assert [text[start:end] for start, end in zip(words.starts, words.ends, strict=True)]
    whole = (words.starts[0], words.ends[-1], "ALL")
    for given in ([whole], [(start, end, "ONE") for start, end in zip(words.starts, words.ends, strict=True)]):
        spans = spans_of(tags_of(given, words), "BIO")
        assert [(words.starts[span.first], words.ends[span.last - 1], span.kind) for span in spans] == given


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_loss_is_that_of_plain_transformers(bases: Bases, family: str) -> None:
    """The field's encoding by its own code (words one by one, labels on first tokens) and the model's own loss."""
    bench = set_up(bases(family, dropout=0.0), Full(), kind=KIND)
    tokenizer, labels = bench.loaded.processor, bench.task.labels
    batch = tokenizer(
        [row["tokens"] for row in bench.rows], is_split_into_words=True, padding=True, return_tensors="pt"
    )
    targets = torch.full_like(batch["input_ids"], -100)
    for index, row in enumerate(bench.rows):
        before = None
        for place, word in enumerate(batch.word_ids(index)):
            if word is not None and word != before:
                targets[index, place] = labels.index(row["tags"][word])
            before = word
    with torch.no_grad():
        theirs = bench.loaded.model(**batch, labels=targets).loss
        ours = bench.task.loss(bench.loaded, bench.batch())
    assert ours.count == int((targets != -100).sum())
    assert float(ours.total) / ours.count == pytest.approx(float(theirs), abs=1e-12)


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_accumulated_equals_whole_batch(bases: Bases, method: Settings) -> None:
    """One row a piece, or all in one: the same losses and weights after three steps."""
    folder = bases("bert", dropout=0.0)

    def trained(budget: int) -> tuple[Any, list[Any]]:
        bench = set_up(folder, method, budget=budget, kind=KIND)
        return bench, train(bench, 3, 8, 2e-3)

    whole, steps = trained(10**9)
    for budget in (1, 60):
        cut, cut_steps = trained(budget)
        assert largest_difference(whole.weights(), cut.weights()) <= 1e-12
        assert [step.loss for step in cut_steps] == pytest.approx([step.loss for step in steps], abs=1e-12)


def long_row(words: int = 150) -> Row:
    tokens = [tiny.WORDS[index % len(tiny.WORDS)] for index in range(words)]
    return Row({"tokens": tokens, "tags": ["O", "B-X"] * (words // 2)}, "rows", 1)


def test_windows_read_every_word_once(bases: Bases) -> None:
    """A text of many windows: every word has one place, that of its own token, and none is read near an inner edge."""
    bench = set_up(bases("bert", dropout=0.0), Full(), kind=KIND)
    row, tokenizer = long_row(), bench.loaded.processor
    [example] = bench.task.encode([row], tokenizer, Limit(32, "windows"))
    assert len(example["windows"]) > 3 and max(example["windows"]) <= 32
    read = [tokenizer.convert_ids_to_tokens(example["input_ids"][place]) for place in example["places"]]
    assert read == row["tokens"]
    begins = np.cumsum([0, *example["windows"]])
    window = np.searchsorted(begins, example["places"], side="right") - 1
    inside = np.asarray(example["places"]) - begins[window]
    inner = (window > 0) & (window < len(example["windows"]) - 1)
    room = 30 // 4  # of 30 words in a window a quarter is shared with the next: nobody reads the outer half of it
    assert inside[inner].min() - 1 >= room // 2 - 1
    assert len(predict(bench.loaded, bench.task, [example], bench.devices)[0]) == 150
    assert bench.task.count_cut([row], [example], tokenizer, Limit(32, "windows")) == 0


def test_what_is_cut_off_is_outside_and_counted(bases: Bases) -> None:
    bench = set_up(bases("bert", dropout=0.0), Full(), kind=KIND)
    rows = [long_row(), long_row(20)]
    examples = bench.task.encode(rows, bench.loaded.processor, Limit(32))
    assert bench.task.count_cut(rows, examples, bench.loaded.processor, Limit(32)) == 1
    assert examples[0]["places"][30:] == [UNREAD] * 120
    outputs = predict(bench.loaded, bench.task, examples, bench.devices)
    assert (outputs[0][30:].argmax(axis=1) == 0).all() and len(outputs[0]) == 150


def test_a_window_of_everything_is_the_plain_text(bases: Bases) -> None:
    bench = set_up(bases("bert", dropout=0.0), Full(), kind=KIND)
    for example, windowed in zip(
        bench.examples, bench.task.encode(bench.rows, bench.loaded.processor, Limit(64, "windows")), strict=True
    ):
        assert example == windowed


def test_rows_without_answers_and_unknown_tags_teach_nothing(bases: Bases) -> None:
    bench = set_up(bases("bert"), Full(), kind=KIND)
    rows = [Row({"tokens": ["new", "card"]}, "r", 1), Row({"tokens": ["new"], "tags": ["B-NEVER"]}, "r", 2)]
    examples = bench.task.encode(rows, bench.loaded.processor, Limit(64))
    assert [example["target"] for example in examples] == [[NO_TAG, NO_TAG], [NO_TAG]]
    assert bench.task.loss(bench.loaded, bench.task.collate(examples, bench.loaded.processor)).count == 0


@pytest.mark.parametrize("kind", ["full", "head", "lora"])
@pytest.mark.parametrize("form", ["tags", "spans"])
def test_a_run_opens_in_plain_libraries_and_answers_in_characters(
    bases: Bases, tmp_path: Path, kind: str, form: str
) -> None:
    """Trained to answer right; the saved folder gives equal logits in transformers or PEFT; `predict` gives spans whose
    words stand at these characters of the text."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    base = bases("bert", dropout=0.0)
    rows: list[dict[str, Any]] = tiny.make_entity_rows(60)
    if form == "spans":
        as_rows = [Row(row, "r", 1) for row in rows]
        rows = [{"text": " ".join(row["tokens"]), "spans": TASK.gold(row)} for row in as_rows]
    train_file = tiny.write_rows(tmp_path / "train.jsonl", rows)
    run = run_tiny(
        base, train_file, tmp_path / "run", method=EVERY_METHOD[kind].model_dump(), task=KIND,
        train={"steps": 60, "learning_rate": 2e-2, "evaluate_every": 30}, judge={"baselines": "auto"},
    )  # fmt: skip
    assert run.scores["primary"] == "entity_f1" and "lexicon" in run.scores["baselines"]
    folder, tokenizer = run.folder.model, AutoTokenizer.from_pretrained(run.folder.model)
    if kind == "lora":
        from peft import AutoPeftModelForTokenClassification

        plain = AutoPeftModelForTokenClassification.from_pretrained(folder, num_labels=len(run.card["labels"]))
    else:
        plain = AutoModelForTokenClassification.from_pretrained(folder)
        assert plain.config.id2label == dict(enumerate(run.card["labels"]))
    batch = dict(tokenizer(["my new card", "the bank has a fee with my account"], padding=True, return_tensors="pt"))
    assert float((logits_of(plain, batch) - logits_of(run.loaded.model, batch)).abs().max()) <= 1e-5
    text = "why is my  old card, at the bank?"
    [answer] = run.predict([text])
    for entity in answer["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["word"] and 0 < entity["score"] <= 1
    if kind == "full":
        assert run.scores["validation"]["entity_f1"]["value"] > 0.9
        assert [(entity["entity_group"], entity["word"]) for entity in answer["entities"]] == [
            ("THING", "old card"), ("PLACE", "bank"),
        ]  # fmt: skip
    recorded = lines(run.folder.predictions("validation"))
    assert all(set(row) == {"row", "gold", "answer", "score", "probabilities"} for row in recorded)
    assert '<h2 id="classes">' in run.folder.report.read_text()
