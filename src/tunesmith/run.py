"""The story of a run, and how an interrupted one goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tunesmith import folder as folders
from tunesmith import methods, several, tasks
from tunesmith.checking import look_ahead
from tunesmith.choices import total_steps
from tunesmith.data.handover import hand_over, take_over
from tunesmith.devices import Devices, choose_devices, joined
from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.fitting import Fit, Phase, StopSignal, Voice, stop_signals
from tunesmith.folder import RunFolder
from tunesmith.judging import fit_baselines, judge_run, score_validation
from tunesmith.keeping import closing_record, open_folder, save_model
from tunesmith.open import Run
from tunesmith.phases import fit_and_take_best, held_of, teach_head_first
from tunesmith.preparing import Work, apply_method, prepare, refuse_stops
from tunesmith.recipe import Recipe
from tunesmith.recipe.joint import AnyRecipe, JointRecipe
from tunesmith.recipe.reading import read_recipe, write_recipe
from tunesmith.rehearsing import remember
from tunesmith.report import manifest
from tunesmith.report.writing import write_report
from tunesmith.teaching import start_of, with_teacher
from tunesmith.together import Together
from tunesmith.trackers import Trackers, require_installed

SILENT = Voice()


def run(recipe: AnyRecipe, accept: Sequence[str] = (), voice: Voice = SILENT) -> Run:
    """Train, judge and report; the run folder is `recipe.output`.

    Raises:
        RecipeError: the folder already holds a run, or what is left of one.
        TunesmithError: as `errors.EXIT_CODES` lists.
    """
    folders.require_permission(Path(recipe.output))
    folders.refuse_output(Path(recipe.output))
    folder = RunFolder(recipe.output)
    if is_first() and folder.exists:
        raise RecipeError(
            "this folder already holds a run", str(folder.path), f"`tunesmith resume {folder.path}`, or another output"
        )
    if is_first() and any(folder.checkpoints.glob("*")):
        raise RecipeError(
            "this folder holds checkpoints of a run whose recipe is gone", str(folder.path), "choose another output"
        )
    return _carry_out(recipe, folder, accept, voice)


def resume(path: str | Path, accept: Sequence[str] = (), voice: Voice = SILENT) -> Run:
    """Go on with an interrupted run, exactly as if it had not been interrupted. A finished run is left as it is.

    Raises:
        CheckpointError: no run is here, it was changed since, or none of its checkpoints is valid.
    """
    folder = RunFolder(path)
    if not folder.exists:
        raise CheckpointError("no run in this folder", str(folder.path), "start one with `tunesmith run RECIPE`")
    if folder.manifest.exists() and folders.read_json(folder.manifest).get("finished"):
        voice.say(f"{folder.path}: this run is finished")
        return Run(folder.path)
    if folder.whole:
        message = "this is a part of another run, and cannot go on by itself"
        raise CheckpointError(message, str(folder.path), folder.how_to_finish())
    recipe = read_recipe(folder.recipe).but(output=str(folder.path.absolute()))
    return _carry_out(recipe, folder, accept, voice)


def is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _carry_out(recipe: AnyRecipe, folder: RunFolder, accept: Sequence[str], voice: Voice) -> Run:
    require_installed(recipe.track)
    devices = choose_devices(recipe.machine, recipe.train.precision)
    if recipe.machine.processes > 1 and devices.world_size == 1:
        raise RecipeError(
            f"machine.processes: {recipe.machine.processes} asked for, this is the only process",
            remedy="use the command `tunesmith run`, which starts them, or torchrun",
        )
    if recipe.machine.sharding != "none" and devices.world_size == 1:
        message = f"machine.sharding: {recipe.machine.sharding} asked for, but this is the only process"
        raise RecipeError(message, remedy="machine.processes: 2 or more, or sharding: none")
    with joined(devices), stop_signals() as stop:
        _carry_out_others(recipe, folder, accept, voice if is_first() else SILENT)
        if devices.is_first:
            with folder.claim(), Trackers(folder, voice.say) as trackers:
                if isinstance(recipe, JointRecipe):
                    several.lead(recipe, folder, devices, accept, voice, stop)
                else:
                    _lead(recipe, folder, devices, accept, voice, stop, trackers)
        else:
            _follow(folder, devices, stop)
    return Run(folder.path)


def _carry_out_others(recipe: AnyRecipe, folder: RunFolder, accept: Sequence[str], voice: Voice) -> None:
    """What comes before a recipe's own training, and what that is compared with: the same training without it, without
    its teacher, or of a task alone. What is finished stays as it is."""
    others = [*recipe.earlier, *recipe.beside]
    if not others:
        return
    if is_first() and not folder.exists:
        refuse_stops(look_ahead(recipe)[0], accept)  # not after hours of the stages before it
        write_recipe(recipe, folder.recipe)  # so that what is interrupted in a stage can be resumed
    for one in others:
        place = RunFolder(one.output)
        voice.say(f"== {place.path.name}: {one.task.kind} from {one.model}")
        if place.exists:
            resume(place.path, accept, voice)
        else:
            _carry_out(one, place, accept, voice)


def _lead(
    recipe: Recipe,
    folder: RunFolder,
    devices: Devices,
    accept: Sequence[str],
    voice: Voice,
    stop: StopSignal,
    trackers: Trackers,
) -> None:
    """The story, told by the first process."""
    work = prepare(recipe, devices, voice)
    refuse_stops(work.notes, accept)
    memory = remember(recipe, work, voice) if recipe.rehearsal else None
    record = open_folder(work, folder, voice, memory.hashes() if memory else {})
    baselines = fit_baselines(work, folder, voice)
    _hand_over(work, folder)
    used = [trial["name"] for trial in record["rewrites"] if trial["used"]]
    together = memory.join() if memory else Together(work.loaded, work.method, work.task)
    examples = memory.examples(together) if memory else work.examples["train"]
    learner = (together.loaded, together.method, together.task)
    fit = Fit(work.recipe, folder, devices, *learner, record["identity"], voice, stop, used)
    trackers.start(work.recipe.track)
    progress = fit_and_take_best(fit, examples, work.steps, [held_of(work)], memory.order if memory else None)
    if memory:
        memory.take_apart(together)
    decision = score_validation(work, folder)
    if work.recipe.train.refit:
        _refit(fit, work, folder, progress.best_step)
    devices.wait()  # an already finished training passes nothing between processes: the others may still be reading
    shutil.rmtree(folder.handover, ignore_errors=True)
    save_model(work, folder, decision)
    voice.stage("judging")
    judge_run(work, folder, baselines, decision)
    if memory:
        memory.judge(together, folder, fit, progress)
    fit.warnings += trackers.end()
    record |= closing_record(work, folder, fit, progress)
    folders.write_json(folder.manifest, record)
    voice.stage("reporting")
    write_report(folder)
    folders.write_json(folder.manifest, {**record, "finished": manifest.now()})


def _refit(fit: Fit, work: Work, folder: RunFolder, steps: int) -> None:
    """Train once more from the start, on train + validation, for as many steps as were best."""
    fit.voice.stage("training again on train + validation")
    work.loaded = fit.loaded = work.task.load(work.base, work.recipe.seed, work.devices.stored)
    apply_method(work.method, work.loaded, work.recipe.seed, work.devices, work.recipe.train.dropout)
    examples = [*work.examples["train"], *work.examples["validation"]]
    teach_head_first(fit, folder.checkpoints / "refit", examples)
    phase = Phase("refit", folder.checkpoints / "refit", examples, fit.devices.agree(steps), held=None)
    fit.take(phase, fit.run(phase).step)


def _hand_over(work: Work, folder: RunFolder) -> None:
    """Leave what the other processes need, and let them begin."""
    if work.devices.world_size > 1:
        for name in ("train", "validation"):
            hand_over(work.examples[name], folder.handover / f"{name}.safetensors")
    work.devices.wait()


def _follow(folder: RunFolder, devices: Devices, stop: StopSignal) -> None:
    """The part of every process but the first: wait until all is prepared, then train along."""
    devices.wait()
    recipe = read_recipe(folder.recipe)
    if isinstance(recipe, JointRecipe):
        return several.follow(recipe, folder, devices, stop)
    return _follow_one(recipe, folder, devices, stop)


def _follow_one(recipe: Recipe, folder: RunFolder, devices: Devices, stop: StopSignal) -> None:
    record = folders.read_json(folder.manifest)
    task, method = tasks.build(recipe.task), methods.build(recipe.method)
    task.recall(record["learned"])
    base = start_of(recipe, task, devices)
    loaded = task.load(base, recipe.seed, devices.stored)
    task = with_teacher(recipe, task, loaded, devices)
    apply_method(method, loaded, recipe.seed, devices, recipe.train.dropout)
    train = take_over(folder.handover / "train.safetensors")
    validation = take_over(folder.handover / "validation.safetensors")
    used = [trial["name"] for trial in record["rewrites"] if trial["used"]]
    fit = Fit(recipe, folder, devices, loaded, method, task, record["identity"], SILENT, stop, used)
    teach_head_first(fit, folder.checkpoints, train)
    fit.run(Phase("fit", folder.checkpoints, train, total_steps(recipe, len(train)), held=[]))
    if recipe.train.refit:
        fit.loaded = task.load(base, recipe.seed, devices.stored)
        apply_method(method, fit.loaded, recipe.seed, devices, recipe.train.dropout)
        place = folder.checkpoints / "refit"
        teach_head_first(fit, place, [*train, *validation])
        fit.run(Phase("refit", place, [*train, *validation], devices.agree(0), held=None))
    devices.wait()
