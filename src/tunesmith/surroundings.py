"""What a process that we start for one job finds around it."""

from __future__ import annotations

import os
from pathlib import Path

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What makes a process one of several: one that we start is alone."""

NO_CONNECTION = {"HF_HUB_OFFLINE": "1", "USE_HUB_KERNELS": "NO"}


def of_child(**more: str) -> dict[str, str]:
    """Our own environment variables, with this very package found first; without ranks, and without a connection: all
    that a child needs is here. `more` is set besides."""
    package = str(Path(__file__).parents[1])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    mine = {name: value for name, value in os.environ.items() if name not in RANKS}
    return {**mine, **NO_CONNECTION, "PYTHONPATH": os.pathsep.join(paths), **more}
