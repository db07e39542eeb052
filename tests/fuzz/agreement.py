"""What a reader makes of a stream, and where its two parsers may differ: ``DIFFERENCES``, each with its reason.

The streams come from ``tests/pure/http/test_parsers_agree.py`` (hypothesis) and from the fuzz target ``reader``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioserve.errors import RequestError
from aioserve.http.parser import ParserPool
from aioserve.http.reader import BODY, CHUNK_OVERHEAD_LIMIT, HEAD, WAIT, Limits, RequestReader
from tests.fakes import PARSERS, Request

if TYPE_CHECKING:
    from collections.abc import Callable

#: Small enough for short inputs to meet each of them.
TIGHT = {"request_line": 40, "header_fields": 4, "header_bytes": 160, "request_body": 24}

#: Statuses that speak of size. A stream that is too large and also malformed earns either answer, depending on how
#: much of it was there when the reader looked.
OF_SIZE = {413, 414, 431}

PROBE = (
    b"POST /probe HTTP/1.1\r\nHost: probe\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: t\r\n\r\n"
    b"GET /second HTTP/1.1\r\nHost: probe\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """``requests`` and ``status`` are what the client could tell apart; ``waits`` where the reader stands."""

    requests: tuple
    status: int | None
    waits: str


class Watch:
    """A sink that checks what it is told. It answers at once, or (``late``) only when ``feed`` has returned."""

    def __init__(self, parser: str, limits: dict[str, int], *, late: bool) -> None:
        self.requests: list[Request] = []
        self.late = late
        self.limits = Limits(**limits)
        self.pool = ParserPool(PARSERS[parser])
        self.reader = RequestReader(self, self.pool, self.limits)
        self.status: int | None = None

    def on_request(self, head):
        assert not self.requests or self.requests[-1].complete, "a request before the last one was complete"
        self.requests.append(Request(head))
        if head.length == 0:
            self._answer()

    def on_body(self, data):
        assert data, "an empty piece of a body"
        assert not self.requests[-1].complete, "a body behind its end"
        self.requests[-1].body += data

    def on_end(self, trailers):
        request = self.requests[-1]
        assert not request.complete, "two ends"
        assert request.head.length in {-1, len(request.body)}, "a body of another length than announced"
        request.trailers = list(trailers)
        request.complete = True
        self._answer()

    def _answer(self):
        if not self.late:
            self.reader.proceed()

    def feed(self, piece):
        reader = self.reader
        try:
            hanging = reader.feed(piece)
            self.check_memory()
            while hanging and (reader.rest or reader.stage is WAIT):
                if reader.stage is WAIT:
                    reader.proceed()
                hanging = reader.feed(b"")
                self.check_memory()
            if reader.stage is WAIT:
                reader.proceed()
        except RequestError as error:
            assert self.status is None, "two errors"
            assert 400 <= error.status <= 505
            self.status = error.status

    def check_memory(self):
        """What the reader keeps is bounded by its limits, whatever came."""
        reader, limits = self.reader, self.limits
        parser = reader._parser
        assert len(reader._pieces) <= limits.header_bytes
        assert reader.stage is not BODY or len(reader._pieces) <= 3
        assert reader.stage is not HEAD or reader._head is None
        if parser is not None:
            assert not parser.body
            bound = limits.header_bytes if reader.stage is HEAD else CHUNK_OVERHEAD_LIMIT
            assert sum(len(name) + len(value) for name, value in parser.fields) <= bound
            if reader.stage is HEAD:
                assert len(parser.fields) <= limits.header_fields
            if hasattr(parser, "_connection"):
                assert len(parser._connection._receive_buffer) <= bound + 4

    def outcome(self) -> Outcome:
        seen = []
        for request in self.requests:
            head, line = request.head, request.head.line
            # How much of a body was pushed before an error depends on where the stream was cut.
            body = request.body if request.complete or self.status is None else None
            seen.append((
                line.method, line.path, line.raw_path, line.query, line.http_version, tuple(head.headers),
                head.keep_alive, head.length, head.forwarded, body, tuple(request.trailers), request.complete,
            ))  # fmt: skip
        return Outcome(tuple(seen), self.status, self.reader.stage.name)

    def check_pool(self):
        """A parser in the pool is anybody's: it must be as good as new."""
        if self.pool.spare:
            probe = Watch("httptools", {}, late=False)
            probe.reader.pool = self.pool
            probe.feed(PROBE)
            assert probe.status is None
            first, second = probe.requests
            assert (first.head.line.path, first.body, first.trailers) == ("/probe", b"ok", [(b"x-t", b"t")])
            assert second.head.headers == [(b"host", b"probe")]


