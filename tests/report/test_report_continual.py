"""What became of earlier tasks, on the page, in the paper and beside other runs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fabricated import make_run
from test_report_page import Page, numbers

from tunesmith import folder as folders
from tunesmith.audits.continual import summarise
from tunesmith.report.bibliography import BIBTEX, OF_CONSOLIDATION
from tunesmith.report.comparison import make_comparison
from tunesmith.report.continual import memory
from tunesmith.report.page import make_page
from tunesmith.report.paper import make_paper
from tunesmith.report.record import read_record

TASKS = ("support mail", "<chat>", "entities", "lost_property_forms")


def _score(value: float | None, half: float = 0.03) -> dict[str, float] | None:
    return None if value is None else {"value": value, "low": value - half, "high": value + half}


def fabricated(forgetting: tuple[float, float, float] = (0.0832, 0.0311, 0.1299), known: bool = True) -> dict[str, Any]:
    """What an audit leaves of four tasks, one of which was not scored once."""
    values = [
        [0.9123, 0.8877, None, 0.7991],
        [None, 0.7456, 0.7512, 0.6815],
        [None, None, 0.6622, 0.6622],
        [None, 0.1021, None, 0.8444],
    ]
    matrix = [[_score(value) for value in line] for line in values]
    metrics = ("accuracy", "accuracy", "entity_f1", "macro_f1")
    found = summarise(TASKS, TASKS, metrics, matrix)
    found["rows"] = [300, 200, 120, 1] if known else [None] * 4
    if known:
        value, low, high = forgetting
        found["forgetting"] = {"value": value, "low": low, "high": high}
        found["backward_transfer"] = {"value": -0.0591, "low": -0.1102, "high": -0.0102}
        found["forgotten"][0] |= {"low": 0.0765, "high": 0.1499}
    return found


def with_memory(path: Any, found: dict[str, Any] | None) -> Any:
    folder = make_run(path)
    audits = folders.read_json(folder.audits)
    folders.write_json(folder.audits, audits | ({} if found is None else {"continual": found}))
    return read_record(folder)


def test_the_page_shows_every_number_and_says_it_in_words(tmp_path):
    found = fabricated()
    page = Page(make_page(with_memory(tmp_path / "run", found)))
    text = make_page(with_memory(tmp_path / "run", found))
    shown = {float(item["value"]) for tag, item in page.attributes if tag == "data"}
    assert set(numbers(found["matrix"])) | set(numbers(found["average"])) | set(numbers(found["forgotten"])) <= shown
    ids = page.values("id")
    assert "memory" in ids and len(ids) == len(set(ids)) and all(link[1:] in ids for link in page.values("href"))
    assert "&lt;chat&gt;" in text and "<chat>" not in text
    section = text[text.index('<section aria-labelledby="memory">') :].partition("</section>")[0]
    assert section.count("just learned") == 4 and section.count("not scored") == 1
    assert section.count("not yet learned") == 6, "five were not scored then, and one was"
    assert section.count("-0.1132 from the best") == 1 and section.count(">best<") == 2
    assert "0.0832 below their best" in section and "something was forgotten" in section
    assert "Entity F1, 120 rows" in section and "Macro-F1, 1 row<" in section
    assert section.count("learned last") == 1
    shades = [float(share) for share in re.findall(r"--share:([\d.]+)", section)]
    assert len(shades) == 16 and all(0 <= share <= 1 for share in shades)


@pytest.mark.parametrize(
    ("forgotten", "words"),
    [
        ((0.01, -0.02, 0.04), "may be mere chance"),
        ((0.05, 0.01, 0.09), "something was forgotten"),
        ((-0.05, -0.09, -0.01), "0.0500 above their best on average (forgetting"),
    ],
)
def test_only_an_interval_says_that_something_was_forgotten(tmp_path, forgotten, words):
    record = with_memory(tmp_path / "run", fabricated(forgotten))
    assert words in memory(record).sentence


def test_scores_without_their_rows_have_no_interval(tmp_path):
    record = with_memory(tmp_path / "run", fabricated(known=False))
    found = memory(record)
    assert "no interval" in found.sentence and found.lines[0][1] == "Accuracy"
    assert "no interval" in make_page(record)
    assert "Mean forgetting (Chaudhry et al., 2018) was 0.0610." in make_paper(record)


def test_a_task_that_lacks_its_end_is_said(tmp_path):
    found = summarise(("a", "b"), ("a", "b"), ("accuracy",) * 2, [[_score(0.9), None], [None, _score(0.8)]])
    record = with_memory(tmp_path / "run", found)
    assert "cannot be said" in memory(record).sentence and memory(record).figures == []
    assert "not known" in make_page(record) and "Chaudhry et al." not in make_paper(record)


def test_the_paper_says_it_and_cites_it(tmp_path):
    paper = make_paper(with_memory(tmp_path / "run", fabricated()))
    assert "After the last of 4 tasks learned in turn the mean score over all tasks was 0.7468" in paper
    assert "backward transfer -0.0591 (-0.1102 to -0.0102) (Lopez-Paz and Ranzato, 2017)" in paper
    assert "Mean forgetting (Chaudhry et al., 2018) was 0.0832 (0.0311 to 0.1299)." in paper
    assert "@inproceedings{chaudhry2018riemannian" in paper and "@inproceedings{lopezpaz2017gem" in paper
    assert set(OF_CONSOLIDATION) <= set(BIBTEX)


def test_other_runs_say_nothing_of_it(tmp_path):
    record = with_memory(tmp_path / "run", None)
    assert memory(record) is None and 'id="memory"' not in make_page(record)
    assert "lopezpaz" not in make_paper(record) and "forgetting" not in make_paper(record)


def run_of(name: str, **more: Any) -> dict[str, Any]:
    score = {"value": 0.8, "low": 0.75, "high": 0.85}
    costs = {"trainable": 1000, "seconds": 9.0, "peak_memory_bytes": 1e9, "model_bytes": 1e6}
    return {"run": name, "method": "full", "score": score, "difference": score, **costs, **more}


def test_runs_are_compared_by_what_they_forgot():
    known = {"value": 0.0123, "low": -0.0101, "high": 0.0345}
    alone = {"value": 0.0456, "low": None, "high": None}
    runs = [run_of("a", forgetting=known), run_of("b", forgetting=None), run_of("c", forgetting=alone)]
    result: dict[str, Any] = {"primary": "accuracy", "split": "test", "rows": 90, "runs": runs}
    text = make_comparison(result)
    assert ">Forgetting<" in text and "+0.0123" in text and "-0.0101 to +0.0345" in text and "+0.0456" in text
    plain = make_comparison({**result, "runs": [run_of("a"), run_of("b")]})
    assert "orgetting" not in plain
    for page in (text, plain):
        lines = page.splitlines()
        heads = next(line for line in lines if "Minus the best" in line).count("<th scope")
        rows = [line for line in lines if line.startswith('<tr><td class="number">') and "<bdi>" in line]
        assert {row.count("<th") + row.count("<td") for row in rows} == {heads}
