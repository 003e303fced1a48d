"""A corpus of bad recipes, each a slip that people make, through the public command: told with file, line, key and
remedy, and ended with the documented code."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Command

import tiny

MODEL = "model: ./base\n"
GOOD = MODEL + "data: {train: train.jsonl, test: test.jsonl}\n"
TRAIN = MODEL + "data: {train: train.jsonl, "

# name: (the recipe, the line of the first fault, its key or what is said, a part of the remedy)
BAD: dict[str, tuple[str, int, str, str]] = {
    # keys
    "misspelt section": (GOOD + "trian: {epochs: 1}\n", 3, "trian", 'did you mean "train"?'),
    "misspelt setting": (GOOD + "train:\n  epocs: 1\n", 4, "train.epocs", 'did you mean "epochs"?'),
    "capital": (GOOD + "Train: {epochs: 1}\n", 3, "Train", 'did you mean "train"?'),
    "section forgotten": (GOOD + "learning_rate: 1e-4\n", 3, "learning_rate", '"train.learning_rate"'),
    "dotted key": (GOOD + "train.epochs: 3\n", 3, "train.epochs", "write `train:` and below it"),
    "number as key": (GOOD + "1: 1\n", 3, "1", "there are: model"),
    "no key": (GOOD + ": 1\n", 3, "(nothing)", "there are: model"),
    "list as key": (GOOD + "[a, b]: 1\n", 3, "a key must be a plain word", "brackets"),
    "another trainer's epochs": (GOOD + "train: {num_train_epochs: 3}\n", 3, "num_train_epochs", '"train.epochs"'),
    "another trainer's rate": (GOOD + "train: {lr: 1e-4}\n", 3, "train.lr", '"train.learning_rate"'),
    "another trainer's batch": (GOOD + "train: {per_device_train_batch_size: 8}\n", 3, "size", '"train.batch_size"'),
    "another trainer's fp16": (GOOD + "train: {fp16: true}\n", 3, "train.fp16", '"train.precision"'),
    "another trainer's data": (MODEL + "dataset: train.jsonl\n", 1, "data: missing", "add it"),
    "key twice": (GOOD + "seed: 1\nseed: 2\n", 4, "seed", "keep one"),
    "setting of another method": (GOOD + "method: {kind: head, rank: 8}\n", 3, "method.rank", "there are: kind"),
    "setting of another task": (GOOD + "task: {kind: text-classification, max_tokens: 5}\n", 3, "task.max_tokens", ""),
    "model missing": ("data: {train: train.jsonl}\n", 1, "model: missing", "add it"),
    "data missing": (MODEL, 1, "data: missing", "add it"),
    "train missing": (MODEL + "data: {test: test.jsonl}\n", 2, "data.train: missing", "add it"),
    # types
    "number in quotes": (GOOD + "train: {epochs: '3'}\n", 3, "train.epochs", "without quotes"),
    "a word": (GOOD + "train: {epochs: many}\n", 3, "train.epochs", "default, 4.0"),
    "a unit": (GOOD + "train: {max_length: 512 tokens}\n", 3, "train.max_length", "no unit"),
    "k for thousand": (GOOD + "machine: {micro_batch_tokens: 2k}\n", 3, "machine.micro_batch_tokens", "no unit"),
    "comma for point": (GOOD + "train:\n  learning_rate: 3,5e-5\n", 4, "train.learning_rate", "a point before"),
    "fraction of a row": (GOOD + "train: {batch_size: 1.5}\n", 3, "train.batch_size", "a whole number"),
    "1e3 rows": (TRAIN + "limit: 1e3}\n", 2, "data.limit", "write a whole number: 1000"),
    "yes": (GOOD + "train: {refit: yes}\n", 3, "train.refit", "write true or false"),
    "on": (GOOD + "train: {refit: on}\n", 3, "train.refit", "write true or false"),
    "octal": (GOOD + "seed: 0o17\n", 3, "seed", "no unit"),
    "time": (GOOD + "seed: 1:30\n", 3, "seed", "plain number"),
    "date": (GOOD + "seed: 2024-01-01\n", 3, "seed", "plain number"),
    "output a number": (GOOD + "output: 2024\n", 3, "output", "needs quotes: '2024'"),
    "nothing given": (GOOD + "output:\n", 3, "output", "leave the line out"),
    "section empty": (GOOD + "train:\n", 3, "train", "leave the line out"),
    "word for a section": (MODEL + "data: rows.jsonl\n", 2, "data", ""),
    "list for a section": (GOOD + "train: [1]\n", 3, "train", "indented below it"),
    "list for a method": (GOOD + "method: [lora]\n", 3, "method", "indented below it"),
    "word for a list": (GOOD + "judge: {slices: channel}\n", 3, "judge.slices", "as a list: [channel]"),
    "word for trackers": (GOOD + "track: tensorboard\n", 3, "track", "as a list: [tensorboard]"),
    "number in a list": (MODEL + "data:\n  train:\n    - 1\n", 4, "data.train.0", "needs quotes"),
    "empty list": (MODEL + "data: {train: []}\n", 2, "data.train", ""),
    "true for a file": (TRAIN + "test: true}\n", 2, "data.test", ""),
    # sizes
    "negative": (GOOD + "train: {learning_rate: -1e-4}\n", 3, "train.learning_rate", "default, auto"),
    "zero": (GOOD + "train: {epochs: 0}\n", 3, "train.epochs", "default, 4.0"),
    "too large": (GOOD + "train: {learning_rate: 20}\n", 3, "train.learning_rate", "default, auto"),
    "too small": (GOOD + "train: {max_length: 2}\n", 3, "train.max_length", "default, auto"),
    "ten for a tenth": (TRAIN + "validation: 10}\n", 2, "data.validation", "10 % is 0.1"),
    "percent": (TRAIN + "validation: 10%}\n", 2, "data.validation", "write a share of 1: 0.1"),
    "share in quotes": (TRAIN + "validation: '0.1'}\n", 2, "data.validation", "without quotes"),
    "warm-up in percent": (GOOD + "train: {warmup_ratio: 6}\n", 3, "train.warmup_ratio", "6 % is 0.06"),
    "gain in percent": (GOOD + "judge: {min_gain: 5%}\n", 3, "judge.min_gain", "write a share of 1: 0.05"),
    "infinite": (GOOD + "train: {learning_rate: .inf}\n", 3, "train.learning_rate", "finite"),
    "not a number": (GOOD + "train: {epochs: .nan}\n", 3, "train.epochs", "finite"),
    "seed of 2**63": (GOOD + f"seed: {2**63}\n", 3, "seed", "default, 0"),
    # kinds
    "unknown method": (GOOD + "method: lorra\n", 3, "method", 'did you mean "lora"?'),
    "unknown task": (GOOD + "task: text-clasification\n", 3, "task", 'did you mean "text-classification"?'),
    "method without kind": (GOOD + "method: {rank: 8}\n", 3, "method", "method: lora"),
    "unknown precision": (GOOD + "train: {precision: fp16}\n", 3, "train.precision", 'did you mean "fp'),
    "unknown device": (GOOD + "machine: {device: gpu}\n", 3, "machine.device", 'did you mean "cpu"?'),
    "unknown baseline": (GOOD + "judge:\n  baselines: [majorty]\n", 4, "judge.baselines.0", '"majority"'),
    "unknown tracker": (GOOD + "track: [tensorbord]\n", 3, "track.0", '"tensorboard"'),
    "unknown metric": (GOOD + "judge: {primary: bleu}\n", 3, "judge.primary", "choose one"),
    "metric of another target": (GOOD + "judge: {primary: spearman}\n", 3, "judge.primary", "choose one"),
    "no such GPU": (GOOD + "machine: {device: mps}\n", 3, "machine.device", "use auto or cpu"),
    # what cannot be meant
    "output is a file": (GOOD + "output: test.jsonl\n", 3, "output", "name a folder"),
    "output in a file": (GOOD + "output: test.jsonl/run\n", 3, "output", "name a folder"),
    "output is the base": (GOOD + "output: base\n", 3, "output", "of the run's own"),
    "threshold of one label": (GOOD + "task:\n  threshold: 0.4\n", 4, "task.threshold", "it acts for labels"),
    "test is train": (TRAIN + "test: train.jsonl}\n", 2, "data.test", "name other rows"),
    "one column twice": (TRAIN + "columns: {text: text, label: text}}\n", 2, "data.columns.label", "another column"),
    # YAML
    "tab": (GOOD + "train:\n\tepochs: 1\n", 4, "not valid YAML", "spaces, not with a tab"),
    "open bracket": (GOOD + "train: {epochs: 1\n", 4, "not valid YAML", "close the bracket"),
    "bad indent": (GOOD + "train:\n    epochs: 1\n  steps: 2\n", 5, "not valid YAML", ""),
    "backslashes": (MODEL + 'data: {train: "C:\\data\\rows.csv"}\n', 2, "not valid YAML", "single quotes"),
    "colon in a value": (MODEL + "data:\n  train: rows: x\n", 3, "not valid YAML", "quotes"),
    "percent sign first": (GOOD + "output: %x\n", 3, "not valid YAML", "in quotes"),
    "two documents": (GOOD + "---\nseed: 1\n", 3, "not valid YAML", "take the line --- out"),
    "python tag": (GOOD + "output: !!python/object/apply:os.system [ls]\n", 3, "tags", "remove it"),
    "anchor": (GOOD + "seed: &a 1\n", 3, "anchors", "remove it"),
    "alias": (GOOD + "output: *a\n", 3, "aliases", "write the value out"),
    "bomb": (GOOD + "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", 4, "aliases", "write the value out"),
    "deep": (GOOD + "output: " + "[" * 60 + "]" * 60 + "\n", 3, "nested deeper than 50", "so deep"),
    "a list": ("- model: m\n", 1, "a recipe is a mapping", "start with"),
    "toml": ('model = "m"\n', 1, "a recipe is a mapping", "start with"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base").symlink_to(tiny_base)
    tiny.write_rows(tmp_path / "train.jsonl", tiny.make_rows(40))
    tiny.write_rows(tmp_path / "test.jsonl", tiny.make_rows(21, seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe_ends_with_2_and_says_where_what_and_what_to_do(
    tunesmith: Command, folder: Path, name: str
) -> None:
    text, line, key, remedy = BAD[name]
    (folder / "r.yaml").write_text(text)
    ended = tunesmith("check", "r.yaml")
    first = ended.err.splitlines()[0]
    assert ended.code == 2, ended.err
    assert first.startswith(f"error: r.yaml:{line}:") and key in first, ended.err
    assert "; " in first and remedy in first.partition("; ")[2], ended.err
    assert "fault of ours" not in ended.err and "pydantic" not in ended.err
    assert all(said.startswith("error: r.yaml:") for said in ended.err.splitlines())


def test_there_are_sixty_slips_and_no_two_are_the_same() -> None:
    assert len(BAD) >= 60
    assert len({text for text, *_ in BAD.values()}) == len(BAD)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the recipe is empty"),
        (b"# nothing yet\n", "the recipe is empty"),
        (GOOD.encode("utf-16"), "not UTF-8"),
        (b"model: \xff\n", "not UTF-8"),
        (b"x: '" + b"y" * 1_000_001 + b"'\n", "larger than 1,000,000 bytes"),
        (None, "this is a folder"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tunesmith: Command, folder: Path, content: bytes | None, said: str) -> None:
    if content is None:
        (folder / "r.yaml").mkdir()
    else:
        (folder / "r.yaml").write_bytes(content)
    ended = tunesmith("check", "r.yaml")
    assert ended.code == 2 and ended.err.startswith("error: r.yaml: ") and said in ended.err and "; " in ended.err
    assert len(ended.err.splitlines()) == 1


# what only the data or the model can show ends with 3 and names the file
@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        (MODEL + "data: {train: trian.jsonl}\n", "trian.jsonl: no such file", "relative to the recipe"),
        (MODEL + "data: {train: .}\n", "a folder, not a file", "name its files"),
        (MODEL + "data: {train: '*.none'}\n", "no file matches", "relative to the recipe"),
        (TRAIN + "columns: {text: body}}\n", "no column 'body'", "there are: text, label"),
        (TRAIN + "columns: {txt: text}}\n", "reads no column 'txt'", "it reads label, text"),
        (TRAIN + "group: patient}\n", "no column 'patient'", "there are: text, label"),
        (TRAIN + "limit: 1}\n", "no rows left to validate on", "data.validation"),
        (TRAIN + "validation: 0}\n", "no rows left to validate on", "data.validation"),
        (GOOD + "judge: {slices: [lang]}\n", "no column 'lang'", "there are: text, label"),
        (GOOD + "task: {kind: text-classification, target: score}\n", "no column 'score'", "there are: text, label"),
        ("model: ./none\n" + TRAIN.removeprefix(MODEL) + "}\n", "none: no such folder", "name a model folder"),
        ("model: package:none\n" + TRAIN.removeprefix(MODEL) + "}\n", "'none' is not installed", "pip install"),
        (GOOD + "method: {kind: last-layers, layers: 99}\n", "r.yaml:3:29: method.layers: 99", "use fewer"),
        (GOOD + "method: {kind: lora, target_modules: [query, valeu]}\n", "is called valeu", "there are: "),
        (GOOD + "train: {max_length: 100000}\n", "r.yaml:3:9: train.max_length: 100,000 tokens", "or less"),
        (GOOD + "method: {kind: lora, target_modules: [no]}\n", "r.yaml:3:22: method.target_modules", "there are: "),
    ],
)
def test_what_data_and_model_show_ends_with_3(
    tunesmith: Command, folder: Path, text: str, said: str, remedy: str
) -> None:
    (folder / "r.yaml").write_text(text)
    ended = tunesmith("check", "r.yaml")
    assert ended.code == 3 and said in ended.err and remedy in ended.err, ended.err
    assert "fault of ours" not in ended.err


def test_all_faults_are_told_at_once(tunesmith: Command, folder: Path) -> None:
    (folder / "r.yaml").write_text(
        "model: 3\ndata: {train: a, tset: b, test: a}\nmethod: lorra\ntrain: {epochs: many}\nseed: -1\nseed: 2\n"
    )
    ended = tunesmith("check", "r.yaml", "--set", "judge.min_gain=5%", "--set", "train.epcohs")
    lines = [said.removeprefix("error: r.yaml:").partition(":")[0] for said in ended.err.splitlines()]
    assert ended.code == 2 and {"1", "2", "3", "4", "5", "6"} <= set(lines)
    assert "--set judge.min_gain=5%" in ended.err and "--set train.epcohs" in ended.err


def test_a_table_of_scores_keeps_its_columns_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from tunesmith.printing import print_scores

    score = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    print_scores([("nearest-neighbours, validation", score), ("tuned, test", score)])
    lines = capsys.readouterr().out.splitlines()
    assert "validation  0.5000" in lines[1] and lines[1].index("0.5000") == lines[2].index("0.5000")
    wide = {"perplexity": {"value": 2026.8789, "low": 1929.0283, "high": 2131.9316}} | score
    print_scores([("frequencies, test", wide), ("tuned, test", wide)], "perplexity")
    lines = capsys.readouterr().out.splitlines()
    assert "2131.9316]  0.5000" in lines[1] and lines[0].index("accuracy") == lines[1].index("0.5000")
