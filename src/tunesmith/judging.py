"""Scores, baselines and verdict: what stands in the run folder when training is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tunesmith import folder as folders
from tunesmith.audits import cost
from tunesmith.audits.verdict import NOT_JUDGED, judge
from tunesmith.baselines import Baseline, Majority, NearestNeighbours, Tfidf, embed
from tunesmith.data.rows import Row
from tunesmith.evaluation import as_predictions, predict, score
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder
from tunesmith.preparing import Work
from tunesmith.recipe.judge import BASELINES
from tunesmith.report.manifest import now
from tunesmith.tasks.contract import Prediction

WORST_ERRORS = 25


def fit_baselines(work: Work, folder: RunFolder, voice: Voice) -> dict[str, Baseline]:
    """Fit the baselines that the recipe asks for, and tell how they do on the validation rows."""
    asked = work.recipe.judge.baselines
    names = list(BASELINES) if asked == "auto" else [] if asked == "off" else list(asked)
    fitted: dict[str, Baseline] = {}
    for name in names:
        voice.stage(f"baseline {name}")
        fitted[name] = _FITS[name](work)
        predictions = _answers(fitted[name], work, "validation")
        primary = work.recipe.judge.primary
        value = work.task.measures(predictions)[primary]()
        voice.say(f"baseline {name}: {primary} {value:.4f} on the validation rows")
        _write(folder, f"baseline-{name}-validation", predictions)
    return fitted


def _fit_nearest(work: Work) -> Baseline:
    held = (work.splits.validation, work.examples["validation"])
    to_vectors = partial(_vectors, work)
    return NearestNeighbours.fit(work.splits.train, work.examples["train"], *held, to_vectors)


def _vectors(work: Work, examples: Sequence[Any]) -> Any:
    return embed(work.task, work.loaded, examples, work.devices)


_FITS: dict[str, Callable[[Work], Baseline]] = {
    "majority": lambda work: Majority.fit(work.splits.train),
    "tfidf": lambda work: Tfidf.fit(work.splits.train),
    "nearest-neighbours": _fit_nearest,
}


def _answers(baseline: Baseline, work: Work, split: str) -> list[Prediction]:
    rows = getattr(work.splits, split)
    return as_predictions([row["label"] for row in rows], baseline.predict(rows, work.examples[split]))


def _predict(work: Work, split: str) -> list[Prediction]:
    rows = getattr(work.splits, split)
    answers = predict(work.loaded, work.task, work.examples[split], work.devices)
    return as_predictions([row["label"] for row in rows], answers)


def _write(folder: RunFolder, name: str, predictions: Sequence[Prediction]) -> None:
    rows = [{"row": p.row, "gold": p.gold, "answer": p.answer, "score": p.score} for p in predictions]
    folders.write_lines(folder.predictions(name), rows)


def read_predictions(folder: RunFolder, name: str) -> list[Prediction]:
    return [Prediction(**row) for row in folders.lines(folder.predictions(name))]


def score_validation(work: Work, folder: RunFolder) -> None:
    """Predict the validation rows with the best step's weights (a later refit will have seen them)."""
    _write(folder, "validation", _predict(work, "validation"))


def judge_run(work: Work, folder: RunFolder, baselines: Mapping[str, Baseline]) -> None:
    """Open the sealed test, score everything, weigh tuned against baselines; write scores, audits and verdict."""
    split = "test" if work.splits.test else "validation"
    if work.splits.test:
        look = {"when": now(), "by": "run", "rows": len(work.splits.test), "sha256": work.splits.files["test"]}
        folders.append(folder.looks, look)
        _write(folder, "test", _predict(work, "test"))
        for name, baseline in baselines.items():
            _write(folder, f"baseline-{name}-test", _answers(baseline, work, "test"))
    tuned = {name: work.task.measures(read_predictions(folder, name)) for name in _scored_splits(work)}
    theirs = {name: work.task.measures(read_predictions(folder, f"baseline-{name}-{split}")) for name in baselines}
    primary = work.recipe.judge.primary
    scores: dict[str, Any] = {"primary": primary, "judged_on": split}
    scores |= {name: score(measures) for name, measures in tuned.items()}
    scores["baselines"] = {name: score(measures) for name, measures in theirs.items()}
    if 0 < len(work.splits.leaked) < len(work.splits.test):
        scores["test_without_overlap"] = score(work.task.measures(_without(folder, work.splits.leaked)))
    folders.write_json(folder.scores, scores)
    verdict = judge(primary, work.recipe.judge.min_gain, split, tuned[split], theirs)
    folders.write_json(folder.verdict, verdict)
    folders.write_json(folder.audits, {"cost": _cost(work, folder, split), "not_judged": list(NOT_JUDGED)})
    shown = folders.read_json(folder.data)
    shown["worst_errors"] = _worst(read_predictions(folder, split), getattr(work.splits, split))
    folders.write_json(folder.data, shown)


def _scored_splits(work: Work) -> list[str]:
    return ["validation", "test"] if work.splits.test else ["validation"]


def _without(folder: RunFolder, leaked: Sequence[int]) -> list[Prediction]:
    out = set(leaked)
    return [prediction for prediction in read_predictions(folder, "test") if prediction.row not in out]


def _worst(predictions: Sequence[Prediction], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The most confident wrong answers, with their texts."""
    wrong = sorted((p for p in predictions if p.answer != p.gold), key=lambda p: (-p.score, p.row))
    return [
        {
            "where": rows[p.row].where,
            "text": " | ".join(str(rows[p.row][name]) for name in ("text", "text_pair") if rows[p.row].get(name)),
            "gold": p.gold,
            "answer": p.answer,
            "score": p.score,
        }
        for p in wrong[:WORST_ERRORS]
    ]


def _cost(work: Work, folder: RunFolder, split: str) -> dict[str, Any]:
    return {
        **cost.training_cost(folders.lines(folder.steps)),
        **cost.answering_cost(work.loaded, work.task, work.examples[split], work.devices),
        "peak_memory_bytes": cost.peak_memory_bytes(),
        "model_bytes": cost.folder_bytes(folder.model),
    }
