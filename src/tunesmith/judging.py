"""Scores, baselines and verdict: what stands in the run folder when training is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tunesmith import folder as folders
from tunesmith import footprint
from tunesmith.audits import cost, distillation, forgetting, slices
from tunesmith.audits.budgets import find_budgets, with_budgets
from tunesmith.audits.suspects import find_suspects
from tunesmith.audits.verdict import NOT_JUDGED, judge
from tunesmith.baselines import (
    Baseline,
    Frequencies,
    LinearProbe,
    Majority,
    NearestNeighbours,
    Opened,
    Tfidf,
    Untuned,
    WordOverlap,
    embed,
)
from tunesmith.data.rows import Row, as_text
from tunesmith.data.sensitive import mask
from tunesmith.evaluation import RESAMPLES, as_predictions, score
from tunesmith.excerpts import Copy, Lead
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder
from tunesmith.lexicon import Lexicon
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import find_base
from tunesmith.open import Run
from tunesmith.overlap import Overlap
from tunesmith.preparing import Work, said_masked
from tunesmith.recipe import TEACHER, WITHOUT_STAGES, WITHOUT_TEACHER
from tunesmith.report.manifest import now
from tunesmith.tasks.contract import Example, Prediction, length_of
from tunesmith.tasks.metrics import Measure

PATIENCE_SECONDS = 3.0
"""Rows that are answered within this time are not counted aloud."""

WORST_ERRORS = 25
SHOWN_SUSPECTS = 25
SHOWN_EXAMPLES = 10


@dataclass
class Fitted:
    """A baseline with the decision that was chosen for it on the validation rows."""

    baseline: Baseline
    decision: dict[str, Any]


def fit_baselines(
    work: Work, folder: RunFolder, voice: Voice, beside: Mapping[str, OtherTraining] | None = None
) -> dict[str, Fitted]:
    """Fit the baselines that the recipe asks for, and tell how they do on the validation rows.

    Args:
        beside: trainings, by the name of the baseline that they are, which the recipe does not know of.
    """
    fitted: dict[str, Fitted] = {}
    rows, golds = work.splits.validation, _golds(work, "validation")
    other = beside or {}
    for name in [*work.recipe.baselines, *other]:
        voice.stage(f"baseline {name}")
        baseline = other[name] if name in other else _FITS[name](work)
        if baseline is None:
            voice.say(f"baseline {name}: left out, {LEFT_OUT[name]}")
            continue
        if isinstance(baseline, OtherTraining):  # as it was before a refit, which has learned these rows
            fitted[name] = Fitted(baseline, baseline.run.card["decision"])
            predictions = read_predictions(baseline.run.folder, "validation")
        else:
            outputs = baseline.predict(rows, work.examples["validation"])
            fitted[name] = Fitted(baseline, work.task.decide(outputs, rows))
            predictions = as_predictions(golds, work.task.answers(outputs, rows, fitted[name].decision))
        primary = work.recipe.judge.primary
        value = work.task.measures(predictions)[primary]()
        voice.say(f"baseline {name}: {primary} {value:.4f} on the validation rows")
        _write(folder, f"baseline-{name}-validation", predictions)
    return fitted


def _fit_nearest(work: Work) -> Baseline:
    train = (work.splits.train, work.examples["train"])
    held = (work.splits.validation, work.examples["validation"])
    return NearestNeighbours.fit(work.task, *train, *held, partial(_vectors, work), work.recipe.judge.primary)


def _vectors(work: Work, examples: Sequence[Any]) -> Any:
    """The frozen base's vectors of a split, made once for all baselines that read them."""
    made = work.vectors.get(id(examples))
    if made is None:
        made = work.vectors[id(examples)] = embed(work.task, work.loaded, examples, work.devices)
    return made


