"""The verdict for a reader who knows no machine learning: use it or not, why, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.report import wording
from tunesmith.report.record import Record, Score

INTERVAL = "95\N{NO-BREAK SPACE}% interval"
PLAIN = {"label": "accuracy", "path": "accuracy", "labels": "exact_match", "score": "rmse",
         "tags": "exact_match", "spans": "exact_match", "answers": "exact_match",
         "positive": "recall_at_10", "triplet": "recall_at_10"}  # fmt: skip
"""Of each target the measure that needs no explanation."""

BROKEN = "It breaks a budget that was set for its use"
NOT_WORSE = "It is not worse by more than you allowed"
CHEAPER = "Take a smaller base model or shorter inputs, or allow it more (deploy), and run it again."


@dataclass(frozen=True)
class Headline:
    """`tone` is "good", "bad" or "open"; `badge` the verdict in three words at most; `plain` the result once more in
    words of every day (or ""); `advice` what to do next."""

    tone: str
    badge: str
    title: str
    lead: str
    plain: str
    advice: str


def headline(record: Record) -> Headline:
    """The verdict in plain words."""
    verdict, gain = record.verdict, record.verdict["gain"]
    if verdict["ship"] is None:
        title = "Nobody can say yet whether fine-tuning was worth it"
        lead = f"{_own_score(record)} {_no_comparison(record)}"
        advice = "Run it again with judge.baselines: auto, so that there is something to compare with."
        return Headline("open", "No verdict", title, lead, _plain(record), advice)
    if gain is None:  # nothing to compare with, and yet a no
        lead = f"{_own_score(record)} {_no_comparison(record)}"
        return Headline("bad", "Do not use it", BROKEN, lead, _plain(record), CHEAPER)
    lead = f"{_own_score(record)} {_against(record)}"
    not_worse = gain["low"] <= 0  # less than nothing may be allowed (judge.min_gain)
    if verdict["ship"] and record.split != "test":
        title = f"{NOT_WORSE if not_worse else 'It looks worth using'}, but no test set confirms it"
        advice = "Hold rows back to judge by (data.test: a file or a share), and run it again before you rely on it."
        return Headline("good", "Use with care", title, lead, _plain(record), advice)
    if verdict["ship"]:
        advice = "Read below where it is weak and what was not judged; then use it on rows like those it was judged on."
        title = NOT_WORSE if not_worse else "Fine-tuning was worth it"
        return Headline("good", "Use it", title, lead, _plain(record), advice)
    title, advice = _against_using(record, gain)
    return Headline("bad", "Do not use it", title, lead, _plain(record), advice)


def _against_using(record: Record, gain: Score) -> tuple[str, str]:
    """Why it should not be used, and what may help."""
    floor = record.recipe.judge.min_gain
    if gain["low"] > floor:
        return f"{'It is better' if gain['low'] > 0 else NOT_WORSE}, but it {BROKEN.removeprefix('It ')}", CHEAPER
    if gain["high"] <= 0:
        title = "A simple method does better" if gain["high"] < 0 else "A simple method does just as well or better"
        return title, "More rows to learn from, cleaner labels or longer training may change this. Until then the " + (
            "simple method serves you better, at less cost."
        )
    if gain["high"] <= floor:
        return "It gains less than was asked for", "Ask for less (judge.min_gain), or collect more rows to learn from."
    more = "Judge it on more rows: four times as many halve the interval. More rows to learn from may raise the gain."
    return "The gain may be mere chance", more


def _rows(record: Record) -> str:
    if record.split == "test":
        leaked = record.data.get("leaked", 0)
        many = wording.count(record.judged_rows, "test row" if leaked else "row")
        return many if leaked else f"{many} that it had never seen"
    return wording.count(record.judged_rows, "validation row")


def _own_score(record: Record) -> str:
    mine = record.judged[record.primary]
    if record.primary == "accuracy":
        return f"Of {_rows(record)} the tuned model answers {_share(mine)} right."
    kind = wording.metric(record.primary)
    return f"On {_rows(record)} the tuned model's {kind.title} ({kind.meaning}) is {wording.scored(mine)}."


def _share(score: Score) -> str:
    return (
        f"{wording.share(score['value'])} ({INTERVAL} {wording.share(score['low'])} to {wording.share(score['high'])})"
    )


def _no_comparison(record: Record) -> str:
    reason = record.verdict["why"][0] if record.verdict["why"] else "there is nothing to compare with"
    return f"That figure alone does not say whether a far simpler method would do as well: {reason}."


def _against(record: Record) -> str:
    over, gain = record.verdict["over"], record.verdict["gain"]
    theirs = record.baselines[over][record.primary]["value"]
    name = f"The best of the simple methods ({wording.BASELINES_IN_PLAIN.get(over, over)})"
    if record.primary == "accuracy":
        difference = f"{wording.points(gain['value'])} percentage points"
        between = f"{wording.points(gain['low'])} to {wording.points(gain['high'])}"
        return f"{name} answers {wording.share(theirs)} right. The difference is {difference} ({INTERVAL} {between})."
    between = f"{wording.signed(gain['low'])} to {wording.signed(gain['high'])}"
    return (
        f"{name} reaches {wording.exact(theirs)}. "
        f"The difference is {wording.signed(gain['value'])} ({INTERVAL} {between})."
    )


def _plain(record: Record) -> str:
    """The result in a measure that everybody knows, where the one that decides is another."""
    name = PLAIN.get(record.target, "")
    mine = record.judged.get(name)
    if mine is None or name == record.primary:
        return ""
    other = record.baselines.get(record.verdict["over"] or "", {}).get(name)
    if name == "rmse":
        with_it = f"; those of the simple method by {wording.short(other['value'])}" if other else ""
        ends = f"{INTERVAL} {wording.short(mine['low'])} to {wording.short(mine['high'])}"
        return (
            f"In plain words: its answers are typically off by {wording.short(mine['value'])} ({ends}){with_it}. "
            f"The true scores run from {_ends(record)}."
        )
    if record.compares:
        with_it = f"; with the simple method {wording.share(other['value'])}" if other else ""
        return f"In plain words: {_share(mine)} of the texts find their partner among the first ten{with_it}."
    exact = "spans" if record.has_spans else "answer" if record.has_answers else "labels"
    what = f"get exactly the right {exact}" if name == "exact_match" else "are answered right"
    with_it = f"; with the simple method {wording.share(other['value'])}" if other else ""
    return f"In plain words: {_share(mine)} of the rows {what}{with_it}."


def _ends(record: Record) -> str:
    quantiles = record.data["splits"][record.split]["quantiles"]
    return f"{wording.short(quantiles['0.0'])} to {wording.short(quantiles['1.0'])}"
