"""What a hostile file would do if it were opened as its makers hope: leave a file behind."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any


class Canary:
    """A file that exists once anything hostile has run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "CANARY"

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")

    @property
    def pickle(self) -> bytes:
        return pickle.dumps(self, protocol=2)

    @property
    def module(self) -> str:
        return f"open({str(self.path)!r}, 'w').close()\n"

    @property
    def sang(self) -> bool:
        return self.path.exists()


def change_json(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; the value None is set too."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))
