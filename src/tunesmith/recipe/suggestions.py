"""What an unknown setting may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from tunesmith.recipe import Recipe, Stage, methods, remedies, tasks
from tunesmith.recipe.base import Settings
from tunesmith.recipe.joint import Member, page_of

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def nearest_setting(path: KeyPath, values: dict[str, Any]) -> str:
    """A suggestion for an unknown key: a near name in its own section, else the section where the name lives."""
    key = str(path[-1])
    if key in remedies.FOREIGN:
        return f'here it is "{remedies.FOREIGN[key]}"'
    if "." in key and key.split(".")[0] in page_of(values).model_fields:
        return f"write `{key.split('.')[0]}:` and below it, indented, the rest"
    if len(path) == 1 and page_of(values) is not Recipe and key in Recipe.model_fields:
        return "not for several tasks; a recipe of one task has it"
    here = settings_at(path[:-1], values, page_of(values))
    names = list(here.model_fields) if here else []
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    homes = list(dict.fromkeys(dotted((*section, name)) for section, name in _all_settings() if name == key))
    if not homes:
        far = difflib.get_close_matches(key, [name for _, name in _all_settings()], n=1, cutoff=0.8)
        homes = [dotted((*section, name)) for section, name in _all_settings() if far and name == far[0]]
    if homes == [dotted(path)]:
        return f"another {path[0]} has it; here there are: {', '.join(names)}"
    if homes:
        return f'did you mean "{homes[0]}"?'
    return f"there are: {', '.join(names)}" if names else ""


def settings_at(path: KeyPath, values: Any, root: type[Settings] = Recipe) -> type[Settings] | None:
    """The settings class that holds the keys at `path`."""
    if not path:
        return root
    if path[0] == "stages":
        return settings_at(path[2:], values["stages"][path[1]], Stage) if len(path) > 1 else None
    if path[0] == "tasks":
        return settings_at(path[2:], values["tasks"][path[1]], Member) if len(path) > 1 else None
    if path[0] in ("method", "task"):
        section = values.get(path[0])
        kind = section.get("kind", "") if isinstance(section, dict) else section
        table = methods.KINDS if path[0] == "method" else tasks.KINDS
        return table.get(str(kind)) or (tasks.TextClassification if path[0] == "task" else None)
    annotation = root.model_fields[str(path[0])].annotation if path[0] in root.model_fields else None
    may_be = [annotation, *get_args(annotation)]  # a section that may be left out is one of two
    return next((kind for kind in may_be if isinstance(kind, type) and issubclass(kind, Settings)), None)


def _all_settings() -> Iterator[tuple[KeyPath, str]]:
    for name, info in Recipe.model_fields.items():
        yield (), name
        candidates = [info.annotation, *get_args(info.annotation)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                for inner in candidate.model_fields:
                    yield (name,), inner
