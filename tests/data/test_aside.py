"""Work in a forked child: the same answer as here, whatever becomes of the child."""

import os
import subprocess
import sys
import time

import pytest

from tunesmith.data import aside
from tunesmith.data.aside import Aside


@pytest.fixture
def forking(monkeypatch):
    """As in a process of its own, where torch is not yet imported. (What these children do needs no lock.)"""
    monkeypatch.setattr(aside, "_may_fork", lambda: True)


def test_the_work_is_done_in_a_child_and_its_answer_comes_back(forking):
    with Aside(lambda: {"pid": os.getpid(), "rows": {"train": list(range(300_000))}}) as work:
        answer = work.result()
    assert answer["pid"] != os.getpid()
    assert answer["rows"]["train"] == list(range(300_000))


@pytest.mark.parametrize("end", [lambda: os._exit(7), lambda: os.kill(os.getpid(), 9), lambda: 1 / 0])
def test_a_child_that_fails_or_dies_loses_nothing(forking, end):
    mine = os.getpid()
    with Aside(lambda: "done here" if os.getpid() == mine else end()) as work:
        assert work.result() == "done here"


def test_an_error_of_the_work_is_told_in_this_process(forking):
    with pytest.raises(ZeroDivisionError), Aside(lambda: 1 // 0) as work:
        work.result()


def test_no_child_is_left_where_the_answer_is_not_fetched(forking):
    with Aside(lambda: time.sleep(600)) as work:
        child = work._child.number
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_beside_torch_no_child_is_forked():
    code = "import torch, os; from tunesmith.data.aside import Aside; print(Aside(os.getpid).result() == os.getpid())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_check_reads_the_rows_before_torch_is_imported():
    """Else nothing would be gained by a child: `Aside` works here as soon as torch is there."""
    code = "import sys, tunesmith.cli, tunesmith.checking, tunesmith.recipe.placing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
