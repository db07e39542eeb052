"""Connections that begin with a PROXY header: who may send one, the wait for it, and what becomes of what it says.

An ``Introduction`` is the protocol of such a connection until its header is there; then a ``Connection`` takes its
place at the transport, knows the client from the header, and reads what came behind it in the same turn of the loop.
Nobody else knows that there was a header: without --proxy-protocol no line of this module runs.

    waiting --header--> a Connection takes over
            --a peer that may not speak for others, no header, none in time, the drain--> closed without an answer

From then on the client of the header is the peer: X-Forwarded-* and Forwarded are believed if ``forwarded_allow_ips``
names that client, such as a further proxy in front of the load balancer; never because the load balancer is trusted,
which passes on whatever its clients have sent. Where it relays for a client that it cannot name (UNKNOWN, UNSPEC, a
unix socket) the scope shows its own address, and nothing that is forwarded is believed.

A client that came over TLS has the scheme https and ASGI's ``tls`` extension. It shows the client's name only if the
load balancer has verified the certificate, and nothing of certificates themselves, which are not in the header.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

from aioserve.errors import PreambleError
from aioserve.http.forwarded import TrustedProxies
from aioserve.http.proxy_protocol import Command, Mode, PreambleReader
from aioserve.tls.extension import cipher_suites, distinguished_name, extension
from aioserve.worker.deadlines import after_reading
from aioserve.worker.peer import Peer, peer_of
from aioserve.worker.speakers import speaker
from aioserve.worker.waits import Wait

if TYPE_CHECKING:
    from aioserve.accept.base import Listener
    from aioserve.http.proxy_protocol import Endpoint, Preamble
    from aioserve.http.proxy_tlvs import ClientTls, Facts
    from aioserve.types import Address
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: Seconds between two lines about peers that may not speak for others: a port scan must not fill the log.
STRANGERS_SECONDS: Final = 60.0


class Following(Protocol):
    """A protocol that takes over a connection which has been introduced."""

    def take_over(self, transport: asyncio.Transport, peer: Peer, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...


class Reader(Protocol):
    """Reads one header, of whatever form."""

    rest: bytes

    def feed(self, data: bytes, /) -> Any: ...


class Host(Protocol):
    """Who receives connections that are introduced: ``Reception``, or ``Trusted`` where this server itself does it."""

    server: Server

    def reader(self) -> Reader: ...
    def admits(self, peer: Peer, transport: asyncio.Transport, /) -> bool: ...
    def client(self, header: Any, introducer: Peer, /) -> Peer: ...
    def following(self, listener: Listener, /) -> Following: ...


@final
class Reception:
    """What the introductions of one server share: the versions, and who may speak for others."""

    def __init__(self, server: Server) -> None:
        settings = server.settings
        self.server: Server = server
        self.mode: Mode = Mode(settings.proxy_protocol)
        self._speakers: TrustedProxies = TrustedProxies(settings.proxy_protocol_from)
        self._names: str = ", ".join(settings.proxy_protocol_from) or "nobody"
        self._said: float = -STRANGERS_SECONDS
        self._strangers: int = 0
        cipher_suites()  # some milliseconds now rather than within a client's first request

    def connect(self, listener: Listener) -> Introduction:
        """The protocol of a new connection."""
        return Introduction(self, listener)

    def reader(self) -> PreambleReader:
        return PreambleReader(self.mode)

    def following(self, listener: Listener) -> Following:
        """Who speaks behind the header."""
        return speaker(self.server, listener)

    def client(self, preamble: Preamble, balancer: Peer) -> Peer:
        """Who is meant by a header."""
        client = _tcp(preamble.source)
        return Peer(
            client or balancer.client,
            _tcp(preamble.destination) or balancer.local,
            balancer.scheme if preamble.facts.tls is None else "https",
            extensions=extensions(preamble.facts),
            anonymous=client is None and preamble.command is Command.PROXY,
        )

    def admits(self, peer: Peer, transport: asyncio.Transport) -> bool:  # noqa: ARG002  # others ask it
        """Whether ``peer`` may speak for others; says so in the log if not."""
        if self._speakers.trusts(peer.client[0] if peer.client else None):
            return True
        self._strangers += 1
        now = self.server.loop.time()
        if now >= self._said + STRANGERS_SECONDS:
            log.info(
                "%s - closed: it may not send PROXY headers, --proxy-protocol-from names %s; add its address if it is "
                "your load balancer, and let nobody else connect here (%d closed since the last line like this)",
                peer,
                self._names,
                self._strangers,
            )
            self._said, self._strangers = now, 0
        return False


@final
class Introduction(asyncio.Protocol):
    """One connection whose header has not come yet."""

    __slots__ = ("_begun", "_listener", "_peer", "_reader", "_reception", "_since", "_transport", "bucket")

    def __init__(self, reception: Host, listener: Listener) -> None:
        self.bucket: set[Timed] | None = None
        self._reception: Host = reception
        self._listener: Listener = listener
        self._reader: Reader = reception.reader()
        self._begun: bool = False
        self._since: float = reception.server.deadlines.now
        self._transport: asyncio.Transport | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        server = self._reception.server
        server.connection_opened()
        self._peer = peer_of(self._transport, self._listener)
        if self._reception.admits(self._peer, self._transport):
            server.deadlines.file(self, self._since + server.waits[Wait.FIRST])
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        server = self._reception.server
        self._transport = None
        server.deadlines.forget(self)
        server.connection_closed()

    def data_received(self, data: bytes) -> None:
        # Nobody reads for a connection that is being closed.
        if self._transport is None or self._transport.is_closing():
            return
        self._begun = True
        try:
            header = self._reader.feed(data)
        except PreambleError as error:
            self._refuse(str(error))
        else:
            if header is not None:
                self._hand_over(self._transport, header)

    def eof_received(self) -> bool:
        # Before the first byte it is a probe of the port and nothing to talk about.
        if self._begun:
            self._refuse("it has left within the PROXY header")
        return False

    # What the server calls.

    def look(self, now: float) -> None:
        """Give up if the time is up, else be looked at again later."""
        server = self._reception.server
        due = self._since + server.waits[Wait.FIRST] + server.deadlines.resolution
        if now < due:
            server.deadlines.file(self, due)
        else:
            # The header may lie unread in the socket: it is read in this turn of the loop.
            after_reading(server.loop, self._give_up)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self) -> None:
        server = self._reception.server
        if self._transport is None:
            return
        if server.draining:
            self.abort()
        else:
            self._refuse(f"no whole PROXY header within {server.settings.header_timeout:g} s")

    def _refuse(self, reason: str) -> None:
        """Close without an answer: the peer is no HTTP client, and is told soonest by its connection's end."""
        if self._transport is not None and not self._transport.is_closing():
            log.info("%s - closed: %s", self._peer, reason)
            self.abort()

    def _hand_over(self, transport: asyncio.Transport, header: Any) -> None:
        """Put whoever follows in this protocol's place. Its count among the server's connections goes with it."""
        reception = self._reception
        reception.server.deadlines.forget(self)
        self._transport = None
        peer = reception.client(header, self._peer)
        following = reception.following(self._listener)
        following.take_over(transport, peer)
        transport.set_protocol(cast("asyncio.Protocol", following))
        if self._reader.rest:
            following.data_received(self._reader.rest)


