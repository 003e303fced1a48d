"""Where a run keeps earlier tasks in mind: they are read, ride along, and are judged again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith.audits import continual
from tunesmith.checkpoints import Progress
from tunesmith.data.loading import hash_of
from tunesmith.data.mixing import MixedOrder, quotas_beside
from tunesmith.errors import DataError, ModelError
from tunesmith.fitting import Fit, Voice
from tunesmith.folder import RunFolder
from tunesmith.importance import Importance, importance_of, summed
from tunesmith.judging import read_predictions
from tunesmith.keeping import open_folder
from tunesmith.methods.consolidation import Consolidated, Elastic
from tunesmith.models.joint import has_body_of
from tunesmith.open import Run
from tunesmith.preflight import Note
from tunesmith.preparing import Work, prepare
from tunesmith.recipe import Recipe, Rehearsal
from tunesmith.recipe.reading import read_single
from tunesmith.recipe.rehearsal import OWN, REHEARSED, name_of
from tunesmith.several import finish
from tunesmith.tasks.contract import Example
from tunesmith.tasks.metrics import Measure
from tunesmith.together import Together, course_of, join_works, note_first_rows, order_of, stand_alone

IMPORTANCE_ROWS = 200
"""Of how many training rows of an earlier task the importance of weights is the mean."""

EARLIER = "earlier"
"""Where in a run folder earlier tasks stand, each a run folder of its own."""


@dataclass
class Memory:
    """The earlier tasks of a run."""

    own: Work
    works: dict[str, Work]
    order: MixedOrder | None
    """In which rows are taken; None: as without earlier tasks."""

    def join(self) -> Together:
        """One model for the run's own task and the earlier ones, around the own one's body; what matters to these held
        where it is, if the recipe says so."""
        together = join_works(self._all)
        if self._settings.ewc > 0:
            importance = summed([self._importance(name, together) for name in self.works])
            elastic = Elastic.of(together.loaded, self._settings.ewc, importance)
            together.method = Consolidated(together.method, elastic)
        return together

    def _importance(self, name: str, together: Together) -> Importance:
        """How much each weight of the common body matters to an earlier task, by its name in the joint model."""
        work, view = self.works[name], together.view(name)
        found = importance_of(view, work.task, work.examples["train"], work.devices, IMPORTANCE_ROWS)
        names = {id(weight): place for place, weight in together.loaded.model.named_parameters()}
        weights = dict(view.model.named_parameters())
        return {names[id(weights[place])]: matters for place, matters in found.items()}

    def examples(self, together: Together) -> list[Example]:
        """The training rows of all tasks, the own one's first; its own alone where no others are taken."""
        if self.order is None:
            marked: list[Example] = together.task.marked(OWN, self.own.examples["train"])
            return marked
        return together.examples({name: work.examples["train"] for name, work in self._all.items()})

    @property
    def _all(self) -> dict[str, Work]:
        return {OWN: self.own, **self.works}

    @property
    def _settings(self) -> Rehearsal:
        assert self.own.recipe.rehearsal is not None
        return self.own.recipe.rehearsal

    def hashes(self) -> dict[str, str]:
        """SHA-256 of everything that earlier tasks bring along: where they begin, and their rows."""
        found: dict[str, str] = {}
        for name, work in self.works.items():
            found |= {f"rehearsal.{name}.model.{file}": digest for file, digest in work.base.hashes().items()}
            found |= {f"rehearsal.{name}.{split}": digest for split, digest in work.splits.files.items()}
        return found

    def judge(self, together: Together, folder: RunFolder, fit: Fit, progress: Progress) -> None:
        """Judge every earlier task as it is done now, in a run folder of its own."""
        for name, work in self.works.items():
            fit.voice.stage(f"judging {name}")
            place = RunFolder(work.recipe.output)
            record = open_folder(work, place, Voice(), part_of=self._part_of(name))
            if record["finished"]:
                continue
            stand_alone(work, together.view(name))
            folders.write_lines(place.steps, folders.lines(folder.steps))
            finish(work, place, record, {}, fit, progress)
        self._weigh(folder)

    def _part_of(self, name: str) -> dict[str, Any]:
        """What an earlier task's manifest says of the run that it is a part of."""
        place = 1 + list(self.works).index(name)
        taken = self.order.quotas[place] if self.order else 0
        total = self.order.rows_per_epoch if self.order else len(self.own.examples["train"])
        own = Path(self.own.recipe.output).name
        return {"folder": "../..", "as": "earlier", "beside": [own], "rows": taken, "rows_per_epoch": total}

    def _weigh(self, folder: RunFolder) -> None:
        """Scores over tasks and time: what this run and those before it have found."""
        works = [*self.works.values(), self.own]
        names = [*self.works, folder.path.absolute().name]
        times = [*map(RunFolder, self._settings.runs), folder]
        matrix = []
        for learned, (name, work) in enumerate(zip(names, works, strict=True)):
            places = [
                None if time < learned else at if time == learned else RunFolder(at / EARLIER / name)
                for time, at in enumerate(times)
            ]
            matrix.append([_measure(work, place) for place in places])
        metrics = [work.recipe.judge.primary for work in works]
        found = continual.summarise(names, names, metrics, matrix)
        folders.write_json(folder.audits, {**folders.read_json(folder.audits), "continual": found})


