"""The phases of a training: the head first where that is asked for, then all that moves, to the best step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.checkpoints import Progress
from tunesmith.data.batches import Order
from tunesmith.data.mixing import MixedOrder
from tunesmith.fitting import Fit, Held, Phase
from tunesmith.methods.head_first import HeadAlone
from tunesmith.preparing import Work
from tunesmith.tasks.contract import Example


def fit_and_take_best(
    fit: Fit, examples: Sequence[Example], steps: int, held: Sequence[Held], order: MixedOrder | None = None
) -> Progress:
    """Train, then put the best step's weights into the model."""
    place = fit.folder.checkpoints
    fit.voice.stage("training")
    teach_head_first(fit, place, examples, order)
    phase = Phase("fit", place, examples, steps, held, order=order)
    progress = fit.run(phase)
    fit.take(phase, progress.best_step)
    fit.voice.say(f"training is over ({progress.ended}); the best step was {progress.best_step}")
    return progress


def teach_head_first(fit: Fit, place: Path, examples: Sequence[Example], order: MixedOrder | None = None) -> None:
    """Train the head alone on the frozen body for a while, where the recipe asks for that."""
    first = getattr(fit.recipe.method, "head_first", None)
    if first is not None:
        taken = order or Order(len(examples), fit.recipe.train.batch_size, fit.recipe.seed)
        steps = max(1, round(first.epochs * taken.steps_per_epoch))
        fit.voice.say(f"the head first: {steps:,} steps")
        name = "head" if place == fit.folder.checkpoints else f"{place.name}-head"
        fit.run(Phase(name, place / "head", examples, steps, None, HeadAlone(), first.learning_rate, order))


def held_of(work: Work, name: str = "") -> Held:
    """What a training is judged by on its way."""
    rows, examples = work.splits.validation, work.examples["validation"]
    assert work.recipe.judge.primary != "auto"
    return Held(work.task, work.loaded, rows, examples, work.recipe.judge.primary, name)
