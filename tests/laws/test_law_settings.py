"""Every setting of a recipe does something: one row for each, and no setting without a row."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import torch
from pydantic import BaseModel
from workbench import recipe_of, run_tiny

import tiny
from tunesmith.checking import check
from tunesmith.errors import DataError, ModelError, RecipeError, TunesmithError
from tunesmith.folder import RunFolder, lines, read_json
from tunesmith.open import Run
from tunesmith.recipe import Machine, Recipe, TextClassification
from tunesmith.recipe.methods import HeadFirst

pytestmark = pytest.mark.usefixtures("own_cache")

PLAIN: dict[str, Any] = {"train": {"steps": 4, "evaluate_every": 2}}
"""What every row changes one thing of."""


@dataclass
class Place:
    """Where the rows of the table work: a base, another one, and files of rows."""

    base: Path
    other_base: Path
    folder: Path
    writer: Path
    decoder: Path
    image_base: Path
    teacher: Path
    other_teacher: Path

    @property
    def train(self) -> Path:
        return self.folder / "train.jsonl"


Check = Callable[[Run, Run], bool]


@dataclass
class Row:
    """A change of the plain recipe, and what must be different of the run (or the error that it must end with).

    Attributes:
        change: sections to change, or a function of the place to them.
        acts: from the run without and the run with the change to whether it acted.
        common: what both have beside the plain recipe.
    """

    change: dict[str, Any] | Callable[[Place], dict[str, Any]]
    acts: Check | type[TunesmithError]
    common: dict[str, Any] | Callable[[Place], dict[str, Any]] = field(default_factory=dict)


def manifest(*keys: str, equals: Any = None) -> Check:
    """The manifest's value differs, and is what it should be if that is told."""

    def differs(plain: Run, changed: Run) -> bool:
        was, now = plain.manifest, changed.manifest
        for key in keys:
            was, now = was[key], now[key]
        return bool(was != now and (equals is None or now == equals))

    return differs


def weights(plain: Run, changed: Run) -> bool:
    return bool(plain.manifest["model_sha256"] != changed.manifest["model_sha256"])


def steps(key: str, values: list[Any]) -> Check:
    """The records of the steps are these (and were not)."""

    def differs(plain: Run, changed: Run) -> bool:
        was, now = ([row[key] for row in lines(run.folder.steps)] for run in (plain, changed))
        return was != now and now == pytest.approx(values, rel=1e-6)

    return differs


def evaluations(values: list[int]) -> Check:
    return lambda plain, changed: (
        [row["step"] for row in lines(changed.folder.evaluations)]
        == values
        != [row["step"] for row in lines(plain.folder.evaluations)]
    )


def kept_steps(run: Run) -> list[str]:
    return sorted(path.name[-1] for path in run.folder.checkpoints.iterdir())


def rows_of(split: str) -> Check:
    """Other rows are in this split."""
    return manifest("data", split, "rows_sha256")


def budget(key: str, kept: bool) -> Check:
    """The verdict judges this budget, and says no where it is broken."""
    return lambda plain, changed: (
        plain.verdict["budgets"] == []
        and [(found["key"], found["kept"]) for found in changed.verdict["budgets"]] == [(key, kept)]
        and (changed.verdict["ship"] is False) == (not kept)
    )


def refuses(error: type[TunesmithError]) -> type[TunesmithError]:
    return error


def groups_stay_together(plain: Run, changed: Run) -> bool:
    held = {row["gold"] for row in lines(changed.folder.predictions("validation"))}
    return rows_of("validation")(plain, changed) and bool(held)


def validation(run: Run) -> list[dict[str, Any]]:
    return lines(run.folder.predictions("validation"))


def answered_words(row: dict[str, Any]) -> int:
    return max((len(text.split()) for text in row["probabilities"]), default=0)


def longest_text(run: Run) -> int:
    return max(len(row["answer"]["text"].split()) for row in validation(run))


def writing(kind: str, decoder: bool = False, steps: int = 20) -> Callable[[Place], dict[str, Any]]:
    """A model that writes, trained so long that it writes anything."""
    return lambda place: {
        "model": str(place.decoder if decoder else place.writer),
        "data": {"train": str(place.folder / "pairs.jsonl")},
        "task": {"kind": kind},
        "train": {"steps": steps, "learning_rate": 1e-2, "evaluate_every": steps},
    }


