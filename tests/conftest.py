"""What the tests share: tiny random models, a few rows, and one finished run. Nothing here needs a network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["USE_HUB_KERNELS"] = "NO"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Runs in child processes, too: beside another worker, two threads that wait for one another are slower than one.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models are fastest on one thread, and the bits of a sum depend on the number of threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's page without the strokes of its charts, which take more time than all else of a tiny run: everything
    is read, counted and laid into the figure, and an empty picture stands in its place. `tests/report` draws them, and
    what is marked `drawn`; so does every run in a process of its own."""
    if request.node.get_closest_marker("drawn") or "report" in request.path.parent.name:
        return
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    blank = '<svg viewBox="0 0 1 1"></svg>'
    monkeypatch.setattr(FigureCanvasSVG, "print_svg", lambda self, file, **named: file.write(blank))


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of models that goes with the module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`bases(kind, dropout=0.1, ...)`: the folder of a tiny random model, made once a session."""

    @cache
    def base(kind: str = "bert", dropout: float = 0.1, layers: int = 3, seed: int = 0) -> Path:
        return tiny.make_model(tmp_path_factory.mktemp(kind) / "base", kind, dropout, layers, seed)

    return base


@pytest.fixture(scope="session")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`writers(kind, dropout=0.1, ...)`: the folder of a tiny random model that writes, made once a session."""

    @cache
    def writer(kind: str = "bart", dropout: float = 0.1, layers: int = 2, seed: int = 0) -> Path:
        return tiny.make_writer(tmp_path_factory.mktemp(kind) / "base", kind, dropout, layers, seed)

    return writer


@pytest.fixture(scope="session")
def tiny_base(bases: Callable[..., Path]) -> Path:
    """A tiny BERT with dropout."""
    return bases("bert")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (40 rows) and test.jsonl (21 rows), three classes."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_rows(folder / "train.jsonl", tiny.make_rows(40))
    tiny.write_rows(folder / "test.jsonl", tiny.make_rows(21, seed=1))
    return folder


@pytest.fixture(scope="session")
def finished_run(tiny_base: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with a test set and all baselines (full fine-tuning, 12 steps). Look, do not touch."""
    from tunesmith.recipe import Recipe
    from tunesmith.run import run

    recipe = Recipe.model_validate(
        {
            "model": str(tiny_base),
            "data": {"train": str(tiny_data / "train.jsonl"), "test": str(tiny_data / "test.jsonl")},
            "train": {"steps": 12, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
            "machine": {"threads": 1},
            "output": str(tmp_path_factory.mktemp("runs") / "finished"),
        }
    )
    return run(recipe)
