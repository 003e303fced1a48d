"""An adapter that plain PEFT has made is a base like any other; one that cannot be is refused, never half used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import EVERY_METHOD, logits_of, run_tiny, set_up

import tiny
from tunesmith.errors import ModelError
from tunesmith.folder import lines
from tunesmith.models import layers
from tunesmith.models.references import find_base

Bases = Callable[..., Path]


def made_by_peft(base: Path, folder: Path, kind: str = "lora", auto: str = "SequenceClassification") -> Any:
    """A random adapter, saved by PEFT and nobody else; with it its model."""
    import transformers
    from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model

    torch.manual_seed(3)
    heads = {"num_labels": 5} if auto == "SequenceClassification" else {}
    model = getattr(transformers, f"AutoModelFor{auto}" if auto else "AutoModel").from_pretrained(base, **heads)
    task = {"SequenceClassification": "SEQ_CLS", "CausalLM": "CAUSAL_LM", "": "FEATURE_EXTRACTION"}[auto]
    names = ["query", "value"] if "bert" in str(base) else ["q_proj", "v_proj"]
    configs = {
        "lora": lambda: LoraConfig(task_type=task, target_modules=names, init_lora_weights=False),
        "dora": lambda: LoraConfig(task_type=task, target_modules=names, init_lora_weights=False, use_dora=True),
        "ia3": lambda: IA3Config(task_type=task, target_modules=names, feedforward_modules=[], init_ia3_weights=False),
        "prompt": lambda: PromptTuningConfig(task_type=task, num_virtual_tokens=3),
    }
    wrapped = get_peft_model(model, configs[kind]())
    wrapped.save_pretrained(folder)
    return wrapped.eval()


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_a_body_with_an_adapter_of_plain_peft_is_the_base(bases: Bases, tmp_path: Path, kind: str) -> None:
    """The adapter is merged; its head of five classes goes, since the task has three."""
    theirs = made_by_peft(bases("bert"), tmp_path / "adapter", kind)
    bench = set_up(tmp_path / "adapter", EVERY_METHOD["full"], precision="fp32")
    inputs = {name: bench.batch()[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        wanted = layers.body(theirs)(**inputs).last_hidden_state
        found = layers.body(bench.loaded.model.eval())(**inputs).last_hidden_state
        plain = set_up(bases("bert"), EVERY_METHOD["full"], precision="fp32").loaded.model.eval()
        before = layers.body(plain)(**inputs).last_hidden_state
    assert float((found - wanted).abs().max()) <= 1e-5
    assert float((before - wanted).abs().max()) > 1e-2


def test_a_writer_with_an_adapter_of_plain_peft_is_the_base(writers: Bases, tmp_path: Path) -> None:
    theirs = made_by_peft(writers("llama"), tmp_path / "adapter", auto="CausalLM")
    bench = set_up(tmp_path / "adapter", EVERY_METHOD["full"], precision="fp32", kind="translation")
    inputs = {name: bench.batch()[name] for name in ("input_ids", "attention_mask")}
    assert float((logits_of(bench.loaded.model, inputs) - logits_of(theirs, inputs)).abs().max()) <= 1e-5


def test_a_run_goes_on_from_it_and_opens_again(bases: Bases, tiny_data: Path, tmp_path: Path) -> None:
    """A LoRA run on an adapter made elsewhere: its own adapter needs both below it, and the opened run is the same."""
    made_by_peft(bases("bert"), tmp_path / "adapter")
    data = {"validation": str(tiny_data / "test.jsonl")}
    run = run_tiny(tmp_path / "adapter", tiny_data / "train.jsonl", tmp_path / "run", method="lora", data=data)
    recorded = [row["answer"] for row in lines(run.folder.predictions("validation"))]
    again = [row["label"] for row in run.predict_file(tiny_data / "test.jsonl")]
    assert recorded == again and len(again) == 21


def test_what_cannot_be_a_base_is_refused(bases: Bases, tmp_path: Path) -> None:
    made_by_peft(bases("bert"), tmp_path / "prompt", "prompt")
    with pytest.raises(ModelError, match="kind PROMPT_TUNING changes no weights"):
        find_base(str(tmp_path / "prompt"))
    made_by_peft(bases("bert"), tmp_path / "bare", auto="")
    with pytest.raises(ModelError, match=r"an adapter for another kind of model: .* do not meet"):
        set_up(tmp_path / "bare", EVERY_METHOD["full"])
    made_by_peft(bases("bert"), tmp_path / "lost")
    config = json.loads((tmp_path / "lost" / "adapter_config.json").read_text())
    for name, said in ((None, "names no base"), (str(tmp_path / "gone"), "no such folder")):
        (tmp_path / "lost" / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))
        with pytest.raises(ModelError, match=said):
            find_base(str(tmp_path / "lost"))


def test_an_adapter_beside_4_bits_is_no_base(bases: Bases, tmp_path: Path) -> None:
    made_by_peft(bases("bert"), tmp_path / "model")
    card = {"base": str(bases("bert")), "method": {"kind": "qlora"}, "labels": list(tiny.LABELS)}
    (tmp_path / "model" / "tunesmith.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="trained beside 4 bits"):
        find_base(str(tmp_path / "model"))
    shutil.rmtree(tmp_path / "model")
