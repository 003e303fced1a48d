"""The three texts of a finished run: model card, paragraph for a paper, report for people."""

from __future__ import annotations

from tunesmith.folder import RunFolder


def write_report(folder: RunFolder) -> None:
    """Write README.md, paper.md and report.html from what the folder holds."""
