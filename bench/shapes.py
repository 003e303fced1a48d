"""Do answers have the shapes that the field's task schemas ask for?

    python -m bench.shapes SCHEMAS RUN..       SCHEMAS: `src/tasks` of the npm package @huggingface/tasks, unpacked

Answers the first test rows of each finished run by the public command, and holds every answer against the schema of
the run's task. What a schema calls an array of answers for one input is, by task: the answer itself in a list, its
`entities`, its `top` (of --top-k), or the list of its cosines. language-modeling scores texts, and a number is no
label: for these the field has no schema, such a run is named and passed over.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft6Validator
from referencing import Registry, Resource

ROWS = 100
SHAPES: dict[str, Callable[[dict], Any]] = {
    "text-classification": lambda line: line["top"],
    "image-classification": lambda line: line["top"],
    "token-classification": lambda line: line["entities"],
    "question-answering": lambda line: [line],
    "sentence-similarity": lambda line: [line["similarity"]],
    "summarization": lambda line: line,
    "translation": lambda line: line,
}
LABELS = ("text-classification", "image-classification")


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each run; exit 1 if an answer has another shape."""
    parser = argparse.ArgumentParser(prog="python -m bench.shapes", description=__doc__.splitlines()[0])
    parser.add_argument("schemas", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    wrong = 0
    for run in options.runs:
        card = json.loads((run / "model" / "tunesmith.json").read_text(encoding="utf-8"))
        kind = card["task"]["kind"]
        is_number = kind in LABELS and card["task"]["target"] == "score"
        if kind not in SHAPES or is_number:
            print(f"{run.name}: {'a number' if is_number else kind} has no schema")
            continue
        check, shape = validator(options.schemas, kind), SHAPES[kind]
        lines = answers(run, ["--top-k", "3"] if kind in LABELS else [])
        faults = [error for line in lines for error in check.iter_errors(shape(line))]
        wrong += bool(faults) or not lines
        print(f"{run.name}: {kind}, {len(lines)} answers, {len(faults)} of another shape")
        for fault in faults[:5]:
            print(f"  {fault.json_path}: {fault.message}")
    return int(wrong > 0)


def validator(folder: Path, kind: str) -> Draft6Validator:
    """The schema of a task's output, with what it refers to."""
    schema, common = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in (f"{kind}/spec/output.json", "common-definitions.json")
    )
    known = [(one["$id"], Resource.from_contents(one)) for one in (schema, common)]
    return Draft6Validator(schema, registry=Registry().with_resources(known))


def answers(run: Path, more: list[str]) -> list[dict]:
    """What `tunesmith predict` says of the run's first test rows."""
    from tunesmith.recipe.reading import read_recipe

    data = Path(str(read_recipe(run / "recipe.yaml").data.test))
    with tempfile.TemporaryDirectory() as scratch:
        if not data.is_dir():
            part = Path(scratch) / data.name
            with data.open(encoding="utf-8") as rows:
                part.write_text("".join(itertools.islice(rows, ROWS)), encoding="utf-8")
            data = part
        told = [sys.executable, "-m", "tunesmith", "predict", str(run), "--data", str(data), "--json", *more]
        done = subprocess.run(told, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
