"""Runs opened together hold in memory once what is the same in them, and each answers as if it were alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from workbench import EVERY_METHOD, run_tiny

import tiny
import tunesmith as ts
from tunesmith.errors import CheckpointError
from tunesmith.models.loaded import as_base
from tunesmith.models.shared_weights import SharedWeights, tensors_of_base
from tunesmith.open import Run

Bases = Callable[..., Path]

KINDS = ("lora", "dora", "ia3", "houlsby", "pfeiffer", "bitfit", "head", "prefix")
ADAPTERS = ("lora", "dora", "ia3", "houlsby", "pfeiffer")
TEXTS = [row["text"] for row in tiny.make_rows(9, seed=3)]


def train(base: Path, folder: Path, method: Any, name: str, rows: int = 0) -> Path:
    data = tiny.write_rows(folder / f"{name}.jsonl", tiny.make_rows(24, seed=rows))
    train = {"steps": 2, "evaluate_every": 2, "learning_rate": 0.05}
    run_tiny(base, data, folder / name, method=method, train=train)
    return folder / name


@pytest.fixture(scope="module")
def folders(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one base, one of each kind, and a second one of lora on other rows."""
    base, place = bases("bert"), tmp_path_factory.mktemp("runs")
    methods = {kind: EVERY_METHOD[kind].model_dump() for kind in (*KINDS, "last-layers")}
    made = {kind: train(base, place, method, kind) for kind, method in methods.items()}
    return {**made, "lora-2": train(base, place, methods["lora"], "lora-2", rows=1)}


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path]) -> dict[str, list[Any]]:
    """What each run answers when it is opened alone."""
    return {name: answers(ts.open(str(folder))) for name, folder in folders.items()}


def answers(run: Run) -> list[Any]:
    return run.predict(TEXTS, probabilities=True)


def opened(folders: dict[str, Path], names: Iterable[str] | None = None) -> dict[str, Run]:
    names = list(names or folders)
    return dict(zip(names, ts.open_runs(*(str(folders[name]) for name in names)), strict=True))


def tensors(*runs: Run) -> Iterator[torch.Tensor]:
    for run in runs:
        yield from (*run.loaded.model.parameters(), *run.loaded.model.buffers())


def held(many: Iterable[torch.Tensor]) -> int:
    """Bytes in memory: what several tensors share counts once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in many}.values())


def moving(run: Run) -> list[nn.Parameter]:
    return [parameter for parameter in run.loaded.model.parameters() if parameter.requires_grad]


def test_runs_opened_together_answer_as_they_do_alone(folders: dict[str, Path], alone: dict[str, list[Any]]) -> None:
    """To the bit, whichever is asked first; and they are not all the same."""
    runs = opened(folders)
    for name in (*folders, *reversed(folders)):
        assert answers(runs[name]) == alone[name], name
    assert len({repr(answer) for answer in alone.values()}) == len(folders)


def test_memory_holds_one_base_and_the_adapters(folders: dict[str, Path]) -> None:
    """All bytes: those of one run without its adapter, and each adapter's own."""
    names = [*ADAPTERS, "lora-2"]
    apart = [ts.open(str(folders[name])) for name in names]
    one_base = held(tensor for tensor in tensors(apart[0]) if not tensor.requires_grad)
    own = sum(held(moving(run)) for run in apart)
    assert held(tensors(*apart)) > 5 * one_base
    assert held(tensors(*opened(folders, names).values())) == one_base + own


@pytest.mark.parametrize("kind", ["last-layers", "bitfit", "head"])
def test_what_did_not_move_in_a_tuned_model_is_shared(
    folders: dict[str, Path], alone: dict[str, list[Any]], kind: str
) -> None:
    """A run that keeps whole weights holds what moved in it, and has the rest in common with an adapter's base."""
    runs = opened(folders, ["lora", kind])
    base = {name.removeprefix("base_model.model."): one for name, one in runs["lora"].loaded.model.named_parameters()}
    same, other = set(), set()
    for name, tensor in runs[kind].loaded.model.named_parameters():
        theirs = base.get(name, base.get(".base_layer.".join(name.rsplit(".", 1))))
        if theirs is not None:
            (same if torch.equal(theirs, tensor) else other).add(name)
            assert (theirs.data_ptr() == tensor.data_ptr()) == (name in same), name
    assert any("embeddings" in name for name in same)
    assert other or kind == "head"  # what its head moves is in no base
    assert answers(runs[kind]) == alone[kind]


