"""What comes out of image files of every kind, and what is said of those that are none."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from tunesmith.data import image_guard, images
from tunesmith.data.checks import find_all
from tunesmith.data.image_guard import Guard
from tunesmith.data.images import Picture, PictureFault, decode, look_at, open_picture, read_bytes, thumbnail
from tunesmith.data.rows import Row, input_key
from tunesmith.data.sources import Reading, read_source, stop_or_skip, stream_rows
from tunesmith.data.splits import overlap, split_rows
from tunesmith.errors import DataError
from tunesmith.recipe import ImageClassification

COLUMNS = ImageClassification(target="label").columns
RED, GREEN, WHITE = (254, 0, 0), (0, 255, 1), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def two_coloured(mode: str = "RGB") -> Image.Image:
    """The left half red, the right half green."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste((0, 255, 0), (20, 0, 40, 20))
    return image.convert(mode)


def colour_at(image: Image.Image, place: tuple[int, int]) -> tuple[int, ...]:
    assert image.mode == "RGB"
    found = image.getpixel(place)
    assert isinstance(found, tuple)
    return tuple(int(value) for value in found)


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(one, other, strict=True))


# kinds of images


@pytest.mark.parametrize("kind", images.FORMATS)
def test_every_kind_that_is_read(kind: str) -> None:
    image = decode(encoded(two_coloured(), kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {})))
    assert image.size == (40, 20) and near(colour_at(image, (5, 10)), RED) and near(colour_at(image, (35, 10)), GREEN)


@pytest.mark.parametrize("mode", ["P", "CMYK", "L", "1", "LA", "YCbCr", "LAB"])
def test_other_ways_of_writing_colours(mode: str) -> None:
    """Palettes, print colours, greys: the same picture, or its grey."""
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
    image = decode(encoded(two_coloured(mode), kind, **({"quality": 95} if kind == "JPEG" else {})))
    left, right = colour_at(image, (5, 10)), colour_at(image, (35, 10))
    if mode in ("P", "CMYK", "YCbCr"):
        assert near(left, RED) and near(right, GREEN)
    else:
        assert image.mode == "RGB" and image.size == (40, 20)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode: str) -> None:
    """Pillow alone would show the colour that was hidden, which often is black."""
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 20, 20))
    written = image.convert(mode) if mode != "P" else image.quantize(4)
    seen = decode(encoded(written, "PNG"))
    assert near(colour_at(seen, (5, 5)), (0, 0, 0)) and colour_at(seen, (35, 5)) == WHITE


def test_sixteen_bits_become_eight_without_being_cut_off() -> None:
    """Pillow's own conversion makes all of these but the first white."""
    values = np.repeat(np.array([[0, 257, 32_768, 65_535]], dtype=np.uint16), 4, axis=0)
    for kind in ("PNG", "TIFF"):
        seen = decode(encoded(Image.fromarray(values), kind))
        assert [colour_at(seen, (x, 0))[0] for x in range(4)] == [0, 1, 127, 255]


def test_numbers_that_are_no_colours_are_refused() -> None:
    with pytest.raises(PictureFault, match="fractions"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"))
    with pytest.raises(PictureFault, match="beyond 16 bits"):
        decode(encoded(Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)), "TIFF"))


@pytest.mark.parametrize(("turned", "place"), [(3, (35, 10)), (6, (10, 5)), (8, (10, 35)), (2, (35, 10))])
def test_images_stand_as_their_camera_held_them(turned: int, place: tuple[int, int]) -> None:
    """EXIF's orientation is followed: the half that was written left comes to where it was seen."""
    exif = Image.Exif()
    exif[0x0112] = turned
    seen = decode(encoded(two_coloured(), "JPEG", quality=95, exif=exif))
    assert near(colour_at(seen, place), RED)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, GREEN, WHITE)]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    seen = decode(encoded(frames[0], kind, **options, **({"lossless": True} if kind == "WEBP" else {})))
    assert near(colour_at(seen, (10, 10)), RED)


