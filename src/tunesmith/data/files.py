"""A file of rows before it is parsed: its kind by its ending, its bytes within limits, its encoding by its mark."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from tunesmith.errors import DataError

KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
PACKED = ".gz"
BY_LINE = ("csv", "tsv", "jsonl")
"""Kinds whose rows are found by their line. Rows of the others are counted."""

LARGEST_RATIO = 200
FREE_UNPACKED_BYTES = 64_000_000
LARGEST_UNPACKED_BYTES = 50_000_000_000
"""An archive may unpack to 64 MB whatever its size, above that to 200 times its size, and never to more than 50 GB."""

HEAD_BYTES = 512
PIECE_BYTES = 1 << 16
_SIGNS = (
    (b"\x1f\x8b", 0, "a gzip archive"),
    (b"PK\x03\x04", 0, "a zip archive (or an Excel workbook)"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive"),
    (b"\xfd7zXZ\x00", 0, "an xz archive"),
    (b"1AY&SY", 4, "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", 0, "a zstd archive"),
    (b"Rar!\x1a\x07", 0, "a rar archive"),
    (b"ustar", 257, "a tar archive"),
    (b"\xd0\xcf\x11\xe0", 0, "an old Excel or Word file"),
    (b"%PDF-", 0, "a PDF"),
    (b"SQLite format 3\x00", 0, "a SQLite database"),
    (b"\x89HDF", 0, "an HDF5 file"),
    (b"PAR1", 0, "a Parquet file"),
    (b"ARROW1", 0, "an Arrow file"),
    (b"\xff\xff\xff\xff", 0, "an Arrow stream"),
)
_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)


def kind_of(path: Path) -> tuple[str, bool]:
    """The kind of a file by its ending, and whether it is gzipped. Raises DataError for an ending we do not know."""
    packed = path.suffix.lower() == PACKED
    ending = (Path(path.stem) if packed else path).suffix
    kind = KINDS.get(ending.lower())
    if kind is None:
        listed = f"there are: {', '.join(KINDS)}, each also with {PACKED}"
        raise DataError(f"unknown kind of file {ending + PACKED * packed!r}", str(path), listed)
    return kind, packed


def require_regular(path: Path) -> None:
    """Refuse, without opening it, what is no file of bytes: reading a pipe or a device may never end."""
    where = str(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        missing = "a link to a file that is not there" if path.is_symlink() else "no such file"
        raise DataError(missing, where, "paths are relative to the recipe") from None
    except ValueError:
        raise DataError("not a path (it holds a NUL character)", where.replace("\0", "\\0")) from None
    except OSError as error:
        reason = "a link that leads to itself" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
        raise DataError(reason, where) from None
    if stat.S_ISDIR(mode):
        raise DataError("a folder, not a file of rows", where, f"name its files, for example {path.name}/*.jsonl")
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise DataError(f"{kind}, not a regular file", where, "write the rows to a file first")


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Raise DataError at the end if the file has become another one in between: half of its rows may be of each."""
    before = _stamp(path)
    yield
    if _stamp(path) != before:
        raise DataError("changed while it was read", str(path), "let its writer finish, then run again")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path)) from None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def open_bytes(path: Path, packed: bool) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked if it is gzipped."""
    with open(path, "rb") as file:
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as archive:
            yield io.BufferedReader(_Unpacked(archive, path), 1 << 18)


class _Unpacked(io.RawIOBase):
    """An archive's content, as long as it stays in proportion to the archive."""

    def __init__(self, archive: gzip.GzipFile, path: Path) -> None:
        self._archive = archive
        self._where = str(path)
        self._unpacked = 0
        packed = os.stat(path).st_size
        self._most = min(max(FREE_UNPACKED_BYTES, LARGEST_RATIO * packed), LARGEST_UNPACKED_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            content = self._archive.read1(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            remedy = "fetch or pack it again; without .gz in its name it is read as it is"
            raise DataError(f"not a whole gzip file ({error})", self._where, remedy) from None
        self._unpacked += len(content)
        if self._unpacked > self._most:
            limit = f"{self._most / 1e6:,.0f} MB, or {LARGEST_RATIO} times its size"
            raise DataError(f"unpacks to more than {limit}", self._where, "unpack it yourself if you trust it")
        buffer[: len(content)] = content
        return len(content)


def encoding_of(source: io.BufferedReader, path: Path, packed: bool) -> str:
    """The encoding of a text by the mark at its beginning, UTF-8 without one; nothing is taken from `source`.

    Raises:
        DataError: the bytes begin like a file of another kind.
    """
    head = source.peek(HEAD_BYTES)
    sign = sign_of(head)
    if sign:
        what = f"holds {sign} inside the gzip archive" if packed else f"is {sign} by its first bytes"
        remedy = "unpack it, or give it the ending of its kind"
        raise DataError(f"{what}, not rows of text", str(path), remedy)
    return next((encoding for mark, encoding in _ENCODINGS if head.startswith(mark)), "utf-8")


def sign_of(head: bytes) -> str:
    """What other kind of file begins with these bytes ("" if none that we know)."""
    return next((name for sign, at, name in _SIGNS if head[at : at + len(sign)] == sign), "")


def not_utf8(path: Path, packed: bool) -> DataError:
    """The error for a text that is not UTF-8, naming its first wrong byte. Reads the file once more to find it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, number, column = 0, 1, 1
    returns = 0  # in this line: a file whose lines end in CR alone is one line to us
    with open_bytes(path, packed) as file:
        for piece in chain(iter(partial(file.readline, PIECE_BYTES), b""), [b""]):
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode("utf-8")
                byte = f"byte {offset - held + error.start}, 0x{error.object[error.start]:02X}"
                place = f"{path}:{number + returns + before.count(chr(13))}:{_column_after(before, column)}"
                return DataError(f"not UTF-8 ({byte})", place, SAVE_AS_UTF8)
            offset += len(piece)
            if piece.endswith(b"\n"):
                number, returns, column = number + 1, 0, 1
            else:
                returns, column = returns + text.count("\r"), _column_after(text, column)
    return DataError("not UTF-8", str(path), SAVE_AS_UTF8)


def _column_after(text: str, column: int) -> int:
    """The column behind a text that begins in one."""
    last = text.rfind("\r")
    return column + len(text) if last < 0 else len(text) - last


SAVE_AS_UTF8 = "save the file as UTF-8 (from Latin-1: `iconv -f LATIN1 -t UTF-8 FILE`)"
