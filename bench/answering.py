"""How fast a file of any length is answered, and in how much memory.

    python -m bench.answering RUN ROWS.. [--kill | --kill-after SECONDS]

For each number of rows a file of short texts is written and answered in a process of its own. With `--kill` another one
is killed in the middle and started again, and its answers must be the bytes of the straight ones. With `--kill-after`
there is no straight one: every row must be there once, in order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = ["card", "money", "bank", "lost", "stolen", "transfer", "refund", "arrived", "waiting", "fee", "rate", "cash"]

WATCHED = """
import resource, sys
from tunesmith import cli
code = cli._run(debug=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(peak, file=sys.stderr)
sys.exit(code)
"""


def write_rows(path: Path, number: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for index in range(number):
            words = [WORDS[(index * step) % len(WORDS)] for step in range(1, 3 + index % 7)]
            file.write(json.dumps({"text": " ".join([*words, str(index)])}) + "\n")


def start(run: Path, rows: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WATCHED, "predict", str(run), "--data", str(rows), "-o", str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def answer(run: Path, rows: Path, out: Path) -> tuple[float, int]:
    """Seconds and peak memory of one whole answering."""
    began = time.monotonic()
    process = start(run, rows, out)
    told = process.communicate()[1]
    if process.returncode != 0:
        raise SystemExit(told)
    return time.monotonic() - began, int(told.split()[-1])


def kill_in_the_middle(run: Path, rows: Path, out: Path, seconds: float) -> int:
    """Start, kill after some seconds; how many windows were finished by then."""
    process = start(run, rows, out)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return len(list(out.with_name(f"{out.name}.partial").glob("part-*")))


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--kill-after", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--ending", default="jsonl", choices=["jsonl", "csv", "parquet"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for number in options.rows:
            rows, out = Path(work) / "rows.jsonl", Path(work) / f"straight.{options.ending}"
            write_rows(rows, number)
            if options.kill_after:
                tell(number, **killed(options.run, rows, out, options.kill_after), in_order=is_in_order(out, number))
                continue
            seconds, peak = answer(options.run, rows, out)
            tell(number, seconds=round(seconds, 1), rows_per_second=round(number / seconds), peak_mb=round(peak / 1e6))
            if options.kill:
                again = out.with_stem("again")
                tell(number, **killed(options.run, rows, again, seconds / 2), same_bytes=digest(again) == digest(out))
                again.unlink()
            out.unlink()


def killed(run: Path, rows: Path, out: Path, seconds: float) -> dict[str, int | float]:
    windows = kill_in_the_middle(run, rows, out, seconds)
    rest, peak = answer(run, rows, out)
    return {"windows_kept": windows, "seconds_to_go_on": round(rest, 1), "peak_mb": round(peak / 1e6)}


def is_in_order(out: Path, number: int) -> bool:
    with open(out, "rb") as file:
        return [json.loads(line)["row"] for line in file] == list(range(number))


def tell(number: int, **figures: object) -> None:
    print(json.dumps({"rows": number, **figures}), flush=True)


if __name__ == "__main__":
    main()
