"""Does `new` recognise each task from a sample of real data, and does the recipe that it writes run?

    TUNESMITH_DATA=... python -m bench.proposals [--keep FOLDER] [--record] [SET..]

Of each set so many rows that lie evenly in its files go to a new folder (of images: links to the first of each class).
`new` looks at these, its recipe is read, `check` must find nothing that stops, and the run must end; it
trains two steps on few rows, and on short texts, so that all sets take minutes. --keep leaves the run folders there,
for `python -m bench.shapes`.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import ledger

SUBJECTS = ["bench/proposals.py", "src/tunesmith/proposal.py", "src/tunesmith/recognition.py"]
SAMPLE, HELD, PICTURES = 300, 16, 6
"""Rows of a sample, rows to judge by, and images of a class."""

SHORT = ("train.steps=2", "train.batch_size=8", "train.evaluate_every=2", "data.limit=40", "machine.threads=1")


@dataclass(frozen=True)
class Set:
    """Files of a set under TUNESMITH_DATA (folders of images), what they should be recognised as, and settings."""

    task: str
    train: str = "train.jsonl"
    test: str | None = "test.jsonl"
    target: str | None = None
    settings: tuple[str, ...] = ("train.max_length=64",)


WRITING = ("train.max_length=160", "task.longest_output=6", "task.watched_rows=2", "train.batch_size=4",
           "data.limit=12", "data.validation=0.3")  # fmt: skip
SETS = {
    "banking77": Set("text-classification", target="label"),
    "sst2": Set("text-classification", target="label"),
    "trec6": Set("text-classification", target="path"),
    "go_emotions": Set("text-classification", target="labels"),
    "stsb_en": Set("text-classification", target="score"),
    "sick": Set("text-classification", target="label"),
    "pubmedqa": Set("text-classification", "cv_pool.jsonl", target="label"),
    "ncbi_disease": Set("token-classification", target="tags"),
    "masakhaner2_tsn": Set("token-classification", target="tags"),
    "sec_filings_ner": Set("token-classification", target="tags"),
    "subjqa_electronics": Set("question-answering"),
    "subjqa_grocery": Set("question-answering"),
    "c4_demo": Set("language-modeling", test=None),
    "legal_site_policy": Set("language-modeling", "all.jsonl", None),
    "wikitext2_valid": Set("language-modeling", "validation.jsonl", None),
    "clothing_small": Set("image-classification", "train", "test", settings=("data.limit=30",)),
    "multi30k_en_de": Set("translation", test="test_2016_flickr.jsonl", settings=WRITING),
    "scitldr_a": Set("summarization", settings=WRITING),
}


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each set; exit 1 if one was not recognised or did not run."""
    parser = argparse.ArgumentParser(prog="python -m bench.proposals", description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all if none is named")
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    parser.add_argument("--record", action="store_true", help="write the result to bench/evidence")
    options = parser.parse_args(arguments)
    data, began, figures = Path(os.environ["TUNESMITH_DATA"]).resolve(), time.monotonic(), {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets or SETS:
            figures[name] = propose_and_run(name, data, (options.keep or Path(scratch)).resolve() / name)
            print(json.dumps({name: figures[name]}), flush=True)
    good = all(one["recognised"] and one["stops"] == [] and one["ended"] for one in figures.values())
    if options.record:
        command = "python -m bench.proposals --record"
        ledger.write("proposals", {"passed": good, "sets": figures}, command, SUBJECTS, time.monotonic() - began)
    return int(not good)


def propose_and_run(name: str, data: Path, folder: Path) -> dict:
    """What became of one set; what goes wrong is told, not raised, so that the others follow."""
    from tunesmith.checking import check
    from tunesmith.errors import TunesmithError
    from tunesmith.proposal import propose, write_proposal
    from tunesmith.recipe.reading import read_recipe
    from tunesmith.run import run

    wanted, recipe = SETS[name], folder / "recipe.yaml"
    told: dict = {"recognised": False, "stops": None, "ended": None}
    try:
        sample(data / name, wanted, folder / name)
        write_proposal(propose(folder / name), recipe)
        settings = read_recipe(recipe, [*SHORT, *wanted.settings])
        notes, _, settled = check(settings)
        kind, target = settled.task.kind, settled.task.target
        told |= {"task": kind, "target": target, "stops": [note.code for note in notes if note.level == "stop"]}
        told["recognised"] = kind == wanted.task and wanted.target in (None, target)
        finished = run(settings)
        told["ended"] = finished.manifest["ended"]
    except TunesmithError as error:
        told["error"] = str(error)
    return told


def sample(source: Path, wanted: Set, folder: Path) -> None:
    """Write the sample of a set: `train` and, where the set has one, `test`."""
    folder.mkdir(parents=True)
    for split, given, many in (("train", wanted.train, SAMPLE), ("test", wanted.test, HELD)):
        if given is None:
            continue
        if (source / given).is_dir():
            for place in sorted((source / given).iterdir()):
                (folder / split / place.name).mkdir(parents=True)
                for image in itertools.islice(sorted(place.iterdir()), PICTURES if split == "train" else 1):
                    (folder / split / place.name / image.name).symlink_to(image)
            continue
        rows = (source / given).read_text(encoding="utf-8").splitlines(keepends=True)
        step = max(1, len(rows) // many)
        (folder / f"{split}.jsonl").write_text("".join(rows[::step][:many]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
