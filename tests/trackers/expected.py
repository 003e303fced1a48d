"""What a tracker should have of a run, told from the run folder's own files, and processes that should be gone."""

from __future__ import annotations

from pathlib import Path

import psutil

from tunesmith.folder import RunFolder, lines, read_json

MEASURED = ("loss", "learning_rate", "grad_norm", "accuracy")


def expected(run: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of everything that a tracker should have, sorted."""
    folder = RunFolder(run)
    found = []
    for row in lines(folder.steps):
        begin = {"fit": "train", "refit": "refit"}[row["phase"]]
        found += [(f"{begin}/{name}", row["step"], row[name]) for name in MEASURED]
        found.append((f"{begin}/tokens_per_second", row["step"], row["tokens"] / row["seconds"]))
    for row in lines(folder.evaluations):
        found.append(("validation/loss", row["step"], row["loss"]))
        found += [(f"validation/{name}", row["step"], score["value"]) for name, score in row["scores"].items()]
    last = max(row["step"] for row in lines(folder.steps) if row["phase"] == "fit")
    for name, score in read_json(folder.scores).get("test", {}).items():
        found.append((f"test/{name}", last, score["value"]))
    return sorted(found)


def left_behind(run: Path) -> list[str]:
    """Command lines of processes that work on a run."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(run) in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(command)
    return found
