"""The docs cannot drift: the reference page is the code's own, and every block of the README runs."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest

from forked import Forked

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language ("" for those without one), in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_the_reference_page_is_made_from_the_code() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == module.reference(), "run `make docs`"
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert methods == module.with_measured(module.with_cells(methods)), "run `make docs`"
    tasks = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert tasks == module.with_tasks(tasks), "run `make docs`"


def test_what_was_measured_stands_with_its_rows(tmp_path: Path) -> None:
    """Of evidence that is missing the page says so; of what is there, how many rows it rests on."""
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    page = "before\n" + "old\n".join(generate["MEASURED"]) + "behind\n"
    empty = generate["with_measured"](page, tmp_path)
    assert empty.count("not measured yet") == len(generate["TABLES"]) and "old" not in empty
    row = {
        "cell": "lora", "primary": "accuracy", "rows": {"train": 2926, "validation": 154, "test": 3080}, "epochs": 3,
        "seeds": 1, "quality": 0.9, "interval": [0.88, 0.92], "deviation": None, "least": 0.9, "share": 0.01,
        "trainable": 1000, "parameters": 100_000, "cpu_seconds": 60.0, "peak_memory_bytes": 5e8, "model_bytes": 1e6,
    }  # fmt: skip
    several = {**row, "cell": "full", "seeds": 5, "interval": None, "deviation": 0.02, "least": 0.85}
    figures = {"table": [row, several, {"cell": "prompt", "refused": "no"}], "threads": 1, "unfinished": ["dora"]}
    record = {"figures": figures, "date": "2026-01-01T00:00:00", "command": "python -m bench.methods banking77"}
    (tmp_path / "methods-banking77.json").write_text(json.dumps(record))
    found = generate["with_measured"](page, tmp_path)
    assert "3,080 test rows, 2,926 training rows" in found and "not run: dora" in found
    assert "| lora | 0.900 | 0.880 to 0.920 | 1,000 | 1.00% | 60 | 500 | 1.0 |" in found
    assert "sd 0.020, worst 0.850, 5 seeds" in found and "| prompt | refused: no |" in found
    assert generate["with_measured"](found, tmp_path) == found and found.endswith("behind\n")


def test_what_was_measured_of_tasks(tmp_path: Path) -> None:
    """Both sides with their rows; a verdict with its paired gain."""
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    page = "before\n" + "old\n".join(generate["TASKS_MEASURED"]) + "behind\n"
    one = {
        "rows": {"train": 1000, "validation": 9, "test": 996}, "seeds": [0], "primary": "entity_f1",
        "interval": [0.48, 0.54], "gate": {"our_mean": 0.51, "peer_mean": 0.58},
    }  # fmt: skip
    scores = {"tunesmith": {"entity_f1": [0.50, 0.51, 0.52]}}
    figures = {"sets": {"one": one, "three": {**one, "seeds": [0, 1, 2], "scores": scores}}}
    (tmp_path / "sets-entities.json").write_text(json.dumps({"figures": figures}))
    gain = {"value": 0.1, "low": 0.05, "high": 0.15}
    judged = {
        "cell": "letters", "primary": "chrf", "rows": {"train": 7, "test": 5}, "quality": 0.2, "interval": [0.1, 0.3],
        "verdict": {"ship": True, "over": "copy", "gain": gain},
    }  # fmt: skip
    table = {"table": [judged], "threads": 1, "unfinished": []}
    record = {"figures": table, "date": "2026-01-01T00:00:00", "command": "python -m bench.methods tasks"}
    (tmp_path / "methods-tasks.json").write_text(json.dumps(record))
    found = generate["with_tasks"](page, tmp_path)
    assert "| one (entities) | entity_f1 | 1,000, 996 | 1 | 0.510 (0.480 to 0.540) | 0.580 |" in found
    assert "old" not in found
    assert "| 3 | 0.510 (mean, sd 0.010; the first 0.480 to 0.540) | 0.580 |" in found
    assert "| letters | chrf | 7, 5 | 0.200 (0.100 to 0.300) | +0.100 (+0.050 to +0.150) over copy | ship |" in found
    assert generate["with_tasks"](found, tmp_path) == found and found.endswith("behind\n")


def test_the_readme_names_every_command() -> None:
    from tunesmith.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"`tunesmith {name}" in README


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_recipes_of_the_docs_are_recipes(page: Path) -> None:
    """Every block that names a model is a whole recipe."""
    from tunesmith.recipe.reading import check_recipe, parse_yaml

    for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        located = parse_yaml(text, page.name)
        if "model" in located.values and ("data" in located.values or "tasks" in located.values):
            check_recipe(located)


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the two files that the README speaks of: a few rows of the shipped data."""
    for name, source, many in (("tickets.jsonl", "train", 160), ("tickets_test.jsonl", "test", 60)):
        lines = (ROOT / "examples" / "data" / "banking77" / f"{source}.jsonl").read_text(encoding="utf-8").splitlines()
        few = [line for line in lines if json.loads(line)["label"] in ("card_arrival", "lost_or_stolen_card")]
        (tmp_path / name).write_text("\n".join(few[:many]) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_the_first_run_of_the_readme_runs(desk: Path) -> None:
    (desk / "recipe.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    commands = [line.split("#")[0].strip() for line in blocks("")[1].splitlines()]
    assert [command.split()[1] for command in commands] == ["check", "run", "predict"]
    for command in commands:
        arguments = [part.strip('"') for part in re.findall(r'"[^"]*"|\S+', command)][1:]
        if arguments[0] == "run":
            arguments += ["--set", "train.steps=12"]
        done = Forked(arguments, desk)
        assert done.wait() == 0, done.said
    assert "card" in done.printed
    assert (desk / "runs" / "tickets" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_python_of_the_readme_runs(desk: Path) -> None:
    code = blocks("python")[0].replace("method=", "train=ts.Train(steps=12),\n    method=")
    done = Forked(code, desk)
    assert done.wait() == 0, done.said
    assert "'value'" in done.printed and "card" in done.printed
