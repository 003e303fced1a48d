"""Templates become text here. Everything that is not a template's own is escaped: labels and rows may be hostile."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tunesmith.data.sensitive import mask
from tunesmith.report import wording

FILTERS = ("exact", "signed", "interval", "scored", "share", "short", "size", "duration", "count", "times", "sentence")

_MARKUP = re.compile(r"([\\`*_\[\]|#~$])|[<>&]")
_WORD_END = re.compile(r"([_/.-])(?=\w)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def render(template: str, **values: Any) -> str:
    """Fill a template of this room; every value is escaped for HTML (which Markdown understands too)."""
    return _environment().get_template(template).render(values).strip() + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tunesmith.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else visible(value),
    )
    environment.filters |= {name: getattr(wording, name) for name in FILTERS}
    environment.filters |= {"md": to_markdown, "breakable": to_breakable, "masked": mask}
    return environment


def visible(text: str) -> str:
    """Text with control characters shown as a sign instead of acting."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def to_markdown(text: object) -> Markup:
    """Text that stays text in Markdown, also in a table: no markup of its own, and on one line."""
    plain = " ".join(visible(str(text)).split())
    return Markup(_MARKUP.sub(_as_text, plain))  # noqa: S704 - escaped in the same line


def _as_text(sign: re.Match[str]) -> str:
    """A sign of Markdown or of HTML, each escaped once: what stands for one must not be escaped for the other."""
    return f"\\{sign[1]}" if sign[1] else str(escape(sign[0]))


def to_breakable(text: object) -> Markup:
    """A label for HTML that may break where its words end: `card_payment_fee` is one word to a browser. Labels come as
    they were learned (their rows are counted by them), so what they should not show is masked here."""
    return Markup(_WORD_END.sub(r"\1<wbr>", str(escape(visible(mask(str(text)))))))  # noqa: S704 - escaped in the same line
