"""A tracker gets what was recorded; one that fails in whatever way costs a run a warning, and nothing else."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import library
import pytest
from expected import expected, left_behind

from forked import Forked
from tunesmith import trackers
from tunesmith.checking import check
from tunesmith.errors import RecipeError
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder, lines
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import write_recipe
from tunesmith.run import resume, run
from tunesmith.trackers.libraries import TRACKERS

Behave = Callable[[str], None]


def by_hand(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith.trackers", name, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def weights(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "model").glob("*.safetensors")}


def test_a_tracker_gets_what_was_recorded(tracked: Recipe, behave: Behave, listener: Any, finished_run: Any) -> None:
    """Every value of steps, evaluations and test, once, under its name; and the settings, flat."""
    train = tracked.train.but(refit=True, evaluate_every=5)
    finished = run(tracked.but(train=train), voice=listener)
    path = finished.folder.path
    assert sorted(library.got_values(path)) == expected(path)
    assert {name.partition("/")[0] for name, *_ in expected(path)} == {"train", "refit", "validation", "test"}
    first, *_, last = library.got(path)
    assert first["given"]["config"]["train.batch_size"] == 8
    assert first["given"]["name"] == "tracked"
    assert first["priority"] == 19
    assert last == {"finished": True}
    assert finished.manifest["warnings"] == []
    assert left_behind(path) == []


def test_evaluations_come_after_their_step_and_before_the_next(tracked: Recipe, behave: Behave) -> None:
    """Trackers that count steps upwards would drop what comes late."""
    path = run(tracked.but(train=tracked.train.but(evaluate_every=3))).folder.path
    rows = [row for row in library.got(path) if "values" in row]
    told = [(row["step"], min(name.partition("/")[0] for name in row["values"])) for row in rows]
    assert told == [
        *((step, kind) for step in range(1, 13) for kind in ("train", *["validation"] * (step % 3 == 0))),
        (12, "test"),
    ]


FAULTS = {
    "raises when imported": r"failed \(ImportError: no luck\)",
    "raises at the start": r"failed \(RuntimeError: no luck\)",
    "raises in the middle": r"failed \(ValueError: no luck\)",
    "dies": r"failed \(ended by SIGSEGV\)",
    "hangs": "was not done in time and was ended",
    "hangs at the end": "was not done in time and was ended",
    "turns in circles": "was not done in time and was ended",
    "starts another and hangs": "was not done in time and was ended",
    "floods": r"wrote more than 1,000,000 bytes of messages",
}


@pytest.mark.parametrize("behaviour", FAULTS)
def test_a_fault_of_a_tracker_costs_a_warning_only(
    behaviour: str, tracked: Recipe, behave: Behave, listener: Any, finished_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends as ever, with the same weights, and leaves no process; the fault is said and in the manifest."""
    behave(behaviour)
    monkeypatch.setattr(trackers, "PATIENCE", 3.0 if "not done" in FAULTS[behaviour] else 30.0)
    began = time.monotonic()
    finished = run(tracked, voice=listener)
    path = finished.folder.path
    assert weights(path) == weights(finished_run.folder.path)
    (warning,) = finished.manifest["warnings"]
    assert re.match(f"track: trackio {FAULTS[behaviour]}.*python -m tunesmith.trackers trackio RUN", warning)
    assert warning in listener.said
    assert finished.manifest["finished"] and finished.verdict
    assert left_behind(path) == []
    assert (path / "trackers" / "trackio.log").stat().st_size < 1_010_000
    assert time.monotonic() - began < 60


