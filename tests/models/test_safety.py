"""Opening a model runs nothing of its makers', refuses by name what would, and never makes up weights."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from canary import Canary, change_json

from tunesmith.errors import ModelError, TunesmithError
from tunesmith.models import safety
from tunesmith.models.heads import SEQUENCES, load_classifier
from tunesmith.models.references import find_base


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    """A model folder to spoil."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    return folder


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "cage")


def open_it(folder: Path) -> Any:
    return load_classifier(find_base(str(folder)), ("a", "b"), 0, torch.float32, SEQUENCES)


# keys that ask for code

HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("config.json", {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}),
    ("config.json", {"auto_map": None}),
    ("config.json", {"_attn_implementation_internal": "nobody/kernel"}),
    ("config.json", {"_attn_implementation": "nobody/kernel"}),
    ("config.json", {"_experts_implementation": "nobody/kernel"}),
    ("config.json", {"_target_": "os.system"}),
    ("config.json", {"trust_remote_code": True}),
    ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
    ("config.json", {"vision": [{"backbone": {"trust_remote_code": True}}]}),
    ("config.json", {"custom_pipelines": {"x": {"impl": "evil.Pipeline"}}}),
    ("config.json", {"task_specific_params": {"a": {"_target_": "os.system"}}}),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ("tokenizer_config.json", {"trust_remote_code": True}),
    ("tokenizer_config.json", {"init": {"_target_": "os.system"}}),
    ("generation_config.json", {"custom_generate": "nobody/code"}),
    ("generation_config.json", {"trust_remote_code": True}),
    ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Processor"}}),
    ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.Processor"}}),
    ("special_tokens_map.json", {"auto_map": {}}),
    ("anything_else.json", {"deep": {"deeper": [{"auto_map": {}}]}}),
]


@pytest.mark.parametrize(("file", "values"), HOSTILE, ids=[f"{file} {json.dumps(v)[:40]}" for file, v in HOSTILE])
def test_a_key_that_asks_for_code_is_refused_by_name(
    file: str, values: dict[str, Any], model: Path, canary: Canary
) -> None:
    (model / "evil.py").write_text(canary.module + "class Config: ...\nclass Model: ...\n")
    change_json(model / file, **values)
    with pytest.raises(ModelError) as caught:
        open_it(model)
    key = _deepest_key(values)
    assert str(model / file) in str(caught.value) and key in str(caught.value), str(caught.value)
    assert caught.value.exit_code == 3 and not canary.sang


def _deepest_key(value: Any) -> str:
    known = ("auto_map", "trust_remote_code", "_target_", "custom_pipelines", "custom_generate", "_implementation")
    text = json.dumps(value)
    return min((key for key in known if key in text), key=text.index)


def test_the_same_folder_without_the_key_opens_and_its_code_is_never_run(
    model: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evil.py", "modeling_bert.py", "configuration_bert.py", "tokenization_bert.py", "__init__.py"):
        (model / name).write_text(canary.module)
    monkeypatch.syspath_prepend(str(model))
    open_it(model)
    assert not canary.sang and "evil" not in sys.modules


def test_the_canary_would_sing(canary: Canary) -> None:
    import pickle

    pickle.loads(canary.pickle).close()
    assert canary.sang


PICKLES = ("pytorch_model.bin", "model.bin", "model.pt", "model.pth", "model.ckpt", "weights.pkl", "x.mdl")


@pytest.mark.parametrize("name", PICKLES)
def test_weights_in_pickle_form_are_never_opened(name: str, model: Path, canary: Canary) -> None:
    (model / name).write_bytes(canary.pickle)
    open_it(model)  # beside safetensors it is left alone
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        open_it(model)
    assert not canary.sang


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", ".metadata"])
def test_what_others_leave_beside_weights_is_never_opened(name: str, model: Path, canary: Canary) -> None:
    (model / name).write_bytes(canary.pickle)
    open_it(model)
    assert not canary.sang


def test_a_pickle_under_the_name_of_safetensors_is_refused(model: Path, canary: Canary) -> None:
    (model / "model.safetensors").write_bytes(canary.pickle)
    with pytest.raises(ModelError):
        open_it(model)
    assert not canary.sang


# the config


def test_only_keys_of_the_architecture_reach_the_config(model: Path) -> None:
    change_json(model / "config.json", evil=1, quantization_config={"quant_method": "x"}, hidden_act="relu", foo_bar={})
    config = safety.read_config(model)
    assert config.hidden_act == "relu", "what the architecture knows is kept"
    assert not any(hasattr(config, name) for name in ("evil", "foo_bar", "quantization_config"))


@pytest.mark.parametrize("model_type", [None, "evil", "../bert", 3, ["bert"], {"a": 1}])
def test_an_unknown_architecture_is_refused(model_type: Any, model: Path) -> None:
    change_json(model / "config.json", model_type=model_type)
    with pytest.raises(ModelError, match=r"unknown architecture|cannot be opened") as caught:
        open_it(model)
    assert str(model) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"bert"', b"\xff\xfe", b'{"model_type": "bert"', b"[" * 100_000 + b"]" * 100_000, b"null"],
    ids=["empty", "open", "list", "text", "bytes", "cut", "deep", "null"],
)
def test_a_config_that_is_none_is_refused(content: bytes, model: Path) -> None:
    (model / "config.json").write_bytes(content)
    with pytest.raises(TunesmithError) as caught:
        open_it(model)
    assert caught.value.exit_code == 3 and str(model) in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": "many"},
        {"num_attention_heads": 0},
        {"hidden_size": -32},
        {"vocab_size": 10**13},
        {"hidden_act": "evil"},
        {"num_hidden_layers": None},
    ],
    ids=str,
)
def test_a_config_with_senseless_numbers_is_refused(values: dict[str, Any], model: Path) -> None:
    change_json(model / "config.json", **values)
    with pytest.raises(TunesmithError) as caught:
        open_it(model)
    assert caught.value.exit_code in (3, 5)


