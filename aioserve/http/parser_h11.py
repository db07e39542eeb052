"""h11 as a parser for the reader: for interpreters without httptools wheels, and the oracle in tests.

h11 is kinder than llhttp in places where kindness can be turned against whoever stands in front: it takes bare line
feeds (also in trailers, where they end a message early), folded lines and control bytes, anything behind a chunk's
size, and framing fields in trailers; it merges repeated Content-Length fields and keeps Transfer-Encoding and
Content-Length together. The last is refused by ``head.interpret``, which judges every head; the others here, from the
raw bytes, before h11 sees them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

import h11

from aioserve.errors import RequestError
from aioserve.http.head import refuse_codings
from aioserve.http.tables import REQUEST_FIELDS

if TYPE_CHECKING:
    from aioserve.types import Header

#: The reader bounds what it feeds; h11's own bound only has to lie above any limit that can be configured.
INCOMPLETE_EVENT_LIMIT: Final = 1024 * 1024 * 1024

#: A line feed without a carriage return or the other way round (RFC 9112 2.2), a line that goes on (5.2), or a control
#: byte (RFC 9110 5.5).
_BAD_LINE: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

#: Framing fields. A Content-Length that comes twice or is a list is no length (RFC 9110 8.6).
_LENGTH: Final = re.compile(rb"\ncontent-length:([^\r\n]*)", re.IGNORECASE)
_CODING: Final = re.compile(rb"\ntransfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)

#: A chunk's size of up to 64 bits and its extensions (9112 7.1.1), as llhttp reads them: a name or a value may be
#: missing, a quoted string may follow a token, and there is no white space.
_CHUNK: Final = re.compile(
    rb"0*([0-9A-Fa-f]{1,16})"
    rb"(?:;(?=[^\r])[!#$%&'*+\-.^_`|~0-9A-Za-z]*"
    rb"(?:=[!#$%&'*+\-.^_`|~0-9A-Za-z]*(?:\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\")?)?)*\r\n"
)


@final
class H11Parser:
    """One message through an ``h11.Connection`` of its own: h11 cannot go on without a response being sent on it."""

    __slots__ = (
        "_coding",
        "_connection",
        "_in_trailers",
        "_line",
        "_raw",
        "_unread",
        "body",
        "fields",
        "message_complete",
        "noticed",
    )

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the last message."""
        self.fields: list[Header] = []
        self.noticed: list[Header] = []
        self.body: list[bytes] = []
        self.message_complete: bool = False
        # The head as far as it has come; None once it is complete.
        self._raw: bytes | None = b""
        # The Transfer-Encoding as it was sent, which h11 makes lower case; h11 passes none but "chunked".
        self._coding: bytes | None = None
        # Of a chunked body: how much of a chunk and its CRLF is still to come, else the line that has begun.
        self._unread: int = 0
        self._line: bytes = b""
        self._in_trailers: bool = False
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=INCOMPLETE_EVENT_LIMIT)

    def feed(self, data: bytes) -> None:
        """Parse ``data``, which ends at or before the end of the message."""
        if self._raw is not None:
            self._check_head(self._raw, data)
        elif self._coding is not None:
            data = self._read_chunks(data)
            if not data:
                # h11 would take it for the end of the stream.
                return
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._raw = None
                    for name, value in event.headers:
                        field = (name, value if name != b"transfer-encoding" else self._coding or value)
                        self.fields.append(field)
                        if name in REQUEST_FIELDS:
                            self.noticed.append(field)
                elif isinstance(event, h11.Data):
                    self.body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.fields.extend(event.headers)
                    self.message_complete = True
        except h11.RemoteProtocolError as error:
            raise RequestError(400, str(error)) from error

    def _check_head(self, begun: bytes, data: bytes) -> None:
        """Refuse what is wrong in the bytes that have come, and, with the last of them, what is wrong as a whole."""
        # A byte may be wrong because of the one behind it.
        self._raw = raw = begun + data
        head = raw.removesuffix(b"\r\n\r\n")
        if _BAD_LINE.search(head, max(len(begun) - 2, 0)) is not None:
            raise RequestError(400, "the head has a folded line, one that does not end in CR LF, or a control byte")
        if head is raw:
            return
        lengths = _LENGTH.findall(head)
        if len(lengths) > 1 or (lengths and b"," in lengths[0]):
            raise RequestError(400, "more than one Content-Length")
        # llhttp takes spaces behind a coding, and no tab.
        codings = [coding.rstrip(b" ") for coding in _CODING.findall(head)]
        if len(codings) == 1 and b"," in codings[0]:
            # h11 refuses all codings alike.
            refuse_codings(codings[0])
        self._coding = codings[0] if codings else None

    def _read_chunks(self, data: bytes) -> bytes:
        """What h11 is to see of ``data``: whole lines, once they are found good, and sizes bare.

        It would take more behind a size than there may be, and fewer zeros in front. The CRLF behind a chunk it checks.
        """
        seen = []
        at = 0
        while at < len(data):
            if self._unread:
                step = min(self._unread, len(data) - at)
                self._unread -= step
                seen.append(data[at : at + step])
                at += step
                continue
            end = data.find(b"\n", at) + 1
            if not end:
                self._line += data[at:]
                break
            line, self._line = self._line + data[at:end], b""
            at = end
            if self._in_trailers:
                self._check_trailer(line)
                seen.append(line)
                continue
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise RequestError(400, "a chunk's size or its extensions are malformed")
            seen.append(size[1] + b"\r\n")
            if length := int(size[1], 16):
                self._unread = length + 2
            else:
                self._in_trailers = True
        return b"".join(seen)

    def _check_trailer(self, line: bytes) -> None:
        # RFC 9110 6.5.1: a field that says how the message is framed comes too late.
        name = line.partition(b":")[0].lower()
        if _BAD_LINE.search(b"\r\n" + line) is not None or name in {b"content-length", b"transfer-encoding"}:
            raise RequestError(400, "a trailer is malformed, does not end in CR LF, or is about framing")
