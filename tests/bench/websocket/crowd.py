"""Idle WebSockets: each has said something once and heard it back, and is left alone."""

from __future__ import annotations

from functools import partial

from tests.bench.idle import Crowd
from tests.bench.servers import ServerError
from tests.bench.websocket.load import exchange, join
from tests.bench.websocket.wire import TEXT, answer, deflated, request

HELLO = b"Hello, World! This is a message."

#: Enough for a server that leaves short messages as they are.
LONG = b", ".join(b"item %d" % number for number in range(128))


class Sockets(Crowd):
    """A crowd of WebSockets that have said ``message``, ``compressed`` or not, and been given an answer."""

    def __init__(self, port, size, *, message, compressed):
        self._message = message
        self._compressed = compressed
        super().__init__(port, size)

    def _connect(self, port):
        sock, agreed = join(port, deflate=self._compressed)
        if agreed is not self._compressed:
            sock.close()
            raise ServerError("does not compress" if self._compressed else "compresses unasked")
        return sock

    def _ask(self, sock):
        if not self._compressed:
            exchange(sock, request(TEXT, self._message), answer(TEXT, self._message))
            return
        sock.sendall(request(TEXT, deflated(self._message), rsv1=True))
        # Compressed or not: that is up to the server. One short frame, or one of less than 64 KiB.
        head = sock.recv(4)
        size = head[1] if head[1] < 126 else int.from_bytes(head[2:4])
        said = head[2 if head[1] < 126 else 4 :]
        while len(said) < size:
            said += sock.recv(size - len(said))


CROWDS = {
    "plain": ("no compression", partial(Sockets, message=HELLO, compressed=False)),
    "deflate32": ("compression, 32 bytes said", partial(Sockets, message=HELLO, compressed=True)),
    "deflate1k": ("compression, 1 KiB said", partial(Sockets, message=LONG, compressed=True)),
}
