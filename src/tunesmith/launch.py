"""Starts the processes of a run on this machine, by torch's own launcher, and passes on how they ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

EXIT_FILE = "TUNESMITH_EXIT_FILE"
"""Where a process leaves its exit code for the one that started it: torchrun itself turns all of them into 1."""


def is_started() -> bool:
    """Whether somebody (we or torchrun) has started this process as one of several."""
    return "WORLD_SIZE" in os.environ


def start(processes: int, arguments: Sequence[str]) -> int:
    """Run `tunesmith ARGUMENTS` in `processes` processes; returns the exit code that the first to fail ended with."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as place:
        exits = Path(place) / "exit"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={processes}",
            "--master-addr=127.0.0.1",
            f"--master-port={_free_port()}",
            "--monitor-interval=0.5",
            "-m",
            "tunesmith",
            *arguments,
        ]
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        environment = {**os.environ, EXIT_FILE: str(exits), "OMP_NUM_THREADS": threads, "TORCH_CPP_LOG_LEVEL": "ERROR"}
        child = subprocess.Popen(command, env=environment)
        before = {
            number: signal.signal(number, lambda got, _frame: child.send_signal(got))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if code != 0 and exits.exists():
            return int(exits.read_text())
        return code if code >= 0 else 128 - code


def leave_exit_code(code: int) -> None:
    """Tell the starter how this process ended; the first word counts."""
    file = os.environ.get(EXIT_FILE)
    if file and code:
        try:
            with open(file, "x") as opened:
                opened.write(str(code))
        except FileExistsError:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