def observe(raw: bytes, parser: str, cuts=(), *, late: bool = False, **limits: int) -> Outcome:
    """What comes of ``raw``, fed in pieces that end at ``cuts``."""
    watch = Watch(parser, limits, late=late)
    begin = 0
    for end in (*sorted(cuts), len(raw)):
        if end > begin:
            watch.feed(raw[begin:end])
            begin = end
    outcome = watch.outcome()
    watch.check_pool()
    watch.reader.detach()
    return outcome


def check_cut(whole: Outcome, cut: Outcome) -> None:
    """Where a stream is cut changes nothing."""
    if whole != cut:
        assert whole.requests == cut.requests, (whole, cut)
        assert None not in {whole.status, cut.status}, (whole, cut)
        assert {whole.status, cut.status} & OF_SIZE, (whole, cut)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where llhttp and h11 may differ, and why that is left so; ``example`` is a stream and limits that show it."""

    name: str
    reason: str
    example: tuple[bytes, dict[str, int]]
    covers: Callable[[bytes, Outcome, Outcome, dict[str, int]], bool]


def _tells_later(raw: bytes, llhttp: Outcome, h11: Outcome, limits: dict[str, int]) -> bool:
    if llhttp.status is None or h11.status is not None or h11.waits == "WAIT":
        return False
    ended = observe(raw + b"\r\n\r\n", "h11", **limits)
    return ended.status is not None and (
        ended.status == llhttp.status or _size(raw, llhttp, ended, limits) or _several(raw, llhttp, ended, limits)
    )


def _size(raw: bytes, llhttp: Outcome, h11: Outcome, limits: dict[str, int]) -> bool:
    return None not in {llhttp.status, h11.status} and bool({llhttp.status, h11.status} & OF_SIZE)


def _several(raw: bytes, llhttp: Outcome, h11: Outcome, limits: dict[str, int]) -> bool:
    return llhttp.requests == h11.requests and {llhttp.status, h11.status} <= {400, 417, 501}


DIFFERENCES = (
    Difference(
        "h11 tells later",
        "h11 looks at a head once it is complete and at a chunk's size or trailers line by line, llhttp at each byte. "
        "The mistake is refused all the same, by the end of the head or when time runs out.",
        (b"GET / HTTP/1.1\r\nHost : a", {}),
        _tells_later,
    ),
    Difference(
        "too large and malformed",
        "Either answer is right, and both refuse.",
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5 + b"\r\n", TIGHT),
        _size,
    ),
    Difference(
        "several mistakes in one head",
        "Each parser looks at Host, Content-Length and Transfer-Encoding in its own order, before the head is "
        "interpreted, so that a head with two mistakes is answered for the one or the other. Both refuse.",
        (b"GET / HTTP/1.1\r\nExpect: magic\r\n\r\n", {}),
        _several,
    ),
)


def explanation(raw: bytes, llhttp: Outcome, h11: Outcome, **limits: int) -> Difference | None:
    """The listed difference that two unlike outcomes fall under; the same requests must have been seen before."""
    if not _same_requests(llhttp, h11):
        return None
    return next((entry for entry in DIFFERENCES if entry.covers(raw, llhttp, h11, limits)), None)


def _same_requests(llhttp: Outcome, h11: Outcome) -> bool:
    """All alike, but for how much of an incomplete body was pushed."""

    def without_partial(outcome: Outcome) -> list:
        return [(*request[:9], request[9] if request[11] else None, *request[10:]) for request in outcome.requests]

    return without_partial(llhttp) == without_partial(h11)


def check_agreement(raw: bytes, llhttp: Outcome, h11: Outcome, **limits: int) -> None:
    """Both parsers say the same, or the list says why not."""
    if llhttp != h11:
        assert explanation(raw, llhttp, h11, **limits) is not None, (raw, llhttp, h11)