def remember(recipe: Recipe, own: Work, voice: Voice) -> Memory:
    """Read and encode the earlier tasks' rows. The own work's steps are those of the mixed epochs from now on.

    Args:
        recipe: as it was given, before any `auto` was worked out.

    Raises:
        ModelError: an earlier run is not there, or is of a kind that cannot be rehearsed.
        DataError: its rows are no longer those that it was trained on.
    """
    assert recipe.rehearsal is not None
    works = {}
    for run in recipe.rehearsal.runs:
        name = name_of(run)
        voice.say(f"== earlier task {name}")
        works[name] = _prepare(Run(run), _recipe_of(own.recipe, Run(run), name), own, voice)
        if not has_body_of(own.loaded.model, works[name].loaded.model):
            _tell_other_body(own, run, name)
    order = _order_of(own, works)
    if order is not None:
        note_first_rows([own, *works.values()], order)
    else:
        for work in works.values():
            work.first_rows = []
    course = course_of(recipe.train, order) if order else {"steps": own.steps}
    for work in (own, *works.values()) if order else works.values():
        work.recipe = work.recipe.but(train=work.recipe.train.but(**course))
    return Memory(own, works, order)


def _tell_other_body(own: Work, run: str, name: str) -> None:
    """An earlier task's head was learned on another body than this training begins from: what came in between counts
    as forgotten, too. What is saved beside its base cannot be saved so.

    Raises:
        ModelError: the method saves an adapter, whose base would be the wrong one.
    """
    message = f"{name}: its head was learned on another body than that of {own.recipe.model}"
    remedy = "begin from the last run, and rehearse earlier ones in each run of a chain, so that their heads ride along"
    if own.recipe.method.facts.is_adapter:
        raise ModelError(f"rehearsal.runs: {message}, and {own.recipe.method.kind} saves no body", run, remedy)
    message = f"{message}: what it lost before this training counts as forgotten, too"
    own.notes.append(Note("other-body", "warn", message, run, remedy))


def _measure(work: Work, place: RunFolder | None) -> Measure | None:
    """A task's primary metric as a run folder has it; None where there is none, or of other rows."""
    if place is None or not place.scores.exists():
        return None
    predictions = read_predictions(place, folders.read_json(place.scores)["judged_on"])
    judged = len(work.splits.test or work.splits.validation)
    return work.task.measures(predictions)[work.recipe.judge.primary] if len(predictions) == judged else None


def _order_of(own: Work, works: Mapping[str, Work]) -> MixedOrder | None:
    assert own.recipe.rehearsal is not None
    sizes = [len(work.examples["train"]) for work in (own, *works.values())]
    quotas = quotas_beside(sizes[0], sizes[1:], own.recipe.rehearsal.share)
    return order_of(own.recipe, sizes, quotas) if any(quotas[1:]) else None


def read_earlier(run: str) -> Recipe:
    """The recipe of an earlier run.

    Raises:
        ModelError: it is not there, not finished, or not of a kind that can be rehearsed.
    """
    folder, remedy = RunFolder(run), "name a finished run folder"
    if not folder.exists:
        raise ModelError(f"rehearsal.runs: {run}: no run in this folder", remedy=remedy)
    was = read_single(folder.recipe)
    if not folders.read_json(folder.manifest)["finished"]:
        raise ModelError(f"rehearsal.runs: {run}: this run is not finished", remedy=f"`tunesmith resume {run}`")
    if not was.method.facts.is_base:
        message = f"rehearsal.runs: {run}: a run by {was.method.kind}, which no other training can begin from"
        raise ModelError(message, remedy="leave it out; runs by full, lora and others that can be merged are rehearsed")
    if was.task.kind not in REHEARSED:
        remedy = f"leave it out; those that can be rehearsed are {', '.join(REHEARSED)}"
        raise ModelError(f"rehearsal.runs: {run}: a run for {was.task.kind}", remedy=remedy)
    return was


def _recipe_of(own: Recipe, run: Run, name: str) -> Recipe:
    """An earlier task as part of this run: its own task, rows and limit, this run's method and course."""
    was = read_earlier(str(run.folder.path))
    limits = {"max_length": was.train.max_length, "long_text": was.train.long_text}
    return own.but(
        model=_newest(own, run, name),
        task=was.task,
        data=was.data,
        method=_without_head_first(own.method),
        train=own.train.but(**limits, rewrites="off"),
        judge=was.judge.but(baselines="off", slices=[]),
        deploy=type(own.deploy)(),
        rehearsal=None,
        track=[],
        output=os.path.join(own.output, EARLIER, name),
    )


def _without_head_first(method: Any) -> Any:
    """The method for an earlier task, whose head has learned."""
    return method.but(head_first=None) if getattr(method, "head_first", None) else method


def _newest(own: Recipe, run: Run, name: str) -> str:
    """Where an earlier task's head stands now: beside the run that this one starts from, if it rode along there."""
    began = Path(own.model)
    beside = (began.parent if began.name == "model" else began) / EARLIER / name
    return str(beside if (beside / folders.RunFolder(beside).recipe.name).exists() else run.folder.path)


def _prepare(run: Run, recipe: Recipe, own: Work, voice: Voice) -> Work:
    work = prepare(recipe, own.devices, voice)
    was = run.manifest["data"]
    for split, rows in work.splits.named().items():
        if split in was and hash_of(rows, work.recipe.task.columns) != was[split]["rows_sha256"]:
            remedy = "put back the files that it was trained on, or leave the run out"
            raise DataError(f"its {split} rows are no longer those of this run", str(run.folder.path), remedy)
    return work