# what is none


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of any size, in 60 bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN: dict[str, tuple[bytes, str]] = {
    "cut off in the middle": (encoded(Image.effect_noise((200, 200), 50), "JPEG")[:-2_000], "broken"),
    "a PNG without its pixels": (png_header(40, 20), "broken"),
    "a text": (b"hello, this is a text", "no image of a kind"),
    "empty": (b"", "no image of a kind"),
    "a PostScript file, which would start a program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "no image",
    ),
    "a bomb of 65,000 by 65,000 pixels": (png_header(65_000, 65_000), "89,478,485 pixels"),
    "a bomb a little over the limit": (png_header(9_500, 9_500), "89,478,485 pixels"),
    "a bomb under Pillow's second limit": (png_header(12_000, 12_000), "89,478,485 pixels"),
    "a strip": (encoded(Image.new("RGB", (2_000, 4)), "PNG"), "a strip"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_image_is_named(name: str) -> None:
    content, said = BROKEN[name]
    with pytest.raises(PictureFault, match=said):
        decode(content)


def test_any_damage_is_a_fault_or_an_image(tmp_path: Path) -> None:
    """Single bytes changed anywhere in a file: never another kind of error."""
    source = np.random.default_rng(0)
    faults = 0
    for kind in images.FORMATS:
        content = encoded(two_coloured(), kind)
        for _ in range(60):
            torn = bytearray(content)
            for place in source.integers(0, len(torn), 3):
                torn[place] = int(source.integers(0, 256))
            try:
                assert decode(bytes(torn)).mode == "RGB"
            except PictureFault:
                faults += 1
    assert 20 < faults < 340


def test_places_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, said in ((tmp_path / "gone.png", "not there"), (tmp_path, "a folder"), (tmp_path / "pipe", "regular")):
        with pytest.raises(PictureFault, match=said):
            read_bytes(str(place))
    with pytest.raises(PictureFault, match="NUL"):
        read_bytes("a\0b.png")
    (tmp_path / "large.png").write_bytes(b"12345")
    monkeypatch.setattr(images, "LARGEST_BYTES", 4)
    with pytest.raises(PictureFault, match="larger than"):
        read_bytes(str(tmp_path / "large.png"))


def test_an_image_that_is_gone_later_is_a_fault_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: is not there .*; it was an image when the rows were read"):
        open_picture(str(tmp_path / "gone.png"))


def test_a_thumbnail_is_small() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8))
    assert thumbnail(noise).startswith("data:image/jpeg;base64,") and len(thumbnail(noise)) < 12_000


# the child that looks first


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "good.png"
    path.write_bytes(encoded(two_coloured(), "PNG"))
    return str(path)


def test_a_guard_tells_digests_and_faults(picture: str, tmp_path: Path) -> None:
    guard = Guard()
    try:
        (tmp_path / "bad\n.png").write_bytes(b"bad")
        assert guard.look(picture) == (hashlib.sha256(Path(picture).read_bytes()).hexdigest(), "")
        assert guard.look(picture)[0] == look_at(picture)
        digest, fault = guard.look(str(tmp_path / "bad\n.png"))
        assert not digest and "no image of a kind" in fault
        child = guard._child
        assert child is not None and guard.look(picture)[0] and guard._child is child, "one child for all of them"
    finally:
        guard.close()
    assert guard._child is None


CHILD = """
import os, signal, sys, time
for line in sys.stdin:
    if "bad" in bytes.fromhex(line.strip()).decode():
        {what}
    print('{{"digest": "d"}}', flush=True)
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", f"died by signal {int(signal.SIGSEGV)}"),
        ("time.sleep(60)", "takes more than 1 seconds"),
        ("sys.exit(7)", "ended with code 7"),
    ],
)
def test_a_decoder_that_dies_or_hangs_is_a_fault_of_one_image(
    monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    monkeypatch.setattr(image_guard, "COMMAND", (sys.executable, "-c", CHILD.format(what=what)))
    guard = Guard(seconds=1.0 if "sleep" in what else 30.0)
    try:
        assert guard.look("good") == ("d", "")
        digest, fault = guard.look("bad")
        assert not digest and said in fault and "made to harm" in fault
        assert guard.look("good") == ("d", ""), "the next image has another child"
    finally:
        guard.close()


def test_the_child_limits_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an image may take is bounded whatever its header says."""
    code = (
        "import tunesmith.data.image_guard as g, tunesmith.data.images as i\n"
        "g.look_at = lambda path: bytearray(4 * 10**9) and 'd'\n"
        "g.main()"
    )
    monkeypatch.setattr(image_guard, "COMMAND", (sys.executable, "-c", code))
    guard = Guard()
    try:
        assert "more than 3 GB of memory" in guard.look("any")[1]
    finally:
        guard.close()


# rows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    tiny.make_pictures(tmp_path / "photos", 12)
    return tmp_path / "photos"


def read(source: Path | str, **named: str) -> Reading:
    return read_source(str(source), COLUMNS, named)


def test_a_folder_of_classes_is_rows(photos: Path) -> None:
    """Each image is a row, in the order of names, its folder its class; hidden files are no data, others are named."""
    (photos / ".DS_Store").write_bytes(b"x")
    (photos / "card" / ".thumb.png").write_bytes(b"x")
    (photos / "README.txt").write_text("about")
    reading = read(photos)
    assert not reading.faults and [row["label"] for row in reading.rows] == sorted(tiny.LABELS * 4)
    first = reading.rows[0]
    assert first["image"] == Picture(str(photos / "card" / "000.png"), look_at(str(photos / "card" / "000.png")))
    assert first.where == str(photos / "card" / "000.png")
    assert len(reading.notes) == 1 and "1 file is no image" in reading.notes[0] and "README.txt" in reading.notes[0]


