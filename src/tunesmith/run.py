"""The story of a run, and how an interrupted one goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import checkpoints, methods, tasks
from tunesmith import folder as folders
from tunesmith.checking import look_ahead
from tunesmith.checkpoints import Progress
from tunesmith.choices import steps_of, total_steps
from tunesmith.data.handover import hand_over, take_over
from tunesmith.data.loading import hash_of
from tunesmith.devices import Devices, choose_devices, joined
from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.fitting import Fit, Phase, StopSignal, Voice, stop_signals
from tunesmith.folder import RunFolder
from tunesmith.judging import fit_baselines, judge_run, score_validation
from tunesmith.methods.head_first import HeadAlone
from tunesmith.models.layers import count_parameters
from tunesmith.models.references import CARD
from tunesmith.open import Run
from tunesmith.preparing import Work, apply_method, describe_data, prepare, refuse_stops
from tunesmith.recipe import Recipe, is_path
from tunesmith.recipe.reading import read_recipe, write_recipe
from tunesmith.report import manifest
from tunesmith.report.writing import write_report
from tunesmith.rewrites import try_out
from tunesmith.tasks.contract import Example
from tunesmith.teaching import hashes_of, start_of, with_teacher
from tunesmith.trackers import Trackers, require_installed

SILENT = Voice()


def run(recipe: Recipe, accept: Sequence[str] = (), voice: Voice = SILENT) -> Run:
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
    recipe = read_recipe(folder.recipe).but(output=str(folder.path.absolute()))
    return _carry_out(recipe, folder, accept, voice)


def is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _carry_out(recipe: Recipe, folder: RunFolder, accept: Sequence[str], voice: Voice) -> Run:
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
        _carry_out_stages(recipe, folder, accept, voice if is_first() else SILENT)
        if devices.is_first:
            with folder.claim(), Trackers(folder, voice.say) as trackers:
                _lead(recipe, folder, devices, accept, voice, stop, trackers)
        else:
            _follow(folder, devices, stop)
    return Run(folder.path)


def _carry_out_stages(recipe: Recipe, folder: RunFolder, accept: Sequence[str], voice: Voice) -> None:
    """What comes before a recipe's own training, and that training without it or without its teacher; what is finished
    stays as it is."""
    earlier = [recipe.stage(number) for number in range(len(recipe.stages))]
    if not earlier and not recipe.beside:
        return
    if is_first() and not folder.exists:
        refuse_stops(look_ahead(recipe)[0], accept)  # not after hours of the stages before it
        write_recipe(recipe, folder.recipe)  # so that what is interrupted in a stage can be resumed
    for one in [*earlier, *recipe.beside]:
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
    record = _open_folder(work, folder, voice)
    baselines = fit_baselines(work, folder, voice)
    _hand_over(work, folder)
    used = [trial["name"] for trial in record["rewrites"] if trial["used"]]
    fit = Fit(work.recipe, folder, devices, work.loaded, work.method, work.task, record["identity"], voice, stop, used)
    trackers.start(work.recipe.track)
    progress = _fit_and_take_best(fit, work, folder)
    decision = score_validation(work, folder)
    if work.recipe.train.refit:
        _refit(fit, work, folder, progress.best_step)
    devices.wait()  # an already finished training passes nothing between processes: the others may still be reading
    shutil.rmtree(folder.handover, ignore_errors=True)
    _save_model(work, folder, decision)
    voice.stage("judging")
    judge_run(work, folder, baselines, decision)
    fit.warnings += trackers.end()
    record |= _closing_record(work, folder, fit, progress)
    folders.write_json(folder.manifest, record)
    voice.stage("reporting")
    write_report(folder)
    folders.write_json(folder.manifest, {**record, "finished": manifest.now()})


def _open_folder(work: Work, folder: RunFolder, voice: Voice) -> dict[str, Any]:
    """Write recipe, notes and manifest; on a resume make sure that they are those of the run that began."""
    splits = work.splits.named()
    base_hashes = work.base.hashes()
    taught_by = hashes_of(work.recipe.teacher)
    identity = manifest.identity(work.recipe, work.splits.files, base_hashes, work.devices.world_size, taught_by)
    began = folders.read_json(folder.manifest) if folder.exists and folder.manifest.exists() else None
    if began is not None:
        was = checkpoints.Checkpoint(folder.manifest, Progress(), began["identity"])
        checkpoints.require_same(was, identity)
    record: dict[str, Any] = {
        "tunesmith": manifest.versions()["tunesmith"],
        "started": began["started"] if began else manifest.now(),
        "finished": None,
        "choices": began["choices"] if began else [choice.record() for choice in work.choices],
        "base": {"reference": work.recipe.starts_from, "revision": work.base.revision, "sha256": base_hashes},
        **({"teacher": {"reference": work.recipe.teacher.model, "sha256": taught_by}} if work.recipe.teacher else {}),
        "data": _identify_rows(work),
        "labels": list(work.task.labels),
        "learned": work.task.learned(),
        "parameters": count_parameters(work.loaded.model),
        "steps": work.steps,
        "seed": work.recipe.seed,
        "threads": work.devices.threads,
        "processes": work.devices.world_size,
        "precision": work.devices.precision,
        "rewrites": began["rewrites"] if began else _try_rewrites(work, voice),
        "versions": manifest.versions(),
        "hardware": manifest.hardware(),
        "identity": identity,
    }
    folders.write_json(folder.manifest, record)
    folders.write_json(folder.check, [note.record() for note in work.notes])
    folders.write_json(folder.data, describe_data(work))
    write_recipe(work.recipe, folder.recipe)  # last: where it is, there is a run to resume
    for choice in [] if began else work.choices:
        voice.say(f"{choice.key}: {choice.value} ({choice.why})")
    for note in work.notes:
        voice.say(f"{note.level} [{note.code}] {note.message}")
    parameters, labels = record["parameters"], len(work.task.labels)
    classes = f"{labels} classes, " if labels > 1 else ""
    voice.say(
        f"{len(splits['train']):,} rows to train on, {classes}{work.steps:,} steps; "
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters move"
    )
    return record


def _identify_rows(work: Work) -> dict[str, Any]:
    """The rows of each split by number and hash, and the files they came from."""
    return {
        name: {
            "rows": len(rows),
            "file_sha256": work.splits.files.get(name),
            "files_sha256": work.splits.parts.get(name, []),
            "rows_sha256": hash_of(rows, work.recipe.task.columns),
        }
        for name, rows in work.splits.named().items()
    }


def _try_rewrites(work: Work, voice: Voice) -> list[dict[str, Any]]:
    """Which rewrites hold on this model and these rows; what does not is left out, and said."""
    asked = work.recipe.train.rewrites
    names = () if isinstance(asked, str) else asked
    trials = try_out(names, work.loaded, work.task, work.examples["train"], work.devices)
    for trial in trials:
        if not trial.used:
            voice.say(
                f"train.rewrites: {trial.name} is left out: it differs from the plain path by {trial.difference:.1e} "
                f"of the gradient, more than {trial.tolerance:.0e}"
            )
    return [trial.record() for trial in trials]


def _fit_and_take_best(fit: Fit, work: Work, folder: RunFolder) -> Progress:
    """Train, then put the best step's weights into the model."""
    fit.voice.stage("training")
    held = (work.splits.validation, work.examples["validation"])
    _teach_head_first(fit, folder.checkpoints, work.examples["train"])
    phase = Phase("fit", folder.checkpoints, work.examples["train"], work.steps, held)
    progress = fit.run(phase)
    fit.take(phase, progress.best_step)
    fit.voice.say(f"training is over ({progress.ended}); the best step was {progress.best_step}")
    return progress


