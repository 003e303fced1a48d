"""Folders of images as rows: a folder for each class (`hat/1.jpg`), classes in classes as paths (`pet/cat/1.jpg`)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tunesmith.data.readers import RawRow, RowFile

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def holds_images(folder: Path) -> bool:
    """Whether a folder, or one in it, holds an image by its name."""
    return any(_is_image(path) for path in _files_in(folder))


def folder_rows(file: RowFile) -> Iterator[RawRow]:
    """A row for each image, its path and its class: the way from the folder to it. One beside the classes has none.

    Other files are left out, and said.
    """
    others: list[Path] = []
    for path in _files_in(file.path):
        if _is_image(path):
            way = path.relative_to(file.path)
            label = {"label": way.parent.as_posix()} if len(way.parts) > 1 else {}
            yield RawRow(0, {"image": way.as_posix(), **label})
        else:
            others.append(path)
    if others:
        many = "1 file is" if len(others) == 1 else f"{len(others):,} files are"
        named = others[0].relative_to(file.path)
        file.notes.append(f"{file.path}: {many} no image by the name and left out (the first: {named})")


def folder_state(folder: Path) -> str:
    """SHA-256 of the paths in a folder, of sizes and times of change: what tells it from another without reading it."""
    digest = hashlib.sha256()
    for path in _files_in(folder):
        about = path.stat()
        state = f"{path.relative_to(folder).as_posix()}\0{about.st_size}\0{about.st_mtime_ns}\n"
        digest.update(state.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def _files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder and of all folders in it, each by the order of names; hidden ones are no data. Links to
    folders are not followed: one may lead back."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
