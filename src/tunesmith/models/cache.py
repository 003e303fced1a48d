"""Weights that were put into another form once, kept by name. Whatever is here can be made anew."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tunesmith.folder import STAGING, disk_errors_named, flush_file


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/tunesmith`, or `~/.cache/tunesmith`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"


def kept(name: str, write: Callable[[Path], None], num_bytes: int) -> Path:
    """The model folder of this name, written if it is not there. It appears whole or not at all.

    Args:
        write: fills an empty folder; `config.json` is among its files.
        num_bytes: about how much it writes, for the message of a full disk.

    Raises:
        ResourceError: no room in the cache.
    """
    final = cache_folder() / "models" / name
    if (final / "config.json").is_file():
        return final
    with disk_errors_named(final, num_bytes):
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=STAGING, dir=final.parent))
        try:
            write(staged)
            for file in staged.iterdir():
                flush_file(file)
            if not (final / "config.json").is_file():  # another process may have been quicker, with the same bytes
                os.replace(staged, final)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return final