@pytest.mark.parametrize("kind", [*ADAPTERS, "prefix"])
def test_a_changed_adapter_changes_no_other_run(
    folders: dict[str, Path], alone: dict[str, list[Any]], kind: str
) -> None:
    runs = opened(folders)
    with torch.no_grad():
        for parameter in moving(runs[kind]) or prompts(runs[kind]):
            parameter.add_(0.5)
    assert answers(runs[kind]) != alone[kind]
    assert all(answers(runs[name]) == alone[name] for name in folders if name != kind)


def prompts(run: Run) -> list[nn.Parameter]:
    """Virtual tokens, which PEFT opens without a gradient."""
    return [one for name, one in run.loaded.model.named_parameters() if "prompt" in name]


def test_a_copy_of_the_same_run_keeps_its_own_adapter(folders: dict[str, Path], alone: dict[str, list[Any]]) -> None:
    """Equal to the bit and still apart: an adapter is never shared."""
    for kind in ADAPTERS:
        one, other = ts.open_runs(str(folders[kind]), str(folders[kind]))
        with torch.no_grad():
            for parameter in moving(one):
                parameter.add_(0.5)
        assert answers(other) == alone[kind], kind


def test_a_run_that_steps_aside_disturbs_no_other(folders: dict[str, Path], alone: dict[str, list[Any]]) -> None:
    """As its base is asked for, one after the other and all at once: the others answer as before, then it does, too."""
    runs = opened(folders)
    for name in folders:
        with as_base(runs[name].loaded):
            assert all(answers(runs[other]) == alone[other] for other in folders if other != name)
        assert answers(runs[name]) == alone[name]
    names = [*ADAPTERS, "lora-2", "prefix"]
    with ExitStack() as aside:
        for name in names:
            aside.enter_context(as_base(runs[name].loaded))
        bodies = [hidden_states(runs[name]) for name in names]
        assert all(torch.equal(bodies[0], body) for body in bodies)
    assert all(answers(runs[name]) == alone[name] for name in folders)


def hidden_states(run: Run) -> torch.Tensor:
    batch = run.loaded.processor(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states: torch.Tensor = run.loaded.model(**batch, output_hidden_states=True).hidden_states[-1]
    return states


def test_threads_use_different_runs_at_once(folders: dict[str, Path], alone: dict[str, list[Any]]) -> None:
    runs = opened(folders)
    with ThreadPoolExecutor(len(folders)) as pool:
        told = list(pool.map(lambda name: [answers(runs[name]) for _ in range(2)], folders))
    assert told == [[alone[name]] * 2 for name in folders]


def test_weights_go_with_the_last_run_that_uses_them(folders: dict[str, Path], alone: dict[str, list[Any]]) -> None:
    """The first of three may go, and the third still shares with the second."""
    weights = SharedWeights()
    first, second = (Run(folders[name], weights=weights) for name in ("lora", "houlsby"))
    gone = weakref.ref(first.loaded.model)
    assert answers(second) == alone["houlsby"]
    del first
    gc.collect()
    assert gone() is None
    third = Run(folders["lora-2"], weights=weights)
    assert answers(third) == alone["lora-2"]
    assert {one.data_ptr() for one in tensors(second)} & {one.data_ptr() for one in tensors(third)}


@pytest.mark.parametrize(
    ("mine", "theirs", "shared"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.5], False),
        ([0.0, 2.0], [-0.0, 2.0], False),
        ([float("nan"), 2.0], [float("nan"), 2.0], True),
    ],
)
def test_shared_is_what_is_equal_to_the_bit(mine: list[float], theirs: list[float], shared: bool) -> None:
    weights, models = SharedWeights(), []
    for numbers in (mine, theirs):
        model = nn.Linear(2, 1)
        model.weight.data = torch.tensor([numbers])
        weights.share(model, tensors_of_base(model), all_of_it=True)
        models.append(model)
    assert (models[0].weight.data_ptr() == models[1].weight.data_ptr()) == shared
    assert torch.equal(models[1].weight.nan_to_num(), torch.tensor([theirs]).nan_to_num())


def test_another_layout_or_type_is_another_weight() -> None:
    """A product may round otherwise where a weight lies otherwise in memory."""
    weights = SharedWeights()
    square = torch.eye(3)
    models = [nn.Linear(3, 3, bias=False) for _ in range(3)]
    for model, tensor in zip(models, (square, square.clone().t(), square.double()), strict=True):
        model.weight.data = tensor
        weights.share(model, tensors_of_base(model), all_of_it=True)
    assert len({model.weight.data_ptr() for model in models}) == 3


def test_a_folder_without_a_model_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        ts.open_runs(str(folders["lora"]), str(tmp_path / "nothing"))
