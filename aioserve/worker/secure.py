"""TLS on one connection, after its handshake: between the socket's transport and whoever speaks HTTP, in memory.

To the loop it is the protocol of a plain connection; to ``Connection`` and ``WebSocket`` it is the transport. OpenSSL
never sees the socket: ciphertext goes in and out through two buffers (``ssl.MemoryBIO``), within the call that has
brought or written the data. So TLS has the same flow control, deadlines and accept patterns as plain connections, and
costs a few calls per read and per write. It knows nothing of HTTP, and how the handshake went is the business of
``handshakes``.

Each direction ends by itself (RFC 8446 6.1), which the TLS of asyncio and uvloop cannot do: a client that has sent
its close_notify may read the rest of its response, and ``write_eof`` sends ours while we go on reading.

    open --close()--> closing: what was written leaves, then close_notify and FIN, without waiting for the client's
         --abort()--> closed
         --a record that cannot be--> closed, behind the alert that says so
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from aioserve.tls import leftovers
from aioserve.tls.extension import peer_certificate

if TYPE_CHECKING:
    from aioserve.worker.deadlines import Deadlines, Timed
    from aioserve.worker.settings import Settings

log = logging.getLogger("aioserve")

#: The plaintext of one record at most (RFC 8446 5.1): one read takes all of it.
RECORD: Final = 16384

#: How much goes through OpenSSL's buffers at once, in bytes. They never shrink: what once held a large body would
#: stay with a connection for its life (4 records are 87 KiB, what uvloop reads in one go 340). Less is slower.
PIECE: Final = 64 * 1024

#: How much of a large body is encrypted in one turn of the loop, in bytes: some 0.5 ms.
TURN: Final = 1024 * 1024

#: How much ciphertext OpenSSL is given to read at once, in bytes: two full records. One would make large bodies 12 %
#: slower; and it reads messages without data to their end, for 20 ms if these are KeyUpdates and nothing else.
SLICE: Final = 2 * RECORD + 512

#: Records of one connection that are passed on in one turn of the loop. A large read has 16 full ones, or thousands
#: with a byte, or a request, in each.
RECORDS: Final = 32


class Inner(Protocol):
    """Who speaks on this transport: a ``Connection``, a ``WebSocket``, or a relay."""

    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...


class Host(Protocol):
    """What it needs of the server."""

    loop: asyncio.AbstractEventLoop
    deadlines: Deadlines
    settings: Settings


@final
class Secure(asyncio.Transport, asyncio.Protocol):
    """``transport`` is the socket's, whose protocol this becomes; the handshake of ``engine`` is complete.

    Call ``set_protocol`` next, and then ``read_on``: the client may have sent something behind its handshake.
    """

    __slots__ = (
        "_backlog", "_choked", "_closing", "_decrypt", "_due", "_encrypt", "_ended", "_engine", "_host", "_incoming",
        "_inner", "_outgoing", "_paused", "_put", "_rest", "_room", "_send", "_shut", "_stuck", "_take", "_told",
        "_transport", "bucket",
    )  # fmt: skip

    def __init__(
        self,
        host: Host,
        transport: asyncio.Transport,
        engine: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self.bucket: set[Timed] | None = None
        self._host: Host = host
        self._transport: asyncio.Transport | None = transport
        self._engine: ssl.SSLObject = engine
        self._incoming: ssl.MemoryBIO = incoming
        self._outgoing: ssl.MemoryBIO = outgoing
        self._inner: Any = None
        self._put = incoming.write
        self._take = outgoing.read
        # perf: past methods in Python that only call these; callgrind, a request over TLS in memory: -1.7 %
        direct = getattr(engine, "_sslobj", engine)
        self._decrypt = direct.read
        self._encrypt = direct.write
        self._send = transport.write
        # How much may be encrypted and written straight away: PIECE; less than nothing where there is more to think of.
        self._room: int = PIECE
        # Plaintext that waits for the socket, and what the socket's transport and the protocol above have been told.
        self._backlog: deque[memoryview] | None = None
        self._choked: bool = False
        self._told: bool = False
        # Nothing is read until the socket takes more.
        self._stuck: bool = False
        # What of a large read OpenSSL has not been given yet; whether a later turn of the loop goes on with it.
        self._rest: memoryview | None = memoryview(incoming.read()) if incoming.pending > SLICE else None
        self._due: bool = False
        self._paused: bool = False
        # The client has said that it sends no more; we have.
        self._ended: bool = False
        self._shut: bool = False
        # close() was called; what was written before may still be on its way.
        self._closing: bool = False
        transport.set_protocol(self)

    # Reading: what the socket's transport calls, in order of frequency.

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if size > SLICE:
            self._rest = memoryview(data)
            self._read()
            return
        self._put(data)
        # What comes in one piece holds less than that: no more is allocated, and nothing is left in the engine.
        # Another read, only to be told so by an exception, would cost as much as everything else here.
        if size > RECORD:  # noqa: PLR1730  # perf: min() is a call
            size = RECORD
        try:
            plain = self._decrypt(size)
        except OSError as error:
            if leftovers.are_told(error):
                self._read()
            else:
                self._look_at(error)
            return
        if not plain:
            self._end()
            return
        self._inner.data_received(plain)
        if self._incoming.pending or len(plain) == size:
            self._read()
        elif self._outgoing.pending:
            self._answer()

    def eof_received(self) -> bool:
        """The client's FIN.

        Without a close_notify before it somebody may have cut the connection. HTTP says itself whether a request is
        complete, so that does no harm, and clients do it (RFC 9112 9.8).
        """
        self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._close_all()
        self._host.deadlines.forget(self)
        self._inner.connection_lost(exc)

    def read_on(self) -> None:
        """Pass on what has come already."""
        if self._is_behind():
            self._read()

    def _is_behind(self) -> bool:
        return self._incoming.pending > 0 or self._rest is not None or self._engine.pending() > 0

    def _read(self) -> None:
        """Pass on record by record, until there is no whole one left, no more are wanted, or it is others' turn."""
        incoming, engine = self._incoming, self._engine
        left = RECORDS
        hungry = incoming.pending < RECORD
        fresh = False
        certain = False  # whether an error is this connection's own
        while not self._paused and not self._closing and not self._ended and not self._stuck:
            if not left:
                self._read_later()
                return
            if hungry and self._rest is not None:
                self._put_more()
                hungry, fresh = False, True
            try:
                plain = self._decrypt(RECORD)
            except OSError as error:
                if not certain and leftovers.are_told(error):
                    certain = True
                    continue
                self._look_at(error)
                if self._rest is None:
                    return
                hungry = True
                if fresh:
                    # A slice without a single record of data.
                    left = 0
                continue
            if not plain:
                self._end()
                return
            left -= 1
            fresh = False
            self._inner.data_received(plain)
            if self._outgoing.pending:
                self._answer()
            if not incoming.pending and not engine.pending():
                if self._rest is None:
                    return
                hungry = True

    def _put_more(self) -> None:
        rest = self._rest
        assert rest is not None
        self._put(rest[:SLICE])
        self._rest = rest[SLICE:] if len(rest) > SLICE else None

    def _read_later(self) -> None:
        """Go on in the next turn of the loop, and let nothing come before that."""
        if not self._due:
            self._due = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
            self._host.loop.call_soon(self._resume)

    def _look_at(self, error: OSError) -> None:
        """Why there is nothing to read."""
        if isinstance(error, ssl.SSLWantReadError):
            if self._outgoing.pending:
                self._answer()
        elif isinstance(error, ssl.SSLZeroReturnError):
            # Both have said that they send no more.
            self._end()
        else:
            self._break(error)

    def _answer(self) -> None:
        """A message between records, such as a KeyUpdate, has an answer (RFC 8446 4.6.3)."""
        self._flush()
        if self._choked and self._transport is not None and not self._paused:
            # Who takes none must not make us keep any number of them.
            self._stuck = True
            self._transport.pause_reading()

    def _end(self) -> None:
        """The client sends no more: nothing is read any more, but what it waits for still leaves."""
        transport = self._transport
        if self._ended or self._closing or transport is None:
            return
        self._ended = True
        self._rest = None
        if not transport.is_closing():
            # RFC 8446 6.1: what comes behind a close_notify is ignored.
            transport.pause_reading()
        if not self._inner.eof_received():
            self.close()

    def _break(self, error: OSError) -> None:
        """End a connection on which the client, or somebody between, has sent what cannot be. OpenSSL has the alert."""
        transport = self._transport
        assert transport is not None, "without one nothing is read or written"
        log.debug("%s - TLS: %s", transport.get_extra_info("peername"), getattr(error, "reason", None) or error)
        self._flush()
        self._close_all()
        deadlines = self._host.deadlines
        deadlines.file(self, deadlines.now + deadlines.resolution + self._host.settings.write_timeout)
        transport.close()

    def look(self, now: float) -> None:  # noqa: ARG002  # as all that is filed under a deadline
        """What was left to send at the end has not been taken in time."""
        self.abort()

    # Writing.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if 0 < len(data) <= self._room:
            try:
                self._encrypt(data)
            except OSError as error:
                self._break(error)
                return
            self._send(self._take())
        elif data and not self._shut and not self._closing:
            self._queue(data)

    def pause_writing(self) -> None:
        self._choked = True
        self._tell()

    def resume_writing(self) -> None:
        self._choked = False
        if self._stuck:
            self._stuck = False
            self._resume()
        if self._backlog:
            self._pump()
        self._relieve()

    def _queue(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt as the socket takes it: a large body is neither there twice nor does it hold up everybody else."""
        if not isinstance(data, bytes):
            data = bytes(data)  # it may be changed
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(memoryview(data))
        self._room = -1
        if len(self._backlog) == 1 and not self._choked:
            self._pump()

    def _pump(self) -> None:
        backlog = self._backlog
        assert backlog is not None
        left = TURN
        while backlog and not self._choked and left > 0:
            view = backlog[0]
            piece = view[:PIECE]
            if len(piece) < len(view):
                backlog[0] = view[PIECE:]
            else:
                backlog.popleft()
            try:
                self._encrypt(piece)
            except OSError as error:
                self._break(error)
                return
            left -= len(piece)
            self._send(self._take())
        if not backlog:
            self._room = PIECE
            self._finish()
        else:
            self._tell()
            if not self._choked:
                self._host.loop.call_soon(self._pump_on)

    def _pump_on(self) -> None:
        if self._backlog and not self._choked:
            self._pump()
            self._relieve()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._inner.pause_writing()

    def _relieve(self) -> None:
        if self._told and not self._choked and not self._backlog:
            self._told = False
            self._inner.resume_writing()

    def _flush(self) -> None:
        """Send what OpenSSL has to say by itself."""
        if self._outgoing.pending:
            self._send(self._take())

    # Ending.

    def can_write_eof(self) -> bool:
        return self._transport is not None and self._transport.can_write_eof()

    def write_eof(self) -> None:
        """Send close_notify and FIN behind what was written, and go on reading."""
        if not self._shut and not self._closing:
            self._shut = True
            if not self._backlog:
                self._finish()

    def close(self) -> None:
        """Send what was written, close_notify and FIN; nothing is read any more."""
        transport = self._transport
        if self._closing or transport is None:
            return
        self._closing = True
        if not self._backlog:
            self._finish()
        elif not self._ended:
            transport.pause_reading()

    def abort(self) -> None:
        transport = self._transport
        if transport is not None:
            self._close_all()
            transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport is None or self._transport.is_closing()

    def _finish(self) -> None:
        """All that was written has been encrypted: say that no more comes, if that is so."""
        transport = self._transport
        if transport is None or not (self._shut or self._closing):
            return
        self._room = -1
        # Said at most once. It raises, because the client's close_notify has not come, which nobody waits for.
        with suppress(OSError):
            self._engine.unwrap()
        self._flush()
        if self._closing:
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # ENOTCONN of shutdown(2): the client has reset the connection, and the loop has yet to say so
            self.abort()

    def _close_all(self) -> None:
        """Nothing is read or written any more."""
        self._closing = True
        self._room = -1
        self._backlog = self._rest = None

    # What else a transport can.

    def set_protocol(self, protocol: Any) -> None:
        self._inner = protocol

    def get_protocol(self) -> Any:
        return self._inner

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What asyncio's own TLS answers to, and then what the socket's transport does."""
        match name:
            case "ssl_object":
                return self._engine
            case "sslcontext":
                return self._engine.context
            case "peercert":
                return peer_certificate(self._engine)
            case "cipher":
                return self._engine.cipher()
            case "compression":
                return self._engine.compression()
            case _:
                return self._transport.get_extra_info(name, default) if self._transport is not None else default

    def pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            if not self._ended and not self._transport.is_closing():
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if self._is_behind():
            # Not within this call: it may come from whoever is being told what was read last.
            self._read_later()
        else:
            self._resume()

    def _resume(self) -> None:
        """What came before the pause comes first."""
        self._due = False
        self.read_on()
        if self._transport is not None and not self._due and not self._stuck and self.is_reading():
            self._transport.resume_reading()

    def is_reading(self) -> bool:
        return not self._paused and not self._ended and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        if self._transport is None:
            return 0
        size = self._transport.get_write_buffer_size()
        return size + sum(map(len, self._backlog)) if self._backlog else size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits() if self._transport is not None else (0, 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)
