"""HTTP/1.1 as it goes over a real socket, with both parsers on both loops: what a fake transport cannot show."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.process.servers import Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process.clients import Client

CHOICES = {
    "httptools on uvloop": ("--http", "httptools", "--loop", "uvloop"),
    "h11 on uvloop": ("--http", "h11", "--loop", "uvloop"),
    "httptools on asyncio": ("--http", "httptools", "--loop", "asyncio"),
    "h11 on asyncio": ("--http", "h11", "--loop", "asyncio"),
}

BODY_LIMIT = 1000


@pytest.fixture(scope="module", params=CHOICES)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served("plain:app", *CHOICES[request.param], "--limit-request-body", str(BODY_LIMIT)) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.connect() as client:
        yield client


def test_pipelined_requests_are_answered_in_order(client):
    bodies = [b"%d" % number for number in range(200)]
    client.send(
        b"".join(
            b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body) for body in bodies
        )
    )

    assert [client.response().body for _ in bodies] == bodies


def test_pipelined_requests_behind_a_slow_one_wait_for_it(client):
    client.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab")
    client.send(b"cdGET / HTTP/1.1\r\nhost: test\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: test\r\n\r\n")

    responses = [client.response() for _ in range(3)]

    assert [(one.status, one.text) for one in responses] == [(200, "abcd"), (200, "Hello, World!"), (404, "Not Found")]


def test_good_requests_in_front_of_a_bad_one_are_answered_first(client):
    client.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n" * 3 + b"GET / HTTP/1.1\r\n\r\n")

    assert [client.response().status for _ in range(4)] == [200, 200, 200, 400]
    assert client.rest() == b""


def test_pipelined_large_responses_arrive_whole(client):
    client.send(b"GET /large?2 HTTP/1.1\r\nhost: test\r\n\r\n" * 4)

    assert [len(client.response().body) for _ in range(4)] == [2 * 1024 * 1024] * 4


def test_client_that_expects_100_continue_is_told_when_the_application_reads(client):
    client.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
    assert client.head().status == 100
    client.send(b"abcd")

    assert client.response().text == "abcd"
    assert client.get("/").status == 200


def test_client_that_expects_100_continue_gets_a_final_answer_instead_when_nobody_reads(client):
    client.send(b"POST /refuse HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")

    assert client.head().status == 403
    assert client.rest() == b"no"


def test_head_has_the_headers_of_get_and_no_body(client):
    client.request("/", method="HEAD")
    response = client.response(method="HEAD")

    assert (response.status, response.headers["content-type"]) == (200, "text/plain")
    assert client.get("/").text == "Hello, World!"


def test_http_1_0_closes_after_the_response(client):
    client.send(b"GET / HTTP/1.0\r\n\r\n")

    assert client.rest().endswith(b"\r\n\r\nHello, World!")


def test_http_1_0_with_keep_alive_keeps_the_connection(client):
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    response = client.response()
    assert (response.text, response.headers["connection"]) == ("Hello, World!", "keep-alive")

    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.response().text == "Hello, World!"
    assert client.rest() == b""


def test_http_1_0_gets_a_body_of_unknown_length_by_the_end_of_the_connection(client):
    client.send(b"GET /large?1 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    head = client.head()

    assert "transfer-encoding" not in head.headers
    assert len(client.rest()) == 1024 * 1024


def test_chunked_upload_arrives_whole(client):
    client.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
    for piece in (b"3\r\nabc\r\n", b"5;ext=1\r\nde", b"fgh\r\n", b"0\r\n", b"x-trailer: 1\r\n\r\n"):
        client.send(piece)

    assert client.response().text == "abcdefgh"
    assert client.get("/").status == 200


def test_chunked_upload_in_single_bytes_arrives_whole(client):
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
    body = b"3\r\nabc\r\n5;ext=1\r\ndefgh\r\n0\r\nx-trailer: 1\r\n\r\n"
    for at in range(len(body)):
        client.send(body[at : at + 1])

    assert client.response().text == "abcdefgh"
    assert client.get("/").status == 200


def test_body_longer_than_the_limit_is_refused_by_its_length(client):
    client.request("/echo", method="POST", body=bytes(BODY_LIMIT + 1))

    response = client.response()
    assert (response.status, response.closes) == (413, True)
    assert client.rest() == b""


def test_chunked_body_longer_than_the_limit_is_refused_as_it_comes(client):
    client.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
    client.send(b"258\r\n%b\r\n" % bytes(600) * 2)

    response = client.response()
    assert (response.status, response.closes) == (413, True)
    assert client.rest() == b""


def test_body_of_exactly_the_limit_is_taken(client):
    client.request("/echo", method="POST", body=bytes(BODY_LIMIT))

    assert client.response().body == bytes(BODY_LIMIT)


def test_body_that_the_application_does_not_read_is_passed_over(client):
    client.request("/refuse", method="POST", body=bytes(BODY_LIMIT))

    assert client.response().status == 403
    assert client.get("/").status == 200


def test_client_that_half_closes_still_gets_its_answer(client):
    client.send(b"GET /large?4 HTTP/1.1\r\nhost: test\r\n\r\n")
    client.sock.shutdown(socket.SHUT_WR)

    assert len(client.response().body) == 4 * 1024 * 1024
    assert client.rest() == b""


def test_more_requests_than_the_limit_on_concurrency_get_503_and_when_to_come_back():
    with (
        Served("plain:app", "--limit-concurrency", "1") as server,
        server.connect() as first,
        server.connect() as second,
    ):
        first.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        assert first.head().status == 100

        refused = second.get("/")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")

        first.send(b"abcd")
        assert first.response().text == "abcd"
        assert server.get("/").status == 200


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_response_that_breaks_off_ends_in_a_reset_and_not_in_what_passes_for_an_end(loop, version):
    with Served("plain:app", "--loop", loop, tracebacks=1) as server, server.connect() as client:
        client.send(b"GET /breaks HTTP/%b\r\nhost: test\r\n\r\n" % version)

        with pytest.raises(ConnectionResetError):
            while client.sock.recv(65536):
                pass
        server.wait_for("RuntimeError: in the middle of a response")
