"""Every case of the wire corpus through the reader with both parsers: whole, byte by byte and in seeded pieces."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from aioserve.http.reader import Stage
from tests.conformance.wire import LIMITS, cases
from tests.fakes import PARSERS, RecordingSink

#: How often each case is cut at random places, in up to eight pieces.
CUTS = 4


def pieces(raw, way):
    if way == "whole":
        return [raw]
    if way == "byte by byte":
        return [raw[at : at + 1] for at in range(len(raw))]
    # Places depend on the bytes alone, so that a failure comes back.
    seeded = random.Random(f"{way} {raw!r}")
    places = [0, *sorted(seeded.choices(range(len(raw) + 1), k=seeded.randint(1, 7))), len(raw)]
    return [raw[begin:end] for begin, end in pairwise(places) if end > begin]


WAYS = ["whole", "byte by byte", *(f"pieces {number}" for number in range(CUTS))]


def text(data):
    return data.decode("latin-1")


def seen(request, expected):
    """``request`` as far as ``expected`` says something about it."""
    head = request.head
    values = {name: [text(value) for key, value in head.headers if text(key) == name] for name in expected.headers}
    return {
        "method": head.line.method,
        "path": text(head.line.raw_path),
        "query": text(head.line.query),
        "version": head.line.http_version,
        "headers": values,
        "absent": tuple(name for name in expected.absent if all(text(key) != name for key, _ in head.headers)),
        "complete": request.complete,
        "body": text(request.body) if request.complete else "",
        "trailers": tuple((text(name), text(value)) for name, value in request.trailers),
    }


def state(reader):
    if reader.stage is Stage.DEAD:
        return "closed"
    return "waiting" if reader.stage is not Stage.HEAD or reader.head_begun else "open"


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_requests_answer_and_connection_are_as_expected(case):
    for parser in PARSERS:
        for way in WAYS:
            sink = RecordingSink(parser, **LIMITS)
            for piece in pieces(case.raw, way):
                sink.feed(piece)
            how = f"{case} ({parser}, {way}, {sink.error})"
            assert len(sink.requests) == len(case.requests), how
            for request, expected in zip(sink.requests, case.requests, strict=True):
                assert seen(request, expected) == vars(expected), how
            statuses = [200] * sum(request.complete for request in sink.requests)
            assert (*statuses, *filter(None, [sink.status])) == case.statuses, how
            assert state(sink.reader) == case.then, how
