"""The file with the master's process id."""

import os
import subprocess
import sys

import pytest

from aioserve.errors import ConfigError
from aioserve.system.pidfile import PidFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "aioserve.pid"


@pytest.fixture
def dead():
    """The number of a process that has been."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_names_this_process_and_nothing_else_is_there(path):
    PidFile(str(path)).claim()
    assert (path.read_text(), os.listdir(path.parent)) == (f"{os.getpid()}\n", ["aioserve.pid"])


def test_it_is_removed_at_the_end(path):
    file = PidFile(str(path))
    file.claim()
    file.release()
    assert not path.exists()


def test_one_of_a_live_process_is_refused_and_left_alone(path):
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(ConfigError, match=rf"^--pid {path}: process {os.getppid()} is alive .*stop it first"):
        PidFile(str(path)).claim()
    assert path.read_text() == f"{os.getppid()}\n"


@pytest.mark.parametrize("text", ["", "nonsense", "-1", "99999999999999999999", "1\n2"])
def test_one_that_names_no_process_is_taken(path, text):
    path.write_text(text)
    PidFile(str(path)).claim()
    assert path.read_text() == f"{os.getpid()}\n"


def test_one_of_a_dead_process_is_taken(path, dead):
    path.write_text(str(dead))
    PidFile(str(path)).claim()
    assert path.read_text() == f"{os.getpid()}\n"


def test_one_of_ours_is_taken(path):
    # In a container every start may have the same number.
    path.write_text(str(os.getpid()))
    PidFile(str(path)).claim()
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_predecessor_may_still_be_alive(path):
    path.write_text(str(os.getppid()))
    PidFile(str(path)).claim(predecessor=os.getppid())
    assert path.read_text() == f"{os.getpid()}\n"


def test_one_that_is_a_successors_by_now_is_left_to_it(path):
    file = PidFile(str(path))
    file.claim()
    path.write_text("1\n")
    file.release()
    assert path.read_text() == "1\n"


def test_one_that_is_gone_already_is_no_matter(path):
    file = PidFile(str(path))
    file.claim()
    path.unlink()
    file.release()


def test_a_directory_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="it cannot be written: No such file"):
        PidFile(f"{tmp_path}/no/aioserve.pid").claim()


def test_a_change_of_directory_does_not_move_it(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    file = PidFile("aioserve.pid")
    file.claim()
    monkeypatch.chdir("/")
    file.release()
    assert not path.exists()


def test_a_link_that_somebody_has_put_in_the_way_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / f".pid.{os.getpid()}").symlink_to(precious)
    PidFile(str(tmp_path / "pid")).claim()
    assert (precious.read_text(), (tmp_path / "pid").read_text()) == ("precious", f"{os.getpid()}\n")
