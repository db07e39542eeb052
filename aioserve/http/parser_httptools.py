"""llhttp, Node.js's parser, through httptools: the parser that serves wherever there are wheels of it.

Strict as it comes: its leniency switches only loosen it and are left alone. What it lets through is looked at by
``head.interpret`` and the reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import httptools

from aioserve.errors import RequestError
from aioserve.http.tables import REQUEST_FIELDS

if TYPE_CHECKING:
    from aioserve.types import Header


@final
class LlhttpParser:
    """llhttp through httptools, strict as it comes. Its leniency switches only loosen it and are left alone."""

    __slots__ = ("_feed", "_wanted", "body", "fields", "message_complete", "noticed")

    # Of httptools' callbacks only those below are wanted: the request line is read from the raw bytes, where several
    # spaces can be seen, and the end of the head is known from them too.

    def __init__(self) -> None:
        self.body: list[bytes] = []
        # A copy: without the interpreter's lock loops would wait for one another at a set that they share (see Seen).
        self._wanted: frozenset[bytes] = frozenset([*REQUEST_FIELDS])
        self.begin()
        self._feed = httptools.HttpRequestParser(self).feed_data

    def begin(self) -> None:
        """Be ready for a message; llhttp must stand between two."""
        self.fields: list[Header] = []
        self.noticed: list[Header] = []
        self.message_complete: bool = False

    def feed(self, data: bytes) -> None:
        """Parse ``data``, which ends at or before the end of the message."""
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade:
            # The end of a head that asks for another protocol. Nothing behind it was fed, so nothing is lost.
            pass
        except httptools.HttpParserError as error:
            raise RequestError(400, str(error)) from error

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9112 5.1: white space around a value is no part of it; llhttp leaves what follows it.
        field = (name.lower(), value.rstrip())
        if field[0] in self._wanted:
            self.noticed.append(field)
        self.fields.append(field)

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.message_complete = True
