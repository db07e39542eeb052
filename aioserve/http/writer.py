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
from typing import Any, Final, final

from aioserve.errors import AppError
from aioserve.http.tables import (
    BODILESS,
    CONNECTION,
    CONTENT_LENGTH,
    ORDINARY,
    REPLACES_DEFAULT,
    RESPONSE_FIELDS,
    STATUS_LINES,
    TOKEN,
    TRANSFER_ENCODING,
    UNSEEN,
)
from aioserve.types import Header, Message

#: ``_expected`` of a response whose length nobody has said.
UNKNOWN: Final = -1

#: How many names the table may come to hold with those that applications send; generated ones must not fill memory.
LEARNED_LIMIT: Final = 512


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
class DefaultFields:
    """The fields that the server adds to each response: Date (9110 6.6.1), Server and those of ``--header``.

    ``date`` is the current Date value or None to send none; renew it at least once a second with ``set_date``.
    """

    __slots__ = ("_date", "_extra", "_server", "block")

    def __init__(self, *, server: bytes | None, extra: list[Header]) -> None:
        self._date: bytes | None = None
        self._server: bytes | None = server
        self._extra: list[Header] = extra
        #: All of them, in the form in which they stand in a head. The writer reads this.
        self.block: bytes = self.without(())

    def set_date(self, date: bytes | None) -> None:
        """Put a new Date into the block: an IMF-fixdate (9110 5.6.7)."""
        self._date = date
        self.block = self.without(())

    def without(self, given: tuple[bytes, ...]) -> bytes:
        """The block less the fields that the application has ``given`` itself."""
        fields = [(b"date", self._date), (b"server", self._server), *self._extra]
        return b"".join(
            name + b": " + value + b"\r\n" for name, value in fields if value is not None and name not in given
        )


