"""Two processes that share the weights out (FSDP2) are one, and each of them holds about half."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from workbench import EVERY_METHOD, Bench, command, largest_difference, logits_of, recipe_of, run_tiny, set_up

import tiny
from forked import in_two
from tunesmith import checkpoints
from tunesmith.checkpoints import MOMENTS, STATE, WEIGHTS, Progress, files_of
from tunesmith.data.batches import Order
from tunesmith.devices import Devices, choose_devices, is_part, joined, own_part
from tunesmith.errors import RecipeError
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.launch import _free_port
from tunesmith.loop import Course, Step, make_optimizer, train
from tunesmith.methods.contract import Span
from tunesmith.models.loaded import Loaded
from tunesmith.recipe import Full, Machine
from tunesmith.recipe.reading import write_recipe
from tunesmith.run import run
from tunesmith.sharing import gather, shared_out

Bases = Callable[..., Path]

METHODS: dict[str, Any] = {"full": Full(l2_sp=0.1), "lora": EVERY_METHOD["lora"], "houlsby": EVERY_METHOD["houlsby"]}
KINDS: dict[str, tuple[str, str]] = {
    "token-classification": ("bert", "lora"),
    "question-answering": ("bert", "full"),
    "language-modeling": ("bert+masked", "lora"),
    "summarization": ("bart", "full"),
    "sentence-similarity": ("bert", "full"),
    "image-classification": ("vit", "lora"),
}
"""A base and a method for each further kind of task; one that writes goes through a whole run below."""

STEPS, ROWS, BUDGET = 6, 7, 40
RAGGED = 0.02
"""How far a rank may be from half: a weight of three rows is parted in two and one."""


def steps_of(
    bench: Bench, trained: Loaded, devices: Devices, place: Path | None = None, start: int = 0, end: int = STEPS
) -> tuple[list[Step], torch.optim.Optimizer]:
    """Steps `start` + 1 to `end` by the real loop, from a checkpoint in `place` where they do not begin at the first;
    where they do not come to the last, into one."""
    order = Order(len(bench.examples), ROWS, 0)
    bench.method.begin(trained, Span(STEPS, order.steps_per_epoch, 0))
    optimizer = make_optimizer(trained, bench.method, 3e-3, 0.01)
    if start:
        assert place is not None
        checkpoints.load_weights(checkpoints.path_of(place, start), trained)
        checkpoints.load_moments(checkpoints.path_of(place, start), optimizer)
    course = Course(STEPS, 0.06, "linear", 1.0, 0)
    going = train(trained, bench.method, bench.task, bench.examples, order, course, optimizer, devices, start)
    steps = list(islice(going, end - start))
    if end < STEPS:
        assert place is not None
        checkpoints.save(place, trained, optimizer, Progress(step=end), {}, devices=devices)
    return steps, optimizer


def parts_of(trained: Loaded, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Copies of all that this process holds and trains, by name."""
    held = checkpoints.weights_of(trained) | checkpoints._moments_of(optimizer)
    return {name: own_part(tensor).clone() for name, tensor in held.items()}


def as_one_of_two(rank: int, port: int) -> Devices:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    machine = Machine(device="cpu", processes=2, sharding="full", threads=1, micro_batch_tokens=BUDGET)
    return choose_devices(machine, "fp64")


def every_kind_in_one_of_two(rank: int, port: int, folders: dict[str, Path]) -> None:
    devices = as_one_of_two(rank, port)
    with joined(devices):
        for kind, (base, name) in KINDS.items():
            alone, both = (set_up(folders[base], EVERY_METHOD[name], budget=BUDGET, kind=kind) for _ in range(2))
            are_one(alone, both, devices)


def in_one_of_two(rank: int, port: int, still: Path, moving: Path, place: Path) -> None:
    """What each of two processes does; what fails in one fails the test."""
    devices = as_one_of_two(rank, port)
    with joined(devices):
        for kind, method in METHODS.items():
            are_one(set_up(still, method, budget=BUDGET), set_up(still, method, budget=BUDGET), devices)
            go_on_to_the_bit([set_up(moving, method, budget=BUDGET) for _ in range(3)], devices, place / kind)


