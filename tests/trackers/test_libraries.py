"""What each real library has stored, read back: a finished run passed on by hand, and again over a part of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from expected import expected

from tunesmith.folder import RunFolder, lines, read_json, write_lines

Values = list[tuple[str, int, float]]

IN_TENSORBOARD = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

read = EventAccumulator(sys.argv[1], size_guidance={SCALARS: 0})
read.Reload()
values = [(tag, event.step, event.value) for tag in read.Tags()["scalars"] for event in read.Scalars(tag)]
json.dump({"values": values, "settings": None}, sys.stdout)
"""

IN_MLFLOW = """
import json, sys
from mlflow.tracking import MlflowClient

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
(experiment,) = [one for one in client.search_experiments() if one.name == "tunesmith"]
(run,) = client.search_runs([experiment.experiment_id])
histories = [(name, client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics]
values = [(name, metric.step, metric.value) for name, history in histories for metric in history]
assert run.info.status == "FINISHED"
json.dump({"values": values, "settings": run.data.params}, sys.stdout)
"""

IN_TRACKIO = """
import json, os, sys

os.environ["TRACKIO_DIR"] = sys.argv[1]
from trackio.sqlite_storage import SQLiteStorage

(name,) = SQLiteStorage.get_runs("tunesmith")
rows = SQLiteStorage.get_logs("tunesmith", name)
values = [(key, row["step"], value) for row in rows for key, value in row.items() if "/" in key]
settings = SQLiteStorage.get_run_config("tunesmith", name)
json.dump({"values": values, "settings": settings}, sys.stdout)
"""

IN_WANDB = """
import json, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7  # LevelDB's log format, after a header of the file's own


def records(content):
    at, parts = HEADER, []
    while at + HEADER < len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # a whole record, or its last part
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


(file,) = Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")
values, settings = [], {}
for record in records(file.read_bytes()):
    for item in record.run.config.update:
        settings[item.key or item.nested_key[0]] = json.loads(item.value_json)
    row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
    values += [(key, row["step"], value) for key, value in row.items() if "/" in key]
json.dump({"values": values, "settings": settings}, sys.stdout)
"""

READERS = {"tensorboard": IN_TENSORBOARD, "mlflow": IN_MLFLOW, "trackio": IN_TRACKIO, "wandb": IN_WANDB}


def stored(name: str, run: Path) -> tuple[Values, dict[str, object] | None]:
    """Read a store in another process."""
    place = run / "trackers" / name
    done = subprocess.run(
        [sys.executable, "-c", READERS[name], str(place)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return sorted((key, step, value) for key, step, value in found["values"]), found["settings"]


def pass_on(name: str, run: Path, folder: Path) -> None:
    """By hand, from a folder that must stay empty."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tunesmith.trackers", name, str(run)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []


def skip_without(name: str) -> None:
    """Without importing it: what a library does to this process is none of the other tests' business."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def same(got: Values, wanted: Values) -> bool:
    """TensorBoard keeps 32 bits of a number, the others all 64."""
    names = [(name, step) for name, step, _ in got] == [(name, step) for name, step, _ in wanted]
    return names and [value for *_, value in got] == pytest.approx([value for *_, value in wanted], rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_library_has_every_value_once(name: str, run_copy: Path, tmp_path: Path) -> None:
    """Also after a first process that saw the run before its end, and a step that was cut and run again."""
    skip_without(name)
    folder = RunFolder(run_copy)
    steps, scores = lines(folder.steps), read_json(folder.scores)
    folder.scores.rename(run_copy / "later.json")
    write_lines(folder.steps, steps[:7])
    pass_on(name, run_copy, tmp_path / "elsewhere")
    (run_copy / "later.json").rename(folder.scores)
    write_lines(folder.steps, steps)
    pass_on(name, run_copy, tmp_path / "elsewhere")
    values, settings = stored(name, run_copy)
    assert same(values, expected(run_copy))
    assert any(name.startswith("test/") for name, *_ in values) and scores["test"]
    if settings is not None:
        assert str(settings["train.batch_size"]) == "8"


def test_tensorboard_reads_along(run_copy: Path, tmp_path: Path) -> None:
    """The one real library that the development extra installs."""
    skip_without("tensorboard")
    pass_on("tensorboard", run_copy, tmp_path / "elsewhere")
    values, _ = stored("tensorboard", run_copy)
    assert same(values, expected(run_copy))
    pass_on("tensorboard", run_copy, tmp_path / "elsewhere")
    assert stored("tensorboard", run_copy)[0] == values
    assert len(list((run_copy / "trackers" / "tensorboard").iterdir())) == 1