def _refit(fit: Fit, work: Work, folder: RunFolder, steps: int) -> None:
    """Train once more from the start, on train + validation, for as many steps as were best."""
    fit.voice.stage("training again on train + validation")
    work.loaded = fit.loaded = work.task.load(work.base, work.recipe.seed, work.devices.stored)
    apply_method(work.method, work.loaded, work.recipe.seed, work.devices, work.recipe.train.dropout)
    examples = [*work.examples["train"], *work.examples["validation"]]
    _teach_head_first(fit, folder.checkpoints / "refit", examples)
    phase = Phase("refit", folder.checkpoints / "refit", examples, fit.devices.agree(steps), held=None)
    fit.take(phase, fit.run(phase).step)


def _teach_head_first(fit: Fit, place: Path, examples: Sequence[Example]) -> None:
    """Train the head alone on the frozen body for a while, where the recipe asks for that."""
    first = getattr(fit.recipe.method, "head_first", None)
    if first is not None:
        steps = steps_of(first.epochs, len(examples), fit.recipe.train.batch_size)
        fit.voice.say(f"the head first: {steps:,} steps")
        name = "head" if place == fit.folder.checkpoints else f"{place.name}-head"
        fit.run(Phase(name, place / "head", examples, steps, None, HeadAlone(), first.learning_rate))


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
    _teach_head_first(fit, folder.checkpoints, train)
    fit.run(Phase("fit", folder.checkpoints, train, total_steps(recipe, len(train)), held=([], [])))
    if recipe.train.refit:
        fit.loaded = task.load(base, recipe.seed, devices.stored)
        apply_method(method, fit.loaded, recipe.seed, devices, recipe.train.dropout)
        place = folder.checkpoints / "refit"
        _teach_head_first(fit, place, [*train, *validation])
        fit.run(Phase("refit", place, [*train, *validation], devices.agree(0), held=None))
    devices.wait()


def _save_model(work: Work, folder: RunFolder, decision: dict[str, Any]) -> None:
    """Write `model/`: weights (or the adapter), tokenizer, and our card beside them; whole or not at all."""
    staged = folder / f"{folders.STAGING}model"
    shutil.rmtree(staged, ignore_errors=True)
    needed = 4 * count_parameters(work.loaded.model)["total"]
    with folders.disk_errors_named(folder.model, needed):
        staged.mkdir()
        work.method.save(work.loaded, staged)
        work.loaded.processor.save_pretrained(staged)
        base = work.recipe.starts_from
        card = {
            "format": 1,
            "base": os.path.relpath(base, folder.model) if is_path(base) else base,
            "revision": work.base.revision,
            "task": work.recipe.task.model_dump(mode="json"),
            "method": work.recipe.method.model_dump(mode="json"),
            "labels": list(work.task.labels),
            "learned": work.task.learned(),
            "decision": decision,
            "max_length": work.limit.tokens,
            "long_text": work.limit.policy,
            "seed": work.recipe.seed,
            "columns": work.recipe.data.columns,
        }
        (staged / CARD).write_bytes(folders.to_json(card))
        for file in staged.rglob("*"):
            if file.is_file():
                folders.flush_file(file)
        folders.put_in_place(staged, folder.model)


def _closing_record(work: Work, folder: RunFolder, fit: Fit, progress: Progress) -> dict[str, Any]:
    files = sorted(folder.model.rglob("*.safetensors"))
    return {
        "resumed_from": fit.resumed_from,
        "warnings": fit.warnings,
        "ended": progress.ended,
        "best_step": progress.best_step,
        "model_sha256": {os.path.relpath(file, folder.model): folders.sha256(file) for file in files},
        "cost": folders.read_json(folder.audits)["cost"],
    }
