"""What became of earlier tasks: the matrix of scores over tasks and time, for the page and the paper.

Made from `audits.json`, "continual", which `audits.continual.summarise` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.recipe import Rehearsal
from tunesmith.report import wording
from tunesmith.report.bibliography import OF_CONSOLIDATION
from tunesmith.report.record import Record, Score

SOURCES = ("chaudhry2018riemannian", "lopezpaz2017gem")
"""The papers of forgetting, and of average accuracy and transfer."""

FIGURES = {
    "average": ("Mean score at the end", "over all tasks, each by its own metric"),
    "forgetting": ("Forgetting", "how far an earlier task is below its best score of any earlier time; 0 is none"),
    "backward_transfer": (
        "Backward transfer",
        "what later tasks changed of a task since it was learned; below 0 they took something away",
    ),
    "forward_transfer": (
        "Forward transfer",
        "how much better a task was answered right before it was learned than by a model that learned none",
    ),
}
"""What is read from the matrix: its title and its meaning."""


@dataclass(frozen=True)
class Cell:
    """A task at a time. `mark` says in words what `depth`, from 0 to 1, says by shade: how far it lies below the best;
    `tone` is "right" for the best, "wrong" below it, "none" without a score, or before the task was learned."""

    score: Score | None
    mark: str
    tone: str
    depth: float


@dataclass(frozen=True)
class Memory:
    """`sentence` for the page; `lines` are (task, what it was scored by, a cell for each time, what was forgotten);
    `figures` (title, number, meaning)."""

    sentence: str
    times: list[str]
    lines: list[tuple[str, str, list[Cell], dict[str, Any] | None]]
    figures: list[tuple[str, dict[str, Any], str]]


def memory(record: Record) -> Memory | None:
    """None where no earlier task was scored."""
    found = record.audits.get("continual")
    if found is None:
        return None
    forgotten = [*found["forgotten"], None]
    lines = [
        (task, _scored_by(found, place), _cells(found["matrix"][place], place), forgotten[place])
        for place, task in enumerate(found["tasks"])
    ]
    figures = [(title, found[key], meaning) for key, (title, meaning) in FIGURES.items() if found[key] is not None]
    return Memory(_judgement(found), list(found["times"]), lines, figures)


def how_it_remembers(record: Record) -> list[str]:
    """Sentences for a manuscript."""
    found = record.audits.get("continual")
    if found is None:
        return []
    names = {
        "average": "the mean score over all tasks was {}",
        "backward_transfer": "backward transfer {}",
        "forward_transfer": "forward transfer {}",
    }
    said = [words.format(_told(found[key])) for key, words in names.items() if found[key] is not None]
    sentences = _how_it_kept(record.recipe.rehearsal, found["tasks"][:-1])
    if said:
        count, listed = wording.count(len(found["tasks"]), "task"), wording.listing(said)
        sentences.append(f"After the last of {count} learned in turn {listed} (Lopez-Paz and Ranzato, 2017).")
    if found["forgetting"] is not None:
        sentences.append(f"Mean forgetting (Chaudhry et al., 2018) was {_told(found['forgetting'])}.")
    return sentences


def sources(record: Record) -> list[str]:
    """Keys of the papers to cite."""
    kept = record.recipe.rehearsal
    of_elastic = list(OF_CONSOLIDATION) if kept and kept.ewc > 0 else []
    return [*of_elastic, *SOURCES] if "continual" in record.audits else []


def _how_it_kept(kept: Rehearsal | None, earlier: Sequence[str]) -> list[str]:
    """What was done so that earlier tasks are not forgotten; runs that rehearsed say it in their recipe."""
    if kept is None:
        return []
    who = "Heads of" if len(earlier) > 1 else "The head of"
    shown = (
        f"{wording.share(kept.share)} of each epoch were their rows" if kept.share else "none of their rows were shown"
    )
    tasks = wording.count(len(earlier), "earlier task")
    sentences = [f"{who} {tasks} stayed on the body; {shown}."]
    if kept.head == "shared":
        sentences = [f"One head over all labels answered for this task and {tasks}, untold which; {shown}."]
    if kept.ewc > 0:
        strength = f"strength {kept.ewc:g}; Kirkpatrick et al., 2017"
        sentences.append(
            f"Weights were held by elastic weight consolidation ({strength}) with one penalty for all earlier tasks "
            "(Huszár, 2018)."
        )
    return sentences


def _judgement(found: dict[str, Any]) -> str:
    """What the forgetting comes to; only an interval may say that it is real."""
    forgotten = found["forgetting"]
    if forgotten is None:
        return "How much was forgotten cannot be said: an earlier task lacks a score from before or from the end."
    side = "below" if forgotten["value"] >= 0 else "above"
    mean = f"Earlier tasks ended {wording.exact(abs(forgotten['value']))} {side} their best on average"
    if forgotten["low"] is None:
        return f"{mean}. There is no interval, since some scores are known without their rows."
    low, high = (wording.signed(forgotten[end]) for end in ("low", "high"))
    between = f"95\N{NO-BREAK SPACE}% interval {low} to {high}"
    if forgotten["low"] > 0:
        return f"{mean} (forgetting, {between}): something was forgotten."
    if forgotten["high"] < 0:
        return f"{mean} (forgetting, {between}): nothing was forgotten, and they gained."
    return f"{mean} (forgetting, {between}), which may be mere chance."


def _scored_by(found: dict[str, Any], place: int) -> str:
    rows = found["rows"][place]
    title = wording.metric(found["metrics"][place]).title
    return f"{title}, {wording.count(rows, 'row')}" if rows else title


def _cells(line: list[Score | None], place: int) -> list[Cell]:
    """A task's cells; which is darker is told by how much of the best score is lost."""
    best = max((score["value"] for score in line if score is not None), default=0.0)
    cells = []
    for time, score in enumerate(line):
        if score is None or time < place:  # what was not learned yet was not forgotten
            cells.append(Cell(score, "not yet learned" if time < place else "not scored", "none", 0.0))
            continue
        away = score["value"] - best
        below = "best" if away == 0 else f"{wording.signed(away)} from the best"
        depth = 0.5 if away == 0 else min(1.0, -away / (abs(best) or 1.0))
        mark = f"just learned, {below}" if time == place else below
        cells.append(Cell(score, mark, "right" if away == 0 else "wrong", depth))
    return cells


def _told(number: dict[str, Any]) -> str:
    """A number with its interval in brackets, where it has one."""
    if number["low"] is None:
        return wording.exact(number["value"])
    return f"{wording.exact(number['value'])} ({wording.exact(number['low'])} to {wording.exact(number['high'])})"
