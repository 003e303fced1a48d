"""The floors of the house: imports point down, files and functions stay small, nothing that runs code is called."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith

SOURCE = Path(tunesmith.__file__).parent
ROOT = Path(__file__).parents[2]
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(file.relative_to(SOURCE)) for file in FILES]

LONGEST_FILE, LONGEST_FUNCTION = 400, 50
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "yaml.load"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "yaml"}
BANNED_ARGUMENTS = {"shell", "trust_remote_code"}
REVIEWED = {"models/importers.py": ["torch.load"]}
"""What one file may call: torch's reader of plain tensors, on a file whose SHA-256 is known."""
HEAVY = {"torch", "transformers", "peft"}


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def dotted(node: ast.expr) -> str:
    """`a.b.c` as written; nothing for what is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def banned(tree: ast.AST) -> Iterator[str]:
    """Every banned call, import and argument of a file, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if dotted(node.func) in BANNED_CALLS:
                yield f"{node.lineno}: {dotted(node.func)}()"
            for keyword in node.keywords:
                given = not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                if keyword.arg in BANNED_ARGUMENTS and given:
                    yield f"{node.lineno}: {keyword.arg}="
        for name in imported(node):
            if name.partition(".")[0] in BANNED_MODULES:
                yield f"{node.lineno}: import {name}"  # type: ignore[attr-defined]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_the_package_is_whole() -> None:
    """The laws below look at the package itself, not at an empty folder."""
    assert len(FILES) > 30 and "run.py" in NAMES


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_file_runs_foreign_code(file: Path) -> None:
    """No pickle, no eval, no shell, no code of a model's makers."""
    found = [call.partition(" ")[2].removesuffix("()") for call in banned(parsed(file))]
    assert found == REVIEWED.get(file.relative_to(SOURCE).as_posix(), [])


def test_the_reviewed_importer_opens_known_bytes_as_plain_tensors_alone() -> None:
    tree = parsed(SOURCE / "models" / "importers.py")
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"]
    given = {keyword.arg: keyword.value for node in loads for keyword in node.keywords}
    assert len(loads) == 1 and isinstance(given["weights_only"], ast.Constant) and given["weights_only"].value is True


BAD = """
import pickle
from yaml import load
eval("1")
torch.load("x")
subprocess.run("x", shell=True)
AutoModel.from_pretrained("x", trust_remote_code=given)
os.system("x")
"""


def test_the_search_finds_what_is_banned() -> None:
    assert sorted(found.partition(":")[0] for found in banned(ast.parse(BAD))) == list("2345678")
    assert list(banned(ast.parse("run(shell=False); re.compile('a'); model.eval()"))) == []


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_files_and_functions_stay_small(file: Path) -> None:
    """Files of at most 400 lines, functions of at most 50, and no file for odds and ends."""
    assert len(file.read_text("utf-8").splitlines()) <= LONGEST_FILE
    assert file.stem not in VAGUE
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, f"{node.name} is too long"


@pytest.mark.parametrize("file", [file for file in FILES if file.parent.name in ("methods", "tasks")], ids=str)
def test_methods_and_tasks_do_not_know_each_other(file: Path) -> None:
    """Said by import-linter too; here by the text itself, inner imports included."""
    other = {"methods": "tunesmith.tasks", "tasks": "tunesmith.methods"}[file.parent.name]
    names = [name for node in ast.walk(parsed(file)) for name in imported(node)]
    assert not [name for name in names if name.startswith(other)]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_devices_knows_torch_distributed(file: Path) -> None:
    """How processes talk is known in one file; the launcher that starts them, in another."""
    names = [name for node in ast.walk(parsed(file)) for name in imported(node)]
    starts = ("torch.distributed.elastic", "torch.distributed.launcher") if file.name == "launch.py" else ()
    names = [name for name in names if not name.startswith(starts or "-")]
    assert file.name == "devices.py" or not [name for name in names if name.startswith("torch.distributed")]


def test_imports_point_down() -> None:
    """Every contract of pyproject.toml is kept."""
    linter = shutil.which("lint-imports", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert linter, "install the dev extra: import-linter"
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    paths = os.pathsep.join([str(SOURCE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [linter, *config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "120"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout


@pytest.mark.parametrize("module", ["tunesmith", "tunesmith.cli", "tunesmith.recipe.reading", "tunesmith.folder"])
def test_the_light_rooms_import_nothing_heavy(module: str) -> None:
    """`tunesmith --help` and reading a recipe need no torch."""
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {HEAVY!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[]", ended.stderr


def test_the_python_calls_can_be_made_twice() -> None:
    """`tunesmith.run(...)` stays a function: importing the module of that name must not take its place."""
    code = (
        "import tunesmith as ts, tunesmith.run as a, tunesmith.open as b, tunesmith.compare as c\n"
        "from importlib import import_module\n"
        "[import_module(f'tunesmith.{name}') for name in ('run', 'open', 'compare')]\n"
        "print([callable(call) for call in (ts.run, ts.check, ts.resume, ts.open, ts.compare)])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == str([True] * 5), ended.stderr
