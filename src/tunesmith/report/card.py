"""The model card: metadata that the hub understands, and what a stranger must know before using the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.recipe.data import HUB
from tunesmith.report import wording
from tunesmith.report.findings import find_all
from tunesmith.report.headline import headline
from tunesmith.report.lesson import lesson
from tunesmith.report.membership import how_it_was_shared
from tunesmith.report.record import Record, Score
from tunesmith.report.rendering import render

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
"""The hub names a dataset that is not on the hub by the loader that reads it."""

AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
}

WRITERS = ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM")
"""What opens a model that writes: one with an encoder, and a decoder alone."""


def make_card(record: Record) -> str:
    """README.md: YAML front matter and a Markdown body. Shows no row of the data."""
    body = render(
        "card.md",
        record=record,
        verdict=headline(record),
        shared=how_it_was_shared(record),
        findings=[finding for finding in find_all(record) if finding.level != "info"],
        lesson=lesson(record),
        scores=score_rows(record),
        method=wording.method(record.recipe),
        settings=settings(record),
        auto_class=AUTO_CLASSES.get(record.recipe.task.kind),
        writer=WRITERS[bool(record.manifest.get("learned", {}).get("goes_on"))],
        target=record.target,
        temperature=record.scores.get("calibration", {}).get("temperature"),
        metrics=[wording.metric(name) for name in record.judged],
    )
    return f"---\n{metadata(record).to_yaml()}\n---\n\n{body}"


def metadata(record: Record) -> ModelCardData:
    """The card's metadata. What is not known (a licence, a language) is left out, not guessed."""
    from huggingface_hub import ModelCardData

    base, adapter = record.hub_base, record.is_adapter
    tags = ["tunesmith", "generated_from_trainer"]
    tags += [record.method] if adapter else []
    tags += [f"base_model:adapter:{base}"] if base and adapter else []
    relation = ("adapter" if adapter else "finetune") if base else None
    return ModelCardData(
        model_name=record.name,
        library_name="peft" if record.is_of_peft else "tunesmith" if adapter else "transformers",
        pipeline_tag=record.recipe.task.kind,
        base_model=base,
        tags=tags,
        metrics=list(dict.fromkeys(wording.metric(name).hub for name in record.judged)),
        eval_results=_results(record),
        base_model_relation=relation,
    )


def _results(record: Record) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    data, task = record.recipe.data, record.recipe.task.kind
    held = data.test if record.split == "test" else data.validation
    files = data.train if held is None or isinstance(held, float | int) else held
    kind, called = _source(files if isinstance(files, str) else files[0])
    return [
        EvalResult(
            task_type=task,
            task_name=task.replace("-", " ").capitalize(),
            dataset_type=kind,
            dataset_name=called,
            dataset_split=record.split,
            metric_type=wording.metric(name).hub,
            metric_name=wording.metric(name).title,
            metric_args=wording.metric(name).arguments or None,
            metric_value=score["value"],
        )
        for name, score in record.judged.items()
    ]


def _source(held: str) -> tuple[str, str]:
    """What a hub calls the kind of a source, and its name."""
    if held.startswith(HUB):
        name = held.removeprefix(HUB).partition("@")[0].partition(":")[0]
        return name, name
    path = Path(held)
    if not path.suffix:
        return "imagefolder", path.name
    ending = Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    return LOADERS.get(ending, ending.lstrip(".") or "text"), path.name


def score_rows(record: Record) -> list[tuple[str, str, int, dict[str, Score]]]:
    """Every line of the score table: (who, on which split, on how many rows of it, scores); the judged line first."""
    many = record.judged_rows
    rows = [("tuned", record.split, many, record.judged)]
    if "test_without_overlap" in record.scores:
        unseen = many - record.data["leaked"]
        rows.append(("tuned, without rows seen in training", "test", unseen, record.scores["test_without_overlap"]))
    named = [(wording.baseline(name, record.target == "score"), scores) for name, scores in record.baselines.items()]
    rows += [(name, record.split, many, scores) for name, scores in named]
    if record.split != "validation" and "validation" in record.scores:
        rows.append(("tuned", "validation", record.data["splits"]["validation"]["rows"], record.scores["validation"]))
    if general := record.general:
        sides = {"tuned": "after", wording.baseline("untuned"): "before"}
        rows += [
            (who, "general texts", general["texts"], general[side]) for who, side in sides.items() if general[side]
        ]
    return rows


def settings(record: Record) -> list[tuple[str, Any]]:
    """Every setting that acted, by its key in the recipe; places of files are left out."""
    recipe = record.recipe.model_dump(mode="json")
    found: list[tuple[str, Any]] = [("seed", recipe["seed"])]
    for section in ("task", "method", "train", "judge", "deploy", "machine"):
        found += [(f"{section}.{key}", value) for key, value in recipe[section].items()]
    found += [(f"teacher.{key}", value) for key, value in (recipe["teacher"] or {}).items() if key != "model"]
    data = recipe["data"]
    held = data["validation"]
    if not isinstance(held, float | int):
        held = [Path(name).name for name in ([held] if isinstance(held, str) else held)]
    found += [("data.validation", held), *((f"data.{key}", data[key]) for key in ("group", "limit", "on_bad_row"))]
    return [(key, _shown(value)) for pair in found for key, value in _flat(*pair)]


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    """A setting with settings of its own as one line for each."""
    if not isinstance(value, dict):
        return [(key, value)]
    return [(f"{key}.{name}", inner) for name, inner in value.items()]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
