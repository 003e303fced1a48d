"""Places in a taxonomy: how far down the path answers stay right."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.report.record import Record, Score
from tunesmith.shares import Share, wilson


@dataclass(frozen=True)
class Level:
    """One level of the taxonomy, counted from 1.

    Attributes:
        places: how many different branches the true paths have down to here.
        right: the share of rows that are right down to here, with the interval of scores.json.
        lost: of the rows that are right above, the share that goes wrong here.
    """

    number: int
    places: int
    right: Score
    lost: Share


def levels(record: Record) -> list[Level]:
    """One for each level of the deepest true path, the last for whole paths; none where answers are no paths."""
    if record.data.get("target") != "path":
        return []
    golds = [str(row["gold"]).split("/") for row in record.predictions]
    answers = [str(row["answer"]).split("/") for row in record.predictions]
    depth = max(map(len, golds), default=0)
    found, above = [], len(golds)
    for level in range(1, depth + 1):
        # a path that ends above counts as it ended
        pairs = zip(golds, answers, strict=True)
        right = sum(gold == answer if level == depth else gold[:level] == answer[:level] for gold, answer in pairs)
        places = len({tuple(gold[:level]) for gold in golds})
        score = record.judged["accuracy" if level == depth else f"accuracy_level_{level}"]
        found.append(Level(level, places, score, wilson(above - right, above)))
        above = right
    return found
