"""What a method does to the weights: what is frozen stays, what steps aside leaves the base, what is saved opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from workbench import EVERY_METHOD, Bench, logits_of, run_tiny, set_up, train

import tiny
from tunesmith.folder import lines
from tunesmith.methods.quantised import PACKS_FOR_CPU, quantise
from tunesmith.models import layers
from tunesmith.models.loaded import as_base
from tunesmith.recipe import Settings
from tunesmith.recipe.methods import KINDS

Bases = Callable[..., Path]

MOVING = {
    ("bert", "full"): ("bert.embeddings.", "bert.encoder.", "bert.pooler.", "classifier."),
    ("bert", "head"): ("bert.pooler.", "classifier."),
    ("bert", "last-layers"): ("bert.encoder.layer.2.", "bert.pooler.", "classifier."),
    ("bert", "gradual-unfreezing"): ("bert.embeddings.", "bert.encoder.", "bert.pooler.", "classifier."),
    ("bert", "bitfit"): (".bias", "classifier."),
    ("bert", "lora"): ("lora_", "classifier.modules_to_save."),
    ("bert", "houlsby"): (".bottleneck.", "classifier.", ".output.LayerNorm."),
    ("bert", "pfeiffer"): (".bottleneck.", "classifier."),
    ("bert", "dora"): ("lora_", "classifier.modules_to_save."),
    ("bert", "qlora"): ("lora_", "classifier.modules_to_save."),
    ("bert", "ia3"): ("ia3_l", "classifier.modules_to_save."),
    ("bert", "prefix"): ("prompt_encoder.", "classifier.modules_to_save."),
    ("bert", "prompt"): ("prompt_encoder.", "classifier.modules_to_save."),
    ("llama", "full"): ("model.embed_tokens.", "model.layers.", "model.norm.", "score."),
    ("llama", "head"): ("score.",),
    ("llama", "last-layers"): ("model.layers.2.", "score."),
    ("llama", "gradual-unfreezing"): ("model.embed_tokens.", "model.layers.", "model.norm.", "score."),
    ("llama", "lora"): ("lora_", "score.modules_to_save."),
    ("llama", "houlsby"): (".bottleneck.", "score.", "_layernorm."),
    ("llama", "pfeiffer"): (".bottleneck.", "score."),
    ("llama", "dora"): ("lora_", "score.modules_to_save."),
    ("llama", "qlora"): ("lora_", "score.modules_to_save."),
    ("llama", "ia3"): ("ia3_l", "score.modules_to_save."),
    ("llama", "prefix"): ("prompt_encoder.", "score.modules_to_save."),
}
"""Parts of the names of the weights that may move, written out by hand."""

DETERMINISTIC = {
    "full": 0,
    "head": 3,
    "last-layers": 2,
    "bitfit": 0,
    "lora": 0,
    "gradual-unfreezing": 3,
    "houlsby": 0,
    "pfeiffer": 0,
    "dora": 0,
    "qlora": 0,
    "ia3": 0,
    "prefix": 3,
    "prompt": 3,
}
"""How many of three layers are frozen in the first two of eight steps, so that their dropout must be off."""

FAMILIES = {"bitfit": ("bert", "distilbert"), "prefix": ("bert", "llama"), "prompt": ("bert", "distilbert")}
"""Of which families a method is tried on, if not on all: a Llama has no biases, a DistilBERT takes no keys and values
from outside, and with a prompt a Llama that classifies would read padding."""


MARKS = ("lora", "modules_to_save", "base_layer", "ia3")
"""What names of weights have that are not those of a plain model."""


def pairs_of(*families: str) -> list[tuple[str, str]]:
    """Each family with each method that can be tried on it."""
    return [(family, kind) for family in families for kind in EVERY_METHOD if family in FAMILIES.get(kind, (family,))]


def trained(folder: Path, method: Settings, precision: str = "fp32") -> Bench:
    bench = set_up(folder, method, precision=precision)
    train(bench, steps=4, learning_rate=1e-2)
    return bench


@pytest.mark.parametrize(("family", "kind"), pairs_of("bert", "llama"))
def test_frozen_stays_bit_equal(bases: Bases, family: str, kind: str) -> None:
    """Every weight outside the method's own is the base's to the bit; every one inside has moved."""
    folder = bases(family)
    before = set_up(folder, EVERY_METHOD[kind]).weights()
    after = trained(folder, EVERY_METHOD[kind], "fp64").weights()
    parts = MOVING[family, kind]
    for name, weight in after.items():
        may_move = any(part in name for part in parts)
        same = torch.equal(weight, before[name])
        unused = name.endswith(("word_embeddings.weight", "embed_tokens.weight", "position_embeddings.weight"))
        assert same or may_move, f"{name} moved under {kind}"
        assert not (same and may_move) or unused, f"{name} did not move under {kind}"
    used = [name for name in after if name.endswith(("word_embeddings.weight", "embed_tokens.weight"))]
    for name in used:
        assert torch.equal(after[name], before[name]) == (kind not in ("full", "gradual-unfreezing"))


@pytest.mark.parametrize("kind", EVERY_METHOD)
def test_what_is_frozen_computes_without_dropout(bases: Bases, kind: str) -> None:
    """In the middle of training, frozen layers give what evaluation gives; layers that move have dropout."""
    bench = set_up(bases("bert", dropout=0.5), EVERY_METHOD[kind])
    seen: list[tuple[torch.Tensor, ...]] = []

    def look(step: Any) -> None:
        body, batch = layers.body(bench.loaded.model), bench.batch(range(4))
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            noisy = body(**inputs, output_hidden_states=True).hidden_states
            modes = {module: module.training for module in body.modules()}
            body.eval()
            clean = body(**inputs, output_hidden_states=True).hidden_states
        for module, mode in modes.items():
            module.training = mode
        seen.append(tuple(torch.equal(a, b) for a, b in zip(noisy, clean, strict=True)))

    train(bench, steps=2 if kind != "gradual-unfreezing" else 16, after=look)
    frozen = DETERMINISTIC[kind]
    embeddings_are_frozen = kind not in ("full", "bitfit")
    wanted = [embeddings_are_frozen, *(embeddings_are_frozen and layer < frozen for layer in range(3))]
    assert [list(step) for step in seen[:2]] == [wanted, wanted]


@pytest.mark.parametrize(("family", "kind"), pairs_of("bert", "distilbert", "llama"))
def test_as_base_is_the_base(bases: Bases, family: str, kind: str) -> None:
    """With the method aside the logits are the base's to the bit, head included; the trained weights come back."""
    folder = bases(family)
    bench = trained(folder, EVERY_METHOD[kind])
    tuned, weights, batch = bench.logits(), bench.weights(), bench.batch()
    plain = bench.task.load(bench.loaded.base, 0, torch.float32)
    if kind == "qlora":
        quantise(plain)  # the base of such a run
    wanted = logits_of(plain.model, batch)
    with as_base(bench.loaded) as model:
        assert torch.equal(logits_of(model, batch), wanted)
    assert not torch.equal(tuned, wanted), "training moved nothing: nothing was tested"
    assert torch.equal(bench.logits(), tuned)
    assert all(torch.equal(weight, weights[name]) for name, weight in bench.weights().items())


