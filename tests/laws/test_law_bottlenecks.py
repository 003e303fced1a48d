"""Bottlenecks stand where a block writes, begin as nothing, hold as many weights as the papers say, and come back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from workbench import BASES, WRITERS, Bench, logits_of, recipe_of, run_tiny, set_up, train

import tiny
from tunesmith.errors import CheckpointError, ModelError, RecipeError
from tunesmith.models import bottlenecks, layers
from tunesmith.models.references import find_base
from tunesmith.recipe import Houlsby, Pfeiffer
from tunesmith.recipe.reading import Located, check_recipe

Bases = Callable[..., Path]
KINDS: dict[str, Any] = {"houlsby": Houlsby(size=8), "pfeiffer": Pfeiffer(size=8)}

WIDE: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                        "num_attention_heads": 2, "max_position_embeddings": 32}  # fmt: skip
GROUPED = {**WIDE, "num_key_value_heads": 1}
BOTH: dict[str, Any] = {"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2,
                        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_attention_heads": 2,
                        "decoder_attention_heads": 2}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", WIDE),
    "roberta": ("RobertaConfig", WIDE),
    "electra": ("ElectraConfig", {**WIDE, "embedding_size": 8}),
    "deberta-v2": ("DebertaV2Config", {**WIDE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "distilbert": ("DistilBertConfig", {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}),
    "albert": ("AlbertConfig", {**WIDE, "embedding_size": 8}),
    "mpnet": ("MPNetConfig", WIDE),
    "gpt2": ("GPT2Config", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
                            "bos_token_id": 1, "eos_token_id": 1}),
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", {**GROUPED, "num_attention_heads": 1, "head_dim": 16}),
    "olmo2": ("Olmo2Config", GROUPED),
    "gemma3": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8}),
    "phi": ("PhiConfig", WIDE),
    "t5": ("T5Config", {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1,
                        "num_decoder_layers": 2, "num_heads": 2}),
    "bart": ("BartConfig", BOTH),
    "vit": ("ViTConfig", {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                          "num_attention_heads": 2, "image_size": 16, "patch_size": 8}),
}  # fmt: skip
"""Tiny models of every family; Qwen3 with one head, so that its query's norm is as wide as the stream."""

BERTS = ("encoder.layer.{}", ("attention.output.dense", "output.dense"), "output.LayerNorm")
LLAMAS = ("layers.{}", ("self_attn.o_proj", "mlp.down_proj"), "")
ENDS: dict[str, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    **dict.fromkeys(("bert", "roberta", "electra", "deberta-v2"), (BERTS,)),
    "distilbert": (("transformer.layer.{}", ("attention.out_lin", "ffn.lin2"), "output_layer_norm"),),
    "albert": (
        (
            "encoder.albert_layer_groups.{}.albert_layers.0",
            ("attention.dense", "ffn_output"),
            "full_layer_layer_norm",
        ),
    ),
    "mpnet": (("encoder.layer.{}", ("attention.attn.o", "output.dense"), "output.LayerNorm"),),
    "gpt2": (("h.{}", ("attn.c_proj", "mlp.c_proj"), ""),),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "olmo2", "gemma3"), (LLAMAS,)),
    "phi": (("layers.{}", ("self_attn.dense", "mlp.fc2"), ""),),
    "t5": (
        ("encoder.block.{}", ("layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"), ""),
        (
            "decoder.block.{}",
            ("layer.0.SelfAttention.o", "layer.1.EncDecAttention.o", "layer.2.DenseReluDense.wo"),
            "",
        ),
    ),
    "bart": (
        ("encoder.layers.{}", ("self_attn.out_proj", "fc2"), "final_layer_norm"),
        ("decoder.layers.{}", ("self_attn.out_proj", "encoder_attn.out_proj", "fc2"), "final_layer_norm"),
    ),
    "vit": (("layers.{}", ("attention.o_proj", "mlp.fc2"), ""),),
}
"""By hand: blocks, the layers that write to the stream, and the norm that a block ends with. Of two attention and
feed-forward parts side by side (Phi) both write. ALBERT's two layers are one."""

MANY = {"albert": (1,), "t5": (1, 2), "bart": (1, 2)}
"""How many blocks, where it is not two in one stack."""


def make(family: str) -> nn.Module:
    import transformers

    name, values = CONFIGS[family]
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(getattr(transformers, name)(**values)).eval()