def _tcp(endpoint: Endpoint | None) -> Address | None:
    """What ASGI can show. The path of a unix socket on another machine is not: the connection's own address stays."""
    return None if endpoint is None or endpoint[1] is None else (endpoint[0], endpoint[1])


def extensions(facts: Facts) -> dict[str, dict[str, object]] | None:
    """What a scope says of these facts: ASGI's ``tls``, and the rest under a name of ours."""
    found: dict[str, dict[str, object]] = {}
    if facts.tls is not None:
        found["tls"] = tls_extension(facts.tls)
    if facts.alpn or facts.authority or facts.unique_id:
        found["aioserve.proxy_protocol"] = {
            "alpn": facts.alpn,
            "authority": facts.authority,
            "unique_id": facts.unique_id,
        }
    return found or None


def tls_extension(tls: ClientTls) -> dict[str, object]:
    """ASGI's ``tls`` extension, version 0.2, as far as a PROXY header can tell."""
    error = None
    if tls.client_presented and not tls.client_verified:
        error = f"the load balancer could not verify it (OpenSSL's result {tls.verify})"
    name = tls.client_name if tls.client_verified else None
    return extension(
        server_cert=None,
        version=tls.version,
        cipher=tls.cipher,
        client_name=distinguished_name(((("commonName", name),),)) if name else None,
        client_error=error,
    )