def test_a_tracker_that_cannot_be_started_is_a_warning(
    tracked: Recipe, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(trackers.subprocess, "Popen", no_memory)
    finished = run(tracked)
    assert re.match("track: trackio could not be started .*Cannot allocate", finished.manifest["warnings"][0])


def test_what_failed_is_passed_on_by_hand(tracked: Recipe, behave: Behave) -> None:
    """The same rows come from a finished run as came, or should have come, while it ran."""
    behave("raises in the middle")
    path = run(tracked).folder.path
    assert len([row for row in library.got(path) if "values" in row]) == 3
    behave("")
    done = by_hand("trackio", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(library.got_values(path)) == expected(path)


def test_by_hand_says_what_is_wrong(tmp_path: Path, behave: Behave) -> None:
    nothing, nobody = by_hand("trackio", tmp_path), by_hand("paper", tmp_path)
    assert nothing.returncode == 3 and "is this a run folder?" in nothing.stderr
    assert nobody.returncode == 2 and nobody.stderr.startswith("usage:")
    assert not (tmp_path / "trackers").exists()


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


class Cutter(Voice):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: Any, total: int) -> None:
        if step.number == self.at:
            time.sleep(2.5)  # long enough for the tracker to have read what will be cut
            raise PowerCut


def test_a_resume_passes_no_step_twice(tracked: Recipe, behave: Behave) -> None:
    """Steps 5 to 7 were passed on, cut, and run again; and a run may go on without its trackers, or with others."""
    train = tracked.train.but(checkpoint_every=4, evaluate_every=12)
    folder = RunFolder(tracked.output)
    with pytest.raises(PowerCut):
        run(tracked.but(train=train), voice=Cutter(7))
    assert max(step for _, step, _ in library.got_values(folder.path)) == 7
    assert left_behind(folder.path) == []
    with_tracker = folder.recipe.read_text()
    folder.recipe.write_text(with_tracker.replace("track:\n- trackio\n", "track: []\n"))
    with pytest.raises(PowerCut):
        resume(folder.path, voice=Cutter(9))
    assert max(step for _, step, _ in library.got_values(folder.path)) == 7
    folder.recipe.write_text(with_tracker)
    finished = resume(folder.path)
    assert finished.manifest["resumed_from"] == 8
    assert sorted(library.got_values(folder.path)) == expected(folder.path)


def started(recipe: Recipe, folder: Path) -> Forked:
    """A long run as a process of its own, whose tracker has read its first steps."""
    write_recipe(recipe.but(train=recipe.train.but(steps=5000, evaluate_every=5000)), folder / "recipe.yaml")
    child = Forked(["run", str(folder / "recipe.yaml")], folder)
    rows = Path(recipe.output) / "trackers" / library.NAME / "rows.jsonl"
    deadline = time.monotonic() + 120
    while not rows.exists() or '"step"' not in rows.read_text():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return child


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["", "hangs"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_tracker_outlives_its_run(
    number: signal.Signals, behaviour: str, tracked: Recipe, behave: Behave, tmp_path: Path
) -> None:
    """After an interruption none is there; after a kill it passes on what there is, and ends by itself."""
    behave(behaviour)
    child = started(tracked, tmp_path)
    run_folder = Path(tracked.output)
    assert left_behind(run_folder)
    child.send_signal(number)
    assert child.wait(30) == (130 if number == signal.SIGINT else -9)
    deadline = time.monotonic() + (1 if number == signal.SIGINT else trackers.PATIENCE + 5)
    while left_behind(run_folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind(run_folder) == []
    if not behaviour:
        steps = [step for name, step, _ in library.got_values(run_folder) if name == "train/loss"]
        assert steps == [row["step"] for row in lines(RunFolder(run_folder).steps)]


def test_a_missing_library_is_named_before_anything_costs(tracked: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for verb in (run, check):
        with pytest.raises(RecipeError) as caught:
            verb(tracked.but(track=["tensorboard", "wandb"]))
        assert str(caught.value).splitlines() == [
            'track: tensorboard is asked for but not installed; pip install "tunesmith[tensorboard]"',
            'track: wandb is asked for but not installed; pip install "tunesmith[wandb]"',
        ]
        assert caught.value.exit_code == 2
    assert not Path(tracked.output).exists()


def test_a_folder_of_that_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb leaves a folder `wandb` wherever it runs."""
    (tmp_path / "no_such_library").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecipeError, match="not installed"):
        trackers.require_installed(["no_such_library"])


def test_nothing_leaves_the_machine_unless_the_user_says_so(
    run_copy: Path, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert by_hand("trackio", run_copy).returncode == 0
    environment = library.got(run_copy)[0]["environment"]
    store = run_copy / "trackers" / "trackio"
    assert environment["WANDB_MODE"] == "offline"
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{store}/mlflow.db"
    assert environment["TRACKIO_DIR"] == str(store)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert by_hand("trackio", run_copy).returncode == 0
    environment = library.got(run_copy)[0]["environment"]
    assert (environment["WANDB_MODE"], environment["MLFLOW_TRACKING_URI"]) == ("online", "http://127.0.0.1:5000")


def test_every_tracker_has_a_class_and_an_extra() -> None:
    (names,) = (get_args(part) for part in get_args(Recipe.model_fields["track"].annotation))
    assert list(names) == list(TRACKERS)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(TRACKERS) <= set(project["optional-dependencies"])
