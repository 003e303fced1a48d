"""What a reader must know beside the verdict: the findings, gravest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tunesmith.data.sensitive import mask
from tunesmith.report import wording
from tunesmith.report.classes import class_scores
from tunesmith.report.record import Record, without_folders
from tunesmith.report.slices import weak_slices

CLEAR_RISE = 0.05
"""Validation loss this share above its minimum is a rise, not noise."""
CLEAR_FALL = 0.02
"""Training loss that fell by less than this share has not learned."""
LARGE_ERROR = 0.05
"""A calibration error that is larger than this beyond doubt is named."""
FEW_TEXTS = 20
"""An interval over fewer texts may be narrow and still wrong, so nothing is claimed by it."""
SHOWN = 5

BAD, WARN, INFO = "bad", "warn", "info"
_ORDER = (BAD, WARN, INFO)

TITLES = {
    "broken-tags": "Tags that do not fit together",
    "lost-spans": "Spans that no answer can be",
    "general-in-train": "General texts were learned",
    "nothing-asked": "Rows that ask for nothing",
    "odd-tags": "Tags without names",
    "bad-rows": "Bad rows were left out",
    "rare-class": "Some classes have very few rows",
    "unknown-label": "Labels that training never showed",
    "truncated": "Long rows lost a part",
    "rate-unusual": "An unusual learning rate",
    "few-rows": "Few rows to learn from",
    "no-tokens": "Rows without words",
    "column-alias": "How columns were read",
    "some-rows": "Number of rows",
    "many-rows": "Number of rows",
    "few-rows-per-class": "Few rows for each class",
    "large-model-few-rows": "A large model on few rows",
    "empty-text": "Rows without words",
    "duplicate": "Repeated rows",
    "near-duplicate": "Nearly repeated rows",
    "conflicting-label": "Labels that contradict each other",
    "near-test-in-train": "Test rows much like training rows",
    "near-validation-in-train": "Validation rows much like training rows",
    "near-test-in-validation": "Test rows much like validation rows",
    "validation-in-train": "Validation rows were seen in training",
    "test-in-validation": "Test rows were seen in validation",
    "suspect-texts": "A text that comes again and again",
    "one-class-missing": "Classes that are not judged",
    "imbalance": "Classes of very different size",
    "label-in-text": "The label stands in the text",
    "secrets": "Secrets in the data",
    "personal-data": "Personal data",
    "teacher-knows-test": "The teacher may know the test rows",
    "watched-rows": "The best step was chosen by some of the validation rows",
}
SAID_ELSEWHERE = ("no-test", "test-in-train")
"""Codes of check.json that have a finding of their own, with what came of them."""


@dataclass(frozen=True)
class Finding:
    """`without_cells` is the text for a reader who must see no row of the data, where `text` quotes from rows."""

    level: str
    title: str
    text: str
    without_cells: str = ""


@dataclass(frozen=True)
class Overfitting:
    """Where validation loss was lowest and how far it rose, while training loss fell on."""

    step: int
    low: float
    high: float
    train_before: float
    train_after: float

    def sentence(self) -> str:
        return (
            f"After step {self.step:,} the validation loss rose from {self.low:.3f} to {self.high:.3f} "
            f"({self.high / self.low - 1:+.0%}) while the training loss fell on from {self.train_before:.3f} "
            f"to {self.train_after:.3f}: the model went on to learn its training rows by heart."
        )


def find_all(record: Record) -> list[Finding]:
    """Every finding, gravest first; the first screen shows the first few."""
    found = [
        *_on_leaks(record),
        *_on_verdict(record),
        *_on_learning(record),
        *_on_classes(record),
        *_on_certainty(record),
        *_on_inventions(record),
        *_on_general_texts(record),
        *_on_slices(record),
        *_on_labels(record),
        *_on_refit(record),
        *_on_notes(record),
        *_on_the_end(record),
        *_on_warnings(record),
    ]
    return sorted(found, key=lambda finding: _ORDER.index(finding.level))


def _on_leaks(record: Record) -> Iterator[Finding]:
    leaked = record.data.get("leaked", 0)
    if leaked:
        text = f"{leaked:,} of {record.judged_rows:,} test rows also stand among the training rows."
        clean = record.scores.get("test_without_overlap", {}).get(record.primary)
        if clean:
            text += f" Without them the {wording.metric(record.primary).title} is {wording.scored(clean)}."
        yield Finding(WARN, "Test rows were seen in training", text)


def _on_verdict(record: Record) -> Iterator[Finding]:
    """The reasons after the first: that one is the comparison, which the headline tells."""
    budgets = {budget["reason"]: budget["kept"] for budget in record.verdict.get("budgets", [])}
    for reason in record.verdict["why"][1:]:
        if reason in budgets:
            level, title = (INFO, "A budget is kept") if budgets[reason] else (BAD, "A budget is not kept")
            yield Finding(level, title, wording.sentence(reason))
            continue
        title = "Judged without a test set" if "no test set" in reason else "What else speaks for caution"
        title = "Few rows were judged" if "rows were judged" in reason else title
        yield Finding(WARN, title, wording.sentence(reason))


def find_overfitting(record: Record) -> Overfitting | None:
    """Validation loss clearly above its minimum at the end, while training loss fell on from there."""
    losses = [(row["step"], row["loss"]) for row in record.evaluations if row["phase"] == "fit" and row["loss"]]
    if len(losses) < 2:
        return None
    (step, low), (last, high) = min(losses, key=lambda item: item[1]), losses[-1]
    if high < low * (1 + CLEAR_RISE):
        return None
    span = min(after[0] - before[0] for before, after in pairwise(losses))
    before, after = _training_loss(record, step, span), _training_loss(record, last, span)
    return Overfitting(step, low, high, before, after) if after < before else None


def _training_loss(record: Record, step: int, span: int) -> float:
    """Mean training loss of the `span` steps up to `step`."""
    losses = [row["loss"] for row in record.phase("fit") if step - span < row["step"] <= step]
    return sum(losses) / len(losses) if losses else float("nan")


def _on_learning(record: Record) -> Iterator[Finding]:
    over = find_overfitting(record)
    if over:
        best = record.manifest["best_step"]
        kept = f" The kept weights are those of step {best:,}, chosen by {wording.in_prose(record.primary)}."
        yield Finding(WARN, "Overfitting", over.sentence() + kept)
    losses = [row["loss"] for row in record.phase("fit")]
    part = max(1, len(losses) // 10)
    if len(losses) >= 10:
        first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
        if last > first * (1 - CLEAR_FALL):
            text = (
                f"The training loss went from {first:.3f} to {last:.3f}: the learning rate may be too low or too high"
            )
            yield Finding(
                BAD, "The model has hardly learned", f"{text}, the labels may be noise, or the steps too few."
            )


def _on_classes(record: Record) -> Iterator[Finding]:
    if record.has_label_sets or record.has_spans:
        yield from _on_missed(record)
    if not record.classifies:
        return
    answers = {row["answer"] for row in record.predictions}
    scores = [score for score in class_scores(record.predictions) if score.support]
    lost = [score.label for score in scores if not score.recall.value]
    if len(answers) == 1 and len(scores) > 1:
        text = f"Every row got the answer {mask(str(answers.pop()))}: it tells nothing apart."
        yield Finding(BAD, "It always gives the same answer", text)
    elif lost:
        named = f"{', '.join(map(mask, lost[:5]))}{' and others' if len(lost) > 5 else ''}"
        text = f"{len(lost)} of {len(scores)} classes were not answered right in a single row: {named}."
        yield Finding(BAD, "Classes that are never found", text)


def _on_missed(record: Record) -> Iterator[Finding]:
    what, times = ("types", "found once") if record.has_spans else ("labels", "given in a single row that has them")
    scores = [score for score in class_scores(record.predictions) if score.support]
    lost = [score.label for score in scores if not score.recall.value]
    if lost:
        named = f"{', '.join(map(mask, lost[:5]))}{' and others' if len(lost) > 5 else ''}"
        text = f"{len(lost)} of {len(scores)} {what} were not {times}: {named}."
        yield Finding(BAD, f"{what.capitalize()} that are never found", text)


def _on_certainty(record: Record) -> Iterator[Finding]:
    error = record.judged.get("ece")
    if error and error["low"] > LARGE_ERROR:
        text = f"What it says of how sure it is and what is right differ by {wording.scored(error)} on average."
        yield Finding(WARN, "Do not trust how sure it says it is", text)


def _on_inventions(record: Record) -> Iterator[Finding]:
    """Numbers and names that a written text holds and its source does not, with the places of the first rows."""
    for name, what in (("new_numbers", "numbers"), ("new_names", "names")):
        rows = [row["row"] for row in record.predictions if record.has_texts and row["answer"].get(name)]
        if rows:
            where = (
                f"rows {', '.join(map(str, rows[:SHOWN]))}{' and others' if len(rows) > SHOWN else ''}, counted from 0"
            )
            text = f"{len(rows):,} of {record.judged_rows:,} texts hold {what} that their sources do not ({where}; "
            text += f"predictions/{record.split}.jsonl names them). Some may be right, in another form: check them."
            yield Finding(WARN, f"{what.capitalize()} that the source does not hold", text)


def _on_general_texts(record: Record) -> Iterator[Finding]:
    """What the domain cost of the language at large; only an interval may say that something was lost."""
    general = record.general
    if not general:
        return
    title, after = wording.metric("perplexity").title.lower(), general["after"]["perplexity"]
    texts = wording.count(general["texts"], "general text")
    if not general["before"]:
        text = f"On {texts} the {title} is {wording.scored(after)}. The base has no head that could be asked before."
        yield Finding(INFO, "The language at large", text)
        return
    change = general["change"]["perplexity"]
    between = f"paired difference {wording.signed(change['value'])}, 95 % interval {wording.signed(change['low'])} to"
    text = f"On {texts} the {title} went from {wording.scored(general['before']['perplexity'])} to "
    text += f"{wording.scored(after)} ({between} {wording.signed(change['high'])})"
    if general["texts"] < FEW_TEXTS:
        yield Finding(INFO, "The language at large", f"{text}. So few texts say little of others.")
    elif change["low"] > 0:
        advice = "Where that matters try a lower rate, fewer steps, lora, or general texts among the training rows."
        yield Finding(WARN, "It knows the language at large less well than its base", f"{text}. {advice}")
    elif change["high"] < 0:
        yield Finding(INFO, "It knows the language at large better than its base", f"{text}.")
    else:
        yield Finding(INFO, "The language at large", f"{text}, which may be mere chance.")


def _on_slices(record: Record) -> Iterator[Finding]:
    weak = weak_slices(record)
    if weak:
        kind = wording.metric(record.primary).title
        said = [f"{name}, {wording.scored(part[record.primary])} on {part['rows']:,} rows" for name, part in weak[:3]]
        more = f" and {len(weak) - 3} more" if len(weak) > 3 else ""
        yield Finding(WARN, "It is weaker on some rows", f"{kind} below that of all rows: {'; '.join(said)}{more}.")


def _on_labels(record: Record) -> Iterator[Finding]:
    suspects = record.data.get("suspects", {})
    if suspects.get("found"):
        text = (
            f"{suspects['found']:,} of {suspects['rows']:,} labels are suspected to be wrong (a suspicion, no proof); "
        )
        yield Finding(INFO, "Labels worth a look", f"{text}the most suspect are listed below.")


def _on_refit(record: Record) -> Iterator[Finding]:
    if record.recipe.train.refit and record.split != "test":
        text = "The kept model was trained once more on train + validation. The scores here are of the model before"
        yield Finding(
            WARN, "The kept model itself is not scored", f"{text} that; only a test set could score this one."
        )


def _on_notes(record: Record) -> Iterator[Finding]:
    for note in record.notes:
        if note["code"] not in SAID_ELSEWHERE:
            title = TITLES.get(note["code"], note["code"].replace("-", " ").capitalize())
            level = INFO if note["level"] == "info" else WARN
            yield Finding(level, title, note_text(note), _places(note) if note["code"] == "bad-rows" else "")


def _places(note: dict[str, Any]) -> str:
    """How many rows a note is about, and where the first of them stand: nothing of what is in them."""
    rows = [without_folders(where) for where in note.get("rows") or [note["where"]] if where][:SHOWN]
    more = " and others" if note["count"] > len(rows) else ""
    return f"{wording.count(note['count'], 'bad row')} left out{': ' * bool(rows)}{', '.join(rows)}{more * bool(rows)}."


def _on_warnings(record: Record) -> Iterator[Finding]:
    for text in record.manifest.get("warnings", []):
        yield Finding(INFO, "During training", wording.sentence(without_folders(text)))


def note_text(note: dict[str, Any]) -> str:
    """A note of check.json as sentences, with its remedy and its source."""
    text = wording.sentence(without_folders(note["message"]))
    remedy = f" Remedy: {without_folders(note['remedy'])}." if note["remedy"] else ""
    return f"{text}{remedy}" + (f" ({note['source']})" if note["source"] else "")


def _on_the_end(record: Record) -> Iterator[Finding]:
    ended, best = str(record.manifest.get("ended", "")), record.manifest["best_step"]
    if ended.startswith("early stopping"):
        text = f"It ended after {record.last_step:,} of {record.manifest['steps']:,} steps ({ended})."
        yield Finding(INFO, "Training stopped early", f"{text} The kept weights are those of step {best:,}.")
    elif best == record.last_step and len(record.evaluations) > 1 and not find_overfitting(record):
        text = f"The last evaluation (step {best:,}) was the best: more epochs may bring more."
        level = INFO if record.verdict["ship"] else WARN  # then it may be why the verdict says no
        yield Finding(level, "It was still getting better", text)
