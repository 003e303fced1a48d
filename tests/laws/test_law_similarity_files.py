"""What a model that compares texts is saved as: opened by plain libraries, by us again, and as the base of the next."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_law_foreign_adapters import made_by_peft
from torch import nn
from torch.nn import functional
from workbench import EVERY_METHOD, run_tiny, set_up

import tiny
from tunesmith.errors import ModelError, TunesmithError
from tunesmith.folder import lines, read_json, write_json
from tunesmith.models.encoders import DENSE_FOLDER, POOLING_FOLDER, SentenceEncoder, load_encoder
from tunesmith.models.references import find_base
from tunesmith.open import Run
from tunesmith.recipe.methods import KINDS

Bases = Callable[..., Path]
KIND = "sentence-similarity"
OF_PEFT = ["lora", "dora", "ia3"]
"""Adapters on the base as it is; that of `qlora` has LoRA's files."""

TEXTS = ["card", "my new card is lost why", "bank fee of the transfer"]


def run_of(base: Path, folder: Path, method: str = "lora", **sections: Any) -> Run:
    """A run on triplets; validation rows are given, so that what it has recorded can be asked again."""
    folder.parent.mkdir(exist_ok=True)
    data = tiny.write_rows(folder.parent / "train.jsonl", tiny.make_triplets(60))
    held = tiny.write_rows(folder.parent / "held.jsonl", tiny.make_triplets(20, seed=1))
    settings = {"kind": KIND, "target": "triplet"}
    changes: dict[str, Any] = {"train": {"learning_rate": 2e-2}, "data": {"validation": str(held)}, **sections}
    return run_tiny(base, data, folder, task=settings, method=EVERY_METHOD[method].model_dump(), **changes)


