"""Run folders written by hand: every file a finished run leaves, in any variant, in a moment and without a model."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

from fabricated_answers import further_scores, predictions, scores_of

from tunesmith import folder as folders
from tunesmith.folder import RunFolder
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import write_recipe

PRIMARY = {"label": "accuracy", "path": "accuracy", "labels": "micro_f1", "score": "spearman"}
MOST_SLICED = 10_000
"""Slices are taken of so many rows at most."""
DIGEST = "0123456789abcdef" * 4
Row = dict[str, Any]


def make_run(
    path: Path,
    labels: tuple[str, ...] = ("card", "cash", "transfer"),
    test_rows: int | None = 90,
    method: Any = "full",
    baselines: bool = True,
    refit: bool = False,
    overfits: bool = False,
    ended: str = "all steps done",
    base: str = "/home/somebody/models/minilm",
    revision: str | None = None,
    text: str = "where is my card",
    steps: int = 120,
    target: str = "label",
    **changes: Any,
) -> RunFolder:
    """Write a run folder. `changes` are further keys of the manifest."""
    folder = RunFolder(path)
    recipe = _recipe(path, method, base, test_rows, baselines, refit, target)
    write_recipe(recipe, folder.recipe)
    split = "test" if test_rows else "validation"
    answers = predictions(target, labels, test_rows or 30)
    folders.write_lines(folder.predictions(split), answers)
    scores = _scores(target, labels, answers, split, baselines)
    folders.write_json(folder.scores, scores)
    folders.write_json(folder.verdict, _verdict(scores, split, baselines))
    _write_records(folder, target, labels, answers, split, text)
    _write_course(folder, scores["validation"], refit, overfits, steps)
    manifest = _manifest(recipe, labels, revision, ended, steps)
    folders.write_json(folder.manifest, {**manifest, **changes})
    return folder


def _recipe(path: Path, method: Any, base: str, test_rows: int | None, baselines: bool, refit: bool,
            target: str) -> Recipe:  # fmt: skip
    data = {"train": str(path / "train.jsonl")} | ({"test": str(path / "test.jsonl")} if test_rows else {})
    lora = {"kind": "lora", "rank": 8, "alpha": 16.0}
    return Recipe.model_validate(
        {
            "model": base,
            "data": data,
            "task": {"kind": "text-classification", "target": target},
            "method": lora if method == "lora" else method,
            "train": {
                "epochs": 4.0,
                "batch_size": 16,
                "learning_rate": 3e-5,
                "precision": "fp32",
                "max_length": 64,
                "evaluate_every": 30,
                "checkpoint_every": 30,
                "refit": refit,
            },
            "judge": {"primary": PRIMARY[target], "baselines": "auto" if baselines else "off"},
            "machine": {"device": "cpu", "threads": 2, "micro_batch_tokens": 2048},
            "output": str(path),
        }
    )


def accuracy(rows: list[Row]) -> float:
    return sum(row["gold"] == row["answer"] for row in rows) / len(rows)


def macro_f1(rows: list[Row]) -> float:
    golds, answers = Counter(row["gold"] for row in rows), Counter(row["answer"] for row in rows)
    right = Counter(row["gold"] for row in rows if row["gold"] == row["answer"])
    names = golds.keys() | answers.keys()
    return sum(2 * right[name] / (golds[name] + answers[name]) for name in names) / len(names)


def _score(value: float, half: float = 0.04321) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def _scores(target: str, labels: tuple[str, ...], answers: list[Row], split: str, baselines: bool) -> dict[str, Any]:
    primary = PRIMARY[target]
    if target == "label":
        judged = {"accuracy": _score(accuracy(answers)), "macro_f1": _score(macro_f1(answers), 0.05432)}
        judged["ece"] = _score(0.0321, 0.0111)
    else:
        judged = scores_of(target, answers)
    scores: dict[str, Any] = {"primary": primary, "judged_on": split}
    scores["validation"] = judged if split == "validation" else {name: _score(0.8125) for name in judged}
    scores[split] = judged
    values = {"majority": 0.3333333, "tfidf": 0.7111111, "nearest-neighbours": 0.6444444}
    theirs = {
        who: {name: _score(value if name == primary else value / 2) for name in judged} for who, value in values.items()
    }
    scores["baselines"] = theirs if baselines else {}
    return scores | further_scores(target, labels, answers[:MOST_SLICED], primary)


def _verdict(scores: dict[str, Any], split: str, baselines: bool) -> dict[str, Any]:
    verdict: dict[str, Any] = {"ship": None, "gain": None, "over": None, "metric": scores["primary"], "split": split}
    primary = scores["primary"]
    why = ["baselines are off: there is nothing to compare with"]
    if baselines:
        gain = scores[split][primary]["value"] - scores["baselines"]["tfidf"][primary]["value"]
        verdict |= {"gain": {"value": gain, "low": gain - 0.0777, "high": gain + 0.0777}, "over": "tfidf"}
        verdict["ship"] = gain - 0.0777 > 0
        why = [f"tuned {primary} against 0.7111 of the best baseline (tfidf): {gain:+.4f}"]
    if split != "test":
        why.append("there is no test set: these are the validation rows by which the best step was chosen")
    return {**verdict, "why": why, "not_judged": ["forgetting", "bias", "shift", "facts"]}


def _write_records(
    folder: RunFolder, target: str, labels: tuple[str, ...], answers: list[Row], split: str, text: str
) -> None:
    def describe(rows: int) -> Row:
        lengths = [[length, 1 + (length * 7) % 11] for length in range(5, 65)]
        described: Row = {"rows": rows, "labels": {}, "lengths": lengths, "cut": 0}
        if target == "score":
            return {**described, "quantiles": {"0.0": 1.0, "0.25": 2.1, "0.5": 3.04, "0.75": 4.05, "1.0": 5.0}}
        return {**described, "labels": {name: rows // len(labels) for name in labels}}

    splits = {"train": describe(400), "validation": describe(30)}
    if split == "test":
        splits["test"] = describe(len(answers))
        look = {"when": "2026-01-01T00:00:00+00:00", "by": "run", "rows": len(answers), "sha256": DIGEST}
        folders.append(folder.looks, look)
    splits["train"]["cut"] = 12
    wrong = [row for row in answers if row["gold"] != row["answer"]][:25]
    errors = [{"where": f"/home/somebody/{split}.jsonl:{row['row'] + 1}", "text": text, **row} for row in wrong]
    batch = [{"where": "/home/somebody/train.jsonl:1", "tokens": ["[CLS]", *text.split(), "[SEP]"], "label": labels[0]}]
    shown: Row = {
        "target": target,
        "splits": splits,
        "max_length": 64,
        "leaked": 0,
        "skipped": [],
        "first_batch": batch,
    }
    if target in ("label", "path"):
        suspects = [{**row, "split": split, "given": 0.0123, "usual": 0.7654} for row in errors]
        shown["suspects"] = {"rows": len(answers), "found": len(suspects) + 12, "shown": suspects}
    folders.write_json(folder.data, {**shown, "worst_errors": errors})
    message = "12 train rows (3.0%) are longer than 64 tokens: their ends are cut off"
    note = {"code": "truncated", "level": "warn", "message": message, "where": "", "remedy": "train.max_length"}
    folders.write_json(folder.check, [{**note, "source": "", "count": 12}])
    cost = {"training_seconds": 95.5, "rows": 1600, "tokens": 48000, "steps": 120, "rows_per_second": 16.75,
            "tokens_per_second": 502.6, "latency_p50_ms": 12.34, "latency_p99_ms": 45.67, "latency_rows": 50,
            "answers_per_second": 321.0, "peak_memory_bytes": 812_000_000, "model_bytes": 90_900_000}  # fmt: skip
    folders.write_json(folder.audits, {"cost": cost, "not_judged": ["forgetting", "bias", "shift", "facts"]})


def _write_course(folder: RunFolder, scores: Row, refit: bool, overfits: bool, steps: int) -> None:
    source, every = random.Random(1), max(1, steps // 8)
    course, evaluations = [], []
    for phase in ("fit", "refit") if refit else ("fit",):
        for step in range(1, steps + 1):
            done = step / steps
            loss = 1.1 * math.exp(-2.5 * done) + source.uniform(-0.05, 0.05) + 0.06
            rate = 3e-5 * (done / 0.06 if done < 0.06 else (1 - done) / 0.94)
            course.append({"phase": phase, "step": step, "epoch": 4 * done, "loss": loss, "learning_rate": rate,
                           "grad_norm": 0.5 + source.random(), "rows": 16, "tokens": 480, "seconds": 0.8})  # fmt: skip
            if phase == "fit" and step % every == 0:
                held = 1.0 * math.exp(-2.0 * done) + 0.2 + (0.9 * max(0.0, done - 0.4) if overfits else 0.0)
                now = {name: _score(score["value"] * (0.6 + 0.4 * done)) for name, score in scores.items()}
                evaluations.append({"phase": phase, "step": step, "epoch": 4 * done, "loss": held, "scores": now,
                                    "best": True})  # fmt: skip
    folders.write_lines(folder.steps, course)
    folders.write_lines(folder.evaluations, evaluations)


def _manifest(recipe: Recipe, labels: tuple[str, ...], revision: str | None, ended: str, steps: int) -> Row:
    adapter = recipe.method.kind == "lora"
    data = {"rows": 30, "file_sha256": DIGEST, "rows_sha256": DIGEST[::-1]}
    return {
        "tunesmith": "0.1.0",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": None,
        "choices": [{"key": "train.max_length", "value": 64, "why": "the most that the model takes"}],
        "base": {"reference": recipe.model, "revision": revision, "sha256": {"model.safetensors": DIGEST}},
        "data": {"train": data, "validation": {**data, "file_sha256": None}},
        "labels": sorted(labels),
        "parameters": {"total": 22_700_000, "trainable": 300_000 if adapter else 22_700_000},
        "steps": steps,
        "seed": 0,
        "threads": 2,
        "processes": 1,
        "precision": "fp32",
        "rewrites": [],
        "versions": {"python": "3.11.7", "tunesmith": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0",
                     "peft": "0.21.2"},
        "hardware": {"machine": "x86_64", "system": "Linux", "processor": "A processor", "cpu_capability": "AVX2",
                     "cores": 2, "memory_bytes": 16_000_000_000, "gpus": []},
        "identity": {},
        "resumed_from": 0,
        "warnings": [],
        "ended": ended,
        "learned": {"labels": sorted(labels), "mean": 3.05, "deviation": 1.15},
        "best_step": steps // 8 * 8,
        "model_sha256": {"adapter_model.safetensors" if adapter else "model.safetensors": DIGEST},
        "cost": {},
    }  # fmt: skip
