"""Where rows come from and how they are split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.recipe.base import HeldShare, PositiveInt, Settings, Share

SOURCES = ("train", "validation", "test", "general")
"""Keys that name files."""

HUB = "hub:"
"""What a data set on a hub begins with: `hub:owner/name[@revision][:split]`."""

Files = str | Annotated[list[str], Field(min_length=1)]


class Data(Settings):
    """Where the rows are, how their columns are called, and what is held back to judge by.

    Rows come in files: csv, tsv, json, jsonl, parquet, arrow, each also gzipped (.gz). `train`, `validation` and `test`
    are each a file, a list of files, a glob (`data/*.csv`, read in the order of names) or a data set on a hub
    (`hub:owner/name[@revision][:split]`)."""

    train: Files
    """The rows to learn from. Paths are relative to the recipe. Each file's columns are found for itself."""

    validation: Files | Share = 0.1
    """Files, or the share split off `train` by the hash of the input, so that equal inputs never straddle; with
    `group` by the hash of its value, so that equal inputs may, in two groups."""

    test: Files | HeldShare | None = None
    """Sealed rows: scored once, after training. Every further look is counted in the run folder. Files, or the share
    split off `train` by the hash of the input, before `limit` and `validation` take theirs."""

    general: Files | None = None
    """Texts of the language at large, for language-modeling: never trained on; how well they are known before and
    after tells what the domain cost."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name: the name in your files. Only where they differ. A label may be joined from several columns to a
    path: `label: field/topic`."""

    group: str | None = None
    """A column whose equal values never straddle a split that is made here (a share): a patient, a case, an author.
    Rows without a value go by their input. Between files it is yours to keep them apart."""

    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` names every bad row and ends with exit code 3; `skip` counts and names them and goes on."""

    limit: PositiveInt | None = None
    """Use only this many rows of `train` (spread over the file by hash): a first, small run."""

    keep_rows: Annotated[int, Field(ge=0, le=2**40)] = 0
    """Copy this many training rows, a random sample, into the run folder (`reservoir.jsonl`, readable by its owner
    alone), so that a later run can rehearse them when the files are gone. Leave it at 0 where rows must not be copied;
    the file may be deleted at any time. 0: none."""


def with_paths(source: Any, change: Callable[[str], str]) -> Any:
    """A source with every path in it changed. Data sets on a hub, shares and None stay as they are."""
    if isinstance(source, list):
        return [with_paths(item, change) for item in source]
    return change(source) if isinstance(source, str) and not source.startswith(HUB) else source


def uses_hub(*parts: Data) -> bool:
    """Whether any of the rows come from a hub."""
    sources = [getattr(data, key) for data in parts for key in SOURCES]
    names = [name for source in sources for name in (source if isinstance(source, list) else [source])]
    return any(isinstance(name, str) and name.startswith(HUB) for name in names)


def in_words(source: str | Sequence[str]) -> str:
    """A source for a message or a report."""
    return source if isinstance(source, str) else ", ".join(source)
