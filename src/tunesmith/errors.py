"""One tree of errors: what went wrong, where, and what to do about it.

Every error that a user can cause is a `TunesmithError` with the exit code that the command line documents.
Anything else that escapes is our own fault and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_CODES = {
    0: "done",
    1: "a fault of ours (please report it with `tunesmith doctor`)",
    2: "usage or recipe",
    3: "data or checkpoint",
    4: "numbers: NaN, infinity or divergence",
    5: "resources: memory or disk",
    6: "--gate was given and the verdict says no",
    130: "interrupted (SIGINT); a checkpoint was written if training had begun",
    143: "terminated (SIGTERM); a checkpoint was written if training had begun",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it is, what it is, and what to do."""

    where: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{place}{self.message}{remedy}"


class TunesmithError(Exception):
    """The root of all errors we raise on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, where: str = "", remedy: str = "", faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults) or (Fault(where, message, remedy),)
        self.message = message
        super().__init__("\n".join(str(fault) for fault in self.faults))


class RecipeError(TunesmithError):
    """A recipe, an option or an argument that we cannot act on."""

    exit_code = 2


class DataError(TunesmithError):
    """Rows that cannot be read, or that a task cannot use."""

    exit_code = 3


class ModelError(TunesmithError):
    """A base model that cannot be found, or that we refuse to open."""

    exit_code = 3


class CheckpointError(TunesmithError):
    """A run folder or checkpoint that is missing, damaged, or belongs to another run."""

    exit_code = 3


class NumbersError(TunesmithError):
    """A loss, gradient or weight that is not finite."""

    exit_code = 4


class ResourceError(TunesmithError):
    """Not enough disk or memory."""

    exit_code = 5


class GateError(TunesmithError):
    """The verdict says that the model should not ship, and `--gate` asked to fail then."""

    exit_code = 6


class Interrupted(TunesmithError):
    """SIGINT or SIGTERM arrived; what could be kept was kept."""

    def __init__(self, signal_number: int, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = 128 + signal_number