def counted(family: str) -> list[tuple[str, tuple[str, ...], str]]:
    """Each block of a family by its name, its writers and its norm."""
    many = MANY.get(family, (2,))
    stacks = zip(ENDS[family], many, strict=True)
    return [(block.format(i), writers, norm) for (block, writers, norm), times in stacks for i in range(times)]


@pytest.mark.parametrize("family", CONFIGS)
def test_places_are_those_named_by_hand(family: str) -> None:
    """Behind each layer that writes to the stream; at each block's end, before the norm where the block ends with one.
    Looking changes nothing of the model."""
    model = make(family).train()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    sublayers, blocks = bottlenecks.in_sublayers(model), bottlenecks.in_blocks(model)
    wanted = [f"{block}.{writer}" for block, writers, _ in counted(family) for writer in writers]
    assert [place.module for place in sublayers] == wanted
    assert {place.form for place in sublayers} == {"behind"}
    ends = [(f"{block}.{norm}", "before-norm") if norm else (block, "behind") for block, _, norm in counted(family)]
    assert [(place.module, place.form) for place in blocks] == ends
    assert {place.width for place in (*sublayers, *blocks)} == {16}
    assert all(module.training for module in model.modules())
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_as_many_weights_as_the_papers_say(family: str) -> None:
    """2 d r + r + d for each: two a layer by Houlsby (three in a decoder that attends to an encoder), one by
    Pfeiffer."""
    r, d = 5, 16
    for places, many in (
        (bottlenecks.in_sublayers, sum(len(writers) for _, writers, _ in counted(family))),
        (bottlenecks.in_blocks, len(counted(family))),
    ):
        model = make(family)
        before = sum(parameter.numel() for parameter in model.parameters())
        bottlenecks.insert(model, places(model), r, "relu")
        after = sum(parameter.numel() for parameter in model.parameters())
        assert after - before == many * (2 * d * r + r + d)


def states(model: Any) -> torch.Tensor:
    """What a body says of two rows."""
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    inputs: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(0)
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)}
    with torch.no_grad():
        said: torch.Tensor = model(**inputs).last_hidden_state
    return said


