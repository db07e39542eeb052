"""h11 as a parser for the reader: for interpreters without httptools wheels, and the oracle in tests.

h11 is kinder than llhttp in places where kindness can be turned against whoever stands in front: it takes bare line
feeds (also in trailers, where they end a message early) and folded lines, merges repeated Content-Length fields, and
keeps Transfer-Encoding and Content-Length together. The last is refused by ``head.interpret``, which judges every head;
the others here, from the raw bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

import h11

from aioserve.errors import RequestError
from aioserve.http.tables import REQUEST_FIELDS

if TYPE_CHECKING:
    from aioserve.types import Header

#: The reader bounds what it feeds; h11's own bound only has to lie above any limit that can be configured.
INCOMPLETE_EVENT_LIMIT: Final = 1024 * 1024 * 1024

#: A line feed without a carriage return or the other way round (RFC 9112 2.2), a line that goes on (5.2), or a control
#: byte (RFC 9110 5.5).
_BAD_LINE: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

#: A Content-Length that is a list (RFC 9110 8.6).
_LENGTH: Final = re.compile(rb"\ncontent-length[ \t]*:([^\r\n]*)", re.IGNORECASE)


@final
class H11Parser:
    """One message through an ``h11.Connection`` of its own: h11 cannot go on without a response being sent on it."""

    __slots__ = ("_chunked", "_connection", "_raw", "_tail", "body", "fields", "message_complete", "noticed")

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
        # How the last bytes were, and whether they have to be an empty line when the message ends.
        self._tail: bytes = b""
        self._chunked: bool = False
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=INCOMPLETE_EVENT_LIMIT)

    def feed(self, data: bytes) -> None:
        """Parse ``data``, which ends at or before the end of the message."""
        if self._raw is not None:
            self._check_head(data)
        self._tail = (self._tail + data[-4:])[-4:]
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._raw = None
                    self.fields = list(event.headers)
                    self._chunked = any(name == b"transfer-encoding" for name, _ in self.fields)
                    self.noticed = [field for field in self.fields if field[0] in REQUEST_FIELDS]
                elif isinstance(event, h11.Data):
                    self.body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._check_end()
                    self.fields.extend(event.headers)
                    self.message_complete = True
        except h11.RemoteProtocolError as error:
            raise RequestError(400, str(error)) from error

    def _check_head(self, data: bytes) -> None:
        raw = self._raw = (self._raw or b"") + data
        head = raw.partition(b"\r\n\r\n")[0]
        if _BAD_LINE.search(head) is not None:
            raise RequestError(400, "the head has a folded line, one that does not end in CR LF, or a control byte")
        lengths = _LENGTH.findall(head)
        if len(lengths) > 1 or (lengths and b"," in lengths[0]):
            raise RequestError(400, "more than one Content-Length")

    def _check_end(self) -> None:
        # RFC 9112 7.1: chunks and trailers end in an empty line. A message that h11 has ended sooner would leave bytes
        # of its trailers to the next one.
        if self._connection.trailing_data[0] or (self._chunked and self._tail != b"\r\n\r\n"):
            raise RequestError(400, "the trailers have a line that does not end in CR LF")
