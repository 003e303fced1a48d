"""Was it worth it? The tuned model against the best of the baselines, on the same rows, with a paired interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation import difference
from tunesmith.tasks.metrics import Measure

NOT_JUDGED = ("forgetting", "bias", "shift", "facts")
"""Audits that this version does not have, or not for every task; a verdict names those that were not made, so that
silence is not taken for a pass."""


def judge(
    primary: str,
    min_gain: float,
    split: str,
    tuned: Mapping[str, Measure],
    baselines: Mapping[str, Mapping[str, Measure]],
    not_judged: Sequence[str] = NOT_JUDGED,
) -> dict[str, Any]:
    """The verdict.

    Args:
        primary: the metric that decides.
        min_gain: the whole interval of the gain must lie above this.
        split: which rows were judged: "test", or "validation" where there is no test.
        tuned: the tuned model's measures.
        baselines: each baseline's measures on the same rows.
        not_judged: audits that were not made.

    Returns:
        {"ship", "gain", "over", "metric", "split", "why", "not_judged"}; `ship` is None where there is no baseline.
    """
    why: list[str] = []
    verdict: dict[str, Any] = {"ship": None, "gain": None, "over": None, "metric": primary, "split": split}
    value = tuned[primary]()
    if not baselines:
        why.append("baselines are off: there is nothing to compare with")
    else:
        over = max(baselines, key=lambda name: (baselines[name][primary](), name))
        gain = difference(tuned[primary], baselines[over][primary])
        verdict |= {"gain": gain, "over": over, "ship": gain["low"] > min_gain}
        why.append(_reason(primary, value, over, baselines[over][primary](), gain, min_gain))
    if split != "test":
        why.append(
            "there is no test set: these are the validation rows by which the best step was chosen, so the"
            " figures flatter the tuned model"
        )
    num_rows = tuned[primary].num_rows
    if num_rows < 100:
        why.append(f"only {num_rows} rows were judged: the interval is wide")
    return {**verdict, "why": why, "not_judged": list(not_judged)}


def _reason(primary: str, value: float, over: str, best: float, gain: Mapping[str, float], min_gain: float) -> str:
    name = primary.replace("_", "-")
    said = (
        f"tuned {name} {value:.4f} against {best:.4f} of the best baseline ({over}): "
        f"{gain['value']:+.4f}, 95 % interval {gain['low']:+.4f} to {gain['high']:+.4f}"
    )
    floor = "0" if min_gain == 0 else f"the {min_gain:+.4f} asked for"
    if gain["low"] > min_gain:
        return f"{said}; all of it lies above {floor}"
    if gain["high"] <= min_gain:
        return f"{said}; all of it lies at or below {floor}: fine-tuning did not pay"
    return f"{said}; it does not lie wholly above {floor}, so the gain may be chance"
