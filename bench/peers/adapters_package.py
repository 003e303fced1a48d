"""The package `adapters` on models and bottlenecks that `bench.bottlenecks` wrote; prints one JSON object.

    python bench/peers/adapters_package.py FOLDER

It wants an environment of its own: the package asks for an older transformers than ours.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import adapters
import torch
import transformers
from adapters.methods.modeling import Adapter
from safetensors.torch import load_file

CONFIGS = {"houlsby": adapters.DoubleSeqBnConfig, "pfeiffer": adapters.SeqBnConfig}


def main() -> None:
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    found = [{**case, **differences(folder / case["folder"], case)} for case in cases]
    versions = {name: version(name) for name in ("adapters", "transformers", "torch")}
    print(json.dumps({"versions": versions, "cases": found}))


@torch.no_grad()
def differences(folder: Path, case: dict) -> dict[str, float]:
    """The largest difference between the states that we wrote and those of this package, at equal weights; and that of
    the bare models, which are of two releases of transformers."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    adapters.init(model)
    config = CONFIGS[case["kind"]](non_linearity=case["activation"], reduction_factor=case["width"] / case["size"])
    model.add_adapter("one", config=config)
    model.set_active_adapters("one")
    model = model.double()
    weights = load_file(folder / "bottlenecks.safetensors")
    batch = load_file(folder / "batch.safetensors")
    wanted, bare = batch.pop("states"), batch.pop("bare")
    inserted = in_order_of_calls(model, batch)
    if len(inserted) != case["places"]:
        raise SystemExit(f"{case['folder']}: the package has {len(inserted)} bottlenecks, we have {case['places']}")
    for number, module in enumerate(inserted):
        for ours, theirs in (("down", module.adapter_down[0]), ("up", module.adapter_up)):
            theirs.weight.copy_(weights[f"{number}.{ours}.weight"])
            theirs.bias.copy_(weights[f"{number}.{ours}.bias"])
    found = float((model(**batch).last_hidden_state - wanted).abs().max())
    model.set_active_adapters(None)
    return {"difference": found, "bare": float((model(**batch).last_hidden_state - bare).abs().max())}


def in_order_of_calls(model: torch.nn.Module, batch: dict) -> list[Adapter]:
    called: list[Adapter] = []
    inserted = [module for module in model.modules() if isinstance(module, Adapter)]
    handles = [module.register_forward_hook(lambda module, *_: called.append(module)) for module in inserted]
    model(**batch)
    for handle in handles:
        handle.remove()
    return called


main()
