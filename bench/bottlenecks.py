"""Bottlenecks at equal weights, ours and those of the package `adapters` (its authors wrote the Pfeiffer paper).

    python -m bench.bottlenecks --peer ADAPTERS_ENVIRONMENT/bin/python [--record]

Tiny random models in double precision. Both sides get the same base, the same bottlenecks and the same inputs; the
largest difference of the last states must be rounding. That package asks for an older transformers, whose T5 has a
softmax in single precision: there the bare models differ as much. It has no bottlenecks behind a decoder's attention to
its encoder, unless asked, so there ours has none here.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from bench import ledger
from tunesmith.models import bottlenecks

PEER = Path(__file__).parent / "peers" / "adapters_package.py"
ALLOWED = 1e-6
SIZE = 4
WIDE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 32,
}  # fmt: skip
STACKS = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip
FAMILIES = {
    "bert": ("BertConfig", WIDE),
    "roberta": ("RobertaConfig", WIDE),
    "electra": ("ElectraConfig", {**WIDE, "embedding_size": 16}),
    "distilbert": ("DistilBertConfig", {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}),
    "deberta-v2": ("DebertaV2Config", {**WIDE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "gpt2": ("GPT2Config", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": ("LlamaConfig", {**WIDE, "num_key_value_heads": 1}),
    "t5": ("T5Config", {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}),
    "bart": ("BartConfig", STACKS),
    "vit": (
        "ViTConfig",
        {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "image_size": 16, "patch_size": 8},
    ),
}  # fmt: skip
KINDS = {"houlsby": bottlenecks.in_sublayers, "pfeiffer": bottlenecks.in_blocks}
ACTIVATIONS = {"houlsby": "swish", "pfeiffer": "relu"}
"""Those that the package gives each by default."""

TO_AN_ENCODER = ("EncDecAttention", "encoder_attn.")
SUBJECTS = ("src/tunesmith/models/bottlenecks.py", "src/tunesmith/models/sublayers.py", "bench/bottlenecks.py",
            "bench/peers/adapters_package.py")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python that has the package `adapters`")
    parser.add_argument("--record", action="store_true", help="write bench/evidence/bottlenecks.json")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cases = [write(folder, family, kind) for family in FAMILIES for kind in KINDS]
        (folder / "cases.json").write_text(json.dumps(cases))
        answered = subprocess.run([options.peer, PEER, folder], capture_output=True, text=True, check=False)
    if answered.returncode:
        raise SystemExit(answered.stderr[-2000:])
    figures = json.loads(answered.stdout.splitlines()[-1])
    for case in figures["cases"]:
        said = ", ".join(f"{name} {case[name]:.1e}" for name in ("moved", "difference", "bare"))
        print(f"{case['folder']:20} {case['places']} bottlenecks: {said}")
    worst = max(case["difference"] for case in figures["cases"])
    print(f"largest difference: {worst:.1e} ({'within' if worst <= ALLOWED else 'ABOVE'} {ALLOWED:.0e})")
    if worst > ALLOWED:
        raise SystemExit(1)
    if options.record:
        command = "python -m bench.bottlenecks --peer PYTHON --record"
        ledger.write("bottlenecks", {**figures, "worst": worst}, command, SUBJECTS, time.perf_counter() - began)


@torch.no_grad()
def write(folder: Path, family: str, kind: str) -> dict:
    """A base, bottlenecks with random weights, inputs, and the states that we make of them."""
    name, values = FAMILIES[family]
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(getattr(transformers, name)(**values)).double().eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2 and family != "t5":  # T5 draws by its width
            parameter.mul_(8)  # matrices drawn for a width of 768 say next to nothing at one of 16
    one = folder / f"{family}-{kind}"
    model.save_pretrained(one)
    batch = inputs_of(model)
    base = model(**batch).last_hidden_state
    places = [place for place in KINDS[kind](model) if not any(part in place.module for part in TO_AN_ENCODER)]
    bottlenecks.insert(model, places, SIZE, ACTIVATIONS[kind])
    weights = {}
    for number, place in enumerate(places):
        for inner, parameter in model.get_submodule(place.module).bottleneck.named_parameters():
            weights[f"{number}.{inner}"] = parameter.normal_(0, 0.3)
    save_file(weights, one / "bottlenecks.safetensors")
    states = model(**batch).last_hidden_state
    save_file({**batch, "states": states.contiguous(), "bare": base.contiguous()}, one / "batch.safetensors")
    return {
        "folder": one.name, "kind": kind, "activation": ACTIVATIONS[kind], "size": SIZE, "width": places[0].width,
        "places": len(places), "moved": float((states - base).abs().max()),
    }  # fmt: skip


def inputs_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(2, 3, 16, 16, dtype=torch.float64)}
    ids = torch.randint(3, 40, (2, 7))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**batch, "decoder_input_ids": ids.flip(0).contiguous()} if model.config.is_encoder_decoder else batch


if __name__ == "__main__":
    main()
