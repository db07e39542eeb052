"""No connection waits for a worker that is busy or gone while another one is idle (--reuseport --steal)."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager

import pytest

from tests.process.clients import Client
from tests.process.servers import Served, wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT spreads connections on Linux alone"),
]

WAYS = ["late", "always"]

#: For how long a worker is blocked (tests/process/apps/burning.py), and what is far from it. The machine may be busy
#: with other tests, so the milliseconds that it takes elsewhere are no limit here.
BLOCKED, SOON = 2.0, 1.0

#: The kernel's hash sends half of them to the worker that is blocked: none of them, with a probability of 2 ** -32.
VISITS = 32


@contextmanager
def served(way, *options, workers=2):
    arguments = ("--workers", str(workers), "--reuseport", "--steal", way, "--no-access-log", *options)
    with Served("burning:app", *arguments) as server:
        yield server


@contextmanager
def blocked(server):
    """One worker stands still meanwhile; its process id."""
    with server.connect() as client:
        pid = int(client.get("/pid").text)
        client.request("/block-long")
        began = time.monotonic()
        yield pid
        assert time.monotonic() - began < BLOCKED, "the machine is too slow for this test"
        assert client.response().status == 200


def visits(server, count=VISITS):
    """Who has answered each of so many new connections, and how long the slowest took."""
    answered, slowest = [], 0.0
    for _ in range(count):
        began = time.monotonic()
        answered.append(int(server.get("/pid").text))
        slowest = max(slowest, time.monotonic() - began)
    return answered, slowest


@pytest.mark.parametrize("way", WAYS)
def test_new_connections_do_not_wait_for_a_worker_that_blocks(way):
    with served(way) as server, blocked(server) as busy:
        answered, slowest = visits(server)
        assert busy not in answered
        assert slowest < SOON


def test_without_stealing_they_do():
    """The test above can fail."""
    with served("off") as server, blocked(server), pytest.raises(TimeoutError):
        for _ in range(VISITS):
            with Client(("127.0.0.1", server.port), timeout=SOON / 2) as client:
                client.get("/pid", close=True)


@pytest.mark.parametrize("way", WAYS)
def test_who_was_late_serves_again(way):
    with served(way) as server:
        with blocked(server) as busy:
            visits(server)
        wait_until(lambda: busy in visits(server, 4)[0], "the worker that was late serves again")


@pytest.mark.parametrize("way", WAYS)
def test_connections_do_not_wait_for_the_successor_of_a_worker_that_has_died(way, tmp_path):
    """It takes its time to start; the one that is left serves what waits in the queue of the dead one."""
    slow = tmp_path / "slow"
    with Served(
        "burning:app", "--workers", "2", "--reuseport", "--steal", way, "--no-access-log", env={"SLOW_START": str(slow)}
    ) as server:
        slow.touch()
        mark = server.mark()
        victim = int(server.get("/pid").text)
        os.kill(victim, signal.SIGKILL)
        answered, slowest = visits(server)
        assert victim not in answered
        assert slowest < SOON
        assert "is ready" not in server.log()[mark:]
        slow.unlink()
        server.wait_for("is ready", since=mark)


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_at_its_limit_of_connections_is_relieved(way):
    with served(way, "--limit-connections", "1") as server, server.connect() as held:
        full = int(held.get("/pid").text)
        answered, slowest = visits(server)
        assert full not in answered
        assert slowest < SOON


@pytest.mark.parametrize("way", WAYS)
def test_workers_that_are_added_are_relieved_and_relieve_others(way):
    with served(way, workers=1) as server:
        [first] = server.workers()
        server.signal(signal.SIGTTIN)
        server.wait_for("worker 1 (pid ")
        [second] = server.workers() - {first}
        for busy in (first, second):
            with server.connect() as client:
                while int(client.get("/pid").text) != busy:
                    client.close()
                    client.__init__(("127.0.0.1", server.port))
                client.request("/block-long")
                answered, slowest = visits(server)
                assert set(answered) == {first, second} - {busy}
                assert slowest < SOON
                client.response()


@pytest.mark.parametrize("way", WAYS)
def test_a_slot_that_has_gone_leaves_no_socket_and_no_spinning_worker(way):
    with served(way) as server:
        mark = server.mark()
        before = {pid: sockets(pid) for pid in server.workers()}
        server.signal(signal.SIGTTOU)
        server.wait_for("worker 1 has gone", since=mark)
        [left] = server.workers()
        # Its own socket, and none of the slot that has gone.
        wait_until(lambda: sockets(left) == before[left] - 1, "the worker closes its copy")
        server.get("/pid")
        spent = cpu(left)
        time.sleep(0.3)  # what is measured is what happens in a while in which nothing does
        assert cpu(left) - spent < 0.15


def sockets(pid):
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:  # the one of the listing itself, or of a connection that has just ended
            continue
    return found


def cpu(pid):
    """Seconds; proc(5), /proc/pid/schedstat."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9