def writing_rows(kind: str) -> dict[str, Row]:
    """The settings that both kinds of writing have."""
    name = f"task.{kind}"
    other, primary = ("translation", "rouge_l") if kind == "summarization" else ("summarization", "chrf")
    return {
        f"{name}.kind": Row(
            {"task": {"kind": kind}},
            lambda plain, changed: changed.scores["primary"] == primary != plain.scores["primary"],
            common=writing(other, steps=1),
        ),
        f"{name}.prompt": Row(
            {"task": {"prompt": "card fee {source} bank"}},
            lambda plain, changed: max(_tokens_a_row(changed)) > 3 + max(_tokens_a_row(plain)) - 1e-9,
            common=writing(kind, steps=1),
        ),
        f"{name}.longest_output": Row(
            {"task": {"longest_output": 1}},
            lambda plain, changed: longest_text(changed) == 1 < longest_text(plain),
            common=writing(kind, decoder=True, steps=30),
        ),
        f"{name}.beams": Row(
            {"task": {"beams": 4}},
            lambda plain, changed: (
                weights(plain, plain) == weights(plain, changed)
                and [row["answer"] for row in validation(plain)] != [row["answer"] for row in validation(changed)]
            ),
            common=writing(kind, decoder=True),
        ),
        f"{name}.watched_rows": Row(
            {"task": {"watched_rows": 2}},
            lambda plain, changed: (
                [row["rows"] for row in lines(changed.folder.evaluations)]
                == [2]
                != [row["rows"] for row in lines(plain.folder.evaluations)]
            ),
            common=writing(kind, steps=1),
        ),
    }


def low_rank_rows(kind: str) -> dict[str, Row]:
    """The settings that all kinds of low-rank updates have."""
    name, plain = f"method.{kind}", {"method": {"kind": kind, "rank": 2}}
    return {
        f"{name}.kind": Row(plain, manifest("parameters", "trainable")),
        f"{name}.rank": Row({"method": {"rank": 3}}, manifest("parameters", "trainable"), common=plain),
        f"{name}.alpha": Row({"method": {"alpha": 32}}, weights, common=plain),
        f"{name}.dropout": Row({"method": {"dropout": 0.5}}, weights, common=plain),
        f"{name}.target_modules": Row(
            {"method": {"target_modules": ["query"]}}, manifest("parameters", "trainable"), common=plain
        ),
        f"{name}.scaling": Row({"method": {"scaling": "rank-stabilised"}}, weights, common=plain),
        f"{name}.b_rate_factor": Row(
            {"method": {"b_rate_factor": 16}}, steps("learning_rate", [0.024, 0.048, 0.032, 0.016]), common=plain
        ),
    }


OWN = ("full", "last-layers", "gradual-unfreezing")
TUNING = (*OWN, "bitfit", "lora", "dora", "qlora", "ia3")
OPTIONS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("mixout", 0.5, OWN),
    ("l2_sp", 1.0, OWN),
    ("layer_decay", 2.0, TUNING),
    ("head_first", 1.0, TUNING),
]
"""What methods can be joined with, and which can."""

GRADUAL = {"method": {"kind": "gradual-unfreezing", "every": 0.2}}
LORA = {"method": {"kind": "lora", "rank": 2}}
HOULSBY = {"method": {"kind": "houlsby", "size": 4}}
PFEIFFER = {"method": {"kind": "pfeiffer", "size": 4}}
LAST = {"method": {"kind": "last-layers", "layers": 1}}
ABSENT = next(name for name, here in (("cuda", torch.cuda.is_available()), ("mps", False)) if not here)

TEXTS = {"kind": "text-classification"}
IMAGES = {"kind": "image-classification"}
UNCHANGED = {**IMAGES, "crop": 1, "flip": 0, "jitter": 0}


def on_images(**task: Any) -> Callable[[Place], dict[str, Any]]:
    """What a run on images has in place of a text's base and rows; `task` are its settings."""
    return lambda place: {
        "model": str(place.image_base),
        "data": {"train": str(place.folder / "pictures")},
        "task": {**UNCHANGED, **task},
    }


TRIPLETS = {"kind": "sentence-similarity", "target": "triplet"}


def compared(task: dict[str, Any]) -> Callable[[Place], dict[str, Any]]:
    return lambda place: {"data": {"train": str(place.folder / "triplets.jsonl")}, "task": task}


def hearing(as_base: bool = False) -> Callable[[Place], dict[str, Any]]:
    """A recipe with a teacher, who may be what it starts from, too."""
    return lambda place: {
        "teacher": {"model": str(place.teacher)},
        **({"model": str(place.teacher)} if as_base else {}),
    }


GAPS = {"kind": "language-modeling"}


def gaps(place: Place) -> dict[str, Any]:
    return {"task": GAPS, "method": "head", "data": {"train": str(place.folder / "strange.jsonl")}}


