"""Virtual tokens: where they cannot stand they are refused, and where they stand nothing else notices."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import EVERY_METHOD, recipe_of, run_tiny, set_up, train

import tiny
from tunesmith.errors import ModelError, RecipeError
from tunesmith.evaluation import predict
from tunesmith.models.loaded import as_base
from tunesmith.recipe import Prefix, Prompt, Settings
from tunesmith.rewrites import fitting

Bases = Callable[..., Path]
METHODS: dict[str, Settings] = {kind: EVERY_METHOD[kind] for kind in ("prefix", "prompt")}


def deberta(folder: Path) -> Path:
    """A tiny random DeBERTa."""
    from transformers import DebertaV2Config, DebertaV2Model

    folder.mkdir()
    tiny.make_tokenizer(folder)
    words = len((folder / "vocab.txt").read_text().split())
    wide = {"vocab_size": words, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    DebertaV2Model(DebertaV2Config(**wide, num_hidden_layers=2)).save_pretrained(folder)
    return folder


REFUSED = [
    ("prefix", "distilbert", "text-classification", "it does not take them"),
    ("prefix", "deberta", "text-classification", "it does not take them"),
    ("prompt", "llama", "text-classification", "would depend on the padding beside it"),
    ("prefix", "vit", "image-classification", "a ViTForImageClassification takes no virtual tokens"),
    ("prompt", "bert", "sentence-similarity", "a SentenceEncoder takes no virtual tokens"),
]


@pytest.mark.parametrize(("kind", "family", "task", "why"), REFUSED)
def test_what_would_fail_or_be_wrong_is_refused(
    bases: Bases, tmp_path: Path, kind: str, family: str, task: str, why: str
) -> None:
    """Before anything is trained, with what to use instead."""
    folder = deberta(tmp_path / "deberta") if family == "deberta" else bases(family)
    with pytest.raises(ModelError, match=f"method: {kind}: .*{why}.*use lora, or ia3"):
        set_up(folder, METHODS[kind], kind=task)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize("kind", METHODS)
def test_padding_changes_no_answer(bases: Bases, family: str, kind: str) -> None:
    if (kind, family) == ("prefix", "distilbert"):
        return
    bench = set_up(bases(family), METHODS[kind])
    train(bench, steps=3, learning_rate=1e-1)
    assert_alone_is_together(bench)


@pytest.mark.parametrize(
    ("task", "family"),
    [("token-classification", "llama"), ("question-answering", "bert"), ("language-modeling", "bert+masked")],
)
@pytest.mark.parametrize("kind", METHODS)
def test_outputs_stand_for_real_tokens_alone(bases: Bases, task: str, family: str, kind: str) -> None:
    """Tasks that read every token get as many outputs as the row has tokens, and the base is the base."""
    bench = set_up(bases(family), METHODS[kind], kind=task)
    batch = bench.batch(range(4))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    output = bench.loaded(**inputs)
    name = "logits" if "logits" in output else "start_logits"
    assert output[name].shape[:2] == inputs["input_ids"].shape
    train(bench, steps=3, learning_rate=1e-1)
    assert_alone_is_together(bench)
    plain = bench.task.load(bench.loaded.base, 0, torch.float64).model.eval()
    with as_base(bench.loaded), torch.no_grad():
        assert torch.equal(bench.loaded(**inputs)[name], plain(**inputs)[name])
    with torch.no_grad():
        assert not torch.equal(bench.loaded(**inputs)[name], plain(**inputs)[name])


def assert_alone_is_together(bench: Any) -> None:
    """A row's output is the same without the others."""
    together = predict(bench.loaded, bench.task, bench.examples[:6], bench.devices)
    for example, was in zip(bench.examples[:6], together, strict=True):
        (now,) = predict(bench.loaded, bench.task, [example], bench.devices)
        for one, other in zip(numbers_of(was), numbers_of(now), strict=True):
            assert one.shape == other.shape and float(np.abs(one - other).max()) <= 1e-9


def numbers_of(output: Any) -> list[np.ndarray]:
    """Every number of an output; words hold none, and must be equal by their places."""
    if isinstance(output, dict):
        return [found for value in output.values() for found in numbers_of(value)]
    if isinstance(output, list | tuple):
        return [found for value in output for found in numbers_of(value)]
    if hasattr(output, "__dataclass_fields__"):
        return numbers_of(vars(output))
    return [] if isinstance(output, str) else [np.atleast_1d(np.asarray(output, dtype=np.float64))]


@pytest.mark.parametrize(("task", "family"), [("summarization", "t5"), ("summarization", "bart"),
                                              ("translation", "llama"), ("translation", "gpt2")])  # fmt: skip
