"""The ways in which files come to be in a run folder: whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dying import Operations, in_a_child
from tunesmith import folder as folders
from tunesmith.errors import CheckpointError, RecipeError, ResourceError
from tunesmith.folder import RunFolder

OLD, NEW = b'{"old": 1}\n', b'{"new": [1, 2, 3]}\n'


def count(act: Callable[[], object]) -> list[str]:
    operations = Operations()
    with operations.watched():
        act()
    return operations.names


@pytest.mark.parametrize("before", [None, OLD])
def test_a_file_whose_writing_dies_at_any_operation_is_the_old_or_the_new(before: bytes | None, tmp_path: Path) -> None:
    names = count(lambda: folders.write_bytes(tmp_path / "whole.json", NEW))
    assert {"open", "write", "fsync", "replace"} <= set(names) and names.index("fsync") < names.index("replace")
    for fatal in range(1, len(names) + 1):
        file = tmp_path / f"{fatal}.json"
        if before is not None:
            file.write_bytes(before)
        operations = Operations(fatal, fail=lambda: os._exit(137))

        def die(file: Path = file, operations: Operations = operations) -> None:
            with operations.watched():
                folders.write_bytes(file, NEW)

        assert in_a_child(die) == 137
        assert (file.read_bytes() if file.exists() else None) in (before, NEW), names[fatal - 1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(number: int, tmp_path: Path) -> None:
    names = count(lambda: folders.write_bytes(tmp_path / "whole.json", NEW))

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for fatal in range(1, names.index("replace") + 2):
        file = tmp_path / f"{fatal}.json"
        file.write_bytes(OLD)
        with Operations(fatal, fail).watched(), pytest.raises(ResourceError) as caught:
            folders.write_bytes(file, NEW)
        assert str(file) in str(caught.value) and f"{len(NEW)} bytes needed" in str(caught.value)
        assert file.read_bytes() == OLD
        assert not list(tmp_path.glob(".staging-*"))


def test_other_errors_of_the_disk_are_not_called_full(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"), folders.disk_errors_named(tmp_path / "x", 1):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(ValueError, match="no space"), folders.disk_errors_named(tmp_path / "x", 1):
        raise ValueError("no space for this thought")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_where_nobody_may_write_is_named(number: int, tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for act in (lambda: folders.write_bytes(tmp_path / "a", NEW), lambda: folders.append(tmp_path / "a", {"b": 1})):
        with Operations(1, fail).watched(), pytest.raises(RecipeError) as caught:
            act()
        (fault,) = caught.value.faults
        assert fault.where == str(tmp_path / "a") and os.strerror(number) in fault.message and fault.remedy


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(OLD)
    place = tmp_path / "notes.txt" / "run"
    for act in (
        lambda: folders.write_bytes(place, NEW),
        lambda: folders.append(place, {}),
        lambda: folders.claim(place, "this").__enter__(),
        lambda: folders.claim(place.parent, "this").__enter__(),
    ):
        with pytest.raises(RecipeError, match=r"notes\.txt.*cannot be written"):
            act()
    with pytest.raises(CheckpointError, match="cannot be read"):
        folders.read_json(place)
    assert (tmp_path / "notes.txt").read_bytes() == OLD


def test_a_fault_of_the_work_is_not_one_of_the_claimed_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), folders.claim(tmp_path, "this"):
        raise PermissionError(errno.EACCES, "of something else")


def test_permission_is_asked_of_the_nearest_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.require_permission(tmp_path / "a" / "b")
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(RecipeError, match="Permission denied"):
        folders.require_permission(tmp_path / "a" / "b")


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    for step in range(5):
        folders.append(file, {"step": step})
    whole = file.read_bytes()
    last = len(whole.splitlines(True)[-1])
    for cut in range(len(whole) - last, len(whole)):
        file.write_bytes(whole[:cut])
        assert [row["step"] for row in folders.lines(file)] == [0, 1, 2, 3]
        folders.append(file, {"step": 9})
        assert [row["step"] for row in folders.lines(file)] == [0, 1, 2, 3, 9], "the next line starts on its own"
    file.write_bytes(whole)
    assert len(folders.lines(file)) == 5
    file.write_bytes(b'{"to')
    folders.append(file, {"step": 0})
    assert folders.lines(file) == [{"step": 0}]
    assert folders.lines(tmp_path / "none.jsonl") == []


def test_a_folder_in_place_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name, content in (("model", OLD), (".staging-model", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(content)
    (tmp_path / "model" / "gone").write_bytes(OLD)
    folders.put_in_place(tmp_path / ".staging-model", tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == {"a": NEW}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_json_that_is_damaged_or_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        folders.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_bytes(b'{"a": ')
    with pytest.raises(CheckpointError, match=r"half\.json: not valid JSON"):
        folders.read_json(tmp_path / "half.json")


def test_a_run_folder_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claim():
        code = in_a_child(lambda: _claim(tmp_path / "run"))
    assert code == 3
    with folder.claim():
        pass  # given back


def _claim(path: Path) -> None:
    try:
        with RunFolder(path).claim():
            pass
    except CheckpointError as error:
        os._exit(error.exit_code)


def test_numbers_that_json_has_not_are_null() -> None:
    assert folders.to_json({"a": float("nan"), "b": 1.5}) == b'{\n  "a": null,\n  "b": 1.5\n}\n'
