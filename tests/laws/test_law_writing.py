"""Texts written from texts: encoded, learned, written and scored as the field does."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import EVERY_METHOD, WRITERS, largest_difference, run_tiny, set_up, train

import tiny
from tunesmith import tasks
from tunesmith.data.columns import check_cell
from tunesmith.data.handover import hand_over, take_over
from tunesmith.data.rows import Row
from tunesmith.errors import ModelError, TunesmithError
from tunesmith.evaluation import as_predictions, mean_loss, predict, score
from tunesmith.excerpts import Copy, Lead
from tunesmith.folder import lines, read_json
from tunesmith.models.references import find_base
from tunesmith.recipe import Full, Head, Lora, Settings, Summarization, Translation
from tunesmith.tasks import text_metrics
from tunesmith.tasks.contract import Answer, Draw, Limit
from tunesmith.tasks.sequence_to_sequence import SequenceToSequence
from tunesmith.tasks.unsupported import new_names, new_numbers

Writers = Callable[..., Path]
ANSWERS = {"summarization": "summary_text", "translation": "translation_text"}
KINDS = tuple(ANSWERS)
TASK = tasks.build(Summarization())
FAMILIES = ("t5", "bart", "marian", "llama", "gpt2-tied")
WITH_ENCODER = ("t5", "bart", "marian")


def kind_for(family: str) -> str:
    return "summarization" if family in WITH_ENCODER else "translation"


def pieces() -> list[str]:
    return ["the", "Cat", "sat,", "on", "a", "mat.", "1,250", "It's", "naïve", "Ω", "e-mail", "(again)", "", "x" * 30]


def random_texts(source: random.Random, number: int) -> list[str]:
    return [" ".join(source.choices(pieces(), k=source.randint(0, 12))) for _ in range(number)]


def measured(texts: list[str], golds: list[list[str]]) -> dict[str, float]:
    return {name: measure() for name, measure in text_metrics.measures(texts, golds).items()}


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    """On 1,000 random corpora, of one and of several references, and on resamples of their rows."""
    from sacrebleu.metrics import BLEU, CHRF

    source, numbers = random.Random(5), np.random.default_rng(5)
    for number in range(1000):
        rows = source.randint(1, 5)
        golds = [[text or "mat" for text in random_texts(source, source.randint(1, 3))] for _ in range(rows)]
        texts = [source.choice(gold) if source.random() < 0.3 else random_texts(source, 1)[0] for gold in golds]
        if number % 10 == 0:  # a resample is a corpus in which rows stand several times
            drawn = numbers.integers(0, rows, rows)
            weights = np.bincount(drawn, minlength=rows)[None, :].astype(float)
            mine = {name: float(m.resampled(weights)[0]) for name, m in text_metrics.measures(texts, golds).items()}
            texts, golds = [texts[row] for row in drawn], [golds[row] for row in drawn]
        else:
            mine = measured(texts, golds)
        most = max(map(len, golds))
        streams = [[gold[place] if place < len(gold) else None for gold in golds] for place in range(most)]
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            assert mine[name] == pytest.approx(metric.corpus_score(texts, streams).score / 100, abs=1e-9), name


def straightforward_rouge(text: str, gold: str) -> tuple[float, float, float]:
    """Written out from the paper, with the table of the longest common subsequence."""
    import re

    mine, theirs = (re.sub(r"[^a-z0-9]+", " ", side.lower()).split() for side in (text, gold))

    def f1(shared: float, many: int, others: int) -> float:
        if not shared:
            return 0.0
        precision, recall = shared / many, shared / others
        return 2 * precision * recall / (precision + recall)

    found = []
    for order in (1, 2):
        ours = [tuple(mine[i : i + order]) for i in range(len(mine) - order + 1)]
        rest = [tuple(theirs[i : i + order]) for i in range(len(theirs) - order + 1)]
        left, shared = list(rest), 0
        for gram in ours:
            if gram in left:
                left.remove(gram)
                shared += 1
        found.append(f1(shared, len(ours), len(rest)))
    table = [[0] * (len(theirs) + 1) for _ in range(len(mine) + 1)]
    for i, one in enumerate(mine):
        for j, other in enumerate(theirs):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    found.append(f1(table[-1][-1], len(mine), len(theirs)))
    return found[0], found[1], found[2]


def test_rouge_is_that_of_the_paper() -> None:
    """On 1,000 random pairs of ASCII texts; of several references the best counts."""
    source = random.Random(6)
    for _ in range(1000):
        text, *golds = (each.replace("ï", "i").replace("Ω", "o") for each in random_texts(source, source.randint(2, 4)))
        wanted = np.array([straightforward_rouge(text, gold) for gold in golds]).max(axis=0)
        assert text_metrics.rouge_of(text, tuple(golds)) == pytest.approx(tuple(wanted), abs=1e-12)


ROUGE_SCORE = (
    ("the cat sat on the mat", "the cat was on the mat", (0.833333, 0.6, 0.833333)),
    ("police killed the gunman", "the gunman police killed", (1.0, 0.666667, 0.5)),
    ("A 2-year-old e-mail: naive_case", "the e mail of 2 years", (0.428571, 0.166667, 0.285714)),
)
"""Golden numbers of the package rouge-score 0.1.2 (rouge1, rouge2, rougeL, without stemming)."""


@pytest.mark.parametrize(("text", "gold", "wanted"), ROUGE_SCORE)
def test_rouge_gives_the_numbers_of_the_usual_package(text: str, gold: str, wanted: tuple[float, float, float]) -> None:
    assert text_metrics.rouge_of(text, (gold,)) == pytest.approx(wanted, abs=1e-6)


def test_words_without_spaces_are_compared_sign_by_sign() -> None:
    """Letters of every script count, and Chinese is not one word a sentence."""
    assert text_metrics.words_of("नमस्ते दुनिया, สวัสดี cafe\u0301") == ["नमस्ते", "दुनिया", "สวัสดี", "café"]
    assert text_metrics.words_of("Ωmega ÉTÉ 我喜欢 ok_1") == ["ωmega", "été", "我", "喜", "欢", "ok", "1"]
    assert text_metrics.rouge_of("我喜欢猫", ("我喜欢狗",))[2] == pytest.approx(0.75)


@pytest.mark.parametrize("kind", KINDS)
def test_gold_answers_score_one(kind: str) -> None:
    """And where several texts would be right, any of them does; what counts faults is 0."""
    task = tasks.build({"summarization": Summarization(), "translation": Translation()}[kind])
    rows = [
        Row({"source": "In Rome Anna paid 12 pounds.", "target": ["so Anna paid 12 pounds", "b c d e f"]}, "r", number)
        for number in range(3)
    ]
    golds = [task.gold(row) for row in rows]
    answers = task.answers([golds[0][0], golds[1][1], golds[2][0]], rows, task.decide([], rows))
    scores = score(task.measures(as_predictions(golds, answers)))
    faults = {"new_numbers", "new_names"} & set(scores)
    assert set(scores) == {*task.settings.primaries, *faults} and "new_numbers" in faults
    for name, measured_as in scores.items():
        assert measured_as == dict.fromkeys(("value", "low", "high"), pytest.approx(float(name not in faults))), name
    assert all(task.severity(prediction) == pytest.approx(0) for prediction in as_predictions(golds, answers))


SOURCE = "In 2019 Anna Smith's firm in New-York sold 1,250 cards for 3.5 million."


@pytest.mark.parametrize(
    ("text", "numbers", "names"),
    [
        ("Anna sold 1250 cards in New York.", [], []),
        ("Smith sold 3,5 million in 2019.", [], []),
        ("The firm of Bob Smith sold 1,260 cards.", ["1,260"], ["Bob"]),
        ('Bob sold cards. Carla did not; "Dora" said: Eve\'s did, says Eve.', [], ["Eve"]),
        ("the 19 cards of Ömer, ömer", ["19"], ["Ömer"]),
        ("في ٢٠١٩ باعت ١٢٦٠", ["١٢٦٠"], []),
        ("nothing", [], []),
    ],
)
def test_numbers_and_names_that_the_source_does_not_hold(text: str, numbers: list[str], names: list[str]) -> None:
    assert new_numbers(text, SOURCE) == numbers
    assert new_names(text, SOURCE) == names


def plain_loss(bench: Any, row: Row) -> tuple[float, int]:
    """The mean loss that transformers itself gives for one row, and over how many tokens."""
    tokenizer, model = bench.loaded.processor, bench.loaded.model.eval()
    target = row["target"][0]
    if bench.task.learned()["goes_on"]:
        prompt = tokenizer(f"{row['source']}\n\nTranslation:")["input_ids"][:-1]  # without the end token
        labels = [*tokenizer(f" {target}", add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
        inputs = {"input_ids": torch.tensor([prompt + labels]), "labels": torch.tensor([[-100] * len(prompt) + labels])}
    else:
        labels = tokenizer(target)["input_ids"]
        assert labels[-1] == tokenizer.sep_token_id
        inputs = {"input_ids": torch.tensor([tokenizer(row["source"])["input_ids"]]), "labels": torch.tensor([labels])}
    with torch.no_grad():
        return float(model(**inputs).loss), len(labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_plain_transformers(writers: Writers, family: str) -> None:
    """Of rows one by one; ours is taken of all at once, padded. Every token of a target counts once, its end too."""
    bench = set_up(writers(family, dropout=0.0), Full(), kind=kind_for(family))
    theirs = [plain_loss(bench, row) for row in bench.rows]
    drawn = [bench.task.drawn(example, Draw(0, 0, 0)) for example in bench.examples]
    with torch.no_grad():
        ours = bench.task.loss(bench.loaded, bench.task.collate(drawn, bench.loaded.processor))
    assert ours.count == sum(many for _, many in theirs)
    exact = 1e-12 if family in ("bart", "marian") else 1e-6  # T5's norms and the loss of decoders compute in fp32
    assert float(ours.total) == pytest.approx(sum(loss * many for loss, many in theirs), rel=exact)
    assert mean_loss(bench.loaded, bench.task, [], bench.examples, bench.devices) == pytest.approx(
        float(ours.total) / ours.count, rel=exact
    )


@pytest.mark.parametrize("family", ["bart", "llama"])
@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_accumulated_equals_whole_batch(writers: Writers, family: str, method: Settings) -> None:
    def trained(budget: int) -> tuple[Any, list[Any]]:
        bench = set_up(writers(family, dropout=0.0), method, budget=budget, kind=kind_for(family))
        return bench, train(bench, 3, 8, 2e-3)

    whole, steps = trained(10**9)
    for budget in (1, 30):
        cut, cut_steps = trained(budget)
        assert [step.loss for step in cut_steps] == pytest.approx([step.loss for step in steps], abs=1e-12)
        assert largest_difference(whole.weights(), cut.weights()) <= 1e-9


@pytest.mark.parametrize("family", ["t5", "bart", "llama", "gpt2-tied"])
def test_texts_are_those_of_plain_generate_whatever_they_are_batched_with(writers: Writers, family: str) -> None:
    """Rows of unequal length padded together give what each gives alone, by transformers' own `generate`."""
    bench = set_up(writers(family, dropout=0.0), Full(), kind=kind_for(family))
    train(bench, 30, 12, 1e-2)
    together = predict(bench.loaded, bench.task, bench.examples, bench.devices)
    tokenizer, model = bench.loaded.processor, bench.loaded.model
    for row, text in zip(bench.rows, together, strict=True):
        if bench.task.learned()["goes_on"]:
            prompt = torch.tensor([tokenizer(f"{row['source']}\n\nTranslation:")["input_ids"][:-1]])
        else:
            prompt = torch.tensor([tokenizer(row["source"])["input_ids"]])
        most = bench.task.settings.longest_output
        written = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=most, do_sample=False)
        begin = prompt.shape[1] if bench.task.learned()["goes_on"] else 0
        assert tokenizer.decode(written[0, begin:], skip_special_tokens=True).strip() == text
    assert len(set(together)) > 5, "a model that always writes the same shows nothing"


