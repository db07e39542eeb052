"""TLS handshakes: one loop's, how many there may be, how long they may take, and whose turn it is.

A ``Handshake`` is the protocol of a connection until its handshake is complete; then a ``Secure`` takes its place at
the socket's transport, and whoever speaks HTTP is put on top of that. ``Handshakes`` is what those of one loop share.

    waiting --a step--> waiting --the last--> Secure takes over
            --the client's mistake, or ours--> an alert, closed
            --too slow, too many, the drain--> closed
            --a first byte that is not TLS's--> ``plain_on_tls`` takes over

A step of a handshake is arithmetic, 0.1 to 1 ms of it, a hundred times what a request costs. So that a burst of new
clients does not keep the loop from everybody else, no more than ``TURN`` is spent on steps in one turn of the loop;
what comes beyond that has its turn later, first come, first served.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import OrderedDict, deque
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol, cast, final

from aioserve.tls import extension
from aioserve.tls.failures import explain
from aioserve.worker.connection import Connection
from aioserve.worker.deadlines import after_reading
from aioserve.worker.peer import Peer, peer_of
from aioserve.worker.secure import Secure
from aioserve.worker.unsent import half_close
from aioserve.worker.waits import LINGER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.accept.base import Listener
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.secure_socket import SecureSocket
    from aioserve.worker.server import Server

    Follow = Callable[[asyncio.Transport, Listener, Peer], None]

log = logging.getLogger("aioserve")

#: Seconds of one turn of the loop that steps of handshakes may take together: a few at least, and less than anybody
#: notices. The last one may end later than that.
TURN: Final = 0.002

#: Nobody is given up for want of room within so many seconds after it has come: after a restart of something in front
#: thousands of clients come at once, and are none the slower for that.
GRACE: Final = 1.0

#: The first byte of every client that speaks TLS: a record of the type "handshake" (RFC 8446 5.1).
HANDSHAKE: Final = 0x16

#: Seconds between two lines about failures of one kind: a scan must not fill the log.
SAID_SECONDS: Final = 60.0


class UnderWay(Protocol):
    """A handshake as the limits know it."""

    begun: float

    @property
    def waits_for_client(self) -> bool: ...
    def step(self) -> None: ...
    def give_up(self, reason: str) -> None: ...


@final
class Handshakes:
    """All of one loop. ``follow`` puts whoever speaks next on a connection; without it that is a ``Connection``."""

    def __init__(self, server: Server, follow: Follow | None = None) -> None:
        self.server: Server = server
        self.follow: Follow = follow or self._serve
        self.completed: int = 0
        self.resumed: int = 0
        self.failed: int = 0
        #: Of the completed, those whose connections the kernel encrypts what is sent on.
        self.by_kernel: int = 0
        self._open: OrderedDict[UnderWay, None] = OrderedDict()
        # With fewer places for connections than that, half of them remain for those who are through.
        self._limit: int = min(server.settings.limit_handshakes or 1 << 30, max(server.admission.limit // 2, 1))
        self._queue: deque[UnderWay] = deque()
        # How much of this turn has been spent, and whether the next one has been announced.
        self._spent: float = 0.0
        self._announced: bool = False
        self._said: dict[str, float] = {}
        self._silent: dict[str, int] = {}
        extension.cipher_suites()  # some milliseconds now rather than within the first handshake
        server.at_beats.append(self._beat)

    def connect(self, listener: Listener) -> Handshake:
        """The protocol of a new connection."""
        return Handshake(self, listener)

    @property
    def under_way(self) -> int:
        return len(self._open)

    # What handshakes tell.

    def begin(self, handshake: UnderWay) -> None:
        """One more; the oldest are given up if that is too many, but none that is about to make progress."""
        self._open[handshake] = None
        self._keep_limit(handshake.begun)

    def _beat(self, now: float, late: float) -> None:  # noqa: ARG002  # as the server calls it
        """With every place taken nobody new can come, for whom the oldest would be given up."""
        if self.server.connections >= self.server.admission.limit:
            self._keep_limit(now)

    def _keep_limit(self, now: float) -> None:
        while len(self._open) > self._limit:
            oldest = next(iter(self._open))
            if now - oldest.begun < GRACE or not oldest.waits_for_client:
                return
            oldest.give_up(f"{self._limit} others are under way, the limit, and it is the oldest")

    def take_turn(self, handshake: UnderWay) -> bool:
        """Let it make its next step, if there is time left in this turn of the loop; else later, and False."""
        if self._spent >= TURN:
            self._queue.append(handshake)
            return False
        self._step(handshake)
        if not self._announced:
            self._announced = True
            self.server.loop.call_soon(self._next_turn)
        return True

    def complete(self, handshake: UnderWay, *, resumed: bool) -> None:
        self.over(handshake)
        self.completed += 1
        self.resumed += resumed

    def fail(self, handshake: UnderWay, client: str, reason: str, *, telling: bool = False) -> None:
        """Counted, and a line; with ``telling`` one at info, if there was none like it a moment ago."""
        self.over(handshake)
        self.failed += 1
        if not telling:
            log.debug("%s - TLS handshake failed: %s", client, reason)
            return
        now = self.server.loop.time()
        kind = reason.partition(":")[0]
        if now < self._said.get(kind, -SAID_SECONDS) + SAID_SECONDS:
            self._silent[kind] = self._silent.get(kind, 0) + 1
            log.debug("%s - TLS handshake failed: %s", client, reason)
            return
        self._said[kind] = now
        silent = self._silent.pop(kind, 0)
        more = f" ({silent} more since the last line like this)" if silent else ""
        log.info("%s - TLS handshake failed: %s%s", client, reason, more)

    def over(self, handshake: UnderWay) -> None:
        """It is no more under way."""
        self._open.pop(handshake, None)

    # Turns.

    def _step(self, handshake: UnderWay) -> None:
        begun = perf_counter()
        handshake.step()
        self._spent += perf_counter() - begun

    def _next_turn(self) -> None:
        self._spent = 0.0
        queue = self._queue
        try:
            while queue and self._spent < TURN:
                self._step(queue.popleft())
        finally:
            # Also behind a step that raises: without another turn the others in the queue would wait for ever.
            self._announced = self._spent > 0.0 or bool(queue)
            if self._announced:
                self.server.loop.call_soon(self._next_turn)

    def _serve(self, transport: asyncio.Transport, listener: Listener, peer: Peer) -> None:
        connection = Connection(self.server, listener)
        transport.set_protocol(connection)
        connection.take_over(transport, peer)


@final
class Handshake(asyncio.Protocol):
    """One connection whose handshake is not complete yet.

    ``on_socket`` is its transport if OpenSSL works on the socket itself: then what was received is OpenSSL's to read,
    and this is called with nothing.
    """

    __slots__ = (
        "_begun", "_due", "_engine", "_incoming", "_listener", "_on_socket", "_outgoing", "_over", "_peer", "_shared",
        "_transport", "begun", "bucket", "waits_for_client",
    )  # fmt: skip

    def __init__(self, shared: Handshakes, listener: Listener, on_socket: SecureSocket | None = None) -> None:
        server = shared.server
        self.bucket: set[Timed] | None = None
        self.begun: float = server.loop.time()
        #: No step of ours is due.
        self.waits_for_client: bool = True
        self._shared: Handshakes = shared
        self._listener: Listener = listener
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._incoming: ssl.MemoryBIO = ssl.MemoryBIO()
        self._outgoing: ssl.MemoryBIO = ssl.MemoryBIO()
        # Made with the first step: most of what a connection takes in memory, and a fifth of its time.
        self._engine: ssl.SSLObject | SecureSocket | None = None
        self._on_socket: SecureSocket | None = on_socket
        # The first byte has come; there is nothing more to be done here.
        self._begun: bool = False
        self._over: bool = False
        settings = server.settings
        self._due: float = self.begun + (settings.drain_linger if server.draining else settings.handshake_timeout)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._begin(cast("asyncio.Transport", transport))
        self._shared.server.connection_opened()

    def take_over(self, transport: asyncio.Transport, peer: Peer) -> None:
        """Instead of ``connection_made``: another protocol has opened this connection and read what came first."""
        self._peer = peer
        self._begin(transport)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._shared.server.deadlines.file(self, self._due)
        self._shared.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        server = self._shared.server
        if not self._over:
            self._over = True
            if self._begun:
                self._shared.fail(self, self._client, "the client has left")
            else:
                # A probe of the port.
                self._shared.over(self)
        self._transport = None
        server.deadlines.forget(self)
        server.connection_closed()

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if self._over or transport is None:
            return
        if not self._begun:
            if data[0] != HANDSHAKE:
                self._hand_to_plain(transport, data)
                return
            self._begun = True
        self._incoming.write(data)
        if not self._shared.take_turn(self):
            # What comes meanwhile waits in the kernel.
            self.waits_for_client = False
            transport.pause_reading()

    def eof_received(self) -> bool:
        return False

    # What the server calls.

    def look(self, now: float) -> None:
        """Give up if the time is up, else be looked at again later. Once the server drains there is less of it."""
        server = self._shared.server
        if server.draining:
            self._due = min(self._due, now + server.settings.drain_linger)
        if now < self._due + server.deadlines.resolution:
            server.deadlines.file(self, self._due)
        elif self._over:
            self.abort()
        else:
            # Its last bytes may lie unread in the socket: they are read in this turn of the loop.
            after_reading(server.loop, self._time_out)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def give_up(self, reason: str) -> None:
        """Close, because of something that is not the client's last bytes."""
        self._over = True
        self._shared.fail(self, self._client, reason)
        self.abort()

    def _time_out(self) -> None:
        server = self._shared.server
        if not self.waits_for_client:
            server.deadlines.file(self, self._due)
        elif self._transport is not None and not self._over:
            if server.draining:
                self.give_up("it was not complete when the server stopped")
            else:
                self.give_up(f"it was not complete within {server.settings.handshake_timeout:g} s")

    # The handshake.

    def step(self) -> None:
        """Go on as far as what has come allows."""
        transport, engine = self._transport, self._engine
        if transport is None or self._over or transport.is_closing():
            return
        if not self.waits_for_client:
            self.waits_for_client = True
            transport.resume_reading()
        if engine is None:
            credentials = self._shared.server.credentials
            assert credentials is not None
            engine = self._engine = self._on_socket or credentials.engine(self._incoming, self._outgoing)
        try:
            engine.do_handshake()
        except ssl.SSLWantReadError:
            self._flush(transport)
        except ssl.SSLError as error:
            # OpenSSL has written the alert that tells the client.
            self._flush(transport)
            self._over = True
            reason, telling = explain(error)
            self._shared.fail(self, self._client, reason, telling=telling)
            if isinstance(engine, ssl.SSLObject):
                self._linger(transport)
            else:
                transport.close()
        else:
            self._flush(transport)
            self._over = True
            self._hand_over(transport, engine)

    def _flush(self, transport: asyncio.Transport) -> None:
        if self._outgoing.pending:
            transport.write(self._outgoing.read())

    def _linger(self, transport: asyncio.Transport) -> None:
        """Send a FIN behind the alert, and give the client time to read it, dropping what it still sends.

        With TLS 1.3 the request may come together with the certificate that is refused. Closing then would be answered
        with a reset, which may destroy the alert on its way, as with responses (RFC 9112 9.6).
        """
        deadlines = self._shared.server.deadlines
        self._due = deadlines.now + LINGER_SECONDS
        deadlines.file(self, self._due)
        half_close(transport)

    def _hand_over(self, transport: asyncio.Transport, engine: ssl.SSLObject | SecureSocket) -> None:
        """Put whoever speaks next in this protocol's place, on a Secure unless the transport is as good as one.

        Its count among the server's connections goes with it.
        """
        shared = self._shared
        shared.complete(self, resumed=bool(engine.session_reused))
        shared.server.deadlines.forget(self)
        peer = self._find_peer(transport)
        peer.scheme = "https"
        credentials = shared.server.credentials
        assert credentials is not None
        self._transport = None
        secure = (
            Secure(shared.server, transport, engine, self._incoming, self._outgoing)
            if isinstance(engine, ssl.SSLObject)
            else engine
        )
        tls = secure.get_extra_info("ssl_object")
        # Now, which is a hundredth of what the handshake has cost, rather than in each request.
        peer.extensions = {**(peer.extensions or {}), "tls": extension.of(tls, credentials.shown(tls))}
        shared.follow(secure, self._listener, peer)
        secure.read_on()

    def _hand_to_plain(self, transport: asyncio.Transport, data: bytes) -> None:
        """It is something else than TLS, mostly plain HTTP: whoever has an answer takes this protocol's place."""
        self._over = True
        shared = self._shared
        shared.fail(self, self._client, "the client does not speak TLS")
        answer = shared.server.plain_on_tls
        if answer is None:
            self.abort()
            return
        shared.server.deadlines.forget(self)
        self._transport = None
        answer(transport, self._listener, self._find_peer(transport), data)

    def _find_peer(self, transport: asyncio.Transport) -> Peer:
        if self._peer is None:
            self._peer = peer_of(transport, self._listener)
        return self._peer

    @property
    def _client(self) -> str:
        return str(self._find_peer(self._transport)) if self._transport is not None else "unknown"