@dataclass
class OtherTraining:
    """The recipe's own training from the base itself, or without the teacher's word."""

    run: Run

    def predict(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[Any]:
        return self.run.outputs(rows)


def _without_stages(work: Work) -> Baseline | None:
    """None where the stages brought tokens and the task asks for tokens: the two would be asked for different ones."""
    run = Run(work.recipe.without_stages().output, work.recipe.machine)
    asks_tokens = work.recipe.task.target == "language"
    return None if asks_tokens and len(run.loaded.processor) != len(work.loaded.processor) else OtherTraining(run)


def _teacher(work: Work) -> Baseline:
    """The teacher itself, asked in the same way as the student; its decision is made on the same rows, too."""
    return _asked(work, work.task.teacher)


def _asked(work: Work, loaded: Loaded) -> Opened:
    """A model, as it is now, to ask about rows."""
    return Opened(work.task, loaded, work.devices, partial(_counted, work))


def _counted(work: Work, total: int) -> Callable[[int], None]:
    """Tells how far the answers are where they take their time."""
    began, told = time.monotonic(), False

    def tell(done: int) -> None:
        nonlocal told
        if time.monotonic() - began > PATIENCE_SECONDS:
            if not told:
                work.voice.close()  # of what was counted before nothing goes on
            told = True
            work.voice.answered(done, total)

    return tell


def _untuned(work: Work) -> Baseline | None:
    """None where the base has no head for the task: what a new one says is noise."""
    is_noise = work.loaded.head_is_new and work.task.needs_head_of_base
    return None if is_noise else Untuned(work.task, work.loaded, work.devices, partial(_counted, work))


LEFT_OUT = {
    "untuned": "the base has no head for this task",
    WITHOUT_STAGES: "it has other tokens, so it would be asked for others",
}
"""Why a baseline cannot be had, where it cannot."""

_FITS: dict[str, Callable[[Work], Baseline | None]] = {
    "majority": lambda work: Majority.fit(work.task, work.splits.train),
    "tfidf": lambda work: Tfidf.fit(work.task, work.splits.train),
    "nearest-neighbours": _fit_nearest,
    "lexicon": lambda work: Lexicon.fit(work.task, work.splits.train),
    "overlap": lambda work: Overlap.fit(work.splits.train),
    "untuned": _untuned,
    WITHOUT_STAGES: _without_stages,
    TEACHER: _teacher,
    WITHOUT_TEACHER: lambda work: OtherTraining(Run(work.recipe.without_teacher().output, work.recipe.machine)),
    "frequencies": lambda work: Frequencies.fit(work.task, work.loaded.processor, work.examples["train"]),
    "word-overlap": lambda work: WordOverlap.fit(work.task, work.splits.train),
    "lead": lambda work: Lead.fit(work.task, work.splits.train),
    "copy": lambda work: Copy(),
    "linear-probe": lambda work: LinearProbe.fit(
        work.task, work.splits.train, work.examples["train"], partial(_vectors, work)
    ),
}


def _golds(work: Work, split: str) -> list[Any]:
    return [work.task.gold(row) for row in getattr(work.splits, split)]


def _answers(fitted: Fitted, work: Work, split: str) -> list[Prediction]:
    rows = getattr(work.splits, split)
    outputs = fitted.baseline.predict(rows, work.examples[split])
    return as_predictions(_golds(work, split), work.task.answers(outputs, rows, fitted.decision))


def _count_look(work: Work, folder: RunFolder) -> None:
    """The run's own look at the sealed test: one, also where judging was interrupted and resumed."""
    if not any(look["by"] == "run" for look in folders.lines(folder.looks)):
        look = {"when": now(), "by": "run", "rows": len(work.splits.test), "sha256": work.splits.files["test"]}
        folders.append(folder.looks, look)


def _write(folder: RunFolder, name: str, predictions: Sequence[Prediction]) -> None:
    folders.write_lines(folder.predictions(name), [asdict(prediction) for prediction in predictions])


def read_predictions(folder: RunFolder, name: str) -> list[Prediction]:
    return [Prediction(**row) for row in folders.lines(folder.predictions(name))]


def score_validation(work: Work, folder: RunFolder) -> dict[str, Any]:
    """Predict the validation rows with the best step's weights (a later refit will have seen them).

    Returns:
        the decision (temperature, thresholds) that suits them; the test rows are answered by it.
    """
    outputs = _asked(work, work.loaded).predict(work.splits.validation, work.examples["validation"])
    rows, golds = work.splits.validation, _golds(work, "validation")
    decision = work.task.decide(outputs, rows)
    _write(folder, "validation", as_predictions(golds, work.task.answers(outputs, rows, decision)))
    return dict(decision)


def settle_decision(work: Work, folder: RunFolder) -> dict[str, Any]:
    """As `score_validation`; the one that came with the base where there are no validation rows left."""
    return score_validation(work, folder) if work.splits.validation else dict(work.base.card["decision"])


def judge_run(work: Work, folder: RunFolder, baselines: Mapping[str, Fitted], decision: Mapping[str, Any]) -> None:
    """Open the sealed test, score everything, weigh tuned against baselines; write scores, audits and verdict."""
    split = "test" if work.splits.test else "validation"
    plain: list[Prediction] = []
    if work.splits.test:
        _count_look(work, folder)
        outputs = _asked(work, work.loaded).predict(work.splits.test, work.examples["test"])
        _write(
            folder, "test", as_predictions(_golds(work, "test"), work.task.answers(outputs, work.splits.test, decision))
        )
        for name, fitted in baselines.items():
            _write(folder, f"baseline-{name}-test", _answers(fitted, work, "test"))
        if "temperature" in decision:
            answers = work.task.answers(outputs, work.splits.test, {**decision, "temperature": 1.0})
            plain = as_predictions(_golds(work, "test"), answers)
    kept = {name: read_predictions(folder, name) for name in _scored_splits(work)}
    tuned = {name: work.task.measures(predictions) for name, predictions in kept.items()}
    theirs = {name: work.task.measures(read_predictions(folder, f"baseline-{name}-{split}")) for name in baselines}
    primary = work.recipe.judge.primary
    scores: dict[str, Any] = {"primary": primary, "judged_on": split, "resamples": RESAMPLES}
    scores |= {name: score(measures) for name, measures in tuned.items()}
    scores["baselines"] = {name: score(measures) for name, measures in theirs.items()}
    if signatures := work.task.signatures():
        scores["signatures"] = signatures
    scores["calibration"] = _calibration(work, plain, decision)
    if 0 < len(work.splits.leaked) < len(work.splits.test):
        scores["test_without_overlap"] = score(work.task.measures(_without(kept["test"], work.splits.leaked)))
    scores |= _slices(work, kept[split], split, primary)
    folders.write_json(folder.scores, scores)
    lost = {"forgetting": {"general": _of_general_texts(work, folder)}} if work.splits.general else {}
    not_judged = [name for name in NOT_JUDGED if name not in lost]
    verdict = judge(primary, work.recipe.judge.min_gain, split, tuned[split], theirs, not_judged)
    spent = _cost(work, folder, split)
    folders.write_json(folder.verdict, with_budgets(verdict, find_budgets(work.recipe.deploy, spent)))
    taught = {"distillation": _against_teacher(work, folder, split, tuned[split])} if work.recipe.teacher else {}
    folders.write_json(folder.audits, {"cost": spent, **taught, **lost, "not_judged": not_judged})
    shown = folders.read_json(folder.data)
    shown["wrong"], shown["worst_errors"] = _worst(work, kept[split], getattr(work.splits, split))
    if work.recipe.task.target == "text":
        shown["examples"] = _examples(work, kept[split], getattr(work.splits, split))
    if work.recipe.task.target in ("label", "path"):
        shown["suspects"] = _suspects(work, kept)
    folders.write_json(folder.data, shown)


def _slices(work: Work, predictions: Sequence[Prediction], split: str, primary: str) -> dict[str, Any]:
    """The primary metric on parts of the judged rows."""
    rows, measures = getattr(work.splits, split), work.task.measures
    lengths = [length_of(example) for example in work.examples[split]]
    return {
        "slices": slices.by_columns(work.recipe.judge.slices, rows, predictions, measures, primary),
        "by_length": slices.by_length(lengths, predictions, measures, primary) if work.recipe.task.long_texts else {},
    }


def _suspects(work: Work, kept: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """Rows of validation and test whose given label may be wrong; the most suspect with their texts."""
    sources = [(name, prediction) for name, predictions in kept.items() for prediction in predictions]
    found = find_suspects([prediction for _, prediction in sources])
    shown = []
    for suspect in found[:SHOWN_SUSPECTS]:
        split, prediction = sources[suspect.index]
        row = getattr(work.splits, split)[prediction.row]
        shown.append(
            {**_shown_row(work, row, prediction), "split": split, "given": suspect.given, "usual": suspect.usual}
        )
    return {"rows": len(sources), "found": len(found), "shown": shown}


def _calibration(work: Work, plain: Sequence[Prediction], decision: Mapping[str, Any]) -> dict[str, Any]:
    """The decision, and the calibration error on the test rows as it was before the temperature."""
    measures = work.task.measures(plain)
    before = score({"ece": measures["ece"]})["ece"] if "ece" in measures else None
    return {**decision, "ece_before": before}


def _scored_splits(work: Work) -> list[str]:
    return [name for name in ("validation", "test") if getattr(work.splits, name)]


def _without(predictions: Sequence[Prediction], leaked: Sequence[int]) -> list[Prediction]:
    out = set(leaked)
    return [prediction for prediction in predictions if prediction.row not in out]


def _worst(work: Work, predictions: Sequence[Prediction], rows: Sequence[Row]) -> tuple[int, list[dict[str, Any]]]:
    """How many answers are wrong; the worst of them (of which the model was surest, or furthest off), with texts."""
    severity = {p.row: work.task.severity(p) for p in predictions}
    wrong = sorted((p for p in predictions if severity[p.row] > 0), key=lambda p: (-severity[p.row], p.row))
    return len(wrong), [_shown_row(work, rows[p.row], p) for p in wrong[:WORST_ERRORS]]


def _examples(work: Work, predictions: Sequence[Prediction], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows that lie evenly, good or bad."""
    step = max(1, -(-len(predictions) // SHOWN_EXAMPLES))
    return [_shown_row(work, rows[prediction.row], prediction) for prediction in predictions[::step]]


def _shown_row(work: Work, row: Row, prediction: Prediction) -> dict[str, Any]:
    """A row and its answer for people to read."""
    inputs = [column.name for column in work.recipe.task.columns if column.is_input]
    return {
        "where": mask(row.where),
        "text": mask(" | ".join(as_text(row[name]) for name in inputs if row.get(name))),
        "gold": said_masked(work.task, prediction.gold, row),
        "answer": said_masked(work.task, prediction.answer, row),
        "score": prediction.score,
        **work.task.illustration(row),
    }


def _cost(work: Work, folder: RunFolder, split: str) -> dict[str, Any]:
    return {
        **cost.training_cost(folders.lines(folder.steps)),
        **cost.answering_cost(work.loaded, work.task, work.examples[split], work.devices),
        "peak_memory_bytes": cost.peak_memory_bytes(),
        "model_bytes": cost.folder_bytes(folder.model),
        **(_memory_of_answering(work, folder, split) if work.recipe.deploy.memory_mb is not None else {}),
    }


def _against_teacher(work: Work, folder: RunFolder, split: str, mine: Mapping[str, Any]) -> dict[str, Any]:
    """The student beside its teacher, who answers the same rows as it would by itself."""
    assert work.recipe.teacher is not None
    run, rows, examples = Run(work.recipe.teacher.model), getattr(work.splits, split), work.examples[split]
    outputs = _asked(work, work.task.teacher).predict(rows, examples)
    predictions = as_predictions(_golds(work, split), work.task.answers(outputs, rows, run.card["decision"]))
    _write(folder, f"teacher-{split}", predictions)
    primary, models = work.recipe.judge.primary, (work.loaded, work.task.teacher)
    saved = (find_base(str(folder.path)), find_base(str(run.folder.path)))
    times = distillation.latencies(models, work.task, examples, work.devices)
    measures = (mine[primary], work.task.measures(predictions)[primary])
    return distillation.compare(primary, split, measures, models, saved, times)


def _of_general_texts(work: Work, folder: RunFolder) -> dict[str, Any]:
    """What the tuned model and its base make of texts of the language at large."""
    base = _untuned(work)
    after = _asked_generally(work, folder, "general", _asked(work, work.loaded))
    before = _asked_generally(work, folder, "baseline-untuned-general", base) if base else None
    return forgetting.compare(len(work.splits.general), work.recipe.judge.primary, after, before)


def _asked_generally(work: Work, folder: RunFolder, name: str, side: Baseline) -> dict[str, Measure]:
    predictions = _answers(Fitted(side, {}), work, "general")
    _write(folder, name, predictions)
    measures: dict[str, Measure] = work.task.measures(predictions)
    return measures


def _memory_of_answering(work: Work, folder: RunFolder, split: str) -> dict[str, Any]:
    """Of the longest rows: they need the most. Costs the start of a process, so only a budget asks for it."""
    rows, examples = getattr(work.splits, split), work.examples[split]
    longest = [rows[index] for index in sorted(range(len(rows)), key=lambda index: -length_of(examples[index]))]
    return footprint.measure(folder, longest, work.recipe.machine, work.devices.threads)
