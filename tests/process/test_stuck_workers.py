"""Workers whose event loop does not turn: given up, replaced, and nobody else is harmed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.process.servers import Served, wait_until

#: The master does the same on every Python.
pytestmark = pytest.mark.once

#: Seconds. A machine that is busy with other tests must not make a healthy worker late.
LIMIT = 2.0


@pytest.fixture
def served():
    with Served("blocking:app", "--workers", "2", "--timeout-worker", str(LIMIT), "--no-access-log") as server:
        yield server


@pytest.mark.parametrize(("path", "where"), [("/at-once", "sleep_at_once"), ("/later", "deep_down"), ("/in-c", "in_c")])
def test_a_worker_that_is_blocked_is_given_up_and_its_successor_serves(served, path, where):
    before = served.workers()
    with served.connect() as client:
        client.request(path)
        stuck = served.wait_for("is stuck: its event loop has not turned for")
        served.wait_for("killed by SIGABRT, by aioserve, because it was stuck")
        assert client.rest() == b""

    [victim] = [pid for pid in before if f"(pid {pid})" in stuck]
    served.wait_for(" is ready", since=served.log().index("is stuck"))
    assert served.workers() & before == before - {victim}
    assert len(served.workers()) == 2
    # A stranger can tell what has blocked.
    assert f"in {where}" in served.log()
    assert "blocking.py" in served.log()


def test_a_worker_that_is_stopped_is_replaced(served):
    victim = min(served.workers())
    served.signal(signal.SIGSTOP, victim)
    served.wait_for(f"(pid {victim}) killed by SIGKILL, by aioserve, because it was stuck")
    served.wait_for(" is ready", since=served.log().index("is stuck"))
    assert len(served.workers()) == 2


def test_a_server_that_was_suspended_as_a_whole_kills_nobody(served):
    before = served.workers()
    os.kill(served.pid, signal.SIGSTOP)
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    thawed = time.monotonic() + 1.25 * LIMIT
    wait_until(lambda: time.monotonic() > thawed, "the time that a suspension takes")
    os.kill(served.pid, signal.SIGCONT)  # the master first: it sees all of them late
    for pid in before:
        os.kill(pid, signal.SIGCONT)

    looked = time.monotonic() + LIMIT / 2
    wait_until(lambda: time.monotonic() > looked, "the master has looked again")
    assert "is stuck" not in served.log()
    assert served.workers() == before


def test_a_worker_that_drains_and_is_blocked_does_not_keep_the_server(served):
    with served.connect() as client:
        client.request("/at-once")
        served.signal(signal.SIGTERM)
        assert served.wait() == 1
    assert "is stuck" in served.log()