def vectors_of(model: nn.Module, processor: Any) -> torch.Tensor:
    """(V, D) of TEXTS by a model of ours."""
    inputs = processor(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
    return functional.normalize(found, dim=-1)


def vectors_by_hand(body: nn.Module, folder: Path) -> torch.Tensor:
    """(V, D) of TEXTS one by one: a plain body, the mean of its tokens, the dense layer of the folder."""
    import transformers

    tokenizer, found = transformers.AutoTokenizer.from_pretrained(folder), []
    weights = load_file(folder / DENSE_FOLDER / "model.safetensors")
    assert read_json(folder / POOLING_FOLDER / "config.json")["pooling_mode_mean_tokens"] is True
    for text in TEXTS:
        with torch.no_grad():
            hidden = body.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        found.append(weights["linear.weight"] @ hidden + weights["linear.bias"])
    return functional.normalize(torch.stack(found), dim=-1)


def asked_again(run: Run) -> None:
    """The opened run gives what it has recorded."""
    held = run.folder.path.parent / "held.jsonl"
    recorded = [row["answer"]["similarity"] for row in lines(run.folder.predictions("validation"))]
    again = [row["similarity"] for row in run.predict_file(held)]
    assert again == pytest.approx(recorded, abs=1e-6) and len(again) == 20
    scored = run.evaluate(str(held))["scores"]["recall_at_1"]
    assert scored["value"] == pytest.approx(run.scores["validation"]["recall_at_1"]["value"])


@pytest.mark.parametrize("method", ["full", "head"])
def test_a_whole_model_opens_by_hand_and_again(bases: Bases, tmp_path: Path, method: str) -> None:
    """Body, pooling and dense layer stand where sentence-transformers looks for them."""
    import transformers

    run = run_of(bases("bert", dropout=0.0), tmp_path / "run", method, judge={"baselines": "auto"})
    assert run.scores["primary"] == "recall_at_1" and set(run.scores["baselines"]) == {"untuned", "word-overlap"}
    folder = run.folder.model
    assert [one["type"].rpartition(".")[2] for one in read_json(folder / "modules.json")] == [
        "Transformer", "Pooling", "Dense", "Normalize",
    ]  # fmt: skip
    theirs = vectors_by_hand(transformers.AutoModel.from_pretrained(folder), folder)
    assert torch.allclose(vectors_of(run.loaded.model, run.loaded.processor), theirs, atol=1e-5)
    asked_again(run)


@pytest.mark.parametrize("method", ["houlsby", "pfeiffer"])
def test_bottlenecks_open_again(bases: Bases, tmp_path: Path, method: str) -> None:
    run = run_of(bases("bert", dropout=0.0), tmp_path / "run", method)
    assert [path.stem for path in run.folder.model.glob("*.safetensors")] == ["bottlenecks"]
    asked_again(run)


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
@pytest.mark.parametrize("method", OF_PEFT)
def test_an_adapter_opens_on_the_plain_body(bases: Bases, tmp_path: Path, family: str, method: str) -> None:
    """By transformers alone, which opens the folder and finds its base, and by PEFT on the plain body. Four blocks are
    so many layers that PEFT keeps ends of names; on the plain body these would match BERT's pooler, too."""
    import transformers
    from peft import PeftModel

    base = bases(family, dropout=0.0, layers=4)
    run = run_of(base, tmp_path / "run", method)
    folder = run.folder.model
    ours = vectors_of(run.loaded.model, run.loaded.processor)
    plain = transformers.AutoModel.from_pretrained(base)
    untuned = vectors_by_hand(plain, folder)
    for body in (transformers.AutoModel.from_pretrained(folder), PeftModel.from_pretrained(plain, folder)):
        theirs = vectors_by_hand(body, folder)
        assert float((ours - theirs).abs().max()) <= 1e-5
        assert float((untuned - theirs).abs().max()) > 1e-4
    tensors = load_file(folder / "adapter_model.safetensors")
    of_base = {name for name, _ in transformers.AutoModel.from_pretrained(base).named_modules()}
    layers = {name.removeprefix("base_model.model.").split(".lora_")[0].split(".ia3_")[0] for name in tensors}
    assert layers and layers <= of_base and not any("pooler" in name for name in layers)
    asked_again(run)


@pytest.mark.parametrize("method", ["full", "head", *OF_PEFT])
def test_sentence_transformers_gives_the_same_vectors(bases: Bases, tmp_path: Path, method: str) -> None:
    """Where that package is installed; the tests above hold the same by hand."""
    library = pytest.importorskip("sentence_transformers")
    run = run_of(bases("bert", dropout=0.0, layers=4), tmp_path / "run", method)
    theirs = library.SentenceTransformer(str(run.folder.model), device="cpu").encode(TEXTS)
    ours = vectors_of(run.loaded.model, run.loaded.processor)
    assert float((ours - torch.from_numpy(theirs)).abs().max()) <= 1e-5


@pytest.mark.parametrize(("method", "wanted"), [("lora", "SentenceTransformer"), ("houlsby", 'tunesmith.open(".")')])
def test_the_card_says_how_to_open_it(bases: Bases, tmp_path: Path, method: str, wanted: str, monkeypatch: Any) -> None:
    """What it says was run, where the package is there."""
    import re

    folder = run_of(bases("bert"), tmp_path / "run", method).folder.path
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert found and wanted in found[1]
    if method == "lora":
        pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(folder)
    exec(compile(found[1], "README.md", "exec"), {})


@pytest.mark.parametrize("method", OF_PEFT)
def test_merged_it_is_a_whole_model(bases: Bases, tmp_path: Path, method: str) -> None:
    """The merged model gives the adapter's vectors, and its folder opens as that of any whole model."""
    run = run_of(bases("bert", dropout=0.0), tmp_path / "run", method)
    built, loaded = set_up(bases("bert", dropout=0.0), EVERY_METHOD[method], precision="fp32", kind=KIND), run.loaded
    before = vectors_of(loaded.model, loaded.processor)
    merged = built.method.merge(loaded)
    assert isinstance(merged, SentenceEncoder)
    assert float((vectors_of(merged.eval(), loaded.processor) - before).abs().max()) <= 1e-5
    (tmp_path / "merged").mkdir()
    merged.save_pretrained(tmp_path / "merged")
    loaded.processor.save_pretrained(tmp_path / "merged")
    again = load_encoder(find_base(str(tmp_path / "merged")), None, 0, torch.float32)
    assert float((vectors_of(again.model.eval(), again.processor) - before).abs().max()) <= 1e-5


@pytest.mark.parametrize("method", ["full", "head", *OF_PEFT])
def test_a_run_is_a_base_for_the_next(bases: Bases, tmp_path: Path, method: str) -> None:
    """Of the same task, projection and pooling and all: the next begins where this one ended."""
    first = run_of(bases("bert", dropout=0.0), tmp_path / "one" / "run", method)
    ended = vectors_of(first.loaded.model, first.loaded.processor)
    begun = load_encoder(find_base(str(first.folder.path)), None, 0, torch.float32)
    assert float((vectors_of(begun.model.eval(), begun.processor) - ended).abs().max()) <= 1e-5
    assert layers_moved(begun.model, first.loaded.model)
    second = run_of(first.folder.path, tmp_path / "two" / "run", "lora")
    asked_again(second)
    if KINDS[method].facts.is_adapter:
        (file,) = first.folder.model.glob(f"{DENSE_FOLDER}/*.safetensors")
        save_file({name: -tensor for name, tensor in load_file(file).items()}, file)
        with pytest.raises(ModelError, match=rf"{DENSE_FOLDER}/model\.safetensors of adapter 1 has changed"):
            Run(second.folder.path).predict([("a card", "my card")])


def layers_moved(begun: nn.Module, ended: Any) -> bool:
    """Whether the projection that training ended with has moved, and is where the next begins."""
    wrapped = getattr(ended, "get_base_model", lambda: ended)().projection
    weight = getattr(wrapped, "modules_to_save", {"default": wrapped})["default"].weight
    return torch.equal(begun.projection.weight, weight) and not torch.equal(weight, torch.eye(len(weight)))


def test_a_whole_model_is_a_base_for_other_tasks_and_an_adapter_is_refused(bases: Bases, tmp_path: Path) -> None:
    """The body alone counts there. An adapter on it has other names than one on a classifier, so must not be left out
    in silence; nor may a classifier's be left out here."""
    labelled = tiny.write_rows(tmp_path / "labelled.jsonl", tiny.make_rows(60))
    whole = run_of(bases("bert"), tmp_path / "whole", "full")
    assert run_tiny(whole.folder.path, labelled, tmp_path / "second").scores["primary"] == "accuracy"
    adapter = run_of(bases("bert"), tmp_path / "adapter", "lora")
    with pytest.raises(ModelError, match="an adapter for another kind of model"):
        run_tiny(adapter.folder.path, labelled, tmp_path / "third")
    made_by_peft(bases("bert"), tmp_path / "classifier")
    with pytest.raises(ModelError, match="an adapter for another kind of model"):
        load_encoder(find_base(str(tmp_path / "classifier")), None, 0, torch.float32)


@pytest.mark.parametrize("kind", OF_PEFT)
def test_a_body_with_an_adapter_of_plain_peft_is_the_base(bases: Bases, tmp_path: Path, kind: str) -> None:
    """Bare, or with the files of sentence-transformers beside it, which then say how it pools."""
    theirs = made_by_peft(bases("bert"), tmp_path / "adapter", kind, auto="")
    loaded = load_encoder(find_base(str(tmp_path / "adapter")), None, 0, torch.float32)
    inputs = loaded.processor(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = theirs(**inputs).last_hidden_state
        found = loaded.model.eval().body(**inputs).last_hidden_state  # type: ignore[operator, union-attr]
    assert float((wanted - found).abs().max()) <= 1e-5
    assert loaded.model.pooling == "mean"
    (tmp_path / "adapter" / POOLING_FOLDER).mkdir()
    write_json(tmp_path / "adapter" / POOLING_FOLDER / "config.json", {"pooling_mode": "cls"})
    modules = [{"path": "", "type": "Transformer"}, {"path": POOLING_FOLDER, "type": "Pooling"}]
    write_json(tmp_path / "adapter" / "modules.json", modules)
    assert load_encoder(find_base(str(tmp_path / "adapter")), None, 0, torch.float32).model.pooling == "cls"


def broken(folder: Path, how: str) -> None:
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    prefix = "base_model.model."
    if how == "names of our own class":
        save_file({name.replace(prefix, f"{prefix}body."): tensor for name, tensor in tensors.items()}, weights)
    elif how == "one tensor less":
        tensors.popitem()
        save_file(tensors, weights)
    elif how == "no dense layer":
        shutil.rmtree(folder / DENSE_FOLDER)
    else:
        torn = folder / DENSE_FOLDER / "model.safetensors"
        torn.write_bytes(torn.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("names of our own class", "tensors and places do not meet"),
        ("one tensor less", "1 of its tensors and places do not meet"),
        ("no dense layer", DENSE_FOLDER),
        ("torn", "cannot be opened"),
    ],
)
def test_a_folder_that_is_not_whole_is_never_half_used(bases: Bases, tmp_path: Path, how: str, said: str) -> None:
    """Neither to answer nor as a base."""
    run = run_of(bases("bert"), tmp_path / "run")
    broken(run.folder.model, how)
    with pytest.raises(TunesmithError, match=said):
        run.predict([("a card", "my card")])
    with pytest.raises(TunesmithError, match=said):
        load_encoder(find_base(str(run.folder.path)), None, 0, torch.float32)
