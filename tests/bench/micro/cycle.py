"""worker/connection and worker/cycle: a request from ``data_received`` to ``transport.write``, without a socket."""

from __future__ import annotations

import asyncio

from aioserve.accept.base import Listener
from aioserve.config.load import from_settings
from aioserve.worker.connection import Connection
from aioserve.worker.mount import Mount
from aioserve.worker.server import Server
from aioserve.worker.settings import Settings
from tests.bench.app import app
from tests.bench.micro.requests import BROWSER, HELLO, POST
from tests.fakes import FakeTransport

SETTINGS = Settings.of(from_settings())

try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop


class Bottomless(FakeTransport):
    """Takes everything and keeps nothing, so that it costs the same after a million responses."""

    responses = 0

    def write(self, data):
        self.responses += 1


def connect(connection):
    transport = Bottomless()
    transport.protocol = connection
    connection.connection_made(transport)
    return transport


def serving(request):
    """One connection that asks again and again."""

    async def serve(number):
        connection = Connection(server(), LISTENER)
        transport = connect(connection)
        receive = connection.data_received
        for _ in range(number):
            receive(request)
            while connection.cycle is not None:
                # Before Python 3.12 the application starts in the loop's next turn.
                await asyncio.sleep(0)
        assert transport.responses == number
        transport.close()

    return in_loop(serve)


def connecting(request):
    """A connection for each request."""

    async def serve(number):
        shared = server()
        for _ in range(number):
            connection = Connection(shared, LISTENER)
            transport = connect(connection)
            connection.data_received(request)
            while connection.cycle is not None:
                await asyncio.sleep(0)
            transport.close()
        assert shared.connections_total == shared.requests_total == number

    return in_loop(serve)


def server():
    mount = Mount("", app, "", "bench:app")
    return Server(SETTINGS, enter=lambda scope: mount, access=None)


def in_loop(serve):
    def run(number):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(number))

    return run


LISTENER = Listener(sock=None, address="http://127.0.0.1:8000", server=("127.0.0.1", 8000))

CASES = {
    "hello": serving(HELLO),
    "browser": serving(BROWSER),
    "post_10k": serving(POST),
    "new_connection": connecting(HELLO),
}
