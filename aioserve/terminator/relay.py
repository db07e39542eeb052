"""A client's connection behind its TLS handshake: bytes to a worker and back, and nothing of what they mean.

``Relay`` is what speaks on the client's transport, ``_Upstream`` the protocol of the connection to a worker, which
begins with the introduction of the client. Each pauses the other's reading while it cannot write, so that what is kept
here is bounded: a client that reads slowly is soon seen by the worker, whose time limits count.

    connecting --a worker's queue took it--> relaying --one side ends--> half --the other ends, too--> gone
            --no worker takes it in time--> closed

An end is passed on as what it is. A client's close_notify is a half-close to the worker, which may still have something
to say; a worker's half-close is a close_notify. When a worker closes, what it has written still leaves, for as long as
the client takes it. When one side is lost, the other is cut.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, cast, final

from aioserve.terminator.introducing import introduce
from aioserve.worker.unsent import half_close, has_progressed, reset, unsent_bytes
from aioserve.worker.waits import LINGER_SECONDS

if TYPE_CHECKING:
    from aioserve.accept.base import Listener
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.peer import Peer
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: What is read from a worker in one go, in bytes, and goes through OpenSSL in one go. The worker has to see that a
#: client takes less than that, so that it may not be much more.
PIECE: Final = 64 * 1024

#: How long a client waits for a place in the workers' queue, and how often that is tried. Seconds. A full queue of
#: 2,048 is emptied in less than a tenth of a second by workers that are well.
CONNECT_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.01

#: What passes: a full queue has room again in no time, and descriptors come back.
_PASSES: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: Seconds between two lines about workers that take nothing.
SAID_SECONDS: Final = 10.0


@final
class Relays:
    """What the relays of a process share. ``workers`` is the name under which workers listen.

    ``patience`` is how long a client waits for one, in seconds.
    """

    def __init__(self, server: Server, workers: bytes, *, patience: float = CONNECT_SECONDS) -> None:
        self.server: Final = server
        self.patience: Final = patience
        self.workers: Final = workers
        #: Everything that workers send, one piece at a time: it is encrypted, or copied, before the next one comes.
        self.buffer: Final = memoryview(bytearray(PIECE))
        #: Open, and of these those whose worker has not taken them yet.
        self.open = 0
        self.waiting = 0
        #: Connections that no worker took in time.
        self.turned_away = 0
        self._said = -SAID_SECONDS
        # Those that no worker has taken yet, first come, first served.
        self._queue: Final[deque[Relay]] = deque()
        self._pending: Final[set[asyncio.Task[object]]] = set()

    def follow(self, transport: asyncio.Transport, listener: Listener, peer: Peer) -> None:  # noqa: ARG002  # as Handshakes calls it
        """What comes behind a handshake."""
        relay = Relay(self)
        transport.set_protocol(relay)
        relay.take_over(transport, peer)

    def enter(self, relay: Relay) -> None:
        """Find a worker for it, behind those that wait already."""
        self.waiting += 1
        self._queue.append(relay)
        if len(self._queue) == 1:
            self._serve_queue()

    def _serve_queue(self) -> None:
        queue = self._queue
        while queue and queue[0].connect():
            queue.popleft()
        if queue:
            # One try for all: thousands may wait.
            self.server.loop.call_later(AGAIN_SECONDS, self._serve_queue)

    def turn_away(self, error: OSError) -> None:
        self.turned_away += 1
        now = self.server.loop.time()
        if now >= self._said + SAID_SECONDS:
            self._said = now
            passes = error.errno in _PASSES
            log.log(
                logging.ERROR if passes else logging.INFO,  # when all end at once, workers may be the first
                "no worker has taken a connection%s, and it is closed (%d so far): %s",
                f" within {self.patience:g} s" if passes else "",
                self.turned_away,
                "their queue is full" if error.errno == errno.EAGAIN else error.strerror,
            )

    def attach(self, sock: socket.socket, upstream: _Upstream) -> None:
        """Give the connection to the loop."""
        task = self.server.loop.create_task(self._attach(sock, upstream))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _attach(self, sock: socket.socket, upstream: _Upstream) -> None:
        try:
            # Not create_unix_connection: uvloop closes a connection that is aborted in ``connection_made`` twice there,
            # and the second time its descriptor may be another's.
            await self.server.loop.connect_accepted_socket(lambda: upstream, sock)
        except OSError as error:
            sock.close()
            upstream.connection_lost(error)


@final
class Relay(asyncio.Protocol):
    """Speaks on a client's transport. ``take_over`` begins it."""

    __slots__ = (
        "_client", "_due", "_early", "_early_eof", "_ended", "_header", "_relays", "_since", "_unsent", "_upstream",
        "bucket",
    )  # fmt: skip

    def __init__(self, relays: Relays) -> None:
        self.bucket: set[Timed] | None = None
        self._relays: Relays = relays
        self._client: asyncio.Transport | None = None
        self._upstream: asyncio.Transport | None = None
        self._header: bytes = b""
        # What the client has sent before there was a worker's transport.
        self._early: list[bytes] = []
        self._early_eof: bool = False
        self._since: float = 0.0
        # The worker sends no more. What the client had not taken of it at the last look, and until when it has to.
        self._ended: bool = False
        self._unsent: int = 0
        self._due: float = 0.0

    # What Secure calls.

    def take_over(self, transport: asyncio.Transport, peer: Peer) -> None:
        """The handshake is complete: find a worker."""
        relays = self._relays
        server = relays.server
        self._client = transport
        self._since = server.loop.time()
        relays.open += 1
        # It is filed only to be found by whoever ends everything.
        server.deadlines.file(self, server.deadlines.now + server.longest_wait)
        try:
            self._header = introduce(transport, peer)
        except ValueError as error:
            log.info("%s - closed: what there is to say of it is too much: %s", peer, error)
            transport.abort()
            return
        relays.enter(self)

    def data_received(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.write(data)
        elif self._client is not None:
            # No more than one read, because reading pauses until somebody takes it.
            self._early.append(data)
            self._client.pause_reading()

    def eof_received(self) -> bool:
        if self._upstream is None:
            self._early_eof = True
        elif not self._ended:
            half_close(self._upstream)
        return not self._ended

    def pause_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None and not self._ended:
            self._upstream.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        relays = self._relays
        self._client = None
        relays.server.deadlines.forget(self)
        relays.open -= 1
        if self._header:
            self._header = b""
            relays.waiting -= 1
        if self._upstream is not None:
            self._upstream.abort()
        relays.server.connection_closed()

    @property
    def waits(self) -> bool:
        """No worker has it yet."""
        return bool(self._header)

    # What the server calls.

    def look(self, now: float) -> None:
        """Nothing is due while a worker is there, which has all the limits. Afterwards the client has to read."""
        server = self._relays.server
        client = self._client
        if client is None or not self._ended:
            server.deadlines.file(self, now + server.longest_wait)
            return
        unsent = unsent_bytes(client)
        if unsent and has_progressed(self._unsent, unsent):
            self._unsent = unsent
            self._due = now + server.settings.write_timeout
        if unsent and now < self._due:
            server.deadlines.file(self, now + LINGER_SECONDS)
        elif unsent:
            reset(client)
        else:
            client.abort()

    def abort(self) -> None:
        if self._client is not None:
            self._client.abort()

    # The way to a worker.

    def connect(self) -> bool:
        """Give it to a worker, or up; False: not now."""
        if self._client is None:
            return True
        relays = self._relays
        try:
            sock = _connected(relays.workers, self._header)
        except OSError as error:
            if error.errno in _PASSES and relays.server.loop.time() < self._since + relays.patience:
                return False
            relays.turn_away(error)
            self.abort()
            return True
        self._header = b""
        relays.waiting -= 1
        relays.attach(sock, _Upstream(self))
        return True

    def attached(self, upstream: asyncio.Transport) -> None:
        """There is a worker's transport: pass on what came before."""
        client = self._client
        if client is None:
            upstream.abort()
            return
        self._upstream = upstream
        if self._early:
            upstream.writelines(self._early)
            self._early.clear()
            client.resume_reading()
        if self._early_eof:
            half_close(upstream)

    # What the worker's side calls.

    @property
    def buffer(self) -> memoryview:
        return self._relays.buffer

    def worker_sent(self, size: int) -> None:
        if self._client is not None:
            self._client.write(self._relays.buffer[:size])

    def worker_ended(self) -> bool:
        """The worker sends no more; whether it may still read what the client sends."""
        client, upstream = self._client, self._upstream
        if client is None or upstream is None:
            return False
        self._ended = True
        self._unsent = unsent_bytes(client)
        server = self._relays.server
        self._due = server.deadlines.now + server.settings.write_timeout
        server.deadlines.file(self, server.deadlines.now + LINGER_SECONDS)
        if _has_hung_up(upstream) or not client.can_write_eof():
            client.close()
            return False
        half_close(client)
        return True

    def worker_lost(self, exc: Exception | None) -> None:
        self._upstream = None
        client = self._client
        if client is None:
            return
        if exc is not None and not self._ended:
            reset(client)
        else:
            client.close()

    def worker_is_full(self) -> None:
        if self._client is not None:
            self._client.pause_reading()

    def worker_takes(self) -> None:
        if self._client is not None:
            self._client.resume_reading()


@final
class _Upstream(asyncio.BufferedProtocol):
    """The connection to a worker."""

    __slots__ = ("_relay",)

    def __init__(self, relay: Relay) -> None:
        self._relay: Relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._relay.attached(cast("asyncio.Transport", transport))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        return self._relay.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._relay.worker_sent(nbytes)

    def eof_received(self) -> bool:
        return self._relay.worker_ended()

    def pause_writing(self) -> None:
        self._relay.worker_is_full()

    def resume_writing(self) -> None:
        self._relay.worker_takes()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.worker_lost(exc)


def _connected(workers: bytes, header: bytes) -> socket.socket:
    """A connection to a worker that has been introduced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(workers)
        # The kernel takes 200 KiB on a fresh connection, and a header has 64 at most.
        sock.sendall(header)
    except OSError:
        sock.close()
        raise
    return sock


def _has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other end is closed, and not only half: unix(7) sockets tell (POLLHUP of poll(2))."""
    poll = select.poll()
    try:
        poll.register(transport.get_extra_info("socket").fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))
    except (OSError, ValueError):  # closed here, too
        return True
