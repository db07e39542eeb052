"""One WebSocket: the asyncio protocol between transport, frames and cycle.

It takes the place of a ``Connection`` at the transport when a head asks for a WebSocket (``Connection._upgrade``), and
holds it until the end: the transport never goes back to HTTP. It carries bytes to the frames and back, stops reading
when the application is slow, ends the connection when a limit is passed, and knows nothing of ASGI messages.

    ASKED --accept--> OPEN --our close--> CLOSING --the peer's close, or no answer--> OVER
      |                 +--the peer's close, a mistake, a peer that is lost--> OVER
      +--answer (403, 500, 503)--> OVER
      +--deny (the application's own response)--> DENYING --its last byte--> OVER

In OVER both have said all; what was written is on its way, and the connection closes. What it waits for:

    ASKED     the application to accept or refuse          ws_handshake_timeout   503
    OPEN      any byte after a ping                        ws_ping_timeout        closed, 1011 to the peer
              the rest of a message                        body_timeout           1008
              a message, either way                        ws_idle_timeout        1001
    CLOSING   the peer's close                             CLOSE_SECONDS          abort, unless it still reads
    OVER      the peer to read its last bytes and leave    LINGER_SECONDS         abort, unless it still reads
    any       a peer that does not read                    write_timeout          reset
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, final

from aioserve.http.server_fields import plain_response
from aioserve.http.ws_frames import FrameStream
from aioserve.http.ws_wire import PING_FRAME, close_frame, control_frame
from aioserve.worker.unsent import half_close, has_progressed, reset, unsent_bytes
from aioserve.worker.waits import LINGER_SECONDS
from aioserve.worker.ws_cycle import ASKED, CLOSING, OPEN, OVER, Stage, WebSocketCycle

if TYPE_CHECKING:
    from aioserve.http.head import Head
    from aioserve.http.server_fields import ServerFields
    from aioserve.http.ws_handshake import Offer
    from aioserve.types import Scope
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.peer import Peer
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: How long the peer has to answer a close, in seconds; `websockets` and uvicorn wait as long.
CLOSE_SECONDS: Final = 10.0

#: What a client may send before it has the 101; it should send nothing (RFC 6455 4.1). Bytes.
EARLY_LIMIT: Final = 64 * 1024

#: Empty: whatever comes behind it shows that the peer is there.
PING: Final = control_frame(PING_FRAME, b"")


@final
class WebSocket(asyncio.Protocol):
    """See the module's docstring."""

    __slots__ = (
        "_busy",
        "_heard",
        "_idle_since",
        "_paused",
        "_ping_due",
        "_pinged",
        "_queued",
        "_queued_since",
        "_quiet_since",
        "_since",
        "_transport",
        "bucket",
        "cycle",
        "fields",
        "peer",
        "server",
        "stage",
        "stream",
        "write_resumed",
    )

    def __init__(
        self, server: Server, transport: asyncio.Transport, peer: Peer, *, head: Head, offer: Offer, scope: Scope
    ) -> None:
        settings = server.settings
        now = server.deadlines.now
        self.server: Server = server
        self.peer: Peer = peer
        self.fields: ServerFields = server.fields_for(peer)
        self.stage: Stage = ASKED
        self.stream: FrameStream = FrameStream(settings.ws_max_size, settings.ws_max_queue)
        self.cycle: WebSocketCycle = WebSocketCycle(self, server.enter(scope), scope, head, offer)
        #: Set again once the peer reads; None while it does.
        self.write_resumed: asyncio.Event | None = None
        self.bucket: set[Timed] | None = None
        self._transport: asyncio.Transport | None = transport
        # When the stage was entered.
        self._since: float = now
        self._paused: bool = False
        # Noted on the way, and turned into times by the next look: whether bytes have come, and whether a message
        # has gone either way.
        self._heard: bool = False
        self._busy: bool = False
        self._quiet_since: float = now
        self._idle_since: float = now
        self._ping_due: float = 0.0
        # When the oldest ping was sent that has no answer; 0.0: there is none.
        self._pinged: float = 0.0
        # What the peer had not taken when its writes were looked at, and when that was.
        self._queued: int = 0
        self._queued_since: float = now
        server.deadlines.file(self, now + server.ws_beat)

    def start(self) -> None:
        """Run the application."""
        self.server.run(self.cycle)

    # What the transport calls.

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        server = self.server
        self._transport = None
        server.deadlines.forget(self)
        # What was said before stands.
        self.cycle.over(1006, "")
        self._over()
        self.resume_writing()
        server.connection_closed()

    def data_received(self, data: bytes) -> None:
        if self.stage is not OPEN:
            self._receive_otherwise(data)
            return
        self._heard = True
        attend = self.stream.feed(data)
        cycle = self.cycle
        if cycle.messages:
            self._busy = True
            if cycle.waiters:
                cycle.wake()
        if attend:
            self._attend()

    def eof_received(self) -> bool:
        """The peer has half-closed, without a close: nothing it could still read would mean anything to it."""
        return False

    def pause_writing(self) -> None:
        self.write_resumed = asyncio.Event()
        self._watch_writes()

    def resume_writing(self) -> None:
        if self.write_resumed is not None:
            self.write_resumed.set()
            self.write_resumed = None
            self.go_on()

    # What the cycle calls.

    def write(self, data: bytes) -> None:
        """Write a message."""
        self._busy = True
        if self._transport is not None:
            self._transport.write(data)

    def accept(self, data: bytes) -> None:
        """Switch: ``data`` is the 101."""
        server = self.server
        compression = self.cycle.offer.compression
        if compression is not None:
            self.stream.compress(compression)
        self.write(data)
        self.stage = OPEN
        server.websocket_opened()
        now = server.deadlines.now
        self._quiet_since = self._idle_since = now
        if server.settings.ws_ping_interval:
            self._ping_due = now + server.settings.ws_ping_interval
        if self.stream.stopped:
            # A client that could not wait for this.
            server.loop.call_soon(self.go_on)

    def answer(self, status: int, text: str) -> None:
        """Refuse the handshake with a response of the server's own."""
        self.cycle.status = status
        self._write(plain_response(status, text, self.fields))
        self._part_after_response()

    def deny(self, data: bytes, *, complete: bool) -> None:
        """Write a part of a response of the application's."""
        self.stage = Stage.DENYING
        self._write(data)
        if complete:
            self._part_after_response()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake (RFC 6455 7.1.2). Raises ``AppError`` for a code that cannot be sent."""
        frame = self.stream.close(code, reason)
        if self.stream.ended is not None:
            # The peer was first.
            self.end()
            return
        self._write(frame)
        self._enter(CLOSING, CLOSE_SECONDS)
        self.cycle.over(code, reason)
        # Behind messages that nobody takes any more.
        self.go_on()

    def go_on(self) -> None:
        """Parse what has been left of a read, and read on, as far as there is room."""
        if self._transport is None or (self.stage is not OPEN and self.stage is not CLOSING):
            return
        stream = self.stream
        if stream.ended is not None:
            return
        if stream.stopped:
            attend = stream.feed(b"")
            if self.cycle.messages and self.cycle.waiters:
                self.cycle.wake()
            if attend:
                self._attend()
        if not stream.stopped and stream.ended is None and self._has_room():
            self._resume_reading()

    @property
    def paused(self) -> bool:
        """Whether reading waits for ``receive``: call ``go_on`` once the messages have been taken."""
        return self._paused

    @property
    def lost(self) -> bool:
        """Whether there is nobody any more."""
        return self._transport is None

    # What the server calls.

    def look(self, now: float) -> None:
        """Act if the time for what this WebSocket waits for is up, and be looked at again later."""
        if (self.write_resumed is not None or self.stage is OVER) and not self._is_taking(now):
            return
        # In order of frequency.
        if self.stage is OPEN:
            self._look_at_peer(now)
        elif self.stage is ASKED:
            limit = self.server.settings.ws_handshake_timeout
            if limit and self._is_due(self._since, limit, now):
                self.cycle.late(limit)
        elif self.stage is not Stage.DENYING and self._is_due(
            self._since, CLOSE_SECONDS if self.stage is CLOSING else LINGER_SECONDS, now
        ):
            self._part_at_last(now)
        if self.bucket is None and self._transport is not None:
            self.server.deadlines.file(self, now + self.server.ws_beat)

    def abort(self) -> None:
        """Close at once; what the kernel has taken over still arrives."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Break the connection, so that the peer can tell that what it has got is not all."""
        if self._transport is not None:
            reset(self._transport)

    @property
    def holds_unsent(self) -> bool:
        """Whether closing at once would lose something."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    # Reading.

    def _receive_otherwise(self, data: bytes) -> None:
        """Bytes that come before the 101, or behind a close of ours; in OVER they are dropped."""
        if self.stage is CLOSING:
            if self.stream.feed(data):
                self._attend()
        elif self.stage is ASKED and self.stream.hold(data) > EARLY_LIMIT:
            self._pause_reading()

    def _attend(self) -> None:
        """What ``feed`` has left to do."""
        stream = self.stream
        if stream.reply and stream.ended is None:
            self._write(stream.reply)
            stream.reply = b""
        if stream.ended is not None:
            if self.stage is OPEN and self.cycle.messages:
                # What was right before it is answered first, by an application that does so without delay.
                self._pause_reading()
            else:
                self.end()
        elif not self._has_room():
            self._pause_reading()
        elif stream.stopped:
            # As much as one turn of the loop should bear.
            self._pause_reading()
            self.server.loop.call_soon(self.go_on)

    def _has_room(self) -> bool:
        """Whether more may be read: not in front of an application that is behind, or of pongs that nobody takes."""
        return not self.stream.full and (self.write_resumed is None or self.stage is CLOSING)

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            # What came meanwhile lies in the kernel.
            self._heard = True
            self._transport.resume_reading()

    # Ending.

    def end(self) -> None:
        """The peer has closed or made a mistake, and the application has had all that came before."""
        ended = self.stream.ended
        if ended is None or self.stage is OVER:
            return
        self._write(self.stream.reply)
        self.stream.reply = b""
        if not ended.by_peer:
            log.info("%s - WebSocket closed with %d: %s", self.peer, ended.code, ended.reason)
        self.cycle.over(ended.code, ended.reason)
        if ended.by_peer:
            # RFC 6455 7.1.1: it is the server that closes the TCP connection.
            self._enter(OVER, self.server.settings.write_timeout)
            if self._transport is not None:
                self._transport.close()
        else:
            self._linger()

    def _part_after_response(self) -> None:
        """The handshake was refused and the response is complete."""
        self.cycle.over(1006, "")
        self._linger()

    def _linger(self) -> None:
        """Send a FIN behind what was written and give the peer time to read it, dropping what it still sends.

        What is still coming would be answered with a reset, which may destroy the last bytes (RFC 9112 9.6).
        """
        transport = self._transport
        if transport is None:
            return
        self._enter(OVER, LINGER_SECONDS)
        if not transport.can_write_eof():
            transport.close()
            return
        self._resume_reading()
        half_close(transport)

    def _enter(self, stage: Stage, seconds: float) -> None:
        """Wait in ``stage``, and look after so many seconds."""
        deadlines = self.server.deadlines
        self._since = deadlines.now
        if stage is OVER:
            self._over()
        else:
            self.stage = stage
        self._watch_writes()
        if self._transport is not None:
            deadlines.file(self, self._since + seconds)

    def _over(self) -> None:
        """Both have said all they will: the log has its line."""
        if self.stage is not OVER:
            if self.stage is OPEN or self.stage is CLOSING:
                self.server.websocket_closed()
            self.stage = OVER
            self.cycle.complete()

    def _write(self, data: bytes) -> None:
        """Write what is no message."""
        if self._transport is not None:
            self._transport.write(data)

    # Looking.

    def _is_due(self, since: float, limit: float, now: float) -> bool:
        return now >= since + limit + self.server.deadlines.resolution

    def _look_at_peer(self, now: float) -> None:
        """Whether the peer is still there, has stopped in the middle of a message, or has nothing to say."""
        settings = self.server.settings
        if self.stream.ended is not None:
            # The application has not received what came before; it has had its time.
            self.end()
            return
        if self._heard or self._paused:
            # While nothing is read, nothing can be heard: that is not the peer's fault.
            self._heard = False
            self._quiet_since = now
            self._pinged = 0.0
        if self._busy:
            self._busy = False
            self._idle_since = now
        if self._pinged and settings.ws_ping_timeout and self._is_due(self._pinged, settings.ws_ping_timeout, now):
            self._miss_answer(now)
        elif self.stream.begun and self._is_due(self._quiet_since, settings.body_timeout, now):
            self._fail(1008, "the rest of a message did not come in time")
        elif settings.ws_idle_timeout and self._is_due(self._idle_since, settings.ws_idle_timeout, now):
            self.close(1001, f"no message for {settings.ws_idle_timeout:g} s")
        elif self._ping_due and now >= self._ping_due and self.write_resumed is None:
            self._ping_due = now + settings.ws_ping_interval
            if not self._pinged:
                self._pinged = now
                self._watch_writes()
            self._write(PING)

    def _miss_answer(self, now: float) -> None:
        """No answer to a ping in time; but it may be on its way still, behind more than the peer can take at once."""
        transport = self._transport
        if transport is None:
            return
        unsent = unsent_bytes(transport)
        if self.write_resumed is not None or (unsent < self._queued and has_progressed(self._queued, unsent)):
            self._queued, self._pinged = unsent, now
            return
        timeout = self.server.settings.ws_ping_timeout
        log.info("%s - WebSocket closed: nothing came for %g s after a ping", self.peer, timeout)
        self.cycle.over(1006, f"no answer to a ping within {timeout:g} s")
        if self.write_resumed is None:
            # It may be there after all.
            self._write(close_frame(1011, "keepalive ping timeout"))
        self._enter(OVER, LINGER_SECONDS)
        transport.close()

    def _fail(self, code: int, reason: str) -> None:
        self._write(self.stream.close(code, reason))
        log.info("%s - WebSocket closed with %d: %s", self.peer, code, reason)
        self.cycle.over(code, reason)
        self._linger()

    def _watch_writes(self) -> None:
        """From now on the peer has to take what was written."""
        if self._transport is not None:
            self._queued = unsent_bytes(self._transport)
            self._queued_since = self.server.deadlines.now

    def _is_taking(self, now: float) -> bool:
        """Break a connection whose peer takes next to nothing; whether there is still one."""
        server = self.server
        if self._transport is None:
            return False
        if self._is_due(self._queued_since, server.settings.write_timeout, now):
            if not has_progressed(self._queued, unsent_bytes(self._transport)):
                server.stalled(str(self.peer))
                self.reset()
                return False
            self._watch_writes()
        return True

    def _part_at_last(self, now: float) -> None:
        """The time to answer or to leave is up, but not for a peer to whom something is still on its way."""
        if self._transport is None:
            return
        unsent = unsent_bytes(self._transport)
        if unsent < self._queued and has_progressed(self._queued, unsent):
            self._queued, self._queued_since, self._since = unsent, now, now
        elif not unsent or self.stage is CLOSING:
            self.abort()