@pytest.mark.slow
def test_a_tiny_model_learns_to_reverse(writers: Writers) -> None:
    """An encoder-decoder that is trained from noise writes the words backwards, on rows that it has never seen."""
    bench = set_up(writers("bart", dropout=0.0), Full(), num_rows=600, precision="fp32", kind="translation")
    train(bench, steps=500, batch_size=32, learning_rate=1e-2)
    held = [Row(values, "held", number) for number, values in enumerate(tiny.make_reversals(100, seed=9), start=1)]
    known = {row["source"] for row in bench.rows}
    held = [row for row in held if row["source"] not in known]
    assert len(held) > 80
    outputs = predict(
        bench.loaded, bench.task, bench.task.encode(held, bench.loaded.processor, Limit(64)), bench.devices
    )
    answers = bench.task.answers(outputs, held, {})
    measures = bench.task.measures(as_predictions([bench.task.gold(row) for row in held], answers))
    assert measures["exact_match"]() == 1.0


def test_references_take_turns(writers: Writers) -> None:
    """Every look at a row learns another of its references; the loss of validation rows is that of the first."""
    bench = set_up(writers("bart", dropout=0.0), Full(), kind="summarization")
    row = Row({"source": "card bank", "target": ["fee", "cash pin", "rate"]}, "rows", 1)
    [example] = bench.task.encode([row], bench.loaded.processor, Limit(64))
    learned = [
        bench.loaded.processor.decode(bench.task.drawn(example, Draw(0, epoch, 0))["labels"], skip_special_tokens=True)
        for epoch in range(4)
    ]
    assert learned == ["fee", "cash pin", "rate", "fee"]


