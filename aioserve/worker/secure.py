"""TLS on one connection: the asyncio protocol between the socket's transport and whoever speaks HTTP, in memory.

To the loop it is the protocol of a plain connection; to the ``Connection`` that follows the handshake it is the
transport. OpenSSL never sees the socket: ciphertext goes in and out through two buffers (``ssl.MemoryBIO``), within the
call that has brought or written the data. So TLS has the same flow control, deadlines and accept patterns as plain
connections, and costs a few calls per read and per write.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast, final

from aioserve.worker.connection import Connection
from aioserve.worker.peer import peer_of
from aioserve.worker.redirect import Redirect

if TYPE_CHECKING:
    from aioserve.accept.base import Listener
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.peer import Peer
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: What every handshake begins with: the type of its first record (RFC 8446 5.1).
HANDSHAKE: Final = 0x16

#: The plaintext of one record at most (RFC 8446 5.1), so that one read takes all of it.
RECORD: Final = 16384


@final
class Secure(asyncio.Transport, asyncio.Protocol):
    """Made by the loop's listener for each connection."""

    __slots__ = (
        "_decrypt", "_encrypt", "_engine", "_fresh", "_incoming", "_inner", "_listener", "_outgoing", "_peer", "_put",
        "_server", "_since", "_take", "_transport", "bucket",
    )  # fmt: skip

    def __init__(self, server: Server, listener: Listener) -> None:
        self.bucket: set[Timed] | None = None
        self._server: Server = server
        self._listener: Listener = listener
        self._since: float = server.deadlines.now
        self._inner: Any = None
        self._incoming: ssl.MemoryBIO = ssl.MemoryBIO()
        self._outgoing: ssl.MemoryBIO = ssl.MemoryBIO()
        assert server.credentials is not None
        self._engine: ssl.SSLObject = server.credentials.engine(self._incoming, self._outgoing)
        self._put = self._incoming.write
        self._take = self._outgoing.read
        self._decrypt = self._engine.read
        self._encrypt = self._engine.write
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
        # Nothing has come yet.
        self._fresh: bool = True

    # What the socket's transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        server.deadlines.file(self, self._since + server.settings.handshake_timeout)
        server.connection_opened()

    def take_over(self, transport: asyncio.Transport, peer: Peer) -> None:
        """Instead of ``connection_made``: another protocol has opened this connection and read what came first."""
        self._transport = transport
        self._peer = peer
        server = self._server
        server.deadlines.file(self, self._since + server.settings.handshake_timeout)

    def data_received(self, data: bytes) -> None:
        if self._fresh:
            self._fresh = False
            if data[0] != HANDSHAKE:
                self._hand_over_plain(data)
                return
        self._put(data)
        if self._inner is None and (not self._shake_hands() or not self._incoming.pending):
            return
        self._read()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._inner is not None:
            self._inner.connection_lost(exc)
        else:
            self._server.deadlines.forget(self)
            self._server.connection_closed()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # The handshake.

    def look(self, now: float) -> None:
        """Give up if the time is up."""
        due = self._since + self._server.settings.handshake_timeout
        if now < due:
            self._server.deadlines.file(self, due)
        else:
            self.abort()

    def _shake_hands(self) -> bool:
        try:
            self._engine.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()
            log.debug("TLS handshake failed: %s", error)
            self._server.deadlines.forget(self)
            if self._transport is not None:
                self._transport.close()
            return False
        self._flush()
        transport = self._transport
        if transport is None:
            return False
        self._server.deadlines.forget(self)
        peer = self._peer or peer_of(transport, self._listener)
        peer.scheme = "https"
        connection = Connection(self._server, self._listener)
        self._inner = connection
        connection.take_over(self, peer)
        return True

    def _hand_over_plain(self, data: bytes) -> None:
        """Whatever it is, it is no TLS: let others answer it, if it can be answered at all."""
        transport, server = self._transport, self._server
        if transport is None:
            return
        server.deadlines.forget(self)
        self._transport = None
        redirect = Redirect(server, self._listener)
        redirect.take_over(transport, self._peer or peer_of(transport, self._listener))
        transport.set_protocol(redirect)
        redirect.data_received(data)

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._take())

    # Data.

    def _read(self) -> None:
        try:
            while self._transport is not None:
                data = self._decrypt(RECORD)
                if not data:
                    self._inner.eof_received()
                    return
                self._inner.data_received(data)
                if not self._incoming.pending and not self._engine.pending():
                    return
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            log.debug("TLS: %s", error)
            self.abort()

    # What Connection and WebSocket call: a transport.

    def write(self, data: Any) -> None:
        if self._transport is not None and data:
            self._encrypt(data)
            self._transport.write(self._take())

    def set_protocol(self, protocol: Any) -> None:
        self._inner = protocol

    def get_protocol(self) -> Any:
        return self._inner

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._engine
        if name == "sslcontext":
            return self._engine.context
        return self._transport.get_extra_info(name, default) if self._transport is not None else default

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            with suppress(ssl.SSLError):
                self._engine.unwrap()
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)
