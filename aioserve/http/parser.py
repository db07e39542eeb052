"""What the reader asks of a parser, and where parsers wait between two messages.

A parser knows the grammar of one message at a time and nothing of limits, meaning or what comes behind the message.
``parser_httptools`` and ``parser_h11`` are the two there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.http.head import Seen

if TYPE_CHECKING:
    from aioserve.types import Header


class Parser(Protocol):
    """A grammar for one message at a time. ``feed`` raises ``RequestError`` for bytes that are no HTTP/1.1.

    ``fields`` collects the fields that have come, with lower-case names, and ``noticed`` those of them whose names are
    in ``REQUEST_FIELDS``; ``body`` collects the pieces of the last ``feed``. The reader takes them away.
    """

    fields: list[Header]
    noticed: list[Header]
    body: list[bytes]
    message_complete: bool

    def feed(self, data: bytes) -> None: ...
    def begin(self) -> None: ...


@final
class ParserPool:
    """Parsers of one loop that stand between two messages, ready for any of its connections."""

    __slots__ = ("make", "seen", "spare")

    #: A parser is out of the pool while its head or body is incomplete; more spare ones than this would only be left
    #: over from a burst of slow clients.
    LIMIT: Final = 64

    def __init__(self, make: type[Parser]) -> None:
        self.make: type[Parser] = make
        #: What has come through them.
        self.seen: Seen = Seen()
        self.spare: list[Parser] = []

    def take(self) -> Parser:
        """A parser that has begun."""
        return self.spare.pop() if self.spare else self.make()

    def give(self, parser: Parser) -> None:
        if len(self.spare) < self.LIMIT:
            parser.begin()
            self.spare.append(parser)
