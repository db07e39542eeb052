"""One request and its response: the ``receive`` and ``send`` that the application is given.

The cycle is where the ASGI contract meets the connection. It buffers the body between the reader and ``receive``, hands
``send`` to the writer and what comes back to the connection, and judges what the application has left behind when it
returns. It knows nothing of sockets, parsers or time limits: those are the connection's.

    made by Connection.on_request -> attached --response complete, or the client gone--> detached
    the application may run on after that: ``finished`` is called once, when it has returned or raised
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.errors import AppError, ClientDisconnected, OffloadFull
from aioserve.http.tables import CONTINUE
from aioserve.http.writer import BODY, DONE, HEAD, START, ResponseWriter
from aioserve.offloading.bound import OVERLOADED
from aioserve.worker.faults import report, report_overload
from aioserve.worker.files import part_of_file, part_of_path, send_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.http.head import Head
    from aioserve.types import Header, Message, Scope
    from aioserve.worker.connection import Connection
    from aioserve.worker.mount import Mount

log = logging.getLogger("aioserve")

#: Whether the application knows that it should come to an end: ``leave`` has asked it to, ``receive`` has told it.
NOT_ASKED: Final = 0
ASKED: Final = 1
TOLD: Final = 2

#: Body bytes that wait for ``receive`` before the connection stops reading; uvicorn pauses at the same 64 KiB.
BODY_HIGH_WATER: Final = 64 * 1024

#: Bytes of unfinished responses that are written in one turn of the loop before others have theirs; and what a piece
#: counts for on top of its own, so that small ones have a turn after some 250, a few milliseconds.
STREAM_LIMIT: Final = 1024 * 1024
PIECE_WEIGHT: Final = 4096


@final
class Cycle:
    """Times are monotonic seconds; only ``started`` is known when nobody logs them, and then coarse."""

    __slots__ = (
        "_arrival",
        "_body",
        "_body_complete",
        "_body_size",
        "_continue",
        "_farewell",
        "_handed_over",
        "_trailers",
        "connection",
        "ended",
        "first_byte",
        "gone",
        "mount",
        "scope",
        "started",
        "writer",
    )

    def __init__(
        self,
        connection: Connection,
        mount: Mount,
        scope: Scope,
        writer: ResponseWriter,
        head: Head,
        started: float,
        logged: bool,
    ) -> None:
        #: None once the response is complete or the client has gone.
        self.connection: Connection | None = connection
        #: The application's place among those of this server.
        self.mount: Mount = mount
        self.scope: Scope = scope
        self.writer: ResponseWriter = writer
        #: The client left before the response was complete, or was sent away.
        self.gone: bool = False
        self.started: float = started
        # 0.0 while the first byte is to come, -1.0 when nobody wants to know.
        self.first_byte: float = 0.0 if logged else -1.0
        self.ended: float = 0.0
        # None until a piece has come.
        self._body: list[bytes] | None = None
        self._body_size: int = 0
        self._body_complete: bool = head.length == 0
        self._handed_over: bool = False
        self._farewell: int = NOT_ASKED
        # Fields behind a chunked body, apart from those of the head: whoever merged them would let a client append
        # what a front end has removed (RFC 9110 6.5.1).
        self._trailers: Sequence[Header] = ()
        self._continue: bool = head.expects_continue
        self._arrival: asyncio.Event | None = None

    # What the access log reads.

    @property
    def status(self) -> int:
        """The status of the response; 499, as nginx has it, when the client left before there was one."""
        return self.writer.status or (499 if self.gone else 500)

    @property
    def sent_bytes(self) -> int:
        return self.writer.sent

    # What the connection calls.

    def feed(self, data: bytes) -> bool:
        """Take a piece of the body; False once reading should pause until ``receive`` has caught up."""
        if self._body is None:
            # A client that sends its body unasked no longer waits for a 100 (RFC 9110 10.1.1).
            self._continue = False
            self._body = []
        self._body.append(data)
        self._body_size += len(data)
        if self._arrival is not None:
            self._arrival.set()
        return self._body_size < BODY_HIGH_WATER

    def end(self, trailers: Sequence[Header] = ()) -> None:
        """The body is complete."""
        self._body_complete = True
        self._trailers = trailers
        self._continue = False
        self.wake()

    def wake(self) -> None:
        """Let whoever waits in ``receive`` look again."""
        if self._arrival is not None:
            self._arrival.set()

    @property
    def has_room(self) -> bool:
        """Whether more of the body may come before ``receive`` has taken some."""
        return self._body_size < BODY_HIGH_WATER

    def detach(self, gone: bool) -> None:
        """The response is complete, or the client is ``gone``: wake whoever waits in ``receive``."""
        self.connection = None
        self.gone = gone
        if self._arrival is not None:
            self._arrival.set()

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for a 100 that it was not sent, so that its body may never come."""
        return self._continue

    @property
    def nothing_sent(self) -> bool:
        """Whether the response can still become another one."""
        return self.writer.stage is START or self.writer.stage is HEAD

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI ``receive``: http.request until the body has been handed over, then http.disconnect."""
        while True:
            if self._body or (self._body_complete and not self._handed_over):
                return self._take_body()
            connection = self.connection
            if connection is None or connection.ended_by_peer or (self._farewell and self._handed_over):
                self._farewell = TOLD
                return {"type": "http.disconnect"}
            if self._continue:
                # RFC 9110 10.1.1: the body is wanted now. A final status sent before this replaces the 100.
                self._continue = False
                if self.nothing_sent:
                    connection.write(CONTINUE)
            if self._arrival is None:
                self._arrival = asyncio.Event()
            self._arrival.clear()
            if not self._body_complete:
                connection.await_body()
            await self._arrival.wait()

    async def send(self, message: Message) -> None:
        """ASGI ``send``. Raises ``ClientDisconnected`` when the client has gone, ``AppError`` for a wrong message."""
        connection = self.connection
        if connection is None:
            self._send_late(message)
            return
        writer = self.writer
        try:
            data = writer.send(message)
        except AppError as error:
            report(self, error)
            raise
        if data:
            if not self.first_byte:
                self.first_byte = perf_counter()
            connection.write(data)
            if writer.stage is DONE:
                connection.response_complete(self)
                return
            server = connection.server
            server.streamed += len(data) + PIECE_WEIGHT
            if server.streamed > STREAM_LIMIT or connection.closing:
                # An application that only sends would keep the loop for ever if the client keeps up with it, since
                # asyncio writes at once; or if the transport has failed, which then drops what is written and never
                # pauses, until the loop has a turn to say that the connection is lost.
                server.streamed = 0
                await asyncio.sleep(0)
                if self.gone:
                    raise ClientDisconnected("the client has closed the connection")
        elif data is None:
            await self._send_rare(message, connection)
            return
        elif writer.stage is DONE:
            # The end of a body whose length was said before is no bytes.
            connection.response_complete(self)
            return
        elif writer.status == 500 and OVERLOADED in self.scope:
            # A framework's own answer to OffloadFull, of which nothing has been written yet.
            self._say_overloaded(connection)
            return
        if connection.write_resumed is not None:
            await connection.write_resumed.wait()
            if self.gone:
                raise ClientDisconnected("the client has closed the connection")

    def _say_overloaded(self, connection: Connection) -> None:
        report_overload(self, "answered with 503")
        connection.application_failed(self, 503)

    def _send_late(self, message: Message) -> None:
        """A message after the response: trailers that nobody wants are swallowed, all others raise."""
        if self.gone:
            raise ClientDisconnected("the client has closed the connection")
        try:
            if self.writer.send(message) is None:
                self.writer.refuse(str(message["type"]))
        except AppError as error:
            report(self, error)
            raise

    async def _send_rare(self, message: Message, connection: Connection) -> None:
        """The messages of extensions that bytes alone do not make."""
        kind = message["type"]
        try:
            if kind == "http.response.pathsend":
                if self.writer.stage is not HEAD:
                    self.writer.refuse(kind)
                with part_of_path(message) as part:
                    await send_part(self, connection, part)
            elif kind == "http.response.zerocopysend":
                if self.writer.stage is not HEAD and self.writer.stage is not BODY:
                    self.writer.refuse(kind)
                with part_of_file(message) as part:
                    await send_part(self, connection, part)
            elif kind == "http.response.debug" and kind in self.scope.get("extensions", ()):
                log.debug("%s: %r", self, message.get("info"))
            else:
                self.writer.refuse_kind(kind)
        except AppError as error:
            report(self, error)
            raise

    def _take_body(self) -> Message:
        body = b""
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            self._body_size = 0
        self._handed_over = self._body_complete
        if not self._body_complete and self.connection is not None:
            self.connection.resume_reading()
        if self._trailers and self._body_complete:
            return {"type": "http.request", "body": body, "more_body": False, "trailers": self._trailers}
        return {"type": "http.request", "body": body, "more_body": not self._body_complete}

    # What the server calls.

    def leave(self) -> None:
        """Ask the application to come to an end: once it has its body, ``receive`` gives http.disconnect.

        The client is still there, so what it sends goes on being written.
        """
        self._farewell = self._farewell or ASKED
        self.wake()

    def finished(self, task: asyncio.Task[Any]) -> None:
        """The application has returned or raised: judge what it has left behind."""
        error: BaseException | None
        try:
            error = task.exception()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        connection = self.connection
        if connection is None:
            # The response is complete or the client gone; ASGI says that send() may then raise an OSError, so that
            # one that comes back is nobody's mistake.
            if error is not None and not (self.gone and isinstance(error, (OSError, asyncio.CancelledError))):
                report(self, error)
            return
        if error is None and self._farewell is TOLD:
            if self.nothing_sent and not connection.ended_by_peer:
                connection.application_failed(self, 503)  # it left because the server does, and the client waits
            else:
                connection.application_left(self)
            return
        if isinstance(error, OffloadFull) and self.nothing_sent:
            self._say_overloaded(connection)
            return
        if isinstance(error, ClientDisconnected) and connection.ended_by_peer:
            # The client has sent its FIN, and an offloaded call was ended for that.
            connection.application_left(self)
            return
        if error is None:
            done = "without sending a response" if self.writer.stage is START else "before its response was complete"
            error = AppError(f"the application returned {done}")
        # Nothing but the end of a drain cancels an application.
        connection.application_failed(self, 503 if isinstance(error, asyncio.CancelledError) else 500)
        report(self, error)

    def __str__(self) -> str:
        """How the log names it: the application, and the request."""
        return f"{self.mount.name}: {self.scope['method']} {self.scope['path']!r}"
