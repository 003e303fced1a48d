"""Rows with several labels: which labels are forgotten or given too often, and what stands in their place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.report.record import Record
from tunesmith.shares import Share, wilson

MOST_LABELS = 15


@dataclass(frozen=True)
class Slip:
    """A label that was missed (or added) wrongly.

    Attributes:
        rows: in how many rows.
        share: of the rows that have it (or of those that were given it).
        beside: the label most often added (or missed) in the same rows, and in how many; "" where there is none.
    """

    label: str
    rows: int
    share: Share
    beside: str
    beside_rows: int


@dataclass(frozen=True)
class Slips:
    missed: list[Slip]
    added: list[Slip]
    whole: int
    """Rows whose labels are all right."""


def slips(predictions: Sequence[dict[str, Any]]) -> Slips:
    """The commonest labels that gold has and the answer lacks, and those that the answer has and gold lacks."""
    golds = Counter(label for row in predictions for label in row["gold"])
    answers = Counter(label for row in predictions for label in row["answer"])
    beside_missed: dict[str, Counter[str]] = defaultdict(Counter)
    beside_added: dict[str, Counter[str]] = defaultdict(Counter)
    missed, added, whole = Counter[str](), Counter[str](), 0
    for row in predictions:
        gold, answer = set(row["gold"]), set(row["answer"])
        lacking, extra = gold - answer, answer - gold
        whole += not lacking and not extra
        missed.update(lacking)
        added.update(extra)
        for label in lacking:
            beside_missed[label].update(extra)
        for label in extra:
            beside_added[label].update(lacking)
    return Slips(_commonest(missed, golds, beside_missed), _commonest(added, answers, beside_added), whole)


def _commonest(counts: Counter[str], totals: Counter[str], beside: Mapping[str, Counter[str]]) -> list[Slip]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS]
    found = []
    for label, rows in ranked:
        others = sorted(beside.get(label, Counter()).items(), key=lambda item: (-item[1], item[0]))
        other, together = others[0] if others else ("", 0)
        found.append(Slip(label, rows, wilson(rows, totals[label]), other, together))
    return found


def thresholds(record: Record) -> dict[str, float]:
    """From which probability on each label is given; empty where only one label is."""
    chosen = record.scores.get("calibration", {}).get("thresholds")
    return dict(zip(record.manifest["labels"], chosen, strict=True)) if chosen else {}