@final
class ResponseWriter:
    """The response to one request. ``keep_alive`` may be cleared until the head has been returned."""

    __slots__ = (
        "_defaults",
        "_expected",
        "_given",
        "_head",
        "_head_request",
        "_http_1_0",
        "bodiless",
        "chunked",
        "keep_alive",
        "sent",
        "stage",
        "status",
    )

    def __init__(self, defaults: DefaultFields, *, method: str, http_version: str, keep_alive: bool) -> None:
        self._defaults: DefaultFields = defaults
        self._head_request: bool = method == "HEAD"
        self._http_1_0: bool = http_version == "1.0"
        self.keep_alive: bool = keep_alive
        self.stage: Stage = START
        self.status: int = 0
        #: Bytes of the body that have been returned by ``send``, without framing.
        self.sent: int = 0
        self.bodiless: bool = False
        self.chunked: bool = False
        self._expected: int = UNKNOWN
        # Names of default fields that the application has sent itself.
        self._given: tuple[bytes, ...] = ()
        self._head: bytes = b""

    def send(self, message: Message) -> bytes:
        """The bytes that ``message`` puts on the wire now. Raises ``AppError``."""
        try:
            kind = message["type"]
            # In order of frequency.
            if kind == "http.response.body":
                if self.stage is HEAD or self.stage is BODY:
                    return self._body(message.get("body", b""), message.get("more_body", False))
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
        line = STATUS_LINES.get(status)
        if line is None:
            raise AppError(f"http.response.start has the status {status!r}, which is not a final status (200 to 599)")
        self.status = status
        self.bodiless = self._head_request or status in BODILESS
        parts: list[bytes] = [line]
        lines = 1
        try:
            for name, value in headers:
                kind = RESPONSE_FIELDS.get(name, UNSEEN)
                if kind:
                    name = self._notice(kind, name, value)  # noqa: PLW2901  # the spelling that goes out
                    if not name:
                        continue
                # perf: one join at the end instead of a string per field; bench/micro::writer
                parts += (name, b": ", value, b"\r\n")
                lines += 1
            block = b"".join(parts)
        except (TypeError, ValueError) as error:
            raise AppError(f"http.response.start has headers that are not pairs of bytes: {error}") from error
        if block.count(b"\n") != lines or block.count(b"\r") != lines or b"\0" in block:
            # 9110 5.5: CR, LF and NUL in a value are an attempt to write a second field or response.
            raise AppError("http.response.start has a header value with a CR, LF or NUL in it")
        self._head = block
        self.stage = HEAD

    def _notice(self, kind: int, name: Any, value: Any) -> bytes:
        """Look at a field that is new or means something to the server; return the name to send it under, or none."""
        if kind == UNSEEN:
            if not isinstance(name, bytes) or TOKEN.fullmatch(name) is None:
                raise AppError(f"http.response.start has a header whose name {name!r} is not a token of bytes")
            name = name.lower()
            kind = RESPONSE_FIELDS.get(name, UNSEEN)
        if kind == CONTENT_LENGTH:
            return self._notice_length(name, value)
        if kind == UNSEEN:
            if len(RESPONSE_FIELDS) < LEARNED_LIMIT:
                RESPONSE_FIELDS[name] = ORDINARY
        elif kind == CONNECTION:
            # Persistence is the server's to decide (9112 9.3); the application may ask for the end.
            if b"close" in value.lower():
                self.keep_alive = False
            return b""
        elif kind == TRANSFER_ENCODING:
            # ASGI, "Response Start": a transfer-encoding from the application is ignored.
            return b""
        elif kind == REPLACES_DEFAULT:
            self._given = (*self._given, name)
        return name

    def _notice_length(self, name: bytes, value: Any) -> bytes:
        if not isinstance(value, bytes) or not value.isdigit():
            raise AppError(f"http.response.start has the content-length {value!r}, which is not a number of bytes")
        if self._expected != UNKNOWN:
            if self._expected != int(value):
                raise AppError("http.response.start has two content-length headers that differ")
            return b""
        self._expected = int(value)
        # 9110 8.6: no Content-Length with 204.
        return b"" if self.status == 204 else name

    def _body(self, body: Any, more: Any) -> bytes:
        if type(body) is not bytes:
            body = as_bytes(body)
        size = len(body)
        if self.bodiless:
            # What a HEAD, 204 or 304 response must not carry is dropped: frameworks answer HEAD as they do GET.
            size, body = 0, b""
        else:
            self.sent += size
            if self._expected != UNKNOWN and (self.sent > self._expected or (not more and self.sent < self._expected)):
                self._refuse_length(size)
        if self.stage is HEAD:
            return self._first(body, size, more)
        if not more:
            self.stage = DONE
        if not self.chunked:
            return body
        # 9112 7.1: a chunk of size 0 is the end, so an empty piece in the middle is no chunk.
        chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def _first(self, body: bytes, size: int, more: Any) -> bytes:
        """The head and the first piece of the body."""
        self.stage = BODY if more else DONE
        fields = self._defaults.without(self._given) if self._given else self._defaults.block
        framing = b""
        # In order of frequency: the application has said the length; the response is complete; it goes on.
        if self._expected == UNKNOWN and not self.bodiless:
            if not more:
                framing = b"content-length: %d\r\n" % size
            elif self._http_1_0:
                self.keep_alive = False  # 9112 6.3, rule 8: the end of the connection is the end of the body
            else:
                framing = b"transfer-encoding: chunked\r\n"
                self.chunked = True
                if size:
                    body = b"%x\r\n%b\r\n" % (size, body)
        if not self.keep_alive:
            end = b"connection: close\r\n\r\n"
        elif self._http_1_0:
            end = b"connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n"
        return b"".join((self._head, fields, framing, end, body))

    def _refuse_length(self, size: int) -> None:
        before = self.sent - size
        self.sent = before
        wrong = "more" if before + size > self._expected else "fewer"
        raise AppError(
            f"the response body has {wrong} bytes than its content-length: {before + size}, not {self._expected}"
        )


def as_bytes(body: Any) -> bytes:
    """The body of a message that is not plain bytes; ``AppError`` unless it is bytes in another wrapping."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise AppError(f"http.response.body has a body of type {type(body).__name__}, not bytes")


def plain_response(status: int, text: str, defaults: DefaultFields, *, head_request: bool = False) -> bytes:
    """A complete response of the server's own, in text, after which the connection closes."""
    body = b"" if head_request else text.encode() + b"\n"
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return b"".join((
        STATUS_LINES[status],
        b"content-type: text/plain; charset=utf-8\r\n",
        b"content-length: %d\r\n" % (len(text.encode()) + 1),
        retry,
        defaults.block,
        b"connection: close\r\n\r\n",
        body,
    ))
