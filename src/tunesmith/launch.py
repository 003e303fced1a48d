"""Starts the processes of a run on this machine by torch's own launcher, and passes on how they ended."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from tunesmith.errors import Fault, Interrupted, TunesmithError

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 30


class ProcessFailed(TunesmithError):
    """One of several processes ended in failure; the launcher has ended the others."""

    def __init__(self, fault: Fault, exit_code: int) -> None:
        super().__init__(fault.message, faults=[fault])
        self.exit_code = exit_code


def is_started() -> bool:
    """Whether somebody (we or torchrun) has started this process as one of several."""
    return "WORLD_SIZE" in os.environ


def start(processes: int, arguments: Sequence[str]) -> None:
    """Run `tunesmith ARGUMENTS` in `processes` processes, and wait for all of them.

    Raises:
        ProcessFailed: with the exit code of the first process that failed (1 if a signal killed it).
        Interrupted: a signal came; the processes wrote a checkpoint and ended.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the failures are told by ourselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="tunesmith",
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{_free_port()}",
        rdzv_configs={"rank": 0, "timeout": 60},
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=SECONDS_BETWEEN_LOOKS,
        shutdown_timeout=SECONDS_TO_END,
        signals_to_handle="SIGTERM,SIGINT",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "tunesmith", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise _told(int(rank), int(failure.exitcode)) from None
    except SignalException as error:
        raise Interrupted(int(error.sigval), "interrupted; the processes have written what they could") from None


def _told(rank: int, exit_code: int) -> ProcessFailed:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        message = f"process {rank} was killed by {name}; the others were ended"
        return ProcessFailed(Fault("", message, "`tunesmith resume` goes on from the last checkpoint"), 1)
    return ProcessFailed(
        Fault("", f"process {rank} ended with exit code {exit_code} (its reason stands above)"), exit_code
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
