"""Connections that stay are spread over the workers that accept from one socket."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from tests.process.clients import Client
from tests.process.servers import Served, wait_until

WORKERS, HELD = 4, 64


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_workers_that_share_a_socket_have_about_as_many_connections_each(loop):
    with Served("burning:app", "--workers", str(WORKERS), "--loop", loop, "--no-access-log") as server:

        def spread():
            with ExitStack() as stack:
                clients = [stack.enter_context(Client(("127.0.0.1", server.port))) for _ in range(HELD)]
                found = Counter(client.get("/pid").text for client in clients)
            return found if len(found) == WORKERS and min(found.values()) >= HELD // WORKERS // 2 else None

        # Workers see twice a second who else is there, and a busy machine may keep one of them from running.
        wait_until(spread, "connections spread over all workers")


def test_a_connection_does_not_wait_for_workers_that_are_blocked_and_have_fewer():
    with Served("burning:app", "--workers", "2", "--no-access-log") as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(HELD)]
        by_worker = {}
        for client in clients:
            by_worker.setdefault(client.get("/pid").text, []).append(client)
        few, many = sorted(by_worker, key=lambda pid: len(by_worker[pid]))
        # The one with fewer connections stands still; the other one, which would leave new ones to it, takes them.
        for client in by_worker[few][1:]:
            client.close()
        by_worker[few][0].request("/block-long")
        server.wait_for(f"{few} blocks")  # or it might accept one more first
        assert {server.get("/pid").text for _ in range(16)} == {many}
        assert by_worker[few][0].response().status == 200
