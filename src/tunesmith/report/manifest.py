"""The record: what is needed to make the run again, and to know that it is the same."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tunesmith.recipe import Recipe
from tunesmith.recipe.data import SOURCES

PACKAGES = (
    "tunesmith",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "numpy",
    "pillow",
    "scikit-learn",
)

PLACES = (*(("data", key) for key in SOURCES), ("output",), ("model",), ("teacher", "model"), ("rehearsal", "runs"))
"""Keys that say where things lie. Identity goes by their content, so that a run folder can be moved."""

ONLOOKERS = (("track",), ("data", "keep_rows"))
"""Keys that change nothing of what a run comes to: it may go on with others."""


def versions() -> dict[str, str]:
    """Versions of Python and of every package that has a part in the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
    }


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def identity(
    recipe: Recipe,
    files: dict[str, str],
    base_hashes: dict[str, str],
    world_size: int,
    other_hashes: Mapping[str, str],
) -> dict[str, Any]:
    """What makes a run this run, as flat fields: every setting that acts, data, base and what else has a say by hash,
    and the ranks."""
    fields: dict[str, Any] = {}
    for section, values in recipe.model_dump(mode="json").items():
        flat = values.items() if isinstance(values, dict) else [(None, values)]
        for name, value in flat:
            path = (section,) if name is None else (section, name)
            if path not in (*PLACES, *ONLOOKERS) or isinstance(value, float):
                fields[".".join(path)] = value
    fields |= {f"data.{split}.sha256": digest for split, digest in files.items()}
    fields |= {f"model.{name}": digest for name, digest in base_hashes.items()}
    return {**fields, **other_hashes, "processes": world_size}
