from __future__ import annotations

import asyncio
import re
import sys
import threading

from aioserve.worker.stacks import LISTED, Stacks, steady
from tests.loop.worker.conftest import Client, settle

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


async def waiting(scope, receive, send):
    await asyncio.Event().wait()


async def test_a_report_before_there_is_a_server_names_the_tasks():
    stacks = Stacks(asyncio.get_running_loop())
    task = asyncio.create_task(waiting({}, None, None), name="starting")
    await settle()
    report = stacks.report("X", None)
    task.cancel()
    assert report.startswith("X: 0 requests in flight\nother tasks:\n")
    assert re.search(r"  starting, at .*test_stacks\.py:\d+ waiting\(\), there in .*locks\.py:\d+ wait\(\)", report)


async def test_the_oldest_requests_come_first_and_the_list_has_an_end(connect):
    first = connect(waiting)
    stacks = Stacks(asyncio.get_running_loop())
    stacks.server = first.server
    clients = [first, *(Client(first.server, first.listener) for _ in range(LISTED))]
    for number, client in enumerate(clients):
        client.send(GET % number)
    await settle()
    lines = stacks.report("X", None).splitlines()
    assert lines[0] == f"X: {LISTED + 1} requests in flight"
    assert "GET '/0' of 192.0.2.7:50000, " in lines[1]
    assert f"GET '/{LISTED - 1}'" in lines[LISTED]
    assert lines[LISTED + 1] == "  and 1 younger ones"


async def test_a_request_that_runs_is_shown_with_its_line(connect):
    reports = []

    async def app(scope, receive, send):
        reports.append(stacks.report("X", sys._getframe()))

    client = connect(app)
    stacks = Stacks(asyncio.get_running_loop())
    stacks.server = client.server
    client.send(GET % 1)
    await settle()
    assert re.search(r"GET '/1' of .*, RUNNING at .*test_stacks\.py:\d+ app\(\)", reports[0])
    assert "thread MainThread (most recent call last):" in reports[0]


def test_a_report_speaks_of_the_other_loops_too():
    found = []
    standing, go_on = threading.Barrier(3), threading.Event()

    async def standing_still():
        found.append(Stacks(asyncio.get_running_loop()))
        waiting = asyncio.create_task(asyncio.Event().wait(), name=f"waiting in {threading.current_thread().name}")
        await asyncio.sleep(0)
        standing.wait(10)
        go_on.wait(10)
        waiting.cancel()

    async def report():
        stacks = Stacks(asyncio.get_running_loop())
        stacks.others = found
        return stacks.report("X", None)

    threads = [threading.Thread(target=lambda: asyncio.run(standing_still()), name=name) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    standing.wait(10)
    text = asyncio.run(report())
    go_on.set()
    for thread in threads:
        thread.join()
    assert text.startswith("X: 0 requests in flight")
    assert "thread one (most recent call last):" in text
    assert "thread two (most recent call last):" in text


def test_what_changes_under_ones_eyes_is_looked_at_again():
    looks = iter([RuntimeError, RuntimeError, None])

    def look():
        if error := next(looks, RuntimeError):
            raise error
        return [1, 2]

    assert steady(look) == [1, 2]
    assert steady(look) == []
