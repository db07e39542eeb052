"""``--accept threads``: a worker with several loops, each in a thread of its own."""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import subprocess
from contextlib import ExitStack

import pytest

from tests.process.clients import Load
from tests.process.servers import Served, wait_until

pytestmark = pytest.mark.slow


def serve(*options, threads=2, app="threaded:app", **how):
    return Served(app, "--accept", "threads", "--threads", str(threads), "--no-access-log", *options, **how)


def loops_of(clients):
    """How many of the connections each loop has."""
    for client in clients:
        client.request("/")
    return collections.Counter(client.response().text.partition("|")[0] for client in clients)


def on_two_loops(server, stack):
    """Two clients whose connections different loops have."""
    clients = {}

    def found():
        client = stack.enter_context(server.connect())
        clients.setdefault(client.get("/").text, client)
        return len(clients) == 2

    wait_until(found, "each loop has a connection")
    return clients.values()


def test_connections_that_stay_are_spread_evenly():
    with serve(threads=4) as server:

        def spread():
            with ExitStack() as stack:
                return loops_of([stack.enter_context(server.connect()) for _ in range(64)])

        # A loop that waits for a processor for some milliseconds is passed over; whenever none has to, there are 16
        # on each.
        wait_until(lambda: set(spread().values()) == {16}, "16 connections on each loop")


def test_every_loop_has_its_own_lifespan_and_state():
    with serve(threads=3) as server:
        answers = set()
        wait_until(lambda: answers.add(server.get("/").text) or len(answers) == 3, "every loop has answered")
        assert answers == {f"loop {number} of 3|loop {number} of 3" for number in (1, 2, 3)}
        assert len(server.workers()) == 1
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.log().count("threaded:app: startup complete") == 3
        assert server.log().count("threaded:app: shutdown complete") == 3


@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_a_factory_makes_an_application_for_every_loop(options):
    with serve("--factory", *options, app="threaded:create_app") as server, server.connect() as client:
        assert client.get("/").status == 200
        assert server.log().count("threaded:create_app: startup complete") == 2


def test_a_lifespan_that_fails_in_one_loop_ends_the_start_and_the_others_are_shut_down():
    with serve(threads=3, env={"LAST_FAILS": "3"}, ready=False) as server:
        assert server.wait() == 3
        assert "startup failed: one too many" in server.log()
        assert server.log().count("startup complete") == server.log().count("shutdown complete") == 2


def test_nobody_waits_behind_a_loop_that_is_blocked():
    with serve() as server, ExitStack() as stack:
        blocker, neighbour = on_two_loops(server, stack)
        blocker.request("/block")
        blocked = server.wait_for("blocks: ").partition("blocks: ")[2]
        for _ in range(20):
            assert not server.get("/").text.startswith(blocked)
        assert neighbour.get("/release").text == "let go"
        assert blocker.response().text == "released"
        wait_until(lambda: server.get("/").text.startswith(blocked), "both loops get connections again")


def test_a_loop_that_dies_is_a_reason_for_a_successor_and_its_siblings_serve_on():
    with serve(tracebacks=1) as server, ExitStack() as stack:
        sibling, victim = on_two_loops(server, stack)
        before = server.workers()
        assert sibling.get("/").status == 200
        victim.request("/die")
        victim.rest()
        server.wait_for("has died, and its connections with it")
        assert sibling.get("/").status == 200
        server.wait_for(" is ready and takes over from ")
        wait_until(lambda: not server.workers() & before, "the worker has gone")
        assert server.get("/").status == 200


@pytest.mark.once
def test_a_loop_that_stands_still_is_a_reason_for_a_successor_before_the_worker_is_killed():
    with serve("--timeout-worker", "4s") as server, ExitStack() as stack:
        waiting, blocker = on_two_loops(server, stack)
        waiting.request("/wait")
        blocker.request("/block")
        server.wait_for("has stood still for")
        server.wait_for(" is ready and takes over from ")
        [successor] = {pid for pid in server.workers() if f"worker (pid {pid}) is ready" in server.log()}
        # The line comes before the old one is told, and until then it accepts, too.
        wait_until(lambda: server.get("/pid").text == str(successor), "the successor alone serves")
        server.wait_for("killed by SIGABRT, by aioserve, because it was stuck")
        assert server.workers() == {successor}


