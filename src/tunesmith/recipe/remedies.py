"""What to do about a fault of a recipe: one short remedy for each kind of slip."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

FOREIGN = {
    "base_model": "model", "pretrained_model": "model", "model_name_or_path": "model", "dataset": "data",
    "dataset_path": "data.train", "train_file": "data.train", "validation_file": "data.validation",
    "test_file": "data.test", "num_train_epochs": "train.epochs", "num_epochs": "train.epochs",
    "max_steps": "train.steps", "lr": "train.learning_rate", "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.batch_size", "warmup_steps": "train.warmup_ratio",
    "fp16": "train.precision", "bf16": "train.precision", "max_seq_length": "train.max_length",
    "eval_steps": "train.evaluate_every", "save_steps": "train.checkpoint_every",
    "lr_scheduler_type": "train.lr_scheduler", "r": "method.rank", "lora_r": "method.rank",
    "lora_alpha": "method.alpha", "lora_dropout": "method.dropout", "metric_for_best_model": "judge.primary",
    "output_dir": "output", "report_to": "track", "gpu": "machine.device", "num_workers": "machine.threads",
}  # fmt: skip
"""Names of the same things in other trainers: ours are too far off for a comparison of letters to find."""

_YAML = (
    ("'\\t'", "indent with spaces, not with a tab"),
    ("unknown escape", "in double quotes a backslash stands for itself only when doubled: use single quotes"),
    ("mapping values are not allowed", "check the indentation; a value with a colon in it needs quotes"),
    ("cannot start any token", "put the value in quotes"),
    ("another document", "one recipe a file: take the line --- out"),
    ("expected ',' or", "close the bracket"),
    ("end of stream", "close the quote or bracket that is open"),
    ("version", "take the %YAML line out"),
)
_NEARLY_NUMBER = re.compile(r"[-+]?\d.*")


def of_yaml(problem: str) -> str:
    """For text that is no YAML."""
    return next((remedy for part, remedy in _YAML if part in problem), "check indentation and quotes")


def of_value(given: Any, details: Sequence[dict[str, Any]], default: Any) -> str:
    """For a value of the wrong type or size. `default` is the setting's own, None where there is none."""
    kinds = {detail["type"] for detail in details}
    found = _of_text(given, kinds, details) if isinstance(given, str) else _of_other(given, kinds, details)
    if found:
        return found
    return "see the settings in docs/recipe.md" if default is None else f"leave it out for the default, {default}"


def _of_text(given: str, kinds: set[str], details: Sequence[dict[str, Any]]) -> str:
    if "list_type" in kinds and "literal_error" not in kinds:
        return f"write it as a list: [{given}]"
    if kinds & {"float_type", "int_type"} and is_number(given):
        return "write the number without quotes"
    if kinds & {"float_type", "int_type"} and (remedy := share_of(given)):
        return remedy
    if kinds & {"float_type", "int_type"} and _NEARLY_NUMBER.fullmatch(given):
        return "write a plain number: decimal digits, no unit, a point before decimals"
    if "string_pattern_mismatch" in kinds:
        return f"write {re.sub(r'[^A-Za-z0-9_-]+', '-', given).strip('-_')[:64] or 'a-name'}"
    if "bool_type" in kinds:
        return "write true or false"
    known = re.findall(r"'([^']+)'", " ".join(str(detail.get("ctx", {}).get("expected", "")) for detail in details))
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f'did you mean "{near[0]}"?' if near else ""


def _of_other(given: Any, kinds: set[str], details: Sequence[dict[str, Any]]) -> str:
    if given is None:
        return "give it a value, or leave the line out"
    if isinstance(given, bool):
        return ""
    if isinstance(given, float) and not math.isfinite(given):
        return "write a finite number"
    if isinstance(given, float) and "int_type" in kinds | {
        kind.replace("int_from_float", "int_type") for kind in kinds
    }:
        return f"write a whole number: {round(given)}"
    highest = [detail["ctx"].get("lt", detail["ctx"].get("le")) for detail in details if "less_than" in detail["type"]]
    if isinstance(given, int | float) and 1 in highest and 1 <= given <= 100:
        return f"a share lies between 0 and 1: {given:g} % is {given / 100:g}"
    if kinds & {"dict_type", "model_type", "model_attributes_type"}:
        return "write its settings as `key: value`, indented below it"
    if kinds == {"string_type"} and isinstance(given, int | float):
        return f"a name of digits needs quotes: '{given}'"
    return ""


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.55)
    return f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known)}"


def is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text.strip()) is not None


def share_of(text: str) -> str:
    """For a share that is written in percent."""
    percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    return f"write a share of 1: {float(percent[1]) / 100:g}" if percent else ""
