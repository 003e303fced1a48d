"""What all settings share: closed (an unknown key is an error), frozen (a change is a copy), documented."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Auto = Literal["auto"]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
HeldShare = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1, le=2**40)]


class Settings(BaseModel):
    """The parent of every page of a recipe. Strict: `true` is no number, and a quoted number is a word.

    The docstring under a field is its only documentation:
    the JSON Schema, `--help` and the reference page are made from it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, strict=True
    )

    def but(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like a new one."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**given, **changes})


def _as_mapping(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


KindOrMapping = BeforeValidator(_as_mapping)
"""`method: lora` is short for `method: {kind: lora}`."""
