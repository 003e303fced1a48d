"""The commands: each verb is one call. torch is imported only by the verbs that need it."""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.errors import EXIT_CODES, Fault, GateError, RecipeError, ResourceError, TunesmithError

if TYPE_CHECKING:
    from tunesmith.recipe.joint import AnyRecipe

app = typer.Typer(
    name="tunesmith",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune a pre-trained model on your data, on your machine, and learn honestly whether it was worth it.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()),
)

RecipeFile = Annotated[Path, typer.Argument(help="A recipe (.yaml).", show_default=False)]
RunPath = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, logs on stderr.")]
Set = Annotated[list[str], typer.Option("--set", help="Override a setting: key=value, e.g. train.epochs=2.")]
Accept = Annotated[list[str], typer.Option("--accept", help="Let a note of level stop pass, by its code.")]
Gate = Annotated[bool, typer.Option("--gate", help="Exit with 6 unless the verdict says ship.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]

MORE_MEMORY = "take fewer rows at once (data.limit, a smaller file), or a machine with more memory"


@app.command()
def new(
    data: Annotated[Path, typer.Argument(help="Rows, or a folder of images or with train, test in it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the recipe goes.")] = Path("recipe.yaml"),
    test: Annotated[Path | None, typer.Option("--test", help="Rows to judge by, sealed until the end.")] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Rows to choose the best step by.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="A base model of your own choice.")] = None,
    json: Json = False,
) -> None:
    """Look at the data and write a recipe, the reason beside each choice."""
    _stay_offline("package:")
    from tunesmith.folder import require_permission
    from tunesmith.printing import print_proposal
    from tunesmith.proposal import propose, write_proposal

    require_permission(output)
    lines = propose(data, model, validation, test)
    write_proposal(lines, output)
    print_proposal(lines, output, json)


@app.command()
def check(recipe: RecipeFile, set_: Set = [], json: Json = False) -> None:  # noqa: B006
    """Say everything that can be said before it costs. Exits with 3 if a note says stop."""
    from tunesmith.printing import print_check
    from tunesmith.recipe.data import uses_hub
    from tunesmith.recipe.reading import read_recipe

    settings = read_recipe(recipe, set_)
    _stay_offline(settings.model, uses_hub(*settings.sources))
    from tunesmith.recipe.placing import placing

    with _without_collector(), placing(recipe, set_):
        from tunesmith.checking import check

        notes, choices, resolved = check(settings)
    print_check(notes, choices, resolved, json)
    if any(note.level == "stop" for note in notes):
        raise typer.Exit(3)


@app.command()
def run(
    recipe: RecipeFile,
    set_: Set = [],  # noqa: B006
    accept: Accept = [],  # noqa: B006
    gate: Gate = False,
    json: Json = False,
) -> None:
    """Train, judge, report: from a recipe to a run folder with a verdict."""
    from tunesmith.recipe.placing import placing
    from tunesmith.recipe.reading import read_recipe

    settings = read_recipe(recipe, set_)
    with placing(recipe, set_):
        _train(settings, "run", settings, accept, gate, json)


@app.command()
def resume(run: RunPath, accept: Accept = [], gate: Gate = False, json: Json = False) -> None:  # noqa: B006
    """Go on with an interrupted run, exactly as if it had not been interrupted."""
    from tunesmith.folder import RunFolder
    from tunesmith.recipe.reading import read_recipe

    folder = RunFolder(run)
    settings = read_recipe(folder.recipe) if folder.exists else None
    _train(settings, "resume", run, accept, gate, json)


def _train(settings: AnyRecipe | None, verb: str, subject: Any, accept: list[str], gate: bool, json: bool) -> None:
    from tunesmith.recipe.data import uses_hub

    sources = settings.sources if settings else []
    _stay_offline(settings.model if settings else "", uses_hub(*sources))
    from tunesmith import launch

    processes = settings.machine.processes if settings else 1
    if processes > 1 and not launch.is_started():
        return launch.start(processes, sys.argv[1:])
    from tunesmith.printing import print_run
    from tunesmith.run import is_first, resume, run
    from tunesmith.voices import choose_voice

    voice = choose_voice(json)
    finished = run(subject, accept, voice) if verb == "run" else resume(subject, accept, voice)
    if launch.is_started() and not is_first():
        return
    print_run(finished, json)
    if gate and finished.verdict["ship"] is not True:
        raise GateError("the verdict does not say ship", str(finished.folder.verdict), "read its reasons")


@app.command()
def evaluate(
    run: RunPath,
    data: Annotated[str, typer.Option("--data", help="Labelled rows: a file, a glob, or hub:owner/name.")],
    json: Json = False,
) -> None:
    """Score a run's model on a labelled file. Looks at its sealed test are counted."""
    _stay_offline("", data.startswith("hub:"))
    from tunesmith.open import Run
    from tunesmith.printing import print_evaluation

    print_evaluation(Run(run).evaluate(data), data, json)


