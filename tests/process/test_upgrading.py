"""USR2: a new master, with new code, on the very same sockets."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.clients import Client, Load
from tests.process.servers import Served, wait_until
from tests.process.test_reloading import Service

#: The master does the same on every Python.
pytestmark = pytest.mark.once

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "late": ("--workers", "2", "--reuseport"),
    "always": ("--workers", "2", "--reuseport", "--steal", "always"),
    "shared": ("--workers", "2"),
    "threads": ("--workers", "2", "--accept", "threads", "--threads", "2"),
}


@pytest.fixture(params=MODES)
def served(request):
    with Served("plain:app", *MODES[request.param], "--no-access-log") as server, leaving_nobody(server):
        yield server


@contextmanager
def leaving_nobody(server):
    """At the end, whoever is left of the server is asked to go: the new master, when the old one has gone."""
    yield
    for pid in server.members():
        if pid != server.pid and is_master(pid):
            os.kill(pid, signal.SIGQUIT)
    if server.process.poll() is None:
        server.signal(signal.SIGQUIT)
    wait_until(lambda: not server.members(), "both masters have gone")


def is_master(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text() != ""
    except OSError:
        return False


def upgrade(server):
    """The process id of the new master, which serves beside the old one."""
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    line = server.wait_for("serves. WINCH", since=mark)
    return int(line.partition("the new master, pid ")[2].partition(",")[0])


def drain(server, heir):
    server.signal(signal.SIGWINCH)
    wait_until(lambda: server.workers() == {heir}, "the old workers have gone")


def test_new_master_takes_over_under_load_and_no_request_fails(served):
    with Load(served) as load:
        load.progress()
        heir = upgrade(served)
        load.progress()
        drain(served, heir)
        load.progress()
        served.signal(signal.SIGQUIT)
        assert served.process.wait(20) == 0
        served.wait_for("the old master has gone")
        load.progress()
        mark = served.mark()
        os.kill(heir, signal.SIGHUP)  # it is a master like any other now
        served.wait_for("reload to generation 2 finished: 2 replaced", since=mark)
        load.progress()

    assert load.failures == []
    assert load.answered > 100


def test_old_master_takes_its_workers_back_under_load_and_no_request_fails(served):
    with Load(served) as load:
        load.progress()
        heir = upgrade(served)
        drain(served, heir)
        load.progress()
        served.signal(signal.SIGHUP)
        wait_until(lambda: len(served.workers()) == 3, "the old master's workers and the new master")
        load.progress()
        served.wait_for("worker 0 (pid ")
        served.wait_for("worker 1 (pid ")
        os.kill(heir, signal.SIGTERM)
        served.wait_for("the new master has gone: exited with status 0")
        load.progress()

    assert load.failures == []
    assert len(served.workers()) == 2


def test_old_master_takes_its_workers_back_when_the_new_one_is_killed(served):
    heir = upgrade(served)
    drain(served, heir)
    os.kill(heir, signal.SIGKILL)

    served.wait_for("nobody else serves: this master takes its workers back")
    served.wait_for("worker 1 (pid ")
    served.wait_for("worker 0 (pid ")
    own = {str(pid) for pid in served.workers()}
    wait_until(lambda: served.get("/pid").text in own, "the old master's workers answer")


def test_new_master_that_cannot_boot_leaves_the_old_one_serving(tmp_path):
    service = Service(tmp_path)
    with service.serve("--workers", "2", "--reuseport") as server:
        workers = server.workers()
        service.break_it()
        server.signal(signal.SIGUSR2)
        line = server.wait_for("the upgrade failed, this master serves on")
        assert "exited with status 3" in line
        assert "syntax error" in server.log()
        assert (server.get("/").text, server.workers()) == ("one", workers)


def test_new_master_has_the_new_code_and_the_pid_file(tmp_path):
    service = Service(tmp_path)
    file = tmp_path / "server.pid"
    with service.serve("--pid", str(file)) as server, leaving_nobody(server):
        service.answer("two")
        heir = upgrade(server)
        assert (file.read_text(), (tmp_path / "server.pid.oldbin").read_text()) == (f"{heir}\n", f"{server.pid}\n")
        server.signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert server.get("/").text == "two"
        assert [path.name for path in tmp_path.glob("*.pid*")] == ["server.pid"]


def test_old_master_has_its_pid_file_back_when_the_upgrade_fails(tmp_path):
    service = Service(tmp_path)
    file = tmp_path / "server.pid"
    with service.serve("--pid", str(file)) as server:
        service.break_it()
        server.signal(signal.SIGUSR2)
        server.wait_for("the upgrade failed")
        wait_until(lambda: file.exists() and file.read_text() == f"{server.pid}\n", "the pid file is the old master's")
        assert not (tmp_path / "server.pid.oldbin").exists()


def test_unix_socket_stays_when_the_old_master_leaves_and_goes_with_the_new_one(tmp_path):
    path = str(tmp_path / "s")
    with Served("plain:app", "--uds", path) as server, leaving_nobody(server):
        heir = upgrade(server)
        server.signal(signal.SIGQUIT)
        assert server.process.wait(20) == 0
        server.wait_for("the old master has gone")
        with Client(path) as client:
            assert client.get("/").status == 200
        os.kill(heir, signal.SIGTERM)
        wait_until(lambda: not server.members(), "the new master has gone")
        assert not Path(path).exists()


def test_new_master_refuses_to_be_upgraded_while_the_old_one_is_there():
    with Served("plain:app") as server, leaving_nobody(server):
        heir = upgrade(server)
        os.kill(heir, signal.SIGUSR2)
        server.wait_for("no upgrade, the old master is still there")
