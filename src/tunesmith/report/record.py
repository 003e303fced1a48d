"""Everything that a finished run folder says, read once. Card, paper and page are all made from this."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith.folder import RunFolder
from tunesmith.recipe import Recipe
from tunesmith.recipe.reading import read_single

Score = dict[str, float]
"""{"value", "low", "high"}: the estimate and its 95 % interval."""

_FOLDER = r"""[^\s/:;,]+(?: +[^\s/:;,'"][^\s/:;,]*)*/"""
"""A folder's name may be of several words: where a slash follows them, they are one."""
_ABSOLUTE_PATH = re.compile(rf"(?<![\w./:<])/(?:{_FOLDER})+(?=[^\s/:;,])")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Record:
    """A run folder in memory. Field names are the folder's own file names."""

    name: str
    recipe: Recipe
    manifest: dict[str, Any]
    notes: list[dict[str, Any]]
    data: dict[str, Any]
    scores: dict[str, Any]
    verdict: dict[str, Any]
    audits: dict[str, Any]
    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    looks: list[dict[str, Any]]

    @property
    def primary(self) -> str:
        return str(self.scores["primary"])

    @property
    def split(self) -> str:
        """The split that was judged: "test", or "validation" where there is no test."""
        return str(self.scores["judged_on"])

    @property
    def judged(self) -> dict[str, Score]:
        """The tuned model's scores on the judged split."""
        return self.scores[self.split]

    @property
    def baselines(self) -> dict[str, dict[str, Score]]:
        return self.scores["baselines"]

    @property
    def judged_rows(self) -> int:
        return int(self.data["splits"][self.split]["rows"])

    @property
    def skipped_rows(self) -> int:
        """How many bad rows were left out. Runs of older versions tell only the first hundred."""
        return int(self.data.get("skipped_rows", len(self.data.get("skipped", []))))

    @property
    def cost(self) -> dict[str, float]:
        return self.audits["cost"]

    @property
    def general(self) -> dict[str, Any] | None:
        """How well texts of the language at large are known (see `audits.forgetting`); None where none were named."""
        found: dict[str, Any] | None = self.audits.get("forgetting", {}).get("general")
        return found

    @property
    def method(self) -> str:
        return self.recipe.method.kind

    @property
    def target(self) -> str:
        """What is learned. Runs of older versions do not say it: they knew one label only."""
        return str(self.data.get("target", "label"))

    @property
    def is_adapter(self) -> bool:
        """Whether `model/` holds an adapter that needs its base, rather than a whole model."""
        return bool(self.recipe.method.facts.is_adapter)

    @property
    def is_of_peft(self) -> bool:
        """Whether it is an adapter in PEFT's format."""
        return any(name.startswith("adapter_model") for name in self.manifest["model_sha256"])

    @property
    def hub_base(self) -> str | None:
        """The base's hub id without its revision, if the base came from the hub."""
        name = str(self.manifest["base"]["reference"]).partition("@")[0]
        from_hub = self.manifest["base"]["revision"] is not None and _HUB_NAME.fullmatch(name)
        return name if from_hub else None

    @property
    def base_name(self) -> str:
        """The base as a reader elsewhere can understand it: paths of this machine are cut to their last part."""
        reference = str(self.manifest["base"]["reference"])
        if self.hub_base or reference.startswith("package:"):
            return reference.partition("@")[0]
        return Path(reference).name

    @property
    def part_of(self) -> dict[str, Any]:
        """What this run is a part of, if it is one of several tasks or an earlier one (see docs/run-folder.md)."""
        return self.manifest.get("part_of", {})

    @property
    def again(self) -> str:
        """The command, given in this folder, that makes the run once more."""
        whole = f"{self.part_of['folder']}/" if self.part_of else ""
        return f"tunesmith run {whole}recipe.yaml --set output={whole}../again"

    @property
    def last_step(self) -> int:
        """The last step that was trained before the best was taken."""
        return max((row["step"] for row in self.phase("fit")), default=0)

    def phase(self, name: str) -> list[dict[str, Any]]:
        """The recorded steps of "fit" or "refit", in order."""
        return [row for row in self.steps if row["phase"] == name]

    @cached_property
    def classifies(self) -> bool:
        """Whether each answer is one class, so that it can be taken for another."""
        return all(isinstance(row[side], str) for row in self.predictions for side in ("answer", "gold"))

    @property
    def has_spans(self) -> bool:
        """Whether an answer is any number of spans of the text."""
        return self.recipe.task.kind == "token-classification"

    @property
    def has_answers(self) -> bool:
        """Whether an answer is a piece of a text."""
        return self.recipe.task.kind == "question-answering"

    @property
    def compares(self) -> bool:
        """Whether texts are compared by their vectors."""
        return self.recipe.task.kind == "sentence-similarity"

    @property
    def has_texts(self) -> bool:
        """Whether an answer is a text that the model wrote."""
        return self.target == "text"

    @property
    def has_images(self) -> bool:
        """Whether a row is an image."""
        return self.recipe.task.kind == "image-classification"

    @property
    def reads_tokens(self) -> bool:
        """Whether rows have tokens, so that they can be too long."""
        return self.data["max_length"] is not None

    @property
    def part(self) -> str:
        """What an answer consists of where it is no single class."""
        return "span" if self.has_spans else "label"

    @cached_property
    def has_label_sets(self) -> bool:
        """Whether an answer is any number of labels."""
        lists = all(isinstance(row[side], list) for row in self.predictions for side in ("answer", "gold"))
        return lists and not self.has_spans

    @cached_property
    def has_classes(self) -> bool:
        """Whether answers are made of classes, so that a score for each means something."""
        lists = all(isinstance(row[side], str | list) for row in self.predictions for side in ("answer", "gold"))
        return lists and not self.has_answers


def read_record(folder: RunFolder) -> Record:
    """Read a run folder whose scores and verdict are written.

    Raises:
        CheckpointError: one of its files is missing or damaged.
    """
    scores = folders.read_json(folder.scores)
    return Record(
        name=folder.path.absolute().name,
        recipe=read_single(folder.recipe),
        manifest=folders.read_json(folder.manifest),
        notes=folders.read_json(folder.check),
        data=folders.read_json(folder.data),
        scores=scores,
        verdict=folders.read_json(folder.verdict),
        audits=folders.read_json(folder.audits),
        steps=folders.lines(folder.steps),
        evaluations=folders.lines(folder.evaluations),
        predictions=folders.lines(folder.predictions(scores["judged_on"])),
        looks=folders.lines(folder.looks),
    )


def without_folders(text: str) -> str:
    """Text in which absolute paths are cut to their last part: a report that is passed on names no home folders."""
    return _ABSOLUTE_PATH.sub("", text)
