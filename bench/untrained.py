"""A base of a known architecture with random weights: `python -m bench.untrained MODEL FOLDER [--seed N]`.

Config and tokenizer are those of MODEL (a recipe's `model`), the weights are drawn as its config says. What a run on
such a base lacks beside the same run on MODEL is what pre-training gave.
"""

import argparse
import json
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Write the folder, and say how many numbers its weights hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.untrained", description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(json.dumps({"parameters": write(options.model, options.folder, options.seed)}))
    return 0


def write(model: str, folder: Path, seed: int) -> int:
    """The same architecture with weights of its own, as a plain transformers folder; the count of its numbers."""
    import torch
    import transformers

    from tunesmith.models.references import find_base

    base = find_base(model).folder
    torch.manual_seed(seed)
    drawn = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(base))
    drawn.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return sum(parameter.numel() for parameter in drawn.parameters())


if __name__ == "__main__":
    sys.exit(main())
