"""The quality gate: speed counts only when the trained models are as good. Long, so every finished run is kept.

Each finished run is one line of bench/work/quality.jsonl, keyed by side, seed, settings and the code it ran; a
rerun continues behind the last line. The verdict is over the test accuracy of models trained to the end.
"""

import hashlib
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import harness, ledger, sides
from bench.sides import Length, Side, Workload

FINISHED = harness.ROOT / "bench" / "work" / "quality.jsonl"
MIN_SEEDS = 3
# Below this a model has learnt next to nothing, and "as good as the peer" would be an empty claim.
LEAST_ACCURACY = 0.5


@dataclass(frozen=True)
class Gate:
    """What is compared: every peer and every side of ours, for every seed, over so many epochs of all rows."""

    workload: Workload
    data: Path
    epochs: float
    seeds: list[int]
    peers: list[Side]
    ours: list[Side]


def main(gate: Gate, name: str, subjects: list[str], recorded: bool, command: str) -> int:
    """Train what is not trained yet, judge, and record; exit 1 when the gate fails or cannot be judged."""
    files, _ = ledger.match(subjects)
    our_key = ledger.fingerprint(file for file in files if file.startswith("src/") or file == "bench/sides.py")
    keys = {side.name: our_key if side.is_ours else peer_key() for side in [*gate.peers, *gate.ours]}
    lines = [train(gate, side, seed, keys[side.name]) for seed in gate.seeds for side in [*gate.peers, *gate.ours]]
    verdict = judge(gate, lines)
    print(json.dumps(verdict, indent=2))
    if not recorded:
        return int(not verdict["passed"])
    if verdict["why"]:
        harness.say(f"not recorded: {verdict['why']}")
        return 1
    seconds = sum(line["seconds"] for line in lines)
    harness.say(f"recorded: {ledger.write(name, verdict | {'runs': lines}, command, files, seconds)}")
    return int(not verdict["passed"])


def train(gate: Gate, side: Side, seed: int, code: str) -> dict:
    """Train one side with one seed to the end and score it, or return the line of an earlier such run."""
    settings = [asdict(gate.workload), asdict(side), gate.epochs, seed, data_key(gate.data), code]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    for line in harness.kept_lines(FINISHED):
        if line["key"] == key:
            harness.say(f"{side.name} seed {seed}: accuracy {line['accuracy']:.4f} (finished earlier)")
            return line
    harness.say(f"{side.name} seed {seed}: training {gate.epochs:g} epochs")
    outcome = sides.start(side, gate.workload, gate.data, Length(epochs=gate.epochs), seed, scored=True)
    line = {
        "key": key,
        "side": side.name,
        "seed": seed,
        "accuracy": outcome.answer["accuracy"],
        "steps": len(outcome.answer["seconds"]),
        "train_seconds": sum(outcome.answer["seconds"]),
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
    }
    harness.say(f"{side.name} seed {seed}: accuracy {line['accuracy']:.4f} in {line['train_seconds']:.0f} s of steps")
    harness.keep_line(FINISHED, line)
    return line


def judge(gate: Gate, lines: list[dict]) -> dict:
    """Judge each of our sides against each peer: mean accuracy no lower than the peer's less one pooled deviation."""
    scores = {
        side.name: [line["accuracy"] for line in lines if line["side"] == side.name]
        for side in [*gate.peers, *gate.ours]
    }
    counts = {line["steps"] for line in lines}
    gates = {
        f"{own.name} vs {peer.name}": compare(scores[peer.name], scores[own.name])
        for own in gate.ours
        for peer in gate.peers
    }
    why = [
        text
        for wrong, text in (
            (not gates, "needs a peer and a side of ours"),
            (len(gate.seeds) < MIN_SEEDS, f"fewer than {MIN_SEEDS} seeds"),
            (len(counts) > 1, f"the sides took different numbers of steps: {sorted(counts)}"),
            (any(min(s) < LEAST_ACCURACY for s in scores.values()), f"an accuracy is below {LEAST_ACCURACY}"),
        )
        if wrong
    ]
    passed = not why and all(one["passed"] for one in gates.values())
    return {
        "passed": passed,
        "why": "; ".join(why),
        "epochs": gate.epochs,
        "seeds": gate.seeds,
        "accuracy": scores,
        "gates": gates,
    }


def compare(peer: list[float], ours: list[float], alone: float = 0.0) -> dict:
    """Compare two lists of scores, one a seed: ours must reach the peer's mean less one pooled deviation.

    The pooled deviation needs two seeds; `alone` takes its place where there is one.
    """
    is_alone = min(len(peer), len(ours)) < 2
    spread = alone if is_alone else (sum(statistics.variance(s) for s in (peer, ours)) / 2) ** 0.5
    floor = statistics.mean(peer) - spread
    return {
        "peer_mean": statistics.mean(peer),
        "our_mean": statistics.mean(ours),
        "pooled_std": spread,
        "least": floor,
        "passed": statistics.mean(ours) >= floor,
    }


def data_key(folder: Path) -> str:
    """Hash the data, so that a changed set is trained anew."""
    joined = b"".join((folder / name).read_bytes() for name in ("train.jsonl", "test.jsonl"))
    return hashlib.sha256(joined).hexdigest()[:16]


def peer_key() -> str:
    """Hash the peer's script and versions."""
    script = ledger.fingerprint(["bench/peers/trainer.py"])
    return script + json.dumps(ledger.machine()["packages"], sort_keys=True)
