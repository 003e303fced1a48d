"""What a peer's raw outputs are worth on the test rows, by the field's own libraries where they have the measure."""

from itertools import zip_longest

import numpy as np


def one_label(golds: list[str], told: dict) -> dict[str, float]:
    """Accuracy, of all levels and of the first, and macro-F1, by scikit-learn."""
    from sklearn.metrics import accuracy_score, f1_score

    names, logits_RC = told["names"], np.asarray(told["outputs"])
    answers = [names[c] for c in logits_RC.argmax(axis=1)]
    first = [[value.split("/")[0] for value in values] for values in (golds, answers)]
    found = {"accuracy": accuracy_score(golds, answers), "macro_f1": f1_score(golds, answers, average="macro")}
    is_path = any("/" in name for name in names)
    return found | ({"accuracy_level_1": accuracy_score(*first)} if is_path else {})


def many_labels(golds: list[list[str]], told: dict) -> dict[str, float]:
    """F1 at a threshold of one half and mean average precision, by scikit-learn."""
    from sklearn.metrics import average_precision_score, f1_score

    names, logits_RC = told["names"], np.asarray(told["outputs"])
    unknown = sorted({name for gold in golds for name in gold} - set(names))  # never given, and so missed
    logits_RC = np.hstack([logits_RC, np.full((len(golds), len(unknown)), -1e9)])
    gold_RC = np.array([[name in gold for name in [*names, *unknown]] for gold in golds])
    seen = gold_RC.any(axis=0)
    return {
        "micro_f1": f1_score(gold_RC, logits_RC > 0, average="micro"),
        "macro_f1": f1_score(gold_RC[:, seen], logits_RC[:, seen] > 0, average="macro", zero_division=0),
        "mean_average_precision": average_precision_score(gold_RC[:, seen], logits_RC[:, seen], average="macro"),
    }


def number(golds: list[float], told: dict) -> dict[str, float]:
    """Correlations, by scipy."""
    from scipy.stats import pearsonr, spearmanr

    guesses = np.asarray(told["outputs"])[:, 0]
    return {"spearman": float(spearmanr(golds, guesses)[0]), "pearson": float(pearsonr(golds, guesses)[0])}


def entities(golds: list[list[str]], told: dict) -> dict[str, float]:
    """Strict precision, recall and F1 of entities, by nervaluate."""
    from nervaluate import Evaluator

    kinds = sorted({tag[2:] for tags in golds for tag in tags if tag != "O"})
    strict = Evaluator(golds, told["tags"], tags=kinds, loader="list").evaluate()["overall"]["strict"]
    return {f"entity_{name}": getattr(strict, name) for name in ("f1", "precision", "recall")}


def answers(golds: list[dict], told: dict) -> dict[str, float]:
    """Exact match and F1 as SQuAD has them (a law of ours holds these two functions against its definition)."""
    from tunesmith.tasks.question_answering import exact_of, f1_of

    pairs = [(text, gold["texts"]) for text, gold in zip(told["texts"], golds, strict=True)]
    return {
        "answer_f1": float(np.mean([f1_of(text, gold) for text, gold in pairs])),
        "exact_match": float(np.mean([exact_of(text, gold) for text, gold in pairs])),
    }


def written(golds: list[list[str]], told: dict) -> dict[str, float]:
    """chrF and BLEU by sacrebleu, from 0 to 1; ROUGE-L by our own function (a law holds it against the definition)."""
    from sacrebleu.metrics import BLEU, CHRF

    from tunesmith.tasks.text_metrics import rouge_of

    texts, references = told["texts"], [list(column) for column in zip_longest(*golds)]
    return {
        "chrf": CHRF().corpus_score(texts, references).score / 100,
        "bleu": BLEU().corpus_score(texts, references).score / 100,
        "rouge_l": float(np.mean([rouge_of(text, tuple(gold))[2] for text, gold in zip(texts, golds, strict=True)])),
    }


def expected(golds: list[str], told: dict) -> dict[str, float]:
    """The mean log-probability (nats) of all tokens asked for, and perplexity."""
    loss, tokens, right = np.sum(told["sums"], axis=0)
    return {
        "log_likelihood": float(-loss / tokens),
        "perplexity": float(np.exp(loss / tokens)),
        "token_accuracy": float(right / tokens),
    }


SCORES = {
    "label": one_label,
    "labels": many_labels,
    "score": number,
    "tags": entities,
    "answers": answers,
    "target": written,
    "text": expected,
}
