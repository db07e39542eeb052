"""Plain HTTP where TLS is wanted: at a port that is there for redirects, and at one that speaks TLS.

A ``Redirect`` is the protocol of such a connection. It reads one request with the reader and the limits that all have,
answers it with 308, so that methods and bodies are kept (RFC 9110 15.4.9), and closes: what comes next comes to another
port, or to the same one in TLS. No application hears of it.

    waiting --request--> answered, and closed
            --no whole head in time--> 408
            --no request, or one that names no host--> 400
            --nothing at all in time, the drain--> closed without an answer

At a port that speaks TLS a client is there by mistake, a person most likely: the redirect is to the same port, and what
is not even HTTP is not answered.
"""

from __future__ import annotations

import asyncio
import logging
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast, final

from aioserve.errors import RequestError
from aioserve.http.location import location
from aioserve.http.reader import RequestReader, Stage
from aioserve.http.server_fields import plain_response
from aioserve.worker.deadlines import after_reading
from aioserve.worker.peer import Peer, peer_of
from aioserve.worker.unsent import half_close
from aioserve.worker.waits import Wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.accept.base import Listener
    from aioserve.http.head import Head
    from aioserve.types import Header, Scope
    from aioserve.worker.deadlines import Timed
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

_MOVED: Final = 308
_NO_HOST: Final = "this port answers with a redirect to https, and the request does not say to which host"
_SPEAKS_TLS: Final = "this port speaks TLS, and this was plain HTTP; ask for https:// instead of http://"

# The first bytes of a request: a method, as far as it has come.
_HTTP: Final = re.compile(rb"[A-Z]+(?: |\Z)")


@final
class _Redirected:
    """One request and its answer, for the access log."""

    __slots__ = ("ended", "first_byte", "scope", "sent_bytes", "started", "status")

    def __init__(self, scope: Scope, status: int, sent_bytes: int, started: float) -> None:
        self.scope: Scope = scope
        self.status: int = status
        self.sent_bytes: int = sent_bytes
        self.started: float = started
        self.first_byte: float = perf_counter()
        self.ended: float = self.first_byte


@final
class Redirect(asyncio.Protocol):
    """One connection. Made by the loop's listener, or by the protocol that has read its first bytes (``take_over``)."""

    __slots__ = (
        "_answered", "_listener", "_peer", "_reader", "_server", "_since", "_transport", "_unread",
        "_waiting", "bucket",
    )  # fmt: skip

    def __init__(self, server: Server, listener: Listener) -> None:
        self.bucket: set[Timed] | None = None
        self._server: Server = server
        self._listener: Listener = listener
        self._reader: RequestReader = RequestReader(self, server.parsers, server.limits)
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: Wait = Wait.FIRST
        self._since: float = server.deadlines.now
        self._answered: bool = False
        # The request has a body, which nobody wants.
        self._unread: bool = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.connection_opened()
        transport = cast("asyncio.Transport", transport)
        self.take_over(transport, peer_of(transport, self._listener))

    def take_over(self, transport: asyncio.Transport, peer: Peer) -> None:
        """Instead of ``connection_made``: another protocol has opened this connection and read what came first."""
        self._transport = transport
        self._peer = peer
        self._await(Wait.FIRST)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._transport = None
        self._server.deadlines.forget(self)
        self._reader.detach()
        self._server.connection_closed()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        if self._misplaced and self._waiting is Wait.FIRST and _HTTP.match(data) is None:
            log.debug("%s - closed: it speaks neither TLS nor HTTP", self._peer)
            self.abort()
            return
        try:
            hanging = self._reader.feed(data)
        except RequestError as error:
            if not self._answered:  # else the mistake is in the body, which is not wanted anyway
                self._refuse(error)
            return
        if self._reader.stage is Stage.DEAD:
            self._end(unread=self._unread or self._reader.overrun)
        elif hanging and self._waiting is Wait.FIRST:
            self._await(Wait.HEAD)

    def eof_received(self) -> bool:
        return False

    # What the reader calls.

    def on_request(self, head: Head) -> None:
        started = perf_counter()
        # At a port of TLS the client has the right host and port, and the wrong scheme.
        port = None if self._misplaced else self._server.settings.redirect_port
        target = location(head, port)
        if target is None:
            raise RequestError(400, _SPEAKS_TLS if self._misplaced else _NO_HOST)
        self._unread = head.length != 0
        to_head = head.line.method == "HEAD"
        text = f"moved to {target.decode('latin-1')}"
        self._answer(_MOVED, text, head_request=to_head, extra=b"location: %b\r\n" % target)
        self._reader.close()
        self._record(head, 0 if to_head else len(text) + 1, started)

    def on_body(self, data: bytes) -> None:
        """The request has its answer."""

    def on_end(self, trailers: Sequence[Header]) -> None:
        """The same."""

    # What the server calls.

    def look(self, now: float) -> None:
        """Act if the time for what this connection waits for is up, else be looked at again later."""
        server = self._server
        due = self._since + server.waits[self._waiting] + server.deadlines.resolution
        if now < due:
            server.deadlines.file(self, due)
        elif self._waiting is Wait.HEAD:
            self._reader.close()
            self._refuse(RequestError(408, "the request head did not come in time"))
        elif self._waiting is Wait.FIRST:
            # A request may lie unread in the socket: it is read in this turn of the loop, and has its answer.
            after_reading(server.loop, self._close_if_quiet)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once; what the kernel has taken over still arrives."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def _misplaced(self) -> bool:
        return self._listener.scheme == "https"

    def _close_if_quiet(self) -> None:
        if self._waiting is Wait.FIRST:
            self.abort()

    def _refuse(self, error: RequestError) -> None:
        self._server.refused(str(self._peer), error)
        text = _SPEAKS_TLS if self._misplaced else error.reason
        self._answer(error.status, text, head_request=error.to_head)
        self._end(unread=True)

    def _answer(self, status: int, text: str, *, head_request: bool, extra: bytes = b"") -> None:
        self._answered = True
        if self._transport is not None:
            fields = self._server.fields
            self._transport.write(plain_response(status, text, fields, head_request=head_request, extra=extra))

    def _end(self, *, unread: bool) -> None:
        """Close; where the client may still be sending, behind a FIN and some time to read the answer (9112 9.6)."""
        transport = self._transport
        if transport is None:
            return
        if not unread or not transport.can_write_eof():
            self._await(Wait.CLOSING)
            transport.close()
        elif half_close(transport):
            self._await(Wait.LINGER)

    def _await(self, wait: Wait) -> None:
        server = self._server
        self._waiting = wait
        self._since = server.deadlines.now
        server.deadlines.file(self, self._since + server.waits[wait])

    def _record(self, head: Head, sent_bytes: int, started: float) -> None:
        access, peer = self._server.access, self._peer
        if access is None or peer is None:
            return
        line = head.line
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": line.http_version,
            "method": line.method,
            "raw_path": line.raw_path,
            "query_string": line.query,
            "headers": head.headers,
            "client": peer.client,
        }
        access.record(_Redirected(scope, _MOVED, sent_bytes, started))


def answer_plain(server: Server, transport: asyncio.Transport, listener: Listener, peer: Peer, data: bytes) -> None:
    """Take over a connection to a listener that speaks TLS, which began with ``data`` and that is no TLS."""
    redirect = Redirect(server, listener)
    redirect.take_over(transport, peer)
    transport.set_protocol(redirect)
    redirect.data_received(data)
