"""The server of one loop: what its connections share, and how it starts, ticks, drains and ends.

Connections read its attributes on the hot path; everything that can be worked out once is worked out here. It serves
an application inside any running loop, with or without a master around it: it installs no signal handlers, forks
nothing and binds nothing.

    start() -> serving -> close_gate() -> stop(); ``drain`` takes it from one to the other
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import socket
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

from aioserve.http.forwarded import TrustedProxies, rewrite
from aioserve.http.parser import ParserPool
from aioserve.http.server_fields import ServerFields
from aioserve.observe.scoreboard import (
    ACCEPTING,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CONNECTIONS_TOTAL,
    HANDSHAKES,
    HANDSHAKES_FAILED,
    HANDSHAKES_RESUMED,
    HANDSHAKES_TOTAL,
    HEARTBEAT_NS,
    KTLS_TOTAL,
    LAG_NS,
    LAG_WORST_NS,
    MESSAGES_RECEIVED,
    MESSAGES_SENT,
    PHASE,
    QUEUE,
    REQUESTS,
    REQUESTS_TOTAL,
    WEBSOCKETS,
    WEBSOCKETS_TOTAL,
    Phase,
    Row,
    Scoreboard,
)
from aioserve.offloading.api import bind, offload, unbind
from aioserve.offloading.bound import REQUEST, Place
from aioserve.worker.admission import Admission, spare_descriptors
from aioserve.worker.connection import Connection
from aioserve.worker.deadlines import Deadlines
from aioserve.worker.gate import Gate, nobody
from aioserve.worker.lag import LagMeter
from aioserve.worker.parts import find_parser
from aioserve.worker.speakers import protocol_of
from aioserve.worker.waits import Wait, limits_of, resolution_of, ws_beat_of
from aioserve.worker.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Listener, Source
    from aioserve.errors import RequestError
    from aioserve.observe.access import Exchange, Session
    from aioserve.tls.credentials import Credentials
    from aioserve.types import Address, Message, Scope
    from aioserve.worker.gate import HandOn
    from aioserve.worker.handshakes import Handshakes
    from aioserve.worker.mount import Mount
    from aioserve.worker.peer import Peer
    from aioserve.worker.secure_socket import SocketTls
    from aioserve.worker.settings import Settings
    from aioserve.worker.stealing import Stealing

log = logging.getLogger("aioserve")

#: The extensions of ASGI that are served, and one of our own: the last http.request of a chunked body with trailers
#: carries them as "trailers", a list of pairs as in "headers". http.response.debug, which is not meant for production,
#: is there at --log-level debug and writes to the log.
EXTENSIONS: Final = (
    "http.response.pathsend", "http.response.zerocopysend", "http.response.trailers", "http.response.early_hint",
    "http.request.trailers",
)  # fmt: skip


#: Eager tasks run the application at once; one that never waits never sees the scheduler.
EAGER: Final = sys.version_info >= (3, 12)

# The annotations of asyncio.Task know eager_start only from Python 3.12 on.
Task: Final[Any] = asyncio.Task


class AccessRecorder(Protocol):
    """Who writes the access log."""

    def record(self, exchange: Exchange, /) -> None: ...
    def record_session(self, session: Session, /) -> None: ...


class InFlight(Protocol):
    """What an application is started for: a request, or a WebSocket."""

    @property
    def mount(self) -> Mount: ...
    @property
    def scope(self) -> Scope: ...
    @property
    def started(self) -> float: ...
    @property
    def sent_bytes(self) -> int: ...
    async def receive(self) -> Message: ...
    async def send(self, message: Message) -> None: ...
    @property
    def gone(self) -> bool: ...
    def leave(self) -> None: ...
    def finished(self, task: asyncio.Task[Any], /) -> None: ...


@final
class Server:
    """One per loop. See the module's docstring for the order of calls."""

    def __init__(
        self,
        settings: Settings,
        *,
        enter: Callable[[Scope], Mount],
        access: AccessRecorder | None,
        row: Row | None = None,
    ) -> None:
        self.settings: Settings = settings
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        #: Completes a scope with root_path and state, and returns the mount of the application that it is for.
        self.enter: Callable[[Scope], Mount] = enter
        self.access: AccessRecorder | None = access
        self.context: contextvars.Context = contextvars.copy_context()
        self.limits = settings.limits
        self.parsers: ParserPool = ParserPool(find_parser(settings.parser))
        name, extra = b"aioserve" if settings.server_header else None, list(settings.extra_headers)
        self.fields: ServerFields = ServerFields(server=name, extra=extra)
        #: The same on connections with TLS.
        self.secure_fields: ServerFields = (
            ServerFields(server=name, extra=extra, hsts=settings.hsts) if settings.hsts else self.fields
        )
        #: What every HTTP scope says under "extensions" (ASGI, Extensions). Each request has a copy, but the empty
        #: dicts in it are everybody's: five new ones were 4 % of the instructions of a plain request.
        self.extensions: dict[str, Any] = {name: {} for name in EXTENSIONS}
        self.extensions["aioserve.offload"] = offload
        if log.isEnabledFor(logging.DEBUG):
            self.extensions["http.response.debug"] = {}
        self.waits: list[float] = limits_of(settings)
        self.longest_wait: float = settings.keep_alive_timeout
        self.deadlines: Deadlines = Deadlines(resolution_of(settings), self.loop.time())
        self.draining: bool = False
        self.requests: int = 0
        self.requests_total: int = 0
        self.rejected: int = 0
        #: Counted by the cycles: what they have written since one of them last gave way to others.
        self.streamed: int = 0
        self.websockets: int = 0
        self.websockets_total: int = 0
        self.messages_received: int = 0
        self.messages_sent: int = 0
        #: How often a WebSocket is looked at, in seconds.
        self.ws_beat: float = ws_beat_of(settings)
        self.connections: int = 0
        self.connections_total: int = 0
        self.request_limit: float = settings.limit_concurrency or math.inf
        self.admission: Admission = Admission(self.loop, settings.limit_connections or spare_descriptors())
        #: Servers of other loops of this process, which have the limits in common with this one.
        self._siblings: tuple[Server, ...] = ()
        self._proxies: TrustedProxies = TrustedProxies(settings.trusted, host=settings.forwarded_host)
        self._cells: memoryview = (row or Scoreboard(1).row(0, 0)).cells
        self._tasks: dict[asyncio.Task[Any], InFlight] = {}
        self._gate: Gate | None = None
        #: Accepts for siblings; set before ``start``.
        self.stealing: Stealing | None = None
        #: Whether the worker of another slot has left, so that its queue is left to those who have its socket, too.
        self.has_left: Callable[[int], bool] = nobody
        #: Lets nobody begin to connect any more (``Acceptor.refuse``), where no master does; set before ``start``.
        self.refuse: Callable[[], None] | None = None
        #: What connections to https listeners are shown; set before ``start`` if there are any.
        self.credentials: Credentials | None = None
        #: Those under way on this loop; None without credentials.
        self.handshakes: Handshakes | None = None
        self._on_sockets: SocketTls | None = None
        #: Takes a connection to an https listener whose first bytes are none of TLS's: called with its transport, the
        #: listener, who the client is, and these bytes. It is counted: whatever protocol it puts there calls
        #: ``connection_closed`` when it is lost. None: it is closed.
        self.plain_on_tls: Callable[[asyncio.Transport, Listener, Peer, bytes], None] | None = None
        #: Puts whoever speaks behind a handshake on its transport, if that is no ``Connection``; set before ``start``.
        self.follow: Callable[[asyncio.Transport, Listener, Peer], None] | None = None
        #: The cells of processes of this server that speak TLS for it, if there are any; set before ``start``.
        self.terminators: Sequence[memoryview] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._beat_due: float = 0.0
        #: Set once the gate is closed and nothing is left: no connection, no application that runs on.
        self.quiet: asyncio.Event = asyncio.Event()
        self._rejected_said: int = 0
        self._lag: LagMeter = LagMeter(self.loop.time())
        #: Called at every beat with the loop's time and by how much the beat was late.
        self.at_beats: list[Callable[[float, float], None]] = []

    # What connections call.

    def connection_opened(self) -> None:
        self.connections += 1
        self.connections_total += 1
        cells = self._cells
        cells[CONNECTIONS] = self.connections
        cells[CONNECTIONS_TOTAL] = self.connections_total
        self.admission.opened(self.connections)

    def connection_closed(self) -> None:
        self.connections -= 1
        self._cells[CONNECTIONS] = self.connections
        if self.draining:
            self._look_for_quiet()
        else:
            self.admission.closed(self.connections)

    def is_full(self) -> bool:
        """Whether no further request may begin; asked when this loop alone has reached ``request_limit``.

        Two loops that ask at the same time may both have a no: the limit is kept to within the number of loops.
        """
        requests = self.requests + sum(sibling.requests for sibling in self._siblings)
        return requests >= self.settings.limit_concurrency

    def fields_for(self, peer: Peer) -> ServerFields:
        """What the server adds to responses to ``peer``."""
        return self.secure_fields if peer.scheme == "https" else self.fields

    def trusts(self, client: Address | None) -> bool:
        """Whether what ``client`` (None: a unix peer) says of the client behind it counts."""
        return self.settings.proxy_headers and self._proxies.trusts(client[0] if client else None)

    def rewrite(self, scope: Scope) -> None:
        """Put the client that a trusted proxy speaks for into ``scope``."""
        rewrite(scope, self._proxies)

    def websocket_opened(self) -> None:
        self.websockets += 1
        self.websockets_total += 1

    def websocket_closed(self) -> None:
        self.websockets -= 1

    def run(self, cycle: InFlight) -> None:
        """Run the application, as far as it goes without waiting where tasks can be eager."""
        self.requests += 1
        self.requests_total += 1
        # A context of its own: what an application sets is seen by nobody else, also when it was started from within
        # the task of the request before.
        context = self.context.copy()
        if Place.binding:
            context.run(REQUEST.set, cycle)
        coroutine = cycle.mount.app(cycle.scope, cycle.receive, cycle.send)
        if EAGER:
            task = Task(coroutine, loop=self.loop, name="request", context=context, eager_start=True)
            if task.done():
                self.requests -= 1
                cycle.finished(task)
                return
        else:
            task = Task(coroutine, loop=self.loop, name="request", context=context)
        # Loops hold their tasks only weakly.
        self._tasks[task] = cycle
        self._cells[REQUESTS] = self.requests
        task.add_done_callback(self._application_returned)

    def refused(self, client: str, error: RequestError) -> None:
        """A request that could not be served: the peer's fault, so a line at info, and one for all when it is ours."""
        if error.status == 503:
            return
        log.info("%s - refused with %d: %s", client, error.status, error.reason)

    def stalled(self, client: str) -> None:
        log.info("%s - closed: it has read next to nothing for %g s", client, self.settings.write_timeout)

    # What offloaded calls ask.

    def find(self, task: asyncio.Task[Any] | None) -> InFlight | None:
        """The request of ``task``; None for one that has not waited yet."""
        return None if task is None else self._tasks.get(task)

    # What the worker calls.

    def take_part(self, siblings: Sequence[Server]) -> None:
        """One of several loops: the limit on requests is that of all, and others see to that on connections."""
        self._siblings = tuple(sibling for sibling in siblings if sibling is not self)
        self.admission.limit = 1 << 30
        if self.settings.limit_concurrency:
            self.request_limit = 0

    def take(self, listener: Listener, sock: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere; its socket does not block."""
        assert self._gate is not None, "start() comes first"
        self._gate.take(listener, sock)

    @property
    def departed(self) -> int:
        """Of the connections that were given to ``take``, how many are no more. Other threads may read it.

        Never too many: what is counted twice meanwhile is counted as open.
        """
        broken = self._gate.broken if self._gate is not None else 0
        return broken + self.connections_total - self.connections

    async def start(self, listeners: Sequence[Source], *, backlog: int) -> None:
        """Accept and serve. Returns once the listeners are registered with the loop."""
        bind(self)
        self._beat_due = self.loop.time()
        self._tick()
        self._cells[CONNECTIONS_LIMIT] = self.admission.limit
        connect = protocol_of(self)
        if self.handshakes is not None and self.settings.ktls:
            from aioserve.worker.secure_socket import SocketTls

            self._on_sockets = SocketTls(self.handshakes)
        self._gate = Gate(
            self.loop,
            listeners,
            connect,
            backlog=backlog,
            tell=self._say_accepting,
            places=self._places,
            attach=self.attach,
        )
        self._gate.stealing = self.stealing
        self.admission.begin(self._gate)
        await self._gate.open()
        self._cells[PHASE] = Phase.READY

    def enter_phase(self, phase: Phase) -> None:
        self._cells[PHASE] = phase

    async def close_gate(self, *, take_queue: bool) -> None:
        """Accept no more and close each connection after its response, or once it has been quiet for a while.

        ``take_queue``: what waits in the kernel's queues is served, too. ``quiet`` is set when all have gone.
        """
        self.fields.closing = self.secure_fields.closing = True
        linger = self.settings.drain_linger
        self.waits[Wait.FIRST] = min(self.waits[Wait.FIRST], linger)
        self.waits[Wait.IDLE] = min(self.waits[Wait.IDLE], linger)
        if self.refuse is not None:
            self.refuse()
        if self._gate is not None:
            await self._gate.close(take_queue=take_queue, last=self.has_left)
        self.draining = True
        self.deadlines.now = self.loop.time()
        for timed in self.deadlines:
            timed.look(self.deadlines.now)
        self._look_for_quiet()

    def in_flight(self) -> list[tuple[asyncio.Task[Any], InFlight]]:
        """The applications that run, each with its request or WebSocket; those that never wait are never seen here."""
        return list(self._tasks.items())

    def open_cycles(self) -> list[InFlight]:
        """Requests without a complete response, and WebSockets, also of an application that has not waited yet."""
        found: list[InFlight] = []
        for timed in self.deadlines:
            if isinstance(timed, Connection):
                if timed.cycle is not None:
                    found.append(timed.cycle)
            elif isinstance(timed, WebSocket) and not timed.cycle.returned:
                found.append(timed.cycle)
        return found

    def abort_connections(self) -> int:
        """Close every connection at once; how many had not taken all of their response."""
        unsent = 0
        for timed in self.deadlines:
            connection = cast("Connection", timed)
            unsent += isinstance(connection, (Connection, WebSocket)) and connection.holds_unsent
            connection.abort()
        return unsent

    def attach(self, listener: Listener) -> HandOn | None:
        """What serves the connections of a listener by their sockets; None: the loop's transports do."""
        if self._on_sockets is None or listener.scheme != "https" or listener.sock.family == socket.AF_UNIX:
            return None
        return self._on_sockets.connect

    def stop(self) -> None:
        """Stop ticking. The server is of no more use."""
        if self._on_sockets is not None:
            self._on_sockets.close()
        if self._timer is not None:
            self._timer.cancel()
        unbind(self)
        self._publish()

    def _places(self) -> int:
        return self.admission.limit - self.connections

    def _say_accepting(self, accepting: bool) -> None:
        self._cells[ACCEPTING] = accepting

    def _look_for_quiet(self) -> None:
        if not self.connections and not self._tasks:
            self.quiet.set()

    def _application_returned(self, task: asyncio.Task[Any]) -> None:
        cycle = self._tasks.pop(task)
        self.requests -= 1
        self._cells[REQUESTS] = self.requests
        cycle.finished(task)
        if self.draining:
            self._look_for_quiet()

    # The timer.

    def _tick(self) -> None:
        """Beat: publish the counters and the loop's lag, renew the Date, look at what is due."""
        now = self.loop.time()
        cells = self._cells
        cells[HEARTBEAT_NS] = time.monotonic_ns()
        late = max(now - self._beat_due, 0.0)
        cells[LAG_NS] = int(late * 1e9)
        cells[LAG_WORST_NS] = int(self._lag.add(now, late) * 1e9)
        self._publish()
        if self.settings.date_header:
            date = formatdate(usegmt=True).encode()
            self.fields.set_date(date)
            if self.secure_fields is not self.fields:
                self.secure_fields.set_date(date)
        if self.rejected != self._rejected_said:
            log.warning(
                "%d requests were answered with 503: the limit on concurrency is reached",
                self.rejected - self._rejected_said,
            )
            self._rejected_said = self.rejected
        if self.deadlines.advance(now):
            self.loop.call_soon(self._look_on)
        if self._gate is not None:
            self.admission.look(self.connections, now)
            cells[QUEUE] = self._gate.waiting()
        for act in self.at_beats:
            act(now, late)
        self._beat_due = now + self.deadlines.resolution
        self._timer = self.loop.call_at(self._beat_due, self._tick)

    def _look_on(self) -> None:
        if self.deadlines.go_on():
            self.loop.call_soon(self._look_on)

    def _publish(self) -> None:
        cells = self._cells
        cells[REQUESTS] = self.requests
        cells[REQUESTS_TOTAL] = self.requests_total
        cells[WEBSOCKETS] = self.websockets
        cells[WEBSOCKETS_TOTAL] = self.websockets_total
        cells[MESSAGES_RECEIVED] = self.messages_received
        cells[MESSAGES_SENT] = self.messages_sent
        handshakes = self.handshakes
        if handshakes is not None:
            cells[HANDSHAKES] = handshakes.under_way
            cells[HANDSHAKES_TOTAL] = handshakes.completed
            cells[HANDSHAKES_RESUMED] = handshakes.resumed
            cells[HANDSHAKES_FAILED] = handshakes.failed
            cells[KTLS_TOTAL] = handshakes.by_kernel
