"""Where a run keeps earlier tasks in mind: they are read, ride along, and are judged again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith.audits import continual
from tunesmith.checkpoints import Progress
from tunesmith.data.mixing import MixedOrder, quotas_beside
from tunesmith.data.splits import overlap
from tunesmith.earlier_runs import Recalled, read_earlier, recall
from tunesmith.errors import ModelError
from tunesmith.fitting import Fit, Voice
from tunesmith.folder import RunFolder
from tunesmith.growing import has_one_head
from tunesmith.importance import Importance, importance_of, summed
from tunesmith.judging import read_predictions
from tunesmith.keeping import open_folder
from tunesmith.methods.consolidation import Consolidated, Elastic
from tunesmith.models.joint import has_body_of
from tunesmith.models.references import find_base
from tunesmith.preflight import Note
from tunesmith.preparing import Start, Work, encode, settle
from tunesmith.recipe import Data, Recipe, Rehearsal
from tunesmith.recipe.rehearsal import OWN, name_of
from tunesmith.several import finish, keep_unjudged
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

    unjudged: frozenset[str]
    """Earlier tasks whose judged rows are gone."""

    def join(self) -> Together:
        """One model for the run's own task and the earlier ones: the own one's where they have one head, else each with
        its head around the own one's body; what matters to these held where it is, if the recipe says so."""
        own = self.own
        together = Together(own.loaded, own.method, own.task) if self._has_one_head else join_works(self._all)
        if self._settings.ewc > 0:
            importance = summed([self._importance(name, together) for name in self.works])
            elastic = Elastic.of(together.loaded, self._settings.ewc, importance)
            together.method = Consolidated(together.method, elastic)
        return together

    def take_apart(self, together: Together, name: str = OWN) -> None:
        """Give a task a model of its own again, where it has a head of its own."""
        if not self._has_one_head:
            stand_alone(self._all[name], together.view(name))

    def _importance(self, name: str, together: Together) -> Importance:
        """How much each weight of the common body matters to an earlier task, by its name in the joint model."""
        work = self.works[name]
        if self._has_one_head:
            return importance_of(work.loaded, work.task, work.examples["train"], work.devices, IMPORTANCE_ROWS)
        view = together.view(name)
        found = importance_of(view, work.task, work.examples["train"], work.devices, IMPORTANCE_ROWS)
        names = {id(weight): place for place, weight in together.loaded.model.named_parameters()}
        weights = dict(view.model.named_parameters())
        return {names[id(weights[place])]: matters for place, matters in found.items()}

    def examples(self, together: Together) -> list[Example]:
        """The training rows of all tasks, the own one's first; its own alone where no others are taken."""
        if self._has_one_head:
            works = [self.own, *(self.works.values() if self.order else ())]
            return [example for work in works for example in work.examples["train"]]
        if self.order is None:
            marked: list[Example] = together.task.marked(OWN, self.own.examples["train"])
            return marked
        return together.examples({name: work.examples["train"] for name, work in self._all.items()})

    @property
    def _all(self) -> dict[str, Work]:
        return {OWN: self.own, **self.works}

    @property
    def _has_one_head(self) -> bool:
        return has_one_head(self.own.recipe)

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
            self.take_apart(together, name)
            folders.write_lines(place.steps, folders.lines(folder.steps))
            if name in self.unjudged:
                keep_unjudged(work, place, record, fit, progress)
            else:
                finish(work, place, record, {}, fit, progress)
        self._weigh(folder)

    def _part_of(self, name: str) -> dict[str, Any]:
        """What an earlier task's manifest says of the run that it is a part of."""
        place = 1 + list(self.works).index(name)
        taken = self.order.quotas[place] if self.order else 0
        total = self.order.rows_per_epoch if self.order else len(self.own.examples["train"])
        own = Path(self.own.recipe.output).name
        return {
            "folder": "../..",
            "as": "earlier",
            "head": self._settings.head,
            "beside": [own],
            "rows": taken,
            "rows_per_epoch": total,
        }

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
            judged = RunFolder(self._settings.runs[learned]) if name in self.works else folder
            matrix.append([_measure(work, place, _judged_rows(judged)) for place in places])
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
    works, unjudged, are_whole = {}, set(), True
    for run in recipe.rehearsal.runs:
        name = name_of(run)
        voice.say(f"== earlier task {name}")
        voice.stage("reading the data")
        recalled = recall(run)
        works[name] = _prepare(own, run, recalled, voice)
        are_whole &= recalled.is_whole
        if not recalled.is_judged:
            unjudged.add(name)
    if has_one_head(recipe) and are_whole:
        _find_leaks([own, *works.values()])
    order = _order_of(own, works)
    if order is not None:
        note_first_rows([own, *works.values()], order)
    else:
        for work in works.values():
            work.first_rows = []
    course = course_of(recipe.train, order) if order else {"steps": own.steps}
    for work in (own, *works.values()) if order else works.values():
        work.recipe = work.recipe.but(train=work.recipe.train.but(**course))
    return Memory(own, works, order, frozenset(unjudged))


