"""How numbers and names are said: one way, in the card, the paper and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunesmith.recipe import Recipe
from tunesmith.report.record import Score

MISSING = "not available"
HASH_SHOWN = 12
"""How much of a hash a sentence shows."""


@dataclass(frozen=True)
class Metric:
    """A metric's name for people, the hub's name for it, and what it means."""

    title: str
    hub: str
    meaning: str
    arguments: dict[str, str] = field(default_factory=dict)


METRICS = {
    "accuracy": Metric("Accuracy", "accuracy", "the share of rows that are answered right"),
    "macro_f1": Metric(
        "Macro-F1",
        "f1",
        "how well a class is found, averaged over all classes alike; 0 is never, 1 is always and without false alarms",
        {"average": "macro"},
    ),
    "weighted_f1": Metric(
        "Weighted F1", "f1", "how well a class is found, averaged by the classes' sizes", {"average": "weighted"}
    ),
    "micro_f1": Metric(
        "Micro-F1", "f1", "how well labels are found, every label of every row alike", {"average": "micro"}
    ),
    "mcc": Metric(
        "Matthews correlation",
        "matthews_correlation",
        "agreement beyond what class sizes alone would give; 0 is none, 1 is perfect",
    ),
    "exact_match": Metric("Exact match", "exact_match", "the share of rows whose whole answer is right"),
    "mean_average_precision": Metric(
        "Mean average precision", "average_precision", "how high right labels rank, averaged over labels"
    ),
    "hierarchical_f1": Metric(
        "Hierarchical F1", "f1", "how much of the path is right, counting every ancestor", {"average": "hierarchical"}
    ),
    "ece": Metric(
        "Calibration error",
        "ece",
        "how far the model's stated certainty is from its share of right answers (15 bins); 0 is best",
    ),
    "entity_f1": Metric(
        "Entity F1", "f1", "how well spans are found; one is right if it begins, ends and is called as the gold says"
    ),
    "entity_precision": Metric("Entity precision", "precision", "the share of the answered spans that are right"),
    "entity_recall": Metric("Entity recall", "recall", "the share of the true spans that are found"),
    "answer_f1": Metric(
        "Answer F1", "f1", "how many words the answer shares with the best of those that count as right"
    ),
    "has_answer_f1": Metric("Answer F1 where there is an answer", "f1", "the same, of rows that have one"),
    "has_answer_exact": Metric("Exact match where there is an answer", "exact_match", "of rows that have one"),
    "no_answer_accuracy": Metric(
        "Accuracy where there is no answer", "accuracy", "the share of such rows for which none was given"
    ),
    "spearman": Metric("Spearman correlation", "spearmanr", "how well the order of the scores is met; 1 is perfect"),
    "pearson": Metric(
        "Pearson correlation", "pearsonr", "how well the scores are met up to a straight line; 1 is perfect"
    ),
    **{
        f"recall_at_{k}": Metric(
            f"Recall at {k}",
            "recall",
            f"the share of texts whose partner is {'first' if k == 1 else f'among the first {k}'}",
        )
        for k in (1, 5, 10)
    },
    "mrr_at_10": Metric(
        "Mean reciprocal rank at 10", "mrr", "1 / the place at which the partner is found; 0 beyond 10"
    ),
    "ndcg_at_10": Metric("nDCG at 10", "ndcg", "as that, but falling more slowly with the place"),
    "log_likelihood": Metric(
        "Log-likelihood", "log_likelihood", "the mean logarithm of a token's probability, in nats; 0 is perfect"
    ),
    "perplexity": Metric("Perplexity", "perplexity", "among how many tokens the model still wavers; 1 is perfect"),
    "token_accuracy": Metric("Token accuracy", "accuracy", "the share of tokens that the model held for likeliest"),
    "rouge_l": Metric(
        "ROUGE-L",
        "rouge",
        "how much of the reference's words stand in the text in the same order; 1 is all, and no others",
    ),
    "rouge_1": Metric("ROUGE-1", "rouge", "how many words the text shares with its reference"),
    "rouge_2": Metric("ROUGE-2", "rouge", "how many pairs of neighbouring words the text shares with its reference"),
    "chrf": Metric(
        "chrF",
        "chrf",
        "how many runs of one to six letters the texts share with their references, missing ones weighing more",
    ),
    "bleu": Metric("BLEU", "sacrebleu", "how many runs of one to four words of the texts stand in their references"),
    "new_numbers": Metric(
        "Rows with new numbers",
        "new_numbers",
        "the share of rows whose text holds a number that its source does not; 0 is best",
    ),
    "new_names": Metric(
        "Rows with new names",
        "new_names",
        "the share of rows whose text holds a name (a capital inside a sentence) that its source does not; 0 is best",
    ),
    "rmse": Metric("Root mean squared error", "mse", "the typical error, in the unit of the scores; 0 is best"),
}

LEVEL = "accuracy_level_"
LESS_IS_BETTER = ("ece", "rmse", "perplexity", "new_numbers", "new_names")

BASELINES = {
    "majority": "always the commonest class",
    "tfidf": "TF-IDF + logistic regression",
    "nearest-neighbours": "nearest neighbours in the frozen base",
    "lexicon": "each word's commonest tag",
    "overlap": "the sentence most like the question",
    "untuned": "the base as it is",
    "word-overlap": "shared words (TF-IDF)",
    "frequencies": "how frequent each token is",
    "without-stages": "the same without the stages before it",
    "teacher": "the teacher itself",
    "without-teacher": "the same student without its teacher",
    "lead": "the first sentences of the text",
    "copy": "the text itself, untranslated",
    "linear-probe": "logistic regression on the frozen base's features",
}
BASELINES_OF_NUMBERS = {"majority": "always the mean score", "tfidf": "TF-IDF + ridge regression",
                        "linear-probe": "ridge regression on the frozen base's features"}  # fmt: skip
BASELINES_IN_PLAIN = {
    "majority": "giving always the same answer",
    "tfidf": "counting words",
    "nearest-neighbours": "looking up the most similar training rows",
    "lexicon": "looking each word up in a list",
    "overlap": "giving the sentence that shares most words with the question",
    "untuned": "the model before fine-tuning",
    "word-overlap": "counting shared words",
    "frequencies": "guessing by how frequent words are",
    "without-stages": "the same training without the stages before it",
    "teacher": "the teacher itself",
    "without-teacher": "the same training without the teacher",
    "lead": "giving the first sentences of the text",
    "copy": "giving the text itself, untranslated",
    "linear-probe": "a plain regression on what the untuned model sees",
}


def metric(name: str) -> Metric:
    """What is known of a metric; one that is not in the table is called by its own name."""
    if name.startswith(LEVEL):
        level = name.removeprefix(LEVEL)
        return Metric(
            f"Accuracy to level {level}", "accuracy", f"the share of rows that are right down to level {level}"
        )
    return METRICS.get(name) or Metric(name.replace("_", " "), name, "as the task defines it")


def in_prose(name: str) -> str:
    """A metric's title inside a sentence."""
    title = metric(name).title
    return title[:1].lower() + title[1:]


