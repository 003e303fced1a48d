"""What is held back from training, by the hash of what a row is about.

The rule: a row is held back if the hash of its group (or of its normalised input) lies below the share. So
duplicates never straddle, rows that are appended later move nobody, and neither seed, order nor file matters.
Then each class with at least two distinct inputs and none held back gives the one with its smallest hash.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tunesmith.data.documents import DOCUMENT
from tunesmith.data.rows import Row, hash_share, input_keys
from tunesmith.recipe.columns import Column


def split_rows(
    rows: Sequence[Row],
    share: float,
    columns: Sequence[Column],
    group: str | None,
    stratum: str | None = "label",
    salt: str = "",
) -> tuple[list[Row], list[Row]]:
    """Split rows into (kept, held).

    Args:
        share: the share to hold, 0 to 1 (exclusive). 0 gives none.
        columns: the task's columns; the input columns make the key where no group is named.
        group: a column whose equal values stay together; rows without one go by their input, pieces of a text by it.
        stratum: the column of the class, for the second rule; None for tasks without one.
        salt: what sets this split's hashes apart from another's: of the rows that a first split kept, the second
            would find none below the same threshold.
    """
    keys = input_keys(rows, columns)
    if group:  # a row without one stands for itself
        wholes = [row.get(DOCUMENT) or key for row, key in zip(rows, keys, strict=True)]
        keys = [whole if row.get(group) is None else str(row[group]) for row, whole in zip(rows, wholes, strict=True)]
    keys = [salt + key for key in keys] if salt else keys
    held = {key for key in keys if hash_share(key) < share}
    if stratum is not None and share > 0:
        keys_of = _keys_of_classes(rows, keys, stratum)
        held -= _last_of_each_class(keys_of, held)
        held |= _one_of_each_class(keys_of, held)
    kept = [row for row, key in zip(rows, keys, strict=True) if key not in held]
    return kept, [row for row, key in zip(rows, keys, strict=True) if key in held]


def _last_of_each_class(keys_of: dict[str, set[str]], held: set[str]) -> set[str]:
    """Of each class of two or more that the threshold holds back whole, the key with the largest hash."""
    back: set[str] = set()
    for mine in keys_of.values():
        if len(mine) >= 2 and mine <= held and mine.isdisjoint(back):
            back.add(max(mine, key=lambda key: (hash_share(key), key)))
    return back


def _keys_of_classes(rows: Sequence[Row], keys: Sequence[str], stratum: str) -> dict[str, set[str]]:
    keys_of: dict[str, set[str]] = defaultdict(set)
    for row, key in zip(rows, keys, strict=True):
        label = row.get(stratum)
        if isinstance(label, str):
            keys_of[label].add(key)
    return {label: keys_of[label] for label in sorted(keys_of)}


def _one_of_each_class(keys_of: dict[str, set[str]], held: set[str]) -> set[str]:
    given: set[str] = set()
    for mine in keys_of.values():
        if len(mine) < 2 or not (mine.isdisjoint(held) and mine.isdisjoint(given)):
            continue
        for key in sorted(mine, key=lambda key: (hash_share(key), key)):
            # a group can hold several classes: never take the last one that another class has left to train on
            others = (other for other in keys_of.values() if key in other)
            if all(other - held - given - {key} for other in others):
                given.add(key)
                break
    return given


def take(rows: Sequence[Row], limit: int | None, columns: Sequence[Column]) -> list[Row]:
    """At most `limit` rows, chosen by hash (so that a larger limit contains a smaller one), in file order."""
    if limit is None or len(rows) <= limit:
        return list(rows)
    keys = input_keys(rows, columns)
    ranked = sorted(range(len(rows)), key=lambda index: (hash_share("limit\x1f" + keys[index]), index))
    return [rows[index] for index in sorted(ranked[:limit])]


def overlap(rows: Sequence[Row], others: Sequence[Row], columns: Sequence[Column]) -> list[int]:
    """Indices of `rows` whose normalised input also occurs in `others`."""
    if not rows:
        return []
    known = set(input_keys(others, columns))
    return [index for index, key in enumerate(input_keys(rows, columns)) if key in known]
