"""What a reader must know of a task that was not trained by itself."""

from __future__ import annotations

from tunesmith.report import wording
from tunesmith.report.record import Record


def how_it_was_shared(record: Record) -> list[str]:
    """Sentences for page, card and manuscript; none of a run that stands for itself."""
    told = record.part_of
    if not told:
        return []
    beside = wording.listing(told["beside"])
    rows = f"{told['rows']:,} of the {told['rows_per_epoch']:,} rows of an epoch were of this task"
    if told["as"] == "tasks":
        return [
            f"It was learned at once with {beside} on one body, each task with a head of its own: {rows}, steps and "
            "training time are those of all tasks, and the kept weights are those with the best mean of the tasks' "
            "primary metrics on validation rows."
        ]
    shown = rows if told["rows"] else "no rows of this task were shown"
    how = "by the same head over all labels" if told.get("head") == "shared" else "on whose body its head stayed"
    return [
        f"It is an earlier task as it is done after the training of {beside}, {how}: {shown}, "
        f"and steps, training time and the kept weights are those of {beside}."
    ]
