"""What the log says of a worker that stands still, is stopped at once, or dies of a fault."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from aioserve.observe.faults import ASKED_SAFELY
from tests.process.servers import Served, wait_until

pytestmark = pytest.mark.slow

LOOPS = ["uvloop", "asyncio"]


def worker_of(server: Served) -> int:
    (pid,) = server.workers()
    return pid


def waiting(server: Served, path: str) -> object:
    """A client whose request has reached its application."""
    client = server.connect()
    client.request(path)
    return client


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("path", "function"), [("/at-once", "sleep_at_once"), ("/later", "deep_down")])
def test_log_of_a_blocked_loop_tells_the_line_and_who_waits(loop, path, function):
    with Served("blocking:app", "--loop", loop, "--no-access-log") as server:
        worker = worker_of(server)
        with waiting(server, "/wait"), waiting(server, path):
            ask_until(server, "RUNNING at", worker)
            server.wait_for(f", in {function}", since=server.log().index("2 requests in flight"))
            log = server.log()
            server.signal(signal.SIGKILL, worker)

    assert re.search(rf"GET '{path}' of 127\.0\.0\.1:\d+, \d+\.\d s old, 0 bytes sent, RUNNING at .*blocking\.py", log)
    assert re.search(r"GET '/wait' of 127\.0\.0\.1:\d+, .*, at .*blocking\.py:\d+ wait\(\), there in .* sleep\(\)", log)
    assert "    time.sleep(60)" in log
    # From C: in case Python code cannot run.
    assert bool(re.search(rf'File ".*blocking\.py", line \d+ in {function}', log)) == ASKED_SAFELY


def ask_until(server: Served, text: str, *workers: int) -> None:
    """Send USR2 until an answer has ``text``: only then has the request come that it is about."""

    def told() -> bool:
        for worker in workers:
            server.signal(signal.SIGUSR2, worker)
        return text in server.log()

    wait_until(told, f"{text!r} in the log")


@pytest.mark.skipif(not ASKED_SAFELY, reason="until Python 3.12.8 and 3.13.1 to ask for stacks from C may be deadly")
def test_stacks_come_from_c_when_no_python_code_can_run():
    with Served("blocking:app", "--no-access-log") as server:
        worker = worker_of(server)
        with waiting(server, "/in-c"):
            ask_until(server, "in in_c", worker)
            assert "RUNNING" not in server.log()
            server.signal(signal.SIGKILL, worker)


@pytest.mark.parametrize("loop", LOOPS)
def test_loop_that_stood_still_for_a_while_is_explained(loop):
    with Served("blocking:app", "--accept", "single", "--loop", loop, "--no-access-log") as server:
        assert server.get("/short").text == "done"
        line = server.wait_for("the event loop stood still for ")
        server.wait_for("    time.sleep(2.5)")
    assert re.search(r"for at least [12]\.\d s in blocking:app: GET '/short', at .*blocking\.py:\d+ short\(\)$", line)


def test_quick_stop_says_what_was_in_flight_in_each_worker():
    with Served("blocking:app", "--workers", "2", "--no-access-log") as server, waiting(server, "/wait"):
        ask_until(server, "1 request in flight", *server.workers())
        mark = server.mark()
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0
    told = sorted(re.findall(r"WARNING +SIGQUIT: (.*)", server.log()[mark:]))
    assert told == ["0 requests in flight", "1 request in flight"]


def open_files(pid):
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(entry))
    return found


def test_fault_leaves_the_stack_in_the_log_file(tmp_path):
    log = tmp_path / "log"
    with Served("blocking:app", "--log-file", str(log), "--no-access-log", ready=False) as server:
        wait_until(lambda: log.exists() and " ready: " in log.read_text(), "the server is ready")
        # Moved away and opened again: what faulthandler writes to must follow.
        log.rename(tmp_path / "old")
        server.signal(signal.SIGUSR1)
        [worker] = server.workers()
        wait_until(lambda: str(log) in open_files(worker), "the worker has opened the file again")
        port = re.search(r"listening on \S+:(\d+)", (tmp_path / "old").read_text())
        assert port is not None
        with server.connect(port=int(port[1])) as client:
            client.request("/crash")
            client.rest()
        wait_until(lambda: "in crash" in log.read_text() + (tmp_path / "old").read_text(), "the stack")
        assert "Fatal Python error: Segmentation fault" in log.read_text()