def test_limit_on_connections_is_that_of_all_loops_together():
    with serve("--limit-connections", "4") as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        assert loops_of(clients).total() == 4
        server.wait_for("4 connections are open, the limit: accepting pauses until one of them closes")
        fifth = stack.enter_context(server.connect())
        fifth.request("/")
        clients[0].close()
        assert fifth.response().status == 200


@pytest.mark.once
def test_limit_on_requests_is_that_of_all_loops_together():
    with serve("--limit-concurrency", "3") as server, ExitStack() as stack:
        one, other = on_two_loops(server, stack)
        third = stack.enter_context(server.connect())
        for client in (one, other, third):
            client.request("/wait")
        wait_until(lambda: server.get("/").status == 503, "the limit is reached")
        server.wait_for("requests were answered with 503")
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0


def test_report_speaks_of_all_loops():
    with serve() as server, ExitStack() as stack:
        waiting, blocker = on_two_loops(server, stack)
        waiting.request("/wait")
        blocker.request("/block")
        [worker] = server.workers()

        def told():
            server.signal(signal.SIGUSR2, worker)
            return "2 requests in flight" in server.log() and "RUNNING at" in server.log()

        wait_until(told, "the report")
        log = server.log()
        server.signal(signal.SIGKILL, worker)
    assert re.search(r"GET '/block' of .*, RUNNING at .*threaded\.py:\d+ block\(\)", log)
    assert re.search(r"GET '/wait' of .*, at .*threaded\.py:\d+ wait\(\)", log)
    assert re.search(r"thread loop \d of 2 \(most recent call last\):", log)


def test_reloads_under_load_lose_no_request():
    with serve("--workers", "2") as server:
        with Load(server) as load:
            for number in range(2, 5):
                load.progress()
                server.signal(signal.SIGHUP)
                server.wait_for(f"reload to generation {number} finished: 2 replaced")
            load.progress()
        assert load.failures == []


@pytest.mark.once
def test_worker_that_is_killed_takes_only_its_own_connections_along():
    with serve("--workers", "2") as server:
        victim = min(server.workers())
        with Load(server) as load:
            load.progress()
            server.signal(signal.SIGKILL, victim)
            died = server.wait_for("killed by SIGKILL")
            server.wait_for(" is ready", since=server.log().index(died))
            load.progress()
        assert {failure.server for failure in load.failures} <= {str(victim), None}


class FreeThreaded(Served):
    """Run by an interpreter that has no global lock."""

    def __init__(self, python, *arguments, **how):
        super().__init__(*arguments, **how)
        self._python = python

    def command(self):
        return [self._python, *super().command()[1:]]


@pytest.fixture(scope="module")
def free_threaded():
    """AIOSERVE_TEST_FREE_THREADED names the interpreter, or it is on the path."""
    named = os.environ.get("AIOSERVE_TEST_FREE_THREADED")
    python = named or shutil.which("python3.14t") or shutil.which("python3.13t")
    if python is None:
        pytest.skip("needs a free-threaded Python: python3.14t or python3.13t, or AIOSERVE_TEST_FREE_THREADED")
    check = "import sys, uvloop, httptools, h11, click; sys.exit(sys._is_gil_enabled())"
    found = subprocess.run([python, "-c", check], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"{python} has the lock on, or lacks a package of uvloop, httptools, h11, click: {found.stderr}")
    return python


def test_free_threaded_python_serves_without_the_lock_and_loses_no_request(free_threaded, tmp_path):
    options = ("--accept", "threads", "--threads", "2", "--access-log-format", "json", "--access-log-file")
    with FreeThreaded(free_threaded, "threaded:app", *options, tmp_path / "access.log") as server:
        assert server.get("/gil").text == "False"
        with Load(server, target="/busy") as load:
            load.progress()
            server.signal(signal.SIGHUP)
            server.wait_for("reload to generation 2 finished: 1 replaced")
            for worker in server.workers():
                server.signal(signal.SIGUSR2, worker)
            server.wait_for("SIGUSR2: ")
            load.progress()
        assert load.failures == []
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "share one core" not in server.log()
    assert '"path":"/busy"' in (tmp_path / "access.log").read_text()


def test_a_lock_that_is_on_is_said(free_threaded):
    options = ("--accept", "threads", "--threads", "2")
    with FreeThreaded(free_threaded, "threaded:app", *options, env={"PYTHON_GIL": "1"}) as server:
        assert server.get("/gil").text == "True"
        server.wait_for("2 loops share one core, because the global interpreter lock is on (PYTHON_GIL")
