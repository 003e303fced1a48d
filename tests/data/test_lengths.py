"""How many rows are cut and how many are bare: exact where all are encoded, an honest estimate where a sample is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from tunesmith import lengths, preflight
from tunesmith.data.rows import Row
from tunesmith.lengths import SAMPLE_ROWS, Lengths, count_lengths, estimate_lengths
from tunesmith.models.heads import load_tokenizer
from tunesmith.recipe import Recipe
from tunesmith.recipe.classification import TextClassification as Settings
from tunesmith.tasks.contract import Limit
from tunesmith.tasks.text_classification import TextClassification

COLUMNS = Settings().columns
LIMIT = Limit(16)
SHORT, LONG = "card money", "card " * 40


@pytest.fixture(scope="module")
def processor(bases: Callable[..., Path]) -> Any:
    return load_tokenizer(bases("bert"))


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(lengths, "SAMPLE_ROWS", 300)
    return 300


def rows_of(texts: list[str]) -> list[Row]:
    return [Row({"text": text, "label": "x"}, "rows.jsonl", line) for line, text in enumerate(texts, start=1)]


def both(texts: list[str], processor: Any) -> tuple[Lengths, Lengths]:
    """The figures of `run`, which encodes every row, and those of `check`."""
    task, rows = TextClassification(Settings()), rows_of(texts)
    exact = count_lengths(rows, task.encode(rows, processor, LIMIT), task, processor, LIMIT)
    return exact, estimate_lengths(rows, COLUMNS, task, processor, LIMIT)


def texts_with(share: float, rows: int, source: random.Random) -> list[str]:
    return [" ".join(source.choices(tiny.WORDS, k=18 if source.random() < share else 5)) for _ in range(rows)]


def test_up_to_the_sample_every_row_is_counted(processor: Any, small_sample: int) -> None:
    exact, estimate = both(texts_with(0.1, small_sample, random.Random(1)), processor)
    assert estimate == exact and not exact.is_sampled and exact.cut > 0
    assert exact.cut_share.low == exact.cut_share.value == exact.cut_share.high == exact.cut / exact.rows


@pytest.mark.parametrize("share", [0.005, 0.05, 0.4])
def test_the_interval_of_a_sample_holds_the_exact_share(processor: Any, small_sample: int, share: float) -> None:
    """In at least nine of ten sets (95 of a hundred by its meaning); and it is no wider than the sample asks for."""
    held = 0
    for seed in range(20):
        exact, estimate = both(texts_with(share, 1000, random.Random(seed)), processor)
        assert estimate.is_sampled and (estimate.rows, estimate.encoded) == (1000, small_sample)
        found = estimate.cut_share
        held += found.low <= exact.cut / exact.rows <= found.high
        assert found.high - found.low < 0.12
    assert held >= 18


@pytest.mark.parametrize(
    "texts",
    [
        [SHORT] * 600 + [LONG] * 400,  # by length, as an export may be sorted
        [SHORT, LONG] * 500,  # in a rhythm
        [SHORT] * 700 + [f"{LONG} {number}" for number in range(300)],  # one text again and again
    ],
)
def test_no_order_and_no_copies_mislead_the_sample(processor: Any, small_sample: int, texts: list[str]) -> None:
    exact, estimate = both(texts, processor)
    assert estimate.cut_share.low <= exact.cut / exact.rows <= estimate.cut_share.high


def test_rows_without_tokens_are_counted_one_by_one(processor: Any, small_sample: int) -> None:
    """Three in a thousand, which a sample would miss; signs for which the tokenizer has a token are not among them."""
    texts = texts_with(0.0, 1000, random.Random(2))
    for place in (7, 400, 999):
        texts[place] = "\u200b\u200d \u200b"
    texts[20] = "?!"
    exact, estimate = both(texts, processor)
    assert exact.bare == estimate.bare == 3


def test_the_note_says_what_is_counted_and_what_is_estimated() -> None:
    recipe = Recipe.model_validate(
        {"model": "x", "data": {"train": "x"}, "train": {"max_length": 16, "long_text": "truncate"}}
    )

    def told(found: Lengths) -> preflight.Note:
        (note,) = preflight._on_lengths(recipe, {"train": found})
        return note

    exact, estimate = told(Lengths(1000, 1000, 60, 0)), told(Lengths(90_000, 5000, 300, 0))
    assert exact.message.startswith("60 train rows (6.0%) are longer than 16 tokens") and exact.count == 60
    assert estimate.message.startswith(
        "about 5,400 train rows (6.0%; by a sample of 5,000 of them, 95 % interval 5.4% to 6.7%) are longer"
    )
    assert estimate.count == 5400 and (exact.level, estimate.level) == ("warn", "warn")
    assert not list(preflight._on_lengths(recipe, {"train": Lengths(90_000, 5000, 0, 0)}))


def test_an_estimate_costs_a_part_of_encoding_all(processor: Any) -> None:
    """Processor time against that of encoding six times as many rows, in the same process; the least of three tries
    each, since whatever else this machine does takes time from either."""
    task, rows = TextClassification(Settings()), rows_of(texts_with(0.1, 6 * SAMPLE_ROWS, random.Random(3)))

    def seconds(work: Callable[[], Any]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    part, whole = float("inf"), float("inf")
    for _ in range(3):
        whole = min(whole, seconds(lambda: task.encode(rows, processor, LIMIT)))
        part = min(part, seconds(lambda: estimate_lengths(rows, COLUMNS, task, processor, LIMIT)))
        if part < whole / 2:
            return
    raise AssertionError(f"{part:.2f} s against {whole:.2f} s")
