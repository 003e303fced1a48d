"""The only training loop. It yields one `Step` for each optimizer step; recording, evaluating, saving and stopping
belong to whoever iterates."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.data.batches import Order, budget_for, cut, share_out
from tunesmith.data.mixing import MixedOrder
from tunesmith.devices import Devices, machine_errors_named, seed_everything, whole
from tunesmith.errors import NumbersError
from tunesmith.models.layers import set_training_mode
from tunesmith.models.loaded import Loaded
from tunesmith.tasks.contract import Draw, Example, length_of, tokens_of


@dataclass(frozen=True)
class Step:
    """What happened in one optimizer step. `loss` is the task's, the mean over the whole batch and all ranks, as it was
    used; `learning_rate` is the highest of all weights'; `grad_norm` is the norm before clipping; `tokens` are real
    ones, never padding; `metrics` are the task's own, over the same rows, and `pull` is what a method adds."""

    number: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    rows: int
    tokens: int
    seconds: float
    metrics: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        return {
            "step": self.number,
            "epoch": round(self.epoch, 6),
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "rows": self.rows,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 6),
            **self.metrics,
        }


@dataclass(frozen=True)
class Course:
    """The numbers that steer training: how many steps, and the rate at each."""

    steps: int
    warmup_ratio: float
    lr_scheduler: str
    max_grad_norm: float | None
    seed: int

    def rate(self, step: int) -> float:
        """The share of the highest rate at `step` (1-based): a pure function, so nothing of it is saved."""
        if self.lr_scheduler == "slanted-triangular":
            return self._slanted(step)
        warmup = math.ceil(self.warmup_ratio * self.steps)
        if step <= warmup:
            return step / (warmup + 1)
        if self.lr_scheduler == "constant":
            return 1.0
        progress = (step - 1 - warmup) / max(1, self.steps - warmup)
        if self.lr_scheduler == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return 1.0 - progress

    def _slanted(self, step: int) -> float:
        """Howard and Ruder 2018, arXiv:1801.06146, section 3.2, its `t` counted from 0: up in a line to the peak at the
        `cut`, down in a line; never below 1 / 32 of the peak."""
        cut = max(1, math.floor(self.warmup_ratio * self.steps))
        t = step - 1
        p = t / cut if t < cut else 1 - (t - cut) / max(1, self.steps - cut)
        return (1 + p * (LOWEST_RATIO - 1)) / LOWEST_RATIO


LOWEST_RATIO = 32
"""How many times the peak's rate is that of the start in a slanted triangle; the paper's number."""


def make_optimizer(loaded: Loaded, method: Any, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over the method's groups; betas 0.9, 0.999, eps 1e-8."""
    groups = method.groups(loaded, learning_rate, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def train(
    loaded: Loaded,
    method: Any,
    task: Any,
    examples: Sequence[Example],
    order: Order | MixedOrder,
    course: Course,
    optimizer: torch.optim.Optimizer,
    devices: Devices,
    start: int = 0,
) -> Iterator[Step]:
    """Train from step `start + 1` to the course's end, yielding after each step.

    Raises:
        NumbersError: a loss or gradient is not finite; raised before the weights move, so they stay finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    set_training_mode(loaded.model)
    for number in range(start + 1, course.steps + 1):
        began = time.perf_counter()
        seed_everything(course.seed, number, devices.rank)
        rows, epoch = order.rows_of(number), (number - 1) // order.steps_per_epoch
        factor = course.rate(number)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        with machine_errors_named():
            batch = [task.drawn(examples[row], Draw(course.seed, epoch, row)) for row in rows]
            with method.at_step(loaded, number):
                loss, count, metrics = _backward(loaded, task, batch, devices)
            pull, norm = _finish_gradients(loaded, method, parameters, devices.world_size / count, course.max_grad_norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise _not_finite(loss, norm, number, rows)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            number=number,
            epoch=order.epoch_of(number),
            loss=loss / count,
            learning_rate=max(group["lr"] for group in optimizer.param_groups),
            grad_norm=norm,
            rows=len(rows),
            tokens=sum(tokens_of(example) for example in batch),
            seconds=time.perf_counter() - began,
            metrics={name: value / count for name, value in metrics.items()} | ({"pull": pull} if pull else {}),
        )


def _backward(
    loaded: Loaded, task: Any, batch: Sequence[Example], devices: Devices
) -> tuple[float, float, dict[str, float]]:
    """Add up gradients of the summed loss over this rank's micro-batches.

    Returns:
        loss, count and metrics, each summed over all ranks.
    """
    lengths = [length_of(example) for example in batch]
    budget = budget_for(lengths, devices.micro_batch_tokens, devices.world_size)
    pieces = cut(lengths, budget, task.units(batch), loaded.pads, task.apart(batch))
    shares = share_out(pieces, lengths, devices.world_size, loaded.pads)
    mine = shares[devices.rank]
    passes = max(1, max(map(len, shares)) if devices.shares_weights else len(mine))
    total, count, metrics = 0.0, 0.0, dict[str, float]()
    for index in range(passes):
        idle = index >= len(mine)  # fewer pieces than others: take part in the exchange with a row that counts nothing
        piece = pieces[0][:1] if idle else mine[index]
        tensors = task.collate([batch[i] for i in piece], loaded.processor)
        tensors = {name: tensor.to(devices.device) for name, tensor in tensors.items()}
        with devices.gradients_kept(loaded.entry, last=index == passes - 1):
            with devices.autocast():
                loss = task.loss(loaded, task.prepare(loaded, tensors))
            (loss.total * 0.0 if idle else loss.total).backward()
        weight = 0.0 if idle else 1.0
        total += weight * float(loss.total.detach())
        count += weight * loss.count
        for name, value in loss.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + weight * value
    total, count, *sums = devices.sum(total, count, *metrics.values())
    return total, count or 1.0, dict(zip(metrics, sums, strict=True))


def _finish_gradients(
    loaded: Loaded, method: Any, parameters: Sequence[torch.nn.Parameter], scale: float, max_norm: float | None
) -> tuple[float, float]:
    """Turn summed gradients into the mean, add what the method pulls by, and clip: in one pass over the memory where
    nothing pulls. Returns the pull's value, and the norm before clipping."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    pull = 0.0
    if method.pulls:
        torch._foreach_mul_(gradients, scale)
        pull, scale = method.pull(loaded), 1.0
    norm = float(whole(torch.nn.utils.get_total_norm(gradients))) * scale
    if max_norm is not None and norm > max_norm:
        scale *= max_norm / (norm + 1e-6)
    torch._foreach_mul_(gradients, scale)
    return pull, norm


def _not_finite(loss: float, norm: float, step: int, rows: Sequence[int]) -> NumbersError:
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    return NumbersError(
        f"{what} at step {step}; the weights of step {step - 1} are finite and were kept",
        where=f"training rows {', '.join(str(row) for row in rows[:8])}{', ...' if len(rows) > 8 else ''}",
        remedy="look at these rows, or lower train.learning_rate",
    )
