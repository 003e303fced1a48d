"""Writes docs/recipe.md from the settings classes, the only place where a setting is described, and the tables of
docs/methods.md from the classes and from what was measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from tunesmith.errors import EXIT_CODES
from tunesmith.recipe import Recipe, methods, tasks
from tunesmith.recipe.base import Settings
from tunesmith.recipe.joint import NOT_JOINED, JointRecipe, Member

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


MEASURED = ("<!-- measured methods, made by docs/generate.py -->\n", "<!-- end of what was measured -->\n")
EVIDENCE = PAGE.parent.parent / "bench" / "evidence"
TABLES = {
    "banking77": "BANKING77 (which of 77 intents a question has) by MiniLM",
    "ncbi_disease": "NCBI disease (names of diseases in abstracts) by MiniLM",
    "trec6-smollm2": "TREC (which of six kinds of thing a question asks for) by SmolLM2, 135 M",
    "small-data": "Few rows: which setting raises the mean of five seeds, or draws them together",
    "ulmfit": "A language model of the domain first, on TREC by MiniLM",
}


def with_measured(page: str, evidence: Path = EVIDENCE) -> str:
    """The page of methods with a table of every piece of evidence that there is."""
    lines: list[str] = []
    for name, title in TABLES.items():
        file = evidence / f"methods-{name}.json"
        if not file.is_file():
            lines += [f"**{title}**: not measured yet.", ""]
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        rows = record["figures"]["table"]
        lines += [f"**{title}**: {rests_on(record)}.", ""]
        lines += ["| | quality | 95 %, or of seeds | moving weights | share | CPU seconds | peak MB | MB on disk |"]
        lines += ["|---|---|---|---|---|---|---|---|", *(measured_row(row) for row in rows), ""]
    return between(page, MEASURED, "\n".join(lines))


def rests_on(record: dict[str, Any]) -> str:
    """The metric and the rows that all of a table shares, and what it was made by."""
    rows = [row for row in record["figures"]["table"] if "refused" not in row]
    metrics = " or ".join(sorted({row["primary"] for row in rows}))
    train, test = (
        " or ".join(f"{many:,}" for many in sorted({row["rows"][split] for row in rows})) for split in ("train", "test")
    )
    return f"{metrics} on {test} test rows, {train} training rows, {made_by(record)}"


def made_by(record: dict[str, Any]) -> str:
    """The threads, the day and the command of a table, and which of its rows are not there."""
    missing = record["figures"]["unfinished"]
    told = f"{record['figures']['threads']} thread(s), {record['date'][:10]}; `{record['command']}`"
    return told + (f"; not run: {', '.join(missing)}" if missing else "")


def measured_row(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"| {row['cell']} | refused: {row['refused']} | | | | | | |"
    spread = f"sd {row['deviation']:.3f}, worst {row['least']:.3f}, {row['seeds']} seeds" if row["seeds"] > 1 else ""
    spread = spread or f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}"
    costs = f"{row['trainable']:,.0f} | {row['share']:.2%} | {row['cpu_seconds']:,.0f}"
    sizes = f"{row['peak_memory_bytes'] / 1e6:,.0f} | {row['model_bytes'] / 1e6:,.1f}"
    return f"| {row['cell']} | {row['quality']:.3f} | {spread} | {costs} | {sizes} |"


TASKS_PAGE = PAGE.with_name("tasks.md")
TASKS_MEASURED = ("<!-- measured tasks, made by docs/generate.py -->\n", "<!-- end of what was measured -->\n")
GROUPS = ("classification", "entities", "answers", "images", "writing", "language", "similarity")


def with_tasks(page: str, evidence: Path = EVIDENCE) -> str:
    """The page of tasks with what was measured of them: beside another trainer, and against the baselines."""
    lines = ["| set | metric | training, test rows | seeds | ours (95 %) | the Trainer |", "|---|---|---|---|---|---|"]
    for group in GROUPS:
        file = evidence / f"sets-{group}.json"
        if file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            lines += [
                beside_the_trainer(f"{name} ({group})", found) for name, found in record["figures"]["sets"].items()
            ]
    file = evidence / "methods-tasks.json"
    if file.is_file():
        record = json.loads(file.read_text(encoding="utf-8"))
        lines += ["", f"By the method that `new` proposes, or the one that is named, {made_by(record)}:", ""]
        lines += [
            "| set | metric | training, test rows | score (95 %) | gain over the best baseline (95 %) | verdict |",
            "|---|---|---|---|---|---|",
        ]
        lines += [judged_row(row) for row in record["figures"]["table"]]
    return between(page, TASKS_MEASURED, "\n".join(lines) + "\n")


def beside_the_trainer(name: str, found: dict[str, Any]) -> str:
    gate, (low, high) = found["gate"], found["interval"]
    seeds = len(found["seeds"])
    spread = f"{low:.3f} to {high:.3f}"
    if seeds > 1:
        deviation = statistics.stdev(found["scores"]["tunesmith"][found["primary"]])
        spread = f"mean, sd {deviation:.3f}; the first {spread}"
    sides = f"{gate['our_mean']:.3f} ({spread}) | {gate['peer_mean']:.3f}"
    return f"| {name} | {found['primary']} | {rows_of(found)} | {seeds} | {sides} |"


def rows_of(found: dict[str, Any]) -> str:
    return f"{found['rows']['train']:,}, {found['rows']['test']:,}"


def judged_row(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    verdict = row["verdict"]
    gain, word = verdict["gain"], {True: "ship", False: "do not ship", None: "none"}[verdict["ship"]]
    told = (
        f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) over {verdict['over']}" if gain else "none"
    )
    score = f"{row['quality']:.3f} ({low:.3f} to {high:.3f})"
    return f"| {row['cell']} | {row['primary']} | {rows_of(row)} | {score} | {told} | {word} |"


def between(page: str, marks: tuple[str, str], text: str) -> str:
    """The page with another text between two marks."""
    before, rest = page.split(marks[0])
    return before + marks[0] + text + marks[1] + rest.split(marks[1])[1]


def with_cells(page: str) -> str:
    """The page of methods with its table of methods and tasks."""
    kinds = [kind for kind in methods.KINDS if kind != "auto"]
    lines = [f"| | {' | '.join(tasks.KINDS)} | several `tasks` |", "|---" * (len(tasks.KINDS) + 2) + "|"]
    for kind in kinds:
        fits = ["no" if task in methods.KINDS[kind].facts.not_for else "yes" for task in tasks.KINDS]
        fits.append("no" if kind in NOT_JOINED else "yes")
        lines.append(f"| `{kind}` | {' | '.join(fits)} |")
    fits = ["no" if task in tasks.KEEP_THEIR_HEAD else "yes" for task in tasks.KINDS]
    lines.append(f"| `head_first` | {' | '.join(fits)} | yes |")
    return between(page, CELLS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    TASKS_PAGE.write_text(with_tasks(TASKS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    METHODS_PAGE.write_text(with_measured(with_cells(METHODS_PAGE.read_text(encoding="utf-8"))), encoding="utf-8")
