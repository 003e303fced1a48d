"""The story of a recipe of several tasks: each prepared and judged as a run of its own, learned together in between."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith import folder as folders
from tunesmith import tasks
from tunesmith.checkpoints import Checkpoint, Progress, require_same
from tunesmith.data.handover import hand_over, take_over
from tunesmith.data.mixing import MixedOrder, quotas_by_temperature, quotas_by_weight
from tunesmith.devices import Devices
from tunesmith.errors import DataError, ResourceError
from tunesmith.evaluation import mean_of
from tunesmith.fitting import MEAN, Fit, Phase, StopSignal, Voice
from tunesmith.folder import RunFolder
from tunesmith.judging import OtherTraining, fit_baselines, judge_run, settle_decision
from tunesmith.keeping import closing_record, open_folder, save_model
from tunesmith.models.layers import count_parameters
from tunesmith.models.references import find_base
from tunesmith.open import Run
from tunesmith.phases import fit_and_take_best, teach_head_first
from tunesmith.preparing import Work, prepare, refuse_stops
from tunesmith.recipe.joint import ALONE, JointRecipe
from tunesmith.recipe.reading import write_recipe
from tunesmith.report import manifest
from tunesmith.report.overview import write_overview
from tunesmith.report.writing import write_report
from tunesmith.together import (
    Together,
    bring_together,
    course_of,
    held_of_all,
    join_works,
    note_first_rows,
    order_of,
    stand_alone,
)


def lead(
    recipe: JointRecipe,
    folder: RunFolder,
    devices: Devices,
    accept: Sequence[str],
    voice: Voice,
    stop: StopSignal,
) -> None:
    """The story, told by the first process."""
    works = _prepare_all(recipe, devices, accept, voice)
    recipe, order, steps = _settle(recipe, works)
    places = {name: RunFolder(work.recipe.output) for name, work in works.items()}
    parts = {name: _part_of(name, works, order) for name in works}
    records = {name: open_folder(work, places[name], voice, None, parts[name]) for name, work in works.items()}
    unfinished = {name: work for name, work in works.items() if not records[name]["finished"]}
    beside = {name: _beside(recipe, name) for name in unfinished}
    baselines = {name: fit_baselines(work, places[name], voice, beside[name]) for name, work in unfinished.items()}
    together = join_works(works)
    record = _open(recipe, folder, devices, together, records, order, steps)
    _hand_over(works, folder, devices)
    fit = Fit(recipe, folder, devices, together.loaded, together.method, together.task, record["identity"], voice, stop)
    examples = together.examples({name: work.examples["train"] for name, work in works.items()})
    progress = fit_and_take_best(fit, examples, steps, held_of_all(works), order)
    devices.wait()
    shutil.rmtree(folder.handover, ignore_errors=True)
    for name, work in unfinished.items():
        voice.stage(f"judging {name}")
        stand_alone(work, together.view(name))
        share_records(folder, places[name], name)
        finish(work, places[name], records[name], baselines[name], fit, progress)
    _sum_up(folder, places, record, fit, progress)


def follow(recipe: JointRecipe, folder: RunFolder, devices: Devices, stop: StopSignal) -> None:
    """The part of every process but the first, once all is prepared."""
    record = folders.read_json(folder.manifest)
    built, views = dict[str, Any](), {}
    for name in recipe.tasks:
        own = recipe.member(name)
        built[name] = tasks.build(own.task)
        built[name].recall(record["tasks"][name]["learned"])
        views[name] = built[name].load(find_base(recipe.model), recipe.seed, devices.stored)
    per_row = {name: told["per_row"] for name, told in record["tasks"].items()}
    together = bring_together(views, built, per_row, recipe.method, recipe.seed, devices, recipe.train.dropout)
    rows = {name: take_over(folder.handover / f"{name}.safetensors") for name in recipe.tasks}
    told = record["tasks"].values()
    order = order_of(recipe, [one["rows"] for one in told], [one["quota"] for one in told])
    identity, examples = record["identity"], together.examples(rows)
    fit = Fit(recipe, folder, devices, together.loaded, together.method, together.task, identity, Voice(), stop)
    teach_head_first(fit, folder.checkpoints, examples, order)
    fit.run(Phase("fit", folder.checkpoints, examples, record["steps"], [], order=order))
    devices.wait()


def finish(
    work: Work, folder: RunFolder, record: dict[str, Any], baselines: Mapping[str, Any], fit: Fit, progress: Progress
) -> None:
    """Judge and write down what came of one task."""
    decision = settle_decision(work, folder)
    save_model(work, folder, decision)
    judge_run(work, folder, baselines, decision)
    record |= closing_record(work, folder, fit, progress)
    folders.write_json(folder.manifest, record)
    write_report(folder)
    folders.write_json(folder.manifest, {**record, "finished": manifest.now()})


def keep_unjudged(work: Work, folder: RunFolder, record: dict[str, Any], fit: Fit, progress: Progress) -> None:
    """Write down what came of one task whose judged rows are gone: its model."""
    save_model(work, folder, settle_decision(work, folder))
    record |= closing_record(work, folder, fit, progress)
    folders.write_json(folder.manifest, {**record, "finished": manifest.now()})


def share_records(folder: RunFolder, place: RunFolder, name: str) -> None:
    """Give a task's folder the steps that all tasks have in common, and its own part of each evaluation."""
    folders.write_lines(place.steps, folders.lines(folder.steps))
    folders.write_lines(
        place.evaluations,
        [
            {**{key: row[key] for key in ("phase", "step", "epoch", "best")}, **row["tasks"][name]}
            for row in folders.lines(folder.evaluations)
        ],
    )


