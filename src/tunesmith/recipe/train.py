"""How long, how fast, in which numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.base import Auto, HeldShare, PositiveInt, Settings, Share


class Train(Settings):
    """The course of training. Every interval (`*_every`) is in optimizer steps."""

    epochs: Annotated[float, Field(gt=0, le=10_000)] = 4.0
    """Passes over the training rows; parts of an epoch are allowed."""

    steps: PositiveInt | None = None
    """Optimizer steps. If given, it replaces `epochs`."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Rows per optimizer step, over all processes. How a batch is cut to fit the machine never changes the result
    beyond rounding (dropout aside)."""

    learning_rate: Annotated[float, Field(ge=0, le=10)] | Auto = "auto"
    """The highest rate. `auto` goes by the method and the size of the model."""

    warmup_ratio: Share = 0.06
    """Share of the steps in which the rate rises from 0 to `learning_rate`."""

    lr_scheduler: Literal["linear", "cosine", "constant", "slanted-triangular"] = "linear"
    """How the rate falls after warm-up: to 0 in a line, to 0 along a half cosine, or not at all. `slanted-triangular`
    (Howard and Ruder 2018, arXiv:1801.06146) begins at 1/32 of the highest rate, has its peak at
    `warmup_ratio` (0.1 in the paper), and falls in a line towards 1/32."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Decoupled decay (AdamW) of weight matrices; biases and norms are never decayed."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are scaled down to this norm where they exceed it. null: never."""

    dropout: Share | None = None
    """Dropout everywhere in the model, in place of what its config says; that of LoRA's updates is `method.dropout`.
    null: as the base has it."""

    ema: HeldShare | None = None
    """Keep a running mean of the weights, this share of it from before at each step (0.999, say), and judge and save
    that mean instead of the last weights (Polyak and Juditsky 1992). null: the weights themselves."""

    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    """`bf16` is autocast over fp32 weights. `auto` takes it where the hardware computes in it. `fp64` is for proofs."""

    early_stopping_patience: PositiveInt | None = 3
    """End after this many evaluations without a better primary metric. null: never."""

    max_length: Annotated[int, Field(ge=4, le=10_000_000)] | Auto = "auto"
    """Tokens per row; longer ones are dealt with by `long_text`, counted and reported. `auto`: the most that the model
    takes. Not for images, which have no tokens."""

    long_text: Literal["truncate", "head_tail", "windows", "chunks"] | Auto = "auto"
    """What is done with a row of more than `max_length` tokens. `truncate` cuts its end off; `head_tail` (for
    text-classification) keeps a quarter of the beginning and the rest of the end; `windows` reads it in overlapping
    parts and joins what they say: averaged for a label, each word where it stands deepest for entities, the best of all
    for an answer; `chunks` (for summarization) writes a summary of each part and then one of these summaries, while
    training reads the first part. `auto`: windows for token-classification and question-answering, else truncate."""

    evaluate_every: PositiveInt | Auto = "auto"
    """Score the validation rows every so many steps. `auto`: once an epoch, and at the end."""

    checkpoint_every: PositiveInt | Auto = "auto"
    """Write a checkpoint every so many steps, besides the one at each evaluation. `auto`: at evaluations only."""

    rewrites: Auto | Literal["off"] | list[Literal["flat-batch"]] = "auto"
    """Faster ways to compute the same, checked against the plain path before the first step. `flat-batch`: no padding,
    and the last layer only where it is read. `auto`: all that fit. `off`: the plain path."""

    refit: bool = False
    """After the best step is known, train once more on train + validation for that many steps, and keep that model."""
