"""The pid file while there are two masters."""

import os

import pytest

from aioserve.master.events import Exited, HeirStarted, Tick
from aioserve.master.namesake import Namesake
from aioserve.system.pidfile import PidFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "aioserve.pid"


@pytest.fixture
def observer(path):
    file = PidFile(str(path))
    file.claim()
    return Namesake(file)


def test_the_file_is_taken_back_from_a_new_master_that_has_ended(path, observer):
    observer.saw(HeirStarted(4711), [], 0.0)
    path.unlink()
    observer.saw(Exited(4711, 3, "exited with status 3"), [], 0.0)
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_end_of_a_worker_changes_nothing(path, observer):
    path.write_text("4711\n")
    observer.saw(Exited(12, 0, "exited with status 0"), [], 0.0)
    observer.saw(Tick(), [], 0.0)
    observer.tick(0.0)
    assert (path.read_text(), observer.wake_at) == ("4711\n", None)


def test_a_file_that_somebody_else_has_by_then_is_left_alone(path, observer, caplog):
    observer.saw(HeirStarted(4711), [], 0.0)
    path.write_text(f"{os.getppid()}\n")
    observer.saw(Exited(4711, 3, "exited with status 3"), [], 0.0)
    assert (path.read_text(), "is alive and has this file" in caplog.text) == (f"{os.getppid()}\n", True)