@app.command()
def predict(
    run: RunPath,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts, or paths of images.", show_default=False)] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Rows: a file, glob, hub:owner/name; images: a folder.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where answers go (.jsonl, .csv, .parquet); else JSON lines.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Those of all labels, or answers.")] = False,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="So many of the likeliest labels or answers.")] = 0,
    abstain_below: Annotated[
        float | None, typer.Option("--abstain-below", min=0, max=1, help="Withhold answers less probable than this.")
    ] = None,
    on_bad_row: Annotated[str, typer.Option("--on-bad-row", help="stop, or skip: a line with its fault.")] = "stop",
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it is there.")] = False,
    json: Json = False,
) -> None:
    """Answer texts, or every row of a file. Interrupted, the same command goes on where it was."""
    if bool(texts) == bool(data):
        raise RecipeError("give either texts or --data FILE", "predict")
    if on_bad_row not in ("stop", "skip"):
        raise RecipeError(f"--on-bad-row is stop or skip, not {on_bad_row!r}", "predict")
    if output is not None and data is None:
        raise RecipeError("-o goes with --data FILE", "predict", "for texts, send what is printed to a file")
    _stay_offline("", data is not None and data.startswith("hub:"))
    from tunesmith.answering import Details, answer_file, stream_answers
    from tunesmith.open import Run
    from tunesmith.printing import print_answered, print_answers, print_stream
    from tunesmith.voices import choose_voice

    opened = Run(run)
    details = Details(probabilities, top_k, abstain_below)
    if data is None:
        rows = opened.rows_of(texts or [])
        print_answers(rows, opened.predict(rows, probabilities, top_k, abstain_below), json)
    elif output is None:
        print_stream(stream_answers(opened, data, None, details, on_bad_row))
    else:
        print_answered(answer_file(opened, data, output, details, on_bad_row, force, choose_voice(json)), json)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write an HTML page, too.")] = None,
    json: Json = False,
) -> None:
    """Compare runs on the same rows: score, cost and paired intervals."""
    if len(runs) < 2:
        raise RecipeError("name at least two runs", "compare")
    from tunesmith.compare import compare, write_comparison
    from tunesmith.printing import print_comparison

    result = compare([str(path) for path in runs])
    if output is not None:
        write_comparison(result, output)
    print_comparison(result, json)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks or models", show_default=False)], json: Json = False
) -> None:
    """List the kinds of method or task, or the models inside installed packages."""
    from tunesmith.printing import list_kinds, print_kinds

    kinds = list_kinds(what)
    if kinds is None:
        raise RecipeError(f"no list of {what!r}", "list", "there are: methods, tasks, models")
    print_kinds(kinds, json)


@app.command()
def doctor(json: Json = False) -> None:
    """Versions, processor features and GPUs: what a bug report needs."""
    from tunesmith.printing import print_doctor
    from tunesmith.report.manifest import hardware, versions

    print_doctor({"versions": versions(), "hardware": hardware()}, json)


def _stay_offline(model: str, hub_data: bool = False) -> None:
    """Before any library is imported: only a base or rows that are named by a hub id may use the network."""
    import os

    from tunesmith.models.safety import switch_off_downloads
    from tunesmith.recipe import is_path

    switch_off_downloads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not hub_data and (not model or model.startswith("package:") or is_path(model)):
        os.environ["HF_HUB_OFFLINE"] = "1"


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """For a command of seconds: nothing of it is garbage in circles, and looking for such among all rows, again and
    again while libraries load, takes a seventh of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # or the interpreter would look through all of it once more before it ends
        gc.enable()


def main() -> None:
    """Run a command and end with its documented exit code. A fault of ours shows its traceback only with --debug."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    else:  # what libraries will change some day is told to their callers, and that is us
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|transformers|peft)\.")
    sys.exit(_run(debug))


def _run(debug: bool) -> int:
    try:
        result = app(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TunesmithError as error:
        if debug:
            raise
        for fault in error.faults:
            typer.echo(f"error: {fault}", err=True)
        return error.exit_code
    except MemoryError as error:
        if debug:
            raise
        typer.echo(f"error: {Fault('', f'out of memory ({error})', MORE_MEMORY)}", err=True)
        return ResourceError.exit_code
    except typer.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    except Exception as error:
        if debug:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    """Usage errors of the command line end with 2; anything else is our own fault and ends with 1."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        typer.echo(f"error: {usage()}", err=True)
        return 2
    fault = Fault(
        "", f"{type(error).__name__}: {error}", "this is a fault of ours: run again with --debug and report it"
    )
    typer.echo(f"error: {fault}", err=True)
    return 1
