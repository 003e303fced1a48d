"""report.html: its numbers are the folder's, its texts are harmless, its bytes are stable, and it needs nothing."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from fabricated import macro_f1

from tunesmith import folder as folders
from tunesmith.folder import RunFolder
from tunesmith.report.record import without_folders
from tunesmith.report.writing import write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> $x^{ {{ 7*7 }} \x00\x1b[31m |x|"
VOID = {"meta", "br", "img", "link", "input", "hr", "wbr", "col", "path", "use"}


class Page(HTMLParser):
    """The elements of a page, the values of its <data>, its ids; and a complaint where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [str(found[name]) for _, found in self.attributes if name in found]


def read(folder: RunFolder) -> str:
    return folder.report.read_text(encoding="utf-8")


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    return [value] if isinstance(value, float) else []


def test_every_number_of_scores_and_verdict_is_shown_exactly(report):
    folder = report()
    shown = {float(found["value"]) for tag, found in Page(read(folder)).attributes if tag == "data"}
    scores, verdict = folders.read_json(folder.scores), folders.read_json(folder.verdict)
    wanted = numbers(scores) + numbers(verdict["gain"])
    assert len(wanted) > 30
    assert set(wanted) <= shown
    for value in wanted[:30]:
        assert f">{value:.4f}</data>" in read(folder)


def test_mean_of_class_f1_is_macro_f1(report):
    from tunesmith.report.classes import class_scores

    rows = folders.lines(report().predictions("test"))
    scores = class_scores(rows)
    assert sum(score.f1.value for score in scores) / len(scores) == pytest.approx(macro_f1(rows), abs=1e-12)
    assert [score.f1.value for score in scores] == sorted(score.f1.value for score in scores)
    for share in (part for score in scores for part in (score.f1, score.precision, score.recall)):
        assert 0 <= share.low <= share.value <= share.high <= 1


def test_wilson_is_the_published_interval():
    from tunesmith.shares import wilson

    found = wilson(81, 263)  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0).value is None
    assert wilson(0, 20).low == 0.0 and wilson(20, 20).high == 1.0


def test_hostile_labels_and_texts_stay_text(report):
    folder = report(labels=(HOSTILE, "javascript:alert(1)", "plain"), text=HOSTILE, base=f"/models/{HOSTILE}")
    page = Page(read(folder))
    assert "script" not in page.tags and "img" not in page.tags
    assert not [name for _, found in page.attributes for name in found if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in read(folder)
    assert "\x00" not in read(folder) and "\x1b" not in read(folder)
    for text in (folder.card, folder.paper):
        assert "<script" not in text.read_text() and "<img" not in text.read_text()


def test_page_asks_for_nothing(report):
    text = read(report())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert all(target.startswith("#") for name in ("href", "src", "xlink:href") for target in page.values(name))
    assert not re.search(r"@import|url\((?!#)", text)


def test_ids_are_unique_and_links_lead_somewhere(report):
    page = Page(read(report(overfits=True, refit=True)))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [link for link in page.values("href") if link.startswith("#")]
    assert links and all(link[1:] in ids for link in links)


def test_headings_descend_one_by_one_and_tables_are_named(report):
    page = Page(read(report()))
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.tags.count("table") == page.tags.count("caption")
    assert all(found.get("scope") in ("row", "col") for tag, found in page.attributes if tag == "th")
    assert all(found.get("aria-label") for tag, found in page.attributes if tag == "svg")


def test_same_folder_same_bytes(fresh):
    folder = fresh()
    files = (folder.report, folder.card, folder.paper)
    before = [file.read_bytes() for file in files]
    write_report(folder)
    assert [file.read_bytes() for file in files] == before


def test_many_classes_stay_small_and_quick(report):
    began = time.perf_counter()
    folder = report(labels=tuple(f"class_{n:02d}" for n in range(77)), test_rows=3080, steps=5000)
    assert time.perf_counter() - began < 15
    text = read(folder)
    assert folder.report.stat().st_size < 1_000_000
    assert all(f"class_<wbr>{n:02d}" in text for n in range(77))
    assert "Confusion matrix" not in text and "Commonest mistakes" in text


def test_twenty_classes_get_a_matrix(report):
    assert "Confusion matrix" in read(report(labels=tuple(f"c{n}" for n in range(20)), test_rows=400))


def test_overfitting_is_named_only_where_it_is(report):
    assert "Overfitting." in read(report(overfits=True, refit=True))
    calm = read(report())
    assert "Overfitting." not in calm and ">overfitting<" not in calm


def test_without_a_test_set_validation_is_judged_and_said(report):
    text = read(report(refit=True, test_rows=None))
    assert "Judged without a test set" in text and "sealed test was looked at" not in text


def test_without_baselines_there_is_no_verdict(report):
    text = read(report(baselines=False))
    assert "No verdict" in text and "Best simple method" not in text


def test_refit_is_drawn_and_its_missing_score_is_said(report):
    text = read(report(refit=True, test_rows=None))
    assert "training again" in text and "The kept model itself is not scored" in text


def test_resuming_and_early_stopping_are_told(report):
    text = read(report(resumed_from=40, ended="early stopping: no better accuracy in 3 evaluations"))
    assert "resumed from step 40" in text and "Training stopped early" in text


def test_no_folder_of_this_machine_is_named(report):
    for file in (folder := report()).report, folder.card, folder.paper:
        assert "/home/somebody" not in file.read_text()


def test_warnings_name_no_folder_either(report):
    warning = "passed over a damaged checkpoint: /home/some body/my runs/first/checkpoints/step-3: no such file"
    text = read(report(warnings=[warning]))
    assert "Passed over a damaged checkpoint: step-3: no such file." in text and "some body" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane doe/my data/train.jsonl:3: bad", "train.jsonl:3: bad"),
        ("see '/home/jane doe/a.csv' and '/home/jane/b.csv'", "see 'a.csv' and 'b.csv'"),
        ("/data/a.csv, then input/output of /srv/b.csv", "a.csv, then input/output of b.csv"),
        ("runs/first/model and 3 / 4 rows", "runs/first/model and 3 / 4 rows"),
    ],
)
def test_folders_are_cut_whole(text, shown):
    assert without_folders(text) == shown


