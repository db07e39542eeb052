"""From ASGI messages to bytes: the writer of one response.

``send(message)`` checks one ASGI message against what may come now and returns the bytes that it puts on the wire,
which may be none: the head is held until the first body message, so that both leave in one write and a response that is
complete at once gets a Content-Length without the application's help. The writer never sees a transport.

    START --http.response.start--> HEAD --http.response.body--> BODY --more_body false--> DONE
                                     (a first body that is the last goes straight to DONE)

``AppError`` is raised for everything the application does wrong, before any byte of that message is returned.
RFC 9112 is cited as "9112", RFC 9110 as "9110".
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from aioserve.errors import AppError
from aioserve.http.tables import (
    BODILESS,
    CONNECTION,
    CONTENT_LENGTH,
    ORDINARY,
    REPLACES_SERVERS,
    RESPONSE_FIELDS,
    STATUS_LINES,
    TOKEN,
    TRANSFER_ENCODING,
    UNSEEN,
)

if TYPE_CHECKING:
    from aioserve.http.head import Head, RequestLine
    from aioserve.types import Header, Message

#: A response with one of these statuses has no content. Of a 205 that has to be said, since it is framed like any
#: other (9110 15.3.6; 9112 6.3).
_WITHOUT_CONTENT: Final = BODILESS | {205}

#: What no value of a field may contain (9110 5.5): all control bytes but the tab.
_CONTROLS: Final = bytes(byte for byte in range(32) if byte != 9) + b"\x7f"

#: Connection options that say what becomes of the connection.
_PERSISTENCE: Final = frozenset((b"close", b"keep-alive", b""))

#: ``_expected`` of a response whose length nobody has said.
UNKNOWN: Final = -1

#: How many names the table may come to hold with those that applications send; generated ones must not fill memory.
_LEARNED_LIMIT: Final = 512


class Stage(IntEnum):
    """How far the response is."""

    START = 0
    HEAD = 1
    BODY = 2
    DONE = 3


# perf: a global is one look-up, a member of an enum two; bench/micro::writer
START: Final = Stage.START
HEAD: Final = Stage.HEAD
BODY: Final = Stage.BODY
DONE: Final = Stage.DONE


@final
class ServerFields:
    """What the server adds to each response: Date (9110 6.6.1), Server, the fields of ``--header``, a good-bye.

    Shared by all writers of a loop.
    """

    __slots__ = ("_date", "_dated", "_extra", "_server", "block", "closing")

    def __init__(self, *, server: bytes | None, extra: list[Header]) -> None:
        self._date: bytes | None = None
        # What the operator sets takes the place of what the server would say.
        names = {name.lower() for name, _ in extra}
        self._server: bytes | None = None if b"server" in names else server
        self._dated: bool = b"date" not in names
        self._extra: list[Header] = extra
        #: Every response is the last of its connection and says so.
        self.closing: bool = False
        #: All fields, in the form in which they stand in a head. The writer reads this.
        self.block: bytes = self.without(())

    def set_date(self, date: bytes | None) -> None:
        """Renew the Date, an IMF-fixdate (9110 5.6.7), at least once a second; None sends none."""
        self._date = date if self._dated else None
        self.block = self.without(())

    def without(self, given: tuple[bytes, ...]) -> bytes:
        """The block less the fields that the application has ``given`` itself."""
        fields = [(b"date", self._date), (b"server", self._server), *self._extra]
        return b"".join(
            name + b": " + value + b"\r\n" for name, value in fields if value is not None and name.lower() not in given
        )


@final
class ResponseWriter:
    """The response to one request. ``keep_alive`` may be cleared until the head has been returned."""

    __slots__ = (
        "_expected",
        "_given",
        "_head",
        "_line",
        "_server_fields",
        "bodiless",
        "chunked",
        "keep_alive",
        "sent",
        "stage",
        "status",
    )

    def __init__(self, fields: ServerFields, head: Head) -> None:
        self._server_fields: ServerFields = fields
        self._line: RequestLine = head.line
        self.keep_alive: bool = head.keep_alive
        self.stage: Stage = START
        self.status: int = 0
        #: Bytes of the body that have been returned by ``send``, without framing.
        self.sent: int = 0
        self.bodiless: bool = False
        self.chunked: bool = False
        self._expected: int = UNKNOWN
        # Names of server fields that the application has sent itself.
        self._given: tuple[bytes, ...] = ()
        self._head: bytes = b""

    def send(self, message: Message) -> bytes:
        """The bytes that ``message`` puts on the wire now. Raises ``AppError``."""
        try:
            kind = message["type"]
            # In order of frequency.
            if kind == "http.response.body":
                if self.stage is HEAD:
                    return self._first(message.get("body", b""), message.get("more_body", False))
                if self.stage is BODY:
                    return self._next(message.get("body", b""), message.get("more_body", False))
                raise AppError(
                    "http.response.body was sent before http.response.start"
                    if self.stage is START
                    else "http.response.body was sent after the response was complete"
                )
            if kind == "http.response.start":
                if self.stage is START:
                    self._start(message["status"], message.get("headers", ()))
                    return b""
                raise AppError("http.response.start was sent twice")
        except KeyError as error:
            raise AppError(f"a message without the key {error}: {sorted(message)}") from error
        raise AppError(f"a message of type {kind!r} was sent, which is no part of an HTTP response")

    def _start(self, status: Any, headers: Any) -> None:
        line = STATUS_LINES.get(status) if type(status) is int else None
        if line is None:
            raise AppError(f"http.response.start has the status {status!r}, which is not a final status (200 to 599)")
        self.status = status
        self.bodiless = status in _WITHOUT_CONTENT or self._line.method == "HEAD"
        parts: list[bytes] = [line]
        try:
            for name, value in headers:
                kind = RESPONSE_FIELDS.get(name, UNSEEN)
                if kind == CONTENT_LENGTH and self._expected == UNKNOWN and not self.bodiless and value.isdigit():
                    self._expected = int(value)
                elif kind:
                    name = self._notice(kind, name, value)  # noqa: PLW2901  # the spelling that goes out
                    if not name:
                        continue
                # perf: one join at the end instead of a string per field; bench/micro::writer
                parts += (name, b": ", value, b"\r\n")
            block = b"".join(parts)
        except (TypeError, ValueError, AttributeError) as error:
            raise AppError(f"http.response.start has headers that are not pairs of bytes: {error}") from error
        # perf: one scan of the whole instead of one of each value: the only control bytes there may be are a CR and an
        # LF for each line; bench/micro::writer
        if len(block.translate(None, _CONTROLS)) != len(block) - 2 * (len(parts) // 4 + 1):
            # 9110 5.5: an attempt to write a second field, or a second response, or no field value at all.
            raise AppError("http.response.start has a header with a CR, LF or NUL or another control byte in its value")
        self._head = block
        self.stage = HEAD

    def _notice(self, kind: int, name: Any, value: Any) -> bytes:
        """Look at a field that is new or means something to the server; the name to send it under, or none."""
        if kind == UNSEEN:
            if not isinstance(name, bytes) or TOKEN.fullmatch(name) is None:
                raise AppError(f"http.response.start has a header whose name {name!r} is not a token of bytes")
            name = name.lower()
            kind = RESPONSE_FIELDS.get(name, UNSEEN)
        # In order of frequency.
        if kind == CONTENT_LENGTH:
            return name if self._note_length(value) else b""
        if kind == UNSEEN:
            if len(RESPONSE_FIELDS) < _LEARNED_LIMIT:
                RESPONSE_FIELDS[name] = ORDINARY
        elif kind == CONNECTION:
            # Persistence is the server's to decide (9112 9.3); the application may ask for the end. Whatever else it
            # lists is a field of its own that must not get past the next hop (9110 7.6.1).
            options = {option.strip(b" \t") for option in value.lower().split(b",")}
            if b"close" in options:
                self.keep_alive = False
            return b"" if options <= _PERSISTENCE else b"connection"
        elif kind == TRANSFER_ENCODING:
            # ASGI, "Response Start": a transfer-encoding from the application is ignored.
            return b""
        elif kind == REPLACES_SERVERS:
            self._given = (*self._given, name)
        lower: bytes = name
        return lower

    def _note_length(self, value: bytes) -> bool:
        """Remember the Content-Length; False if it must not go out."""
        if not value.isdigit():
            raise AppError(f"http.response.start has the content-length {value!r}, which is not a number of bytes")
        length = int(value)
        if self._expected == UNKNOWN:
            self._expected = length
            return self.status not in {204, 205}  # 9110 8.6 and 15.3.6
        if self._expected != length:
            raise AppError("http.response.start has two content-length headers that differ")
        return False

    def _first(self, content: Any, more: Any) -> bytes:
        """The head and the first piece of the body."""
        body: bytes = content if type(content) is bytes else as_bytes(content)
        size = len(body)
        framing = b""
        if self.bodiless:
            # What a HEAD, 204 or 304 response must not carry is dropped: frameworks answer HEAD as they do GET.
            body = b""
            if self.status == 205:
                framing = b"content-length: 0\r\n"
        elif self._expected == UNKNOWN:
            if not more:
                framing = b"content-length: %d\r\n" % size
            elif not self._line.keep_alive:
                self.keep_alive = False  # HTTP/1.0; 9112 6.3, rule 8: the end of the connection is the end of the body
            else:
                framing = b"transfer-encoding: chunked\r\n"
                self.chunked = True
                if size:
                    body = b"%x\r\n%b\r\n" % (size, body)
            self.sent = size
        elif size == self._expected or (more and size < self._expected):
            self.sent = size
        else:
            self._refuse_length(size)
        self.stage = BODY if more else DONE
        fields = self._server_fields
        block = fields.without(self._given) if self._given else fields.block
        # In order of frequency.
        if self.keep_alive and not fields.closing:
            end = b"\r\n" if self._line.keep_alive else b"connection: keep-alive\r\n\r\n"
        else:
            self.keep_alive = False
            end = b"connection: close\r\n\r\n"
        return b"".join((self._head, block, framing, end, body))

    def _next(self, content: Any, more: Any) -> bytes:
        """A further piece of the body."""
        body: bytes = content if type(content) is bytes else as_bytes(content)
        size = len(body)
        if self.bodiless:
            size, body = 0, b""
        elif self._expected != UNKNOWN:
            total = self.sent + size
            if total > self._expected or (total < self._expected and not more):
                self._refuse_length(size)
        self.sent += size
        if not more:
            self.stage = DONE
        if not self.chunked:
            return body
        # 9112 7.1: a chunk of size 0 is the end, so an empty piece in the middle is no chunk.
        chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def _refuse_length(self, size: int) -> NoReturn:
        total = self.sent + size
        wrong = "more" if total > self._expected else "fewer"
        raise AppError(f"the response body has {wrong} bytes than its content-length: {total}, not {self._expected}")


def as_bytes(body: Any) -> bytes:
    """The body of a message that is not plain bytes; ``AppError`` unless it is bytes in another wrapping."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise AppError(f"http.response.body has a body of type {type(body).__name__}, not bytes")


def plain_response(status: int, text: str, fields: ServerFields, *, head_request: bool = False) -> bytes:
    """A complete response of the server's own, in text, after which the connection closes."""
    body = b"" if head_request else text.encode() + b"\n"
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return b"".join(
        (
            STATUS_LINES[status],
            b"content-type: text/plain; charset=utf-8\r\n",
            b"content-length: %d\r\n" % (len(text.encode()) + 1),
            retry,
            fields.block,
            b"connection: close\r\n\r\n",
            body,
        )
    )