TABLE: dict[str, Row] = {
    "model": Row(lambda place: {"model": str(place.other_base)}, weights),
    "task.text-classification.kind": Row({"task": "no-such-task"}, refuses(RecipeError)),
    "task.text-classification.target": Row(
        {"task": {"kind": "text-classification", "target": "path"}},
        lambda plain, changed: (
            "hierarchical_f1" in changed.scores["validation"] and "hierarchical_f1" not in plain.scores
        ),
    ),
    "task.text-classification.class_weights": Row({"task": {**TEXTS, "class_weights": "balanced"}}, weights),
    "task.text-classification.label_smoothing": Row({"task": {**TEXTS, "label_smoothing": 0.3}}, weights),
    "task.text-classification.focal_gamma": Row({"task": {**TEXTS, "focal_gamma": 2.0}}, weights),
    "task.text-classification.threshold": Row(
        {"task": {"threshold": 0.625}},
        lambda plain, changed: (
            set(changed.scores["calibration"]["thresholds"])
            == {0.625}
            != set(plain.scores["calibration"]["thresholds"])
        ),
        common=lambda place: {"data": {"train": str(place.folder / "many.jsonl")}, "task": TEXTS},
    ),
    "task.token-classification.kind": Row(
        {"task": "token-classification"},
        lambda plain, changed: "entity_f1" in changed.scores["validation"] and "accuracy" in plain.scores["validation"],
        common=lambda place: {"data": {"train": str(place.folder / "entities.jsonl")}},
    ),
    "task.token-classification.target": Row(
        {"task": {"kind": "token-classification", "target": "spans"}},
        lambda plain, changed: (
            plain.card["learned"]["scheme"] == "IOBES" and changed.card["learned"]["scheme"] == "BIO"
        ),
        common=lambda place: {
            "data": {"train": str(place.folder / "entities.jsonl")},
            "task": {"kind": "token-classification"},
        },
    ),
    "task.question-answering.kind": Row(
        {"task": "question-answering"},
        lambda plain, changed: "answer_f1" in changed.scores["validation"] and "accuracy" in plain.scores["validation"],
        common=lambda place: {"data": {"train": str(place.folder / "questions.jsonl")}},
    ),
    "task.question-answering.longest_answer": Row(
        {"task": {"kind": "question-answering", "longest_answer": 1}},
        lambda plain, changed: (
            max(map(answered_words, validation(changed))) <= 1 < max(map(answered_words, validation(plain)))
        ),
        common=lambda place: {
            "data": {"train": str(place.folder / "questions.jsonl")},
            "task": {"kind": "question-answering"},
            "train": {"steps": 1, "learning_rate": 1e-6},
        },
    ),
    "task.sentence-similarity.kind": Row(
        {"task": "sentence-similarity"},
        lambda plain, changed: (
            "recall_at_1" in changed.scores["validation"] and "accuracy" in plain.scores["validation"]
        ),
        common=lambda place: {"data": {"train": str(place.folder / "triplets.jsonl")}},
    ),
    "task.sentence-similarity.target": Row(
        {"task": {**TRIPLETS, "target": "positive"}},
        weights,
        common=compared(TRIPLETS),
    ),
    "task.sentence-similarity.pooling": Row(
        {"task": {**TRIPLETS, "pooling": "cls"}}, weights, common=compared(TRIPLETS)
    ),
    "task.sentence-similarity.loss": Row({"task": {**TRIPLETS, "loss": "triplet"}}, weights, common=compared(TRIPLETS)),
    "task.sentence-similarity.temperature": Row(
        {"task": {**TRIPLETS, "temperature": 0.5}}, weights, common=compared(TRIPLETS)
    ),
    "task.sentence-similarity.margin": Row(
        {"task": {**TRIPLETS, "loss": "triplet", "margin": 1e-6}},
        weights,
        common=compared({**TRIPLETS, "loss": "triplet"}),
    ),
    "task.language-modeling.kind": Row(
        {"task": "language-modeling"},
        lambda plain, changed: (
            "perplexity" in changed.scores["validation"] and "accuracy" in plain.scores["validation"]
        ),
        common={"method": "head"},
    ),
    "task.language-modeling.objective": Row({"task": {**GAPS, "objective": "causal"}}, refuses(ModelError), gaps),
    "task.language-modeling.mask_share": Row({"task": {**GAPS, "mask_share": 0.5}}, weights, common=gaps),
    "task.language-modeling.mask_words": Row({"task": {**GAPS, "mask_words": True}}, weights, common=gaps),
    "task.language-modeling.add_tokens": Row(
        {"task": {**GAPS, "add_tokens": ["zyx", "qqq"]}},
        lambda plain, changed: len(changed.loaded.processor) == len(plain.loaded.processor) + 2,
        common=gaps,
    ),
    "stages": Row(lambda place: {"stages": [{"data": {"train": str(place.folder / "other.jsonl")}}]}, weights),
    **writing_rows("summarization"),
    **writing_rows("translation"),
    "task.translation.language": Row(
        {"task": {"language": "Klingon"}},
        lambda plain, changed: (
            changed.card["task"]["prompt"] == "{source}\n\nTranslate to Klingon:" != plain.card["task"]["prompt"]
        ),
        common=writing("translation", decoder=True, steps=1),
    ),
    "task.image-classification.kind": Row({"task": {"kind": "text-classification"}}, refuses(DataError), on_images()),
    "task.image-classification.target": Row(
        {"task": {**UNCHANGED, "target": "path"}},
        lambda plain, changed: (
            "hierarchical_f1" in changed.scores["validation"] and "hierarchical_f1" not in plain.scores["validation"]
        ),
        common=on_images(),
    ),
    "task.image-classification.class_weights": Row({"task": {"class_weights": "balanced"}}, weights, on_images()),
    "task.image-classification.label_smoothing": Row({"task": {"label_smoothing": 0.3}}, weights, on_images()),
    "task.image-classification.focal_gamma": Row({"task": {"focal_gamma": 2.0}}, weights, on_images()),
    "task.image-classification.threshold": Row(
        {"task": {"threshold": 0.625}},
        lambda plain, changed: (
            set(changed.scores["calibration"]["thresholds"])
            == {0.625}
            != set(plain.scores["calibration"]["thresholds"])
        ),
        common=lambda place: {
            **on_images()(place),
            "data": {"train": str(place.folder / "many-pictures.jsonl")},
        },
    ),
    "task.image-classification.crop": Row({"task": {"crop": 0.5}}, weights, on_images()),
    "task.image-classification.flip": Row({"task": {"flip": 0.5}}, weights, on_images()),
    "task.image-classification.jitter": Row({"task": {"jitter": 0.5}}, weights, on_images()),
    "task.image-classification.mix": Row({"task": {"mix": "cutmix"}}, weights, on_images(mix="mixup")),
    "task.image-classification.mix_alpha": Row({"task": {"mix_alpha": 2.0}}, weights, on_images(mix="mixup")),
    "data.train": Row(lambda place: {"data": {"train": str(place.folder / "other.jsonl")}}, rows_of("train")),
    "data.validation": Row({"data": {"validation": 0.4}}, rows_of("validation")),
    "data.test": Row(
        lambda place: {"data": {"test": str(place.folder / "other.jsonl")}},
        lambda plain, changed: changed.verdict["split"] == "test" != plain.verdict["split"],
    ),
    "data.general": Row(
        lambda place: {"data": {"general": str(place.folder / "other.jsonl")}},
        lambda plain, changed: changed.audits["forgetting"]["general"]["rows"] > 0 and "forgetting" not in plain.audits,
        common=gaps,
    ),
    "data.columns": Row({"data": {"columns": {"text": "twin"}}}, rows_of("train")),
    "data.group": Row({"data": {"group": "case"}}, groups_stay_together),
    "data.on_bad_row": Row(
        {"data": {"on_bad_row": "skip"}},
        lambda plain, changed: read_json(changed.folder.data)["skipped_rows"] == 1,
        common=lambda place: {"data": {"train": str(place.folder / "bad.jsonl")}},
    ),
    "data.limit": Row({"data": {"limit": 20}}, rows_of("train")),
    "data.keep_rows": Row(
        {"data": {"keep_rows": 5}},
        lambda plain, changed: len(lines(changed.folder.reservoir)) == 5 and not plain.folder.reservoir.exists(),
    ),
    "method.auto.kind": Row({"method": "auto"}, manifest("parameters", "trainable")),
    "method.full.kind": Row({"method": "full"}, manifest("parameters", "trainable"), common={"method": "head"}),
    "method.head.kind": Row({"method": "head"}, manifest("parameters", "trainable")),
    "method.last-layers.kind": Row(LAST, manifest("parameters", "trainable")),
    "method.last-layers.layers": Row({"method": {"layers": 2}}, manifest("parameters", "trainable"), common=LAST),
    "method.bitfit.kind": Row({"method": "bitfit"}, manifest("parameters", "trainable")),
    "method.gradual-unfreezing.kind": Row(GRADUAL, weights),
    "method.gradual-unfreezing.every": Row({"method": {"every": 0.1}}, weights, common=GRADUAL),
    "method.gradual-unfreezing.until": Row({"method": {"until": 0.5}}, weights, common=GRADUAL),
    **{
        f"method.{kind}.{name}": Row(
            {"method": {name: value}},
            weights,
            common=GRADUAL if kind == "gradual-unfreezing" else {"method": {"kind": kind}},
        )
        for name, value, kinds in OPTIONS
        for kind in kinds
    },
    "method.head_first.epochs": Row(
        {"method": {"head_first": {"epochs": 1.0}}}, weights, common={"method": {"kind": "full", "head_first": {}}}
    ),
    "method.head_first.learning_rate": Row(
        {"method": {"head_first": {"epochs": 1.0, "learning_rate": 1e-2}}},
        weights,
        common={"method": {"kind": "full", "head_first": {"epochs": 1.0}}},
    ),
    **low_rank_rows("lora"),
    **low_rank_rows("dora"),
    **low_rank_rows("qlora"),
    "method.prefix.kind": Row({"method": "prefix"}, manifest("parameters", "trainable")),
    "method.prefix.tokens": Row(
        {"method": {"tokens": 3}}, manifest("parameters", "trainable"), common={"method": {"kind": "prefix"}}
    ),
    "method.prompt.kind": Row({"method": "prompt"}, manifest("parameters", "trainable")),
    "method.prompt.tokens": Row(
        {"method": {"tokens": 3}}, manifest("parameters", "trainable"), common={"method": {"kind": "prompt"}}
    ),
    "method.ia3.kind": Row({"method": "ia3"}, manifest("parameters", "trainable")),
    "method.ia3.target_modules": Row(
        {"method": {"target_modules": ["value"]}},
        manifest("parameters", "trainable"),
        common={"method": {"kind": "ia3"}},
    ),
    "method.ia3.feedforward_modules": Row(
        {"method": {"feedforward_modules": []}}, manifest("parameters", "trainable"), common={"method": {"kind": "ia3"}}
    ),
    "method.houlsby.kind": Row(HOULSBY, manifest("parameters", "trainable")),
    "method.houlsby.layer_decay": Row({"method": {"layer_decay": 2.6}}, weights, common=HOULSBY),
    "method.houlsby.head_first": Row({"method": {"head_first": 1}}, weights, common=HOULSBY),
    "method.houlsby.size": Row({"method": {"size": 5}}, manifest("parameters", "trainable"), common=HOULSBY),
    "method.houlsby.activation": Row({"method": {"activation": "swish"}}, weights, common=HOULSBY),
    "method.houlsby.norms": Row({"method": {"norms": False}}, manifest("parameters", "trainable"), common=HOULSBY),
    "method.pfeiffer.kind": Row(PFEIFFER, manifest("parameters", "trainable")),
    "method.pfeiffer.layer_decay": Row({"method": {"layer_decay": 2.6}}, weights, common=PFEIFFER),
    "method.pfeiffer.head_first": Row({"method": {"head_first": 1}}, weights, common=PFEIFFER),
    "method.pfeiffer.size": Row({"method": {"size": 5}}, manifest("parameters", "trainable"), common=PFEIFFER),
    "method.pfeiffer.activation": Row({"method": {"activation": "swish"}}, weights, common=PFEIFFER),
    "method.pfeiffer.norms": Row({"method": {"norms": True}}, manifest("parameters", "trainable"), common=PFEIFFER),
    "train.epochs": Row(
        {"train": {"epochs": 2}},
        lambda plain, changed: (
            lines(changed.folder.steps)[-1]["epoch"] == 2.0 != lines(plain.folder.steps)[-1]["epoch"]
        ),
        common={"train": {"steps": None, "epochs": 1, "early_stopping_patience": None}},
    ),
    "train.steps": Row({"train": {"steps": 5}}, steps("step", [1, 2, 3, 4, 5])),
    "train.batch_size": Row({"train": {"batch_size": 5}}, steps("rows", [5, 5, 5, 5])),
    "train.learning_rate": Row(
        {"train": {"learning_rate": 1e-3}}, steps("learning_rate", [5e-4, 1e-3, 1e-3 * 2 / 3, 1e-3 / 3])
    ),
    "train.warmup_ratio": Row({"train": {"warmup_ratio": 0.5}}, steps("learning_rate", [1e-3, 2e-3, 3e-3, 1.5e-3])),
    "train.lr_scheduler": Row(
        {"train": {"lr_scheduler": "constant"}}, steps("learning_rate", [1.5e-3, 3e-3, 3e-3, 3e-3])
    ),
    "train.weight_decay": Row({"train": {"weight_decay": 0.5}}, weights),
    "train.dropout": Row({"train": {"dropout": 0.0}}, weights),
    "train.ema": Row({"train": {"ema": 0.5}}, weights),
    "train.max_grad_norm": Row({"train": {"max_grad_norm": 0.01}}, weights),
    "train.precision": Row({"train": {"precision": "fp64"}}, manifest("precision", equals="fp64")),
    "train.early_stopping_patience": Row(
        {"train": {"early_stopping_patience": 1}},
        lambda plain, changed: (
            changed.manifest["ended"].startswith("early stopping")
            and len(lines(changed.folder.steps)) == 2
            and plain.manifest["ended"] == "all steps done"
        ),
        common={"train": {"learning_rate": 1e-9, "evaluate_every": 1, "steps": 3}},
    ),
    "train.max_length": Row(
        {"train": {"max_length": 4}},
        lambda plain, changed: max(_tokens_a_row(changed)) <= 4 < min(_tokens_a_row(plain)),
    ),
    "train.evaluate_every": Row({"train": {"evaluate_every": 1}}, evaluations([1, 2, 3, 4])),
    "train.checkpoint_every": Row(
        {"train": {"checkpoint_every": 3}},
        lambda plain, changed: "3" in kept_steps(changed) and "3" not in kept_steps(plain),
    ),
    "train.long_text": Row({"train": {"long_text": "head_tail"}}, weights, common={"train": {"max_length": 8}}),
    "train.rewrites": Row({"train": {"rewrites": "off"}}, manifest("rewrites", equals=[])),
    "train.refit": Row(
        {"train": {"refit": True}},
        lambda plain, changed: {row["phase"] for row in lines(changed.folder.steps)} == {"fit", "refit"},
    ),
    "judge.primary": Row(
        {"judge": {"primary": "macro_f1"}},
        lambda plain, changed: (plain.scores["primary"], changed.scores["primary"]) == ("accuracy", "macro_f1"),
    ),
    "judge.min_gain": Row(
        {"judge": {"min_gain": -1}},
        lambda plain, changed: (plain.verdict["ship"], changed.verdict["ship"]) == (False, True),
        common={"judge": {"baselines": ["majority"], "min_gain": 1}},
    ),
    "judge.baselines": Row(
        {"judge": {"baselines": ["tfidf", "majority"]}},
        lambda plain, changed: (
            set(changed.scores["baselines"]) == {"tfidf", "majority"} and not plain.scores["baselines"]
        ),
    ),
    "judge.slices": Row(
        {"judge": {"slices": ["case"]}},
        lambda plain, changed: (
            {value["rows"] for value in changed.scores["slices"]["case"].values()} and not plain.scores["slices"]
        ),
    ),
    "deploy.latency_ms": Row({"deploy": {"latency_ms": 1e-6}}, budget("deploy.latency_ms", kept=False)),
    "deploy.memory_mb": Row({"deploy": {"memory_mb": 10**9}}, budget("deploy.memory_mb", kept=True)),
    "machine.device": Row({"machine": {"device": ABSENT}}, refuses(RecipeError)),
    "machine.threads": Row({"machine": {"threads": 2}}, manifest("threads", equals=2)),
    "machine.micro_batch_tokens": Row({"machine": {"micro_batch_tokens": 1}}, weights),  # dropout is on
    "teacher": Row(lambda place: hearing()(place), weights),
    "teacher.model": Row(lambda place: {"teacher": {"model": str(place.other_teacher)}}, weights, hearing()),
    "teacher.temperature": Row({"teacher": {"temperature": 8}}, weights, hearing()),
    "teacher.alpha": Row({"teacher": {"alpha": 0.9}}, weights, hearing()),
    "teacher.hidden": Row({"teacher": {"hidden": 2.0}}, weights, hearing()),
    "teacher.layers": Row({"teacher": {"layers": 2}}, manifest("parameters", "total"), hearing(as_base=True)),
    "seed": Row({"seed": 1}, weights),
    "output": Row(
        lambda place: {"output": str(place.folder / "elsewhere")},
        lambda plain, changed: changed.folder.path.name == "elsewhere" and changed.folder.verdict.exists(),
    ),
}

