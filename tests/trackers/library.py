"""A library of a tracker, made by a test: it stands in for `trackio`, and does what an environment variable says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "trackio"

CODE = """
import json, os, sys, time

behaviour = os.environ.get("BEHAVIOUR", "")
if behaviour == "raises when imported":
    raise ImportError("no luck")


class Run:
    def __init__(self, **given):
        self.file = open(os.path.join(os.environ["TRACKIO_DIR"], "rows.jsonl"), "a")
        self.write({"given": given, "environment": dict(os.environ), "priority": os.nice(0)})
        self.logged = 0

    def write(self, row):
        self.file.write(json.dumps(row) + "\\n")
        self.file.flush()

    def log(self, values, step):
        self.write({"values": values, "step": step})
        self.logged += 1
        if behaviour == "raises in the middle" and self.logged == 3:
            raise ValueError("no luck")
        if behaviour == "hangs":
            time.sleep(1000)
        if behaviour == "turns in circles":
            while True:
                pass
        if behaviour == "floods":
            for _ in range(200):
                sys.stdout.write("x" * 100_000)
        if behaviour == "starts another and hangs":
            import subprocess

            subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)", os.environ["TRACKIO_DIR"]])
        if behaviour == "dies":
            os.kill(os.getpid(), 11)

    def finish(self):
        self.write({"finished": True})
        self.file.close()
        if behaviour == "hangs at the end":
            time.sleep(1000)


def init(**given):
    if behaviour == "raises at the start":
        raise RuntimeError("no luck")
    return Run(**given)
"""


def make(folder: Path) -> Path:
    """Write the library into a folder that goes on the path."""
    (folder / f"{NAME}.py").write_text(CODE)
    return folder


def got(run: Path) -> list[dict[str, Any]]:
    """What the library was given, call by call."""
    return [json.loads(line) for line in (run / "trackers" / NAME / "rows.jsonl").read_text().splitlines()]


def got_values(run: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of everything that was logged."""
    return [(name, row["step"], value) for row in got(run) if "values" in row for name, value in row["values"].items()]