def test_all_bad_rows_are_counted_and_the_card_quotes_none(fresh):
    folder = fresh()
    faults = [f"/home/somebody/train.jsonl:{n}: label is 'my private words', no number" for n in range(1, 101)]
    note = {"code": "bad-rows", "level": "warn", "message": f"5000 bad rows left out: {'; '.join(faults[:5])}"}
    note |= {"where": "/home/somebody/train.jsonl:1", "remedy": "", "source": "", "count": 5000}
    note["rows"] = [f"/home/somebody/train.jsonl:{n}" for n in range(1, 21)]
    folders.write_json(folder.check, [note])
    data = folders.read_json(folder.data)
    folders.write_json(folder.data, {**data, "skipped": faults, "skipped_rows": 5000})
    write_report(folder)
    card, paper = folder.card.read_text(), folder.paper.read_text()
    assert "private words" not in card + paper and "private words" in read(folder)
    assert "5,000 bad rows left out: train.jsonl:1, train.jsonl:2" in card
    assert "5,000 bad rows left out:" in read(folder) and "5,000 malformed rows left out" in paper
    assert "100 bad rows" not in card + read(folder)
    folders.write_json(folder.data, {**data, "skipped": faults})
    write_report(folder)
    assert "100 malformed rows left out" in folder.paper.read_text(), "an older run tells no more"


def test_leaked_rows_are_counted_with_the_scores_without_them(fresh):
    folder = fresh()
    data, scores = folders.read_json(folder.data), folders.read_json(folder.scores)
    scores["test_without_overlap"] = {name: {"value": 0.5151, "low": 0.4, "high": 0.6} for name in scores["test"]}
    folders.write_json(folder.data, {**data, "leaked": 7})
    folders.write_json(folder.scores, scores)
    write_report(folder)
    assert "7 of 90 test rows also stand among the training rows" in read(folder) and "0.5151" in read(folder)


def test_all_right_and_hardly_learned(fresh):
    folder = fresh()
    rows = [{**row, "answer": row["gold"]} for row in folders.lines(folder.predictions("test"))]
    folders.write_lines(folder.predictions("test"), rows)
    folders.write_lines(folder.steps, [{**row, "loss": 1.1} for row in folders.lines(folder.steps)])
    folders.write_json(folder.data, {**folders.read_json(folder.data), "worst_errors": []})
    write_report(folder)
    assert "There are none: every row was answered right" in read(folder)
    assert "The model has hardly learned" in read(folder)
