"""What is wrong with rows before anybody trains on them: copies, leaks, labels that contradict or give themselves away.

Each check takes rows as keys (their normalised input) and labels and yields findings that name the rows concerned by
split and index. No check hands on any part of a text: a finding is shown, printed and kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from tunesmith.data import near, sensitive
from tunesmith.data.findings import Finding, counted, on_rows
from tunesmith.data.label_checks import (
    KAUFMAN,
    absent_classes,
    broken_tags,
    class_sizes,
    classes_of,
    labels_in_texts,
    lost_spans,
    odd_tags,
    targets_of,
)
from tunesmith.data.rows import Row, as_text, input_keys
from tunesmith.recipe.columns import Column

LEE = "Lee et al. 2022, arXiv:2107.06499"
CARLINI = "Carlini et al. 2021, arXiv:2012.07805"
NORTHCUTT = "Northcutt et al. 2021, arXiv:2103.14749"

SAME_TEXT = "case and spaces aside"
"""Which texts count as the same; images do where their files are, byte for byte."""

REPEATED_SHARE, REPEATED_TIMES = 0.01, 10

ACROSS = (("test", "train"), ("validation", "train"), ("test", "validation"))

Keys = Mapping[str, Sequence[str]]
Labels = Mapping[str, Sequence[str | None]]


def find_all(
    splits: Mapping[str, Sequence[Row]],
    columns: Sequence[Column],
) -> list[Finding]:
    """Every finding on rows. Checks that need a class leave rows without one out.

    Args:
        splits: "train", "validation" and "test", in this order; those that have rows.
        columns: the task's columns.
    """
    answer_of, label_of = targets_of(columns)
    keys = {name: input_keys(rows, columns) for name, rows in splits.items()}
    same = "byte for byte" if any(column.kind == "image" for column in columns) else SAME_TEXT
    answers = {name: [answer_of(row) for row in rows] for name, rows in splits.items()}
    labels = {name: [label_of(row) for row in rows] for name, rows in splits.items()}
    classes = {name: [classes_of(row, columns) for row in rows] for name, rows in splits.items()}
    inputs = [column.name for column in columns if column.is_input and column.kind != "image"]
    texts = {name: [_text(row, inputs) for row in rows] for name, rows in splits.items()}
    return [
        *(empty_texts(keys) if inputs else ()),
        *duplicates(keys, answers, same),
        *(contradictions(keys, answers) if _is_settled(columns) else ()),
        *shared_inputs(keys, same),
        *(near_copies(keys) if inputs else ()),
        *frequent_texts(keys),
        *class_sizes(labels),
        *absent_classes(classes),
        *(labels_in_texts(keys, labels) if inputs else ()),
        *broken_tags(splits, columns),
        *odd_tags(splits, columns),
        *lost_spans(splits, columns),
        *sensitive_texts(texts),
    ]


def _is_settled(columns: Sequence[Column]) -> bool:
    """Whether an input has one right answer, so that two of them contradict each other. There are many summaries."""
    return all(column.kind != "texts" for column in columns)


def _text(row: Row, inputs: Sequence[str]) -> str:
    return "\n".join([as_text(row.values[name]) for name in inputs if row.values.get(name) is not None])


# texts


def empty_texts(keys: Keys) -> Iterator[Finding]:
    """Inputs without anything that can be seen: white space, zero-width characters, controls."""
    rows = {name: [i for i, key in enumerate(mine) if not any(map(_is_seen, key))] for name, mine in keys.items()}
    if any(rows.values()):
        message = f"{counted(sum(map(len, rows.values())), 'row')} empty or of characters that cannot be seen"
        yield on_rows("empty-text", "warn", message, rows, remedy="leave them out")


def _is_seen(character: str) -> bool:
    return character.isprintable() and not character.isspace()


def duplicates(keys: Keys, labels: Labels, same: str = SAME_TEXT) -> Iterator[Finding]:
    """Training rows whose input and label an earlier one has."""
    first: dict[str, str | None] = {}
    further: set[tuple[str, str | None]] = set()
    rows = []
    for index, (key, label) in enumerate(zip(keys["train"], labels["train"], strict=True)):
        if key not in first:
            first[key] = label
        elif first[key] == label or (key, label) in further:
            rows.append(index)
        else:
            further.add((key, label))
    if rows:
        message = f"{counted(len(rows), 'training row')} an exact copy of an earlier one ({same}): "
        message += "such inputs weigh more than others"
        yield on_rows("duplicate", "info", message, {"train": rows}, remedy="keep one of each", source=LEE)


def contradictions(keys: Keys, labels: Labels) -> Iterator[Finding]:
    """Equal inputs with different labels, in whatever split they stand."""
    first: dict[str, str] = {}
    torn = {
        key
        for name, mine in keys.items()
        for key, label in zip(mine, labels[name], strict=True)
        if label is not None and first.setdefault(key, label) != label
    }
    if torn:
        rows = {
            name: [i for i, key in enumerate(mine) if key in torn and labels[name][i] is not None]
            for name, mine in keys.items()
        }
        inputs = "1 input has" if len(torn) == 1 else f"{len(torn):,} inputs have"
        message = f"{inputs} different labels in different rows ({sum(map(len, rows.values())):,} in all): "
        message += "no model can answer them all right"
        remedy = "decide for one label, or say in the text what makes the difference"
        yield on_rows("conflicting-label", "warn", message, rows, remedy=remedy, source=NORTHCUTT)


def frequent_texts(keys: Keys) -> Iterator[Finding]:
    """Single inputs that make up over one row in a hundred: a placeholder, a template, an export gone wrong."""
    counts = Counter(keys["train"])
    least = max(REPEATED_TIMES, REPEATED_SHARE * len(keys["train"]))
    often = {key for key, count in counts.most_common(200) if count > least}
    if often:
        rows = [index for index, key in enumerate(keys["train"]) if key in often]
        inputs = "1 input makes" if len(often) == 1 else f"{len(often)} inputs each make"
        message = f"{inputs} up more than {REPEATED_SHARE:.0%} of the training rows ({len(rows):,} rows)"
        remedy = "look at them: placeholders and templates teach nothing"
        yield on_rows("suspect-texts", "warn", message, {"train": rows}, remedy=remedy, source=LEE)


# the same in two splits

SHARED = {
    "test-in-train": (
        "also in train ({same}); scores are given without them too",
        "take them out of train",
    ),
    "validation-in-train": (
        "also in train ({same}): the best step is chosen by rows that were learned by heart",
        "take them out of one of the two",
    ),
    "test-in-validation": (
        "also in validation ({same}): the best step is chosen by rows of the test",
        "take them out of validation",
    ),
    "near-test-in-train": (
        "nearly the same as training rows: they say little about new ones",
        "take those out of train",
    ),
    "near-validation-in-train": (
        "nearly the same as training rows: the best step is chosen by rows that were nearly learned by heart",
        "name data.group, so that what belongs together stays together",
    ),
    "near-test-in-validation": (
        "nearly the same as validation rows: the best step is chosen by rows much like those of the test",
        "take those out of validation",
    ),
}
"""What each leak means, and what to do."""


def shared_inputs(keys: Keys, same: str = SAME_TEXT) -> Iterator[Finding]:
    """Rows whose input is also in a split that must not know it."""
    for one, other in ACROSS:
        if one in keys and other in keys:
            known = set(keys[other])
            yield from _leak(f"{one}-in-{other}", one, [i for i, key in enumerate(keys[one]) if key in known], same)


def _leak(code: str, split: str, rows: Sequence[int], same: str = SAME_TEXT) -> Iterator[Finding]:
    if len(rows):
        meaning, remedy = SHARED[code]
        message = f"{counted(len(rows), f'{split} row')} {meaning.format(same=same)}"
        yield on_rows(code, "warn", message, {split: rows}, remedy=remedy, source=KAUFMAN)


def near_copies(keys: Keys) -> Iterator[Finding]:
    """Rows that nearly repeat one before: inside train, and across splits. Exact copies are reported as such alone."""
    number: dict[str, int] = {}
    groups: list[int] = []
    members: dict[str, np.ndarray] = {}
    for group, (name, mine) in enumerate(keys.items()):
        members[name] = np.array([number.setdefault(key, len(number)) for key in mine], dtype=np.int64)
        groups += [group] * (len(number) - len(groups))
    found = near.near_copies(list(number), groups)
    group_of = {name: group for group, name in enumerate(keys)}
    train, firsts = np.unique(members["train"], return_index=True)
    rows = np.sort(firsts[found[train, group_of["train"]]]).tolist()
    if rows:
        message = f"{counted(len(rows), 'training row')} nearly a copy of an earlier one (a word or two changed)"
        yield on_rows("near-duplicate", "info", message, {"train": rows}, source=LEE)
    for one, other in ACROSS:
        if one in keys and other in keys and group_of[other] < found.shape[1]:
            alike = found[members[one], group_of[other]] & ~np.isin(members[one], members[other])
            yield from _leak(f"near-{one}-in-{other}", one, np.flatnonzero(alike).tolist())


# what should not be there


def sensitive_texts(texts: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Suspected secrets and personal data by kind: how often and where, never what."""
    found = {name: sensitive.find(mine) for name, mine in texts.items()}
    for code, level, what, patterns, remedy in SENSITIVE:
        kinds = dict.fromkeys(pattern.kind for pattern in patterns)
        counts = {kind: sum(len(by_kind.get(kind, ())) for by_kind in found.values()) for kind in kinds}
        rows = {
            name: sorted(set(chain.from_iterable(by_kind.get(kind, ()) for kind in kinds)))
            for name, by_kind in found.items()
        }
        number = sum(map(len, rows.values()))
        if number:
            listed = ", ".join(f"{kind} ({count:,})" for kind, count in counts.items() if count)
            message = f"{number:,} {'row seems' if number == 1 else 'rows seem'} to hold {what}: {listed}"
            yield on_rows(code, level, message, rows, remedy=remedy, source=CARLINI)


SENSITIVE = (
    (
        "secrets",
        "warn",
        "secrets",
        sensitive.SECRETS,
        "take them out, and make those that are real invalid: models and run folders can repeat what they saw",
    ),
    (
        "personal-data",
        "info",
        "personal data",
        sensitive.PERSONAL,
        "mask them, or make sure that you may keep them: the run folder holds texts",
    ),
)
