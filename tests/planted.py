"""Real rows with faults planted in known places, and rows that are clean by making."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.data.checks import find_all
from tunesmith.data.rows import Row
from tunesmith.recipe.classification import TextClassification

COLUMNS = TextClassification().columns
BANKING = Path(__file__).parents[1] / "examples" / "data" / "banking77"

RawRow = dict[str, str]
Files = dict[str, list[RawRow]]


def as_rows(files: Files) -> dict[str, list[Row]]:
    return {
        name: [Row(dict(row), f"{name}.jsonl", line) for line, row in enumerate(rows, start=1)]
        for name, rows in files.items()
    }


def write(files: Files, folder: Path) -> None:
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def banking(per_class: int = 24, classes: int = 40) -> Files:
    """Rows of BANKING77 without copies or near copies of one another, as three files."""
    by_label: dict[str, list[RawRow]] = defaultdict(list)
    for line in (BANKING / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        by_label[row["label"]].append(row)
    chosen = [row for label in sorted(by_label)[:classes] for row in by_label[label][: per_class + 12]]
    alike = {
        index
        for found in find_all(as_rows({"train": chosen}), COLUMNS)
        if found.code in ("duplicate", "near-duplicate")
        for index in found.rows["train"]
    }
    kept: dict[str, list[RawRow]] = defaultdict(list)
    for index, row in enumerate(chosen):
        if index not in alike:
            kept[row["label"]].append(row)
    files: Files = {"train": [], "validation": [], "test": []}
    for rows in kept.values():
        rows = rows[:per_class]
        files["test"] += rows[:4]
        files["validation"] += rows[4:6]
        files["train"] += rows[6:]
    return files


@dataclass
class Planted:
    """Files with faults, and where each fault is: {code: places}."""

    files: Files
    places: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, split: str, row: RawRow) -> str:
        self.files[split].append(row)
        return f"{split}.jsonl:{len(self.files[split])}"


def plant(files: Files, seed: int = 0) -> Planted:
    """40 test rows copied into train, 25 near copies of training rows in train and 25 in test, 30 training rows
    repeated with another label, a class of three rows."""
    source = random.Random(seed)
    planted = Planted({name: list(rows) for name, rows in files.items()})
    labels = sorted({row["label"] for row in files["train"]})
    for index in source.sample(range(len(files["test"])), 40):
        planted.add("train", files["test"][index])
        planted.places["test-in-train"].add(f"test.jsonl:{index + 1}")
    long = [row for row in files["train"] if len(row["text"].split()) >= 12]
    for number, row in enumerate(source.sample(long, 50)):
        split, code = ("train", "near-duplicate") if number < 25 else ("test", "near-test-in-train")
        planted.places[code].add(planted.add(split, {**row, "text": nearly(row["text"], number, source)}))
    for index in source.sample(range(len(files["train"])), 30):
        row = files["train"][index]
        other = source.choice([label for label in labels if label != row["label"]])
        again = planted.add("train", {"text": f" {row['text'].upper()}", "label": other})
        planted.places["conflicting-label"] |= {again, f"train.jsonl:{index + 1}"}
    for text in ("My fish tank leaks", "Gardeners prefer rain", "Seven owls sat there"):
        planted.places["rare-class"].add(planted.add("train", {"text": text, "label": "off_topic"}))
    return planted


def nearly(text: str, number: int, source: random.Random) -> str:
    """A text with one or two words changed, or its case and punctuation."""
    words = text.split()
    if number % 3 == 2:
        return " ".join(words).swapcase().replace("?", "").replace(".", "") + " !!"
    for place in source.sample(range(len(words)), 1 + number % 3):
        words[place] = source.choice(["surprisingly", "tomorrow", "x", "whatever", "nineteen"])
    return " ".join(words)


_SYLLABLES = "ba de fo gu ki la me no pu ra si tu vo we xa zi chor trel quin plav"
SYLLABLES = _SYLLABLES.split()
ORDINARY = (
    "on 2024-05-06 at 12:30:45", "version 1.2.3.4", "section 10.2.1.4", "for 1,234,567.89 euro", "order 123456789",
    "in 1999, 2000, 2001 and 2002", "@somebody said #thing", "key: value", "the password is wrong", "token by token",
    "ratio 16:9:4:3:2", "see https://example.org/a:b", "10-20-30-40", "a secret: tell nobody", "lines 100-200 300-400",
    "ISBN 978-3-16-148410-0", "sk-ip this", "dear bearer of good news", "call me at 5", "AB12", "E = 0.00012345678",
)  # fmt: skip


def clean(seed: int, rows: int = 300) -> Files:
    """Made-up sentences, no two alike, with harmless numbers and names in some; three classes of one size."""
    source = random.Random(seed)
    words = ["".join(source.choices(SYLLABLES, k=source.randint(1, 4))) for _ in range(2000)]
    made = []
    for index in range(rows):
        text = source.choices(words, k=source.randint(4, 30))
        if source.random() < 0.3:
            text.insert(source.randrange(len(text)), source.choice(ORDINARY))
        made.append({"text": " ".join(text), "label": ("red", "green", "blue")[index % 3]})
    return {"train": made[: rows - 120], "validation": made[rows - 120 : rows - 60], "test": made[rows - 60 :]}


HIDDEN = {
    "private key": ["-----BEGIN RSA PRIV" + "ATE KEY-----\nMIIEpAIBAAKC", "-----BEGIN OPENSSH PRIV" + "ATE KEY-----"],
    "cloud access key": ["AKIA" + "IOSFODNN7EXAMPLE", "AIza" + "SyA1234567890abcdefghijklmnopqrstuv"],
    "API token": ["ghp" + "_16C7e42F292c6912E7710c838347Ae178B4a", "xoxb" + "-123456789012-abcdefABCDEF",
                  "sk" + "_live_4eC39HqLyjWDarjtT1zdp7dc", "sk" + "-proj-abc123def456ghi789jkl012",
                  "hf" + "_abcdefghijklmnopqrstuvwxyzABCDEFGH", "glpat" + "-1234567890abcdefghij"],
    "JSON web token": ["eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"],
    "password in a URL": ["postgres://admin:" + "hunter2secret@localhost:5432/x"],
    "written-out password or key": ["password = " + "Tr0ub4dor&3xyz", "API_KEY: '" + "9f8e7d6c5b4a3210'"],
    "e-mail address": ["jane.q.doe" + "@clinic-north.org", "x+y" + "@mail.co.uk"],
    "phone number": ["+49 30 " + "9018 2000", "(415) " + "555-2671", "020 " + "7946 0958", "+1-202" + "-555-0143"],
    "IBAN": ["DE89 3704 0044 " + "0532 0130 00", "GB29NWBK" + "60161331926819 please"],
    "payment card number": ["4111 1111 " + "1111 1111", "3782-822463" + "-10005", "55555555" + "55554444"],
    "IP address": ["203.0." + "113.195", "2001:0db8:85a3:0000:" + "0000:8a2e:0370:7334"],
    "national id": ["078-05" + "-1120", "123456" + "78Z", "QQ 12 34".replace("Q", "A") + " 56 C", "529.982" + ".247-25",
                    "131052" + "-308T", "811218" + "-9876", "1 85 05 78 " + "006 084 91"],
}  # fmt: skip
"""What should not be in any data, by kind; written in pieces, so that no scanner takes this file for a leak."""