@pytest.mark.parametrize("kind", EVERY_METHOD)
def test_as_base_gives_weights_and_modes_back_after_an_error(bases: Bases, kind: str) -> None:
    """An error inside must not leave the base in the trained model's place, nor dropout on in frozen layers."""
    bench = trained(bases("bert"), EVERY_METHOD[kind])
    tuned = bench.logits()
    moving = [name for name, parameter in bench.loaded.model.named_parameters() if parameter.requires_grad]
    with pytest.raises(ZeroDivisionError), as_base(bench.loaded):
        raise ZeroDivisionError
    assert torch.equal(bench.logits(), tuned)
    assert moving == [name for name, parameter in bench.loaded.model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("kind", ["head", "last-layers", "lora"])
def test_as_base_keeps_frozen_parts_in_evaluation_mode(bases: Bases, kind: str) -> None:
    """Between two steps, a look at the base must not switch dropout on in what is frozen."""
    bench = set_up(bases("bert"), EVERY_METHOD[kind])
    layers.set_training_mode(bench.loaded.model)
    before = {name: module.training for name, module in bench.loaded.model.named_modules()}
    with as_base(bench.loaded):
        pass
    after = {name: module.training for name, module in bench.loaded.model.named_modules()}
    assert {name for name in before if before[name] != after[name]} == set()


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
def test_merged_equals_unmerged(bases: Bases, family: str, kind: str) -> None:
    """Updates worked into the weights give the same logits, in a plain model without a trace of PEFT."""
    bench = trained(bases(family), EVERY_METHOD[kind], "fp64")
    unmerged = bench.logits()
    merged = bench.method.merge(bench.loaded)
    assert not any(part in name for part in MARKS for name, _ in merged.named_parameters())
    assert float((logits_of(merged, bench.batch()) - unmerged).abs().max()) <= 1e-10
    plain = bench.task.load(bench.loaded.base, 0, torch.float64)
    assert float((logits_of(plain.model, bench.batch()) - unmerged).abs().max()) > 1e-3


OURS_ALONE = ("houlsby", "pfeiffer")
"""Methods that no plain library opens (tests/laws/test_law_bottlenecks.py has theirs)."""

TEXTS = ["my card was lost", "cash please", "why is the transfer not here and when did it arrive with my account"]


def opened_plainly(run: Any, base: Path) -> tuple[nn.Module, Any]:
    """By transformers' Auto classes and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

    folder = run.folder.model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not KINDS[run.card["method"]["kind"]].facts.is_adapter:
        return AutoModelForSequenceClassification.from_pretrained(folder), tokenizer
    in_4_bits = {}
    if run.card["method"]["kind"] == "qlora":
        in_4_bits["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=["classifier", "score"],
        )
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, **in_4_bits)
    model.config.pad_token_id = tokenizer.pad_token_id
    for module in model.modules():  # a CPU that packs 4 bits cannot pack rows as short as these
        if hasattr(module, PACKS_FOR_CPU):
            setattr(module, PACKS_FOR_CPU, False)
    return PeftModel.from_pretrained(model, folder), tokenizer


@pytest.mark.parametrize(("family", "kind"), [pair for pair in pairs_of("bert", "llama") if pair[1] not in OURS_ALONE])
def test_saved_folder_opens_in_plain_libraries(
    bases: Bases, tiny_data: Path, tmp_path: Path, family: str, kind: str
) -> None:
    """`model/` in plain transformers or PEFT answers as our own opened run does, and as the run itself recorded."""
    base = bases(family)
    method = EVERY_METHOD[kind].model_dump()
    held, train_data = tiny_data / "test.jsonl", tiny_data / "train.jsonl"
    changes = {"data": {"validation": str(held)}, "train": {"learning_rate": 1e-2}}
    run = run_tiny(base, train_data, tmp_path / "run", method=method, **changes)
    model, tokenizer = opened_plainly(run, base)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    theirs = logits_of(model, dict(batch))
    ours = logits_of(run.loaded.model, dict(batch))
    assert float((theirs - ours).abs().max()) <= 1e-5
    rows = tokenizer([row["text"] for row in tiny.make_rows(21, seed=1)], padding=True, return_tensors="pt")
    temperature = run.scores["calibration"]["temperature"]
    scores = (logits_of(model, dict(rows)) / temperature).softmax(dim=-1).amax(dim=-1).tolist()
    assert scores == pytest.approx([row["score"] for row in lines(run.folder.predictions("validation"))], abs=1e-5)
    untrained = set_up(base, EVERY_METHOD[kind], precision="fp32").loaded.model
    assert float((theirs - logits_of(untrained, dict(batch))).abs().max()) > 1e-3
    answers = [answer["label"] for answer in run.predict(TEXTS)]
    assert answers == [tiny.LABELS[index] for index in theirs.argmax(dim=-1).tolist()]
    if not KINDS[kind].facts.is_adapter:
        assert model.config.id2label == dict(enumerate(tiny.LABELS))
        assert model.config.label2id == {label: index for index, label in enumerate(tiny.LABELS)}
    assert run.card["labels"] == list(tiny.LABELS)


def test_lora_saves_the_adapter_and_the_head_only(bases: Bases, tiny_data: Path, tmp_path: Path) -> None:
    """No weight of the base is in an adapter's file."""
    from safetensors import safe_open

    run = run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / "run", method={"kind": "lora", "rank": 4})
    assert not (run.folder.model / "model.safetensors").exists()
    with safe_open(run.folder.model / "adapter_model.safetensors", framework="pt") as file:
        names = list(file.keys())
    assert names and all("lora_" in name or "classifier" in name for name in names)


def test_an_opened_run_answers_what_it_recorded(finished_run: Any, tiny_data: Path) -> None:
    """The test rows asked again through the opened folder: the recorded answers and scores."""
    recorded = lines(finished_run.folder.predictions("test"))
    again = list(finished_run.predict_file(tiny_data / "test.jsonl"))
    assert [row["answer"] for row in recorded] == [row["label"] for row in again]
    for was, now in zip(recorded, again, strict=True):
        assert was["score"] == pytest.approx(now["score"], abs=1e-6)
