"""A recipe's `data:` as rows in three splits."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.data.documents import group_of
from tunesmith.data.rows import Row, input_keys
from tunesmith.data.sources import Reading, describe_file, files_of, raw_rows, read_source, stop_or_skip
from tunesmith.data.splits import overlap, split_rows, take
from tunesmith.errors import DataError, Fault
from tunesmith.recipe import Data
from tunesmith.recipe.columns import Column
from tunesmith.recipe.data import SOURCES, in_words


@dataclass
class Splits:
    """The rows of a run.

    Attributes:
        test: sealed; empty if the recipe names none.
        general: of the language at large; neither learned nor a split; empty if the recipe names none.
        leaked: indices of test rows whose normalised input is also among the rows that are learned.
        skipped: bad rows that were left out (`on_bad_row: skip`).
        notes: how columns were read where that was not by their own name.
        files: one SHA-256 for the files of each split (of the one file, where there is one).
        parts: the SHA-256 of every file, by split.
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    general: list[Row] = field(default_factory=list)
    leaked: list[int] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)

    def named(self) -> dict[str, list[Row]]:
        """The splits that have rows, by name."""
        return {name: rows for name in ("train", "validation", "test") if (rows := getattr(self, name))}


NAMING_ROWS = 100


def column_names(source: str | list[str]) -> list[str]:
    """The columns of the first rows of a source."""
    return list(dict.fromkeys(name for values in first_values(source, NAMING_ROWS) for name in values))


def first_values(source: str | list[str], most: int) -> list[dict[str, Any]]:
    """The first good rows of a source, as they stand in it."""
    raws = (raw for name in files_of(source) for raw in raw_rows(describe_file(name)))
    return list(itertools.islice((raw.values for raw in raws if not raw.fault), most))


def load_splits(
    data: Data, columns: Sequence[Column], slices: Sequence[str] = (), learns_validation: bool = False
) -> Splits:
    """Read every file of a recipe and split it; columns named in `slices` are kept in every split.

    Args:
        learns_validation: whether the validation rows are learned in the end, too (`train.refit`).

    Raises:
        DataError: with every bad row named.
    """
    group = (data.group,) if data.group else ()
    together = group_of(columns, data.group)
    readings: dict[str, Reading] = {}
    for split in SOURCES:
        source = getattr(data, split)
        if isinstance(source, str | list):
            extra = (*slices, *(group if split == "train" else ()))
            readings[split] = read_source(source, columns, data.columns, extra, split)
            stop_or_skip(readings[split], data.on_bad_row)
    rows = readings["train"].rows
    test: list[Row] = []
    stratum = next((column.name for column in columns if column.kind == "label"), None)
    if isinstance(data.test, float):
        rows, test = split_rows(rows, data.test, columns, together, stratum, salt="test\x1f")
        # The file that holds the sealed rows: whoever scores the model on it looks at them.
        readings["test"] = replace(readings["train"], faults=[], notes=[])
    elif "test" in readings:
        test = readings["test"].rows
    train = take(rows, data.limit, columns)
    if "validation" in readings:
        validation = readings["validation"].rows
    else:
        assert isinstance(data.validation, float | int)
        train, validation = split_rows(train, float(data.validation), columns, together, stratum)
    for purpose, left in (("train on", train), ("validate on", validation), ("test on", test if data.test else True)):
        if not left:
            remedy = "give more rows, or change data.validation or data.test"
            raise DataError(f"no rows left to {purpose}", in_words(data.train), remedy)
    return Splits(
        train=train,
        validation=validation,
        test=test,
        general=readings["general"].rows if "general" in readings else [],
        leaked=overlap(test, [*train, *validation] if learns_validation else train, columns),
        skipped=[fault for reading in readings.values() for fault in reading.faults],
        notes=[note for reading in readings.values() for note in reading.notes],
        files={split: reading.digest for split, reading in readings.items()},
        parts={split: reading.hashes for split, reading in readings.items()},
    )


def hash_of(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A hash of a split's rows in order: the same rows give the same hash on any machine."""
    digest = hashlib.sha256()
    for row, key in zip(rows, input_keys(rows, columns), strict=True):
        digest.update(key.encode("utf-8", "surrogatepass") + b"\x1e")
        for column in columns:
            if not column.is_input:
                digest.update(str(row.get(column.name)).encode("utf-8", "surrogatepass") + b"\x1e")
    return digest.hexdigest()