ELSEWHERE = {
    "machine.processes": "test_processes_are_started",
    "machine.sharding": "test_two_processes_with_parts_are_one",
    "track": "test_a_tracker_is_started",
    "rehearsal": "test_law_several", "rehearsal.runs": "test_a_third_task_takes_the_heads",
    "rehearsal.head": "test_the_answer_is_a_share_of_all_labels",
    "rehearsal.ewc": "test_elastic_weights_pull_at_the_body",
    "rehearsal.share": "test_rehearsal_moves_the_earlier_head",
}  # fmt: skip
"""Settings that a run in one process cannot show, and the test that does."""


def _last_epoch(run: Run) -> float:
    return float(lines(run.folder.steps)[-1]["epoch"])


def _tokens_a_row(run: Run) -> list[float]:
    return [row["tokens"] / row["rows"] for row in lines(run.folder.steps)]


SHARED: dict[type[BaseModel], tuple[str, ...]] = {HeadFirst: ("method", "head_first")}
"""Pages that several kinds take: they stand here once, and each kind's setting that takes one has a row besides."""


def settings_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every setting that a recipe can hold, as a dotted path; settings of a kind stand under the kind's name."""
    for name, info in model.model_fields.items():
        parts = _parts(info.annotation)
        pages = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if not pages or types.NoneType in parts:
            yield ".".join((*path, name))
        for page in pages:
            if page in SHARED:
                yield from settings_of(page, SHARED[page])
                continue
            kind = page.model_fields["kind"].default if "kind" in page.model_fields else None
            yield from settings_of(page, (*path, name, kind) if kind else (*path, name))


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for inner in get_args(annotation) for part in _parts(inner)]
    return [annotation]