def _find_leaks(works: Sequence[Work]) -> None:
    """Of one head every row that any of its tasks has learned is learned, so each task's test is held against all."""
    learned = [row for work in works for row in work.splits.train]
    for work in works:
        columns = work.recipe.task.columns
        known = len(work.splits.leaked)
        work.splits.leaked = overlap(work.splits.test, learned, columns)
        more = len(work.splits.leaked) - known
        if more > 0:
            message = f"{more:,} test rows are training rows of another task under the same head; scores without them "
            message += "stand beside the others"
            remedy = "take them out of one of the two files"
            work.notes.append(
                Note("test-in-other-task", "warn", message, work.splits.test[0].where, remedy, count=more)
            )


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


def _judged_rows(folder: RunFolder) -> int:
    """On how many rows a task was judged when it was learned."""
    data = folders.read_json(folder.manifest)["data"]
    return _rows_in(folder, "test" if "test" in data else "validation")


def _rows_in(folder: RunFolder, split: str) -> int:
    return int(folders.read_json(folder.manifest)["data"][split]["rows"])


def _measure(work: Work, place: RunFolder | None, judged: int) -> Measure | None:
    """A task's primary metric as a run folder has it; None where there is none, or of other rows."""
    if place is None or not place.scores.exists():
        return None
    predictions = read_predictions(place, folders.read_json(place.scores)["judged_on"])
    return work.task.measures(predictions)[work.recipe.judge.primary] if len(predictions) == judged else None


def _order_of(own: Work, works: Mapping[str, Work]) -> MixedOrder | None:
    assert own.recipe.rehearsal is not None
    sizes = [len(work.examples["train"]) for work in (own, *works.values())]
    learned = [_rows_in(RunFolder(run), "train") for run in own.recipe.rehearsal.runs]  # of which few may be left
    quotas = quotas_beside(sizes[0], learned, own.recipe.rehearsal.share)
    return order_of(own.recipe, sizes, quotas) if any(quotas[1:]) else None


def _recipe_of(own: Recipe, run: str, was: Recipe, data: Data) -> Recipe:
    """An earlier task as part of this run: its own rows and limit, this run's method and course; its own task and
    model, but where it shares these with the run's own."""
    name, is_shared = name_of(run), has_one_head(own)
    limits = {"max_length": was.train.max_length, "long_text": was.train.long_text}
    return own.but(
        model=own.model if is_shared else _newest(own, run, name),
        task=own.task if is_shared else was.task,
        data=data,
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


def _newest(own: Recipe, run: str, name: str) -> str:
    """Where an earlier task's head stands now: beside the run that this one starts from, if it rode along there."""
    began = Path(own.model)
    beside = (began.parent if began.name == "model" else began) / EARLIER / name
    return str(beside if (beside / folders.RunFolder(beside).recipe.name).exists() else run)


def _prepare(own: Work, run: str, recalled: Recalled, voice: Voice) -> Work:
    """An earlier task's rows, encoded; of one head for all, for the very model that the run's own task has."""
    was, name = read_earlier(run), name_of(run)
    recipe = _recipe_of(own.recipe, run, was, recalled.data)
    material = recalled.material
    if has_one_head(own.recipe):
        shared = (own.task, own.method, own.base, own.loaded)
        work = encode(Start(recipe, own.devices, material.splits, *shared, choices=[]), material, voice)
    else:
        learned = find_base(recipe.model).card["learned"]  # its rows may be few, or its head know more than they show
        work = encode(settle(recipe, material, own.devices, voice, learned=learned), material, voice)
        if not has_body_of(own.loaded.model, work.loaded.model):
            _tell_other_body(own, run, name)
    for one in (own, work):
        one.notes += recalled.notes
    return work