@pytest.mark.parametrize("kind", METHODS)
def test_what_is_written_does_not_depend_on_padding(writers: Bases, task: str, family: str, kind: str) -> None:
    """Texts are those of rows written one by one; with the method aside, those of the base."""
    bench = set_up(writers(family), METHODS[kind], kind=task)
    train(bench, steps=6, learning_rate=1.0)
    rows = bench.examples[:6]
    together = predict(bench.loaded, bench.task, rows, bench.devices)
    assert together == [predict(bench.loaded, bench.task, [row], bench.devices)[0] for row in rows]
    base = set_up(writers(family), EVERY_METHOD["full"], kind=task)
    plain = predict(base.loaded, base.task, rows, base.devices)
    with as_base(bench.loaded):
        assert predict(bench.loaded, bench.task, rows, bench.devices) == plain
    assert predict(bench.loaded, bench.task, rows, bench.devices) == together
    assert together != plain or family == "t5"  # at random it writes nothing


@pytest.mark.parametrize("method", [Prefix(tokens=20), Prompt(tokens=20)], ids=["prefix", "prompt"])
def test_virtual_tokens_take_places_from_rows(bases: Bases, tiny_data: Path, tmp_path: Path, method: Settings) -> None:
    """A model with 66 places takes rows of 46 tokens beside 20 virtual ones; more are refused before they fail."""
    sections: dict[str, Any] = {"method": method.model_dump(), "train": {"steps": 2, "max_length": 47}}
    with pytest.raises(ModelError, match="47 tokens, but the model has places for 46 beside 20 virtual tokens"):
        run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / "no", **sections)
    sections |= {"train": {"steps": 2}, "data": {"validation": 0.5}}
    texts = [{"text": f"{i} " + "card " * 90, "label": tiny.LABELS[i % 2]} for i in range(12)]
    long = tiny.write_rows(tmp_path / "long.jsonl", texts)
    run = run_tiny(bases("bert"), long, tmp_path / "run", **sections)
    assert run.card["max_length"] == 46


def test_the_flat_batch_has_no_place_for_them(bases: Bases, tiny_data: Path, tmp_path: Path) -> None:
    bench = set_up(bases("bert"), EVERY_METHOD["full"])
    names, why = fitting(bench.loaded, torch.device("cpu"), virtual_tokens=4)
    assert names == [] and "virtual tokens" in why
    assert fitting(bench.loaded, torch.device("cpu"))[0] == ["flat-batch"]
    recipe = recipe_of(bases("bert"), tiny_data / "train.jsonl", tmp_path / "x", method="prefix",
                       train={"rewrites": ["flat-batch"]})  # fmt: skip
    from tunesmith.run import run

    with pytest.raises(RecipeError, match="flat-batch does not fit: the method puts virtual tokens"):
        run(recipe)


def test_there_is_nothing_to_merge(bases: Bases) -> None:
    bench = set_up(bases("bert"), METHODS["prompt"])
    with pytest.raises(ModelError, match="virtual tokens are no part of the base's weights"):
        bench.method.merge(bench.loaded)


@pytest.mark.parametrize(
    ("task", "make"), [("token-classification", "entity_rows"), ("question-answering", "questions")]
)
def test_the_card_says_how_plain_libraries_answer_alike(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    task: str, make: str,
) -> None:  # fmt: skip
    """The card's lines leave out the virtual positions: tags and answers are those of our own opened model."""
    rows = getattr(tiny, f"make_{make}")(40)
    if task == "question-answering":
        rows = [{**row, "answers": [{"text": text} for text in row["answers"]["texts"]]} for row in rows]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    course = {"steps": 6, "learning_rate": 0.3}
    run = run_tiny(
        bases("bert"), data, tmp_path / "run", task=task, method={"kind": "prompt", "tokens": 3}, train=course
    )
    snippet = re.search(r"```python\n(.*?)```", (run.folder.path / "README.md").read_text(), re.DOTALL)
    assert snippet
    monkeypatch.chdir(run.folder.path)
    names: dict[str, Any] = {}
    exec(compile(snippet[1], "README.md", "exec"), names)
    said = capsys.readouterr().out.strip()
    with torch.inference_mode():
        output = run.loaded(**names["inputs"])
    if task == "token-classification":
        tags = [run.card["labels"][place] for place in output.logits[0].argmax(dim=-1)]
        assert said == str(list(zip(names["inputs"].tokens(), tags, strict=True)))
        return
    first, last = int(output.start_logits.argmax()), int(output.end_logits.argmax())
    assert (names["first"], names["last"]) == (first, last)
