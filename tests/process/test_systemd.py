"""Under a service manager: sockets that it has opened, and what it is told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from tests.process.clients import Client
from tests.process.servers import APPS, PATIENCE, REPO, Served, wait_until
from tests.process.test_reloading import Service
from tests.process.test_upgrading import leaving_nobody, upgrade

#: What a service manager is told depends on no Python.
pytestmark = pytest.mark.once

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "reuseport": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
    "single": ("--accept", "single"),
}


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


# Activation. A process cannot know its own number before it is there, so a shell puts it into LISTEN_PID and becomes
# the server, as the service manager's own child does.
_BECOME = 'export LISTEN_PID=$$; exec "$0" -m aioserve "$@"'


class Activated(Served):
    """A server that finds ``socks`` at descriptors 3, 4 ..."""

    def __init__(self, *arguments, socks, names="", env=None):
        environ = {"LISTEN_FDS": str(len(socks)), "LISTEN_FDNAMES": names, **(env or {})}
        super().__init__(*arguments, env=environ, pass_fds=[sock.fileno() for sock in socks])
        self.arguments = self.arguments[:-2] if self.arguments[-2:] == ["--port", "0"] else self.arguments
        self._socks = socks

    def command(self):
        # First up and out of the way of one another, then down to their places.
        moves = [f"exec {50 + number}<&{sock.fileno()}" for number, sock in enumerate(self._socks)]
        moves += [f"exec {3 + number}<&{50 + number} {50 + number}<&-" for number in range(len(self._socks))]
        return ["bash", "-c", "; ".join([*moves, _BECOME]), sys.executable, *self.arguments]


def hello(address):
    with Client(address) as client:
        return client.get("/", close=True).text


@contextmanager
def opened(path):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen(16)
        yield [tcp, unix]


def test_every_socket_that_was_passed_is_served_when_no_address_is_given(tmp_path, mode):
    path = tmp_path / "s"
    with opened(path) as socks:
        with Activated("plain:app", *mode, socks=socks, names="web:local") as server:
            assert server.urls == [f"http://127.0.0.1:{socks[0].getsockname()[1]}", f"unix:{path}"]
            assert [hello(socks[0].getsockname()), hello(str(path))] == ["Hello, World!"] * 2
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        # The file is the service manager's, and so is the queue of the next start.
        assert path.exists()


def test_a_socket_is_found_by_its_name_and_one_that_nobody_names_is_told(tmp_path, mode):
    with (
        opened(tmp_path / "s") as socks,
        Activated("plain:app", *mode, "--bind", "fd://web", socks=socks, names="web:admin") as server,
    ):
        assert server.urls == [f"http://127.0.0.1:{socks[0].getsockname()[1]}"]
        assert hello(socks[0].getsockname()) == "Hello, World!"
        server.wait_for("fd://4 (admin) was passed in and no address names it")


def test_a_name_that_is_not_there_is_refused_with_4(tmp_path):
    with opened(tmp_path / "s") as socks:
        server = Activated("plain:app", "--bind", "fd://web", socks=socks, names="api:admin")
        server._wait_ready = False
        with server:
            assert server.wait() == 4
        assert "fd://web: no socket of this name was passed in (the names are admin, api)" in server.log()


def test_applications_do_not_find_what_was_meant_for_the_server(tmp_path):
    with (
        opened(tmp_path / "s") as socks,
        told(tmp_path) as manager,
        Activated("plain:app", socks=socks, env=manager.environ) as server,
    ):
        names = set(server.get("/environ").text.split("\n"))
        assert not {"LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"} & names


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None,
    reason="systemd-socket-activate is not installed (Debian: package systemd)",
)


@needs_systemd
@pytest.mark.parametrize("accept", [[], ["--reuseport"]], ids=["shared", "reuseport"])
def test_systemd_socket_activate_starts_the_server_with_the_first_connection(tmp_path, accept):
    path = tmp_path / "s"
    activate = subprocess.Popen(
        [
            "systemd-socket-activate",
            "--listen",
            str(path),
            "--fdname=web",
            f"--setenv=PYTHONPATH={REPO}",
            sys.executable,
            "-m",
            "aioserve",
            "plain:app",
            "--workers",
            "2",
            *accept,
        ],
        cwd=APPS,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(path.exists, "the socket of systemd-socket-activate")
        # It listens a moment after it has bound.
        assert wait_until(lambda: answer(path), "an answer") == "Hello, World!"
    finally:
        activate.send_signal(signal.SIGTERM)
        assert activate.wait(PATIENCE) == 0


def answer(path):
    try:
        return hello(str(path))
    except ConnectionRefusedError:
        return None


# Notification.


class Manager:
    """A real NOTIFY_SOCKET."""

    def __init__(self, address):
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address.replace("@", "\0", 1))
        self._sock.settimeout(PATIENCE)
        self.environ = {"NOTIFY_SOCKET": address}

    def close(self):
        self._sock.close()

    def wait_for(self, assignment):
        """The assignments of the next message that holds this one."""
        while True:
            lines = self._sock.recv(65536).decode().split("\n")
            if assignment in lines:
                return dict(line.split("=", 1) for line in lines)

    def heard(self):
        """Every assignment that has come and was not waited for."""
        heard = []
        # Not MSG_DONTWAIT: Python waits first, for as long as the timeout says.
        self._sock.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                heard += self._sock.recv(65536).decode().split("\n")
        self._sock.settimeout(PATIENCE)
        return heard


@contextmanager
def told(tmp_path, abstract=False):
    manager = Manager(f"@aioserve-test-{os.getpid()}-{tmp_path.name}" if abstract else f"{tmp_path}/notify")
    try:
        yield manager
    finally:
        manager.close()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_whole_life_is_told(tmp_path, abstract):
    with told(tmp_path, abstract) as manager, Served("plain:app", "--workers", "2", env=manager.environ) as server:
        assert manager.wait_for("STATUS=starting")["EXTEND_TIMEOUT_USEC"] == "15000000"
        ready = manager.wait_for("READY=1")
        assert (ready["STATUS"], ready["MAINPID"]) == ("serving: 2 workers", str(server.pid))

        before = time.monotonic_ns() // 1000
        server.signal(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING=1")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.wait_for("READY=1")["STATUS"] == "serving, generation 2"

        server.signal(signal.SIGTERM)
        assert manager.wait_for("STOPPING=1")["STATUS"] == "stopping"
        assert server.wait() == 0


def test_ready_is_said_when_requests_are_answered_and_not_before(tmp_path):
    with told(tmp_path) as manager, Served("plain:app", "--accept", "single", env=manager.environ) as server:
        manager.wait_for("READY=1")
        assert server.get().text == "Hello, World!"


def test_one_process_says_that_it_stops_and_asks_for_time(tmp_path):
    with told(tmp_path) as manager, Served("plain:app", "--accept", "single", env=manager.environ) as server:
        manager.wait_for("READY=1")
        server.signal(signal.SIGTERM)
        assert manager.wait_for("STOPPING=1")["STATUS"] == "stopping"
        manager.wait_for("EXTEND_TIMEOUT_USEC=15000000")
        assert server.wait() == 0


@pytest.mark.parametrize("accept", ["shared", "single"])
def test_the_watchdog_is_fed(tmp_path, accept):
    with told(tmp_path) as manager:
        environ = {**manager.environ, "WATCHDOG_USEC": "2000000"}
        with Served("plain:app", "--accept", accept, env=environ):
            manager.wait_for("READY=1")
            for _ in range(2):
                manager.wait_for("WATCHDOG=1")


def test_an_application_that_cannot_start_is_the_last_status(tmp_path):
    with told(tmp_path) as manager, Served("nowhere:app", env=manager.environ, ready=False) as server:
        assert server.wait() == 3
        manager.wait_for("STOPPING=1")


# Both, across an upgrade.


@pytest.mark.parametrize("accept", [[], ["--reuseport"]], ids=["shared", "reuseport"])
def test_a_new_master_has_the_sockets_and_the_ear_of_the_service_manager(tmp_path, accept):
    path = tmp_path / "s"
    with (
        opened(path) as socks,
        told(tmp_path) as manager,
        Activated("plain:app", *accept, socks=socks, env={**manager.environ, "WATCHDOG_USEC": "2000000"}) as server,
        leaving_nobody(server),
    ):
        assert manager.wait_for("READY=1")["MAINPID"] == str(server.pid)
        heir = upgrade(server)
        assert manager.wait_for("READY=1")["MAINPID"] == str(heir)

        server.signal(signal.SIGQUIT)
        assert server.process.wait(PATIENCE) == 0
        # It would have ended the service, and the new master with it.
        assert "STOPPING=1" not in manager.heard()
        manager.wait_for("WATCHDOG=1")
        assert [hello(socks[0].getsockname()), hello(str(path))] == ["Hello, World!"] * 2


def test_the_old_master_is_the_main_process_again_when_the_new_one_ends(tmp_path):
    with told(tmp_path) as manager, Served("plain:app", env=manager.environ) as server, leaving_nobody(server):
        manager.wait_for("READY=1")
        heir = upgrade(server)
        assert manager.wait_for("READY=1")["MAINPID"] == str(heir)
        os.kill(heir, signal.SIGTERM)
        assert manager.wait_for("STATUS=serving; the new master has gone")["MAINPID"] == str(server.pid)
        assert server.get().text == "Hello, World!"


def test_a_new_master_that_cannot_start_does_not_end_the_service(tmp_path):
    service = Service(tmp_path)
    with told(tmp_path) as manager, service.serve(env=manager.environ) as server:
        manager.wait_for("READY=1")
        service.break_it()
        server.signal(signal.SIGUSR2)
        server.wait_for("the upgrade failed, this master serves on")
        assert "STOPPING=1" not in manager.heard()
        assert server.get().text == "one"