@pytest.fixture(scope="module")
def place(bases: Callable[..., Path], writers: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Files of rows: train, other, and bad (its second row has no text); `twin` is a second text, `case` a group."""
    folder = tmp_path_factory.mktemp("settings")
    for name, seed in (("train", 0), ("other", 9)):
        rows = tiny.make_rows(40, seed=seed)
        rows = [{**row, "twin": f"{row['text']} please", "case": str(i // 4)} for i, row in enumerate(rows)]
        tiny.write_rows(folder / f"{name}.jsonl", rows)
    tiny.write_rows(
        folder / "triplets.jsonl",
        [{**pair, "text": pair["anchor"], "label": "ab"[i % 2]} for i, pair in enumerate(tiny.make_triplets(40))],
    )
    tiny.write_rows(folder / "strange.jsonl", [{"text": f"{row['text']} zyxwv abcde"} for row in rows])
    many = [{"text": row["text"], "labels": [row["label"]][: i % 3]} for i, row in enumerate(rows)]
    tiny.write_rows(folder / "many.jsonl", many)
    entities = [
        {
            "tokens": ["my", "card", str(i), *row["text"].split()],
            "tags": ["O", "S-THING", "O", *["O"] * len(row["text"].split())],
            "text": f"my card {i} {row['text']}",
            "spans": [{"start": 3, "end": 7, "label": "THING"}],
            "label": row["label"],
        }
        for i, row in enumerate(rows)
    ]
    tiny.write_rows(folder / "entities.jsonl", entities)
    questions = [
        {
            **row,
            "answers": [{"text": text} for text in row["answers"]["texts"]],
            "label": tiny.LABELS[i % 2],
            "text": str(i),
        }
        for i, row in enumerate(tiny.make_questions(40))
    ]
    tiny.write_rows(folder / "questions.jsonl", questions)
    tiny.write_rows(folder / "bad.jsonl", [rows[0], {**rows[1], "text": None}, *rows[2:]])
    tiny.write_rows(folder / "pairs.jsonl", tiny.make_reversals(40))
    pictures = tiny.make_pictures(folder / "pictures", 40)
    many_pictures = [
        {"image": str(path.relative_to(folder)), "labels": [path.parent.name][: i % 3]}
        for i, path in enumerate(pictures)
    ]
    tiny.write_rows(folder / "many-pictures.jsonl", many_pictures)
    teachers = [folder / f"teacher-{seed}" for seed in (0, 7)]
    for seed, teacher in zip((0, 7), teachers, strict=True):
        run_tiny(bases("bert", seed=seed), folder / "train.jsonl", teacher, train={"steps": 4})
    models = (writers("bart"), writers("llama"), bases("vit", dropout=0.0))
    return Place(bases("bert"), bases("bert", seed=7), folder, *models, *teachers)


@pytest.fixture(scope="module")
def runs(place: Place) -> Callable[[dict[str, Any]], Run]:
    """A run of the plain recipe with sections changed; made once for each change."""
    made: dict[str, Run] = {}

    def run(sections: dict[str, Any]) -> Run:
        key = repr(sections)
        if key not in made:
            output = Path(sections.get("output", place.folder / f"run-{len(made)}"))
            rest = {name: value for name, value in sections.items() if name != "output"}
            base = Path(str(rest.pop("model", place.base)))
            made[key] = run_tiny(base, place.train, output, **rest)
        return made[key]

    return run


def joined(*changes: dict[str, Any]) -> dict[str, Any]:
    """Sections of several changes, the later over the earlier, setting by setting."""
    whole: dict[str, Any] = {}
    for change in changes:
        for name, value in change.items():
            both = isinstance(value, dict) and isinstance(whole.get(name), dict)
            whole[name] = {**whole[name], **value} if both else value
    return whole


def test_every_setting_has_a_row() -> None:
    """A setting enters the schema with a row here, or not at all."""
    assert sorted(set(settings_of(Recipe))) == sorted({*TABLE, *ELSEWHERE})


@pytest.mark.parametrize("name", TABLE)
def test_setting_acts(
    name: str, place: Place, runs: Callable[[dict[str, Any]], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting changed and all else equal, the run is different in the way the setting says."""
    if name == "deploy.memory_mb":  # measured, in a process of its own, in tests/commands/test_budgets.py
        monkeypatch.setattr("tunesmith.footprint.measure", lambda *given: {"inference_memory_bytes": 10**8})
    if ".qlora." in name and not find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is not installed")
    row = TABLE[name]
    common = row.common(place) if callable(row.common) else row.common
    change = row.change(place) if callable(row.change) else row.change
    if isinstance(row.acts, type):
        with pytest.raises((row.acts, ValueError)):
            runs(joined(PLAIN, common, change))
        return
    if name == "data.on_bad_row":
        with pytest.raises(DataError, match="1 bad rows"):
            runs(joined(PLAIN, common))
        assert row.acts(runs(PLAIN), runs(joined(PLAIN, common, change)))
        return
    assert row.acts(runs(joined(PLAIN, common)), runs(joined(PLAIN, common, change)))


IDLE = {"label": {"threshold"}, "path": {"threshold"}, "labels": set()}


@pytest.mark.parametrize("target", TextClassification.TARGETS)
def test_a_setting_of_the_task_that_does_nothing_for_the_target_is_refused(target: str) -> None:
    changed = {"class_weights": "balanced", "label_smoothing": 0.1, "focal_gamma": 1.0, "threshold": 0.5}
    assert changed.keys() == TextClassification.model_fields.keys() - {"kind", "target"}
    idle = IDLE.get(target, set(changed))
    for name, value in changed.items():
        faults = [str(fault) for fault in TextClassification.model_validate({"target": target, name: value}).idle()]
        assert len(faults) == (name in idle)
        assert all(f"task.{name}" in fault and f"target is {target};" in fault for fault in faults)
    assert not list(TextClassification.model_validate({"target": target}).idle())


def test_it_is_refused_when_the_columns_have_settled_the_target(place: Place) -> None:
    recipe = recipe_of(place.base, place.train, place.folder / "idle", task={**TEXTS, "threshold": 0.5})
    with pytest.raises(RecipeError, match=r"task\.threshold: does nothing where the target is label; leave it out"):
        check(recipe)


def test_a_group_never_straddles_in_a_run(place: Place) -> None:
    """`data.group` in a whole run: no case is in both splits."""
    from tunesmith.data.loading import load_splits

    recipe = recipe_of(place.base, place.train, place.folder / "x", data={"group": "case"})
    splits = load_splits(recipe.data, recipe.task.columns)
    assert not {row["case"] for row in splits.train} & {row["case"] for row in splits.validation}


def test_processes_are_started(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command starts as many processes as the recipe says (that two equal one is a law of its own)."""
    from tunesmith import cli, launch

    started: list[int] = []
    monkeypatch.setattr(launch, "start", lambda processes, arguments: started.append(processes) or 0)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    from tunesmith.recipe.reading import write_recipe

    file = place.folder / "two.yaml"
    write_recipe(recipe_of(place.base, place.train, place.folder / "two", machine={"processes": 2}), file)
    monkeypatch.setattr("sys.argv", ["tunesmith", "run", str(file)])
    assert cli._run(debug=True) == 0
    assert started == [2]


def test_a_tracker_is_started(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run starts every tracker that the recipe names, on its own folder (what they do then: tests/trackers)."""
    from tunesmith import trackers

    started: list[tuple[str, Path]] = []

    def no_memory(name: str, folder: RunFolder) -> None:
        started.append((name, folder.path))
        raise OSError

    monkeypatch.setattr(trackers, "start", no_memory)
    monkeypatch.setattr(trackers, "find_spec", lambda name: types.SimpleNamespace(origin=name))
    output = place.folder / "tracked"
    assert run_tiny(place.base, place.train, output, train={"steps": 1}, track=["wandb", "mlflow"]).verdict
    assert started == [("wandb", output), ("mlflow", output)]


def test_processes_are_not_ignored_by_the_python_call(place: Place) -> None:
    """A recipe for two processes never trains in one without a word."""
    recipe = recipe_of(place.base, place.train, place.folder / "alone", machine={"processes": 2})
    from tunesmith.run import run

    with pytest.raises(TunesmithError, match="processes"):
        run(recipe)


@pytest.mark.parametrize(
    ("told", "processes", "expected"),
    [(None, 1, 4), ("3", 1, 3), ("4,2", 1, 4), ("1", 2, 2)],
    ids=["the cores", "as told", "a word of another kind", "a launcher's word is not the user's"],
)
def test_threads_that_nobody_named(
    monkeypatch: pytest.MonkeyPatch, told: str | None, processes: int, expected: int
) -> None:
    from tunesmith.devices import choose_devices

    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(4)), raising=False)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert choose_devices(Machine(device="cpu"), "fp32").threads == expected


@pytest.mark.parametrize(
    ("can", "by_amd", "gains"),
    [
        ({"avx512_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),
        ({"avx512_bf16": True, "amx_bf16": True}, False, True),
        ({"bf16": True}, False, True),
        ({"avx2": True}, True, False),
    ],
)
def test_bf16_is_chosen_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, can: dict[str, bool], by_amd: bool, gains: bool
) -> None:
    """Which CPUs gain was measured; `auto` goes by what a CPU says of itself."""
    from tunesmith import devices

    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: can)
    monkeypatch.setattr(devices, "is_by_amd", lambda: by_amd)
    assert devices.choose_devices(Machine(device="cpu"), "auto").precision == ("bf16" if gains else "fp32")
