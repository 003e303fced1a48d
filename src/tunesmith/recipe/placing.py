"""Faults that come to light only with the data or the machine are told at the place of the key that they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from tunesmith.errors import Fault, ModelError, RecipeError
from tunesmith.recipe.joint import page_of
from tunesmith.recipe.reading import Located, faults_of, locate


@contextmanager
def placing(recipe: Path, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Where the block fails by a setting, say its file, line and column."""
    try:
        yield
    except ValidationError as error:  # settings that fit alone and not together, once every auto is known
        faults = list(faults_of(error, locate(recipe, overrides)))
        raise RecipeError(faults[0].message, faults=faults) from None
    except (RecipeError, ModelError) as error:
        located = locate(recipe, overrides)
        raise type(error)(error.message, faults=[_placed(fault, located) for fault in error.faults]) from None


def _placed(fault: Fault, located: Located) -> Fault:
    """The fault at the place of its key; unchanged where it names none."""
    key = fault.where or fault.message.partition(":")[0]
    path = tuple(key.split("."))
    if path[0] not in page_of(located.values).model_fields or " " in key:
        return fault
    message = f"{key}: {fault.message}" if fault.where else fault.message
    return Fault(located.place(path), message, fault.remedy)