def are_one(alone: Bench, both: Bench, devices: Devices) -> None:
    steps, _ = steps_of(alone, alone.loaded, alone.devices)
    count = sum(parameter.numel() for parameter in both.loaded.model.parameters())
    trained = shared_out(both.loaded, devices)
    same, optimizer = steps_of(both, trained, devices)
    for was, now in zip(steps, same, strict=True):
        assert (was.rows, was.tokens) == (now.rows, now.tokens)
        assert was.loss == pytest.approx(now.loss, abs=1e-12)
        assert was.grad_norm == pytest.approx(now.grad_norm, rel=1e-9)
        assert was.metrics == pytest.approx(now.metrics, rel=1e-6)
    assert list(dict(trained.model.named_parameters())) == list(alone.weights())
    assert sum(own_part(one).numel() for one in trained.model.parameters()) / count == pytest.approx(0.5, abs=RAGGED)
    moments = [value for state in optimizer.state.values() for kind, value in state.items() if kind != "step"]
    assert moments and all(map(is_part, moments))
    gather(trained, {}, both.loaded, devices)
    if devices.is_first:
        assert largest_difference(*(seen(bench.weights()) for bench in (alone, both))) <= 1e-12


def seen(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All but what a softmax does not see, the biases of keys and of a span's ends: their gradient is rounding, which
    moments (and a pull to the start) make grow."""
    unseen = ("key.bias", "k_proj.bias", "qa_outputs.bias")
    return {name: weight for name, weight in weights.items() if not name.endswith(unseen)}


def go_on_to_the_bit(benches: list[Bench], devices: Devices, place: Path) -> None:
    """With dropout: six steps, or three, a checkpoint of two parts, and three more in a fresh model."""
    straight, first, second = ((bench, shared_out(bench.loaded, devices)) for bench in benches)
    whole, wanted = steps_of(*straight, devices)
    began, _ = steps_of(*first, devices, place, end=3)
    rest, optimizer = steps_of(*second, devices, place, start=3)
    assert [step.loss for step in (*began, *rest)] == [step.loss for step in whole]
    assert largest_difference(parts_of(straight[1], wanted), parts_of(second[1], optimizer)) == 0.0


@pytest.mark.slow
def test_two_processes_with_parts_are_one(bases: Bases, tmp_path: Path) -> None:
    """In fp64: losses, norms and weights, with fewer pieces than ranks and unequally many of them; the moments are
    parts; and what is taken up again from parts goes on to the bit."""
    arguments = (_free_port(), bases("bert", dropout=0.0), bases("bert", dropout=0.3), tmp_path)
    torch.multiprocessing.spawn(in_one_of_two, arguments, nprocs=2)


@pytest.mark.slow
def test_two_processes_with_parts_are_one_for_every_kind_of_task(bases: Bases, writers: Bases) -> None:
    """Heads over tokens and over the whole vocabulary, a decoder beside an encoder, batches that must stay whole, rows
    that are drawn anew at each look, images."""
    folders = {base: (writers if base == "bart" else bases)(base, dropout=0.0) for base, _ in KINDS.values()}
    torch.multiprocessing.spawn(every_kind_in_one_of_two, (_free_port(), folders), nprocs=2)


@pytest.mark.slow
def test_a_run_that_writes_shares_its_weights_out(writers: Bases, tmp_path: Path) -> None:
    """Answers are written by the first process alone, between steps of both, with an output layer that is the word
    embedding as well: weights, losses and scores are those of one process."""
    rows = [{**row, "target": row["target"][0]} for row in tiny.make_reversals(24)]
    base, data = writers("llama-tied", dropout=0.0), tiny.write_rows(tmp_path / "train.jsonl", rows)
    course = {"steps": 4, "batch_size": ROWS, "evaluate_every": 2, "precision": "fp64"}
    sections = {"task": "translation", "train": course, "machine": {"micro_batch_tokens": BUDGET}}
    alone, both = run_tiny(base, data, tmp_path / "one", **sections).folder, RunFolder(tmp_path / "two")
    sections["machine"] = {"micro_batch_tokens": BUDGET, "processes": 2, "sharding": "full"}
    write_recipe(recipe_of(base, data, both.path, **sections), tmp_path / "two.yaml")
    codes, told = in_two(["run", str(tmp_path / "two.yaml")], tmp_path)
    assert codes == [0, 0], told
    one, two = (load_file(folder.model / "model.safetensors") for folder in (alone, both))
    assert largest_difference(one, two) <= 1e-12
    for was, now in zip(lines(alone.evaluations), lines(both.evaluations), strict=True):
        assert was["loss"] == pytest.approx(now["loss"], abs=1e-12)
        assert was["scores"] == now["scores"]


def run_by_command(verb: str, target: Path) -> None:
    ended = command([verb, str(target)])
    assert ended.returncode == 0, ended.stderr


def wanted_files(folder: RunFolder) -> list[bytes]:
    rows = [{**row, "seconds": 0} for row in lines(folder.steps)]
    whole = [folder.model / "model.safetensors", folder.scores, folder.evaluations]
    return [*(file.read_bytes() for file in whole), repr(rows).encode()]


@pytest.mark.slow
def test_a_run_that_shares_its_weights_out_is_a_run(bases: Bases, tmp_path: Path) -> None:
    """By the command, with all that a whole run adds: a head that is taught first, running means, a refit. Its folder
    is that of one process; its checkpoints are two halves; taken up from the last but one it is the same to the bit."""
    from transformers import AutoModelForSequenceClassification

    base, data = bases("bert", dropout=0.0), tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(30))
    course = {"steps": 6, "batch_size": ROWS, "evaluate_every": 3, "checkpoint_every": 2, "precision": "fp64"}
    sections = {"method": {"kind": "full", "head_first": 1}, "train": {**course, "ema": 0.6, "refit": True}}
    machine = {"micro_batch_tokens": BUDGET}
    alone = run_tiny(base, data, tmp_path / "one", machine=machine, **sections).folder
    both = RunFolder(tmp_path / "two")
    sharing = {**machine, "processes": 2, "sharding": "full"}
    write_recipe(recipe_of(base, data, both.path, machine=sharing, **sections), tmp_path / "two.yaml")
    run_by_command("run", tmp_path / "two.yaml")

    one, two = (load_file(folder.model / "model.safetensors") for folder in (alone, both))
    assert largest_difference(one, two) <= 1e-12
    for was, now in zip(lines(alone.steps), lines(both.steps), strict=True):
        assert (was["phase"], was["step"]) == (now["phase"], now["step"])
        assert was["loss"] == pytest.approx(now["loss"], abs=1e-12)
    for was, now in zip(lines(alone.evaluations), lines(both.evaluations), strict=True):
        assert was["loss"] == pytest.approx(now["loss"], abs=1e-12)
        assert was["scores"]["accuracy"] == now["scores"]["accuracy"]  # others read the last bits of probabilities
    opened = [AutoModelForSequenceClassification.from_pretrained(run.model) for run in (alone, both)]
    ids = {"input_ids": torch.tensor([[2, 5, 6, 7, 3]])}
    assert torch.allclose(*(logits_of(model, ids) for model in opened), rtol=0, atol=1e-12)

    last = both.checkpoints / "step-000000006"
    written = {file.name for file in last.iterdir()}
    assert written == {*files_of(WEIGHTS, 2), *files_of(MOMENTS, 2), STATE, checkpoints.MANIFEST}
    halves = [numbers_in(last / name) for name in files_of(WEIGHTS, 2)]
    assert sum(halves) == sum(tensor.numel() for tensor in two.values())
    assert halves[0] / sum(halves) == pytest.approx(0.5, abs=RAGGED)

    whole = wanted_files(both)
    shutil.rmtree(last)
    shutil.rmtree(both.checkpoints / "refit")
    shutil.rmtree(both.model)
    both.manifest.write_text(re.sub(r'"finished": "[^"]*"', '"finished": null', both.manifest.read_text()))
    run_by_command("resume", both.path)
    assert wanted_files(both) == whole
    assert read_json(both.manifest)["resumed_from"] == 4


def numbers_in(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return sum(opened.get_tensor(name).numel() for name in opened.keys())  # noqa: SIM118 (not a mapping)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"kind": "gradual-unfreezing"}, "which weights move changes from step to step"),
        ({"kind": "qlora"}, "weights in 4 bits are not parted"),
        ({"kind": "full", "mixout": 0.5}, "mixout swaps whole weights"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(tmp_path: Path, method: dict[str, Any], why: str) -> None:
    machine = {"processes": 2, "sharding": "full"}
    with pytest.raises(ValidationError, match=why):
        recipe_of(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", method=method, machine=machine)


def test_one_process_has_nothing_to_share(bases: Bases, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(20))
    recipe = recipe_of(bases("bert"), data, tmp_path / "run", machine={"sharding": "full"})
    with pytest.raises(RecipeError, match=r"machine\.sharding: full asked for, but this is the only process"):
        run(recipe)
