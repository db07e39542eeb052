"""Connections that do nothing: one whose time is up as a request comes, and ten thousand."""

from __future__ import annotations

import resource
import select
import signal
import socket
import time
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.process.servers import Served, freeze, memory

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = 10_000

#: Descriptors that a test run and a server need for themselves.
OWN = 1_000

#: Longer than it takes to open them all on a busy machine; seconds.
KEEP_ALIVE = 8

#: What an idle connection may cost, in bytes of the workers' memory.
COST_LIMIT = 4096

REQUEST = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
BATCH = 500


@pytest.fixture
def count() -> Iterator[int]:
    """How many connections the limit on open files allows; both sides of them are on this machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    try:
        yield WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard - OWN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.once
def test_ten_thousand_idle_connections_cost_little_and_are_closed_in_time(count):
    if count < WANTED:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(f"the limit on open files allows {count} connections, not {WANTED}", stacklevel=1)
    options = ("--workers", "2", "--reuseport", "--timeout-keep-alive", str(KEEP_ALIVE), "--no-access-log")
    with Served("plain:app", *options) as server, ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        for _ in range(2):
            open_idle(address, BATCH, stack)  # what is needed once is there now
        before = sum(map(memory, server.workers()))

        idle = []
        while len(idle) < count - 2 * BATCH:
            idle += open_idle(address, BATCH, stack)
        last = time.monotonic()
        grown = sum(map(memory, server.workers())) - before

        assert server.get("/").text == "Hello, World!"
        print(f"{grown / len(idle):.0f} bytes for each of {len(idle)} idle connections")
        assert grown / len(idle) < COST_LIMIT

        assert [sock for sock in idle if sock.recv(1) != b""] == []
        assert 0.75 * KEEP_ALIVE < time.monotonic() - last < 2 * KEEP_ALIVE
        assert server.get("/").text == "Hello, World!"


def open_idle(address: tuple[str, int], count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that have been used once."""
    opened = [stack.enter_context(socket.create_connection(address, 60)) for _ in range(count)]
    for sock in opened:
        sock.sendall(REQUEST)
    for sock in opened:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    return opened


@pytest.mark.once
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_request_that_comes_as_the_idle_time_ends_is_served(loop):
    with Served("plain:app", "--loop", loop, "--timeout-keep-alive", "1") as server:
        [worker] = server.workers()
        with server.connect() as client:
            assert client.get("/").text == "Hello, World!"
            freeze(worker)
            client.request("/")
            # The time passes while the request lies unread in the worker's socket.
            assert select.select([client.sock], [], [], 2) == ([], [], [])
            server.signal(signal.SIGCONT, worker)

            assert client.response().text == "Hello, World!"
            assert client.get("/").text == "Hello, World!"
            assert client.rest() == b""
