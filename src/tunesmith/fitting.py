"""What happens between the steps: record, evaluate, checkpoint, stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunesmith import checkpoints
from tunesmith.checkpoints import Progress
from tunesmith.data.batches import Order
from tunesmith.data.mixing import MixedOrder
from tunesmith.data.rows import Row
from tunesmith.devices import Devices
from tunesmith.errors import Interrupted, NumbersError
from tunesmith.evaluation import Score, as_predictions, mean_loss, mean_of, predict, score
from tunesmith.folder import RunFolder, append, lines, write_lines
from tunesmith.loop import Course, Step, make_optimizer, train
from tunesmith.methods.contract import Span
from tunesmith.models.averages import Average
from tunesmith.models.loaded import Loaded
from tunesmith.recipe.joint import AnyRecipe
from tunesmith.rewrites import rewritten
from tunesmith.sharing import gather, shared_out
from tunesmith.tasks.contract import Example


class Voice:
    """Who is told how the work goes. This one is silent; the command line has others."""

    def say(self, text: str) -> None:
        """A sentence for a person."""

    def stage(self, name: str) -> None:
        """Another part of the story begins."""

    def step(self, step: Step, total: int) -> None:
        """An optimizer step is done."""

    def evaluation(self, step: int, primary: str, scores: Mapping[str, Score], best: bool) -> None:
        """The validation rows were scored."""

    def answered(self, rows: int, total: int | None) -> None:
        """So many rows of a file have an answer, of about so many (None: nobody knows)."""

    def close(self) -> None:
        """What was live on a screen stands still."""


@dataclass
class StopSignal:
    """The signal that asked us to stop; 0 if none did."""

    number: int = 0
    gently: bool = False
    """While true a signal only takes note of itself, and the loop ends after its step. Else it ends us at once."""


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch SIGINT and SIGTERM for the length of the block. A second signal always ends us at once."""
    stop = StopSignal()

    def caught(number: int, _frame: object) -> None:
        if stop.number or not stop.gently:
            raise Interrupted(number, "interrupted; nothing was lost that a checkpoint held", "tunesmith resume")
        stop.number = number

    try:
        before = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever owns it owns the signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Held:
    """Validation rows of a task, and what answers them. `name` tells tasks apart where there are several."""

    task: Any
    loaded: Loaded
    rows: Sequence[Row]
    examples: Sequence[Example]
    primary: str
    name: str = ""


@dataclass
class Phase:
    """One course of training: which rows, how many steps, and whether it is judged on the way.

    Attributes:
        place: where its checkpoints go.
        held: what it is judged by; None for a phase that is not judged (refit).
        method, learning_rate: in place of the recipe's.
        order: in which rows are taken, if not each once an epoch.
    """

    name: str
    place: Path
    examples: Sequence[Example]
    steps: int
    held: Sequence[Held] | None
    method: Any = None
    learning_rate: float | None = None
    order: MixedOrder | None = None


