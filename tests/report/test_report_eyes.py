"""What a reader's eyes meet: plain words first, contrast, names for every part, and no figure that is not the run's."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from importlib.resources import files
from itertools import product

import pytest
from test_report_page import numbers, read
from test_report_parts import VARIANTS

from tunesmith import folder as folders
from tunesmith.recipe.reading import read_recipe, write_recipe
from tunesmith.report.card import make_card
from tunesmith.report.page import make_page
from tunesmith.report.record import read_record

CSS = files("tunesmith.report").joinpath("templates/page.css").read_text(encoding="utf-8")
LANDMARKS = ("section", "nav", "header", "main", "footer")


class Cells(HTMLParser):
    """The text of every cell by the class of its table, of every heading by its id, and all named regions."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.table, self.tag, self.said = "", "", ""
        self.cells: list[tuple[str, str, str]] = []
        self.headings: dict[str, str] = {}
        self.regions: list[dict[str, str]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "table":
            self.table = found.get("class") or "plain"
        if tag in ("td", "th"):
            self.tag, self.said = tag, ""
        if tag in ("h1", "h2"):
            self.inside, self.said = found["id"], ""
        if tag in LANDMARKS or found.get("role") == "region":
            self.regions.append(found)

    def handle_data(self, data):
        self.said += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cells.append((self.table, tag, self.said.strip()))
        if tag in ("h1", "h2"):
            self.headings[self.inside] = self.said


@pytest.mark.parametrize("target", VARIANTS)
def test_no_figure_of_a_score_table_is_made_up(report, target):
    """Each number with four decimals in the tables of scores is one of scores.json, rounded."""
    folder = report(**VARIANTS[target])
    known = {f"{value:.4f}" for value in numbers(folders.read_json(folder.scores))}
    said = [text for table, tag, text in Cells(read(folder)).cells if table in ("scores", "further") and tag == "td"]
    shown = re.findall(r"-?\d+\.\d{4}", " ".join(said))
    assert len(shown) > 30
    assert set(shown) <= known


@pytest.mark.parametrize("target", VARIANTS)
def test_every_header_says_something_and_every_region_has_a_name_of_its_own(report, target):
    cells = Cells(read(report(**VARIANTS[target])))
    assert all(text for _, tag, text in cells.cells if tag == "th")
    names = [found.get("aria-label") or cells.headings.get(found.get("aria-labelledby", "")) for found in cells.regions]
    twice = [name for name, many in Counter(name for name in names if name).items() if many > 1]
    assert twice == []


def test_the_page_says_its_language_and_charts_say_what_they_show(report):
    text = read(report())
    assert text.startswith('<!doctype html>\n<html lang="en">')
    drawings = re.findall(r"<svg[^>]*>", text)
    assert drawings and all('role="img"' in found and len(found) > 60 for found in drawings)


# contrast (WCAG 2.2, 1.4.3: 4.5 to 1 for text)


def schemes() -> dict[str, dict[str, str]]:
    """The colours by scheme: light; dark, which overrides some; print."""
    roots = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark, paper = (dict(re.findall(r"--([\w-]+):\s*([^;]+);", root)) for root in roots)
    return {"light": light, "dark": light | dark, "print": light | paper}


def rgb(colour: str) -> list[float]:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    return [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]


def luminance(colour: list[float]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_stands_out_from_what_it_is_written_on(scheme):
    colours = {name: rgb(value) for name, value in schemes()[scheme].items() if value.startswith("#")}
    pairs = [*product(("ink", "quiet", "fit"), ("paper", "card")), ("ink", "wash"), ("quiet", "wash")]
    pairs += [(tone, f"{tone}-wash") for tone in ("good", "bad", "open")]
    assert {pair: contrast(*(colours[name] for name in pair)) for pair in pairs if
            contrast(*(colours[name] for name in pair)) < 4.5} == {}  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_numbers_in_the_confusion_matrix_can_be_read_at_any_depth(scheme):
    named = schemes()[scheme]
    deepest = float(named["deepest"].rstrip("%")) / 100
    ink, card = rgb(named["ink"]), rgb(named["card"])
    for hue, share in product(("fit", "held"), (0.0, 0.25, 0.5, 0.75, 1.0)):
        mixed = share * deepest + 0.06
        cell = [mixed * one + (1 - mixed) * other for one, other in zip(rgb(named[hue]), card, strict=True)]
        assert contrast(ink, cell) >= 4.5, (hue, share, contrast(ink, cell))


# the first screen


def first_screen(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text[text.index("<main") : text.index('id="findings"')]))


def test_another_metric_than_accuracy_is_said_in_plain_words_too(report):
    labels = first_screen(read(report(**VARIANTS["labels"])))
    assert re.search(
        r"In plain words: [\d.]+\s% \(.+?\) of the rows get exactly the right labels; with the sim", labels
    )
    said = first_screen(read(report(**VARIANTS["score"])))
    assert re.search(r"its answers are typically off by [\d.]+ \(.+?\); those of the simple method by [\d.]+", said)
    assert "The true scores run from 1 to 5." in said
    assert "In plain words" not in first_screen(read(report()))


@pytest.mark.parametrize(
    ("gain", "ship", "title", "advice"),
    [
        ({"value": 0.2, "low": 0.1, "high": 0.3}, True, "Fine-tuning was worth it", "then use it"),
        ({"value": 0.0, "low": -0.1, "high": 0.1}, False, "The gain may be mere chance", "Judge it on more rows"),
        ({"value": -0.2, "low": -0.3, "high": -0.1}, False, "A simple method does better", "the simple method serves"),
        ({"value": -0.1, "low": -0.2, "high": 0.0}, False, "just as well or better", "the simple method serves"),
        ({"value": 0.2, "low": 0.1, "high": 0.3}, False, "it breaks a budget", "Take a smaller base model"),
        ({"value": -0.02, "low": -0.03, "high": -0.01}, True, "not worse by more than you allowed", "then use it"),
    ],
)
def test_the_first_screen_says_whether_why_and_what_next(fresh, gain, ship, title, advice):
    folder = fresh()
    verdict = folders.read_json(folder.verdict)
    folders.write_json(folder.verdict, {**verdict, "gain": gain, "ship": ship})
    said = first_screen(make_page(read_record(folder)))
    assert ("Use it" if ship else "Do not use it") in said
    assert title in said and advice in said and "A 95 % interval says" in said
    assert "percentage points" in said and "rows that it had never seen" in said
    assert ("was worth it" in said) == (ship and gain["low"] > 0)


def test_test_rows_that_were_seen_are_not_called_unseen(fresh):
    folder = fresh()
    folders.write_json(folder.data, {**folders.read_json(folder.data), "leaked": 7})
    said = first_screen(make_page(read_record(folder)))
    assert "Of 90 test rows the tuned model" in said and "never seen" not in said


def test_a_model_no_worse_than_allowed_that_breaks_a_budget_is_not_called_better(fresh):
    folder = fresh()
    recipe = read_recipe(folder.recipe)
    write_recipe(recipe.but(judge=recipe.judge.but(min_gain=-0.05)), folder.recipe)
    gain = {"value": -0.02, "low": -0.03, "high": -0.01}
    folders.write_json(folder.verdict, {**folders.read_json(folder.verdict), "gain": gain, "ship": False})
    said = first_screen(make_page(read_record(folder)))
    assert "not worse by more than you allowed, but it breaks a budget" in said and "It is better" not in said


def test_a_model_that_always_answers_alike_is_named(fresh):
    folder = fresh()
    rows = [{**row, "answer": "card"} for row in folders.lines(folder.predictions("test"))]
    folders.write_lines(folder.predictions("test"), rows)
    text = make_page(read_record(folder))
    assert "It always gives the same answer" in text and "Classes that are never found" not in text


def test_labels_that_are_never_given_are_named(fresh):
    folder = fresh(**VARIANTS["labels"])
    rows = [
        {**row, "answer": [label for label in row["answer"] if label != "slow"]}
        for row in folders.lines(folder.predictions("test"))
    ]
    folders.write_lines(folder.predictions("test"), rows)
    assert "1 of 4 labels were not given in a single row that has them: slow" in make_page(read_record(folder))


def test_labels_that_are_never_given_are_masked(fresh):
    folder = fresh(target="labels", labels=("bug", "ward@clinic-north.org", "slow"))
    rows = [{**row, "answer": ["bug"]} for row in folders.lines(folder.predictions("test"))]
    folders.write_lines(folder.predictions("test"), rows)
    record = read_record(folder)
    for text in (make_page(record), make_card(record).replace("\\", "")):
        assert "in a single row that has them: slow, [e-mail address]" in text and "clinic-north" not in text


def test_rows_without_the_leaked_ones_are_counted_so(fresh):
    folder = fresh()
    data, scores = folders.read_json(folder.data), folders.read_json(folder.scores)
    folders.write_json(folder.data, {**data, "leaked": 7})
    folders.write_json(folder.scores, {**scores, "test_without_overlap": scores["test"]})
    cells = Cells(make_page(read_record(folder))).cells
    assert ("scores", "td", "test, 83") in cells and ("scores", "td", "test, 90") in cells


def test_simple_methods_for_numbers_are_called_what_they_are(report):
    text = read(report(**VARIANTS["score"]))
    assert "always the mean score" in text and "logistic" not in text and "commonest" not in text


def test_what_ran_is_told_in_words(report):
    trial = {"name": "flat-batch", "exactness": "E1", "used": True, "difference": 4.58e-07, "tolerance": 5e-05}
    text = read(
        report(rewrites=[trial], choices=[{"key": "train.rewrites", "value": ["flat-batch"], "why": "it fits"}])
    )
    assert "flat-batch: used (differs by 4.6e-07, allowed 5.0e-05)" in text
    assert "{&#39;" not in text and "[&#39;" not in text
