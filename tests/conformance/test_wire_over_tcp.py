"""The wire corpus over a real socket: both parsers, whole and in pieces, and two workers.

The pieces of a case are kept apart by a canary on another connection between any two of them: with one worker, whose
loop has then read what came before, each arrives alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conformance.wire import Case, Request, cases, pieces
from tests.conformance.witness import Witness, records, tally, witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process.clients import Client, Response

#: How the server runs and how cases arrive. The parsers are given every cut by test_wire; this is about connections.
CHOICES = {
    "httptools, in pieces": ("--http", "httptools"),
    "h11, in pieces": ("--http", "h11"),
    "two workers, whole": ("--workers", "2"),
}

#: What depends on the interpreter, the parsers and the connection, ``test_wire`` has with every one.
pytestmark = [pytest.mark.slow, pytest.mark.once]


@pytest.fixture(
    scope="module",
    params=[pytest.param(choice, marks=pytest.mark.xdist_group(f"wire {choice}")) for choice in CHOICES],
)
def choice(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(choice: str, tmp_path_factory) -> Iterator[Witness]:
    with witness(tmp_path_factory.mktemp("wire"), *CHOICES[choice]) as (_, told, file):
        yield told
    # The server has stopped: nothing can come late any more.
    seen, expected = records(file), [one for case in told.cases for one in case.requests]
    canaries = [Request("GET", path) for path in told.canaries]
    assert tally([one for one in seen if one["complete"]]) == tally(
        canaries + [one for one in expected if one.complete]
    )
    # An application need not be started for a body that turns out to be broken in the same read.
    assert tally([one for one in seen if not one["complete"]]) <= tally([one for one in expected if not one.complete])


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_answers_and_connection_are_as_expected(server: Witness, choice: str, case: Case):
    server.cases.append(case)
    with server.connect() as client, server.connect() as other:
        for piece in pieces(case.raw, "whole" if "whole" in choice else choice):
            try:
                client.send(piece)
            except ConnectionError:
                assert case.then == "closed", "the server has broken the connection"
                break
            if "pieces" in choice:
                server.sing(other)

        read_answers(client, case)
        finish(server, client, case)
        server.sing(other)


def read_answers(client: Client, case: Case) -> None:
    complete = [request for request in case.requests if request.complete]
    for request, status in zip(complete, case.statuses, strict=False):
        response = read_response(client, case, method=request.method)
        assert response.status == status, case
        if request.method != "HEAD":
            assert request.of(json.loads(response.body)) == request, case
        last = request is complete[-1] and len(complete) == len(case.statuses)
        assert response.closes is (last and case.then == "closed"), case
        if request.version == "1.0" and not response.closes:
            # RFC 9112 9.3: an HTTP/1.0 client does not know that the connection stays open unless it is told.
            assert response.headers["connection"].lower() == "keep-alive", case
    for status in case.statuses[len(complete) :]:
        method = "HEAD" if case.raw.startswith(b"HEAD ") else "GET"
        response = read_response(client, case, method=method)
        assert (response.status, response.closes) == (status, True), case


def read_response(client: Client, case: Case, *, method: str) -> Response:
    response = client.head()
    while response.status < 200:
        # RFC 9110 10.1.1: nobody else waits for it.
        assert (response.status, b"100-continue" in case.raw.lower()) == (100, True), case
        response = client.head()
    response.body = b"".join(client.body(response, method=method))
    assert "date" in response.headers, case
    return response


def finish(server: Witness, client: Client, case: Case) -> None:
    """The connection is as it should be: it serves another request, or is closed without another word."""
    if case.then == "open":
        server.sing(client)
        return
    if case.then == "waiting":
        client.sock.shutdown(1)
    rest = client.rest()
    assert rest in {b"", b"HTTP/1.1 100 Continue\r\n\r\n"}, case
    assert rest == b"" or case.then == "waiting", case