def test_folders_in_folders_are_places_in_a_taxonomy(tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path / "pets" / "small", 3)
    assert [row["label"] for row in read(tmp_path / "pets").rows] == [f"small/{label}" for label in tiny.LABELS]


def test_the_same_folder_has_the_same_hashes_until_an_image_changes(photos: Path) -> None:
    hashes = [read(photos).hashes]
    assert read(photos).hashes == hashes[0] and len(hashes[0]) == 1
    (photos / "card" / "000.png").write_bytes((photos / "cash" / "001.png").read_bytes())
    hashes.append(read(photos).hashes)
    (photos / "card" / "000.png").rename(photos / "cash" / "000.png")
    hashes.append(read(photos).hashes)
    assert len({found for [found] in hashes}) == 3, "another image, and then another class for it"


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_file_names_images_beside_it(photos: Path, ending: str) -> None:
    """Paths are seen from the file, wherever the process stands; the images count in the file's hash."""
    rows = [("photos/card/000.png", "card"), (str(photos / "cash" / "001.png"), "cash")]
    file = photos.parent / f"rows.{ending}"
    if ending == "csv":
        file.write_text("image,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    else:
        tiny.write_rows(file, [{"image": path, "label": label} for path, label in rows])
    reading = read(file)
    assert [row["image"].path for row in reading.rows] == [str(photos / "card/000.png"), str(photos / "cash/001.png")]
    assert len(reading.hashes) == 2 and not reading.faults


def test_bad_images_are_named_with_their_places(photos: Path) -> None:
    """All of them in one go, exit 3; or left out and counted."""
    (photos / "card" / "000.png").write_bytes(b"no image")
    (photos / "alone.png").write_bytes(encoded(two_coloured(), "PNG"))
    reading = read(photos)
    told = [str(fault) for fault in reading.faults]
    assert len(reading.rows) == 11 and len(told) == 2
    assert told[0].startswith(f"{photos / 'alone.png'}: label is missing")
    assert told[1].startswith(f"{photos / 'card' / '000.png'}: image 'card/000.png' is no image of a kind that we read")
    with pytest.raises(DataError) as caught:
        stop_or_skip(reading, "stop")
    assert caught.value.exit_code == 3 and len(caught.value.faults) == 3
    stop_or_skip(reading, "skip")


BAD_CELLS = {5: "not text", "": "is empty", "gone.png": "is not there", "a\ud800.png": "half a character"}


@pytest.mark.parametrize("cell", BAD_CELLS)
def test_bad_cells_are_named_with_line_and_column(tmp_path: Path, cell: Any) -> None:
    import json

    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": cell, "label": "a"}) + "\n")
    [fault] = read(tmp_path / "rows.jsonl").faults
    said = "surrogate" if cell == "a\ud800.png" else BAD_CELLS[cell]
    assert fault.where.startswith(f"{tmp_path / 'rows.jsonl'}:1") and (
        BAD_CELLS[cell] in str(fault) or said in str(fault)
    )


def test_a_task_for_texts_says_what_a_folder_of_images_holds(photos: Path) -> None:
    from tunesmith.recipe import TextClassification

    with pytest.raises(DataError, match=r"no column 'text'; there are: image, label"):
        read_source(str(photos), TextClassification(target="label").columns, {})


def test_a_folder_without_images_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder, not a file of rows"):
        read(tmp_path)


def test_answers_need_no_classes(photos: Path) -> None:
    """A flat folder of images can be answered."""
    inputs = [column for column in COLUMNS if column.is_input]
    rows = list(stream_rows(photos / "card", inputs, {}))
    assert len(rows) == 4 and all(isinstance(row, Row) for row in rows)


def test_copies_go_by_bytes(photos: Path) -> None:
    """The same file under two names is one input: never on both sides of a split, and found in train and test."""
    copy = photos / "transfer" / "copy.png"
    copy.write_bytes((photos / "card" / "000.png").read_bytes())
    rows = read(photos).rows
    keys = [input_key(row, COLUMNS) for row in rows]
    assert len(set(keys)) == len(rows) - 1
    for share in (0.2, 0.5, 0.8):
        kept, held = split_rows(rows, share, COLUMNS, None)
        assert not overlap(held, kept, COLUMNS)
    [train], test = [row for row in rows if row["image"].path == str(copy)], rows
    assert overlap([train], test, COLUMNS) == [0]
    found = {finding.code: finding for finding in find_all({"train": rows, "test": [train]}, COLUMNS)}
    assert found["conflicting-label"].count == 3 and "byte for byte" in found["test-in-train"].message
    assert not found.keys() & {"near-duplicate", "label-in-text", "empty-text", "personal-data", "secrets"}
