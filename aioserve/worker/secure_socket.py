"""TLS by OpenSSL on the socket itself, which kernel TLS needs: the transport of connections with --ktls.

``Secure`` works in memory, on top of the loop's transport; here OpenSSL reads and writes the socket, and this is the
transport, from the first byte to the last. Until the handshake is complete its protocol is a ``Handshake``, then
whoever speaks HTTP; to both it is what ``Secure`` would be. Where the kernel was given the key of what is sent
(``get_extra_info("kernel_tls")``), plaintext may also be put into the socket by sendfile(2), once nothing is left in
the buffer here.

    plain <--the first byte is not a handshake's-- new --OpenSSL has shaken hands--> secured
    secured --write_eof()--> ended: close_notify and FIN are sent, and what still comes is dropped
            --close()--> closing: what was written leaves, then close_notify and FIN
            --abort(), an error--> lost
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.tls import ktls, leftovers
from aioserve.tls.extension import peer_certificate
from aioserve.worker.handshakes import Handshake
from aioserve.worker.readiness import ENDED, READ, WRITE, Readiness

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.accept.base import Listener
    from aioserve.tls.credentials import Credentials
    from aioserve.worker.handshakes import Handshakes

log = logging.getLogger("aioserve")

#: What OpenSSL is given in one go: the plaintext of one record (RFC 8446 5.1). Of more it would send a part and tell
#: nobody how much, so that a client that reads slowly would look like one that does not read.
RECORD: Final = 16384

#: How much is read of one connection in a turn of the loop, in bytes, as of one on the loop's transport, and how much
#: is written: whoever takes a large body as fast as it is encrypted must not keep the loop from everybody else.
TURN: Final = 256 * 1024

#: Writing is paused above this many bytes, as asyncio and uvloop do it, and resumed at a quarter.
HIGH_WATER: Final = 64 * 1024

#: What is read in one go of what is not TLS, or dropped.
PLAIN: Final = 64 * 1024

#: The first byte of a record with a handshake in it (RFC 8446 5.1).
HANDSHAKE: Final = b"\x16"

# SSLSocket has its own, which refuse flags and forget OpenSSL.
_recv: Final = socket.socket.recv
_shutdown: Final = socket.socket.shutdown


@final
class SocketTls:
    """What the connections of one server share."""

    def __init__(self, handshakes: Handshakes) -> None:
        server = handshakes.server
        assert server.credentials is not None
        self.loop: asyncio.AbstractEventLoop = server.loop
        self.readiness: Readiness = Readiness(server.loop)
        self.credentials: Credentials = server.credentials
        self._handshakes: Handshakes = handshakes
        self._said: bool = False

    def connect(self, listener: Listener, sock: socket.socket) -> None:
        """Serve an accepted connection. Raises ``OSError`` if it is broken already."""
        transport = SecureSocket(self, sock)
        transport.start(Handshake(self._handshakes, listener, on_socket=transport))

    def close(self) -> None:
        """No connection is left."""
        self.readiness.close()

    def settle(self, engine: ssl.SSLSocket) -> bool:
        """After a handshake: whether the kernel encrypts what is sent on this connection."""
        if ktls.sends(engine):
            self._handshakes.by_kernel += 1
            return True
        cipher = engine.cipher()
        if not self._said and cipher is not None and ktls.OFFLOADED in cipher[0]:
            self._said = True
            log.warning(
                "--ktls: %s has not given the kernel the key of a connection with %s, so it may be built without "
                "kernel TLS (enable-ktls). Such connections are encrypted in this process",
                ssl.OPENSSL_VERSION,
                cipher[0],
            )
        return False


@final
class SecureSocket(asyncio.Transport):
    """One connection. ``start`` begins."""

    __slots__ = (
        "_buffer", "_closing", "_ended", "_fd", "_high", "_known", "_left", "_loop", "_lost", "_low", "_paused",
        "_plain", "_protocol", "_quiet", "_readiness", "_receive", "_secured", "_send", "_shared", "_size", "_sock",
        "_stuck", "_writing", "engine",
    )  # fmt: skip

    def __init__(self, shared: SocketTls, sock: socket.socket) -> None:
        """Raises ``OSError`` if the client has gone already."""
        # Asked now: later it may have gone, and who has no address passes for a peer on a unix socket.
        self._known: dict[str, Any] = {"peername": sock.getpeername(), "sockname": sock.getsockname(), "socket": sock}
        super().__init__(self._known)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: OpenSSL, once the first byte of a handshake has come: it is most of what a connection takes.
        self.engine: ssl.SSLSocket | None = None
        self._shared: SocketTls = shared
        self._loop: asyncio.AbstractEventLoop = shared.loop
        self._readiness: Readiness = shared.readiness
        self._sock: socket.socket = sock
        self._fd: int = sock.fileno()
        self._protocol: Any = None
        # How data leaves, without TLS as the socket's own send does it, and how plaintext comes.
        self._send: Callable[[bytes | memoryview], int] = functools.partial(socket.socket.send, sock)
        self._receive: Callable[[int], bytes] = sock.recv
        self._plain: bool = False
        self._secured: bool = False
        # What waits for room in the socket.
        self._buffer: deque[memoryview] = deque()
        self._size: int = 0
        self._high: int = HIGH_WATER
        self._low: int = HIGH_WATER // 4
        self._paused: bool = False
        # Somebody is to say when there is room; OpenSSL wants that before it can read.
        self._writing: bool = False
        self._stuck: bool = False
        # Reading is paused; the client has sent its end.
        self._quiet: bool = False
        self._left: bool = False
        self._ended: bool = False
        self._closing: bool = False
        self._lost: bool = False

    def start(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        self._watch()
        # The last, because this counts it: who cannot be watched (ENOSPC) has never been there.
        protocol.connection_made(self)

    # Reading.

    def _watch(self) -> None:
        """Wait for what there is to be waited for now."""
        # Of one that is lost the descriptor may be somebody else's. To read for one that cannot be read would be to be
        # told so in every turn.
        if not self._lost:
            reading = READ * (self.is_reading() and not self._stuck)
            self._readiness.watch(self._fd, self, reading | WRITE * self._writing | ENDED * self._left)

    def readable(self) -> None:
        try:
            # In order of frequency.
            if self._secured:
                self._read()
            elif self.engine is None or self._ended:
                self._read_plain()
            else:
                self._protocol.data_received(b"")
            if self._buffer and not self._writing:  # OpenSSL wanted to read before it could write
                self._flush()
        except BaseException:
            # Of the protocol; the loop says what it was, as of its own transports.
            self.abort()
            raise

    def _read(self) -> None:
        """Pass on records. OpenSSL takes one at a time, and it is read as a whole: what is left is in the socket."""
        left = TURN
        certain = False  # whether an error is this connection's own
        while left > 0 and self._secured and not self._quiet and not self._closing:
            try:
                data = self._receive(RECORD)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self._await_room_to_read()
                return
            except ssl.SSLEOFError:
                # FIN without a close_notify: HTTP says itself whether a request is complete (RFC 9112 9.8).
                data = b""
            except OSError as error:
                if not certain and leftovers.are_told(error):
                    certain = True
                    continue
                self._break(error)
                return
            if not data:
                self._leave()
                return
            self._protocol.data_received(data)
            # perf: behind a full record there is mostly another one. Behind a request there is none, and to be told so
            # would cost a system call and an exception.
            if len(data) < RECORD:
                return
            left -= len(data)

    def _read_plain(self) -> None:
        """What OpenSSL does not read: the first byte, plain HTTP, and what is dropped because it comes behind our end.

        The first byte is looked at and left: OpenSSL is called only if it is one of a handshake. What comes behind our
        close_notify OpenSSL would take for a mistake.
        """
        try:
            if not (self._plain or self._ended):
                self._plain = _recv(self._sock, 1, socket.MSG_PEEK) != HANDSHAKE
            data = _recv(self._sock, PLAIN) if self._plain or self._ended else HANDSHAKE
        except BlockingIOError:
            return
        except OSError as error:
            # EIO is an alert where the kernel decrypts, too: the client's close_notify.
            if error.errno != errno.EIO:
                self._fail(error)
                return
            data = b""
        if not data:
            self._leave()
        elif not self._ended:
            self._protocol.data_received(data)

    def ended(self) -> None:
        """The client has gone behind its end.

        Mostly sending tells that. But Linux 6.1, encrypting, has taken 65 MB more of a file for nobody.
        """
        self.abort()

    def _leave(self) -> None:
        """The client sends no more."""
        self._left = True
        self._watch()
        if not self._protocol.eof_received():
            self.close()

    def pause_reading(self) -> None:
        if not self._quiet:
            self._quiet = True
            self._watch()

    def resume_reading(self) -> None:
        if self._quiet:
            self._quiet = False
            self._watch()

    def read_on(self) -> None:
        """As ``Secure`` has it; here what has come is in the socket, and is told in the next turn."""

    def is_reading(self) -> bool:
        return not self._quiet and not self._left and not self._closing

    # The handshake, as ``Handshake`` asks for it.

    def do_handshake(self) -> None:
        """As OpenSSL does it. A connection that breaks has nothing to be read, until it is lost in the next turn."""
        try:
            engine = self.engine or self._put_openssl_on()
            engine.do_handshake()
        except ssl.SSLWantWriteError:
            self._await_room_to_read()
            raise ssl.SSLWantReadError from None
        except ssl.SSLError:
            raise
        except OSError as error:
            self._fail(error)
            raise ssl.SSLWantReadError from None
        self._secured = True
        # perf: past methods in Python that only call these; a read and a write through a socketpair: -1 of 15 us
        direct = engine._sslobj  # type: ignore[attr-defined]  # not in the annotations
        self._send, self._receive = direct.write, direct.read
        self._known.update(
            ssl_object=engine,
            sslcontext=engine.context,
            cipher=engine.cipher(),
            compression=engine.compression(),
            peercert=peer_certificate(engine),
            kernel_tls=self._shared.settle(engine),
        )

    def _put_openssl_on(self) -> ssl.SSLSocket:
        # If the client has gone, Python closes the descriptor.
        self._readiness.watch(self._fd, self, 0)
        engine = self._shared.credentials.engine_on(self._sock)
        self.engine = self._sock = self._known["socket"] = engine
        self._watch()
        return engine

    @property
    def session_reused(self) -> bool:
        return self.engine is not None and bool(self.engine.session_reused)

    # Writing.

    def write(self, data: Any) -> None:
        if not data or self._ended or self._closing:
            return
        if type(data) is not bytes:
            # Its owner may change it, and OpenSSL is asked again for the same, in the same place: with the kernel's
            # help it makes no copy.
            data = bytes(data)
        if self._secured and not self._buffer and len(data) <= RECORD:
            try:
                self._send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except OSError as error:
                if not leftovers.are_told(error):
                    self._break(error)
                    return
            else:
                return
        self._buffer.append(memoryview(data))
        self._size += len(data)
        if self._writing:
            self._tell()
        else:
            self._flush()

    def writable(self) -> None:
        if self._stuck:
            self._stuck = False
            self._watch()
            if self.is_reading():
                self.readable()
        if not self._lost:
            self._flush()

    def _flush(self, *, certain: bool = False) -> None:
        """Send as much as the socket and this turn of the loop take, and do what is to be done behind it.

        ``certain``: an error is this connection's own.
        """
        buffer, left = self._buffer, TURN
        try:
            while buffer and left > 0:
                rest = buffer[0]
                sent = self._send(rest[:RECORD])
                left -= sent
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
            if certain or not leftovers.are_told(error):
                self._break(error)
            else:
                self._flush(certain=True)
            return
        else:
            if buffer:
                self._await_room()
            else:
                self._flushed()
        self._tell()

    def _flushed(self) -> None:
        if self._closing:
            self._end()
        elif self._ended:
            self._half_close()
        elif not self._stuck:
            self._await_no_room()

    def _await_room(self) -> None:
        if not self._writing:
            self._writing = True
            self._watch()

    def _await_room_to_read(self) -> None:
        """OpenSSL has an answer to give before it goes on: nothing is read of who takes none."""
        self._stuck = self._writing = True
        self._watch()

    def _await_no_room(self) -> None:
        if self._writing:
            self._writing = False
            self._watch()

    def _tell(self) -> None:
        """Say whether more should be written."""
        if self._lost:
            return
        if self._paused:
            if self._size <= self._low:
                self._paused = False
                self._protocol.resume_writing()
        elif self._size > self._high:
            self._paused = True
            self._protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low
        if not self._paused:
            self._tell()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._size

    # The end.

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send close_notify and FIN behind what was written."""
        if not self._ended and not self._closing:
            self._ended = True
            if not self._buffer:
                self._half_close()

    def close(self) -> None:
        """Send what was written, close_notify and FIN; nothing is read any more."""
        if not self._closing:
            self._closing = True
            self._watch()
            if not self._buffer:
                self._end()

    def abort(self) -> None:
        self._fail(None)

    def is_closing(self) -> bool:
        return self._closing

    def _half_close(self) -> None:
        if self._said_goodbye():
            self._await_no_room()
            try:
                _shutdown(self._sock, socket.SHUT_WR)
            except OSError as error:  # ENOTCONN: the client has reset the connection, and nobody has said so yet
                self._fail(error)

    def _end(self) -> None:
        if self._said_goodbye():
            self._fail(None)

    def _said_goodbye(self) -> bool:
        """Send close_notify, once; False if there is no room for it yet."""
        if self._secured and self.engine is not None:
            try:
                self.engine.unwrap()
            except ssl.SSLWantWriteError:
                self._await_room()
                return False
            except ssl.SSLError:
                pass  # the client's close_notify has not come, which nobody waits for
            except OSError:
                leftovers.forget()
            self._secured = False
        return True

    def _break(self, error: OSError) -> None:
        """The client, or somebody between, has sent what cannot be: OpenSSL has sent the alert. Or it has gone."""
        if isinstance(error, ssl.SSLError):
            log.debug("%s - TLS: %s", self._known["peername"], error.reason or error)
        self._fail(error)

    def _fail(self, error: OSError | None) -> None:
        if self._lost:
            return
        if error is not None:
            leftovers.forget()
        self._lost = self._closing = True
        self._secured = False
        self._buffer.clear()
        self._size = 0
        self._readiness.watch(self._fd, self, 0)
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: OSError | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._protocol = None
            self._sock.close()

    # What else a transport can.

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol
