"""By what the result is judged, and on what machine it is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from tunesmith.recipe.base import Auto, PositiveInt, Settings

BaselineName = Literal[
    "majority",
    "tfidf",
    "nearest-neighbours",
    "lexicon",
    "overlap",
    "untuned",
    "word-overlap",
    "frequencies",
    "lead",
    "copy",
    "linear-probe",
    "without-stages",
    "teacher",
    "without-teacher",
    "alone",
]
BASELINES: tuple[str, ...] = get_args(BaselineName)


class Judge(Settings):
    """The metric that decides, and what the tuned model must beat."""

    primary: str = "auto"
    """The metric that drives early stopping, the best checkpoint and the verdict. `auto`: the task's convention
    (text- and image-classification: accuracy, or macro_f1 if the largest class is over 5 times the smallest; micro_f1
    for `labels`, spearman for a `score`; token-classification: entity_f1; question-answering: answer_f1;
    sentence-similarity: spearman for a `score`, else recall_at_1; language-modeling: log_likelihood, the logarithm of
    perplexity with its sign turned; summarization: rouge_l; translation: chrf)."""

    min_gain: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """The whole 95 % interval of tuned minus best baseline must lie above this for the verdict to say ship."""

    baselines: Literal["auto", "off"] | list[BaselineName] = "auto"
    """What to compare with, on the same rows and metric. `auto`: all that fit the task. `off`: no verdict. Only where
    they are asked for by name: `teacher` (its own answers; a student is rarely better, see `min_gain`) and
    `without-teacher` (the same student trained once more, by the labels alone); for one of several `tasks`, `alone`
    (the same training on its rows alone)."""

    slices: list[str] = Field(default_factory=list)
    """Columns of your files by whose values the primary metric is shown too: a language, a source, a customer. The 20
    commonest values of each, the rest joined as "(all others)"; more than 8 different numbers in up to four parts."""


class Deploy(Settings):
    """Budgets of the place where the model will work. Measured after training, on the machine that trained, and part of
    the verdict: one that is broken forbids to ship."""

    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """The most milliseconds for one row. Held against it: the 99th percentile of single rows (batch size 1, from tokens
    to answer, without tokenising and without a server; of an image from its file to answer). null: no budget."""

    memory_mb: Annotated[float, Field(gt=0)] | None = None
    """The most megabytes (of 1,000,000 bytes). Held against it: the peak of a fresh process that opens the saved model
    and answers the longest judged rows one by one, libraries included; on a GPU what it reserves there is added. null:
    no budget."""


class Machine(Settings):
    """The machine to work on."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto`: a GPU if there is one."""

    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Training processes on this machine (data parallel). Under `torchrun` its world size is used instead."""

    sharding: Literal["none", "full"] = "none"
    """What each of several processes holds. `none`: all weights, gradients and moments (DDP). `full`: its part of them
    (FSDP2); the first process keeps the weights once more, to judge with them. On GPUs this was never run."""

    threads: PositiveInt | Auto = "auto"
    """CPU threads for each process. `auto`: the cores it may use, shared among processes; fewer where a process alone
    finds OMP_NUM_THREADS set. Results differ in the last bits between counts."""

    micro_batch_tokens: PositiveInt | Auto = "auto"
    """A batch is sorted by length and cut into pieces of at most this many padded tokens (a longer row goes alone)."""


NOT_SHARED = {
    "gradual-unfreezing": "which weights move changes from step to step",
    "qlora": "weights in 4 bits are not parted",
}
"""Methods whose weights processes cannot share out, and why."""


def require_sharing(machine: Machine, method: Any) -> None:
    """Raise ValueError, its key first, where a method cannot have the machine's sharding."""
    why = NOT_SHARED.get(method.kind) or ("mixout swaps whole weights" if getattr(method, "mixout", None) else "")
    if machine.sharding != "none" and why:
        raise ValueError(f"machine.sharding: {machine.sharding} is not for this method: {why}; use none")
