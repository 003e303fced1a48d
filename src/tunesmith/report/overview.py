"""The page and the card of a run of several tasks: how each did, and where its own report is."""

from __future__ import annotations

from typing import Any

from tunesmith import folder as folders
from tunesmith.folder import RunFolder
from tunesmith.report import wording
from tunesmith.report.rendering import render

SHIPS = {True: "ship", False: "do not ship", None: "no verdict"}


def write_overview(folder: RunFolder) -> None:
    """Write report.html and README.md from what the folder holds: the same folder gives the same bytes."""
    scores, record = folders.read_json(folder.scores), folders.read_json(folder.manifest)
    told = {
        "name": folder.path.absolute().name,
        "mean": scores["mean"],
        "parameters": record["parameters"],
        "steps": record["steps"],
        "best_step": record["best_step"],
        "seconds": sum(step["seconds"] for step in folders.lines(folder.steps)),
        "tasks": [_task(name, one, record["tasks"][name]) for name, one in scores["tasks"].items()],
    }
    folders.write_text(folder.report, render("overview.html", **told))
    folders.write_text(folder.card, render("overview.md", **told))


def _task(name: str, score: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    return {
        **score,
        "name": name,
        "rows": told["rows"],
        "quota": told["quota"],
        "metric": wording.metric(score["primary"]),
        "verdict": SHIPS[score["ship"]],
        "over": score["over"] or "",
    }
