"""What is wrong with data is found where it was planted, and nowhere else; and no message repeats what it found."""

from __future__ import annotations

import json
import math
import random
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planted import BANKING, COLUMNS, HIDDEN, ORDINARY, Planted, as_rows, banking, clean, plant
from tunesmith.data import label_checks, near, sensitive
from tunesmith.data.checks import find_all
from tunesmith.data.findings import Finding
from tunesmith.data.rows import Row, normalised
from tunesmith.preflight import SIZE_ADVICE, Size
from tunesmith.recipe.columns import Column


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(banking())


def found_in(files: dict[str, list[dict[str, str]]]) -> dict[str, Finding]:
    return {finding.code: finding for finding in find_all(as_rows(files), COLUMNS)}


def places(finding: Finding) -> set[str]:
    return {f"{split}.jsonl:{index + 1}" for split, indices in finding.rows.items() for index in indices}


def of(label: str, *texts: str) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text in texts]


def padded(rows: list[dict[str, str]], **splits: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows in train among sixty that are like nothing else."""
    made = clean(99)
    return {"train": [*made["train"][:60], *rows], **splits}


# planted faults on real rows


def test_every_planted_fault_is_found_in_its_place_and_nowhere_else(planted: Planted) -> None:
    found = found_in(planted.files)
    for code, expected in planted.places.items():
        assert places(found[code]) == expected, code
        assert found[code].count == len(expected)
    counts = {code: len(expected) for code, expected in planted.places.items()}
    assert counts == {"test-in-train": 40, "near-duplicate": 25, "near-test-in-train": 25, "conflicting-label": 60,
                      "rare-class": 3}  # fmt: skip
    assert "'off_topic' (3)" in found["rare-class"].message
    assert set(found) - set(counts) == {"one-class-missing"}, "off_topic is in train alone"


def test_the_real_rows_had_none_of_it_before() -> None:
    assert found_in(banking()) == {}


@pytest.mark.parametrize("seed", range(10))
def test_ten_plantings_are_found(seed: int) -> None:
    planted = plant(banking(classes=25), seed)
    found = found_in(planted.files)
    assert {code: places(found[code]) for code in planted.places} == planted.places


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_invented_on_clean_sets(seed: int) -> None:
    assert found_in(clean(seed)) == {}


# copies

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
CASES = (str.upper, str.lower, str.swapcase, str.title, str.casefold)
SPACES = st.text(st.sampled_from(" \t\n\u00a0\u2003\u3000"), min_size=1, max_size=3)


@given(st.text(min_size=1, max_size=30), st.sampled_from(FORMS), st.sampled_from(CASES), SPACES, st.data())
@settings(deadline=None, max_examples=300)
def test_every_exact_duplicate_is_found(text: str, form: str, case: object, space: str, data: st.DataObject) -> None:
    """Whatever the case, the white space and the Unicode form."""
    assume(normalised(text))
    changed = case(text)  # type: ignore[operator]
    assume(changed.casefold() == text.casefold())
    changed = space + space.join(unicodedata.normalize(form, changed).split(" ")) + space
    rows = {"train": of("x", "first", text, "last", changed), "test": of("x", changed, "other")}
    found = found_in(rows)  # type: ignore[arg-type]
    assert found["duplicate"].rows == {"train": [3]} and found["test-in-train"].rows == {"test": [0]}


def test_copies_with_another_label_contradict_and_with_the_same_repeat() -> None:
    found = found_in(padded([*of("red", "One text", "one  TEXT", "ONE text"), *of("blue", "One text", "one text")]))
    assert found["duplicate"].count == 3 and found["duplicate"].rows == {"train": [61, 62, 64]}
    assert found["conflicting-label"].count == 5


def test_a_contradiction_across_splits_is_found() -> None:
    found = found_in(padded(of("red", "One text here"), test=of("blue", "one text here", "another one")))
    assert found["conflicting-label"].rows == {"train": [60], "test": [0]}


def test_validation_in_train_and_test_in_validation() -> None:
    held = of("red", "Held out for choosing", "seen in training")
    found = found_in(
        padded(of("red", "Seen in training"), validation=held, test=of("red", "held OUT for choosing", "new"))
    )
    assert found["validation-in-train"].rows == {"validation": [1]}
    assert found["test-in-validation"].rows == {"test": [0]}


def shingles(text: str) -> set[str]:
    return {text[place : place + 5] for place in range(max(1, len(text) - 4))}


def words(text: str) -> Counter[str]:
    return Counter("".join(character for character in text if character not in near._MARKS).split())


def are_near(one: tuple[set[str], Counter[str]], other: tuple[set[str], Counter[str]]) -> bool:
    """The definition, spelt out."""
    (mine, my_words), (theirs, their_words) = one, other
    shared = len(mine & theirs)
    if shared >= 0.8 * (len(mine) + len(theirs) - shared):
        return True
    if not all(12 <= bag.total() <= 60 for bag in (my_words, their_words)):
        return False
    return max((my_words - their_words).total(), (their_words - my_words).total()) <= 2


def test_near_copies_are_those_of_a_comparison_of_all_with_all() -> None:
    """At least 95 in 100 of what an exhaustive comparison finds, and nothing else."""
    source = random.Random(0)
    lines = (BANKING / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines[::14]]
    for text in source.sample([text for text in texts if len(text) > 60], 150):  # many small edits
        characters = list(text)
        for _ in range(source.randint(1, 4)):
            characters[source.randrange(len(characters))] = source.choice("abc ?")
        texts.append("".join(characters))
    keys = list(dict.fromkeys(map(normalised, texts)))
    groups = [int(index >= 500) for index in range(len(keys))]
    found = near.near_copies(keys, groups)
    known = [(shingles(key), words(key)) for key in keys]
    truth = {
        (later, groups[earlier])
        for later in range(len(keys))
        for earlier in range(later)
        if len(known[earlier][0] & known[later][0]) > 8 and are_near(known[earlier], known[later])
    }
    answered = {(int(text), int(group)) for text, group in zip(*found.nonzero(), strict=True)}
    assert len(truth) > 80
    assert not answered - truth
    assert len(answered & truth) >= 0.95 * len(truth)


def test_a_crowd_of_near_copies_is_found_whole() -> None:
    """Many inputs that share all keys: each is found, without comparing all with all."""
    sentence = "please tell me again why the payment that I made {} last week has not been booked yet"
    keys = [sentence.format(f"number{index:05}") for index in range(3000)]
    assert near.near_copies(keys, [0] * len(keys))[1:].mean() > 0.99


def test_texts_of_any_script_and_length_can_be_compared() -> None:
    signs = "".join(chr(0x4E00 + 7 * index) for index in range(40))
    odd = ["", "a", signs, signs + "\u5417", "\U0001f600" * 3, "x" * 100_000, "!!! ..."]
    assert near.near_copies(odd, [0] * len(odd)).nonzero()[0].tolist() == [3]
    assert near.near_copies([], []).shape == (0, 1)


# labels


@pytest.mark.parametrize("number", range(10))
def test_a_label_copied_into_the_text_is_found(number: int) -> None:
    form = ("{text} [{label}]", "{label}: {text}", "{text}, {label}!", "{text} ({spaced}) thanks", "<{upper}> {text}")
    files = banking(classes=12)
    for rows in files.values():
        for index, row in enumerate(rows):
            if number < 5 or index % 19:  # a few rows escaped
                label = row["label"]
                spaced, upper = label.replace("_", " "), label.upper()
                row["text"] = form[number % 5].format(text=row["text"], label=label, spaced=spaced, upper=upper)
    found = found_in(files)["label-in-text"]
    assert found.level == "warn" and found.count >= 0.9 * len(files["train"])
    for index in found.rows["train"]:
        row = files["train"][index]
        assert row["label"].lower() in row["text"].lower().replace(" ", "_")


def test_a_label_that_stands_in_all_texts_is_no_copied_label() -> None:
    rows = [*of("red", *(f"red or blue {i}" for i in range(20))), *of("blue", *(f"blue or red {i}" for i in range(20)))]
    assert "label-in-text" not in found_in({"train": rows})


def test_classes_that_are_rare_missing_unknown_or_of_very_different_size() -> None:
    files = padded(
        of("tiny", "the only one"), validation=of("red", "held"), test=of("white", "unseen") + of("red", "seen")
    )
    files["train"] += of("red", *(f"{index * 7919} differs" for index in range(30)))
    found = found_in(files)
    assert found["rare-class"].rows == {"train": [60]} and found["unknown-label"].rows == {"test": [0]}
    assert found["one-class-missing"].level == "warn" and "'blue'" in found["one-class-missing"].message
    assert found["imbalance"].level == "info" and "'tiny', has 1" in found["imbalance"].message


def test_rows_without_labels_are_checked_for_the_rest() -> None:
    columns = (Column("text", "text"),)
    rows = [Row({"text": text, "score": 0.5}, "f", line) for line, text in enumerate(("one", "One", "two"))]
    assert [finding.code for finding in find_all({"train": rows}, columns)] == ["duplicate"]


LABELS, SCORE = (Column(name, kind, is_input=False) for name, kind in (("labels", "labels"), ("score", "number")))


@pytest.mark.parametrize(("column", "one", "other"), [(LABELS, ["a"], ["a", "b"]), (SCORE, 1.0, 5.0)], ids=str)
def test_answers_that_are_no_single_label_repeat_and_contradict_too(column: Column, one: object, other: object) -> None:
    columns = (Column("text", "text"), column)
    texts = (("same", one), ("same", one), ("torn", one), ("torn", other))
    rows = [
        Row({"text": text, column.name: answer, "label": "x"}, "f", line) for line, (text, answer) in enumerate(texts)
    ]
    found = {finding.code: finding for finding in find_all({"train": rows}, columns)}
    assert found["duplicate"].rows == {"train": [1]} and found["conflicting-label"].rows == {"train": [2, 3]}
    assert not {"rare-class", "imbalance"} & found.keys()  # a column called label that is not learned is no class


def test_a_label_of_several_that_training_never_showed_is_named() -> None:
    columns = (Column("text", "text"), LABELS)
    splits = {
        "train": [Row({"text": f"t {line}", "labels": ["a", "b"]}, "f", line) for line in range(3)],
        "test": [Row({"text": "u", "labels": ["a", "new"]}, "g", 0), Row({"text": "v", "labels": []}, "g", 1)],
    }
    found = {finding.code: finding for finding in find_all(splits, columns)}
    assert found["unknown-label"].rows == {"test": [0]} and "'new'" in found["unknown-label"].message
    assert found["one-class-missing"].count == 1


# texts


def test_texts_that_show_nothing_and_texts_that_come_again_and_again() -> None:
    hidden = ["\u200b", " \ufeff\u2060 ", "\u00ad", "\u200e\u200f"]
    found = found_in(padded([*of("red", *hidden), *of("blue", *["see attachment"] * 12)]))
    assert found["empty-text"].rows == {"train": [60, 61, 62, 63]}
    assert found["suspect-texts"].count == 12 and "attachment" not in found["suspect-texts"].message


# what should not be there

NO_SUCH = [
    "4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "12345678A", "529.982.247-26", "1.2.3.4", "192.168.0.1",
    "999.999.999.999", "password: letmein", "skeleton-key: nothing", "user@localhost", "12:30:45", "000-12-3456",
    "1234567890123456", "sk-and-then-some-more-words", "http://host:8080/a@b", "811218-9870",
]  # fmt: skip


NUMBERS = [pattern for pattern in (*sensitive.SECRETS, *sensitive.PERSONAL) if pattern.digits > 1]


@pytest.mark.parametrize("pattern", NUMBERS, ids=lambda pattern: f"{pattern.kind}-{pattern.digits}")
@given(st.data())
@settings(deadline=None, max_examples=100)
def test_no_filter_stands_before_a_number_that_matches(pattern: sensitive.Pattern, data: st.DataObject) -> None:
    """Texts that are passed over by their digits have no match: whatever the gaps a number is written with."""
    characters = st.characters(codec="ascii", exclude_characters="\n")
    number = data.draw(st.from_regex(pattern.pattern, alphabet=characters)).strip()
    match = pattern.pattern.search(number)
    assume(match is not None and sum(map(str.isdigit, match.group())) >= pattern.digits)  # as its proof asks
    texts = ["1 one", f"so {number} it is", "2"]
    assert (pattern, 1) in list(sensitive._candidates(texts, [pattern]))


@pytest.mark.parametrize("kind", HIDDEN)
def test_each_kind_is_found_in_the_middle_of_a_sentence(kind: str) -> None:
    for hidden in HIDDEN[kind]:
        for text in (hidden, f"Hello, mine is {hidden}, thank you.", f"see\n{hidden}\nthere"):
            assert kind in sensitive.find([text]), text


@pytest.mark.parametrize("text", NO_SUCH)
def test_what_fails_its_proof_is_not_found(text: str) -> None:
    assert sensitive.find([f"it says {text} there"]) == {}


def test_suspicions_are_counted_by_kind_with_their_rows() -> None:
    rows = of("red", *(f"{kind} {hidden} end" for kind, many in HIDDEN.items() for hidden in many))
    found = found_in({"train": rows, "test": of("red", "mail a" + "b@c.de")})
    assert found["secrets"].count == 14 and found["secrets"].level == "warn"
    assert found["personal-data"].rows["test"] == [0]
    for kind, many in HIDDEN.items():
        message = found["secrets"].message + found["personal-data"].message
        assert f"{kind} ({len(many) + (kind == 'e-mail address')})" in message


def test_a_label_that_holds_an_address_is_not_repeated() -> None:
    address = HIDDEN["e-mail address"][0]
    assert address not in label_checks.shown(address) and label_checks.shown("plain") == "'plain'"
    assert len(label_checks.shown("long " * 50)) < 50


@pytest.mark.parametrize("kind", HIDDEN)
def test_each_kind_is_masked_and_the_rest_is_kept(kind: str) -> None:
    for hidden in HIDDEN[kind]:
        bare = hidden.removesuffix(" please")
        masked = sensitive.mask(f"Hello, mine is {bare}, thank you.")
        assert masked.startswith("Hello, mine is ") and f"[{kind}]" in masked and bare not in masked
        assert kind == "private key" or masked.endswith(", thank you.")
        assert sensitive.find([masked]) == {}


HARMLESS = [text for text in (*NO_SUCH, *ORDINARY) if "0532" not in text]  # a phone number may begin inside of that one


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_suspect_is_shown_as_it_is(text: str) -> None:
    assert sensitive.mask(f"it says {text} there") == f"it says {text} there"


CARD, IBAN, PHONE = HIDDEN["payment card number"][0], HIDDEN["IBAN"][0], HIDDEN["phone number"][2]
KEY = HIDDEN["private key"][0]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"{CARD} 12/26", "[payment card number] 12/26"),
        (f"5 {CARD}", "5 [payment card number]"),
        (f"to {IBAN} NOW AND OK", "to [IBAN] NOW AND OK"),
        (f"{PHONE} {PHONE}", "[phone number]"),
        (f"{PHONE}, {PHONE}", "[phone number], [phone number]"),
        (f"room 5 {PHONE}", "room 5 [phone number]"),
        (f"{CARD} {PHONE}", "[payment card number] [phone number]"),
        (f"a {KEY}\nqwertz\n{KEY.splitlines()[0].replace('BEGIN', 'END')} b", "a [private key] b"),
        (f"a {KEY}\nqwertz and so on", "a [private key]"),
        (f"hf{'_' + 'a1' * 300}, b", "[API token], b"),
        ("ftp://me:p@ss" + "w0rd@host/x", "ftp[password in a URL]host/x"),
        ("x" + "@y.org,z" + "@y.org", "[e-mail address],[e-mail address]"),
    ],
)
def test_all_of_it_is_masked_and_no_more(text: str, masked: str) -> None:
    assert sensitive.mask(text) == masked


def test_masking_takes_time_in_proportion() -> None:
    """A text made to hold very much of it costs no more for each letter."""
    began = time.perf_counter()
    for piece in (f"{PHONE} ", f"{CARD} ", "eyJaaaaaaaa.", "sk-", "4111 ", "a@"):
        sensitive.mask(piece * (50_000 // len(piece)))
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我的邮箱是{}请回复", "我的邮箱是[{}]请回复"),
        ("メールは{}です", "メールは[{}]です"),
        ("อีเมล{}ครับ", "อีเมล[{}]ครับ"),
        ("제 것은 {}입니다", "제 것은 [{}]입니다"),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in HIDDEN if kind not in ("private key", "password in a URL")])
def test_text_without_spaces_around_it_hides_nothing(kind: str, text: str, masked: str) -> None:
    for hidden in HIDDEN[kind]:
        bare = hidden.removesuffix(" please")
        assert kind in sensitive.find([text.format(bare)])
        shown = sensitive.mask(text.format(bare))
        assert bare not in shown and (kind == "written-out password or key" or shown == masked.format(kind))


@pytest.mark.parametrize(
    "address", ["Özlem{}x.de", "жанна{}почта.рф", "anna{}münchen.de", "张三{}例子.中国", "a.张三{}x.cn"]
)
def test_an_address_may_hold_letters_of_any_script(address: str) -> None:
    assert sensitive.mask(f"to {address.format('@')}, please") == "to [e-mail address], please"


def test_digits_of_other_scripts_are_no_numbers_with_a_checksum() -> None:
    cpf, nir = "111.444" + ".777-35", "1 85 05 78 " + "006 084 91"
    arabic = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    for number in (cpf, nir):
        half = number[:-2] + number[-2:].translate(arabic)
        assert sensitive.mask(f"{number} und {half}") == f"[national id] und {half}"


@pytest.mark.parametrize("piece", ["eyJ-", "sk-", "glpat-", "xoxb-", "eyJaaaaaaaa-", "张a@", "张@", "a张"])
def test_a_begun_token_again_and_again_takes_time_in_proportion(piece: str) -> None:
    def seconds(length: int) -> float:
        began = time.process_time()
        sensitive.find([f"{piece * (length // len(piece))} @ "])
        return time.process_time() - began

    few, many = (min(seconds(length) for _ in range(3)) for length in (20_000, 160_000))
    assert many < 20 * few, "eight times the text"


def test_names_that_become_the_same_are_numbered() -> None:
    one, other = HIDDEN["e-mail address"]
    shown = {one: "[e-mail address]", "card": "card", other: "[e-mail address] (2)"}
    assert sensitive.mask_names([one, "card", other]) == shown
    assert sensitive.mask_all([one, 2.5, "card"]) == ["[e-mail address]", 2.5, "card"]


# by size


@pytest.mark.parametrize(
    ("size", "codes"),
    [
        (Size(40, 10, "lora", 10), ["few-rows"]),
        (Size(300, 100, "full", 10), ["some-rows"]),
        (Size(2000, 50, "full", 10), ["few-rows-per-class"]),
        (Size(2000, 50, "lora", 10), []),
        (Size(2000, math.inf, "full", 340_000_000), ["large-model-few-rows"]),
        (Size(2000, math.inf, "lora", 340_000_000), []),
        (Size(90, 45, "full", 340_000_000), ["few-rows", "large-model-few-rows"]),
        (Size(50_000, 5000, "full", 340_000_000), []),
        (Size(2_000_000, 5000, "full", 10), ["many-rows"]),
    ],
)
def test_advice_by_size_and_method(size: Size, codes: list[str]) -> None:
    said = [advice for advice in SIZE_ADVICE if advice.holds(size)]
    assert [advice.code for advice in said] == codes
    assert all(advice.source and advice.level in ("info", "warn") for advice in said)
