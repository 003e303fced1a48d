"""report.html: one file for people. No script, nothing fetched, prints, opens offline for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.report import wording
from tunesmith.report.calibration import calibration
from tunesmith.report.card import score_rows, settings
from tunesmith.report.classes import ClassScore, class_scores, confusions, is_right, top_confusions
from tunesmith.report.continual import memory
from tunesmith.report.drawing import Chart
from tunesmith.report.findings import SHOWN, find_all, find_overfitting, note_text
from tunesmith.report.headline import INTERVAL, headline
from tunesmith.report.label_sets import slips, thresholds
from tunesmith.report.lesson import lesson
from tunesmith.report.levels import levels
from tunesmith.report.membership import how_it_was_shared
from tunesmith.report.numbers import numbers
from tunesmith.report.plots import draw_curves, draw_lengths
from tunesmith.report.rails import ScoreTable, score_table
from tunesmith.report.record import Record, without_folders
from tunesmith.report.rendering import render
from tunesmith.report.slices import slice_tables
from tunesmith.shares import Share

MOST_CELLS = 20
"""Up to this many classes the whole confusion matrix is shown, above it the commonest mistakes."""
MOST_PAIRS = 25
MOST_TOKENS = 160
MOST_LETTERS = 600


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix. `cells` holds (rows, share of the gold class) for each answer, by gold class."""

    labels: list[str]
    cells: list[list[tuple[int, float]]]


def make_page(record: Record) -> str:
    """The whole page as text."""
    overfitting = find_overfitting(record)
    findings = find_all(record)
    scores = class_scores(record.predictions) if record.has_classes else []
    counts = confusions(record.predictions) if record.classifies else Counter()
    return render(
        "page.html",
        record=record,
        verdict=headline(record),
        shared=how_it_was_shared(record),
        findings=findings[:SHOWN],
        more_findings=findings[SHOWN:],
        figures=list(_figures(record)),
        table=_score_table(record),
        others=[name for name in record.judged if name != record.primary],
        score_rows=score_rows(record),
        lesson=lesson(record),
        memory=memory(record),
        calibration=calibration(record),
        numbers=numbers(record),
        slips=slips(record.predictions) if record.has_label_sets else None,
        thresholds=thresholds(record),
        levels=levels(record),
        slices=slice_tables(record),
        suspects=_suspects(record),
        curves=draw_curves(record, overfitting),
        lengths=_lengths(record),
        classes=scores,
        matrix=_matrix(counts, scores) if record.classifies else None,
        pairs=top_confusions(counts, MOST_PAIRS),
        supports={score.label: score.support for score in scores},
        errors=[_error(row) for row in record.data.get("worst_errors", [])],
        examples=[_error(row) for row in record.data.get("examples", [])],
        wrong=record.data["wrong"] if "wrong" in record.data else sum(not is_right(row) for row in record.predictions),
        balance=_balance(record),
        batch=[_first_row(row) for row in record.data["first_batch"]],
        cost=list(_cost(record)),
        settings=settings(record),
        rewrites=[_rewrite(trial) for trial in record.manifest["rewrites"]],
        method=wording.method(record.recipe),
        metric=wording.metric,
        over=wording.baseline(record.verdict["over"] or "", record.target == "score"),
        place=_place,
        note_text=note_text,
        percent=_percent,
        most_tokens=MOST_TOKENS,
    )


def _error(row: dict[str, Any]) -> dict[str, Any]:
    """A wrong answer as words: texts clipped, lists joined, and how sure the model was or how far it was off."""
    is_number = isinstance(row["answer"], float)
    sure = f"off by {wording.short(abs(row['answer'] - row['gold']))}" if is_number else _percent_of(row["score"])
    return {
        **row,
        "text": _clipped(row["text"]),
        "picture": row.get("picture", ""),
        "gold": _said(row["gold"]),
        "answer": _said(row["answer"]),
        "sure": sure,
    }


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return wording.short(value) if isinstance(value, float) else str(value)


def _percent_of(share: float | None) -> str:
    return wording.MISSING if share is None else wording.share(share)


def _figures(record: Record) -> Iterator[tuple[str, str, float | None, str]]:
    """The big numbers of the first screen: (name, as shown, exact value, what stands below it)."""
    name, mine, gain = wording.metric(record.primary).title, record.judged[record.primary], record.verdict["gain"]
    yield f"{name}, tuned", wording.exact(mine["value"]), mine["value"], f"{INTERVAL} {wording.interval(mine)}"
    if gain:
        over = record.verdict["over"]
        theirs = record.baselines[over][record.primary]
        between = f"{INTERVAL} {wording.signed(gain['low'])} to {wording.signed(gain['high'])}"
        name = wording.baseline(over, record.target == "score")
        yield "Best simple method", wording.exact(theirs["value"]), theirs["value"], name
        yield "Difference", wording.signed(gain["value"]), gain["value"], between
    rows = record.data["splits"]
    below = f"learned from {rows['train']['rows']:,}"
    if "validation" in rows:  # they may be gone, of an earlier task
        below = f"{below}, best step chosen by {rows['validation']['rows']:,}"
    yield f"Rows judged ({record.split})", f"{record.judged_rows:,}", float(record.judged_rows), below


