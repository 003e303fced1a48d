"""Texts themselves: windows, masks, losses, new tokens, documents as pieces."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from workbench import EVERY_METHOD, TASKS, Bench, largest_difference, logits_of, recipe_of, run_tiny, set_up, train

import tiny
from tunesmith import loop, tasks
from tunesmith.baselines import Frequencies
from tunesmith.data.batches import Order
from tunesmith.data.documents import cut_text, pieces_of
from tunesmith.data.loading import load_splits
from tunesmith.data.rows import Row
from tunesmith.errors import DataError, ModelError
from tunesmith.evaluation import as_predictions, predict, score
from tunesmith.folder import read_json
from tunesmith.models.heads import load_tokenizer
from tunesmith.models.language_models import load_language_model
from tunesmith.models.references import find_base
from tunesmith.recipe import Data, Full, LanguageModeling, Lora, Settings
from tunesmith.tasks.contract import Answer, Draw, Limit, Prediction
from tunesmith.tasks.language_modeling import NOT_ASKED
from tunesmith.tasks.language_modeling import LanguageModeling as Task

Bases = Callable[..., Path]
KIND = "language-modeling"
FAMILY = {"masked": "bert+masked", "causal": "llama+causal"}


def bench_of(bases: Bases, method: Settings, budget: int = 2048, family: str = "", **settings: Any) -> Bench:
    """As `set_up`, with these settings of the task and a base that fits them."""
    kept = TASKS[KIND]
    TASKS[KIND] = (LanguageModeling(**settings), kept[1])
    try:
        folder = bases(family or FAMILY[settings.get("objective", "masked")], dropout=0.0)
        return set_up(folder, method, budget=budget, kind=KIND)
    finally:
        TASKS[KIND] = kept


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_the_loss_is_that_of_plain_transformers(bases: Bases, objective: str) -> None:
    """The model's own loss, text by text, with the same tokens asked for; predictions add up to the same."""
    bench = bench_of(bases, Full(), objective=objective)
    model, total, count = bench.loaded.model.eval(), 0.0, 0
    for example in bench.examples:
        batch = bench.task.collate([example], bench.loaded.processor)
        with torch.no_grad():
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            mean = float(model(**inputs, labels=batch["asked"]).loss)
        asked = int((batch["asked"] != NOT_ASKED).sum())
        total, count = total + mean * asked, count + asked
    with torch.no_grad():
        ours = bench.task.loss(bench.loaded, bench.batch())
    assert ours.count == count
    exact = 1e-10 if objective == "masked" else 1e-6  # their causal loss is taken in single precision
    assert float(ours.total) == pytest.approx(total, rel=exact)
    outputs = predict(bench.loaded, bench.task, bench.examples, bench.devices)
    assert bench.task.mean_loss(outputs, bench.examples) == pytest.approx(total / count, rel=exact)
    measured = bench.task.measures(
        as_predictions([bench.task.gold(row) for row in bench.rows], bench.task.answers(outputs, bench.rows, {}))
    )
    assert measured["log_likelihood"]() == pytest.approx(-total / count)
    assert measured["perplexity"]() == pytest.approx(math.exp(total / count))


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_accumulated_equals_whole_batch(bases: Bases, method: Settings, objective: str) -> None:
    def trained(budget: int) -> tuple[Bench, list[Any]]:
        bench = bench_of(bases, method, budget, objective=objective)
        return bench, train(bench, 3, 8, 2e-3)

    whole, steps = trained(10**9)
    for budget in (1, 60):
        cut, cut_steps = trained(budget)
        assert largest_difference(whole.weights(), cut.weights()) <= 1e-9
        assert [step.loss for step in cut_steps] == pytest.approx([step.loss for step in steps], abs=1e-11)


