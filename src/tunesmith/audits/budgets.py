"""What an answer may cost where the model will work, against what it was measured to cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.recipe import Deploy

MEGABYTE = 1_000_000

LATENCY = "99th percentile of single rows, from tokens (of an image: from its file) to answer"
MEMORY = "peak of a fresh process that answers single rows"


@dataclass(frozen=True)
class Budget:
    """A budget of the recipe.

    Attributes:
        key: the setting, as `deploy.latency_ms`.
        limit: the most that it may be, in `unit`.
        measured: None where the measurement failed; `how` then says why.
        how: what was measured.
    """

    key: str
    unit: str
    limit: float
    measured: float | None
    how: str

    @property
    def is_kept(self) -> bool:
        """What could not be measured is not known to be kept, so it is not."""
        return self.measured is not None and self.measured <= self.limit

    @property
    def reason(self) -> str:
        """A line of the verdict."""
        limit = f"{self.key}: the budget of {amount(self.limit)} {self.unit}"
        if self.measured is None:
            return f"{limit} is not known to be kept: it could not be measured ({self.how})"
        outcome = "is kept" if self.is_kept else "is broken"
        return f"{limit} {outcome}: {amount(self.measured)} {self.unit} measured ({self.how})"

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.is_kept, "reason": self.reason}


def find_budgets(deploy: Deploy, cost: Mapping[str, Any]) -> list[Budget]:
    """Every budget of the recipe beside its measurement.

    Latency is held against the 99th percentile at batch size 1, not the median: who sets a budget for latency means the
    slow answers.

    Args:
        cost: as in audits.json; `inference_memory_fault` says why there is no `inference_memory_bytes`.
    """
    found = []
    if deploy.latency_ms is not None:
        how = f"{LATENCY}, {cost['latency_rows']:,.0f} rows timed"
        found.append(Budget("deploy.latency_ms", "ms", deploy.latency_ms, cost["latency_p99_ms"], how))
    if deploy.memory_mb is not None:
        needed = cost.get("inference_memory_bytes")
        measured = None if needed is None else needed / MEGABYTE
        how = MEMORY if needed is not None else str(cost["inference_memory_fault"])
        found.append(Budget("deploy.memory_mb", "MB", deploy.memory_mb, measured, how))
    return found


def with_budgets(verdict: Mapping[str, Any], budgets: Sequence[Budget]) -> dict[str, Any]:
    """The verdict with the budgets among its reasons: one that is not kept forbids to ship, whatever the scores say."""
    ship = verdict["ship"] if all(budget.is_kept for budget in budgets) else False
    why = [*verdict["why"], *(budget.reason for budget in budgets)]
    return {**verdict, "ship": ship, "why": why, "budgets": [budget.record() for budget in budgets]}


def amount(number: float) -> str:
    """Three figures, but never fewer than its whole part has: 0.001, 12.3, 2,000."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
