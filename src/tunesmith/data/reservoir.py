"""Training rows that a run keeps, so that a later one can rehearse them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data.rows import Row, hash_share
from tunesmith.data.sources import Reading, read_source, stop_or_skip
from tunesmith.recipe.columns import Column


def keep(rows: Sequence[Row], columns: Sequence[Column], most: int, seed: int) -> list[dict[str, Any]]:
    """At most `most` rows as JSON objects under our column names, in their order.

    Each row has a place between 0 and 1 that follows from (seed, row) alone, and the lowest are kept: a uniform sample
    without replacement, whatever the order of the rows, of which a larger one contains a smaller one. Rows that are the
    same have the same place.
    """
    lines = [{column.name: row[column.name] for column in columns if row.get(column.name) is not None} for row in rows]
    places = [hash_share(f"reservoir\x1f{seed}\x1f{orjson.dumps(line).decode()}") for line in lines]
    lowest = sorted(range(len(rows)), key=lambda index: (places[index], index))[:most]
    return [lines[index] for index in sorted(lowest)]


def read_reservoir(path: Path, columns: Sequence[Column]) -> Reading:
    """The rows that were kept, of whatever lines are left.

    Raises:
        DataError: there are none, or one is no row.
    """
    reading = read_source(str(path), columns, {})
    stop_or_skip(reading, "stop")
    return reading
