"""The least that can be done for a WebSocket in Python: ``python -m tests.bench.websocket.floor PORT``."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from tests.bench.servers import HOST
from tests.bench.websocket.wire import accept_for, echo_of


class Floor(asyncio.Protocol):
    """Takes each read for one whole message; the first of a size is turned into its echo, which is then repeated."""

    def __init__(self):
        self.write = None
        self.answers = {}
        self.open = False

    def connection_made(self, transport):
        self.write = transport.write

    def data_received(self, data):
        if answer := self.answers.get(len(data)):
            self.write(answer)
        elif self.open:
            self.answers[len(data)] = answer = echo_of(data)
            self.write(answer)
        else:
            self.open = True
            self.write(accept_for(data))


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Floor, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
