"""Runs beside each other on the same rows, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith import tasks
from tunesmith.errors import CheckpointError
from tunesmith.evaluation import difference, score
from tunesmith.folder import RunFolder
from tunesmith.judging import read_predictions
from tunesmith.recipe import methods as method_settings
from tunesmith.recipe import tasks as task_settings
from tunesmith.report.comparison import make_comparison
from tunesmith.report.wording import short_method


def compare(paths: Sequence[str]) -> dict[str, Any]:
    """Compare finished runs that were judged on the same rows.

    Returns:
        {"primary", "split", "rows", "runs": [{"run", "method", "score", "difference", ...}]}: best first; each
        `difference` is that run minus the best, with a paired 95 % interval. Where any run was scored on earlier tasks
        each run has "forgetting", too: its mean over these, None where it is not known.

    Raises:
        CheckpointError: a run is not finished, or was judged on other rows or by another task.
    """
    runs = [_read(path) for path in paths]
    first = runs[0]
    for other in runs[1:]:
        if other["task"]["kind"] != first["task"]["kind"]:
            raise CheckpointError("the runs have different tasks", other["run"])
        if other["rows_sha256"] != first["rows_sha256"]:
            raise CheckpointError(f"judged on other rows than {first['run']}", other["run"], "compare on one test set")
        if other["primary"] != first["primary"]:
            message = f"judged by {other['primary']}, and {first['run']} by {first['primary']}"
            raise CheckpointError(message, other["run"], "compare runs with one judge.primary")
    kind = first["task"]["kind"]
    task = tasks.build(task_settings.KINDS[kind](**first["task"]))
    primary = first["primary"]
    measures = {run["run"]: task.measures(run["predictions"])[primary] for run in runs}
    runs.sort(key=lambda run: (-measures[run["run"]](), run["run"]))
    best = measures[runs[0]["run"]]
    table = []
    for run in runs:
        shown = {key: run[key] for key in ("run", "method", "trainable", "seconds", "peak_memory_bytes", "model_bytes")}
        mine = measures[run["run"]]
        shown |= {"score": score({primary: mine})[primary], "difference": difference(mine, best)}
        table.append(shown)
    if any(run["continual"] for run in runs):
        for shown, run in zip(table, runs, strict=True):
            shown["forgetting"] = (run["continual"] or {}).get("forgetting")
    return {"primary": primary, "split": first["split"], "rows": len(first["predictions"]), "runs": table}


def write_comparison(result: dict[str, Any], page: Path) -> None:
    """Write what `compare` found as one HTML page.

    Raises:
        RecipeError: nothing may be written there.
    """
    folders.require_permission(page)
    with folders.disk_errors_named(page, 1_000_000):
        folders.write_text(page, make_comparison(result))


def _unfinished(folder: RunFolder) -> CheckpointError:
    return CheckpointError("not a finished run", str(folder.path), f"{folder.how_to_finish()} first")


def _read(path: str) -> dict[str, Any]:
    folder = RunFolder(path)
    if not folder.verdict.exists():
        if folder.manifest.exists() and folders.read_json(folder.manifest)["finished"]:
            raise CheckpointError("this task was not judged again: the rows that it was judged on were gone", path)
        raise _unfinished(folder)
    if parts := folder.parts:
        remedy = f"name one of them: {', '.join(map(str, parts))}"
        raise CheckpointError("a run of several tasks, which are compared one by one", path, remedy)
    manifest, scores = folders.read_json(folder.manifest), folders.read_json(folder.scores)
    if "cost" not in manifest:  # it has a verdict, and ended before the manifest was closed
        raise _unfinished(folder)
    card = folders.read_json(folder.model / "tunesmith.json")
    split = scores["judged_on"]
    return {
        "run": path,
        "task": card["task"],
        "method": short_method(method_settings.KINDS[card["method"]["kind"]](**card["method"])),
        "primary": scores["primary"],
        "split": split,
        "rows_sha256": manifest["data"][split]["rows_sha256"],
        "trainable": manifest["parameters"]["trainable"],
        "seconds": manifest["cost"]["training_seconds"],
        "peak_memory_bytes": manifest["cost"]["peak_memory_bytes"],
        "model_bytes": manifest["cost"]["model_bytes"],
        "continual": folders.read_json(folder.audits).get("continual"),
        "predictions": read_predictions(folder, split),
    }
