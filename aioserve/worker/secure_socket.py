"""TLS by OpenSSL on the socket itself, which kernel TLS needs: what is under a ``Secure`` with --ktls.

To the ``Secure`` above it, a ``SecureSocket`` is the transport of a connection and OpenSSL's engine in one. Above, a
connection is shaken hands with, limited, read and closed as every other one; what differs is here: when the socket has
something to read or room for more, what has been written and has not been taken yet, and the end.

No ciphertext goes through Python: ``Secure`` is called with nothing when there is something to read, and reads it from
OpenSSL; what it encrypts, it writes. Where the kernel was given the key (``get_extra_info("kernel_tls")``), plaintext
may also be put into the socket by sendfile(2), once nothing is left in this buffer.

Plain HTTP on this port is not OpenSSL's: if the first byte is no handshake's, what comes and goes is as plain as it is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast, final

from aioserve.tls import ktls
from aioserve.worker.secure import Secure

if TYPE_CHECKING:
    from aioserve.accept.base import Listener
    from aioserve.tls.credentials import Credentials
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: What OpenSSL is given in one go: the plaintext of one record (RFC 8446 5.1). Of more it would take a part, and tell
#: nobody how much, so that a client that reads slowly would look like one that does not read.
RECORD: Final = 16384

#: Pause writing above this, as asyncio and uvloop do, and resume at a quarter of it. Bytes.
HIGH_WATER: Final = 64 * 1024

#: The first byte of a TLS record with a handshake in it (RFC 8446 5.1).
HANDSHAKE: Final = b"\x16"

#: What is read at once of what is not TLS, or dropped.
DISCARD: Final = 64 * 1024

# What SSLSocket does not let through: it has ideas of its own about flags and about shutdown(2).
_recv: Final = socket.socket.recv
_send: Final = socket.socket.send
_shutdown: Final = socket.socket.shutdown


@final
class SocketTls:
    """What the connections of one server share."""

    def __init__(self, server: Server, credentials: Credentials) -> None:
        self._server: Final = server
        self._credentials: Final = credentials
        self._said = False

    def connect(self, listener: Listener, sock: socket.socket) -> None:
        """Serve an accepted connection. Raises ``OSError`` if it is broken already."""
        engine = self._credentials.engine_on(sock)
        try:
            transport = SecureSocket(self._server.loop, engine, self)
        except OSError:
            engine.close()
            raise
        transport.start(Secure(self._server, listener, transport))

    def settled(self, engine: ssl.SSLSocket) -> bool:
        """After a handshake: whether the kernel encrypts what is sent on this connection."""
        if ktls.sends(engine):
            self._server.encrypted_by_kernel()
            return True
        cipher = engine.cipher()
        if cipher is not None and ktls.OFFLOADED in cipher[0] and not self._said:
            self._said = True
            log.warning(
                "--ktls: %s has not given the kernel the key of a connection with %s: it may be built without kernel "
                "TLS (enable-ktls). Connections are encrypted in this process",
                ssl.OPENSSL_VERSION,
                cipher[0],
            )
        return False


@final
class SecureSocket(asyncio.Transport):
    """One connection; ``start`` begins."""

    __slots__ = (
        "_buffer", "_closing", "_ended", "_fd", "_high", "_known", "_loop", "_lost", "_low", "_more", "_paused", "_plain", "_protocol",
        "_quiet", "_secured", "_shared", "_size", "_started", "_stuck", "_writing", "engine",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: ssl.SSLSocket, shared: SocketTls) -> None:
        """Raises ``OSError`` if the client has gone already."""
        self._known: dict[str, Any] = {
            "socket": engine,
            "peername": engine.getpeername(),
            "sockname": engine.getsockname(),
        }
        super().__init__(self._known)
        #: OpenSSL, for whoever asks it who the client is.
        self.engine: ssl.SSLSocket = engine
        # The last record was a full one: more may be there to be read at once.
        self._more: bool = False
        self._loop: asyncio.AbstractEventLoop = loop
        self._shared: SocketTls = shared
        self._fd: int = engine.fileno()
        self._protocol: Any = None
        # The first byte has come, and it was not a handshake's.
        self._started: bool = False
        self._plain: bool = False
        self._secured: bool = False
        # What waits for room in the socket.
        self._buffer: deque[memoryview] = deque()
        self._size: int = 0
        self._high: int = HIGH_WATER
        self._low: int = HIGH_WATER // 4
        self._paused: bool = False
        # Whether the loop tells when there is room; OpenSSL may want that to be able to read.
        self._writing: bool = False
        self._stuck: bool = False
        # Reading is paused.
        self._quiet: bool = False
        # We have said that no more comes; the connection is to end with the last byte; it has ended.
        self._ended: bool = False
        self._closing: bool = False
        self._lost: bool = False
        if engine.family != socket.AF_UNIX:
            engine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self, protocol: Any) -> None:
        """Begin with ``protocol``."""
        self._protocol = protocol
        protocol.connection_made(self)
        if not self._closing:
            self._loop.add_reader(self._fd, self._readable)

    # What the loop calls.

    def _readable(self) -> None:
        # In order of frequency.
        if self._secured:
            self._read()
        elif self._ended:
            self._drop()
        elif self._started:
            self._read_plain()
        else:
            self._shake_hands()
        if self._buffer and not self._writing:  # OpenSSL wanted to read before it could write
            self._flush()

    def _writable(self) -> None:
        if self._stuck:
            # OpenSSL had something to say before it could read on.
            self._stuck = False
            self._readable()
        if not self._lost:
            self._flush()

    def _read(self) -> None:
        """Pass on records, up to a limit for the sake of others."""
        left = TURN
        while left > 0 and not self._quiet and not self._closing:
            data = self._ask(self.engine.read, RECORD)
            if data is None:
                return
            if not data:
                self._leave()
                return
            self._protocol.data_received(data)
            # perf: behind a full record there is mostly another one. Behind a request there is not, and to be told so
            # costs two system calls and an exception.
            if len(data) < RECORD and not self.engine.pending():
                return
            left -= len(data)

    def _shake_hands(self) -> None: ...

    def _ask(self, call: Any, *arguments: int) -> Any:
        """What OpenSSL says, or None if that has to wait or never comes."""
        try:
            return call(*arguments)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            self._stuck = True
            self._await_room()
        except ssl.SSLError as error:
            self._break(error)
        except OSError as error:
            self._fail(error)
        return None

    def _read_plain(self) -> None:
        try:
            data = _recv(self.engine, DISCARD)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._leave()

    def _drop(self) -> None:
        """Take what comes behind our own end, and look for the peer's.

        Not by OpenSSL, which takes data at this point for a mistake.
        """
        try:
            if _recv(self.engine, DISCARD):
                return
        except BlockingIOError:
            return
        except OSError:
            # EIO: the kernel decrypts, and this was an alert, the peer's close_notify.
            pass
        self._leave()

    def _leave(self) -> None:
        """The peer sends no more."""
        self._gone = True
        self._loop.remove_reader(self._fd)
        if not self._protocol.eof_received():
            self.close()

    def encrypt(self, data: Any) -> None:
        """Send ``data``, now as far as the socket takes it."""
        if self._closing or self._ended:
            return
        if not self._buffer and len(data) <= RECORD:
            try:
                self.engine.send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except OSError as error:
                self._fail(error)
                return
            else:
                return
        self._keep(data)
        self._flush()

    # A transport.

    def write(self, data: Any) -> None:
        """Send what is not encrypted: the answer to plain HTTP. Of TLS, ``Secure`` has no ciphertext to write."""
        if data and not self._closing:
            self._keep(data)
            self._flush()

    def _keep(self, data: Any) -> None:
        # Its owner may change it, and OpenSSL wants to be asked again for the same.
        self._buffer.append(memoryview(data if type(data) is bytes else bytes(data)))
        self._size += len(data)

    def _flush(self) -> None:
        """Send as much of the buffer as the socket takes, and see to what then is to happen."""
        buffer = self._buffer
        send = self.engine.send if not self._plain else self._send_plain
        try:
            while buffer:
                rest = buffer[0]
                sent = send(rest[:RECORD])
                self._size -= sent
                if sent == len(rest):
                    buffer.popleft()
                else:
                    buffer[0] = rest[sent:]
        except (ssl.SSLWantWriteError, BlockingIOError):
            self._await_room()
        except ssl.SSLWantReadError:
            self._await_no_room()
        except OSError as error:
            self._fail(error)
            return
        if not buffer:
            self._emptied()
        self._tell()

    def _send_plain(self, data: memoryview) -> int:
        return _send(self.engine, data)

    def _emptied(self) -> None:
        if self._closing:
            self._end()
        elif self._ended:
            self._half_close()
        elif not self._stuck:
            self._await_no_room()

    def _await_room(self) -> None:
        if not self._writing and not self._lost:
            self._writing = True
            self._loop.add_writer(self._fd, self._writable)

    def _await_no_room(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _tell(self) -> None:
        """Say whether more should be written."""
        if self._paused:
            if self._size <= self._low and not self._lost:
                self._paused = False
                self._protocol.resume_writing()
        elif self._size > self._high and not self._lost:
            self._paused = True
            self._protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low
        if not self._paused:
            self._tell()

    def get_write_buffer_size(self) -> int:
        return self._size

    def pause_reading(self) -> None:
        if not self._quiet:
            self._quiet = True
            if not self._closing:
                self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if self._quiet:
            self._quiet = False
            if not self._closing:
                self._loop.add_reader(self._fd, self._readable)
                if self._secured and self.pending():
                    self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._quiet and not self._closing:
            self._readable()

    # The end.

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send no more, and drop what still comes, until the peer ends it or somebody closes."""
        if not self._ended and not self._closing:
            self._ended = True
            if not self._buffer:
                self._half_close()

    def close(self) -> None:
        """End in good order once everything has been sent."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._fd)
            if not self._buffer:
                self._end()

    def abort(self) -> None:
        """End at once."""
        self._fail(None)

    def unwrap(self) -> None:
        """Nothing: what is in the buffer goes first, and then ``close`` or ``write_eof`` says it."""

    def _end(self) -> None:
        if self._said_goodbye():
            self._fail(None)

    def _half_close(self) -> None:
        if self._said_goodbye():
            self._await_no_room()
            _shutdown(self.engine, socket.SHUT_WR)

    def _said_goodbye(self) -> bool:
        """Send close_notify; False if there is no room for it yet."""
        if not self._secured:
            return True
        self._secured = False
        try:
            self.engine.unwrap()
        except ssl.SSLWantWriteError:
            self._secured = True
            self._await_room()
            return False
        except (OSError, ValueError):
            # It is sent, and the peer's is not waited for; or the connection is broken.
            pass
        return True

    def _fail(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._buffer.clear()
        self._size = 0
        self._loop.remove_reader(self._fd)
        self._await_no_room()
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: OSError | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._protocol = None
            self.engine.close()
