"""From ASGI messages to bytes: the writer of one response.

``send(message)`` checks one ASGI message against what may come now and returns the bytes that it puts on the wire,
which may be none: the head is held until the first body message, so that both leave in one write and a response that is
complete at once gets a Content-Length without the application's help. The writer never sees a transport.

    START --http.response.start--> HEAD --http.response.body--> BODY --more_body false--> DONE
                                     (a first body that is the last goes straight to DONE)
    where trailers were announced and can be sent:              BODY --> TRAILERS --http.response.trailers--> DONE
    a file that the kernel sends: HEAD or BODY --begin_file--> FILE --end_file--> BODY, TRAILERS or DONE

``AppError`` is raised for everything the application does wrong, before any byte of that message is returned, and
leaves the writer as it was: an application that catches it may send something better.
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
    EARLY_HINTS,
    FORBIDDEN_IN_TRAILERS,
    ORDINARY,
    REPLACES_SERVERS,
    TOKEN,
    TRANSFER_ENCODING,
    UNSEEN,
)

if TYPE_CHECKING:
    from aioserve.http.head import Head, RequestLine
    from aioserve.http.server_fields import ServerFields
    from aioserve.types import Message

#: A response with one of these statuses has no content. Of a 205 that has to be said, since it is framed like any
#: other (9110 15.3.6; 9112 6.3).
_WITHOUT_CONTENT: Final = (*BODILESS, 205)

#: What no value of a field may contain (9110 5.5): all control bytes but the tab.
_CONTROLS: Final = bytes(byte for byte in range(32) if byte != 9) + b"\x7f"

#: ``bytes.translate`` with this makes each of them a line feed.
_CONTROLS_AS_LF: Final = bytes.maketrans(_CONTROLS, b"\n" * len(_CONTROLS))

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
    FILE = 4
    TRAILERS = 5


# perf: a global is one look-up, a member of an enum two; bench/micro::writer
START: Final = Stage.START
HEAD: Final = Stage.HEAD
BODY: Final = Stage.BODY
DONE: Final = Stage.DONE

# What becomes of the trailers that http.response.start announces: there are none, they are swallowed, they are sent.
NONE: Final = 0
SWALLOWED: Final = 1
SENT: Final = 2


# When a message was sent that is not due at a stage; the two that take bodies are due.
_MISTIMED: Final = {
    Stage.START: "before http.response.start",
    Stage.HEAD: "before http.response.body",
    Stage.BODY: "before the body was complete",
    Stage.DONE: "after the response was complete",
    Stage.FILE: "while a file is being sent; await that send() first",
    Stage.TRAILERS: "after the body was complete",
}


@final
class ResponseWriter:
    """The response to one request. ``keep_alive`` may be cleared until the head has been returned."""

    __slots__ = (
        "_expected",
        "_given",
        "_head",
        "_line",
        "_request",
        "_server_fields",
        "_trailers",
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
        self._request: Head = head
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
        self._trailers: int = NONE

    def send(self, message: Message) -> bytes | None:
        """The bytes that ``message`` puts on the wire now; None if it is none that bytes are made of.

        Raises ``AppError``.
        """
        try:
            kind = message["type"]
            # In order of frequency.
            if kind == "http.response.body":
                if self.stage is HEAD:
                    return self._first(message.get("body", b""), message.get("more_body", False))
                if self.stage is BODY:
                    return self._next(message.get("body", b""), message.get("more_body", False))
                self.refuse(kind)
            if kind == "http.response.start":
                if self.stage is START:
                    self._start(message["status"], message.get("headers", ()))
                    if message.get("trailers", False):
                        self._trailers = SENT if self._trailers_wanted() else SWALLOWED
                    return b""
                raise AppError("http.response.start was sent twice")
        except KeyError as error:
            raise AppError(f"a message without the key {error}: {sorted(message)}") from error
        except (TypeError, AttributeError) as error:
            raise AppError(f"a message of type {type(message).__name__} was sent, not a dict ({error})") from error
        if kind == "http.response.trailers":
            return self._send_trailers(message)
        if kind == "http.response.early_hint":
            return self._hint(message)
        return None

    def refuse(self, kind: str) -> NoReturn:
        """Say why a message that carries a part of the body cannot come now."""
        raise AppError(f"{kind} was sent {_MISTIMED[self.stage]}")

    def refuse_kind(self, kind: object) -> NoReturn:
        """Say that there is no message of this kind."""
        raise AppError(f"a message of type {kind!r} was sent, which is no part of an HTTP response")

    def begin_file(self, size: int, *, more: bool) -> bytes:
        """What goes out in front of ``size`` bytes of a file that the caller sends itself, ``size`` being above 0.

        ``sent`` is the caller's to count, and ``end_file`` comes next; without a body (``bodiless``) neither is.
        """
        prefix = b""
        if self.stage is HEAD:
            if not more and self._expected == UNKNOWN and not self.bodiless and self._trailers != SENT:
                self._expected = size
                self._head += b"content-length: %d\r\n" % size
            self._check_length(size, more)
            prefix = self._first(b"", True)
        elif self.stage is BODY:
            self._check_length(size, more)
        else:
            self.refuse("a file")
        if self.bodiless:
            if not more:
                self._complete()
            return prefix
        self.stage = Stage.FILE
        return prefix + b"%x\r\n" % size if self.chunked else prefix

    def end_file(self, *, more: bool) -> bytes:
        """What goes out behind a file."""
        end = b"\r\n" if self.chunked else b""
        self.stage = BODY
        return end if more else end + self._complete()

    def _check_length(self, size: int, more: Any) -> None:
        total = self.sent + size
        known = self._expected != UNKNOWN and not self.bodiless
        if known and (total > self._expected or (total < self._expected and not more)):
            self._refuse_length(size)

    def _start(self, status: Any, headers: Any) -> None:
        kinds = self._server_fields.kinds
        line = self._server_fields.status_lines.get(status) if isinstance(status, int) else None
        if line is None:
            raise AppError(f"http.response.start has the status {status!r}, which is not a final status (200 to 599)")
        self.status = status
        self.bodiless = status in _WITHOUT_CONTENT or self._line.method == "HEAD"
        # What an earlier attempt has left behind that was refused.
        self._expected = UNKNOWN
        self._given = ()
        parts: list[bytes] = [line]
        try:
            for name, value in headers:
                kind = kinds.get(name, UNSEEN)
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
        # perf: a scan of the whole instead of one of each value, by a table that is made once: the only control bytes
        # there may be are a CR and an LF for each line; bench/micro::writer
        if block.translate(_CONTROLS_AS_LF).count(b"\n") != 2 * (len(parts) // 4 + 1):
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
            kind = self._server_fields.kinds.get(name, UNSEEN)
        # In order of frequency.
        if kind == CONTENT_LENGTH:
            return name if self._note_length(value) else b""
        if kind == UNSEEN:
            if len(self._server_fields.kinds) < _LEARNED_LIMIT:
                self._server_fields.kinds[name] = ORDINARY
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
        if self._trailers == SENT and not more:
            # Nothing but chunks can be followed by trailers (9112 7.1.2).
            return self._first(content, True) + self._next(b"", False)
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
        # 9112 7.1: a chunk of size 0 is the end, so an empty piece in the middle is no chunk.
        piece = b"%x\r\n%b\r\n" % (size, body) if self.chunked and size else body
        return piece if more else piece + self._complete()

    def _complete(self) -> bytes:
        """The body is complete: what ends it on the wire."""
        if self._trailers == SENT and self.chunked:
            self.stage = Stage.TRAILERS
            return b"0\r\n"
        self.stage = DONE
        return b"0\r\n\r\n" if self.chunked else b""

    def _trailers_wanted(self) -> bool:
        """Whether trailers can be sent, and the client has asked for them (9110 6.5.1 and 10.1.4)."""
        if self.bodiless or self._expected != UNKNOWN or not self._line.keep_alive:
            return False
        said = b",".join(value for name, value in self._request.headers if name == b"te")
        return any(option.partition(b";")[0].strip(b" \t") == b"trailers" for option in said.lower().split(b","))

    def _send_trailers(self, message: Message) -> bytes:
        if self.stage is not Stage.TRAILERS:
            if self.stage is DONE and self._trailers == SWALLOWED:
                return b""
            announced = self._trailers != NONE
            raise AppError(
                f"http.response.trailers was sent {_MISTIMED[self.stage]}"
                if announced
                else "http.response.trailers was sent, but http.response.start did not announce trailers"
            )
        block = block_of("http.response.trailers", message.get("headers", ()), FORBIDDEN_IN_TRAILERS)
        if message.get("more_trailers", False):
            return block
        self.stage = DONE
        return block + b"\r\n"

    def _hint(self, message: Message) -> bytes:
        """A 103 (RFC 8297) in front of the head; nothing once that is out, and for clients that know no 1xx."""
        if self.stage is DONE:
            self.refuse("http.response.early_hint")
        fields = ((b"link", link) for link in message.get("links", ()))
        links = block_of("http.response.early_hint", fields, frozenset())
        # 9110 15.2: a server MUST NOT send a 1xx response to an HTTP/1.0 client.
        if not links or self._line.http_version == "1.0" or self.stage not in {START, HEAD}:
            return b""
        return EARLY_HINTS + links + b"\r\n"

    def _refuse_length(self, size: int) -> NoReturn:
        total = self.sent + size
        wrong = "more" if total > self._expected else "fewer"
        raise AppError(f"the response body has {wrong} bytes than its content-length: {total}, not {self._expected}")


def block_of(kind: str, headers: Any, forbidden: frozenset[bytes]) -> bytes:
    """Fields that come apart from the head, as lines. Raises ``AppError`` for those that are none or ``forbidden``."""
    lines = []
    try:
        for name, value in headers:
            if TOKEN.fullmatch(name) is None or name.lower() in forbidden:
                raise AppError(f"{kind} has the field {name!r}, which cannot stand there")
            line = name.lower() + b": " + value
            if line.translate(None, _CONTROLS) != line:
                raise AppError(f"{kind} has a value with a CR, LF or NUL or another control byte for {name!r}")
            lines.append(line + b"\r\n")
    except (TypeError, ValueError, AttributeError) as error:
        raise AppError(f"{kind} has fields that are not pairs of bytes: {error}") from error
    return b"".join(lines)


def as_bytes(body: Any) -> bytes:
    """The body of a message that is not plain bytes; ``AppError`` unless it is bytes in another wrapping."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise AppError(f"http.response.body has a body of type {type(body).__name__}, not bytes")
