"""The trackers: one class for each library, which is imported when it is made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tunesmith.trackers.records import About, Point

PROJECT = "tunesmith"
"""What runs are filed under, where the user names nothing else."""


class Tracker(Protocol):
    """What a tracker must do. It is made with the folder for its store and with what there is to know of the run."""

    def log(self, point: Point) -> None: ...

    def flush(self) -> None:
        """Make visible what was logged."""

    def close(self, finished: bool) -> None:
        """There will be no more. `finished`: the run was judged."""


class TensorBoard:
    """Event files, made anew each time; a viewer that has read the old ones is told to forget them. TensorBoard keeps
    numbers in 32 bits. Its own writer is used, since torch's would load torch into one more process."""

    def __init__(self, place: Path, about: About) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = Event, Summary
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = EventFileWriter(str(place))
        forget = SessionLog(status=SessionLog.START)
        self.writer.add_event(Event(step=0, wall_time=about.started, session_log=forget))
        settings = hparams_pb(about.settings, start_time_secs=about.started)
        self.writer.add_event(Event(step=0, wall_time=about.started, summary=settings))

    def log(self, point: Point) -> None:
        values = [self.summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        self.writer.add_event(self.event(step=point.step, wall_time=point.when, summary=self.summary(value=values)))

    def flush(self) -> None:
        self.writer.flush()

    def close(self, finished: bool) -> None:
        self.writer.close()


class Trackio:
    """A SQLite file, made anew each time. Nothing is sent to a Space: `trackio sync` does that."""

    def __init__(self, place: Path, about: About) -> None:
        shutil.rmtree(place)
        place.mkdir()
        import trackio

        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self.run = trackio.init(project=PROJECT, name=about.name, config=about.settings, **quiet)

    def log(self, point: Point) -> None:
        self.run.log(dict(point.values), step=point.step)

    def flush(self) -> None:
        """Its own thread writes twice a second."""

    def close(self, finished: bool) -> None:
        self.run.finish()


class Mlflow:
    """A run in an MLflow store, found again by its key: what the store holds already is not sent twice."""

    def __init__(self, place: Path, about: About) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric, self.client = Metric, MlflowClient()
        self.waiting: list[Any] = []
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else self.client.create_experiment(title)
        found = self.client.search_runs([number], f"tags.tunesmith = '{about.key}'")
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
        else:
            tags = {"tunesmith": about.key, "mlflow.source.name": PROJECT}
            started = int(about.started * 1000)
            self.run = self.client.create_run(number, started, tags, run_name=about.name).info.run_id
            settings = [Param(name, str(value)) for name, value in about.settings.items()]
            self.client.log_batch(self.run, params=settings)
        stored = found[0].data.metrics if found else ()
        self.known = {(name, old.step) for name in stored for old in self.client.get_metric_history(self.run, name)}

    def log(self, point: Point) -> None:
        when = int(point.when * 1000)
        fresh = [(name, value) for name, value in point.values.items() if (name, point.step) not in self.known]
        self.waiting += [self.metric(name, value, when, point.step) for name, value in fresh]

    def flush(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[:1000], self.waiting[1000:]
            self.client.log_batch(self.run, metrics=batch)

    def close(self, finished: bool) -> None:
        self.flush()
        self.client.set_terminated(self.run, "FINISHED" if finished else "KILLED")


class Wandb:
    """An offline run, made anew each time; `wandb sync` uploads it under the run's key, so that it is never twice."""

    def __init__(self, place: Path, about: About) -> None:
        import wandb

        for old in place.glob(f"wandb/offline-run-*-{about.key}"):
            shutil.rmtree(old)
        quiet = wandb.Settings(console="off", x_disable_stats=True, disable_git=True, save_code=False)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=about.key,
            name=about.name,
            dir=str(place),
            config=dict(about.settings),
            settings=quiet,
        )
        self.run.define_metric("*", step_metric="step")

    def log(self, point: Point) -> None:
        self.run.log({**point.values, "step": point.step, "_timestamp": point.when})

    def flush(self) -> None:
        """Its own process writes as it comes."""

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


TRACKERS: dict[str, Callable[[Path, About], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "mlflow": Mlflow,
    "wandb": Wandb,
}


def switches(place: Path) -> dict[str, str]:
    """Environment variables that keep every library on this machine and its store in `place`. What the user has set
    goes before: that is how one says that a tracker may use the network."""
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_CACHE_DIR": f"{place}/cache",
        "WANDB_CONFIG_DIR": f"{place}/config",
        "WANDB_DATA_DIR": f"{place}/data",
        "TRACKIO_DIR": str(place),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
    }
