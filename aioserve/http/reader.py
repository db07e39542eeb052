"""From bytes to requests: the reader cuts what the peer sends and pushes it to its sink as three calls.

    on_request(head) -> None      a head is complete and valid
    on_body(data) -> None         a piece of its body, already free of chunk framing
    on_end(trailers) -> None      the body is complete; a request without one (head.length 0) is complete as it comes

The reader never sees a transport, a loop or a clock, and it never looks past the request that is being served: it feeds
its parser pieces that end where a message may end, and keeps everything behind that until ``proceed``. So a client that
pipelines costs its unread bytes and nothing else, and an error behind good requests is found only after these have
been answered.

    HEAD --head complete--> BODY --last byte--> (WAIT until proceed) --> HEAD
      any state --RequestError--> DEAD: whatever comes is dropped

The grammar is a parser's business (``parser_httptools`` or ``parser_h11``), what a head means is ``head.interpret``'s;
limits, boundaries and leading blank lines are dealt with here. A parser that is back at a message boundary remembers
nothing of the message, so it is returned to a pool: an idle connection holds none.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.errors import RequestError
from aioserve.http.head import CHUNKED, Head, check_line, explain, interpret, read_trailers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.http.parser import Parser, ParserPool
    from aioserve.types import Header

#: RFC 9112 2.2 asks for at least one empty line before a request to be ignored; a client that sends more than a few
#: is not talking HTTP.
LEADING_BLANK_LINES: Final = 4

#: Pieces that one call of ``feed`` parses: others on the same loop have their turn before a pipelining client's next.
BURST_LIMIT: Final = 32

#: Empty lines inside chunks that one piece of a body may have: behind it the rest of the read is copied, and others
#: have their turn. One by one, a read of 256 KiB of nothing else cost a second; so, a tenth, a millisecond at a time.
EMPTY_LINES_LIMIT: Final = 512

#: Chunk framing that is allowed on top of what honest chunks need, in bytes. Go's net/http uses the same 16 KiB
#: (CVE-2023-39326: one byte of data behind kilobytes of chunk extension).
CHUNK_OVERHEAD_LIMIT: Final = 16 * 1024


class Stage(IntEnum):
    """Where the reader stands in the stream."""

    HEAD = 0
    BODY = 1
    WAIT = 2
    DEAD = 3


# perf: a global is one look-up, a member of an enum two; bench/micro::reader
HEAD: Final = Stage.HEAD
BODY: Final = Stage.BODY
WAIT: Final = Stage.WAIT


class Sink(Protocol):
    """Who takes the requests. It calls ``proceed`` once a response is complete, also from inside these calls."""

    def on_request(self, head: Head) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self, trailers: Sequence[Header]) -> None: ...


@final
class Limits:
    """How large a request may be. Sizes in bytes; ``request_body`` 0 means without limit."""

    __slots__ = ("header_bytes", "header_fields", "request_body", "request_line")

    def __init__(
        self,
        *,
        request_line: int = 8190,
        header_fields: int = 100,
        header_bytes: int = 64 * 1024,
        request_body: int = 0,
    ) -> None:
        self.request_line: int = request_line
        self.header_fields: int = header_fields
        self.header_bytes: int = header_bytes
        self.request_body: int = request_body


@final
class RequestReader:
    """The reader of one connection. Feed it bytes; it calls its sink. See the module's docstring."""

    __slots__ = (
        "_blank_lines",
        "_head",
        "_overhead",
        "_parser",
        "_pieces",
        "_received",
        "_remaining",
        "body_limit",
        "feeding",
        "limits",
        "overrun",
        "pool",
        "rest",
        "sink",
        "stage",
    )

    def __init__(self, sink: Sink, pool: ParserPool, limits: Limits) -> None:
        self.sink: Sink | None = sink
        self.pool: ParserPool = pool
        self.limits: Limits = limits
        self.stage: Stage = HEAD
        self.rest: bytes = b""
        self._parser: Parser | None = None
        # The raw bytes of a head that came in several reads; of a body only the last three, to see a boundary that
        # two reads share.
        self._pieces: bytes = b""
        self._blank_lines: int = 0
        self._head: Head | None = None
        self._remaining: int = 0
        self._received: int = 0
        self._overhead: int = 0
        #: How long the body of the request being read may be, in bytes; 0 is no limit. The sink may set another one
        #: from ``on_request``, where it knows whom the request is for.
        self.body_limit: int = limits.request_body
        self.feeding: bool = False
        #: The peer has sent more behind the last request that it may send.
        self.overrun: bool = False

    @property
    def head_begun(self) -> bool:
        """Whether a part of a head has come and the remainder has not."""
        return self.stage is HEAD and self._pieces != b""

    @property
    def head_wanted(self) -> bool:
        """Whether the part of a head that has come is of a HEAD, to which no answer has content (RFC 9110 9.3.2)."""
        return self.stage is HEAD and self._pieces.startswith(b"HEAD ")

    def feed(self, data: bytes) -> bool:
        """Take bytes from the peer; True if something is left hanging: part of a head, or bytes behind a request.

        Raises ``RequestError`` once, after which the stream is dead. Feed ``b""`` after ``proceed`` has returned True.
        """
        if self.rest:
            data = self.rest + data
            self.rest = b""
        turns = 0
        begun = b""
        self.feeding = True
        try:
            while data:
                # In order of frequency.
                if self.stage is HEAD:
                    end = data.find(b"\r\n\r\n") + 4
                    if (begun := self._pieces) or end == 3 or data[0] < 33:
                        data = self._feed_broken_head(data)
                    elif end == len(data):
                        self._finish_head(self.pool.take(), data, data, followed=False)
                        break
                    else:
                        head = data[:end]
                        self._finish_head(self.pool.take(), head, head, followed=True)
                        data = data[end:]
                elif self.stage is BODY:
                    data = self._feed_body(data)
                elif self.stage is WAIT:
                    self.rest = data
                    return True
                else:
                    self.overrun = True
                    return False
                turns += 1
                if turns == BURST_LIMIT:
                    self.rest = data
                    return data != b""
        except RequestError as error:
            error.to_head = (begun + data).lstrip(b"\r\n").startswith(b"HEAD ")
            self.close()
            raise
        finally:
            self.feeding = False
        # Not of a chunked body: reading would stop, and what only framing has arrived for would never be complete.
        return self._pieces != b"" and self.stage is HEAD

    def proceed(self) -> bool:
        """The response is complete: let the next request in. True if ``feed`` must be called for bytes that wait."""
        if self.stage is WAIT:
            self.stage = HEAD
        return self.rest != b""

    def close(self) -> None:
        """Drop everything; whatever is fed from now on is ignored."""
        self.stage = Stage.DEAD
        self.rest = self._pieces = b""
        self._parser = None
        self._head = None

    def detach(self) -> None:
        """Close, and let go of the sink, so that no cycle of references outlives the connection."""
        self.close()
        self.sink = None

    def _feed_broken_head(self, data: bytes) -> bytes:
        """The slow path: the head does not lie in this one read, or blank lines stand in front of it.

        Each piece goes to the parser at once, so that garbage is refused when it comes and not when time runs out; the
        request line only when there is all of it, because it is judged as a whole (see ``explain``).
        """
        raw = self._pieces + data
        if raw[0] < 33:
            raw = data = self._skip_blank_lines(raw)
            if not data:
                return b""
        seen = len(raw) - len(data)
        # A boundary may begin in the last three bytes of what has come before.
        end = raw.find(b"\r\n\r\n", max(seen - 3, 0)) + 4
        if end == 3:
            end = len(raw)
        line_limit = self.limits.request_line
        if end > self.limits.header_bytes or (end >= line_limit + 2 and b"\r\n" not in raw[: line_limit + 2]):
            self._refuse_size(raw)
        if self._parser is None:
            check_line(raw)
            if b"\r\n" not in raw:
                self._pieces = raw
                return b""
            self._parser = self.pool.take()
            piece = raw[:end]
        else:
            piece = raw[seen:end]
        self._pieces = head = raw[:end]
        parser = self._parser
        if head.endswith(b"\r\n\r\n"):
            self._pieces = b""
            self._finish_head(parser, piece, head, followed=end < len(raw))
            return raw[end:]
        try:
            parser.feed(piece)
        except RequestError as error:
            raise explain(head, error) from error
        if len(parser.fields) > self.limits.header_fields:
            raise RequestError(431, "too many header fields")
        return b""

    def _skip_blank_lines(self, raw: bytes) -> bytes:
        """What begins with a method, after blank lines; empty if nothing does yet."""
        begin = 0
        while raw.startswith(b"\r\n", begin):
            begin += 2
            self._blank_lines += 1
        if self._blank_lines > LEADING_BLANK_LINES:
            raise RequestError(400, "too many blank lines before the request")
        raw = raw[begin:]
        if raw == b"\r" or not raw:
            self._pieces = raw
            return b""
        if raw[0] < 33:
            raise RequestError(400, "a request begins with a method")
        self._pieces = b""
        return raw

    def _finish_head(self, parser: Parser, piece: bytes, raw: bytes, *, followed: bool) -> None:
        """Feed the last piece of a head, judge the head, and push it."""
        limits = self.limits
        line_end = raw.find(b"\r\n")
        if line_end > limits.request_line or len(raw) > limits.header_bytes:
            self._refuse_size(raw)
        try:
            parser.feed(piece)
        except RequestError as error:
            raise explain(raw, error) from error
        # Here and not where blank lines are skipped: the request behind them may come by the short path.
        self._blank_lines = 0
        fields = parser.fields
        if len(fields) > limits.header_fields:
            raise RequestError(431, "too many header fields")
        head = interpret(raw[:line_end], fields, parser.noticed, self.pool.seen)
        sink = self.sink
        assert sink is not None
        if head.length:
            if followed:
                # RFC 9110 10.1.1: a client that sends its body unasked needs no 100.
                head.expects_continue = False
            self._begin_body(parser, head)
            sink.on_request(head)
            limit = self.body_limit
            if limit and head.length > limit:
                raise RequestError(413, f"the body has {head.length} bytes, the limit is {limit}")
            return
        # A parser in the pool is anybody's: this connection must not keep it.
        self._parser = None
        if head.keep_alive and head.plain:
            self.pool.give(parser)
        elif followed and not head.keep_alive:
            self.overrun = True
        self.stage = WAIT
        sink.on_request(head)
        if not head.keep_alive:
            # RFC 9112 9.6: what a client sends after it has asked to close is nobody's request.
            self.close()

    def _begin_body(self, parser: Parser, head: Head) -> None:
        self.stage = BODY
        self.body_limit = self.limits.request_body
        self._head = head
        self._remaining = head.length
        self._received = self._overhead = 0
        if parser.message_complete:
            # llhttp takes the head of an upgrade for a whole message. The upgrade is not taken, so the body counts
            # (RFC 9110 7.8): a fresh parser is told only how the body is framed.
            parser = self.pool.take()
            framing = b"Transfer-Encoding: chunked" if head.length == CHUNKED else b"Content-Length: %d" % head.length
            parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
        # Fields that come from now on are trailers. Merged into the head, they would let a client append what a front
        # end has removed (RFC 9110 6.5.1).
        parser.fields = []
        self._parser = parser

    def _feed_body(self, data: bytes) -> bytes:
        """Push one piece of the body; return what lies behind it."""
        parser, head, sink = self._parser, self._head, self.sink
        assert parser is not None
        assert head is not None
        assert sink is not None
        end = turns = 0
        # Mostly once: only a chunked body has empty lines in it that may or may not be its end.
        while end < len(data) and turns < EMPTY_LINES_LIMIT and not parser.message_complete:
            begin, end = end, self._boundary(head, data, end)
            parser.feed(data if end - begin == len(data) else data[begin:end])
            turns += 1
        if parser.body:
            body = parser.body[0] if len(parser.body) == 1 else b"".join(parser.body)
            self._received += len(body)
            self._weigh_chunks(head, end - len(body), len(parser.body), len(body))
            parser.body.clear()
            sink.on_body(body)
        else:
            self._weigh_chunks(head, end, 0, 0)
        if self.stage is not BODY:
            return b""
        if parser.message_complete:
            self._parser = self._head = None
            self._pieces = b""
            trailers = parser.fields
            if trailers:
                # llhttp heeds them as if they stood in the head: after a Connection: close it takes no more.
                trailers = read_trailers(trailers, self.limits.header_fields)
            elif head.plain and head.keep_alive:
                self.pool.give(parser)
            if end < len(data) and not head.keep_alive:
                self.overrun = True
            self.stage = WAIT
            sink.on_end(trailers)
            if not head.keep_alive:
                self.close()
        return data[end:]

    def _boundary(self, head: Head, data: bytes, begin: int) -> int:
        """How far ``data`` may be fed from ``begin`` on, so that the parser stays within this message."""
        if head.length != CHUNKED:
            end = min(self._remaining, len(data))
            self._remaining -= end
            return end
        # A chunked message always ends in an empty line (9112 7.1), though not every empty line ends it.
        tail = self._pieces
        at = (tail + data[begin : begin + 3]).find(b"\r\n\r\n")
        if at >= 0:
            end = begin + at + 4 - len(tail)
        else:
            at = data.find(b"\r\n\r\n", begin)
            end = at + 4 if at >= 0 else len(data)
        self._pieces = (tail + data[begin:end])[-3:] if end - begin < 3 else data[end - 3 : end]
        return end

    def _weigh_chunks(self, head: Head, overhead: int, pieces: int, received: int) -> None:
        """Bound the body (413) and what surrounds its chunks (400)."""
        if head.length != CHUNKED:
            return
        if self.body_limit and self._received > self.body_limit:
            raise RequestError(413, f"the body is longer than the limit of {self.body_limit} bytes")
        self._overhead = max(self._overhead + overhead - 16 * pieces - received, 0)
        if self._overhead > CHUNK_OVERHEAD_LIMIT:
            raise RequestError(400, "chunk extensions or trailers are too long")

    def _refuse_size(self, raw: bytes) -> None:
        line_end = raw.find(b"\r\n", 0, self.limits.request_line + 2)
        if line_end < 0:
            raise RequestError(414, "the request line is too long")
        raise RequestError(431, "the header fields are too large")
