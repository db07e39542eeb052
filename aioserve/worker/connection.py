"""One client connection: the asyncio protocol between transport, reader and cycle.

It passes bytes from the transport to the reader and from the cycle to the transport, starts the application for each
request, keeps the order of things on the wire, and knows what the connection is waiting for and since when. It makes
no bytes of its own but for errors, and knows nothing of ASGI messages.

What it may wait for, for how long and what happens then is said in ``waits``.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast, final

from aioserve.errors import RequestError
from aioserve.http.reader import BODY, WAIT, RequestReader
from aioserve.http.server_fields import plain_response
from aioserve.http.tables import reason_phrase
from aioserve.http.writer import ResponseWriter
from aioserve.http.ws_handshake import asks_for_websocket, read_offer
from aioserve.offloading.bound import LEAVING, left
from aioserve.worker.cycle import Cycle
from aioserve.worker.deadlines import after_reading
from aioserve.worker.peer import Peer, peer_of
from aioserve.worker.unsent import half_close, has_progressed, reset, unsent_bytes
from aioserve.worker.waits import Wait
from aioserve.worker.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.accept.base import Listener
    from aioserve.http.head import Head
    from aioserve.http.server_fields import ServerFields
    from aioserve.types import Header
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.server import Server

#: How much of an unwanted body is read for the sake of the next request, in bytes; what nginx and Go discard is of the
#: same order. A longer one ends the connection.
DISCARD_LIMIT: Final = 256 * 1024


NOTHING: Final = Wait.NOTHING
IDLE: Final = Wait.IDLE


@final
class Connection(asyncio.Protocol):
    """Made by the loop's listener for each connection."""

    __slots__ = (
        "_discarded",
        "_fields",
        "_listener",
        "_paused",
        "_peer",
        "_queued",
        "_queued_since",
        "_since",
        "_transport",
        "_unstarted",
        "_waiting",
        "bucket",
        "cycle",
        "ended_by_peer",
        "reader",
        "server",
        "successor",
        "write_resumed",
    )

    def __init__(self, server: Server, listener: Listener) -> None:
        self.server: Server = server
        self.reader: RequestReader = RequestReader(self, server.parsers, server.limits)
        self.cycle: Cycle | None = None
        #: The peer has sent its FIN: it may still read what it has asked for.
        self.ended_by_peer: bool = False
        #: Set again once the client reads; None while it does.
        self.write_resumed: asyncio.Event | None = None
        self.bucket: set[Timed] | None = None
        #: Who has taken this connection's place at the transport.
        self.successor: WebSocket | None = None
        self._listener: Listener = listener
        self._fields: ServerFields = server.fields
        # Asked for when the first request comes.
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        # The body of the request is being parsed for the first time; its application starts after that.
        self._unstarted: bool = False
        self._waiting: Wait = Wait.FIRST
        self._since: float = server.deadlines.now
        self._paused: bool = False
        # What the client had not taken when its writes were looked at, and when that was.
        self._queued: int = 0
        self._queued_since: float = 0.0
        self._discarded: int = 0

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._look_by(self._since + self.server.waits[Wait.FIRST])
        self.server.connection_opened()

    def take_over(self, transport: asyncio.Transport, peer: Peer) -> None:
        """Instead of ``connection_made``: another protocol has opened this connection and read what came first."""
        self._transport = transport
        self._peer = peer
        self._fields = self.server.fields_for(peer)
        self._look_by(self._since + self.server.waits[Wait.FIRST])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        server = self.server
        self._transport = None
        server.deadlines.forget(self)
        self.reader.detach()
        if self.write_resumed is not None:
            self.write_resumed.set()
            self.write_resumed = None
        cycle = self.cycle
        if cycle is not None:
            self._release(cycle, gone=True)
        server.connection_closed()

    def data_received(self, data: bytes) -> None:
        try:
            if self.reader.feed(data):
                self._hang()
            if self._unstarted and self.cycle is not None:
                self._start(self.cycle)
        except RequestError as error:
            self._refuse(error)

    def eof_received(self) -> bool:
        """The peer sends no more. One that has half-closed may still read, so the answer is completed (9112 9.6)."""
        self.ended_by_peer = True
        cycle = self.cycle
        if cycle is None or self.reader.stage is BODY:
            return False
        if not self.reader.rest:
            cycle.writer.keep_alive = False
        cycle.wake()
        if LEAVING:
            left(cycle)
        return True

    def pause_writing(self) -> None:
        self.write_resumed = asyncio.Event()
        self._watch_writes()

    def resume_writing(self) -> None:
        if self.write_resumed is not None:
            self.write_resumed.set()
            self.write_resumed = None

    # What the reader calls.

    def on_request(self, head: Head) -> None:
        server = self.server
        transport = self._transport
        if transport is None:
            return
        if server.requests >= server.request_limit and server.is_full():
            server.rejected += 1
            raise RequestError(503, "the server is busy")
        self._waiting = NOTHING
        peer = self._peer
        if peer is None:
            peer = self._peer = peer_of(transport, self._listener)
        line = head.line
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": line.http_version,
            "method": line.method,
            "scheme": peer.scheme,
            "path": line.path,
            "raw_path": line.raw_path,
            "query_string": line.query,
            "root_path": "",
            "headers": head.headers,
            "client": peer.client,
            "server": peer.local,
            "extensions": server.extensions.copy(),
        }
        if peer.extensions is not None:
            extensions = scope["extensions"]
            for name, said in peer.extensions.items():
                extensions[name] = said.copy()
            if peer.relay is not None and peer.relay.leaving:
                head.keep_alive = False
        if head.forwarded:
            if server.trusts(peer.client) and not peer.anonymous:
                if line.secure:
                    scope["scheme"] = "https"
                server.rewrite(scope)
            elif line.secure and peer.scheme == "http":
                raise RequestError(421, "the request target names https, and this connection is not secured")
        if head.upgrade and server.settings.ws and asks_for_websocket(head):
            self._upgrade(transport, peer, head, scope)
            return
        mount = server.enter(scope)
        writer = ResponseWriter(self._fields, head)
        logged = server.access is not None
        # libuv's clock stands still within a turn of the loop, so the log has another one; both are monotonic.
        started = perf_counter() if logged else server.deadlines.now
        cycle = self.cycle = Cycle(self, mount, scope, writer, head, started, logged)
        if head.length:
            # What came of the body in the same read is parsed first: then receive() has it and need not wait.
            self._unstarted = True
            self.reader.body_limit = mount.body_limit
        else:
            server.run(cycle)

    def on_body(self, data: bytes) -> None:
        cycle = self.cycle
        if cycle is not None:
            # Until receive() waits for more: an application that works on what it has is not the client's fault.
            self._waiting = NOTHING
            if not cycle.feed(data):
                self._pause_reading()
            return
        # That makes no progress: whoever trickles would keep the connection for as long as the limit has bytes.
        self._discarded += len(data)
        if self._discarded > DISCARD_LIMIT:
            self._linger()

    def on_end(self, trailers: Sequence[Header]) -> None:
        cycle = self.cycle
        if cycle is not None:
            self._waiting = NOTHING
            cycle.end(trailers)
            if self._unstarted:
                self._start(cycle)
                if self.cycle is None:
                    # Answered within this read, which may have been long enough to pause; no other one would follow.
                    self.resume_reading()
        elif self._waiting is Wait.BODY:
            # The response was complete before its request; what was left of that has now been discarded.
            self._await_next()

    # What the cycle calls.

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    @property
    def transport(self) -> asyncio.Transport | None:
        """None once the connection is lost."""
        return self._transport

    @property
    def closing(self) -> bool:
        """Whether what is written now may never arrive."""
        return self._transport is None or self._transport.is_closing()

    def response_complete(self, cycle: Cycle) -> None:
        """The last byte of the response has been written: go on to the next request, or close."""
        self._release(cycle, gone=False)
        reader = self.reader
        # In order of frequency.
        if not cycle.writer.keep_alive:
            self.close()
        elif reader.stage is not BODY:
            self._await_next()
        elif cycle.awaits_continue:
            # Nobody can tell whether the client will still send its body (RFC 9110 10.1.1).
            self._linger()
        else:
            self._discarded = 0
            self.await_body()
            self.resume_reading()

    def application_failed(self, cycle: Cycle, status: int) -> None:
        """The application has ended without a complete response: ``status`` if nothing was sent, else a reset."""
        if cycle.nothing_sent:
            self._answer(cycle, status, reason_phrase(status))
        else:
            self._release(cycle, gone=False)
            self.reset()

    def application_left(self, cycle: Cycle) -> None:
        """The application has returned because it was told that the client is gone."""
        self._release(cycle, gone=True)
        self.close()

    def await_body(self) -> None:
        """More of the body is wanted from now on."""
        self._await(Wait.BODY)

    def resume_reading(self) -> None:
        """Read on after a pause, but nothing in addition to bytes that have been read and are not parsed yet."""
        if self._paused and self._transport is not None and not self.reader.rest:
            self._paused = False
            self._since = self.server.deadlines.now
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    # What the server calls.

    def look(self, now: float) -> None:
        """Act if the time for what this connection waits for is up, else be looked at again later."""
        server = self.server
        if self.write_resumed is not None or self._waiting is Wait.CLOSING:
            self._look_at_writes(now)
            return
        due = self._since + server.waits[self._waiting] + server.deadlines.resolution
        if now < due:
            self._look_by(due)
        else:
            self._expire()

    def close(self) -> None:
        """Close in good order: what was written arrives, whatever the client is still sending."""
        reader = self.reader
        # RFC 9112 9.6: what is still coming would be answered with a reset, which may destroy the last answer.
        unread = reader.stage is BODY or reader.rest != b"" or reader.overrun
        reader.close()
        if unread:
            self._linger()
        elif self._transport is not None:
            server = self.server
            self._waiting = Wait.CLOSING
            self._queued = 0
            self._queued_since = server.deadlines.now
            if self.bucket is None:
                server.deadlines.file(self, self._queued_since + server.waits[Wait.CLOSING])
            self._transport.close()

    def close_if_quiet(self, since: float) -> None:
        """Close unless there is a request, or something has happened after ``since``."""
        if (self._waiting is IDLE or self._waiting is Wait.FIRST) and self._since <= since:
            # A request may lie unread in the socket: it is read before that, and has its answer.
            after_reading(self.server.loop, self._close_if_quiet, self._since)

    def abort(self) -> None:
        """Close at once; what the kernel has taken over still arrives."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Break the connection, so that the client can tell that it has not got all."""
        if self._transport is not None:
            reset(self._transport)

    @property
    def holds_unsent(self) -> bool:
        """Whether closing at once would lose something."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end, as far as somebody has asked."""
        return self._peer

    @property
    def client(self) -> str:
        """The client as the log names it."""
        if self._peer is None and self._transport is not None:
            self._peer = peer_of(self._transport, self._listener)
        return str(self._peer)

    def _start(self, cycle: Cycle) -> None:
        self._unstarted = False
        self.server.run(cycle)

    # What happens rarely.

    def _upgrade(self, transport: asyncio.Transport, peer: Peer, head: Head, scope: dict[str, Any]) -> None:
        """Put a WebSocket in this protocol's place; its count among the server's connections goes with it.

        Raises ``RequestError`` for a handshake that is none. What the client has sent behind it follows in ``_hang``.
        """
        server = self.server
        if server.fields.closing or (peer.relay is not None and peer.relay.leaving):
            raise RequestError(503, "the server is stopping")
        if self.ended_by_peer:
            # Nobody would ever say again that it has gone.
            raise RequestError(400, "a WebSocket handshake of a client that has sent its FIN")
        offer = read_offer(head, compress=server.settings.ws_per_message_deflate)
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = offer.subprotocols.copy()
        own = peer.extensions or {}
        scope["extensions"] = {
            "websocket.http.response": {},
            "aioserve.offload": server.extensions["aioserve.offload"],
            **{name: said.copy() for name, said in own.items()},
        }
        server.deadlines.forget(self)
        self._transport = None
        websocket = self.successor = WebSocket(server, transport, peer, head=head, offer=offer, scope=scope)
        transport.set_protocol(websocket)
        if self._paused:
            transport.resume_reading()
        if self.write_resumed is not None:
            # The response before it has not been taken yet.
            self.write_resumed = None
            websocket.pause_writing()
        # When the reader has come back from this call.
        server.loop.call_soon(self.reader.detach)
        websocket.start()

    def _release(self, cycle: Cycle, *, gone: bool) -> None:
        """The cycle is over for this connection: tell the application, and the log."""
        self.cycle = None
        self._unstarted = False
        cycle.detach(gone)
        if gone and LEAVING:
            left(cycle)
        access = self.server.access
        if access is not None:
            cycle.ended = perf_counter()
            access.record(cycle)

    def _await_next(self) -> None:
        self._waiting = IDLE
        self._since = self.server.deadlines.now
        if self.reader.proceed():
            self.server.loop.call_soon(self._resume)
        elif not self.reader.feeding:
            self.resume_reading()

    def _resume(self) -> None:
        """Parse what has been left of a read: it waited for its turn, or behind the last request."""
        if self._transport is not None and (self.cycle is None or self.reader.stage is BODY):
            self.data_received(b"")
            if self.cycle is None or self.cycle.has_room:
                self.resume_reading()

    def _hang(self) -> None:
        """Part of a head has come, or bytes behind a request that is not answered yet."""
        reader = self.reader
        if self.successor is not None:
            self.successor.data_received(reader.rest)
        elif reader.head_begun:
            if self._waiting is not Wait.HEAD:
                self._await(Wait.HEAD)
        else:
            # The rest stays unread until it is its turn; then there is no more than this one read of it.
            self._pause_reading()
            if reader.stage is not WAIT:
                # It was as much as one turn should bear, and may end within a body.
                self.server.loop.call_soon(self._resume)

    def _await(self, wait: Wait) -> None:
        """Wait for something that may be due before the tick under which this connection is filed."""
        server = self.server
        self._waiting = wait
        self._since = server.deadlines.now
        if self._transport is not None:
            self._look_by(self._since + server.waits[wait])

    def _look_by(self, due: float) -> None:
        """Be looked at when it is ``due``, or earlier: the wait that follows, for a request, may be a shorter one."""
        server = self.server
        server.deadlines.file(self, min(due, server.deadlines.now + server.longest_wait))

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that cannot be served, and close."""
        self.server.refused(self.client, error)
        cycle = self.cycle
        if cycle is not None and not cycle.nothing_sent:
            self._release(cycle, gone=True)
            self.reset()
        elif cycle is None and self._waiting is Wait.BODY:
            # The request has its response; a second one would be taken for the next request's.
            self._linger()
        else:
            self._answer(cycle, error.status, error.reason, head_request=error.to_head)

    def _answer(self, cycle: Cycle | None, status: int, text: str, *, head_request: bool = False) -> None:
        if cycle is not None:
            cycle.writer.status = status
            head_request = cycle.scope["method"] == "HEAD"
            self._release(cycle, gone=True)
        self.write(plain_response(status, text, self._fields, head_request=head_request))
        self._linger()

    def _linger(self) -> None:
        """Send a FIN behind the answer and give the client time to read it, dropping what it still sends."""
        self.reader.close()
        transport = self._transport
        if transport is None:
            return
        if self.ended_by_peer or not transport.can_write_eof():
            transport.close()
            return
        self.resume_reading()
        if half_close(transport):
            self._queued = 0
            self._queued_since = self.server.deadlines.now
            self._await(Wait.LINGER)

    def _linger_on(self) -> None:
        """The time to leave is up, but not for a client to whom a part of its answer is still on its way."""
        if self._transport is None:
            return
        now = self.server.deadlines.now
        unsent = unsent_bytes(self._transport)
        if has_progressed(self._queued, unsent):
            self._queued = unsent
            self._queued_since = now
        elif not unsent or now - self._queued_since > self.server.waits[Wait.CLOSING]:
            self.abort()
            return
        self._await(Wait.LINGER)

    def _expire(self) -> None:
        waiting = self._waiting
        if waiting is Wait.HEAD:
            error = RequestError(408, "the request head did not come in time")
            error.to_head = self.reader.head_wanted
            self.reader.close()
            self._refuse(error)
        elif waiting is Wait.BODY:
            self.reader.close()
            if self.cycle is None:
                self.abort()
            else:
                self._refuse(RequestError(408, "the request body did not come in time"))
        elif waiting is Wait.LINGER:
            self._linger_on()
        else:
            # A request may lie unread in the socket: it is read before that, and has its answer.
            after_reading(self.server.loop, self._close_if_quiet, self._since)

    def _close_if_quiet(self, since: float) -> None:
        quiet = self._waiting is IDLE or self._waiting is Wait.FIRST
        if self._transport is None:
            return
        if quiet and self._since == since:
            self.close()
        elif self.bucket is None:
            self.server.deadlines.file(self, self.server.deadlines.now)

    def _watch_writes(self) -> None:
        if self._transport is not None:
            server = self.server
            self._queued = unsent_bytes(self._transport)
            self._queued_since = server.deadlines.now
            self._look_by(self._queued_since + server.waits[Wait.CLOSING])

    def _look_at_writes(self, now: float) -> None:
        server = self.server
        if self._transport is None:
            return
        due = self._queued_since + server.waits[Wait.CLOSING]
        if now < due + server.deadlines.resolution:
            self._look_by(due)
        elif has_progressed(self._queued, unsent_bytes(self._transport)):
            self._watch_writes()
        else:
            server.stalled(self.client)
            self.reset()