def test_what_does_not_fit_is_cut_and_counted(writers: Writers) -> None:
    """A source is cut so that prompt and answer keep their room; a target that is cut never learns to end there."""
    bench = set_up(writers("llama", dropout=0.0), Full(), kind="translation")
    processor, end = bench.loaded.processor, bench.loaded.processor.sep_token_id
    long = Row({"source": " ".join(["card"] * 100), "target": ["bank fee"]}, "rows", 1)
    examples = bench.task.encode([long, bench.rows[0]], processor, Limit(40))
    assert bench.task.count_cut([long, bench.rows[0]], examples, processor, Limit(40)) == 1
    longest = bench.task.settings.longest_output
    assert len(examples[0]["input_ids"]) + longest == 40
    tail = processor("\n\nTranslation:", add_special_tokens=False)["input_ids"]
    assert examples[0]["input_ids"][-len(tail) :] == tail and examples[0]["references"][-1] == end
    wordy = Row({"source": "card", "target": [" ".join(["bank"] * 80)]}, "rows", 1)
    [example] = bench.task.encode([wordy], processor, Limit(40))
    assert end not in example["references"] and len(example["references"]) + len(example["input_ids"]) == 40
    assert bench.task.count_cut([wordy], [example], processor, Limit(40)) == 1
    with pytest.raises(ModelError, match=r"train\.max_length: of 20 tokens"):
        bench.task.encode([long], processor, Limit(20))


