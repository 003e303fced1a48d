"""The command as a process of its own: how fast it explains itself, what it imports, how it dies."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from forked import Forked

ROOT = Path(__file__).parents[2]


def call(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)  # type: ignore[call-overload]


def processor_seconds(*command: str) -> float:
    """Processor time of a command that uses one core: what its user waits for on a machine with nothing else to do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, timeout=240, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


EMPTY_COMMAND = """
import sys, typer
from pathlib import Path
app = typer.Typer(add_completion=False)
@app.command()
def nothing(path: Path) -> None: ...
sys.argv = ["nothing", "--help"]
app()
"""


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("predict", "--help")], ids=" ".join)
def test_help_takes_at_most_0_3_seconds(arguments: tuple[str, ...]) -> None:
    """Or, on a slower machine, at most 1.5 times what a command that does nothing takes there in the same minutes."""
    ours, empty = float("inf"), float("inf")
    for _ in range(15):
        ours = min(ours, processor_seconds("-m", "tunesmith", *arguments))
        empty = min(empty, processor_seconds("-c", EMPTY_COMMAND))
        if ours <= 0.3:
            return
    assert ours <= 1.5 * empty


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "methods"], ["check", "none.yaml"]])
def test_verbs_that_need_no_torch_do_not_import_it(arguments: list[str]) -> None:
    program = (
        "import sys; from tunesmith import cli; "
        f"sys.argv = ['tunesmith', *{arguments!r}]; cli._run(debug=False); "
        "print(sorted({'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"


def test_debug_shows_the_traceback_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: [")
    plain, debug = call("check", str(tmp_path / "bad.yaml")), call("check", str(tmp_path / "bad.yaml"), "--debug")
    assert plain.returncode == 2 and "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr and "RecipeError" in debug.stderr


@pytest.mark.slow
def test_killed_damaged_and_signalled_runs_end_as_the_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short course of the crash bench: `python -m bench.crash` does all of it, and starts every run anew."""
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import crash, lab

    def spawn(arguments: list[str], log: Path, before: list[str] | None = None) -> Forked:
        log.write_bytes(b"")
        return Forked(arguments, log.parent, out=log.with_suffix(".out"), told=log)

    monkeypatch.setattr(lab, "spawn", spawn)
    monkeypatch.setattr("sys.argv", ["crash", "--kills", "2", "--only", "kills", "--work", str(tmp_path)])
    code = crash.main()
    printed = capsys.readouterr()
    assert code == 0, printed.out[-3000:] + printed.err[-1000:]
    figures = json.loads(printed.out)["sections"]["kill"]
    assert figures["held"] == figures["cases"] == 2
    assert figures["inside_a_write"] == 1
