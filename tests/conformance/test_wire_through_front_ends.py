"""The wire corpus through nginx and haproxy: whoever reads a request differently, nobody gets another's.

A front end may refuse what it is sent, forgive it (``lenient`` in an expectation), or pass it on for the server to
refuse. What must not happen: a request that is seen twice, with another body, or that nobody sent; an answer to
another request than the one in its place; or a connection to the server that is left out of step, on which the next
client would find it.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.conformance.wire import Case, Request, cases
from tests.conformance.witness import Brief, Witness, brief, records, tally, witness
from tests.process.clients import Broken
from tests.process.front_ends import HAPROXY, NGINX, HAProxy, Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process.clients import Client

#: How long the front ends wait for what they take for an incomplete request, in seconds.
PATIENCE = 5.0

#: Cases that a front end may take for incomplete, besides those that are: it would take a canary for more of the body.
UNFINISHED = {
    "chunk-extension-lf-hides-a-size",
    "limit-body-announced",
    "limit-body-beyond-64-bit-signed",
    "limit-body-expected",
}


def nginx(directory: Path, upstream: str) -> Nginx:
    milliseconds = f"{PATIENCE * 1000:g}ms"
    changes = {
        "client_header_timeout 10s;": f"client_header_timeout {milliseconds};",
        "client_body_timeout 30s;": f"client_body_timeout {milliseconds}; lingering_timeout {milliseconds};",
        "error_log stderr warn;": "error_log stderr crit;",
    }
    return Nginx(directory, upstream, changes=changes)


def haproxy(directory: Path, upstream: str) -> HAProxy:
    return HAProxy(directory, upstream, patience=PATIENCE)


FRONT_ENDS = [
    pytest.param(
        nginx,
        marks=[
            pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
            pytest.mark.xdist_group("wire nginx"),
        ],
    ),
    pytest.param(
        haproxy,
        marks=[
            pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (Debian: haproxy)"),
            pytest.mark.xdist_group("wire haproxy"),
        ],
    ),
]

pytestmark = [pytest.mark.slow, pytest.mark.once]


class Front(Witness):
    """A server behind a front end, and what has been answered to the clients."""

    def __init__(self, port: int, file: Path) -> None:
        super().__init__(port)
        self.file = file
        self.answered: list[Brief] = []


@pytest.fixture(scope="module", params=FRONT_ENDS, ids=lambda front_end: front_end.__name__)
def front(request, tmp_path_factory) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp("wire")
    with (
        witness(directory) as (server, _, file),
        request.param(directory, f"127.0.0.1:{server.port}") as front_end,
    ):
        front = Front(front_end.port, file)
        yield front
    # Server and front end have stopped: nothing can come late any more.
    seen = [one for one in records(file) if one["complete"]]
    assert tally(seen) == Counter(front.answered)
    possible = [one for case in front.cases for one in (*case.requests, *case.lenient)]
    assert tally(seen) <= tally([*possible, *(Request("GET", path) for path in front.canaries)])


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_is_seen_is_answered_to_whom_sent_it_and_nothing_else(front: Front, case: Case):
    front.cases.append(case)
    expected = [brief(one) for one in case.requests if one.complete]
    awaited = [*expected, *(brief(one) for one in case.lenient if one.complete)]
    before = front.file.stat().st_size
    unfinished = case.then == "waiting" or case.name in UNFINISHED
    with front.connect() as client:
        try:
            client.send(case.raw)
            if not unfinished:
                path, canary = front.canary()
                awaited.append(brief(Request("GET", path)))
                client.send(canary)
        except ConnectionError:
            assert not case.valid or case.then == "closed", "the front end has broken the connection"

        answered, refused = read_answers(client, case, awaited, number=len(expected) if unfinished else None)

    front.answered += answered
    assert [brief(one) for one in records(front.file, before) if one["complete"]] == answered
    # A front end may close before the last request (nginx does where Connection merely contains "close").
    assert answered or refused or not expected
    # The connections to the server that this case has used are in step: others are served on them.
    with front.connect() as another:
        path = front.sing(another)
        front.answered.append(brief(Request("GET", path)))


def read_answers(client: Client, case: Case, awaited: list[Brief], *, number: int | None) -> tuple[list[Brief], bool]:
    """The requests that are answered, in order, and whether something was refused.

    Ends with the connection, with ``number`` answers, or with the last one that is awaited, which is the canary's.
    """
    answered: list[Brief] = []
    refused = False
    while number is None or len(answered) < number:
        bodiless = awaited[len(answered)][0] == "HEAD"
        # Nobody is told what a refused request was; those of the corpus that are a HEAD come first.
        bodiless = bodiless or (case.raw.startswith(b"HEAD ") and not answered and not refused)
        try:
            body = read_answer(client, method="HEAD" if bodiless else "GET")
        except (Broken, ConnectionError):
            break
        if body is None:
            refused = True
            continue
        one = brief(json.loads(body)) if body else awaited[len(answered)]
        assert one in awaited, f"an answer to {one}, where only {awaited} were sent"
        answered.append(one)
        if number is None and one == awaited[-1]:
            break
    return answered, refused


def read_answer(client: Client, *, method: str) -> bytes | None:
    """The body of the next answer, empty for a HEAD; None for an error."""
    if client.peek(5) != b"HTTP/":
        # nginx answers a request line without a version as HTTP/0.9 had it: the body alone (RFC 1945 3.1). haproxy
        # answers the preface of HTTP/2 in HTTP/2.
        body = client.rest()
        return body if body.startswith(b"{") else None
    response = client.response(method=method)
    return response.body if response.status == 200 else None