@dataclass
class Fit:
    """Everything that training needs, and what it comes to."""

    recipe: AnyRecipe
    folder: RunFolder
    devices: Devices
    loaded: Loaded
    method: Any
    task: Any
    identity: Mapping[str, Any]
    voice: Voice
    stop: StopSignal
    rewrites: Sequence[str] = ()
    average: Average | None = None
    """The running mean of the weights, where the recipe asks for one."""

    part: Loaded | None = None
    """What is trained where processes share the weights out: this one's part of them."""

    resumed_from: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def trained(self) -> Loaded:
        return self.part or self.loaded

    def run(self, phase: Phase) -> Progress:
        """Train through a phase, from its newest valid checkpoint if it has one. Best weights are not yet loaded.

        Raises:
            Interrupted: a signal came; a checkpoint of the last step is written.
            NumbersError: a loss or gradient is not finite; a checkpoint of the last finite step is written.
        """
        settings = self.recipe.train
        assert isinstance(settings.learning_rate, float | int)
        order = phase.order or Order(len(phase.examples), settings.batch_size, self.recipe.seed)
        method = phase.method or self.method
        # a head that is taught first is small, and what moves must not change once the weights are shared out
        devices = self.devices if phase.method is None else replace(self.devices, shares_weights=False)
        self.part = shared_out(self.loaded, devices) if devices.shares_weights else None
        method.begin(self.trained, Span(phase.steps, order.steps_per_epoch, self.recipe.seed))
        optimizer = make_optimizer(
            self.trained, method, phase.learning_rate or settings.learning_rate, settings.weight_decay
        )
        self.average = Average(settings.ema) if settings.ema is not None and phase.method is None else None
        if self.average is not None:
            self.average.begin(self.trained.model)
        progress = self._pick_up(phase, optimizer)
        course = Course(
            phase.steps, settings.warmup_ratio, settings.lr_scheduler, settings.max_grad_norm, self.recipe.seed
        )
        if progress.ended:
            return progress
        self.trained.entry = devices.wrap(self.trained.model, method.some_wait or self.task.some_wait)
        self.stop.gently = True
        steps = train(self.trained, method, self.task, phase.examples, order, course, optimizer, devices, progress.step)
        try:
            with rewritten((self.trained, *self.task.others), self.rewrites):
                for step in steps:
                    progress.step = step.number
                    if self.average is not None:
                        self.average.update(self.trained.model)
                    self._after_step(phase, step, progress, optimizer)
                    if progress.ended:
                        break
        except NumbersError:
            self._save(phase, progress, optimizer)
            raise
        finally:
            self.stop.gently = False
            self.trained.entry = None
        return progress

    def _pick_up(self, phase: Phase, optimizer: Any) -> Progress:
        """Go back to the newest valid checkpoint, and cut the records to match it."""
        checkpoint, faults = checkpoints.newest_valid(phase.place)
        for fault in faults:
            self.warnings.append(f"passed over a damaged checkpoint: {fault}")
            self.voice.say(self.warnings[-1])
        progress = Progress()
        if checkpoint is not None:
            checkpoints.require_same(checkpoint, self.identity)
            checkpoints.load_weights(checkpoint.path, self.trained)
            checkpoints.load_moments(checkpoint.path, optimizer)
            if self.average is not None:
                checkpoints.load_means(checkpoint.path, self.trained, self.average)
            progress = checkpoint.progress
            if phase.method is None:  # a head that was taught first is not where the run was cut
                self.resumed_from = max(self.resumed_from, progress.step)
                self.voice.say(f"{phase.name}: resumed from step {progress.step}")
        if self.devices.is_first:
            for file in (self.folder.steps, self.folder.evaluations):
                kept = [row for row in lines(file) if row["phase"] != phase.name or row["step"] <= progress.step]
                write_lines(file, kept)
        return progress

    def _after_step(self, phase: Phase, step: Step, progress: Progress, optimizer: Any) -> None:
        settings = self.recipe.train
        assert isinstance(settings.evaluate_every, int) and isinstance(settings.checkpoint_every, int)
        if self.devices.is_first:
            append(self.folder.steps, {"phase": phase.name, **step.record()})
            self.voice.step(step, phase.steps)
        is_last = step.number == phase.steps
        evaluates = phase.held is not None and (is_last or step.number % settings.evaluate_every == 0)
        if evaluates and self.part:
            gather(self.part, self.average.means if self.average else {}, self.loaded, self.devices)
        if evaluates and self.devices.is_first:
            with self.judged_weights():
                self._evaluate(phase, step, progress)
        if evaluates and self.devices.agree(int(bool(progress.ended))):
            progress.ended = progress.ended or "early stopping"
        if is_last:
            progress.ended = progress.ended or "all steps done"
        stop_number = self.devices.agree(self.stop.number)
        if evaluates or is_last or stop_number or step.number % settings.checkpoint_every == 0:
            self._save(phase, progress, optimizer)
        if stop_number:
            raise Interrupted(
                stop_number,
                f"interrupted after step {step.number} of {phase.steps}; a checkpoint of it is written",
                f"tunesmith resume {self.folder.path}",
            )

    def judged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Around whatever judges: the weights that would be kept, their running mean if there is one. (What was
        gathered from parts is that already.)"""
        if self.average is None or self.part is not None:
            return contextlib.nullcontext()
        return self.average.in_place(self.loaded.model)

    def take(self, phase: Phase, step: int) -> None:
        """Put what a step's checkpoint would keep into the whole model: its weights or, for good, their running
        mean."""
        path = checkpoints.read(checkpoints.path_of(phase.place, step)).path
        self.part = None
        checkpoints.load_weights(path, self.loaded)
        if self.average is not None:
            checkpoints.load_means(path, self.loaded, self.average)
            self.average.take_place(self.loaded.model)

    def _evaluate(self, phase: Phase, step: Step, progress: Progress) -> None:
        """Score the validation rows; note the best step and, by the patience, the end."""
        assert phase.held is not None
        parts = [examine(held, self.devices) for held in phase.held]
        scores, primary = (parts[0].scores, parts[0].primary) if len(parts) == 1 else joined_scores(parts)
        value = scores[primary]["value"]
        is_best = progress.best_value is None or value > progress.best_value
        if is_best:
            progress.best_step, progress.best_value, progress.evaluations_without_gain = step.number, value, 0
        else:
            progress.evaluations_without_gain += 1
        patience = self.recipe.train.early_stopping_patience
        if patience is not None and progress.evaluations_without_gain >= patience:
            progress.ended = f"early stopping: no better {primary} in {patience} evaluations"
        losses = [part.loss for part in parts if part.loss is not None]
        loss = sum(losses) / len(losses) if losses else None
        row = {"phase": phase.name, "step": step.number, "epoch": round(step.epoch, 6), "loss": loss, "scores": scores}
        row |= {"tasks": {part.name: part.record() for part in parts}} if len(parts) > 1 else {}
        append(self.folder.evaluations, {**row, "rows": sum(part.rows for part in parts), "best": is_best})
        self.voice.evaluation(step.number, primary, scores, is_best)

    def _save(self, phase: Phase, progress: Progress, optimizer: Any) -> None:
        if progress.step > 0:
            state = (phase.place, self.trained, optimizer, progress, self.identity, self.average)
            if self.part:
                checkpoints.save(*state, self.devices)
            elif self.devices.is_first:
                checkpoints.save(*state)
        self.devices.wait()


@dataclass(frozen=True)
class Examined:
    """How a task did on its validation rows."""

    name: str
    primary: str
    scores: dict[str, Score]
    loss: float | None
    rows: int

    def record(self) -> dict[str, Any]:
        return {"loss": self.loss, "scores": self.scores, "rows": self.rows}


def examine(held: Held, devices: Devices) -> Examined:
    """Answer and score the validation rows that are watched, by a decision made on these very rows."""
    task = held.task
    watched = task.watched(len(held.rows))
    outputs = predict(held.loaded, task, [held.examples[place] for place in watched], devices)
    loss = mean_loss(held.loaded, task, outputs, held.examples, devices)
    rows = [held.rows[place] for place in watched]
    golds = [task.gold(row) for row in rows]
    answers = task.answers(outputs, rows, task.decide(outputs, rows))
    scores = score(task.measures(as_predictions(golds, answers)))
    return Examined(held.name, held.primary, scores, loss, len(rows))


MEAN = "mean_of_tasks"
"""The mean of several tasks' primary metrics."""


def joined_scores(parts: Sequence[Examined]) -> tuple[dict[str, Score], str]:
    """Each task's primary metric under its name, and their mean; rows of different tasks are independent, so the
    mean's interval comes from theirs. Returns them, and the name of the mean."""
    scores = {part.name: part.scores[part.primary] for part in parts}
    return {MEAN: mean_of(list(scores.values())), **scores}, MEAN