def _prepare_all(recipe: JointRecipe, devices: Devices, accept: Sequence[str], voice: Voice) -> dict[str, Work]:
    works = {}
    for name in recipe.tasks:
        voice.say(f"== {name}")
        works[name] = prepare(recipe.member(name), devices, voice)
        try:
            refuse_stops(works[name].notes, accept)
        except (DataError, ResourceError) as error:
            raise type(error)(f"tasks.{name}: {error.message}", faults=error.faults) from None
    return works


def _settle(recipe: JointRecipe, works: Mapping[str, Work]) -> tuple[JointRecipe, MixedOrder, int]:
    """The recipe without `auto`, the order of rows, the steps; all of them the same in every task's part."""
    first = next(iter(works.values())).recipe
    sizes = [len(work.examples["train"]) for work in works.values()]
    weights = [member.weight for member in recipe.tasks.values() if member.weight is not None]
    quotas = quotas_by_weight(sizes, weights) if weights else quotas_by_temperature(sizes, recipe.temperature)
    order = order_of(recipe, sizes, quotas)
    course = course_of(recipe.train, order)
    steps = course.pop("steps")
    common = {
        "learning_rate": first.train.learning_rate,
        "precision": first.train.precision,
        "rewrites": "off",
        **course,
    }
    note_first_rows(list(works.values()), order)
    for work in works.values():
        work.recipe = work.recipe.but(train=work.recipe.train.but(**common, steps=steps))
    members = {
        name: member.but(task=works[name].recipe.task, judge=member.judge.but(primary=works[name].recipe.judge.primary))
        for name, member in recipe.tasks.items()
    }
    settled = recipe.but(tasks=members, method=first.method, train=recipe.train.but(**common), machine=first.machine)
    return settled, order, steps


def _part_of(name: str, works: Mapping[str, Work], order: MixedOrder) -> dict[str, Any]:
    """What a task's manifest says of the run that it is a part of."""
    place = list(works).index(name)
    return {
        "folder": "../..",
        "as": "tasks",
        "beside": [other for other in works if other != name],
        "rows": order.quotas[place],
        "rows_per_epoch": order.rows_per_epoch,
    }


def _beside(recipe: JointRecipe, name: str) -> dict[str, Any]:
    """The task's training by itself, where that was asked for."""
    if not recipe.wants_alone(name):
        return {}
    return {ALONE: OtherTraining(Run(recipe.alone(name).output, recipe.machine))}


def _open(
    recipe: JointRecipe,
    folder: RunFolder,
    devices: Devices,
    together: Together,
    records: Mapping[str, dict[str, Any]],
    order: MixedOrder,
    steps: int,
) -> dict[str, Any]:
    """Write recipe and manifest of what the tasks share; on a resume make sure that they are those that began."""
    identity: dict[str, Any] = {"temperature": recipe.temperature, "quotas": list(order.quotas)}
    for name, record in records.items():
        identity |= {f"tasks.{name}.{key}": value for key, value in record["identity"].items()}
    began = folders.read_json(folder.manifest) if folder.manifest.exists() else None
    if began is not None:
        require_same(Checkpoint(folder.manifest, Progress(), began["identity"]), identity)
    told = {
        name: {"rows": rows, "quota": quota, "per_row": part.per_row, "learned": part.task.learned()}
        for (name, part), rows, quota in zip(together.task.parts.items(), order.sizes, order.quotas, strict=True)
    }
    kept = next(iter(records.values()))
    shared = ("tunesmith", "base", "seed", "threads", "processes", "precision", "versions", "hardware")
    record = {
        **{key: kept[key] for key in shared},
        "started": began["started"] if began else manifest.now(),
        "finished": None,
        "tasks": told,
        "parameters": count_parameters(together.loaded.model),
        "steps": steps,
        "identity": identity,
    }
    folders.write_json(folder.manifest, record)
    write_recipe(recipe, folder.recipe)  # last: where it is, there is a run to resume
    return record


def _hand_over(works: Mapping[str, Work], folder: RunFolder, devices: Devices) -> None:
    """Leave what the other processes need, and let them begin."""
    if devices.world_size > 1:
        for name, work in works.items():
            hand_over(work.examples["train"], folder.handover / f"{name}.safetensors")
    devices.wait()


def _sum_up(
    folder: RunFolder, places: Mapping[str, RunFolder], record: dict[str, Any], fit: Fit, progress: Progress
) -> None:
    """Scores and verdict of all tasks above those of each, and a page that leads to theirs."""
    scores = {name: folders.read_json(place.scores) for name, place in places.items()}
    verdicts = {name: folders.read_json(place.verdict) for name, place in places.items()}
    told = {
        name: {
            "primary": one["primary"],
            "judged_on": one["judged_on"],
            "score": one[one["judged_on"]][one["primary"]],
            "ship": verdicts[name]["ship"],
            "gain": verdicts[name]["gain"],
            "over": verdicts[name]["over"],
        }
        for name, one in scores.items()
    }
    mean = mean_of([one["score"] for one in told.values()])
    folders.write_json(folder.scores, {"primary": MEAN, "mean": mean, "tasks": told})
    ships = [one["ship"] for one in told.values()]
    ship = None if None in ships else all(ships)
    why = [f"{name}: {reason}" for name, verdict in verdicts.items() for reason in verdict["why"]]
    folders.write_json(folder.verdict, {"ship": ship, "why": why})
    closing = {"resumed_from": fit.resumed_from, "warnings": fit.warnings, "ended": progress.ended,
               "best_step": progress.best_step}  # fmt: skip
    folders.write_json(folder.manifest, {**record, **closing})
    write_overview(folder)
    folders.write_json(folder.manifest, {**record, **closing, "finished": manifest.now()})