def _score_table(record: Record) -> ScoreTable:
    """The primary metric of the tuned model and of all it is compared with."""
    kind = wording.metric(record.primary)
    rows = [(who, f"{split}, {many:,}", scores[record.primary]) for who, split, many, scores in score_rows(record)]
    return score_table(kind.title, kind.meaning, ("Model", "Judged on, rows", kind.title), rows)


def _suspects(record: Record) -> dict[str, Any] | None:
    """Suspected labels as words; None where they were not looked for."""
    found = record.data.get("suspects")
    return found and {**found, "shown": [_error(row) for row in found["shown"]]}


def _lengths(record: Record) -> Chart | None:
    return draw_lengths(record) if record.data["splits"]["train"].get("lengths") else None


def _matrix(counts: Counter[tuple[str, str]], scores: Sequence[ClassScore]) -> Matrix | None:
    if not 2 <= len(scores) <= MOST_CELLS:
        return None
    labels = sorted(score.label for score in scores)
    supports = {score.label: max(1, score.support) for score in scores}
    cells = [[(counts[gold, answer], counts[gold, answer] / supports[gold]) for answer in labels] for gold in labels]
    return Matrix(labels, cells)


def _balance(record: Record) -> list[tuple[str, list[int], float]]:
    """Each class: its rows in each split, and its share of the largest in training; largest first."""
    splits = record.data["splits"]
    labels = {label for split in splits.values() for label in split.get("labels", {})}
    if not labels:
        return []
    train = splits["train"]["labels"]
    largest = max(train.values(), default=1)
    ranked = sorted(labels, key=lambda label: (-train.get(label, 0), label))
    return [
        (label, [split["labels"].get(label, 0) for split in splits.values()], train.get(label, 0) / largest)
        for label in ranked
    ]


def _first_row(row: dict[str, Any]) -> dict[str, Any]:
    tokens = row.get("tokens", [])
    hidden = max(0, len(tokens) - MOST_TOKENS)
    return {
        "where": _place(row["where"]),
        "tokens": tokens[:MOST_TOKENS],
        "hidden": hidden,
        "label": _said(row["label"]),
        "masked": row.get("masked", False),
        "picture": row.get("picture", ""),
    }


def _cost(record: Record) -> Iterator[tuple[str, str]]:
    """What the run cost and what an answer costs; every figure with its unit."""
    cost, parameters = record.cost, record.manifest["parameters"]
    yield "Training", f"{wording.duration(cost['training_seconds'])} for {wording.count(int(cost['steps']), 'step')}"
    if "rows_per_second" in cost:
        tokens = f", {wording.short(cost['tokens_per_second'])} tokens/s" if record.reads_tokens else ""
        yield "Training rate", f"{wording.short(cost['rows_per_second'])} rows/s{tokens}"
    yield "Peak memory", wording.size(cost["peak_memory_bytes"])
    trained = f"{parameters['trainable']:,} of {parameters['total']:,}"
    yield "Parameters trained", f"{trained} ({wording.share(parameters['trainable'] / parameters['total'])})"
    kind = "adapter, without its base" if record.is_adapter else "whole model"
    yield "Size on disk", f"{wording.size(cost['model_bytes'])} ({kind})"
    rows = wording.count(int(cost["latency_rows"]), "row")
    yield "Latency of one row, median", f"{wording.short(cost['latency_p50_ms'])} ms (batch size 1, {rows} timed)"
    yield "Latency of one row, 99th percentile", f"{wording.short(cost['latency_p99_ms'])} ms"
    for budget in record.verdict.get("budgets", []):
        yield f"Budget {budget['key']}", _budget(budget)
    yield "Throughput in batches", f"{wording.short(cost['answers_per_second'])} rows/s"


def _budget(budget: dict[str, Any]) -> str:
    """Budget, kept or broken, measured; the setting's name stands beside it."""
    return wording.sentence(budget["reason"].removeprefix(f"{budget['key']}: "))


def _rewrite(trial: dict[str, Any]) -> str:
    """What became of a rewrite: used or left out, and by how much it differed from the plain path."""
    said = "used" if trial["used"] else "left out"
    return f"{trial['name']}: {said} (differs by {trial['difference']:.1e}, allowed {trial['tolerance']:.1e})"


def _place(where: str) -> str:
    return without_folders(where)


def _clipped(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} \N{HORIZONTAL ELLIPSIS}"


def _percent(share: Share) -> str:
    return "never answered" if share.value is None else f"{share.value:.3f}"