def shake(model: nn.Module) -> None:
    """Give bottlenecks weights as if they had learned."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, bottlenecks.Bottleneck):
                for parameter in module.parameters():
                    parameter.normal_(0.0, 0.3, generator=generator)


@pytest.mark.parametrize("places", [bottlenecks.in_sublayers, bottlenecks.in_blocks])
@pytest.mark.parametrize("family", CONFIGS)
def test_begins_as_the_base_and_steps_aside_for_it(family: str, places: Any) -> None:
    """To the bit; and where the bottlenecks have learned, every one of them has a say. A copy is whole and its own."""
    model = make(family)
    base = states(model)
    bottlenecks.insert(model, places(model), 4, "gelu")
    assert torch.equal(states(model), base)
    shake(model)
    learned = states(model)
    assert not torch.allclose(learned, base)
    with bottlenecks.aside(model):
        assert torch.equal(states(model), base)
    assert torch.equal(states(model), learned)
    inserted = bottlenecks.names_in(model)
    for name in inserted:
        other = copy.deepcopy(model)
        other.get_submodule(name).rests = True  # type: ignore[assignment]
        assert not torch.equal(states(other), learned), f"{name} has no say"
    assert torch.equal(states(model), learned)


def test_what_they_compute_is_what_the_papers_write() -> None:
    """One layer of BERT by hand: Houlsby's change what attention and feed-forward add; Pfeiffer's reads the normed sum
    and adds to what is summed."""
    bert: Any = make("bert").double()
    layer = bert.encoder.layer[0]
    x = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def bend(b: Any, h: torch.Tensor, activation: Any) -> torch.Tensor:
        narrow = activation(h @ b.down.weight.T + b.down.bias)
        return narrow @ b.up.weight.T + b.up.bias  # type: ignore[no-any-return]

    with torch.no_grad():
        attended = layer.attention.self(x)[0]
        inner, outer = layer.attention.output, layer.output
        attention = functional.linear(attended, inner.dense.weight, inner.dense.bias)
        plain = inner.LayerNorm(attention + x)
        forward = functional.linear(layer.intermediate(plain), outer.dense.weight, outer.dense.bias)
        bottlenecks.insert(layer, [bottlenecks.Place("output.LayerNorm", "before-norm", 16)], 4, "relu")
        shake(layer)
        added = bend(outer.LayerNorm.bottleneck, outer.LayerNorm.forward(forward + plain), functional.relu)
        assert torch.allclose(layer(x), outer.LayerNorm.forward(forward + added + plain), rtol=0, atol=1e-12)

        bert = make("bert").double()
        layer = bert.encoder.layer[0]
        inner, outer = layer.attention.output, layer.output
        places = [bottlenecks.Place(name, "behind", 16) for name in ("attention.output.dense", "output.dense")]
        bottlenecks.insert(layer, places, 4, "swish")
        shake(layer)
        mixed = inner.LayerNorm(attention + bend(inner.dense.bottleneck, attention, functional.silu) + x)
        forward = functional.linear(layer.intermediate(mixed), outer.dense.weight, outer.dense.bias)
        wanted = outer.LayerNorm(forward + bend(outer.dense.bottleneck, forward, functional.silu) + mixed)
        assert torch.allclose(layer(x), wanted, rtol=0, atol=1e-12)


def test_models_without_such_blocks_are_refused(bases: Bases) -> None:
    """A convolutional model; and for Houlsby one whose feed-forward parts are experts."""
    for kind in KINDS:
        with pytest.raises(ModelError, match=r"no blocks of a transformer; .*use lora, last-layers or full"):
            set_up(bases("efficientnet-lite"), KINDS[kind], kind="image-classification")
    import transformers

    experts = transformers.AutoModel.from_config(transformers.MixtralConfig(**GROUPED, num_local_experts=2))
    with pytest.raises(ModelError, match=r"layers\.0: sub-layers that end in a linear layer: 1, not two.*use pfeiffer"):
        bottlenecks.in_sublayers(experts)
    assert [place.module for place in bottlenecks.in_blocks(experts)] == ["layers.0", "layers.1"]


def trained(folder: Path, kind: str, task: str = "text-classification") -> Bench:
    bench = set_up(folder, KINDS[kind], precision="fp32", kind=task)
    train(bench, steps=4, learning_rate=1e-2)
    return bench


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["text-classification", "image-classification", "summarization", "translation"])
def test_what_is_saved_comes_back(bases: Bases, writers: Bases, tmp_path: Path, kind: str, task: str) -> None:
    """Saved weights in a fresh base give the same weights; the file holds what moved alone."""
    base = writers(WRITERS[task]) if task in WRITERS else bases(BASES.get(task, "bert"))
    bench = trained(base, kind, task)
    bench.method.save(bench.loaded, tmp_path)
    moving = {name for name, weight in bench.loaded.model.named_parameters() if weight.requires_grad}
    assert set(load_file(tmp_path / "bottlenecks.safetensors")) == moving
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bottlenecks.json", "bottlenecks.safetensors"]
    fresh = bench.task.load(bench.loaded.base, 3, torch.float32)
    opened = type(bench.method)(KINDS[kind]).open(fresh, tmp_path)
    was, now = bench.weights(), dict(opened.model.named_parameters())
    assert set(was) == set(now) and all(torch.equal(was[name], now[name]) for name in was)
    batch = bench.batch()
    if task not in WRITERS:
        assert torch.equal(logits_of(opened.model, batch), bench.logits())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_run_folder_opens_and_answers_as_it_recorded(
    bases: Bases, tiny_data: Path, tmp_path: Path, family: str, kind: str
) -> None:
    """Without the weights of the base in it; another base in the base's place is refused."""
    from tunesmith.folder import lines
    from tunesmith.open import Run

    data = {"validation": str(tiny_data / "test.jsonl")}
    method = KINDS[kind].model_dump()
    run_tiny(bases(family), tiny_data / "train.jsonl", tmp_path / "run", method=method, data=data)
    opened = Run(tmp_path / "run")
    recorded = lines(opened.folder.predictions("validation"))
    again = opened.predict([row["text"] for row in tiny.make_rows(21, seed=1)])
    assert [row["answer"] for row in recorded] == [row["label"] for row in again]
    assert [row["score"] for row in recorded] == pytest.approx([row["score"] for row in again], abs=1e-6)
    assert not (opened.folder.model / "model.safetensors").exists()
    assert list(opened.manifest["model_sha256"]) == ["bottlenecks.safetensors"]
    text = opened.folder.card.read_text()
    assert 'tunesmith.open(".").predict(["a text"])' in text and "from peft" not in text
    assert "Mangrulkar" not in opened.folder.paper.read_text()