def test_no_text_is_longer_than_the_model_has_places_for(writers: Writers) -> None:
    task = tasks.build(Summarization(longest_output=66))
    with pytest.raises(ModelError, match=r"task\.longest_output: 66 tokens, but the model has 66 places"):
        task.load(find_base(str(writers("bart"))), 0, torch.float32)
    task = tasks.build(Summarization())
    task.learn([Row({"source": "card", "target": [" ".join(["fee"] * 200)]}, "rows", 1)])
    task.load(find_base(str(writers("bart"))), 0, torch.float32)
    assert task.settings.longest_output == 65


def test_a_long_source_is_summarised_in_parts(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chunks`: every token is in one part, each is summarised, and then their summaries; short rows are as ever."""
    bench = set_up(writers("bart", dropout=0.0), Full(), kind="summarization")
    task, processor = bench.task, bench.loaded.processor
    long = Row({"source": " ".join(random.Random(1).choices(tiny.WORDS, k=70)), "target": ["fee"]}, "rows", 1)
    limit = Limit(32, "chunks")
    rows = [bench.rows[0], long]
    examples = task.encode(rows, processor, limit)
    assert [len(example["windows"]) for example in examples] == [1, 3]
    whole = processor(long["source"], add_special_tokens=False)["input_ids"]
    special = {processor.cls_token_id, processor.sep_token_id}
    assert [token for token in examples[1]["input_ids"] if token not in special] == whole
    assert len(task.drawn(examples[1], Draw(0, 0, 0))["input_ids"]) == 32
    assert task.count_cut(rows, examples, processor, limit) == 1

    seen: list[list[str]] = []

    def write(loaded: Any, batch: dict[str, torch.Tensor]) -> list[str]:
        """The first word of each part."""
        texts = processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
        seen.append(texts)
        return [text.split()[0] for text in texts]

    monkeypatch.setattr(task, "_write", write)
    texts = task.predict(bench.loaded, task.collate(examples, processor))
    words = long["source"].split()
    assert texts == [bench.rows[0]["source"].split()[0], words[0]]
    assert [len(texts) for texts in seen] == [4, 1] and seen[1] == [f"{words[0]} {words[30]} {words[60]}"]


def test_examples_can_be_handed_over(writers: Writers, tmp_path: Path) -> None:
    """To other processes: rows without references too."""
    bench = set_up(writers("bart", dropout=0.0), Full(), kind="summarization")
    rows = [*bench.rows[:3], Row({"source": "card bank"}, "rows", 1)]
    for policy in ("truncate", "chunks"):
        examples = bench.task.encode(rows, bench.loaded.processor, Limit(16, policy))
        hand_over(examples, tmp_path / "rows.safetensors")
        assert take_over(tmp_path / "rows.safetensors") == [dict(sorted(example.items())) for example in examples]


def test_watched_rows_lie_evenly() -> None:
    task = tasks.build(Summarization(watched_rows=4))
    assert list(task.watched(10)) == [0, 3, 6, 9] and list(task.watched(3)) == [0, 1, 2]


def test_the_head_is_its_own_or_refused(writers: Writers) -> None:
    """Where the output layer is the word embedding too, it cannot move alone."""
    with pytest.raises(ModelError, match="shares its weights with the word embedding"):
        set_up(writers("gpt2-tied"), Head(), kind="translation")
    bench = set_up(writers("bart"), Head(), kind="summarization")
    assert [name for name, p in bench.loaded.model.named_parameters() if p.requires_grad] == ["lm_head.weight"]


def test_lora_leaves_the_output_layer_alone(writers: Writers) -> None:
    for family in ("bart", "llama", "gpt2-tied"):
        bench = set_up(writers(family), Lora(rank=2), kind=kind_for(family))
        moving = [name for name, p in bench.loaded.model.named_parameters() if p.requires_grad]
        assert moving and all("lora_" in name and "lm_head" not in name for name in moving)


def test_bases_that_do_not_write_are_refused(bases: Callable[..., Path], writers: Writers, tmp_path: Path) -> None:
    """An encoder would see what it is to write; a body without its output layer has not learned to."""
    for base, said in (
        (bases("bert"), "writes no texts"),
        (tiny.make_model(tmp_path / "llama", "llama"), "do not fit"),
    ):
        with pytest.raises(ModelError, match=said):
            TASK.load(find_base(str(base)), 0, torch.float32)


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [("one", ["one"]), (["one", "two"], ["one", "two"]), ('["one", "two"]', ["one", "two"]),
     ("[Chorus] la", ["[Chorus] la"]), ('["one", 2]', ['["one", 2]'])],
)  # fmt: skip
def test_targets_are_one_text_or_several(cell: Any, wanted: list[str]) -> None:
    assert check_cell(Summarization().columns[1], cell) == (wanted, "")


@pytest.mark.parametrize(
    ("cell", "said"),
    [("", "is empty"), ([], "is an empty list"), (["a", " "], "number 2) that is empty"), (3, "not text"),
     (["a", None], "number 2) that is missing"), ({"a": 1}, "an object, not text"), (None, "is missing")],
)  # fmt: skip
def test_bad_targets_are_named(cell: Any, said: str) -> None:
    assert said in check_cell(Summarization().columns[1], cell)[1]


def test_a_title_ends_no_sentence() -> None:
    text = "Dr. Smith saw Mrs. Li at 3.5 miles. She left. He is a Dr.\nWho?"
    rows = [Row({"source": text}, "r", 1)]
    firsts = [Lead(many).predict(rows, ())[0] for many in (1, 2, 3)]
    sentences = ["Dr. Smith saw Mrs. Li at 3.5 miles.", "She left.", "He is a Dr."]
    assert firsts == [" ".join(sentences[:many]) for many in (1, 2, 3)]


def test_baselines_take_what_is_there() -> None:
    """The first sentences, as many as score best; the text itself."""
    text = "One card. Two banks! Three fees? Four."
    rows = [Row({"source": text, "target": ["One card. Two banks!"]}, "rows", n) for n in range(3)]
    assert Lead.fit(TASK, rows).predict(rows[:1], ()) == ["One card. Two banks!"]
    texts = [
        "It cost 3.5 pounds. No more.",
        'He said "Go!" Then he went.',
        "नमस्ते दुनिया। दूसरा वाक्य।",
        "One\nTwo",
        "第一。第二。",
    ]
    firsts = Lead(1).predict([Row({"source": text}, "", 1) for text in texts], ())
    assert firsts == ["It cost 3.5 pounds.", 'He said "Go!"', "नमस्ते दुनिया।", "One", "第一。"]
    assert Copy().predict([Row({"source": " Ein Satz. "}, "rows", 1)], ()) == ["Ein Satz."]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"document": row["source"], "summary": row["target"][0]} for row in tiny.make_reversals(80)]
    tiny.write_rows(folder / "summaries.jsonl", rows)
    tiny.write_rows(folder / "translations.jsonl", [{"en": row["document"], "de": row["summary"]} for row in rows])
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_a_run_opens_in_plain_libraries_and_writes_the_same(
    writers: Writers, pairs: Path, tmp_path: Path, method: str, kind: str
) -> None:
    """The saved folder gives equal logits in transformers or PEFT, and equal texts by its own saved settings."""
    import transformers

    base = writers(WRITERS[kind], dropout=0.0)
    by_language = {"data": {"columns": {"source": "en", "target": "de"}}} if kind == "translation" else {}
    data = pairs / ("translations.jsonl" if kind == "translation" else "summaries.jsonl")
    run = run_tiny(
        base, data, tmp_path / "run", task={"kind": kind, "watched_rows": 3}, method=EVERY_METHOD[method].model_dump(),
        train={"steps": 40, "learning_rate": 1e-2, "evaluate_every": 20}, judge={"baselines": "auto"}, **by_language,
    )  # fmt: skip
    settings, goes_on = run.card["task"], run.card["learned"]["goes_on"]
    assert isinstance(settings["longest_output"], int) and settings["prompt"] == (
        "{source}\n\nTranslate to German:" if kind == "translation" else "{source}"
    )
    assert run.scores["primary"] == ("chrf" if kind == "translation" else "rouge_l")
    assert set(run.scores["baselines"]) == {"copy" if kind == "translation" else "lead", "untuned"}
    assert run.scores["signatures"]["bleu"].endswith("version:2.6.0")
    auto = transformers.AutoModelForCausalLM if goes_on else transformers.AutoModelForSeq2SeqLM
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder.model)
    if method == "lora":
        from peft import PeftModel

        plain: Any = PeftModel.from_pretrained(auto.from_pretrained(base), run.folder.model)
    else:
        plain = auto.from_pretrained(run.folder.model)
    texts = [row["source"] for row in tiny.make_reversals(4, seed=2)]
    asked = {} if method != "lora" else {"max_new_tokens": settings["longest_output"], "do_sample": False}
    for text, answer in zip(texts, run.predict(texts), strict=True):
        prompt = tokenizer(settings["prompt"].replace("{source}", text), return_tensors="pt")["input_ids"]
        prompt = prompt[:, :-1] if goes_on else prompt
        more = {} if goes_on else {"decoder_input_ids": prompt}
        with torch.no_grad():
            theirs = plain.eval()(input_ids=prompt, **more).logits
            ours = run.loaded.model(input_ids=prompt, **more).logits
        assert float((theirs - ours).abs().max()) <= 1e-5
        written = plain.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), **asked)
        written = written[0, prompt.shape[1] if goes_on else 0 :]
        assert tokenizer.decode(written, skip_special_tokens=True).strip() == answer.pop(ANSWERS[kind])
        assert not answer
    validation = lines(run.folder.predictions("validation"))
    assert all(set(row["answer"]) >= {"text", "new_numbers"} and isinstance(row["gold"], list) for row in validation)
    assert {row["rows"] for row in lines(run.folder.evaluations)} == {3} and len(validation) > 3
    assert "watched-rows" in {note["code"] for note in read_json(run.folder.check)}
    card = run.folder.card.read_text()
    code = card[card.index("```python") + len("```python") : card.index("```\n", card.index("```python") + 3)]
    compile(code, "README.md", "exec")
    assert f"max_new_tokens={settings['longest_output']}" in code and ("shape[1]" in code) == goes_on
    page = run.folder.report.read_text()
    assert "beside their references" in page and "furthest from their references" in page


def test_inventions_are_told_in_the_report(writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes what no source holds: counted as a score, and named as a finding with its rows."""
    rows = [{"document": f"card {'bank ' * (number % 7)}", "summary": f"the fee is {number}"} for number in range(60)]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    invented = "the fee is 99 and Anna's"
    monkeypatch.setattr(SequenceToSequence, "_write", lambda self, loaded, batch: [invented] * len(batch["input_ids"]))
    run = run_tiny(writers("bart"), data, tmp_path / "run", task="summarization", train={"steps": 2})
    for row in lines(run.folder.predictions("validation")):
        assert row["answer"] == {"text": invented, "new_numbers": ["99"], "new_names": ["Anna's"]}
    assert run.scores["validation"]["new_numbers"]["value"] == run.scores["validation"]["new_names"]["value"] == 1.0
    page = run.folder.report.read_text()
    assert "Numbers that the source does not hold" in page and "Names that the source does not hold" in page
    assert "conflicting-label" not in {note["code"] for note in read_json(run.folder.check)}


def test_details_of_labels_are_refused(writers: Writers, pairs: Path, tmp_path: Path) -> None:
    run = run_tiny(
        writers("bart"), pairs / "summaries.jsonl", tmp_path / "run", task="summarization", train={"steps": 1}
    )
    with pytest.raises(TunesmithError, match="answers with a text that it writes"):
        run.predict(["card"], top_k=2)


def test_references_and_answers_for_people() -> None:
    assert TASK.said(TASK.gold(Row({"source": "a", "target": ["b", "c"]}, "r", 1)), None) == "b | c"
    assert TASK.shown(Answer({"text": "b"}), None) == {"summary_text": "b"}