def test_masks_are_a_function_of_seed_epoch_and_row(bases: Bases) -> None:
    """The loop asks anew in each epoch; whatever the order, the batch or the process, the same look is the same."""
    bench = bench_of(bases, Full())
    task, processor, example = (
        bench.task,
        bench.loaded.processor,
        max(bench.examples, key=lambda e: len(e["input_ids"])),
    )

    def asked(*draw: int) -> list[int]:
        return task.collate([task.drawn(example, Draw(*draw))], processor)["asked"].flatten().tolist()

    assert asked(0, 1, 5) == asked(0, 1, 5)
    looks = {tuple(asked(seed, epoch, row)) for seed in (0, 1) for epoch in (0, 1) for row in (5, 6)}
    assert len(looks) == 8
    beside = task.collate([task.drawn(bench.examples[0], Draw(0, 0, 0)), task.drawn(example, Draw(0, 1, 5))], processor)
    assert [n for n in beside["asked"][-1].tolist() if n >= 0] == [n for n in asked(0, 1, 5) if n >= 0]
    seen: list[tuple[int, int]] = []
    kept = task.drawn
    task.drawn = lambda example, draw: seen.append((draw.epoch, draw.row)) or kept(example, draw)
    train(bench, steps=5, batch_size=8)
    order = Order(len(bench.examples), 8, 0)
    assert seen == [((step - 1) // 3, row) for step in range(1, 6) for row in order.rows_of(step)]
    assert loop.Draw is Draw


def test_what_is_scored_always_has_the_same_gaps(bases: Bases) -> None:
    bench = bench_of(bases, Full())
    first, again = bench.batch(), bench.task.collate(bench.examples[::-1], bench.loaded.processor)
    for row, other in zip(first["asked"], again["asked"].flip(0), strict=True):
        assert torch.equal(row, other)


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_masks_keep_their_shares(bases: Bases, share: float) -> None:
    """So many tokens are asked for, none of them special, at least one a window; eight of ten hidden, one replaced, one
    left."""
    bench = bench_of(bases, Full(), mask_share=share)
    processor, fates, asked_of = bench.loaded.processor, Counter[str](), []
    for epoch in range(60):
        drawn = [bench.task.drawn(example, Draw(0, epoch, row)) for row, example in enumerate(bench.examples)]
        batch = bench.task.collate(drawn, processor)
        for example, ids, asked in zip(bench.examples, batch["input_ids"], batch["asked"], strict=True):
            places = (asked != NOT_ASKED).nonzero().flatten().tolist()
            true = example["input_ids"]
            words = [place for place, token in enumerate(true) if token not in processor.all_special_ids]
            assert set(places) <= set(words)
            assert len(places) == max(1, round(share * len(words)))
            asked_of.append(len(places) / len(words))
            for place in places:
                assert asked[place] == true[place]
                is_hidden = ids[place] == processor.mask_token_id
                fates["hidden" if is_hidden else "kept" if ids[place] == true[place] else "replaced"] += 1
            rest = [place for place in range(len(true)) if place not in places]
            assert [int(ids[place]) for place in rest] == [true[place] for place in rest]
    total = sum(fates.values())
    assert fates["hidden"] / total == pytest.approx(0.8, abs=0.03)
    assert fates["replaced"] / total == pytest.approx(0.1, abs=0.03)


def test_whole_words_are_hidden_together(bases: Bases) -> None:
    bench = bench_of(bases, Full(), mask_words=True, mask_share=0.5)
    rows = [Row({"text": "zyx card qqq abcde money"}, "rows", 1)]
    [example] = bench.task.encode(rows, bench.loaded.processor, Limit(64))
    words = example["words"]
    assert max(Counter(words).values()) >= 3, "a test without words of several tokens shows nothing"
    for epoch in range(20):
        batch = bench.task.collate([bench.task.drawn(example, Draw(0, epoch, 0))], bench.loaded.processor)
        asked = {words[place] for place, token in enumerate(batch["asked"][0].tolist()) if token != NOT_ASKED}
        assert all((batch["asked"][0][place] != NOT_ASKED) == (word in asked) for place, word in enumerate(words))
        assert len(asked) == 2 and -1 not in asked


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_windows_hold_every_token_once_and_do_not_see_each_other(bases: Bases, objective: str) -> None:
    bench = bench_of(bases, Full(), objective=objective)
    processor = bench.loaded.processor
    row = Row({"text": " ".join(tiny.WORDS * 4)}, "rows", 1)
    [example] = bench.task.encode([row], processor, Limit(40, "windows"))
    special = set(processor.all_special_ids)
    plain = [token for token in example["input_ids"] if token not in special]
    assert plain == [token for token in processor(row["text"])["input_ids"] if token not in special]
    assert max(example["windows"]) <= 40 and len(example["windows"]) > 3
    assert bench.task.count_cut([row], [example], processor, Limit(40, "windows")) == 0
    cut = bench.task.encode([row], processor, Limit(40))
    assert bench.task.count_cut([row], cut, processor, Limit(40)) == 1
    batch = bench.task.collate([example], processor)
    apart: list[np.ndarray] = []

    @torch.no_grad()
    def answer(batch: dict[str, torch.Tensor]) -> np.ndarray:
        return bench.task.predict(bench.loaded, batch)[0]  # type: ignore[no-any-return]

    for window in range(len(example["windows"])):
        part = {name: tensor[window : window + 1] for name, tensor in batch.items()}
        part["owner"] = torch.zeros(1, dtype=torch.long)
        apart.append(answer(part))
    whole = answer(batch)
    assert whole == pytest.approx(np.sum(apart, axis=0))
    bench.loaded.piece_tokens = 50
    assert answer(batch) == pytest.approx(whole)


def test_gold_answers_are_perfect() -> None:
    task = tasks.build(LanguageModeling())
    golds = [task.gold(Row({}, "rows", 1))] * 3
    measured = task.measures(as_predictions(golds, [Answer(gold) for gold in golds]))
    wanted = {"log_likelihood": 0.0, "perplexity": 1.0, "token_accuracy": 1.0}
    assert {name: measure() for name, measure in measured.items()} == wanted


def test_frequencies_are_those_of_the_training_texts(bases: Bases) -> None:
    """By hand: one more of each token than was counted, asked of the same gaps as the model."""
    bench = bench_of(bases, Full())
    processor = bench.loaded.processor
    baseline = Frequencies.fit(bench.task, processor, bench.examples)
    counts = Counter(token for example in bench.examples for token in example["input_ids"])
    for special in processor.all_special_ids:
        del counts[special]
    total = sum(counts.values()) + len(processor)
    asked = [token for token in bench.batch([3])["asked"].flatten().tolist() if token != NOT_ASKED]
    [found] = baseline.predict([bench.rows[3]], [bench.examples[3]])
    best = max(counts.values())
    wanted = [-sum(math.log((counts[token] + 1) / total) for token in asked), len(asked)]
    assert found[:2] == pytest.approx(wanted)
    assert found[2] <= sum(counts[token] == best for token in asked)


def test_frequencies_count_what_can_be_asked_for(bases: Bases) -> None:
    """What ends a text is asked of a model that goes on with it; what begins it is not."""
    task = tasks.build(LanguageModeling(objective="causal"))
    processor = load_tokenizer(bases("bert+masked"))
    [example] = task.encode([Row({"text": "my card"}, "f", 1)], processor, Limit(64, "windows"))
    ids = example["input_ids"]
    assert ids[0] == processor.cls_token_id and ids[-1] == processor.sep_token_id
    counts = Frequencies.fit(task, processor, [example]).counts_C
    assert counts[processor.cls_token_id] == 1 and counts[processor.sep_token_id] == 2
    asked = task.collate([example], processor)["asked"][0].tolist()
    assert asked == [NOT_ASKED, *ids[1:]]


@pytest.mark.parametrize("family", ["bert+masked", "roberta+masked", "distilbert+masked", "llama+causal"])
def test_new_tokens_begin_as_the_mean_of_their_pieces(bases: Bases, family: str, tmp_path: Path) -> None:
    """Embedding, output and bias; the word is one token then, saved and opened again, and adding it again adds none."""
    objective: Any = family.partition("+")[2]
    folder = bases(family, dropout=0.0)
    plain = load_language_model(find_base(str(folder)), objective, [], 0, torch.float64)
    grown = load_language_model(find_base(str(folder)), objective, ["zyx", "card", "qqq"], 0, torch.float64)
    before, after = plain.model.get_input_embeddings().weight, grown.model.get_input_embeddings().weight  # type: ignore
    assert len(after) == len(before) + 2, "`card` is a token already"
    assert torch.equal(after[: len(before)], before)
    outside = grown.model.get_output_embeddings()  # type: ignore[operator]
    for place, word in enumerate(("zyx", "qqq"), start=len(before)):
        ids = plain.processor(word, add_special_tokens=False)["input_ids"]
        assert len(ids) > 1
        assert torch.allclose(after[place], before[ids].mean(dim=0))
        assert torch.allclose(outside.weight[place], plain.model.get_output_embeddings().weight[ids].mean(dim=0))  # type: ignore
        assert grown.processor(f"card {word}", add_special_tokens=False)["input_ids"][-1] == place
    grown.model.save_pretrained(tmp_path)  # type: ignore[operator]
    grown.processor.save_pretrained(tmp_path)
    again = load_language_model(find_base(str(tmp_path)), objective, ["zyx", "card", "qqq"], 0, torch.float64)
    assert torch.equal(again.model.get_input_embeddings().weight, after)  # type: ignore[operator]


@pytest.mark.parametrize(("objective", "method"), [("masked", "full"), ("masked", "lora"), ("causal", "full"),
                                                   ("causal", "lora"), ("causal", "head")])  # fmt: skip
def test_a_whole_run_opens_again(bases: Bases, tmp_path: Path, objective: str, method: str) -> None:
    """Judged against the base and against frequencies, with a word of its own; the saved model is transformers' own."""
    import transformers

    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(60))
    task = {"kind": KIND, "objective": objective, "add_tokens": ["zyx"]}
    run = run_tiny(bases(FAMILY[objective], dropout=0.0), data, tmp_path / "run", task=task,
                   method=EVERY_METHOD[method].model_dump(), judge={"baselines": "auto"})  # fmt: skip
    assert run.scores["primary"] == "log_likelihood" and set(run.scores["baselines"]) == {"untuned", "frequencies"}
    texts = ["card zyx money", " ".join(tiny.WORDS * 3)]
    told = run.predict(texts)
    assert all(one["perplexity"] == pytest.approx(math.exp(-one["log_likelihood"])) for one in told)
    if method == "lora":
        assert not any("embed" in name for name in read_json(run.folder.manifest)["model_sha256"])
        return
    auto = {"masked": transformers.AutoModelForMaskedLM, "causal": transformers.AutoModelForCausalLM}[objective]
    model, tokenizer = auto.from_pretrained(run.folder.model), run.loaded.processor
    assert torch.equal(model.get_output_embeddings().weight, run.loaded.model.get_output_embeddings().weight)
    if objective == "causal":
        ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses = functional.cross_entropy(model.eval()(input_ids=ids).logits[0, :-1], ids[0, 1:])
        assert told[0]["log_likelihood"] == pytest.approx(-float(losses), abs=1e-5)


@pytest.mark.parametrize("method", ["full", "head", "lora"])
@pytest.mark.parametrize("objective", FAMILY)
def test_saved_folder_opens_in_plain_libraries(bases: Bases, tmp_path: Path, objective: str, method: str) -> None:
    """Equal outputs by transformers' Auto classes, and PEFT on the base for an adapter; they are not the base's."""
    import transformers
    from peft import PeftModel

    base = bases(FAMILY[objective], dropout=0.0)
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(40))
    run = run_tiny(base, data, tmp_path / "run", task={"kind": KIND, "objective": objective},
                   method=EVERY_METHOD[method].model_dump())  # fmt: skip
    auto = {"masked": transformers.AutoModelForMaskedLM, "causal": transformers.AutoModelForCausalLM}[objective]
    untrained = auto.from_pretrained(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder.model)
    batch = dict(tokenizer(["card money", "the bank has a fee with my account"], padding=True, return_tensors="pt"))
    before = logits_of(untrained, batch)
    adapter = method == "lora"
    plain = (
        PeftModel.from_pretrained(untrained, run.folder.model) if adapter else auto.from_pretrained(run.folder.model)
    )
    theirs = logits_of(plain, batch)
    assert float((theirs - logits_of(run.loaded.model, batch)).abs().max()) <= 1e-5
    assert float((theirs - before).abs().max()) > 1e-3


