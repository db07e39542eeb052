from __future__ import annotations

import asyncio
import re
import sys

from aioserve.worker.stacks import LISTED, Stacks
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
