"""A task in which a teacher is heard besides the labels (Hinton et al. 2015, arXiv:1503.02531).

Letters: N lines (rows, words, tokens asked for), C outputs, V windows, T tokens, D numbers of a body.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from tunesmith.models import layers
from tunesmith.models.loaded import Loaded
from tunesmith.recipe import Teacher
from tunesmith.tasks.contract import Batch, Loss, precise

ANSWERS, STATES = "teacher_logits", "teacher_states"


class Distilled:
    """A task whose loss compares the answers of the model with those of a frozen teacher; all else is the task's own.

    The loss is (1 - alpha) times the task's own, plus alpha times temperature squared (so that a gradient keeps its
    size) times the divergence of each line, plus `hidden` times the distance of the last layers. Each line counts as
    much as it does in the task's own loss, so the step divides all by the same count.
    """

    def __init__(self, task: Any, teacher: Loaded, lesson: Teacher) -> None:
        self.task, self.teacher, self.lesson = task, teacher, lesson
        teacher.model.requires_grad_(False)
        teacher.model.eval()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    @property
    def others(self) -> tuple[Loaded, ...]:
        return (self.teacher,)

    @property
    def _is_heard(self) -> bool:
        return self.lesson.alpha > 0 or self.lesson.hidden > 0

    def prepare(self, loaded: Loaded, batch: Batch) -> Batch:
        """The batch with the teacher's answers to it, and with what its last layer makes of it if that is compared."""
        batch = self.task.prepare(loaded, batch)
        if not self._is_heard:
            return batch
        with torch.no_grad(), overheard(self.teacher.model, self.lesson.hidden > 0) as states:
            heard = {**batch, ANSWERS: self.task.logits(self.teacher, batch)}
        return {**heard, STATES: torch.cat(states)} if states else heard

    def loss(self, loaded: Loaded, batch: Batch) -> Loss:
        if not self._is_heard:
            return self.task.loss(loaded, batch)
        alpha, temperature = self.lesson.alpha, self.lesson.temperature
        with overheard(loaded.model, self.lesson.hidden > 0) as states:
            logits_NC = precise(self.task.logits(loaded, batch))
        own = self.task.loss_of(logits_NC, batch)
        diverge = DIVERGENCES[self.task.problem_type]
        soft_N = diverge(logits_NC, precise(batch[ANSWERS]), temperature)
        soft = (soft_N * self.task.weights(batch, soft_N.dtype)).sum()
        total = (1 - alpha) * own.total + alpha * soft
        metrics = {**own.metrics, "task_loss": float(own.total.detach()), "teacher_loss": float(soft.detach())}
        if states:
            mine_VTD, theirs_VTD = precise(torch.cat(states)), precise(batch[STATES])
            away_VT = 1 - functional.cosine_similarity(mine_VTD, theirs_VTD, dim=-1)
            away = (away_VT * self.task.token_weights(batch, away_VT)).sum()
            total = total + self.lesson.hidden * away
            metrics["teacher_distance"] = float(away.detach())
        return Loss(total, own.count, metrics)


@contextlib.contextmanager
def overheard(model: torch.nn.Module, listens: bool) -> Iterator[list[torch.Tensor]]:
    """What the last layer of a body gives while the block is run: (V, T, D) of each pass; nothing if nobody listens.

    A layer that is passed through several times, as ALBERT's are, is heard the last time.
    """
    heard: list[torch.Tensor] = []
    latest: list[torch.Tensor] = []

    def keep(layer: Any, inputs: Any, output: Any) -> None:
        latest[:] = [output[0] if isinstance(output, tuple) else output]

    def end(body: Any, inputs: Any, output: Any) -> None:
        heard.append(latest.pop())

    if not listens:
        yield heard
        return
    body = layers.body(model)
    hooks = [layers.blocks(body)[-1][1].register_forward_hook(keep), body.register_forward_hook(end)]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def of_one(logits_NC: torch.Tensor, teacher_NC: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N,) temperature squared times the Kullback-Leibler divergence KL(teacher || student) of two softmaxes."""
    mine_NC = functional.log_softmax(logits_NC / temperature, dim=-1)
    theirs_NC = functional.log_softmax(teacher_NC / temperature, dim=-1)
    return temperature**2 * (theirs_NC.exp() * (theirs_NC - mine_NC)).sum(dim=-1)


def of_many(logits_NC: torch.Tensor, teacher_NC: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N,) the same of a sigmoid for each label, its mean over labels, as the task's own loss is one."""
    mine_NC, theirs_NC = logits_NC / temperature, teacher_NC / temperature
    sides = [
        theirs.sigmoid() * (functional.logsigmoid(theirs) - functional.logsigmoid(mine))
        for mine, theirs in ((mine_NC, theirs_NC), (-mine_NC, -theirs_NC))
    ]
    return temperature**2 * sum(sides).mean(dim=-1)  # type: ignore[union-attr]


def of_numbers(logits_N1: torch.Tensor, teacher_N1: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N,) the squared difference; a number has no temperature."""
    return (logits_N1[:, 0] - teacher_N1[:, 0]) ** 2


DIVERGENCES = {
    "single_label_classification": of_one,
    "multi_label_classification": of_many,
    "regression": of_numbers,
}