def test_what_a_domain_cost_the_language_at_large(bases: Bases, tmp_path: Path) -> None:
    """General texts are asked before and after, by the same measure as any other; they change nothing of the model."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(60))
    rows = [{"text": " ".join(tiny.WORDS[first : first + 5])} for first in [*range(6, 38)] * 2][:40]
    general = tiny.write_rows(
        tmp_path / "general.jsonl", [*rows, min(tiny.make_sentences(60), key=lambda row: len(row["text"]))]
    )
    base = bases(FAMILY["causal"], dropout=0.0)
    sections: dict[str, Any] = {"task": {"kind": KIND, "objective": "causal"}, "train": {"steps": 40}}
    run = run_tiny(base, data, tmp_path / "run", **sections, data={"validation": 0.2, "general": str(general)})
    without = run_tiny(base, data, tmp_path / "without", **sections, data={"validation": 0.2})
    weights = [load_file(one.folder.model / "model.safetensors") for one in (run, without)]
    assert largest_difference(*weights) == 0.0
    found = run.audits["forgetting"]["general"]
    assert found["rows"] == 41 and found["metric"] == "log_likelihood"
    assert "forgetting" not in run.verdict["not_judged"] and "forgetting" in without.verdict["not_judged"]
    untuned = run_tiny(
        base, data, tmp_path / "untuned", task=sections["task"], train={"steps": 1, "learning_rate": 1e-12}
    )
    for side, model in (("after", run), ("before", untuned)):
        theirs = model.evaluate(str(general))["scores"]
        for name, told in found[side].items():
            assert told["value"] == pytest.approx(theirs[name]["value"], rel=1e-5)
    for name, change in found["change"].items():
        assert change["value"] == pytest.approx(found["after"][name]["value"] - found["before"][name]["value"])
        assert change["low"] <= change["value"] <= change["high"]
    assert found["change"]["perplexity"]["low"] > 0, "words that the domain does not have became less likely"
    page, card = run.folder.report.read_text(), (run.folder.path / "README.md").read_text()
    for text in (page, card):
        assert "knows the language at large less well" in text and "general texts" in text
    assert "of the language at large perplexity went from" in run.folder.path.joinpath("paper.md").read_text()
    assert "general-in-train" in {note["code"] for note in read_json(run.folder.check)}
    with pytest.raises(ValueError, match=r"data\.general: only for language-modeling"):
        run_tiny(base, data, tmp_path / "no", data={"general": str(general)})


def test_perplexity_is_that_of_torch() -> None:
    """The score of rows is the cross-entropy of all their tokens at once, on 1,000 random cases."""
    task, source = Task(LanguageModeling()), torch.Generator().manual_seed(3)
    for number in range(1000):
        sizes = [1 + (number + row) % 5 for row in range(1 + number % 4)]
        logits, asked = (
            torch.randn(sum(sizes), 7, generator=source).double(),
            torch.randint(7, (sum(sizes),), generator=source),
        )
        rows = [Row({"text": "x"}, "f", row) for row in range(len(sizes))]
        outputs = []
        for part, gold in zip(logits.split(sizes), asked.split(sizes), strict=True):
            losses = -part.log_softmax(-1)[torch.arange(len(gold)), gold]
            right = float((part.argmax(-1) == gold).sum())
            outputs.append(np.array([float(losses.sum()), len(gold), right]))
        answers = task.answers(outputs, rows, {})
        found = task.measures(as_predictions([task.gold(row) for row in rows], answers))
        wanted = functional.cross_entropy(logits, asked)
        assert found["perplexity"]() == pytest.approx(float(wanted.exp()), rel=1e-9)
        assert found["log_likelihood"]() == pytest.approx(-float(wanted), rel=1e-9)
        assert found["token_accuracy"]() == pytest.approx(float((logits.argmax(-1) == asked).double().mean()))


def test_a_base_without_such_a_head_first_gets_one(bases: Bases, tmp_path: Path) -> None:
    """`full` is stopped; `head` trains one on the frozen body; that run is a base for `full`, which has a before."""
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(60))
    with pytest.raises(DataError, match=r"has no head for this task.*method: head"):
        run_tiny(bases("bert"), data, tmp_path / "no", task=KIND)
    judged: Any = {"task": KIND, "judge": {"baselines": "auto"}}
    first = run_tiny(bases("bert"), data, tmp_path / "first", method="head", **judged)
    assert set(first.scores["baselines"]) == {"frequencies"}
    second = run_tiny(first.folder.path, data, tmp_path / "second", **judged)
    before = second.scores["baselines"]["untuned"]["log_likelihood"]["value"]
    assert before == pytest.approx(first.scores["validation"]["log_likelihood"]["value"], abs=1e-5)
    third = run_tiny(
        second.folder.path, tiny.write_rows(tmp_path / "labels.jsonl", tiny.make_rows(40)), tmp_path / "third"
    )
    assert third.scores["primary"] == "accuracy"


def test_bases_that_cannot_are_refused(bases: Bases, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    for sees_both_sides in ("bert+masked", "bert", "distilbert"):  # the last two: saved without a head that tells it
        with pytest.raises(ModelError, match="fills gaps"):
            load_language_model(find_base(str(bases(sees_both_sides))), "causal", [], 0, torch.float32)
    folder = tiny.make_model(tmp_path / "base", "bert+masked")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="no token to hide others behind"):
        load_language_model(find_base(str(folder)), "masked", [], 0, torch.float32)


def test_pieces_of_a_document_are_the_document(tmp_path: Path) -> None:
    """None longer than asked for, none blank, no word cut where there is a space; together the same words."""
    source = np.random.default_rng(5)
    for _ in range(300):
        words = [
            "".join(source.choice(list("abé "), size=source.integers(1, 9))) for _ in range(source.integers(1, 60))
        ]
        text = str(source.choice([" ", "\n", ". ", "\n\n"])).join(words)
        if not text.strip():
            continue
        pieces = list(cut_text(text, 40))
        assert all(0 < len(piece) <= 40 and piece == piece.strip() for piece in pieces)
        assert "".join(pieces).replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")
        assert [word for piece in pieces for word in piece.split()] == text.split()
    assert list(cut_text("x" * 95, 40)) == ["x" * 40, "x" * 40, "x" * 15]
    assert next(iter(cut_text("one two three. " + "four " * 6, 30))) == "one two three."


def test_documents_do_not_straddle_a_split(tmp_path: Path) -> None:
    """Pieces of one text are in one split; each tells the line that it came from; short texts stay as they are."""
    texts = [f"text {index}. " + f"sentence {index} goes on. " * (200 if index % 2 else 2) for index in range(40)]
    path = tiny.write_rows(tmp_path / "train.jsonl", [{"text": text} for text in texts])
    splits = load_splits(Data(train=str(path), validation=0.3), LanguageModeling().columns)
    train_lines, held_lines = ({row.line for row in rows} for rows in (splits.train, splits.validation))
    assert not train_lines & held_lines and train_lines | held_lines == set(range(1, 41))
    assert len(splits.train) + len(splits.validation) > 60
    for index, text in enumerate(texts, start=1):
        rows = [row for row in (*splits.train, *splits.validation) if row.line == index]
        assert " ".join(row["text"] for row in rows).split() == text.split()
    row = Row({"text": "short"}, "rows", 1)
    assert pieces_of(row, LanguageModeling().columns) == [row]
    recipe = recipe_of(tmp_path, path, tmp_path / "run", task=KIND)
    assert recipe.task.columns[0].piece == 2000


def test_intervals_are_over_whole_texts() -> None:
    """A text in ten pieces is one thing that could have come otherwise, not ten."""
    task = Task(LanguageModeling())
    rows = [Row({"text": "x", "(document)": f"d{number // 10}"}, "f", number) for number in range(40)]
    outputs = [np.array([float(number // 10), 1.0, 0.0]) for number in range(40)]
    answers = task.answers(outputs, rows, {})
    predictions = [Prediction.of(number, None, answer) for number, answer in enumerate(answers)]
    whole = task.measures(predictions)["log_likelihood"]
    assert whole.num_rows == 4 and whole() == pytest.approx(-1.5)
    alone = [Prediction.of(p.row, None, Answer({**p.answer, "document": p.row})) for p in predictions]
    wide, narrow = (score({"l": task.measures(part)["log_likelihood"]})["l"] for part in (predictions, alone))
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])


def test_words_that_the_tokenizer_does_not_know_are_asked_for(bases: Callable[..., Path]) -> None:
    """Else a model would be perfect on a language that it cannot read."""
    task = Task(LanguageModeling())
    processor = load_tokenizer(bases("bert+masked"))
    [example] = task.encode([Row({"text": "語 語 語 語"}, "f", 1)], processor, Limit(64, "windows"))
    assert (task.collate([example], processor)["asked"] == processor.unk_token_id).any()


def test_a_text_of_which_nothing_is_asked_has_no_perplexity() -> None:
    answer = Answer({"loss": 0.0, "tokens": 0.0, "right": 0.0})
    told = Task(LanguageModeling()).shown(answer, Row({"text": "x"}, "f", 1))
    assert told == {"log_likelihood": None, "perplexity": None, "tokens": 0}


def test_a_decoder_fills_no_gaps(writers: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="it fills no gaps") as caught:
        load_language_model(find_base(str(writers("llama"))), "masked", [], 0, torch.float32)
    assert "objective: causal" in str(caught.value)
