"""What is written into a run folder when it opens, and when the work is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from tunesmith import checkpoints
from tunesmith import folder as folders
from tunesmith.checkpoints import Progress
from tunesmith.data.loading import hash_of
from tunesmith.data.reservoir import keep
from tunesmith.fitting import Fit, Voice
from tunesmith.folder import RunFolder
from tunesmith.models.layers import count_parameters
from tunesmith.models.references import CARD
from tunesmith.preparing import Work, describe_data
from tunesmith.recipe import is_path
from tunesmith.recipe.reading import write_recipe
from tunesmith.report import manifest
from tunesmith.rewrites import try_out
from tunesmith.teaching import hashes_of


def open_folder(
    work: Work,
    folder: RunFolder,
    voice: Voice,
    others: Mapping[str, str] | None = None,
    part_of: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write recipe, notes and manifest; on a resume make sure that they are those of the run that began. What is
    finished stays as it is.

    Args:
        others: hashes of what has a say besides data, base and teacher.
        part_of: the run that this is a part of, and what that means for it (see docs/run-folder.md).
    """
    base_hashes = work.base.hashes()
    taught_by = hashes_of(work.recipe.teacher)
    says = {f"teacher.{name}": digest for name, digest in taught_by.items()} | dict(others or {})
    identity = manifest.identity(work.recipe, work.splits.files, base_hashes, work.devices.world_size, says)
    began = _began(folder, identity)
    if began is not None and began["finished"]:
        return began
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
        **({"part_of": dict(part_of)} if part_of else {}),
    }
    folders.write_json(folder.manifest, record)
    folders.write_json(folder.check, [note.record() for note in work.notes])
    folders.write_json(folder.data, describe_data(work))
    _keep_rows(work, folder, resumes=began is not None)
    write_recipe(work.recipe, folder.recipe)  # last: where it is, there is a run to resume
    _tell(work, record["parameters"], voice, resumes=began is not None)
    return record


def _keep_rows(work: Work, folder: RunFolder, resumes: bool) -> None:
    """Copy some training rows for later rehearsal, where the recipe asks for that. What was deleted since stays so."""
    most = work.recipe.data.keep_rows
    if not most:
        folder.reservoir.unlink(missing_ok=True)
    elif not resumes:
        kept = keep(work.splits.train, work.recipe.task.columns, most, work.recipe.seed)
        folders.write_lines(folder.reservoir, kept, private=True)


def _began(folder: RunFolder, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the run that began here; None if none did. Raises CheckpointError if it was another."""
    if not (folder.exists and folder.manifest.exists()):
        return None
    began: dict[str, Any] = folders.read_json(folder.manifest)
    was = checkpoints.Checkpoint(folder.manifest, Progress(), began["identity"])
    checkpoints.require_same(was, identity)
    return began


def _tell(work: Work, parameters: Mapping[str, int], voice: Voice, resumes: bool) -> None:
    for choice in [] if resumes else work.choices:
        voice.say(f"{choice.key}: {choice.value} ({choice.why})")
    for note in work.notes:
        voice.say(f"{note.level} [{note.code}] {note.message}")
    labels = len(work.task.labels)
    classes = f"{labels} classes, " if labels > 1 else ""
    voice.say(
        f"{len(work.splits.train):,} rows to train on, {classes}{work.steps:,} steps; "
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters move"
    )


def _identify_rows(work: Work) -> dict[str, Any]:
    """The rows of each split, and of the language at large, by number and hash, and the files they came from."""
    splits = work.splits
    named = splits.named() | ({"general": splits.general} if splits.general else {})
    return {
        name: {
            "rows": len(rows),
            "file_sha256": splits.files.get(name),
            "files_sha256": splits.parts.get(name, []),
            "rows_sha256": hash_of(rows, work.recipe.task.columns),
        }
        for name, rows in named.items()
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


def save_model(work: Work, folder: RunFolder, decision: dict[str, Any]) -> None:
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


def closing_record(work: Work, folder: RunFolder, fit: Fit, progress: Progress) -> dict[str, Any]:
    """What is known at the end; what was not judged has no cost."""
    files = sorted(folder.model.rglob("*.safetensors"))
    cost = {"cost": folders.read_json(folder.audits)["cost"]} if folder.audits.exists() else {}
    return {
        "resumed_from": fit.resumed_from,
        "warnings": fit.warnings,
        "ended": progress.ended,
        "best_step": progress.best_step,
        "model_sha256": {os.path.relpath(file, folder.model): folders.sha256(file) for file in files},
        **cost,
    }
