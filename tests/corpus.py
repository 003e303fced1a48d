"""Odd and bad files, made in memory: what others' programs, disks and malice leave behind."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

Pairs = list[tuple[str, str]]


def line(text: object = "a", label: object = "x", **more: object) -> str:
    return json.dumps({"text": text, "label": label, **more}) + "\n"


def table(texts: object = ("one", "two"), labels: object = ("x", "y")) -> pa.Table:
    return pa.table({"text": texts, "label": labels})


def parquet(rows: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows, out, **options)
    return out.getvalue()


def arrow(rows: pa.Table, stream: bool = False) -> bytes:
    out = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, rows.schema) as writer:
        writer.write_table(rows)
    return out.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.csv", content)
    return out.getvalue()


def far_offsets() -> bytes:
    """An Arrow file whose last text ends 2 GB behind its buffer."""
    near, far = b"\0\0\0\0\3\0\0\0\6\0\0\0", b"\0\0\0\0\3\0\0\0\xff\xff\xff\x7f"
    content = arrow(table())
    assert near in content
    return content.replace(near, far)


def not_utf8_column() -> pa.Array:
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfe")])


CSV, TWO = "text,label\none,x\ntwo,y\n", line("one", "x") + line("two", "y")
LIST = json.dumps([{"text": "one", "label": "x"}, {"text": "two", "label": "y"}])
PAIRS: Pairs = [("one", "x"), ("two", "y")]
LONG = "long " * 200_000

# name: (file, content, rows, words in a note)
GOOD: dict[str, tuple[str, Callable[[], bytes], Pairs, str]] = {
    "json list": ("a.json", lambda: LIST.encode(), PAIRS, ""),
    "json columns": ("a.json", lambda: b'{"text": ["one", "two"], "label": ["x", "y"]}', PAIRS, ""),
    "json around a list": ("a.json", lambda: b'{"version": "1", "data": %b}' % LIST.encode(), PAIRS, "list 'data'"),
    "json lines as json": ("a.json", lambda: TWO.encode(), PAIRS, "JSON Lines"),
    "json over many lines": ("a.json", lambda: json.dumps(json.loads(LIST), indent=2).encode(), PAIRS, ""),
    "json with BOM": ("a.json", lambda: b"\xef\xbb\xbf" + LIST.encode(), PAIRS, ""),
    "json in UTF-16": ("a.json", lambda: LIST.encode("utf-16"), PAIRS, "UTF-16"),
    "ndjson": ("a.ndjson", lambda: TWO.encode(), PAIRS, ""),
    "jsonl in UTF-16": ("a.jsonl", lambda: TWO.encode("utf-16"), PAIRS, "UTF-16"),
    "jsonl in UTF-32": ("a.jsonl", lambda: TWO.encode("utf-32"), PAIRS, "UTF-32"),
    "csv in UTF-16": ("a.csv", lambda: CSV.encode("utf-16"), PAIRS, "UTF-16"),
    "csv in big-endian UTF-16": ("a.csv", lambda: b"\xfe\xff" + CSV.encode("utf-16-be"), PAIRS, "UTF-16"),
    "csv in UTF-32": ("a.csv", lambda: CSV.encode("utf-32"), PAIRS, "UTF-32"),
    "semicolons": ("a.csv", lambda: CSV.replace(",", ";").encode(), PAIRS, "separated by a semicolon"),
    "semicolons and decimal commas": ("a.csv", lambda: b'text;label\n"1,5";x\n', [("1,5", "x")], "a semicolon"),
    "tabs in a csv": ("a.csv", lambda: CSV.replace(",", "\t").encode(), PAIRS, "separated by a tab"),
    "bars": ("a.csv", lambda: CSV.replace(",", "|").encode(), PAIRS, "separated by a bar"),
    "separator named by Excel": ("a.csv", lambda: b"sep=;\r\ntext;label\r\none;x\r\n", [("one", "x")], "names the separator"),
    "quoted names with semicolons": ("a.csv", lambda: b'"text";"label"\n"one";"x"\n', [("one", "x")], "semicolon"),
    "tsv": ("a.tsv", lambda: CSV.replace(",", "\t").encode(), PAIRS, ""),
    "tsv with a comma": ("a.tsv", lambda: b"text\tlabel\na, b\tx\n", [("a, b", "x")], ""),
    "tsv with a quote inside": ("a.tsv", lambda: b'text\tlabel\n5\' 10" tall\tx\n', [("5' 10\" tall", "x")], ""),
    "csv called tsv": ("a.tsv", lambda: CSV.encode(), PAIRS, "separated by a comma"),
    "emoji and families": ("a.csv", lambda: "text,label\n👩‍👩‍👧 🇩🇪,👍🏽\n".encode(), [("👩‍👩‍👧 🇩🇪", "👍🏽")], ""),
    "right to left": ("a.csv", lambda: "text,label\nשלום، مرحبا,نعم\n".encode(), [("שלום، مرحبا", "نعم")], ""),
    "a long row, jsonl": ("a.jsonl", lambda: line(LONG).encode(), [(LONG, "x")], ""),
    "a long row, csv": ("a.csv", lambda: f"text,label\n{LONG},x\n".encode(), [(LONG, "x")], ""),
    "a long row, parquet": ("a.parquet", lambda: parquet(table([LONG], ["x"])), [(LONG, "x")], ""),
    "None and null are texts": ("a.tsv", lambda: b"text\tlabel\nNone\tnull\nNaN\tNA\n", [("None", "null"), ("NaN", "NA")], ""),
    "brackets and colons in texts": ("a.jsonl", lambda: line('[[{":": "\\\\":}]]' * 99).encode(), [('[[{":": "\\\\":}]]' * 99, "x")], ""),
    "200 deep beside": ("a.jsonl", lambda: line(more=json.loads("[" * 150 + "]" * 150)).encode(), [("a", "x")], ""),
    "large numbers beside": ("a.jsonl", lambda: line(n=2**70).encode(), [("a", "x")], ""),
    "csv.gz": ("a.csv.gz", lambda: gzip.compress(CSV.encode()), PAIRS, ""),
    "tsv.gz": ("a.tsv.gz", lambda: gzip.compress(CSV.replace(",", "\t").encode()), PAIRS, ""),
    "json.gz": ("a.json.gz", lambda: gzip.compress(LIST.encode()), PAIRS, ""),
    "jsonl.gz": ("a.JSONL.GZ", lambda: gzip.compress(TWO.encode()), PAIRS, ""),
    "json lines as json.gz": ("a.json.gz", lambda: gzip.compress(TWO.encode()), PAIRS, "JSON Lines"),
    "UTF-16 csv.gz": ("a.csv.gz", lambda: gzip.compress(CSV.encode("utf-16")), PAIRS, "UTF-16"),
    "parquet.gz": ("a.parquet.gz", lambda: gzip.compress(parquet(table())), PAIRS, ""),
    "arrow.gz": ("a.arrow.gz", lambda: gzip.compress(arrow(table())), PAIRS, ""),
    "two archives in one": ("a.csv.gz", lambda: gzip.compress(b"text,label\none,x\n") + gzip.compress(b"two,y\n"), PAIRS, ""),
    "parquet": ("a.parquet", lambda: parquet(table()), PAIRS, ""),
    "parquet in row groups": ("a.parquet", lambda: parquet(table(), row_group_size=1), PAIRS, ""),
    "parquet with dictionaries": ("a.parquet", lambda: parquet(table(pa.array(["one", "two"]).dictionary_encode(), pa.array(["x", "y"]).dictionary_encode())), PAIRS, ""),
    "parquet of large strings": ("a.parquet", lambda: parquet(table(pa.array(["one", "two"], pa.large_string()))), PAIRS, ""),
    "parquet of string views": ("a.parquet", lambda: parquet(table(pa.array(["one", "two"], pa.string_view()))), PAIRS, ""),
    "parquet with whole-number labels": ("a.parquet", lambda: parquet(table(labels=pa.array([0, 1], pa.int8()))), [("one", "0"), ("two", "1")], ""),
    "parquet with pictures beside": ("a.parquet", lambda: parquet(table().append_column("image", pa.array([b"\x89", b"\0"]))), PAIRS, ""),
    "arrow file": ("a.arrow", lambda: arrow(table()), PAIRS, ""),
    "arrow stream": ("a.arrow", lambda: arrow(table(), stream=True), PAIRS, ""),
    "feather": ("a.feather", lambda: arrow(table()), PAIRS, ""),
}  # fmt: skip

_PARQUET, _ARROW, _STREAM = parquet(table()), arrow(table()), arrow(table(), stream=True)
_GZ = gzip.compress(CSV.encode() * 50)
_LATIN = "text,label\none,x\ncaf\xe9,y\n".encode("latin-1")

# name: (file, content, words that the message must hold; the first is the place)
BAD: dict[str, tuple[str, Callable[[], bytes], list[str]]] = {
    # csv and tsv
    "csv without a header": ("a.csv", lambda: b"I am late,card\nWhere is it,loan\n", ["a.csv:1", "no header line?", "text,label"]),
    "tsv without a header": ("a.tsv", lambda: b"I am late\tcard\n", ["a.tsv:1", "no header line?"]),
    "semicolons without a header": ("a.csv", lambda: b"late;card\n", ["a.csv:1", "no header line?"]),
    "one name, no separator": ("a.csv", lambda: b"text\none\n", ["a.csv", "no column 'label'", "there are: text"]),
    "tsv with open quote": ("a.tsv", lambda: b'text\tlabel\n"one\tx\ntwo\ty\n', ["a.tsv:2", "quote"]),
    "quote in a quoted cell": ("a.csv", lambda: b'text,label\nok,x\n"say "no"",y\n', ["a.csv:3", "not valid CSV"]),
    "ragged tsv": ("a.tsv", lambda: b"text\tlabel\none\n", ["a.tsv:2", "1 cells under 2 columns"]),
    "ragged after CR": ("a.csv", lambda: b"text,label\rone,x\rtwo\r", ["a.csv:3", "1 cells"]),
    "more cells late": ("a.csv", lambda: b"text,label\n" + b"a,x\n" * 5000 + b"a,x,y\n", ["a.csv:5002", "3 cells"]),
    "double names in tsv": ("a.tsv", lambda: b"text\ttext\tlabel\na\tb\tx\n", ["a.tsv:1", "'text' is there twice"]),
    "unnamed columns": ("a.csv", lambda: b"text,label,,\na,x,,\n", ["a.csv:1", "'' is there twice"]),
    "names in capitals": ("a.csv", lambda: b"Text,Label\na,x\n", ["a.csv", "no column 'text'", "Text, Label"]),
    "names with spaces": ("a.csv", lambda: b" text, label\na,x\n", ["a.csv", "no column 'text'"]),
    "header of blanks": ("a.csv", lambda: b" , \na,x\n", ["a.csv:1:1", "no header"]),
    "NUL in the header": ("a.csv", lambda: b"te\0xt,label\na,x\n", ["a.csv:1:3", "NUL"]),
    "NUL in a text": ("a.csv", lambda: b"text,label\na\0b,x\n", ["a.csv:2:text", "NUL", "at 2"]),
    "NUL in a label": ("a.csv", lambda: b"text,label\na,x\0y\n", ["a.csv:2:label", "NUL"]),
    "NUL in a tsv": ("a.tsv", lambda: b"text\tlabel\na\0\tx\n", ["a.tsv:2:text", "NUL"]),
    "only NULs": ("a.csv", lambda: b"\0" * 5000, ["a.csv:1:1", "NUL"]),
    "UTF-16 without a mark": ("a.csv", lambda: CSV.encode("utf-16-le"), ["a.csv:1:2", "UTF-16 without"]),
    "half of UTF-32": ("a.csv", lambda: CSV.encode("utf-32")[:-2], ["a.csv", "not UTF-32"]),
    "Latin-1 tsv": ("a.tsv", lambda: _LATIN.replace(b",", b"\t"), ["a.tsv:3:4", "byte 20, 0xE9", "iconv -f LATIN1"]),
    "Latin-1 with CR": ("a.csv", lambda: _LATIN.replace(b"\n", b"\r"), ["a.csv:3:4", "byte 20, 0xE9"]),
    "Latin-1 late": ("a.csv", lambda: b"text,label\n" + b"a,x\n" * 30_000 + b"\xe9,x\n", ["a.csv:30002:1", "0xE9"]),
    "invalid UTF-8 last": ("a.csv", lambda: b"text,label\na,x\xc3", ["a.csv:2:4", "0xC3"]),
    "overlong UTF-8": ("a.csv", lambda: b"text,label\n\xc0\xaf,x\n", ["a.csv:2:1", "0xC0"]),
    "surrogate bytes in csv": ("a.csv", lambda: b"text,label\n\xed\xa0\x80,x\n", ["a.csv:2:1", "0xED"]),
    "CP1252 quotes": ("a.csv", lambda: b"text,label\n\x93a\x94,x\n", ["a.csv:2:1", "0x93"]),
    "a mark in the middle": ("a.csv", lambda: CSV.encode() + CSV.encode("utf-16"), ["a.csv:4:1", "0xFF"]),
    "a huge cell": ("a.csv", lambda: b'text,label\n"' + b"a" * 50_000_001 + b'",x\n', ["a.csv:2", "field larger"]),
    "only a separator line": ("a.csv", lambda: b"sep=;\n", ["a.csv:2", "no header"]),
    "blank label": ("a.tsv", lambda: b"text\tlabel\na\t \n", ["a.tsv:2:label", "is empty"]),
    "no-break space": ("a.csv", lambda: "text,label\n\u00a0\u2003,x\n".encode(), ["a.csv:2:text", "is empty"]),
    "HTML called csv": ("a.csv", lambda: b"<!DOCTYPE html>\n<html><body>404</body></html>\n", ["a.csv", "no column 'text'"]),
    "git conflict": ("a.jsonl", lambda: f"<<<<<<< HEAD\n{TWO}=======\n{TWO}>>>>>>> b\n".encode(), ["a.jsonl:1:1", "not valid JSON"]),
    "a git-lfs pointer": ("a.csv", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["a.csv", "no column"]),
    # jsonl
    "duplicate key": ("a.jsonl", lambda: b'{"text":"a","text":"b","label":"x"}\n', ["a.jsonl:1:text", "is there twice"]),
    "duplicate key within": ("a.jsonl", lambda: line().encode() + b'{"text":"a","label":"x","m":{"k":1,"k":2}}\n', ["a.jsonl:2:k", "'k' is there twice"]),
    "duplicate key behind an escape": ("a.jsonl", lambda: b'{"text":"a\\":","label":"x","label":"y"}\n', ["a.jsonl:1:label", "twice"]),
    "NUL escaped": ("a.jsonl", lambda: b'{"text":"a\\u0000b","label":"x"}\n', ["a.jsonl:1:text", "NUL"]),
    "NUL raw": ("a.jsonl", lambda: b'{"text":"a\0b","label":"x"}\n', ["a.jsonl:1:11", "NUL"]),
    "NUL block at the end": ("a.jsonl", lambda: TWO.encode() + b"\0" * 4096, ["a.jsonl:3:1", "NUL"]),
    "high surrogate alone": ("a.jsonl", lambda: b'{"text":"\\ud800","label":"x"}\n', ["a.jsonl:1:10", "surrogate"]),
    "low surrogate alone": ("a.jsonl", lambda: b'{"text":"a\\udc00","label":"x"}\n', ["a.jsonl:1:", "not valid JSON"]),
    "surrogates swapped": ("a.jsonl", lambda: b'{"text":"\\ude00\\ud83d","label":"x"}\n', ["a.jsonl:1:", "not valid JSON"]),
    "minus Infinity": ("a.jsonl", lambda: b'{"text":"a","label":-Infinity}\n', ["a.jsonl:1:", "-Infinity is no JSON number"]),
    "1e999": ("a.jsonl", lambda: b'{"text":"a","label":1e999}\n', ["a.jsonl:1", "infinity"]),
    "2 to the 63": ("a.jsonl", lambda: line("a", 2**63).encode(), ["a.jsonl:1:label", "beyond 64 bits"]),
    "2 to the 64": ("a.jsonl", lambda: line("a", 2**64).encode(), ["a.jsonl:1:label", "beyond 64 bits"]),
    "minus 2 to the 64": ("a.jsonl", lambda: line("a", -(2**64)).encode(), ["a.jsonl:1:label", "beyond 64 bits"]),
    "5,000 digits": ("a.jsonl", lambda: b'{"text":"a","label":' + b"9" * 5000 + b"}\n", ["a.jsonl:1"]),
    "leading zero": ("a.jsonl", lambda: b'{"text":"a","label":01}\n', ["a.jsonl:1:21", "leading zero"]),
    "plus sign": ("a.jsonl", lambda: b'{"text":"a","label":+1}\n', ["a.jsonl:1:21", "not valid JSON"]),
    "hex number": ("a.jsonl", lambda: b'{"text":"a","label":0x1}\n', ["a.jsonl:1:22", "not valid JSON"]),
    "single quotes": ("a.jsonl", lambda: b"{'text': 'a', 'label': 'x'}\n", ["a.jsonl:1:2", "not valid JSON"]),
    "True of Python": ("a.jsonl", lambda: b'{"text":"a","label":True}\n', ["a.jsonl:1:21", "not valid JSON"]),
    "comment": ("a.jsonl", lambda: b"// rows\n" + TWO.encode(), ["a.jsonl:1:1", "not valid JSON"]),
    "raw newline in a text": ("a.jsonl", lambda: b'{"text":"a\nb","label":"x"}\n', ["a.jsonl:1:", "ends in the middle"]),
    "raw tab in a text": ("a.jsonl", lambda: b'{"text":"a\tb","label":"x"}\n', ["a.jsonl:1:11", "not valid JSON"]),
    "bad escape": ("a.jsonl", lambda: b'{"text":"a\\x","label":"x"}\n', ["a.jsonl:1:", "not valid JSON"]),
    "two rows on a line": ("a.jsonl", lambda: TWO.replace("\n", "").encode(), ["a.jsonl:1:30", "not valid JSON"]),
    "commas between lines": ("a.jsonl", lambda: TWO.replace("\n", ",\n").encode(), ["a.jsonl:1:30", "not valid JSON"]),
    "CR between rows": ("a.jsonl", lambda: TWO.replace("\n", "\r").encode(), ["a.jsonl:1:", "not valid JSON"]),
    "a row over many lines": ("a.jsonl", lambda: json.dumps({"text": "a"}, indent=1).encode(), ["a.jsonl:1:", "middle"]),
    "a list in jsonl": ("a.jsonl", lambda: b'[\n{"text":"a","label":"x"}\n]\n', ["a.jsonl:1", ".json file"]),
    "null a line": ("a.jsonl", lambda: b"null\n", ["a.jsonl:1", "not a JSON object"]),
    "201 deep": ("a.jsonl", lambda: b'{"text":' + b"[" * 200 + b"]" * 200 + b',"label":"x"}\n', ["a.jsonl:1:1", "deeper than 200"]),
    "2,000 deep": ("a.jsonl", lambda: b'{"text":' + b'{"a":' * 2000 + b"1" + b"}" * 2001 + b"\n", ["a.jsonl:1:1", "deeper than 200"]),
    "100,000 open": ("a.jsonl", lambda: b"[" * 100_000, ["a.jsonl:1", "deeper than 200"]),
    "deep after strings": ("a.jsonl", lambda: b'{"text":"]]]]","label":' + b"[" * 300 + b"]" * 300 + b"}\n", ["a.jsonl:1:1", "deeper"]),
    "brackets in an open string": ("a.jsonl", lambda: b'{"text":"' + b"[" * 300, ["a.jsonl:1:", "ends in the middle"]),
    "Latin-1 in jsonl": ("a.jsonl", lambda: TWO.encode() + b'{"text":"caf\xe9","label":"x"}\n', ["a.jsonl:3:13", "0xE9", "iconv"]),
    "UTF-16 jsonl without a mark": ("a.jsonl", lambda: TWO.encode("utf-16-le"), ["a.jsonl:1:2", "UTF-16 without"]),
    "a line of 100 MB": ("a.jsonl", lambda: b'{"text":"' + b"a" * 100_000_000 + b'","label":"x"}', ["a.jsonl:1", "100 MB"]),
    "bad row 3,000": ("a.jsonl", lambda: line().encode() * 2999 + b"oops\n", ["a.jsonl:3000:1", "not valid JSON"]),
    "an object as text": ("a.jsonl", lambda: line({"a": 1}).encode(), ["a.jsonl:1:text", "an object, not text"]),
    "only null cells": ("a.jsonl", lambda: line(None, None).encode(), ["a.jsonl:1:text", "is missing"]),
    # json
    "empty json": ("a.json", lambda: b"", ["a.json", "no rows"]),
    "blank json": ("a.json", lambda: b" \n\t", ["a.json", "no rows"]),
    "empty list": ("a.json", lambda: b"[]", ["a.json", "no rows"]),
    "empty object": ("a.json", lambda: b"{}", ["a.json", "one object"]),
    "one object": ("a.json", lambda: b'{"text": "a", "label": "x"}', ["a.json", "one object, not a list of rows"]),
    "a word": ("a.json", lambda: b'"a"', ["a.json", "neither a list"]),
    "a number": ("a.json", lambda: b"3", ["a.json", "neither a list"]),
    "null": ("a.json", lambda: b"null", ["a.json", "neither a list"]),
    "columns of two lengths": ("a.json", lambda: b'{"text": ["a"], "label": ["x", "y"]}', ["a.json", "text: 1, label: 2"]),
    "two lists of objects": ("a.json", lambda: b'{"train": [{"text": "a"}], "test": [{"text": "b"}, {"text": "c"}]}', ["a.json", "different lengths"]),
    "a list beside words": ("a.json", lambda: b'{"text": ["a"], "label": "x"}', ["a.json", "which list holds the rows?"]),
    "columns by row number": ("a.json", lambda: b'{"text": {"0": "a"}, "label": {"0": "x"}}', ["a.json", "one object"]),
    "a word in the list": ("a.json", lambda: b'[{"text": "a", "label": "x"}, "b"]', ["a.json:row 2", "not a JSON object"]),
    "a cell in row 2": ("a.json", lambda: b'[{"text": "a", "label": "x"}, {"text": 3, "label": "x"}]', ["a.json:row 2:text", "a number"]),
    "trailing comma, json": ("a.json", lambda: b'[\n{"text": "a",\n "label": "x",}\n]', ["a.json:3:", "comma"]),
    "cut json": ("a.json", lambda: LIST[:-5].encode(), ["a.json:1:", "ends in the middle"]),
    "two lists": ("a.json", lambda: b"[][]", ["a.json:1:3", "not valid JSON"]),
    "deep json": ("a.json", lambda: b"[" * 100_000 + b"]" * 100_000, ["a.json:1:1", "deeper than 200"]),
    "duplicate key, json": ("a.json", lambda: b'[{"text": "a", "label": "x", "label": "y"}]', ["a.json", "'label' is there twice"]),
    "duplicate column, json": ("a.json", lambda: b'{"text": ["a"], "label": ["x"], "label": ["y"]}', ["a.json", "'label' is there twice"]),
    "NaN in json": ("a.json", lambda: b'[{"text": "a",\n"label": NaN}]', ["a.json:2:10", "NaN"]),
    "Latin-1 json": ("a.json", lambda: b'[{"text": "a",\n"label": "\xe9"}]', ["a.json:2:11", "0xE9"]),
    "half of a UTF-16 json": ("a.json", lambda: LIST.encode("utf-16")[:-1], ["a.json", "not UTF-16"]),
    "broken lines in json": ("a.json", lambda: TWO.encode() + b"oops\n", ["a.json:3:1", "not valid JSON"]),
    # archives
    "empty archive": ("a.jsonl.gz", lambda: b"", ["a.jsonl.gz", "no rows"]),
    "archive of nothing": ("a.jsonl.gz", lambda: gzip.compress(b""), ["a.jsonl.gz", "no rows"]),
    "no archive": ("a.csv.gz", lambda: CSV.encode(), ["a.csv.gz", "not a whole gzip file"]),
    "cut archive": ("a.csv.gz", lambda: _GZ[:-9], ["a.csv.gz", "not a whole gzip file"]),
    "archive with a wrong sum": ("a.csv.gz", lambda: flipped(_GZ, len(_GZ) - 6), ["a.csv.gz", "CRC"]),
    "flipped archive": ("a.csv.gz", lambda: flipped(_GZ, 22), ["a.csv.gz", "not a whole gzip file"]),
    "archive with a tail": ("a.csv.gz", lambda: _GZ + b"tail", ["a.csv.gz", "not a whole gzip file"]),
    "archive in an archive": ("a.csv.gz", lambda: gzip.compress(_GZ), ["a.csv.gz", "a gzip archive inside"]),
    "zip in an archive": ("a.csv.gz", lambda: gzip.compress(zipped(CSV.encode())), ["a.csv.gz", "a zip archive", "inside"]),
    "gzip bomb": ("a.jsonl.gz", lambda: gzip.compress(b"\0" * 90_000_000), ["a.jsonl.gz", "unpacks to more than 64 MB"]),
    "bad row in an archive": ("a.csv.gz", lambda: gzip.compress(b"text,label\na\n"), ["a.csv.gz:2", "1 cells"]),
    "Latin-1 in an archive": ("a.csv.gz", lambda: gzip.compress(_LATIN), ["a.csv.gz:3:4", "0xE9"]),
    "no ending inside": ("a.gz", lambda: _GZ, ["a.gz", "unknown kind of file '.gz'"]),
    "a tar": ("a.tar.gz", lambda: _GZ, ["a.tar.gz", "unknown kind of file '.tar.gz'"]),
    "zipped csv": ("a.csv", lambda: zipped(CSV.encode()), ["a.csv", "a zip archive"]),
    "gzip without .gz": ("a.jsonl", lambda: gzip.compress(TWO.encode()), ["a.jsonl", "a gzip archive"]),
    "7z called csv": ("a.csv", lambda: b"7z\xbc\xaf\x27\x1c\0\4", ["a.csv", "a 7z archive"]),
    "xz called json": ("a.json", lambda: b"\xfd7zXZ\x00\0", ["a.json", "an xz archive"]),
    "zstd called jsonl": ("a.jsonl", lambda: b"\x28\xb5\x2f\xfd\0", ["a.jsonl", "a zstd archive"]),
    "old Excel called csv": ("a.csv", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1", ["a.csv", "an old Excel"]),
    "PDF called csv": ("a.csv", lambda: b"%PDF-1.7\n", ["a.csv", "a PDF"]),
    "SQLite called csv": ("a.csv", lambda: b"SQLite format 3\x00", ["a.csv", "SQLite"]),
    "Arrow called jsonl": ("a.jsonl", lambda: _ARROW, ["a.jsonl", "an Arrow file"]),
    "pickle": ("a.pkl", lambda: b"\x80\x04\x95", ["a.pkl", "unknown kind of file '.pkl'"]),
    "workbook": ("a.xlsx", lambda: zipped(b""), ["a.xlsx", "unknown kind of file '.xlsx'"]),
    # parquet and arrow
    "empty parquet": ("a.parquet", lambda: b"", ["a.parquet", "no rows"]),
    "fake parquet": ("a.parquet", lambda: CSV.encode(), ["a.parquet", "does not begin with PAR1"]),
    "four bytes of parquet": ("a.parquet", lambda: b"PAR1", ["a.parquet", "no Parquet file"]),
    "cut parquet": ("a.parquet", lambda: _PARQUET[:-30], ["a.parquet", "no Parquet file"]),
    "parquet without its middle": ("a.parquet", lambda: _PARQUET[:40] + _PARQUET[60:], ["a.parquet", "no Parquet file"]),
    "parquet with a huge footer": ("a.parquet", lambda: _PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1", ["a.parquet", "no Parquet file"]),
    "parquet of noise": ("a.parquet", lambda: b"PAR1" + b"\xa5" * 999 + b"\x10\0\0\0PAR1", ["a.parquet", "no Parquet file"]),
    "parquet without rows": ("a.parquet", lambda: parquet(table().slice(0, 0)), ["a.parquet", "no rows"]),
    "parquet with other columns": ("a.parquet", lambda: parquet(pa.table({"a": [1], "b": [2]})), ["a.parquet", "no column 'text'", "a, b"]),
    "parquet with a null": ("a.parquet", lambda: parquet(table(["one", None])), ["a.parquet:row 2:text", "is missing"]),
    "parquet of numbers": ("a.parquet", lambda: parquet(table([1, 2])), ["a.parquet:row 1:text", "a number, not text"]),
    "parquet of bytes": ("a.parquet", lambda: parquet(table([b"a", b"b"])), ["a.parquet:row 1:text", "kind that we do not read"]),
    "parquet of fractions": ("a.parquet", lambda: parquet(table(labels=[0.5, 1.5])), ["a.parquet:row 1:label", "fraction"]),
    "parquet of not-a-numbers": ("a.parquet", lambda: parquet(table(labels=[float("nan"), 1.5])), ["a.parquet:row 1:label", "is missing"]),
    "parquet of lists": ("a.parquet", lambda: parquet(table([["a"], ["b"]])), ["a.parquet:row 1:text", "a list, not text"]),
    "parquet not UTF-8": ("a.parquet", lambda: parquet(table(not_utf8_column())), ["a.parquet", "UTF8"]),
    "parquet with a NUL": ("a.parquet", lambda: parquet(table(["a", "b\0"])), ["a.parquet:row 2:text", "NUL"]),
    "parquet of five million nulls": ("a.parquet", lambda: parquet(table(pa.nulls(5_000_000, pa.string()), pa.nulls(5_000_000, pa.string()))), ["a.parquet", "5,000,000 rows in"]),
    "parquet called arrow": ("a.arrow", lambda: _PARQUET, ["a.arrow", "it is a Parquet file"]),
    "arrow called parquet": ("a.parquet", lambda: _ARROW, ["a.parquet", "it is an Arrow file"]),
    "empty arrow": ("a.arrow", lambda: b"", ["a.arrow", "no rows"]),
    "fake arrow": ("a.arrow", lambda: TWO.encode(), ["a.arrow", "does not begin with ARROW1"]),
    "cut arrow": ("a.arrow", lambda: _ARROW[:-20], ["a.arrow", "no Arrow file"]),
    "cut stream": ("a.arrow", lambda: _STREAM[:-120], ["a.arrow", "no Arrow file"]),
    "offsets out of the buffer": ("a.arrow", far_offsets, ["a.arrow", "out of bounds"]),
    "arrow of five million nothings": ("a.arrow", lambda: arrow(pa.table({"text": pa.nulls(5_000_000)})), ["a.arrow", "5,000,000 rows in"]),
    "feather of version 1": ("a.feather", lambda: b"FEA1" + b"\0" * 99, ["a.feather", "version 1"]),
    "arrow not UTF-8": ("a.arrow", lambda: arrow(table(not_utf8_column())), ["a.arrow", "UTF8"]),
    "packed fake parquet": ("a.parquet.gz", lambda: _GZ, ["a.parquet.gz", "PAR1"]),
}  # fmt: skip
