"""Every case of the wire corpus through the reader with both parsers: whole, byte by byte and in seeded pieces."""

from __future__ import annotations

import pytest

from aioserve.http.parser import ParserPool
from aioserve.http.reader import Limits, RequestReader, Stage
from tests.conformance.wire import LIMITS, Request, cases, pieces
from tests.fakes import PARSERS, RecordingSink

#: How each case is cut; four random cuts are into two to eight pieces each.
WAYS = ["whole", "byte by byte", "pieces 0", "pieces 1", "pieces 2", "pieces 3"]


def text(data):
    return data.decode("latin-1")


def seen(request):
    line = request.head.line
    return {
        "method": line.method,
        "path": text(line.raw_path),
        "query": text(line.query),
        "version": line.http_version,
        "headers": [(text(name), text(value)) for name, value in request.head.headers],
        "body": text(request.body),
        "trailers": [(text(name), text(value)) for name, value in request.trailers],
        "complete": request.complete,
    }


def state(reader):
    if reader.stage is Stage.DEAD:
        return "closed"
    return "waiting" if reader.stage is not Stage.HEAD or reader.head_begun else "open"


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_requests_answer_and_connection_are_as_expected(case, parser):
    for way in WAYS:
        pool = ParserPool(PARSERS[parser])
        sink, other = RecordingSink(parser), RecordingSink(parser)
        sink.reader, other.reader = (RequestReader(one, pool, Limits(**LIMITS)) for one in (sink, other))

        for piece in pieces(case.raw, way):
            sink.feed(piece)
        # Connections share parsers: what one client sends must not harm the next.
        other.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

        how = f"{case} ({way}, {sink.error})"
        requests = [(expected or Request("", "")).of(seen(request)) for request, expected in paired(sink, case)]
        assert requests == list(case.requests), how
        statuses = [200 for request in sink.requests if request.complete]
        assert (*statuses, *filter(None, [sink.status])) == case.statuses, how
        assert state(sink.reader) == case.then, how
        assert (len(other.requests), other.error) == (1, None), how


def paired(sink, case):
    """What was seen, each with what was expected in its place, or None."""
    expected = [*case.requests, *[None] * len(sink.requests)]
    return zip(sink.requests, expected, strict=False)


def test_names_are_unique_and_nothing_is_expected_from_smuggled_requests():
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) >= 300
    assert not [case.name for case in cases() for request in case.requests if "smuggled" in request.path]


def test_valid_cases_are_answered_by_the_application_and_invalid_ones_refused_or_left_waiting():
    for case in cases():
        refused = any(status != 200 for status in case.statuses)
        assert case.valid is (not refused and case.then != "waiting"), case
        assert case.then in {"open", "closed", "waiting"}, case