def test_bottlenecks_are_no_base(bases: Bases, tiny_data: Path, tmp_path: Path) -> None:
    """They bend, so they cannot be added into a weight: neither merged, nor begun from, nor a stage before another."""
    bench = trained(bases("bert"), "pfeiffer")
    with pytest.raises(ModelError, match=r"pfeiffer: bottlenecks cannot be merged"):
        bench.method.merge(bench.loaded)
    recipe = recipe_of(bases("bert"), tiny_data / "train.jsonl", tmp_path / "next")
    run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / "run", method={"kind": "houlsby", "size": 4})
    with pytest.raises(ModelError, match=r"bottlenecks for another model.*name the base that they were made for"):
        find_base(str(tmp_path / "run"))
    values = recipe.model_dump(mode="json", exclude={"stages"})
    stage = {"data": {"train": str(tiny_data / "train.jsonl")}, "method": "houlsby"}
    with pytest.raises(RecipeError, match=r"cannot begin from what houlsby leaves"):
        check_recipe(Located({**values, "stages": [stage]}, {}))


def spoiled(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    about = json.loads((folder / "bottlenecks.json").read_text())
    (folder / "bottlenecks.json").write_text(json.dumps(change(about)))


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a list": (lambda folder: spoiled(folder, lambda about: []), "not a description of bottlenecks"),
    "no places": (lambda folder: spoiled(folder, lambda about: {**about, "places": None}), "not a description"),
    "a strange form": (
        lambda folder: spoiled(folder, lambda about: {**about, "places": [{**about["places"][0], "form": "beside"}]}),
        "not a description",
    ),
    "a place twice": (
        lambda folder: spoiled(folder, lambda about: {**about, "places": [about["places"][0], *about["places"]]}),
        "not a description",
    ),
    "a place without weights": (
        lambda folder: spoiled(
            folder,
            lambda about: {
                **about,
                "places": [{**about["places"][0], "module": "bert.encoder.layer.0.output.dropout"}],
            },
        ),
        r"this base has no bert\.encoder\.layer\.0\.output\.dropout",
    ),
    "gone": (lambda folder: (folder / "bottlenecks.json").unlink(), "not a description"),
    "another size": (lambda folder: spoiled(folder, lambda about: {**about, "size": 9}), "size is 9, not 8"),
    "another format": (lambda folder: spoiled(folder, lambda about: {**about, "format": 2}), "format is 2, not 1"),
    "another base": (
        lambda folder: spoiled(folder, lambda about: {**about, "norms": ["bert.nowhere"]}),
        r"this base has no bert\.nowhere",
    ),
    "fewer places": (
        lambda folder: spoiled(folder, lambda about: {**about, "places": about["places"][1:]}),
        "its weights are not those of this model",
    ),
    "another width": (
        lambda folder: spoiled(
            folder, lambda about: {**about, "places": [{**place, "width": 31} for place in about["places"]]}
        ),
        "its weights are not those of this model",
    ),
    "torn": (lambda folder: (folder / "bottlenecks.safetensors").write_bytes(b"\x08"), "cannot be read"),
    "no weights": (lambda folder: (folder / "bottlenecks.safetensors").unlink(), "cannot be read"),
    "a weight too many": (
        lambda folder: save_file(
            {**load_file(folder / "bottlenecks.safetensors"), "odd": torch.ones(1)}, folder / "bottlenecks.safetensors"
        ),
        r"not those of this model \(odd\)",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_files_are_named(bases: Bases, tmp_path: Path, name: str) -> None:
    spoil, message = SPOILED[name]
    bench = set_up(bases("bert"), KINDS["houlsby"], precision="fp32")
    bench.method.save(bench.loaded, tmp_path)
    spoil(tmp_path)
    fresh = bench.task.load(bench.loaded.base, 0, torch.float32)
    with pytest.raises(CheckpointError, match=message) as caught:
        type(bench.method)(KINDS["houlsby"]).open(fresh, tmp_path)
    assert str(tmp_path / "bottlenecks.") in str(caught.value)


def test_norms_move_with_them_if_asked(bases: Bases) -> None:
    """Those in the blocks, the paper's; the embeddings' norm stays."""
    for norms in (True, False):
        bench = set_up(bases("bert"), Pfeiffer(size=8, norms=norms), precision="fp32")
        moving = {name for name, weight in bench.loaded.model.named_parameters() if weight.requires_grad}
        found = {name for name in moving if "LayerNorm." in name and ".bottleneck." not in name}
        assert len(found) == norms * 3 * 2 * 2
        assert not any("embeddings" in name for name in found)
        blocks = tuple(name for name, _ in layers.blocks(bench.loaded.model))
        assert all(layers.under(name, (*blocks, "classifier")) for name in moving)
