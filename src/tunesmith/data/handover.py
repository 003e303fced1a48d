"""How the first process hands encoded rows to the others: flat arrays in one safetensors file, never pickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file


def hand_over(examples: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows of numbers and lists of numbers. All rows must have the same keys."""
    arrays: dict[str, np.ndarray] = {}
    for name, first in examples[0].items():
        values = [example[name] for example in examples]
        if isinstance(first, list):
            arrays[f"list:{name}"] = np.concatenate([np.asarray(value, dtype=np.int64) for value in values])
            arrays[f"ends:{name}"] = np.cumsum([len(value) for value in values], dtype=np.int64)
        else:
            arrays[f"one:{name}"] = np.asarray(values)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, file)


def take_over(file: Path) -> list[dict[str, Any]]:
    """Read what `hand_over` wrote."""
    columns: dict[str, list[Any]] = {}
    arrays = load_file(file)
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind == "list":
            pieces = np.split(array, arrays[f"ends:{name}"][:-1])
            columns[name] = [piece.tolist() for piece in pieces]
        elif kind == "one":
            columns[name] = array.tolist()
    names = sorted(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*(columns[name] for name in names), strict=True)]
