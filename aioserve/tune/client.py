"""The built-in client: one process without an event loop, which puts load on a port of this machine.

Three kinds of load:

- ``kept``: as many connections as asked for, each with one request at a time, as fast as answers come (a closed loop).
- ``fresh``: the same, with a new connection for every request.
- ``paced``: requests at a fixed rate, due at times that do not depend on answers (an open loop). A connection is
  renewed after every RENEW requests, so that some of the requests wait to be accepted.

Why without an event loop: a bare selector is the cheapest client that Python can write, and what the client costs is
missing at the server, which shares the machine with it.
"""

from __future__ import annotations

import resource
import select
import selectors
import socket
import time
from array import array
from collections import deque
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, Final, final

from aioserve.tune.answers import Answer, NotAnAnswer
from aioserve.tune.measured import Measured, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioserve.tune.answers import Question

#: Paced: a connection carries so many requests, then another is opened. Browsers open six for a page of fifty files.
RENEW: Final = 8

#: Seconds for a connection to be made or for anything at all to arrive.
PATIENCE: Final = 10.0

_CHUNK: Final = 256 * 1024


@final
class _Connection:
    __slots__ = ("answer", "asked", "began", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answer = Answer()
        self.began = 0.0
        self.asked = 0


@final
class Client:
    """Call one of ``kept``, ``fresh`` and ``paced``, once. A server that takes no connection any more ends the run."""

    def __init__(self, address: tuple[str, int], questions: Sequence[Question], connections: int) -> None:
        host = f"{address[0]}:{address[1]}"
        self._address: Final = address
        self._connections: Final = connections
        self._asking: Final = cycle([question.encode(host) for question in questions])
        self._parting: Final = cycle([question.encode(host, closes=True) for question in questions])
        self._selector: Final = selectors.DefaultSelector()
        self._open: Final[set[_Connection]] = set()
        self._latencies: Final = array("d")
        self._ended = 0  # requests that were answered or have failed
        self._errors: Final[dict[str, int]] = {}

    def kept(self, seconds: float) -> Measured:
        began = time.perf_counter()
        end = began + seconds
        try:
            for _ in range(self._connections):
                self._ask(self._connect(), next(self._asking))
            while (now := time.perf_counter()) < end:
                for connection in self._answered(end - now):
                    self._ask(connection or self._connect(), next(self._asking))
        except OSError as error:
            self._count(_name(error))
        return self._result(began, time.perf_counter())

    def fresh(self, seconds: float) -> Measured:
        began = time.perf_counter()
        end = began + seconds
        try:
            for _ in range(self._connections):
                self._ask_once()
            while (now := time.perf_counter()) < end:
                for connection in self._answered(end - now):
                    if connection is not None:
                        self._close(connection)
                    self._ask_once()
        except OSError as error:
            self._count(_name(error))
        return self._result(began, time.perf_counter())

    def paced(self, seconds: float, rate: float) -> Measured:
        """Requests answered after the end of the time still count, for as long again at most."""
        began = time.perf_counter()
        deadline = began + seconds + min(seconds, PATIENCE)
        total = max(int(rate * seconds), 1)
        sent, unmade, idle = 0, self._connections, deque[_Connection]()
        late = False  # the next request is due, and no connection was free
        try:
            while self._ended < total and (now := time.perf_counter()) < deadline:
                due = began + sent / rate
                waits = sent == total or due > now
                if not waits and (idle or unmade):
                    # The connection is a part of what the request waits for.
                    connection = idle.popleft() if idle else self._connect()
                    unmade -= not connection.asked
                    last = connection.asked == RENEW - 1
                    self._ask(connection, next(self._parting if last else self._asking))
                    # Waiting for a connection counts from when it was due; that this process woke late does not.
                    connection.began = due if late else now
                    sent, late = sent + 1, False
                    continue
                late = not waits
                until = due if sent < total and not late else deadline
                for answered in self._answered(until - now, precisely=True):
                    if answered is None:
                        unmade += 1
                    else:
                        idle.append(answered)
        except OSError as error:
            self._count(_name(error))
        return self._result(began, began + seconds, behind=total - sent)

    # One request.

    def _connect(self) -> _Connection:
        # On this machine a connection is made at once, unless the backlog is full.
        sock = socket.create_connection(self._address, PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self._open.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection

    def _ask(self, connection: _Connection, request: bytes) -> None:
        connection.began = time.perf_counter()
        connection.asked += 1
        # Blocking, with a time limit: a request fits into the socket's buffer, or the server reads it meanwhile. When
        # the connection is broken it is readable, and reading says why.
        with suppress(ConnectionError):
            connection.sock.sendall(request)

    def _ask_once(self) -> None:
        began = time.perf_counter()
        connection = self._connect()
        self._ask(connection, next(self._parting))
        connection.began = began

    def _answered(self, timeout: float, *, precisely: bool = False) -> Iterator[_Connection | None]:
        """The connections whose answer has come by then; None for each that has been closed."""
        if precisely:
            # The selector itself counts milliseconds on Linux, and a paced request is due in microseconds.
            select.select([self._selector.fileno()], [], [], timeout)
            timeout = 0
        for key, _ in self._selector.select(timeout):
            connection: _Connection = key.data
            try:
                data = connection.sock.recv(_CHUNK)
                complete = connection.answer.feed(data) if data else connection.answer.end()
            except OSError as error:
                self._fail(connection, _name(error))
                yield None
                continue
            except NotAnAnswer as error:
                self._fail(connection, str(error))
                yield None
                continue
            if complete:
                yield self._finish(connection, ended=not data)
            elif not data:
                self._fail(connection, "closed without an answer")
                yield None

    def _finish(self, connection: _Connection, *, ended: bool) -> _Connection | None:
        self._latencies.append(time.perf_counter() - connection.began)
        self._ended += 1
        answer = connection.answer
        if answer.status >= 400:
            self._count(f"status {answer.status}")
        if answer.closes or ended:
            self._close(connection)
            return None
        connection.answer = Answer()
        return connection

    def _fail(self, connection: _Connection, why: str) -> None:
        self._ended += 1
        self._count(why)
        self._close(connection)

    def _count(self, why: str) -> None:
        self._errors[why] = self._errors.get(why, 0) + 1

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        self._open.discard(connection)
        connection.sock.close()

    def _result(self, began: float, ended: float, *, behind: int = 0) -> Measured:
        for connection in list(self._open):
            self._close(connection)
        self._selector.close()
        ordered = sorted(self._latencies)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Measured(
            requests=len(ordered),
            seconds=ended - began,
            p50=percentile(ordered, 0.5),
            p99=percentile(ordered, 0.99),
            p999=percentile(ordered, 0.999),
            client_cpu=usage.ru_utime + usage.ru_stime,
            errors=dict(self._errors),
            behind=behind,
        )


def _name(error: OSError) -> str:
    return type(error).__name__


def ask(address: tuple[str, int], question: Question) -> Answer:
    """One request on a connection of its own. Raises ``OSError`` or ``NotAnAnswer``."""
    answer = Answer()
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(question.encode(f"{address[0]}:{address[1]}", closes=True))
        while True:
            data = sock.recv(_CHUNK)
            if answer.feed(data) if data else answer.end():
                return answer
            if not data:
                raise NotAnAnswer("the connection was closed without an answer")
