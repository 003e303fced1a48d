"""The recipe's kinds, the tables of what acts, and the columns agree."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from tunesmith.baselines import Baseline
from tunesmith.data import columns
from tunesmith.folder import read_json
from tunesmith.judging import _FITS
from tunesmith.methods import METHODS
from tunesmith.recipe import Judge, methods, tasks
from tunesmith.recipe.columns import Column
from tunesmith.recipe.joint import ALONE
from tunesmith.recipe.judge import BASELINES
from tunesmith.recipe.reading import SCHEMA_FILE, schema
from tunesmith.report.bibliography import BIBTEX, OF_OPTIONS
from tunesmith.tasks import TASKS
from tunesmith.tasks.contract import Prediction
from tunesmith.tasks.targets import TARGETS


def test_kinds_are_the_keys_of_the_tables() -> None:
    """Every kind that a recipe may name is built by a row of a table, and every row can be named."""
    assert list(methods.KINDS) == [*METHODS, "auto"], "`auto` becomes one of the others"
    assert list(tasks.KINDS) == list(TASKS)
    for table in (methods.KINDS, tasks.KINDS):
        for kind, settings in table.items():
            assert settings().kind == kind  # type: ignore[attr-defined]
            assert settings.__doc__
    for kind in METHODS:
        facts = methods.KINDS[kind].facts
        assert facts.usual_rates[0] < 2e-4 * facts.rate_factor < facts.usual_rates[1], "`auto` is nothing unusual"
        assert not facts.cited or facts.cited in BIBTEX
    assert set(OF_OPTIONS.values()) <= set(BIBTEX)


def test_every_baseline_can_be_fitted() -> None:
    """`judge.baselines` takes exactly the names that have a fit."""
    named = get_args(get_args(get_args(Judge.model_fields["baselines"].annotation)[1])[0])
    assert set(named) == set(BASELINES) == {*_FITS, ALONE}  # that one is fitted where several tasks are
    assert hasattr(Baseline, "predict")


VALUES: dict[str, Any] = {"labels": ["a"], "score": 1.0, "tags": [{"start": 0, "end": 1, "label": "a", "score": 1.0}]}
VALUES["spans"] = VALUES["tags"]
VALUES["language"] = {"loss": 0.0, "tokens": 1.0, "right": 1.0}
VALUES["positive"] = VALUES["triplet"] = {"rank": 1.0, "similarity": 1.0}
GOLDS = {"answers": ["a"], "text": ["a"]}
VALUES["answers"] = {"text": "a", "start": 0, "end": 1}
VALUES["text"] = {"text": "a", "new_numbers": [], "new_names": []}


TARGETS_OF: dict[str, Any] = {kind: settings.TARGETS for kind, settings in tasks.KINDS.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "target"), [(kind, target) for kind, mine in TARGETS_OF.items() for target in mine])
def test_columns_are_whole(kind: str, target: str) -> None:
    """No name or alias is taken twice, every kind of cell has its check, an input is required."""
    settings: Any = tasks.KINDS[kind](**({"target": target} if "target" in tasks.KINDS[kind].model_fields else {}))
    names = [name for column in settings.columns for name in column.names]
    assert len(names) == len(set(names))
    assert {column.kind for column in settings.columns} <= set(columns._CELLS)
    assert set(get_args(Column.__annotations__["kind"]) or columns._CELLS) == set(columns._CELLS)
    assert any(column.is_input and column.required for column in settings.columns)
    fields = {field.name for field in dataclasses.fields(Column)}
    assert fields == {"name", "kind", "required", "is_input", "aliases", "about", "piece", "to_learn"}
    assert {column.about for column in settings.columns} <= {"", *(column.name for column in settings.columns)}
    value: Any = VALUES.get(target, "a")
    measures = TASKS[settings.kind](settings).measures(
        [Prediction(0, GOLDS.get(target, value), value, 1.0, {"a": 1.0})]
    )
    assert set(settings.primaries) <= set(measures), "every primary metric is measured"
    assert set(tasks.KINDS[kind]().primaries) >= set(settings.primaries)
    assert set(settings.baselines) <= set(BASELINES)


def test_every_target_is_built() -> None:
    assert set(TARGETS) == set(tasks.TextClassification.TARGETS) == set(tasks.TextClassification.PRIMARIES)


def test_the_shipped_schema_is_the_settings() -> None:
    """`python -m tunesmith.recipe.reading` was run after the last change."""
    assert read_json(SCHEMA_FILE) == schema()
