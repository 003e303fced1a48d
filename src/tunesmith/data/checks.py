"""What is wrong with rows before anybody trains on them: copies, leaks, labels that contradict or give themselves away.

Each check takes rows as keys (their normalised input) and labels and yields findings that name the rows concerned by
split and index. No check hands on any part of a text: a finding is shown, printed and kept.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import median

import numpy as np

from tunesmith.data import near, sensitive
from tunesmith.data.rows import Row, input_keys, normalised
from tunesmith.recipe.tasks import Column

LEE = "Lee et al. 2022, arXiv:2107.06499"
CARLINI = "Carlini et al. 2021, arXiv:2012.07805"
NORTHCUTT = "Northcutt et al. 2021, arXiv:2103.14749"
BUDA = "Buda et al. 2018, arXiv:1710.05381"
KAUFMAN = "Kaufman et al. 2012, doi:10.1145/2382577.2382579"

RARE_CLASS = 5
IMBALANCE = 20
NAMED_LABELS = 10
SHOWN_LABEL = 40
COPIED_LABEL, STRAY_LABEL = 0.9, 0.1
SAMPLED_ROWS = 2000
REPEATED_SHARE, REPEATED_TIMES = 0.01, 10

ACROSS = (("test", "train"), ("validation", "train"), ("test", "validation"))

Keys = Mapping[str, Sequence[str]]
Labels = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Finding:
    """One fault of the data.

    Attributes:
        level: "info" or "warn".
        rows: the indices of the rows concerned, by split.
        count: how many rows are concerned; classes, where no row is.
    """

    code: str
    level: str
    message: str
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    remedy: str = ""
    source: str = ""
    count: int = 0


Target = Callable[[Row], str | None]


def targets_of(columns: Sequence[Column]) -> tuple[Target, Target]:
    """What a row's answer is, as one text: (where only equality matters, where it must be one class of several); None
    where it has no such answer. A column called `label` that the task does not learn is none."""
    learned = next((column for column in columns if not column.is_input), None)
    if learned is None:
        return (lambda row: None), (lambda row: None)

    def answer(row: Row) -> str | None:
        value = row.get(learned.name)
        if value is None:
            return None
        return "\x1f".join(sorted(map(str, value))) if isinstance(value, list) else str(value)

    return answer, answer if learned.kind == "label" else (lambda row: None)


def classes_of(row: Row, columns: Sequence[Column]) -> tuple[str, ...]:
    """The classes that a row names: one label, several of them, or none."""
    learned = next((column for column in columns if column.kind in ("label", "labels")), None)
    value = row.get(learned.name) if learned else None
    return () if value is None else tuple(map(str, value)) if isinstance(value, list) else (str(value),)


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
    answers = {name: [answer_of(row) for row in rows] for name, rows in splits.items()}
    labels = {name: [label_of(row) for row in rows] for name, rows in splits.items()}
    classes = {name: [classes_of(row, columns) for row in rows] for name, rows in splits.items()}
    inputs = [column.name for column in columns if column.is_input]
    texts = {name: [_text(row, inputs) for row in rows] for name, rows in splits.items()}
    return [
        *empty_texts(keys),
        *duplicates(keys, answers),
        *contradictions(keys, answers),
        *shared_inputs(keys),
        *near_copies(keys),
        *frequent_texts(keys),
        *class_sizes(labels),
        *absent_classes(classes),
        *labels_in_texts(keys, labels),
        *sensitive_texts(texts),
    ]


def _text(row: Row, inputs: Sequence[str]) -> str:
    return "\n".join([str(row.values[name]) for name in inputs if row.values.get(name) is not None])


def _finding(code: str, level: str, message: str, rows: Mapping[str, Sequence[int]], **more: str) -> Finding:
    """A finding on rows: counted, splits without any left out."""
    kept = {name: list(indices) for name, indices in rows.items() if len(indices)}
    return Finding(code, level, message, kept, count=sum(map(len, kept.values())), **more)


def _counted(number: int, what: str) -> str:
    """`1 test row is`, `40 test rows are`."""
    return f"1 {what} is" if number == 1 else f"{number:,} {what}s are"


# texts


def empty_texts(keys: Keys) -> Iterator[Finding]:
    """Inputs without anything that can be seen: white space, zero-width characters, controls."""
    rows = {name: [i for i, key in enumerate(mine) if not any(map(_is_seen, key))] for name, mine in keys.items()}
    if any(rows.values()):
        message = f"{_counted(sum(map(len, rows.values())), 'row')} empty or of characters that cannot be seen"
        yield _finding("empty-text", "warn", message, rows, remedy="leave them out")


def _is_seen(character: str) -> bool:
    return character.isprintable() and not character.isspace()


def duplicates(keys: Keys, labels: Labels) -> Iterator[Finding]:
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
        message = f"{_counted(len(rows), 'training row')} an exact copy of an earlier one (case and spaces aside): "
        message += "such inputs weigh more than others"
        yield _finding("duplicate", "info", message, {"train": rows}, remedy="keep one of each", source=LEE)


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
        yield _finding("conflicting-label", "warn", message, rows, remedy=remedy, source=NORTHCUTT)


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
        yield _finding("suspect-texts", "warn", message, {"train": rows}, remedy=remedy, source=LEE)


# the same in two splits

SHARED = {
    "test-in-train": (
        "also in train (case and spaces aside); scores are given without them too",
        "take them out of train",
    ),
    "validation-in-train": (
        "also in train (case and spaces aside): the best step is chosen by rows that were learned by heart",
        "take them out of one of the two",
    ),
    "test-in-validation": (
        "also in validation (case and spaces aside): the best step is chosen by rows of the test",
        "take them out of validation",
    ),
    "near-test-in-train": ("nearly copies of training rows: they say little about new ones", "take those out of train"),
    "near-validation-in-train": (
        "nearly copies of training rows: the best step is chosen by rows that were nearly learned by heart",
        "name data.group, so that what belongs together stays together",
    ),
    "near-test-in-validation": (
        "nearly copies of validation rows: the best step is chosen by rows much like those of the test",
        "take those out of validation",
    ),
}
"""What each leak means, and what to do."""


def shared_inputs(keys: Keys) -> Iterator[Finding]:
    """Rows whose input is also in a split that must not know it."""
    for one, other in ACROSS:
        if one in keys and other in keys:
            known = set(keys[other])
            yield from _leak(f"{one}-in-{other}", one, [i for i, key in enumerate(keys[one]) if key in known])


def _leak(code: str, split: str, rows: Sequence[int]) -> Iterator[Finding]:
    if len(rows):
        meaning, remedy = SHARED[code]
        message = f"{_counted(len(rows), f'{split} row')} {meaning}"
        yield _finding(code, "warn", message, {split: rows}, remedy=remedy, source=KAUFMAN)


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
        message = f"{_counted(len(rows), 'training row')} nearly a copy of an earlier one (a word or two changed)"
        yield _finding("near-duplicate", "info", message, {"train": rows}, source=LEE)
    for one, other in ACROSS:
        if one in keys and other in keys and group_of[other] < found.shape[1]:
            alike = found[members[one], group_of[other]] & ~np.isin(members[one], members[other])
            yield from _leak(f"near-{one}-in-{other}", one, np.flatnonzero(alike).tolist())


# labels


def class_sizes(labels: Labels) -> Iterator[Finding]:
    """Classes with very few training rows, and classes of very different size."""
    counts = Counter(label for label in labels["train"] if label is not None)
    rare = sorted(label for label, count in counts.items() if count < RARE_CLASS)
    if rare:
        named = ", ".join(f"{shown(label)} ({counts[label]})" for label in rare[:NAMED_LABELS])
        classes = "1 class has" if len(rare) == 1 else f"{len(rare):,} classes have"
        message = f"{classes} fewer than {RARE_CLASS} training rows: {named}"
        rows = {"train": [index for index, label in enumerate(labels["train"]) if label in set(rare)]}
        yield _finding("rare-class", "warn", message, rows, remedy="collect more, or join classes")
    if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
        most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
        message = f"the largest class, {shown(most)}, has {counts[most]:,} training rows, the smallest, "
        message += f"{shown(least)}, has {counts[least]:,} (median {median(counts.values()):,.0f}): "
        message += "the small ones may never be answered"
        remedy = (
            "task.class_weights: balanced, collect more rows of the small ones, or judge by macro_f1 (judge.primary)"
        )
        yield Finding("imbalance", "info", message, remedy=remedy, source=BUDA, count=len(counts))


def absent_classes(classes: Mapping[str, Sequence[tuple[str, ...]]]) -> Iterator[Finding]:
    """Classes that a split never asks for, and labels that training never showed."""
    known = {label for labels in classes["train"] for label in labels}
    for name in ("validation", "test"):
        given = classes.get(name, ())
        asked = {label for labels in given for label in labels}
        unknown = [index for index, labels in enumerate(given) if not known.issuperset(labels)]
        if unknown:
            example = next(label for label in given[unknown[0]] if label not in known)
            some = f"1 {name} row has" if len(unknown) == 1 else f"{len(unknown):,} {name} rows have"
            message = f"{some} a label that no training row has, for example {shown(str(example))}: no answer to "
            message += "such a row can be wholly right"
            yield _finding("unknown-label", "warn", message, {name: unknown})
        missing = sorted(known - asked) if asked else []
        if missing:
            named = ", ".join(map(shown, missing[:NAMED_LABELS])) + (", ..." if len(missing) > NAMED_LABELS else "")
            some = "1 class has" if len(missing) == 1 else f"{len(missing):,} classes have"
            message = f"{some} no {name} row, so nobody will know how well they are answered: {named}"
            yield Finding("one-class-missing", "warn", message, remedy=f"add rows to {name}", count=len(missing))


def shown(label: str) -> str:
    """A label in a message: cut if it is long, and not at all if it holds what a message must not repeat (which
    happens when the wrong column is read as the label)."""
    if sensitive.is_sensitive(label):
        return "(a label with what looks like personal data or a secret)"
    return repr(label if len(label) <= SHOWN_LABEL else f"{label[: SHOWN_LABEL - 1]}…")


def labels_in_texts(keys: Keys, labels: Labels) -> Iterator[Finding]:
    """Labels that stand in the texts of their own class and hardly elsewhere, for most classes: a copied column."""
    train, given = keys["train"], labels["train"]
    sizes = {label: n for label, n in Counter(given).items() if label is not None and n >= RARE_CLASS}
    patterns = {label: pattern for label in sizes if (pattern := _whole_words(label)) is not None}
    own: dict[str, list[int]] = defaultdict(list)
    for index, (key, label) in enumerate(zip(train, given, strict=True)):
        if label in patterns and patterns[label].search(key):
            own[label].append(index)
    often = [label for label, rows in own.items() if len(rows) > COPIED_LABEL * sizes[label]]
    if 2 * len(often) <= len(sizes):
        return
    sample = range(0, len(train), max(1, len(train) // SAMPLED_ROWS))
    copied = [label for label in often if _is_rare_elsewhere(patterns[label], label, train, given, sample)]
    if 2 * len(copied) > len(sizes):
        rows = sorted(chain.from_iterable(own[label] for label in copied))
        message = f"the label stands in the text of {len(rows):,} training rows ({len(copied)} of {len(sizes)} classes "
        message += "nearly always, and hardly ever in the texts of others): the model will only learn to read it"
        remedy = "take the label out of the text, or see whether it will be there when the model is used"
        yield _finding("label-in-text", "warn", message, {"train": rows}, remedy=remedy, source=KAUFMAN)


def _whole_words(label: str) -> re.Pattern[str] | None:
    """The label's words in a normalised text, whatever stands between them (`card_lost`: `card lost`, `card-lost`)."""
    words = re.findall(r"[^\W_]+", normalised(label))
    between = r"[\W_]+"
    return re.compile(rf"(?<!\w){between.join(map(re.escape, words))}(?!\w)") if words else None


def _is_rare_elsewhere(
    pattern: re.Pattern[str], label: str, keys: Sequence[str], labels: Sequence[str | None], sample: range
) -> bool:
    others = [index for index in sample if labels[index] not in (None, label)]
    return sum(pattern.search(keys[index]) is not None for index in others) < STRAY_LABEL * len(others)


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
            yield _finding(code, level, message, rows, remedy=remedy, source=CARLINI)


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
