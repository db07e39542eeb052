"""One WebSocket as its application has it: ``receive`` and ``send``, and what becomes of it when that returns.

The cycle is where the ASGI contract meets the WebSocket, as ``cycle`` is for a request. It takes messages from the
frames' list, gives those of the application to the frames, and judges what the application has left behind. It knows
nothing of sockets or time limits.

The application learns of the end by one websocket.disconnect, behind the last message: with the peer's code, with 1005
if the peer gave none, with the code of the server's own close, and with 1006 if the connection was lost or never a
WebSocket. What it sends from then on raises ``ClientDisconnected``.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from aioserve.errors import AppError, ClientDisconnected, OffloadFull
from aioserve.http.writer import DONE, HEAD, ResponseWriter
from aioserve.http.ws_handshake import accepted
from aioserve.offloading.bound import LEAVING, left
from aioserve.worker.cycle import PIECE_WEIGHT, STREAM_LIMIT
from aioserve.worker.faults import report, report_overload

if TYPE_CHECKING:
    from aioserve.http.head import Head
    from aioserve.http.ws_handshake import Offer
    from aioserve.types import Message, Scope
    from aioserve.worker.mount import Mount
    from aioserve.worker.websocket import WebSocket


class Stage(IntEnum):
    """How far a WebSocket is; see ``websocket``."""

    ASKED = 0
    DENYING = 1
    OPEN = 2
    CLOSING = 3
    OVER = 4


# perf: a global is one look-up, a member of an enum two; bench/micro::websocket
ASKED: Final = Stage.ASKED
OPEN: Final = Stage.OPEN
CLOSING: Final = Stage.CLOSING
OVER: Final = Stage.OVER


@final
class WebSocketCycle:
    """Times are those of ``Cycle``."""

    __slots__ = (
        "_closed_itself",
        "_farewell",
        "_greeted",
        "_writer",
        "close_code",
        "ended",
        "first_byte",
        "head",
        "messages",
        "mount",
        "offer",
        "returned",
        "scope",
        "started",
        "status",
        "waiters",
        "wire",
    )

    def __init__(self, wire: WebSocket, mount: Mount, scope: Scope, head: Head, offer: Offer) -> None:
        self.wire: WebSocket = wire
        #: The application's place among those of this server.
        self.mount: Mount = mount
        self.scope: Scope = scope
        self.head: Head = head
        self.offer: Offer = offer
        #: What ``receive`` gives; the frames put it there.
        self.messages: list[Message] = wire.stream.messages
        #: Calls of ``receive`` that wait; nearly always one or none.
        self.waiters: list[asyncio.Future[None]] = []
        #: The answer to the handshake; 499 if the client left before there was one.
        self.status: int = 499
        #: The code that the WebSocket was closed with; None: there was none.
        self.close_code: int | None = None
        self.started: float = perf_counter()
        self.first_byte: float = 0.0
        self.ended: float = 0.0
        #: The application has.
        self.returned: bool = False
        self._greeted: bool = False
        self._farewell: Message | None = None
        self._closed_itself: bool = False
        # The response that is sent instead of a 101.
        self._writer: ResponseWriter | None = None

    # What the access log reads.

    @property
    def sent_bytes(self) -> int:
        """Payload of messages, or of the response that has refused the handshake."""
        return self.wire.stream.sent_bytes if self._writer is None else self._writer.sent

    @property
    def gone(self) -> bool:
        """Nothing that the application does reaches the client any more."""
        return self._farewell is not None

    @property
    def received_bytes(self) -> int:
        return self.wire.stream.received_bytes

    # What the WebSocket calls.

    def wake(self) -> None:
        """Let whoever waits in ``receive`` look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    def over(self, code: int, reason: str) -> None:
        """Nothing will come any more, and why; what was said first stands."""
        if self._farewell is None:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": reason}
            if self.status == 101:
                self.close_code = code
            self.wake()
            if LEAVING:
                left(self)

    def complete(self) -> None:
        """Everything has been said: for the log."""
        access = self.wire.server.access
        if access is not None:
            self.ended = perf_counter()
            access.record_session(self)

    def late(self, limit: float) -> None:
        """The application has neither accepted nor refused in time."""
        report(self, AppError(f"the application has not answered the handshake within {limit:g} s"))
        self.wire.answer(503, "the application did not answer in time")

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI ``receive``: websocket.connect, the messages, then websocket.disconnect for ever."""
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        messages = self.messages
        while not messages:
            if self.wire.paused:
                self.wire.end()
            if self._farewell is not None:
                return {**self._farewell}
            waiter: asyncio.Future[None] = self.wire.server.loop.create_future()
            self.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self.waiters:
                    self.waiters.remove(waiter)
                raise
        # Not before it is here: a task that is cancelled now would lose a message that the waiter had carried.
        message = messages.pop(0)
        wire = self.wire
        wire.server.messages_received += 1
        if wire.paused and not messages:
            wire.go_on()
        return message

    async def send(self, message: Message) -> None:
        """ASGI ``send``. Raises ``ClientDisconnected`` when the peer has gone, ``AppError`` for a wrong message."""
        wire = self.wire
        while wire.write_resumed is not None:
            await wire.write_resumed.wait()
        try:
            if wire.stage is not OPEN:
                self._send_otherwise(message)
                return
            if message["type"] != "websocket.send":
                self._send_rare(message)
                return
            text, payload = message.get("text"), message.get("bytes")
            if payload is None and text is not None:
                data = wire.stream.text(text)
            else:
                data = wire.stream.binary(as_bytes(payload, text))
        except AppError as error:
            report(self, error)
            raise
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError) as error:
            raise self._explain(message, error) from error
        wire.write(data)
        server = wire.server
        server.messages_sent += 1
        server.streamed += len(data) + PIECE_WEIGHT
        if server.streamed > STREAM_LIMIT:
            # An application that only sends would keep the loop for ever; see Cycle.send.
            server.streamed = 0
            await asyncio.sleep(0)

    def _explain(self, message: Any, error: Exception) -> AppError:
        """What is wrong with a message that is none."""
        if isinstance(error, KeyError):
            wrong = AppError(f"a message without the key {error}: {sorted(message)}")
        elif not hasattr(message, "get"):
            wrong = AppError(f"a message of type {type(message).__name__} was sent, not a dict ({error})")
        else:
            wrong = AppError(f"{message['type']} has a value that cannot be sent: {error}")
        report(self, wrong)
        return wrong

    def _send_rare(self, message: Message) -> None:
        """Messages that are no websocket.send, while the WebSocket is open."""
        kind = message["type"]
        if kind != "websocket.close":
            raise AppError(f"a message of type {kind!r} was sent while the WebSocket was open")
        code = message.get("code")
        self.wire.close(1000 if code is None else code, message.get("reason") or "")
        self._closed_itself = True

    def _send_otherwise(self, message: Message) -> None:
        """Messages before websocket.accept, and after the end."""
        wire = self.wire
        kind = message["type"]
        if wire.stage is ASKED:
            self._answer(kind, message)
        elif wire.stage is Stage.DENYING:
            self._deny(kind, message)
        elif self._closed_itself and not wire.lost:
            raise AppError(f"{kind} was sent after websocket.close")
        else:
            raise ClientDisconnected("the WebSocket is closed")

    def _answer(self, kind: str, message: Message) -> None:
        wire = self.wire
        if kind == "websocket.accept":
            data = accepted(self.offer, message.get("subprotocol"), message.get("headers") or (), wire.fields)
            self.status = 101
            self.first_byte = perf_counter()
            wire.accept(data)
        elif kind == "websocket.close":
            wire.answer(403, "Forbidden")
        elif kind == "websocket.http.response.start":
            writer = ResponseWriter(wire.fields, self.head)
            writer.keep_alive = False
            _write(writer, {"type": "http.response.start", **_part(message, "status", "headers")})
            self._writer = writer
            self.status = writer.status
            wire.stage = Stage.DENYING
        else:
            raise AppError(f"{kind} was sent before websocket.accept")

    def _deny(self, kind: str, message: Message) -> None:
        writer = self._writer
        assert writer is not None
        if kind != "websocket.http.response.body":
            raise AppError(f"{kind} was sent within a response that denies the handshake")
        data = _write(writer, {"type": "http.response.body", **_part(message, "body", "more_body")})
        self.first_byte = self.first_byte or perf_counter()
        self.wire.deny(data, complete=writer.stage is DONE)

    # What the server calls.

    def leave(self) -> None:
        """The server is going: end in good order, with 1012."""
        wire = self.wire
        if wire.stage is OPEN:
            wire.close(1012, "service restart")
        elif wire.stage is ASKED:
            wire.answer(503, "the server is stopping")

    def finished(self, task: asyncio.Task[Any]) -> None:
        """The application has returned or raised: judge what it has left behind."""
        self.returned = True
        error: BaseException | None
        try:
            error = task.exception()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        wire = self.wire
        cut = isinstance(error, asyncio.CancelledError) and wire.server.draining
        # In order of frequency.
        if wire.stage is CLOSING or wire.stage is OVER:
            # ASGI says that send() may raise an OSError now, so that one that comes back is nobody's mistake.
            if isinstance(error, (OSError, asyncio.CancelledError)):
                return
        elif wire.stage is OPEN:
            if error is None:
                wire.close(1000, "")
            elif cut:
                wire.close(1012, "service restart")
            elif isinstance(error, OffloadFull):
                wire.close(1013, "try again later")
                report_overload(self, "closed with 1013")
                return
            else:
                wire.close(1011, "internal error")
        else:
            missing = "without websocket.accept or websocket.close"
            if self._writer is not None:
                missing = "before its response was complete"
            error = error or AppError(f"the application returned {missing}")
            unanswered = self._writer is None or self._writer.stage is HEAD
            if unanswered and isinstance(error, OffloadFull):
                wire.answer(503, "the server is busy")
                report_overload(self, "answered with 503")
                return
            if unanswered:
                wire.answer(503 if cut else 500, "the server is stopping" if cut else "Internal Server Error")
            else:
                wire.reset()
        if error is not None:
            report(self, error)

    def __str__(self) -> str:
        """How the log names it: the application, and the request."""
        return f"{self.mount.name}: WebSocket {self.scope['path']!r}"


def as_bytes(payload: Any, text: Any) -> bytes:
    """The payload of a binary message."""
    if text is not None:
        raise AppError("websocket.send has both text and bytes")
    if type(payload) is bytes:
        return payload
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    if payload is None:
        raise AppError("websocket.send has neither text nor bytes")
    raise AppError(f"websocket.send has bytes of type {type(payload).__name__}")


def _part(message: Message, *keys: str) -> Message:
    return {key: message[key] for key in keys if key in message}


def _write(writer: ResponseWriter, message: Message) -> bytes:
    """Let the writer of HTTP responses write, and let it name the messages as the application does."""
    try:
        return writer.send(message) or b""
    except AppError as error:
        _rename(error)


def _rename(error: AppError) -> NoReturn:
    raise AppError(str(error).replace("http.response", "websocket.http.response")) from None