def baseline(name: str, of_number: bool = False) -> str:
    """What a baseline is; where a number is learned, some are another."""
    return (BASELINES_OF_NUMBERS.get(name) if of_number else None) or BASELINES.get(name, name)


def method(recipe: Recipe) -> str:
    """The method with its settings, as a clause."""
    settings = recipe.method.model_dump(mode="json", exclude_none=True)
    settings.pop("kind")
    said = [f"{name.replace('_', ' ')} {_plain(value)}" for name, value in settings.items()]
    return f"{recipe.method.facts.words}{': ' if said else ''}{', '.join(said)}"


def short_method(settings: Any) -> str:
    """A method in a table: its kind, and what was changed of it."""
    usual = type(settings)()
    changed = {
        name: getattr(settings, name)
        for name in type(settings).model_fields
        if name not in ("kind", "alpha") and getattr(settings, name) != getattr(usual, name)
    }
    said = []
    for name, value in changed.items():
        told = value.epochs if name == "head_first" else value
        said.append(f"{name} {_plain(told)}")
    return ", ".join([settings.kind, *said])


def _plain(value: object) -> str:
    if isinstance(value, dict):
        said = [f"{name.replace('_', ' ')} {_plain(item)}" for name, item in value.items()]
        return f"({', '.join(said)})"
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def exact(value: float | None) -> str:
    """A score, with four decimals as everywhere in the program."""
    return MISSING if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    return f"{value:+.4f}"


def share(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * value:+.1f}"


def interval(score: Score) -> str:
    return f"{exact(score['low'])} to {exact(score['high'])}"


def scored(score: Score) -> str:
    return f"{exact(score['value'])} (95\N{NO-BREAK SPACE}% interval {interval(score)})"


def short(value: float | None) -> str:
    """A measured number where three figures are enough."""
    return MISSING if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


LONG_TEXTS = {
    "truncate": "the first {:,} tokens were read",
    "head_tail": "{:,} tokens were read, a quarter of them from the beginning and the rest from the end",
    "windows": "overlapping windows of {:,} tokens were read, and their outputs averaged",
    "chunks": "parts of up to {:,} tokens were read one by one, and the summaries of the parts summarised",
}
"""What is read of an input that is longer than the model takes, by `train.long_text`."""


def count(number: int, one: str, many: str = "") -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(number: float) -> str:
    """Bytes in decimal units, as disks and downloads are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def sentence(text: str) -> str:
    """Text with a capital letter and a full stop. A name of a file or a setting (`train.jsonl: ..`) stays as it is."""
    text = text.strip()
    is_name = "." in text.partition(" ")[0].rstrip(".:,")
    return (text[:1] if is_name else text[:1].upper()) + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def listing(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
