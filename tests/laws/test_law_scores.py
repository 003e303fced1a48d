"""Scores are what scikit-learn says, intervals what resampling says, and a gold answer is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from workbench import recipe_of, run_tiny

import tiny
from tunesmith import judging, tasks
from tunesmith.errors import TunesmithError
from tunesmith.evaluation import BOOTSTRAP_SEED, RESAMPLES, _resamples, as_predictions, difference, score
from tunesmith.fitting import Voice
from tunesmith.recipe.tasks import KINDS
from tunesmith.run import run
from tunesmith.tasks.contract import Answer
from tunesmith.tasks.metrics import Measure

TASK = tasks.build(KINDS["text-classification"]())


def measures_of(golds: list[str], answers: list[str]) -> dict[str, Measure]:
    return TASK.measures(as_predictions(golds, [Answer(answer) for answer in answers]))


def random_case(source: np.random.Generator) -> tuple[list[str], list[str]]:
    """Golds and answers over a few classes; some classes only in one of the two, some cases tiny or one-sided."""
    classes = [f"class {number}" for number in range(source.integers(1, 7))]
    rows = int(source.integers(1, 60))
    golds = [str(source.choice(classes)) for _ in range(rows)]
    extra = [*classes, "never gold"] if source.random() < 0.3 else classes
    answers = [gold if source.random() < 0.5 else str(source.choice(extra)) for gold in golds]
    return golds, answers


def test_metrics_equal_scikit_learn() -> None:
    """Accuracy and macro-F1 on 1,000 random cases."""
    source = np.random.default_rng(0)
    for _ in range(1000):
        golds, answers = random_case(source)
        measures = measures_of(golds, answers)
        assert measures["accuracy"]() == pytest.approx(accuracy_score(golds, answers), abs=1e-12)
        wanted = f1_score(golds, answers, average="macro", zero_division=0)
        assert measures["macro_f1"]() == pytest.approx(wanted, abs=1e-12)


def test_gold_answers_score_one() -> None:
    """The gold answer is exactly 1.0, with an interval of 1.0 to 1.0, by every metric."""
    golds = ["a", "b", "c", "a", "a", "b"]
    for name, measured in score(measures_of(golds, golds)).items():
        assert measured == {"value": 1.0, "low": 1.0, "high": 1.0}, name


@pytest.mark.parametrize("rows", [1, 7, 41, 10_001])
def test_each_resample_is_drawn_by_itself(rows: int) -> None:
    """Drawing many at once gives what drawing one after the other gives; of many rows in parts."""
    generator = np.random.Generator(np.random.Philox(key=[BOOTSTRAP_SEED, rows]))
    number = 0
    for part, counts in _resamples(rows):
        assert part == slice(number, number + len(counts))
        for drawn in counts:
            assert np.array_equal(drawn, np.bincount(generator.integers(0, rows, rows), minlength=rows))
        number = part.stop
    assert number == RESAMPLES


def test_the_bootstrap_is_an_explicit_resample() -> None:
    """A metric over weighted sums is the metric over the rows drawn, each as often as it was drawn."""
    golds, answers = random_case(np.random.default_rng(5))
    golds, answers = [*golds, "rare"], [*answers, "rare"]  # a class that many a resample does not draw
    measures = measures_of(golds, answers)
    (_, counts), *_ = _resamples(len(golds))
    assert counts.shape[1] == len(golds)
    assert set(counts.sum(axis=1)) == {float(len(golds))}, "as many rows are drawn as there are"
    for draw in counts[:40]:
        rows = np.repeat(np.arange(len(golds)), draw.astype(int))
        picked_golds, picked_answers = [golds[i] for i in rows], [answers[i] for i in rows]
        explicit = measures_of(picked_golds, picked_answers)
        for name, measure in measures.items():
            assert float(measure.resampled(draw[None])[0]) == pytest.approx(explicit[name](), abs=1e-12)
    drawn = np.concatenate([counts for _, counts in _resamples(len(golds))])
    assert len(drawn) == RESAMPLES
    assert drawn.mean() == pytest.approx(1.0) and drawn.var() == pytest.approx(1 - 1 / len(golds), rel=0.05)


def test_the_interval_of_a_share_is_that_of_theory() -> None:
    """Accuracy 0.8 on 1,000 rows: 1.96 standard errors on each side, within a tenth."""
    golds = ["a"] * 1000
    answers = ["a"] * 800 + ["b"] * 200
    measured = score({"accuracy": measures_of(golds, answers)["accuracy"]})["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert measured["value"] == 0.8
    assert measured["value"] - measured["low"] == pytest.approx(half, rel=0.1)
    assert measured["high"] - measured["value"] == pytest.approx(half, rel=0.1)


def test_a_run_does_not_differ_from_itself() -> None:
    """Paired: 0 with an interval of 0 to 0; and a difference's interval is tighter than that of unpaired scores."""
    source = np.random.default_rng(1)
    golds = [str(source.choice(["a", "b"])) for _ in range(200)]
    mine = [gold if source.random() < 0.7 else "c" for gold in golds]
    better = [gold if source.random() < 0.1 else answer for gold, answer in zip(golds, mine, strict=True)]
    for name in ("accuracy", "macro_f1"):
        one, other = measures_of(golds, mine)[name], measures_of(golds, better)[name]
        assert difference(one, one) == {"value": 0.0, "low": 0.0, "high": 0.0}
        gain = difference(other, one)
        assert gain["value"] == pytest.approx(other() - one())
        alone = score({name: one})[name]
        assert gain["high"] - gain["low"] < 0.8 * (alone["high"] - alone["low"])
    with pytest.raises(ValueError, match="same rows"):
        difference(one, measures_of(["a"], ["a"])["accuracy"])


