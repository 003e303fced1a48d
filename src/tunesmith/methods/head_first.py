"""The head alone on a frozen body, before any method begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.methods.contract import Span, UsualMethod
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded


class HeadAlone(UsualMethod):
    """Of all that a method moves the head (and its pooler) alone. At that point adapters still add nothing, so the
    features are the base's. Source: Kumar et al. 2022, arXiv:2202.10054 (linear probing, then fine-tuning)."""

    settings = None
    some_wait = True

    def begin(self, loaded: Loaded, span: Span) -> None:
        super().begin(loaded, span)
        self._is_set = False

    def groups(self, loaded: Loaded, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        with only(loaded, lambda name: layers.under(layers.plain_name(name), loaded.head_names)):
            return super().groups(loaded, learning_rate, weight_decay)

    @contextlib.contextmanager
    def at_step(self, loaded: Loaded, step: int) -> Iterator[None]:
        with only(loaded, lambda name: layers.under(layers.plain_name(name), loaded.head_names)):
            if not self._is_set:
                layers.set_training_mode(loaded.model)
                self._is_set = True
            yield


@contextlib.contextmanager
def only(loaded: Loaded, moves: Callable[[str], bool]) -> Iterator[None]:
    """Of the parameters that ask for a gradient only those that `moves` names do so inside."""
    waiting = [
        parameter for name, parameter in loaded.model.named_parameters() if parameter.requires_grad and not moves(name)
    ]
    for parameter in waiting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in waiting:
            parameter.requires_grad_(True)


def require_new_head(loaded: Loaded) -> None:
    """Refuse to teach a head first that has nothing to learn.

    Raises:
        ModelError: the base brings its own head.
    """
    if not (loaded.head_is_new and loaded.head_is_drawn and loaded.head_names):
        message = "method.head_first: the head of this task comes with the base, and has nothing to learn first"
        raise ModelError(message, loaded.base.reference, "leave it out")
