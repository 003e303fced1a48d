"""The three texts of a finished run: model card, paragraph for a paper, report for people."""

from __future__ import annotations

from tunesmith import folder as folders
from tunesmith.folder import RunFolder
from tunesmith.report.card import make_card
from tunesmith.report.page import make_page
from tunesmith.report.paper import make_paper
from tunesmith.report.record import read_record


def write_report(folder: RunFolder) -> None:
    """Write README.md, paper.md and report.html from what the folder holds: the same folder gives the same bytes.

    Raises:
        CheckpointError: the folder has no scores and verdict yet.
    """
    record = read_record(folder)
    folders.write_text(folder.card, make_card(record))
    folders.write_text(folder.paper, make_paper(record))
    folders.write_text(folder.report, make_page(record))