def test_no_rows_have_no_score() -> None:
    """Where every test row is also in train, what is left is nothing: said, not fallen over."""
    try:
        measured = score(measures_of([], []))
    except TunesmithError:
        return
    assert all(not np.isfinite(value["value"]) for value in measured.values()) or not measured


def test_a_test_set_that_is_all_in_train_does_not_end_the_run(
    bases: Callable[..., Path], tiny_data: Path, tmp_path: Path
) -> None:
    """Scores and report are written; what is left without the overlap is nothing, and has no score."""
    leaked = tiny.write_rows(tmp_path / "leaked.jsonl", tiny.make_rows(40)[:9])
    data = {"validation": str(tiny_data / "test.jsonl"), "test": str(leaked)}
    finished = run_tiny(bases("bert"), tiny_data / "train.jsonl", tmp_path / "run", data=data, train={"steps": 2})
    assert finished.manifest["finished"] and finished.folder.report.exists()
    assert finished.scores["test"]["accuracy"]["value"] >= 0
    assert not finished.scores.get("test_without_overlap")


def test_every_baseline_takes_any_text(bases: Callable[..., Path], tmp_path: Path) -> None:
    """Texts of one letter have no word that TF-IDF counts by default; that ends no run."""
    rows = [{"text": "abcdefghijklmnopqrstuvwxyz"[number], "label": "xy"[number % 2]} for number in range(26)]
    data = tiny.write_rows(tmp_path / "train.jsonl", rows)
    finished = run_tiny(bases("bert"), data, tmp_path / "run", judge={"baselines": "auto"}, train={"steps": 2})
    assert finished.manifest["finished"] and "majority" in finished.scores["baselines"]


def test_how_far_answers_are_is_told(
    bases: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows that take their time: validation and test, both by the base, too; the last word is that all are done."""

    class Ear(Voice):
        def __init__(self) -> None:
            self.heard: list[tuple[int, int | None]] = []

        def answered(self, rows: int, total: int | None) -> None:
            self.heard.append((rows, total))

    data = tiny.write_rows(tmp_path / "train.jsonl", tiny.make_sentences(40))
    test = tiny.write_rows(tmp_path / "test.jsonl", tiny.make_sentences(11, seed=1))
    sections: dict[str, Any] = {"task": "language-modeling", "judge": {"baselines": ["untuned"]}}
    recipe = recipe_of(bases("bert+masked"), data, tmp_path / "run", data={"test": str(test)}, **sections)
    quick = Ear()
    run(recipe, voice=quick)
    assert not quick.heard
    monkeypatch.setattr(judging, "PATIENCE_SECONDS", -1.0)
    ear = Ear()
    finished = run(recipe.but(output=str(tmp_path / "again")), voice=ear)
    held = finished.manifest["data"]["validation"]["rows"]
    assert [heard for heard in ear.heard if heard[0] == heard[1]] == [(held, held), (held, held), (11, 11), (11, 11)]


def test_a_second_count_of_rows_begins_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain lines tell the rate of the rows that are answered now, not one across two sets of rows."""
    from tunesmith import voices

    clock = iter(range(10, 1000, 10))
    monkeypatch.setattr(voices.time, "monotonic", lambda: float(next(clock)))
    voice = voices.PlainVoice()
    for passes in ((10, 30, 50), (60, 65)):
        voice.close()
        for rows in passes:
            voice.answered(rows, 100)
    said = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in said] == ["2 rows/s", "2 rows/s", "0 rows/s"]
