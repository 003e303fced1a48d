"""What is wrong with labels and tags: too few of a class, classes that are nowhere, labels that stand in the text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from tunesmith.data import sensitive
from tunesmith.data.findings import Finding, counted, on_rows
from tunesmith.data.rows import Row, normalised
from tunesmith.data.tags import kind_of_tag, scheme_of, spans_of, tags_of, words_of
from tunesmith.recipe.columns import Column

BUDA = "Buda et al. 2018, arXiv:1710.05381"
KAUFMAN = "Kaufman et al. 2012, doi:10.1145/2382577.2382579"

RARE_CLASS = 5
IMBALANCE = 20
NAMED_LABELS = 10
SHOWN_LABEL = 40
COPIED_LABEL, STRAY_LABEL = 0.9, 0.1
SAMPLED_ROWS = 2000

Keys = Mapping[str, Sequence[str]]
Labels = Mapping[str, Sequence[str | None]]
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
        if not isinstance(value, list):
            return str(value)
        return "\x1f".join(sorted(map(str, value)) if learned.kind == "labels" else map(str, value))

    return answer, answer if learned.kind == "label" else (lambda row: None)


def classes_of(row: Row, columns: Sequence[Column]) -> tuple[str, ...]:
    """The classes that a row names: one label, several of them, the types of its spans, or none."""
    learned = next((column for column in columns if column.kind in ("label", "labels", "tags", "spans")), None)
    value = row.get(learned.name) if learned else None
    if learned and value and learned.kind in ("tags", "spans"):
        kinds = [kind_of_tag(item) if learned.kind == "tags" else item["label"] for item in value]
        return tuple(dict.fromkeys(kind for kind in kinds if kind))
    return () if value is None else tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def class_sizes(labels: Labels) -> Iterator[Finding]:
    """Classes with very few training rows, and classes of very different size."""
    counts = Counter(label for label in labels["train"] if label is not None)
    rare = sorted(label for label, count in counts.items() if count < RARE_CLASS)
    if rare:
        named = ", ".join(f"{shown(label)} ({counts[label]})" for label in rare[:NAMED_LABELS])
        classes = "1 class has" if len(rare) == 1 else f"{len(rare):,} classes have"
        message = f"{classes} fewer than {RARE_CLASS} training rows: {named}"
        rows = {"train": [index for index, label in enumerate(labels["train"]) if label in set(rare)]}
        yield on_rows("rare-class", "warn", message, rows, remedy="collect more, or join classes")
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
            yield on_rows("unknown-label", "warn", message, {name: unknown})
        if given and known and not asked:
            message = f"no {name} row has any label: nothing that is found there can be right"
            yield Finding("nothing-asked", "warn", message, remedy=f"add rows with labels to {name}", count=len(given))
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
        yield on_rows("label-in-text", "warn", message, {"train": rows}, remedy=remedy, source=KAUFMAN)


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


def _rows_where(splits: Mapping[str, Sequence[Row]], holds: Callable[[Row], bool]) -> dict[str, list[int]]:
    return {split: [index for index, row in enumerate(rows) if holds(row)] for split, rows in splits.items()}


def lost_spans(splits: Mapping[str, Sequence[Row]], columns: Sequence[Column]) -> Iterator[Finding]:
    """Rows with a span that no tags on words can say: it begins or ends inside a word, or shares one with another."""
    learned = next((column for column in columns if column.kind == "spans"), None)
    if learned is None:
        return
    about, name = learned.about, learned.name
    rows = _rows_where(splits, lambda row: _loses_spans(row[about], row.get(name) or []))
    if any(rows.values()):
        many = counted(sum(map(len, rows.values())), "row")
        message = f"{many} with a span that begins or ends inside a word, or shares a word with another: no answer can "
        message += "be exactly that span"
        yield on_rows("lost-spans", "warn", message, rows, remedy="let spans begin and end with words")


def _loses_spans(text: str, spans: Sequence[Mapping[str, Any]]) -> bool:
    words = words_of(text)
    given = {(span["start"], span["end"], span["label"]) for span in spans}
    told = spans_of(tags_of(given, words), "BIO")
    return given != {(words.starts[span.first], words.ends[span.last - 1], span.kind) for span in told}


def odd_tags(splits: Mapping[str, Sequence[Row]], columns: Sequence[Column]) -> Iterator[Finding]:
    """Tags that are numbers, or letters of a scheme without a type: each is then taken for a type of its own."""
    learned = next((column for column in columns if column.kind == "tags"), None)
    known = {tag for row in splits["train"] for tag in row.get(learned.name) or []} if learned else set()
    odd = sorted(tag for tag in known if tag.isdigit() or (len(tag) == 1 and tag in "BIESLUM"))
    if (odd and "O" not in known) or (odd and not any("-" in tag for tag in known)):
        named = ", ".join(map(shown, odd[:NAMED_LABELS]))
        message = f"tags without the name of a type ({named}): each is taken for a type of its own"
        remedy = "write names: B-PER, I-PER, O; of numbers, those that they stand for"
        yield Finding("odd-tags", "warn", message, remedy=remedy, count=len(odd))


def broken_tags(splits: Mapping[str, Sequence[Row]], columns: Sequence[Column]) -> Iterator[Finding]:
    """Rows whose tags go on with what never began (or, in IOBES, end what goes on): mended, and named."""
    learned = next((column for column in columns if column.kind == "tags"), None)
    if learned is None:
        return
    name = learned.name
    scheme = scheme_of(row.get(name) or [] for row in splits["train"])
    rows = _rows_where(splits, lambda row: any(span.mended for span in spans_of(row.get(name) or [], scheme)))
    if any(rows.values()):
        many = counted(sum(map(len, rows.values())), "row")
        message = f"{many} tagged against the scheme ({scheme}): a span goes on that never began, or never ends; "
        message += "it is read as a span of its own"
        yield on_rows("broken-tags", "warn", message, rows, remedy="look at the tags of these rows")
