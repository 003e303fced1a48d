"""What a student learned from its teacher, and how far it came: for the page, the card and the paper."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.report import wording
from tunesmith.report.record import Record, Score

SOURCES = {"answers": "hinton2015distilling", "layers": "sanh2019distilbert"}
"""The papers, by what of the teacher is taken."""


@dataclass(frozen=True)
class Lesson:
    """`sentence` weighs what was kept against what was saved; `rows` are (who, score, parameters, bytes of the weights,
    milliseconds for a row)."""

    sentence: str
    rows: list[tuple[str, Score, int, int, float]]


def lesson(record: Record) -> Lesson | None:
    """None where there was no teacher."""
    found = record.audits.get("distillation")
    if found is None:
        return None
    rows = [
        (side, found[side]["score"], found[side]["parameters"], found[side]["weight_bytes"],
         found[side]["latency_p50_ms"]) for side in ("student", "teacher")
    ]  # fmt: skip
    difference, title = found["difference"], wording.in_prose(found["metric"])
    between = f"{wording.signed(difference['low'])} to {wording.signed(difference['high'])}"
    apart = f"paired difference {wording.signed(difference['value'])}, 95 % interval {between}"
    mine, theirs = (wording.exact(score["value"]) for _, score, *_ in rows)
    kept = f"a {title} of {mine}, its teacher {theirs} ({apart})"
    if found["share_of_score"] is not None:
        kept = f"{wording.share(found['share_of_score'])} of its teacher's {title} ({mine} against {theirs}; {apart})"
    return Lesson(
        f"On the same {record.judged_rows:,} {found['split']} rows the student reached {kept}, with "
        f"{wording.share(found['share_of_parameters'])} of its parameters and "
        f"{wording.share(found['share_of_latency'])} of its median time for one row "
        f"({wording.short(rows[0][4])} against {wording.short(rows[1][4])} ms).",
        rows,
    )


def how_it_was_taught(record: Record) -> list[str]:
    """Sentences for a manuscript."""
    teacher = record.recipe.teacher
    if teacher is None or (teacher.alpha == 0 and teacher.hidden == 0 and teacher.layers is None):
        return []
    weights = {name: digest for name, digest in record.manifest["teacher"]["sha256"].items() if "safetensors" in name}
    hashes = ", ".join(f"{name} {digest[: wording.HASH_SHOWN]}" for name, digest in weights.items())
    said = []
    if teacher.layers is not None:
        layers = wording.count(teacher.layers, "layer")
        said.append(f"The student began as {layers} of its teacher, evenly spaced (Sanh et al., 2019).")
    heard = []
    if teacher.alpha > 0:
        heard.append(
            f"the divergence of its answers from the teacher's at temperature {teacher.temperature:g} with a weight of "
            f"{teacher.alpha:g}, the labels with the rest (Hinton et al., 2015)"
        )
    if teacher.hidden > 0:
        heard.append(
            f"the cosine distance of the last layers' hidden states with a weight of {teacher.hidden:g} "
            "(Sanh et al., 2019)"
        )
    if heard:
        said.append(
            f"It was taught by a tuned model (SHA-256 of the weights: {hashes}): its loss held "
            f"{wording.listing(heard)}."
        )
    found = lesson(record)
    return [*said, found.sentence] if found else said


def sources(record: Record) -> list[str]:
    """Keys of the papers to cite."""
    teacher = record.recipe.teacher
    if teacher is None:
        return []
    from_layers = teacher.hidden > 0 or teacher.layers is not None
    return [SOURCES["answers"]] * (teacher.alpha > 0) + [SOURCES["layers"]] * from_layers