# weights


def _cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def _huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")


def _overlap(folder: Path) -> None:
    header = json.dumps({n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in ("a", "b")}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


def _beyond_the_end(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


def _empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize("spoil", [_cut, _empty, _huge_header, _overlap, _beyond_the_end])
def test_damaged_weights_are_refused(spoil: Callable[[Path], None], model: Path) -> None:
    spoil(model)
    with pytest.raises(ModelError) as caught:
        open_it(model)
    assert str(model) in str(caught.value)


def test_damaged_weights_end_the_command_with_3(
    model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunesmith import cli

    _cut(model)
    recipe = model.parent / "r.yaml"
    recipe.write_text(f"model: ./model\ndata: {{train: {tiny_data}/train.jsonl}}\n")
    monkeypatch.setattr(sys, "argv", ["tunesmith", "check", str(recipe)])
    assert cli._run(debug=False) == 3
    assert "fault of ours" not in capsys.readouterr().err


def without(folder: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if part not in name}
    save_file(kept or {"other": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("part", ["encoder.layer.1.", "embeddings.word_embeddings", ""])
def test_a_body_whose_weights_are_not_there_is_refused_and_not_drawn_at_random(part: str, model: Path) -> None:
    without(model, part)
    with pytest.raises(ModelError, match=r"model"):
        open_it(model)


@pytest.mark.parametrize("values", [{"intermediate_size": 128}, {"vocab_size": 20}, {"num_hidden_layers": 4}], ids=str)
def test_a_config_that_does_not_fit_the_weights_is_refused(values: dict[str, int], model: Path) -> None:
    change_json(model / "config.json", **values)
    with pytest.raises(ModelError):
        open_it(model)


def test_a_base_without_a_pooler_is_no_fault(model: Path) -> None:
    without(model, "pooler")
    assert open_it(model).head_names == ("classifier", "bert.pooler")


# the tokenizer


def test_a_folder_without_a_tokenizer_is_refused(model: Path) -> None:
    for file in model.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        open_it(model)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "Evil"}}'])
def test_a_damaged_tokenizer_is_refused(content: str, model: Path) -> None:
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(TunesmithError) as caught:
        open_it(model)
    assert caught.value.exit_code == 3


# adapters


@pytest.fixture
def adapter(tiny_base: Path, tiny_data: Path, tmp_path: Path) -> Path:
    """A LoRA run to spoil."""
    from tunesmith.recipe import Recipe
    from tunesmith.run import run

    recipe = {
        "model": str(tiny_base),
        "data": {"train": str(tiny_data / "train.jsonl")},
        "method": {"kind": "lora", "rank": 2},
        "train": {"steps": 1, "batch_size": 8, "precision": "fp32"},
        "judge": {"baselines": "off"},
        "machine": {"threads": 1},
        "output": str(tmp_path / "run"),
    }
    run(Recipe.model_validate(recipe))
    return tmp_path / "run"


def test_a_spoilt_run_is_refused_as_a_base_and_as_a_run(adapter: Path, canary: Canary) -> None:
    """The same hostile files, once under `model:` of a recipe and once under `tunesmith predict`."""
    from tunesmith.open import Run

    model = adapter / "model"
    kept = {file: file.read_bytes() for file in model.iterdir()}

    def pickled() -> None:
        (model / "adapter_model.safetensors").unlink()
        (model / "adapter_model.bin").write_bytes(canary.pickle)

    spoilers: dict[str, Callable[[], None]] = {
        "pickle": pickled,
        "auto_map": lambda: change_json(model / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.y"}),
        "_target_": lambda: change_json(model / "adapter_config.json", _target_="os.system"),
        "module to import": lambda: change_json(
            model / "adapter_config.json", megatron_config={"a": 1}, megatron_core="megatron.evil"
        ),
        "unknown kind": lambda: change_json(model / "adapter_config.json", peft_type="EVIL"),
        "senseless rank": lambda: change_json(model / "adapter_config.json", r=-1),
        "cut": lambda: os.truncate(model / "adapter_model.safetensors", 100),
    }
    let_through = []
    for name, spoil in spoilers.items():
        spoil()
        for way, act in (("base", lambda: open_it(adapter)), ("run", lambda: Run(adapter).predict(["a card"]))):
            try:
                act()
                let_through.append(f"{name}, as a {way}: opened")
            except TunesmithError as error:
                assert error.exit_code == 3
            except Exception as error:
                let_through.append(f"{name}, as a {way}: {type(error).__name__}")
        for file in model.iterdir():
            file.unlink()
        for file, content in kept.items():
            file.write_bytes(content)
    assert not canary.sang
    assert not let_through, "\n".join(let_through)
    open_it(adapter)
    assert Run(adapter).predict(["a card"])


@pytest.mark.parametrize(
    "values",
    [{"labels": []}, {"task": {"kind": "evil"}}, {"method": {"kind": "evil"}}, {"max_length": "x"}],
    ids=str,
)
def test_a_card_that_is_not_ours_is_refused(values: dict[str, Any], finished_run: Any, tmp_path: Path) -> None:
    from tunesmith.open import Run

    shutil.copytree(finished_run.folder.path, tmp_path / "run")
    change_json(tmp_path / "run" / "model" / "tunesmith.json", **values)
    with pytest.raises(TunesmithError) as caught:
        Run(tmp_path / "run").predict(["a card"])
    assert caught.value.exit_code == 3 and "tunesmith.json" in str(caught.value)
