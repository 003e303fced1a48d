"""One body with the heads of several tasks on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models import layers
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base


class JointModel(nn.Module):
    """Task models of one base around one body: the first one's, which all of them now hold.

    The body stands first, so that its parameters have one name (`body.*`), whichever task uses them; what belongs to a
    task alone is called `members.for_NAME.*`.

    Args:
        pooler_of: the task whose model brings the pooler that all share, if any has one.
    """

    base_model_prefix = "body"

    def __init__(self, models: Mapping[str, nn.Module], pooler_of: str | None) -> None:
        super().__init__()
        bodies = {name: layers.body(model) for name, model in models.items()}
        self.body = next(iter(bodies.values()))
        if pooler_of is not None:
            self.body.pooler = bodies[pooler_of].pooler
        for model in models.values():
            setattr(model, layers.body_prefix(model), self.body)
        self.members = nn.ModuleDict({f"for_{name}": model for name, model in models.items()})
        self.config: Any = self.body.config
        self.name_or_path = getattr(self.body, "name_or_path", "")  # PEFT reads it

    def forward(self, member: str, **inputs: torch.Tensor) -> Any:
        """What a task's model makes of its batch."""
        return self.members[f"for_{member}"](**inputs)

    def head_names(self) -> tuple[str, ...]:
        """Modules beside the body, and its pooler."""
        heads = [
            f"members.{name}.{child}"
            for name, model in self.members.items()
            for child, module in model.named_children()
            if module is not self.body and any(True for _ in module.parameters())
        ]
        has_pooler = isinstance(getattr(self.body, "pooler", None), nn.Module)
        return (*heads, "body.pooler") if has_pooler else tuple(heads)


def join(parts: Mapping[str, Loaded]) -> Loaded:
    """Models of several tasks as one, each part seeing its own task's model in it from now on.

    Raises:
        ModelError: a model has no body of its own that could be shared, or it is another than the first's.
    """
    for name, part in parts.items():
        _require_alike(name, part, next(iter(parts.values())))
    pooler_of = _with_pooler(parts)
    joint = JointModel({name: part.model for name, part in parts.items()}, pooler_of)
    first = next(iter(parts.values()))
    return Loaded(
        joint, first.processor, joint.head_names(), (), first.base, reload=lambda: _rejoined(parts, pooler_of)
    )


def _rejoined(parts: Mapping[str, Loaded], pooler_of: str | None) -> nn.Module:
    return JointModel({name: part.reload() for name, part in parts.items()}, pooler_of)


def _with_pooler(parts: Mapping[str, Loaded]) -> str | None:
    """The first task whose base brings a pooler (a token classifier saves none, so one that starts from such a base has
    it drawn); else the first that has one at all."""
    having = [name for name, part in parts.items() if getattr(layers.body(part.model), "pooler", None) is not None]
    bringing = [name for name in having if _brings_pooler(parts[name].base)]
    return next(iter(bringing or having), None)


def _brings_pooler(base: Base) -> bool:
    from safetensors import safe_open

    for file in base.folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            if any("pooler." in name for name in opened.keys()):  # noqa: SIM118 (not a mapping)
                return True
    return False


def _require_alike(name: str, part: Loaded, first: Loaded) -> None:
    where = part.base.reference
    if not layers.body_prefix(part.model):
        raise ModelError(f"tasks.{name}: this model has no body that tasks could share", where, "train it alone")
    mine, theirs = ({n: p.shape for n, p in layers.body(one.model).named_parameters()} for one in (part, first))
    differing = sorted(n for n in mine.keys() & theirs.keys() if mine[n] != theirs[n])
    lost = sorted(n for n in mine.keys() ^ theirs.keys() if not n.startswith("pooler."))
    if differing or lost:
        odd = ", ".join((differing + lost)[:3])
        raise ModelError(f"tasks.{name}: its body is not that of the other tasks ({odd})", where, "train it alone")


@torch.no_grad()
def copy_part(part: Loaded, alone: Loaded) -> None:
    """Give a model that stands alone (the same base, the same method) what a part has learned."""
    inner = getattr(alone.model, "get_base_model", lambda: alone.model)()
    learned = dict(_tensors(part.model))
    for name, tensor in _tensors(inner):
        tensor.copy_(learned[name])


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Everything that a model computes by, under all its names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def has_body_of(one: nn.Module, other: nn.Module) -> bool:
    """Whether the bodies of two models compute by the same numbers, poolers aside."""
    mine, theirs = (dict(_tensors(layers.body(model))) for model in (one, other))
    shared = [name for name in mine.keys() & theirs.keys() if not name.startswith("pooler.")]
    return all(torch.equal(mine[name], theirs[name]) for name in shared)
