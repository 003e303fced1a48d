"""How near a written text is to its references: ROUGE, BLEU and chrF, from 0 to 1. Letters: M resamples, k statistics.

BLEU and chrF are scores of a whole corpus: functions of sums over rows. What each row adds is counted by sacrebleu
itself; only the last formula stands here, over many resamples at once (sacrebleu prints the same from 0 to 100).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from tunesmith.tasks import metrics
from tunesmith.tasks.metrics import Measure

BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2
KEPT_ROWS = 50_000
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = "".join(chr(code) for code in range(0x300, 0xFE30) if unicodedata.category(chr(code))[0] == "M")
_WORD = re.compile(rf"[{_NO_SPACES}]|(?:(?![{_NO_SPACES}])[^\W_]|[{_MARKS}])+")
"""A run of letters, digits and marks on them (vowels of Hindi and Thai are such); in Chinese and Japanese, which put no
spaces between words, a single sign."""


def measures(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """The measures of written texts, each beside one or more references. Of several, ROUGE and chrF take the one that
    the text is nearest to; BLEU takes matches from all."""
    rows = list(zip(texts, [tuple(mine) for mine in references], strict=True))
    rouge = np.array([rouge_of(text, mine) for text, mine in rows]).reshape(-1, 3)
    found = {name: metrics.mean(rouge[:, place]) for place, name in enumerate(("rouge_1", "rouge_2", "rouge_l"))}
    found["chrf"] = metrics.of_sums(np.array([_chrf_statistics(*row) for row in rows], dtype=float), _chrf)
    found["bleu"] = metrics.of_sums(np.array([_bleu_statistics(*row) for row in rows], dtype=float), _bleu)
    found["exact_match"] = metrics.mean([float(text in {one.strip() for one in mine}) for text, mine in rows])
    return found


def chrf_of(text: str, references: Sequence[str]) -> float:
    """chrF of one text."""
    return float(_chrf(np.array([_chrf_statistics(text, tuple(references))], dtype=float))[0])


def signatures() -> dict[str, str]:
    """How BLEU and chrF are computed, as sacrebleu says it for papers (Post 2018, arXiv:1804.08771)."""
    bleu, chrf = _bleu_metric(), _chrf_metric()
    return {name: str(metric.get_signature().format()) for name, metric in (("bleu", bleu), ("chrf", chrf))}


@lru_cache(maxsize=KEPT_ROWS)
def rouge_of(text: str, references: tuple[str, ...]) -> tuple[float, float, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L against the best of the references, words in lower case and unstemmed (Lin
    2004, https://aclanthology.org/W04-1013)."""
    mine, theirs = words_of(text), [words_of(one) for one in references]
    return (
        max(_overlap(mine, one, 1) for one in theirs),
        max(_overlap(mine, one, 2) for one in theirs),
        max(_f1(_common_subsequence(mine, one), len(mine), len(one)) for one in theirs),
    )


def words_of(text: str) -> list[str]:
    """The words of a text as ROUGE counts them."""
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()))


def _overlap(mine: Sequence[str], theirs: Sequence[str], order: int) -> float:
    grams = [Counter(tuple(side[i : i + order]) for i in range(len(side) - order + 1)) for side in (mine, theirs)]
    return _f1((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total())


def _f1(shared: int, mine: int, theirs: int) -> float:
    return 2 * shared / (mine + theirs) if shared else 0.0


def _common_subsequence(mine: Sequence[str], theirs: Sequence[str]) -> int:
    """The length of the longest common subsequence; a column of the table is the bits of one number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(mine):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(mine)) - 1
    unmatched = whole
    for word in theirs:
        met = unmatched & places.get(word, 0)
        unmatched = ((unmatched + met) | (unmatched - met)) & whole
    return len(mine) - unmatched.bit_count()


@cache
def _bleu_metric() -> Any:
    from sacrebleu.metrics import BLEU

    return _counted(BLEU())


@cache
def _chrf_metric() -> Any:
    from sacrebleu.metrics import CHRF

    return _counted(CHRF())


def _counted(metric: Any) -> Any:
    """A metric whose signature does not hang on the row that it saw last."""
    metric.num_refs = -1
    return metric


def _statistics(metric: Any, text: str, references: tuple[str, ...]) -> list[int]:
    """What a row adds to the sums. (The name is sacrebleu's own; it has no other for it, and a test holds the sums
    against its corpus scores.)"""
    [row] = metric._extract_corpus_statistics([text], [[one] for one in references])
    metric.num_refs = -1
    return list(row)


@lru_cache(maxsize=KEPT_ROWS)
def _bleu_statistics(text: str, references: tuple[str, ...]) -> list[int]:
    """Words of the text and of the nearest reference; for each order n-grams that match, then all of the text."""
    return _statistics(_bleu_metric(), text, references)


@lru_cache(maxsize=KEPT_ROWS)
def _chrf_statistics(text: str, references: tuple[str, ...]) -> list[int]:
    """For each order: n-grams of the text, of the nearest reference, and those that match."""
    return _statistics(_chrf_metric(), text, references)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """(M,) BLEU (Papineni et al. 2002) from (M, 10) sums, with sacrebleu's smoothing `exp`: each order without a match
    counts as half of a match, a quarter, and so on."""
    words, reference = sums[:, 0], sums[:, 1]
    right, total = sums[:, 2 : 2 + BLEU_ORDER], sums[:, 2 + BLEU_ORDER :]
    empty = right == 0
    smoothed = np.where(empty, 0.5 ** np.cumsum(empty, axis=1), right)
    logs = np.log(smoothed / np.maximum(total, 1e-300)).sum(axis=1) / BLEU_ORDER
    brevity = np.minimum(0.0, 1 - reference / np.maximum(words, 1e-300))
    defined = (total > 0).all(axis=1) & ~empty.all(axis=1)
    return np.where(defined, np.exp(np.where(defined, logs + brevity, 0.0)), 0.0)


def _chrf(sums: np.ndarray) -> np.ndarray:
    """(M,) chrF (Popović 2015, https://aclanthology.org/W15-3049) from (M, 18) sums: the F score, recall weighing
    twice, of precision and recall averaged over the orders that both sides have."""
    mine, theirs, shared = (sums[:, part::3] for part in range(3))
    both = (mine > 0) & (theirs > 0)
    orders = np.maximum(both.sum(axis=1), 1)
    precision, recall = (
        np.where(both, shared / np.maximum(side, 1e-300), 0.0).sum(axis=1) / orders for side in (mine, theirs)
    )
    weight = CHRF_BETA**2
    return (1 + weight) * precision * recall / np.maximum(weight * precision + recall, 1e-300)
