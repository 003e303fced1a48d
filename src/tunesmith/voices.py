"""How the work is told: a live line on a terminal, plain lines elsewhere, JSON lines for programs. All on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tunesmith.fitting import Voice

if TYPE_CHECKING:
    from tunesmith.evaluation import Score
    from tunesmith.loop import Step

SECONDS_BETWEEN_LINES = 5.0


class PlainVoice(Voice):
    """One line for each event, and one every few seconds while training."""

    def __init__(self) -> None:
        self.began = 0.0
        self.first_step = 0
        self.last_line = 0.0
        self.first_row = 0

    def say(self, text: str) -> None:
        self._line(text)

    def stage(self, name: str) -> None:
        self.began = 0.0
        self._line(f"-- {name}")

    def step(self, step: Step, total: int) -> None:
        now = time.monotonic()
        if not self.began:
            self.began, self.first_step = now, step.number
        if now - self.last_line < SECONDS_BETWEEN_LINES and step.number != total:
            return
        self.last_line = now
        self._line(f"step {step.number}/{total}  {described(step)}  {self._left(step.number, total, now)}")

    def evaluation(self, step: int, primary: str, scores: Mapping[str, Score], best: bool) -> None:
        mark = "  (best so far)" if best else ""
        self._line(f"step {step}: validation {primary} {with_interval(scores[primary])}{mark}")

    def answered(self, rows: int, total: int | None) -> None:
        now = time.monotonic()
        if not self.began:
            self.began, self.first_row, self.last_line = now, rows, now
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        rate = (rows - self.first_row) / (now - self.began)
        left = f"  {max(0, total - rows) / rate:.0f} s left" if total and rate else ""
        self._line(f"{rows:,}{f' of about {total:,}' if total else ''} rows  {rate:,.0f} rows/s{left}")

    def close(self) -> None:
        self.began = 0.0

    def _left(self, step: int, total: int, now: float) -> str:
        done = step - self.first_step
        if done < 1:
            return ""
        return f"{(now - self.began) / done * (total - step):.0f} s left"

    def _line(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class TerminalVoice(Voice):
    """Lines for what stays, and one live bar for training with its estimate."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.progress: Progress | None = None

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def stage(self, name: str) -> None:
        self.close()
        self.console.print(name, style="bold", markup=False, highlight=False)

    def step(self, step: Step, total: int) -> None:
        if self.progress is None:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            times = (TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"))
            self.progress = Progress(*columns, *times, console=self.console)
            self.progress.start()
            self.progress.add_task("", total=total, completed=step.number - 1)
        self.progress.update(self.progress.task_ids[0], completed=step.number, description=described(step))
        if step.number == total:
            self.close()

    def evaluation(self, step: int, primary: str, scores: Mapping[str, Score], best: bool) -> None:
        mark = "  (best so far)" if best else ""
        self.say(f"step {step}: validation {primary} {with_interval(scores[primary])}{mark}")

    def answered(self, rows: int, total: int | None) -> None:
        if self.progress is None:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
            times = (TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"))
            self.progress = Progress(*columns, *times, console=self.console)
            self.progress.start()
            self.progress.add_task("", total=total, completed=rows)
        self.progress.update(self.progress.task_ids[0], completed=rows, total=total)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class JsonVoice(Voice):
    """One JSON object a line, for programs that watch."""

    def __init__(self) -> None:
        self.last_line = 0.0

    def say(self, text: str) -> None:
        self._line({"event": "said", "text": text})

    def stage(self, name: str) -> None:
        self._line({"event": "stage", "name": name})

    def step(self, step: Step, total: int) -> None:
        self._line({"event": "step", "total": total, **step.record()})

    def evaluation(self, step: int, primary: str, scores: Mapping[str, Score], best: bool) -> None:
        self._line({"event": "evaluation", "step": step, "scores": scores, "best": best})

    def answered(self, rows: int, total: int | None) -> None:
        if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self._line({"event": "answered", "rows": rows, "total": total})

    def _line(self, event: dict[str, object]) -> None:
        sys.stderr.write(orjson.dumps(event).decode() + "\n")
        sys.stderr.flush()


def described(step: Step) -> str:
    done, what = (step.tokens, "tokens") if step.tokens else (step.rows, "rows")
    speed = done / step.seconds if step.seconds else 0.0
    return f"epoch {step.epoch:.2f}  loss {step.loss:.4f}  rate {step.learning_rate:.2e}  {speed:,.0f} {what}/s"


def with_interval(score: Mapping[str, float]) -> str:
    return f"{score['value']:.4f} (95 % interval {score['low']:.4f} to {score['high']:.4f})"


def choose_voice(as_json: bool) -> Voice:
    if as_json:
        return JsonVoice()
    return TerminalVoice() if sys.stderr.isatty() else PlainVoice()
