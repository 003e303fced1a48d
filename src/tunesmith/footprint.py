"""The memory that answering needs: measured in a fresh process, which is what a deployment is.

The process that trained says nothing of it: it has held gradients, moments and the rows. So a child opens the saved
model as `predict` does, answers rows one by one, and tells the most memory that it ever held. `python -m
tunesmith.footprint` is that child: a job as JSON on its standard input (no text of a row is in a file or in the list of
processes), the bytes on its standard output.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tunesmith import surroundings
from tunesmith.audits.cost import peak_memory_bytes
from tunesmith.data.rows import Row
from tunesmith.folder import RunFolder
from tunesmith.recipe import Machine
from tunesmith.recipe.columns import Column

MOST_ROWS = 20
MOST_SECONDS = 900


def measure(folder: RunFolder, rows: Sequence[Row], machine: Machine, threads: int) -> dict[str, Any]:
    """{"inference_memory_bytes"}: the peak of a process that opens the saved model and answers `rows` one by one; or
    {"inference_memory_fault"}: why there is none. Counted are all pages in main memory, those of Python and its
    libraries too, and on a GPU what torch has reserved there."""
    job = {
        "run": str(folder.path.absolute()),
        "device": machine.device,
        "threads": threads,
        "rows": [row.values for row in rows[:MOST_ROWS]],
    }
    command = [sys.executable, "-P", "-m", "tunesmith.footprint"]  # -P: nothing beside us is taken for a library
    try:
        done = subprocess.run(
            command,
            input=orjson.dumps(job),
            capture_output=True,
            env=surroundings.of_child(),
            timeout=MOST_SECONDS,
            check=False,
        )
        needed = orjson.loads(done.stdout)["bytes"] if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return {"inference_memory_fault": f"it was not done in {MOST_SECONDS} s"}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        needed = None
    if not isinstance(needed, int):
        return {"inference_memory_fault": "the process that should have told it failed"}
    return {"inference_memory_bytes": needed}


def answer(job: Mapping[str, Any]) -> int:
    """Open the model, answer the rows one by one, and tell the peak in bytes."""
    import torch

    from tunesmith.answering import Details
    from tunesmith.open import Run

    run = Run(job["run"], Machine(device=job["device"], threads=job["threads"]))
    for values in job["rows"]:
        cells = {column.name: _cell(column, values[column.name]) for column in run.inputs if column.name in values}
        run.answer_rows([Row(cells, "row", 1)], Details())
    reserved = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return peak_memory_bytes() + reserved


def _cell(column: Column, sent: Any) -> Any:
    """A cell as rows hold it: what was an image before it was sent is one again."""
    from tunesmith.data.images import Picture

    return Picture(**sent) if column.kind == "image" else sent


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps({"bytes": answer(orjson.loads(sys.stdin.buffer.read()))}))
