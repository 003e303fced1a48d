"""W1: full fine-tuning of MiniLM as a text classifier on BANKING77, against transformers.Trainer.

`python -m bench.w1` measures speed, memory and CPU time; `--short` fits ten minutes on two cores;
`--quality` trains to the end instead and compares test accuracy. The table goes to stderr and the JSON to
`--output`, or to stdout with `--json`.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bench import floors, harness, ledger, quality, sides
from bench.sides import GROUPING_CYCLE, WARMUP_STEPS, Length, Side, Workload

DEFAULT, TUNED = "trainer-default", "trainer-tuned"
CANDIDATES = [Side(TUNED, precision, "group_by_length") for precision in ("fp32", "bf16", "medium")]
# Tried on the fastest candidate: what a user can set in the shell to spare page faults.
ALLOCATORS = [
    {"THP_MEM_ALLOC_ENABLE": "1"},
    {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"},
]
OURS = {"tunesmith": Side("tunesmith", "fp32"), "tunesmith-auto": Side("tunesmith-auto", "auto")}
MIN_PAIRS = 5
# Lower end of the interval of (peer's time / ours) that must hold, and the ambition; memory: ours / peer.
GOALS = {
    (DEFAULT, "tunesmith"): (3.0, 5.0),
    (DEFAULT, "tunesmith-auto"): (5.0, 8.0),
    (TUNED, "tunesmith"): (1.5, 2.2),
    (TUNED, "tunesmith-auto"): (1.5, 2.2),
}
MEMORY_GOAL, FLOOR_GOAL, VOID_SHARE = 0.85, 0.50, 0.80
# The files that W1's figures speak about; a pattern may match nothing.
SUBJECTS = [
    "bench/w1.py", "bench/sides.py", "bench/harness.py", "bench/floors.py", "bench/peers/trainer.py",
    "src/tunesmith/loop.py", "src/tunesmith/devices.py", "src/tunesmith/rewrites/*.py", "src/tunesmith/data/batches.py",
    "src/tunesmith/tasks/long_texts.py", "src/tunesmith/tasks/targets/*.py",
    "src/tunesmith/methods/contract.py", "src/tunesmith/methods/own_weights.py",
    "src/tunesmith/tasks/text_classification.py", "src/tunesmith/models/heads.py",
]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run what the options ask for; exit 1 when there is no figure, a gate fails or a result may not be recorded."""
    options = parse(arguments)
    # Ended from outside, we must still end the child that runs in a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workload = Workload()
    data = workload.data(dict(os.environ))
    if options.quality:
        gate = quality.Gate(workload, data, options.epochs, options.seeds, options.peer_sides, options.our_sides)
        return quality.main(gate, f"{workload.name}-quality", SUBJECTS, options.record, spell(arguments))
    begun = time.monotonic()
    try:
        result = measure(options, workload, data)
    except harness.OutOfTime as late:
        harness.say(f"no result in {options.minutes:g} minutes: the machine is busy or slow ({late})")
        return 1
    result["seconds"] = time.monotonic() - begun
    harness.say(report(result))
    text = json.dumps(result, indent=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n", encoding="utf-8")
    harness.say(f"\nwritten: {options.output}")
    if options.json:
        print(text)
    if options.record:
        return record(result, spell(arguments))
    return int(not result["rounds"]["clean"])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the options and settle what depends on `--short`."""
    parser = argparse.ArgumentParser(prog="python -m bench.w1", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=MIN_PAIRS, help="clean rounds wanted (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="fewer steps; stops in time to end within ten minutes")
    parser.add_argument("--cycles", type=int, default=2, help=f"timed steps in units of {GROUPING_CYCLE}")
    parser.add_argument("--minutes", type=float, default=120.0, help="start no round that would end later")
    parser.add_argument("--sides", nargs="+", default=[DEFAULT, TUNED, "tunesmith"], choices=[DEFAULT, TUNED, *OURS])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                        help="a recipe setting for our side, e.g. train.rewrites=off")  # fmt: skip
    parser.add_argument(
        "--any-load", action="store_true", help="keep runs on a shared machine; such figures are no result"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=harness.ROOT / "bench" / "work" / "w1.json")
    parser.add_argument("--json", action="store_true", help="print the result to stdout as well")
    parser.add_argument("--record", action="store_true", help="write the result to the evidence ledger")
    parser.add_argument("--quality", action="store_true", help="train to the end and compare test accuracy; resumable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=5.0, help="for --quality")
    options = parser.parse_args(arguments)
    if options.short:
        options.cycles, options.minutes = 1, 9.5
    options.patience = 15.0 if options.short else 120.0
    options.deadline = time.monotonic() + options.minutes * 60
    options.limits = harness.Limits(1.0, 1.0) if options.any_load else harness.Limits()
    settings = {key: _value(text) for key, _, text in (pair.partition("=") for pair in options.settings)}
    options.our_sides = [replace(OURS[name], settings=settings) for name in options.sides if name in OURS]
    options.peer_sides = [Side(DEFAULT)] if DEFAULT in options.sides else []
    return options


def _value(text: str) -> object:
    """Read a setting's value: a JSON literal (number, true, null, list), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def measure(options: argparse.Namespace, workload: Workload, data: Path) -> dict:
    """Measure floors, pick the tuned peer, run the rounds, and put everything into one JSON object."""
    config = json.loads((workload.model() / "config.json").read_text())
    shape = (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
    harness.await_quiet(options.limits, options.patience)
    base = harness.run("torch import", [sys.executable, "-c", "import torch; print('{}')"])
    harness.say("floors: matrix products and copy bandwidth")
    command = [sys.executable, "-m", "bench.floors", "--hidden", *shape[1:2], "--intermediate", *shape[2:], "--threads"]
    floor = harness.run("floors", [*map(str, command), str(harness.cores())]).answer
    probes, contenders = [], list(options.peer_sides)
    if TUNED in options.sides:
        tuned, probes = pick_tuned(options, workload, data, floor["gflops"])
        contenders.append(tuned)
    contenders += options.our_sides
    rounds = run_rounds(contenders, options, workload, data)
    result = {
        "workload": asdict(workload) | {"data": data.name, "seed": options.seed, "warmup_steps": WARMUP_STEPS},
        "machine": ledger.machine(),
        "shared_machine_allowed": options.any_load,
        "rounds": {"clean": sum(r["clean"] for r in rounds), "disturbed": sum(not r["clean"] for r in rounds)},
        "floors": floor | dict(zip(("layers", "hidden", "intermediate"), shape, strict=True)),
        "torch_import_bytes": base.peak_bytes,
        "probe": probes,
        "runs": [
            {"side": name, "round": i, "clean": r["clean"]} | sides.summarise(outcome)
            for i, r in enumerate(rounds)
            for name, outcome in r["outcomes"].items()
        ],
        "about": {side.name: side.about() for side in contenders},
        "precision": {side.name: side.precision for side in contenders},
    }
    return result | compare(result)


def pick_tuned(
    options: argparse.Namespace, workload: Workload, data: Path, gflops: dict[str, float]
) -> tuple[Side, list[dict]]:
    """Try the candidates on the same ten batches, then the allocator settings on the fastest; return the fastest.

    A precision whose matrix products measured slower than fp32 cannot win and is passed over, which is noted.
    """
    hopeless = [side for side in CANDIDATES if gflops[side.precision] < gflops["fp32"]]
    rates = {side.about(): (probe(side, options, workload, data), side) for side in CANDIDATES if side not in hopeless}
    fastest = max(rates.values(), key=lambda pair: pair[0])[1]
    for variant in (replace(fastest, variables=variables) for variables in ALLOCATORS):
        rates[variant.about()] = probe(variant, options, workload, data), variant
    best = max(rates.values(), key=lambda pair: pair[0])[1]
    slow = "passed over: its matrix products are slower than fp32 here"
    notes = [{"about": about, "tokens_per_second": rate} for about, (rate, _) in rates.items()]
    return best, [*notes, *({"about": side.about(), "tokens_per_second": None, "why": slow} for side in hopeless)]


def probe(side: Side, options: argparse.Namespace, workload: Workload, data: Path) -> float:
    """Time ten steps of one candidate (real tokens/s); the best of several tries, since load only ever slows."""
    rates = []
    for _ in range(1 if options.short else 2):
        outcome = begin(side, WARMUP_STEPS + 10, options, workload, data)
        rates.append(sides.summarise(outcome)["tokens_per_second"])
        harness.say(f"probe: {side.about()}: {rates[-1]:.0f} real tokens/s (foreign {outcome.foreign:.1%})")
    return max(rates)


def begin(side: Side, steps: int, options: argparse.Namespace, workload: Workload, data: Path) -> harness.Outcome:
    """Wait for a quiet machine, then run one side, at most until the time is up."""
    harness.await_quiet(options.limits, options.patience)
    length = Length(steps=steps, timeout=options.deadline - time.monotonic())
    return sides.start(side, workload, data, length, options.seed)


def run_rounds(contenders: list[Side], options: argparse.Namespace, workload: Workload, data: Path) -> list[dict]:
    """Interleave the sides. In the short mode random order runs fewer steps: it has no cycle of lengths to finish."""
    full = WARMUP_STEPS + GROUPING_CYCLE * options.cycles

    def starter(side: Side) -> Callable[[], harness.Outcome]:
        steps = WARMUP_STEPS + 20 if options.short and side.sampling == "random" and not side.is_ours else full
        return lambda: begin(side, steps, options, workload, data)

    starters = {side.name: starter(side) for side in contenders}
    rounds = []
    for done in harness.interleave(starters, options.limits, options.pairs, options.deadline - time.monotonic()):
        rounds.append(done)
        rates = ", ".join(
            f"{name} {sides.summarise(outcome)['tokens_per_second']:.0f} real tokens/s"
            f" (steal {outcome.steal:.1%}, foreign {outcome.foreign:.1%})"
            for name, outcome in done["outcomes"].items()
        )
        harness.say(f"round {len(rounds)}{'' if done['clean'] else ', disturbed, dropped'}: {rates}")
    return rounds


def compare(result: dict) -> dict:
    """Compute, over the clean rounds, each side's medians and share of the floor, and the paired ratios."""
    kept = [run for run in result["runs"] if run["clean"]]
    names = [name for name in result["about"] if any(run["side"] == name for run in kept)]
    by_side = {name: [run for run in kept if run["side"] == name] for name in names}
    table = {name: _medians(runs, result, result["precision"][name]) for name, runs in by_side.items()}
    ours = [name for name in names if name in OURS] or names[-1:]
    ratios = {}
    for own in ours:
        for peer in (name for name in names if name not in ours):
            time_per_token = [[1 / run["tokens_per_second"] for run in by_side[side]] for side in (peer, own)]
            must, aim = GOALS.get((peer, own), (None, None))
            ratios[f"{peer} / {own}"] = {
                "time": harness.bootstrap_ratio(*time_per_token),
                "memory": table[own]["over_torch_bytes"] / table[peer]["over_torch_bytes"],
                "must": must,
                "aim": aim,
                "void": peer == TUNED and table[peer]["floor_share"] > VOID_SHARE,
            }
    return {"sides": table, "ratios": ratios, "warnings": _warnings(table)}


def _medians(runs: list[dict], result: dict, precision: str) -> dict:
    """Reduce one side's clean runs to a line of the table."""
    line = {
        key: float(np.median([run[key] for run in runs])) if all(run[key] is not None for run in runs) else None
        for key in ("rows_per_second", "tokens_per_second", "tokens_per_row", "tokens_per_step", "padding", "clock_gap",
                    "cpu_per_1000_rows", "peak_bytes", "peak_anonymous_bytes", "process_seconds", "process_cpu_seconds")
    }  # fmt: skip
    steps = np.concatenate([run["step_ms"] for run in runs])
    floor = result["floors"]
    shape = floor["layers"], floor["hidden"], floor["intermediate"]
    rate = precision if precision in floor["gflops"] else max(("fp32", "bf16"), key=floor["gflops"].__getitem__)
    parameters = runs[0]["trainable"] or next((run["trainable"] for run in result["runs"] if run["trainable"]), 0)
    flops = floors.training_flops(*shape)
    mean_step = line["tokens_per_step"] / line["tokens_per_second"]
    whole = floors.step_floor(floor, rate, line["tokens_per_step"], parameters, flops)
    lean = floors.step_floor(floor, rate, line["tokens_per_step"], parameters, flops * floors.lean_share(*shape))
    return line | {
        "p50_ms": float(np.percentile(steps, 50)),
        "p95_ms": float(np.percentile(steps, 95)),
        "floor_ms": whole * 1e3,
        "floor_share": whole / mean_step,
        "lean_floor_share": lean / mean_step,
        "over_torch_bytes": line["peak_bytes"] - result["torch_import_bytes"],
        "trainable": runs[0]["trainable"],
    }


def _warnings(table: dict[str, dict]) -> list[str]:
    """Say what would make the comparison unfair: other parameters, other text, a clock that leaves time out."""
    found = []
    if len({line["trainable"] for line in table.values()}) > 1:
        found.append(f"trained parameters differ: { {name: line['trainable'] for name, line in table.items()} }")
    lengths = [line["tokens_per_row"] for line in table.values()]
    if lengths and max(lengths) > 1.05 * min(lengths):
        found.append("real tokens a row differ by over 5 %: the sides do not train on the same text")
    for name, line in table.items():
        if (line["clock_gap"] or 0) > 0.05:
            found.append(f"{name}: its steps leave out {line['clock_gap']:.0%} of the time between them")
        if line["lean_floor_share"] > 1:
            found.append(f"{name}: faster than the machine's floor, so something was not measured")
    return found


def report(result: dict) -> str:
    """Lay out the table, the ratios, and what limits them."""
    header = ["side", "rows/s", "tokens/s", "p50 ms", "p95 ms", "floor ms", "share", "MB+torch", "CPU s/1000", "pad"]
    mega = 1024 * 1024

    def show(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    rows = [
        [name, show(s["rows_per_second"], 1), show(s["tokens_per_second"]), show(s["p50_ms"]), show(s["p95_ms"]),
         show(s["floor_ms"]), show(s["floor_share"], 2), show(s["over_torch_bytes"] / mega),
         show(s["cpu_per_1000_rows"], 1), show(s["padding"], 2)]
        for name, s in result["sides"].items()
    ]  # fmt: skip
    lines = ["", harness.format_table(header, rows), ""]
    lines += [f"{name}: {about}" for name, about in result["about"].items()]
    for name, ratio in result["ratios"].items():
        t = ratio["time"]
        lines.append(f"{name}: {t['value']:.2f}x [{t['low']:.2f}, {t['high']:.2f}], memory {ratio['memory']:.2f}x")
        if ratio["must"]:
            verdict = "holds" if t["low"] >= ratio["must"] else "missed"
            void = ", but void: the peer itself is near its floor" if ratio["void"] else ""
            lines.append(f"  must {ratio['must']}, aim {ratio['aim']}: {verdict}{void}")
        if name.startswith(f"{TUNED} / "):
            lines.append(f"  memory must {MEMORY_GOAL}: {'holds' if ratio['memory'] <= MEMORY_GOAL else 'missed'}")
    for name in (name for name in result["sides"] if name in OURS):
        share = result["sides"][name]["floor_share"]
        lines.append(f"{name}: share of the floor must {FLOOR_GOAL}: {'holds' if share >= FLOOR_GOAL else 'missed'}")
    rounds = result["rounds"]
    lines.append(f"{rounds['clean']} clean rounds, {rounds['disturbed']} dropped for steal or foreign load")
    return "\n".join([*lines, *(f"not a result: {text}" for text in unfit(result))])


def unfit(result: dict) -> list[str]:
    """List why these figures may not be called a result; empty when they may."""
    reasons = list(result["warnings"])
    if result["rounds"]["clean"] < MIN_PAIRS:
        reasons.append(f"fewer than {MIN_PAIRS} clean pairs")
    if result["shared_machine_allowed"]:
        reasons.append("runs on a shared machine were kept")
    if not any(name in OURS for name in result["sides"]):
        reasons.append("our own side was not run")
    return reasons


def record(result: dict, command: str) -> int:
    """Write a fit result to the ledger; refuse any other."""
    if reasons := unfit(result):
        harness.say(f"not recorded: {'; '.join(reasons)}")
        return 1
    files, absent = ledger.match(SUBJECTS)
    if absent:
        harness.say(f"no file matches {', '.join(absent)}")
    runs = [{key: value for key, value in run.items() if key != "step_ms"} for run in result["runs"]]
    path = ledger.write(result["workload"]["name"], result | {"runs": runs}, command, files, result["seconds"])
    harness.say(f"recorded: {path}")
    return 0


def spell(arguments: list[str] | None) -> str:
    """Write down the command as it was given."""
    return " ".join(["python -m bench.w1", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
