from __future__ import annotations

import asyncio

import pytest

from aioserve.accept.base import Listener
from aioserve.http.reader import Limits
from aioserve.worker.connection import Connection
from aioserve.worker.loops import new_loop
from aioserve.worker.mount import Mount
from aioserve.worker.server import Server
from aioserve.worker.settings import Settings
from tests.fakes import FakeTransport


class Recorder:
    """An access log that keeps the cycles."""

    def __init__(self):
        self.cycles = []
        self.sessions = []

    def record(self, cycle):
        self.cycles.append(cycle)

    def record_session(self, session):
        self.sessions.append(session)


class Client:
    """A connection whose transport is a fake: what the peer sends goes in, what the server writes comes out."""

    def __init__(self, server, listener, **transport):
        self.server = server
        self.protocol = Connection(server, listener)
        self.transport = FakeTransport(**transport)
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    def send(self, data):
        self.transport.protocol.data_received(data)

    async def ask(self, data):
        """Send, let the application run, and return what was written."""
        self.send(data)
        await settle()
        return self.transport.take()

    def wait(self, seconds):
        """Let time pass for the server's deadlines, tick by tick."""
        deadlines = self.server.deadlines
        until = deadlines.now + seconds
        while deadlines.now < until:
            deadlines.advance(deadlines.now + deadlines.resolution)

    @property
    def state(self):
        return self.transport.state


async def settle():
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def read_body(receive):
    """What an application is asked with; None if the client leaves before the end of it."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request):
    """Run a coroutine in a loop of either kind."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=lambda: new_loop(request.param)) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture
async def connect():
    """Call it with an application and settings; the answer opens clients of one server."""

    def open_server(app, transport=None, limits=None, **settings):
        settings = {
            "parser": "httptools", "limit_concurrency": 0, "limit_connections": 0, "header_timeout": 10.0,
            "body_timeout": 30.0, "write_timeout": 30.0, "keep_alive_timeout": 75.0, "graceful_shutdown": 30.0,
            "drain_linger": 1.0, "date_header": False, "server_header": False, "extra_headers": (),
            "proxy_headers": True, "trusted": ("127.0.0.1",), "limits": Limits(**(limits or {})), **settings,
        }  # fmt: skip

        mount = Mount("", app, "", "tests:app", body_limit=(limits or {}).get("request_body", 0))

        def enter(scope):
            scope["state"] = {}
            return mount

        server = Server(Settings(**settings), enter=enter, access=Recorder())
        listener = Listener(sock=None, address="http://192.0.2.1:80", server=("192.0.2.1", 80))
        client = Client(server, listener, **(transport or {}))
        client.listener = listener
        return client

    return open_server
