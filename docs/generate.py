"""Writes docs/recipe.md from the settings classes: they are the only place where a setting is described."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo

from tunesmith.errors import EXIT_CODES
from tunesmith.recipe import Recipe, methods, tasks
from tunesmith.recipe.base import Settings
from tunesmith.recipe.joint import JointRecipe, Member

PAGE = Path(__file__).with_name("recipe.md")
SECTIONS = ("data", "teacher", "rehearsal", "train", "judge", "deploy", "machine")


def reference() -> str:
    """The whole page as Markdown."""
    parts = ["# The recipe", "", f"{Recipe.__doc__} This page is made from the code by `make docs`.", ""]
    parts += table(Recipe)
    for name in SECTIONS:
        annotation = Recipe.model_fields[name].annotation
        settings = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
        assert issubclass(settings, Settings)
        parts += [f"## {name}", "", " ".join((settings.__doc__ or "").split()), "", *table(settings)]
    for title, settings in (("Several tasks", JointRecipe), ("tasks", Member)):
        parts += [f"## {title}", "", " ".join((settings.__doc__ or "").split()), "", *table(settings)]
    for title, kinds in (("task", tasks.KINDS), ("method", methods.KINDS)):
        parts += [f"## {title}", ""]
        for kind, settings in kinds.items():
            parts += [f"### {kind}", "", " ".join((settings.__doc__ or "").split()), "", *table(settings, skip="kind")]
    parts += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    parts += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(parts) + "\n"


def table(settings: type[Settings], skip: str = "") -> list[str]:
    rows = [(name, info) for name, info in settings.model_fields.items() if name != skip]
    if not rows:
        return []
    lines = ["| setting | default | what it does |", "|---|---|---|"]
    lines += [f"| `{name}` | {default(info)} | {' '.join((info.description or '').split())} |" for name, info in rows]
    return [*lines, ""]


def default(info: FieldInfo) -> str:
    """The default as a recipe would write it."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if isinstance(value, Settings):
        return f"`{value.kind}`" if hasattr(value, "kind") else "see below"
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


CELLS = ("<!-- methods x tasks, made by docs/generate.py -->\n", "<!-- end -->\n")
METHODS_PAGE = PAGE.with_name("methods.md")


def with_cells(page: str) -> str:
    """The page of methods with its table of methods and tasks."""
    before, rest = page.split(CELLS[0])
    behind = rest.split(CELLS[1])[1]
    kinds = [kind for kind in methods.KINDS if kind != "auto"]
    lines = [f"| | {' | '.join(tasks.KINDS)} |", "|---" * (len(tasks.KINDS) + 1) + "|"]
    for kind in kinds:
        fits = ("no" if task in methods.KINDS[kind].facts.not_for else "yes" for task in tasks.KINDS)
        lines.append(f"| `{kind}` | {' | '.join(fits)} |")
    lines.append(
        f"| `head_first` | {' | '.join('no' if task in tasks.KEEP_THEIR_HEAD else 'yes' for task in tasks.KINDS)} |"
    )
    return before + CELLS[0] + "\n".join(lines) + "\n" + CELLS[1] + behind


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    METHODS_PAGE.write_text(with_cells(METHODS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
