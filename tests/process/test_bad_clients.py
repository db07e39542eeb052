"""Clients that are slow, silent, greedy or wrong: each gets its due, and nobody else notices."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.process.clients import Broken, Client
from tests.process.servers import Served, memory, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER, BODY, WRITE, KEEP_ALIVE = 0.5, 0.6, 1.0, 0.7
LIMITS = {"header": HEADER, "body": BODY, "write": WRITE, "keep-alive": KEEP_ALIVE}

#: How late a limit may strike on a machine that is busy with other tests; never early. Seconds.
LATE = 5.0

STALLED = "closed: it has read next to nothing for 1 s"

#: What a worker may grow by for clients that do not read: the buffers of a few dozen connections.
GROWTH_LIMIT = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    limits = [word for name, seconds in LIMITS.items() for word in (f"--timeout-{name}", str(seconds))]
    with Served("plain:app", "--workers", "2", "--reuseport", "--no-access-log", *limits) as server:
        yield server


@pytest.fixture(autouse=True)
def others(served: Served) -> Iterator[None]:
    """Whatever a client has done, the server serves on and has nothing to say about its own code."""
    workers = served.workers()
    yield
    assert served.get("/").text == "Hello, World!"
    assert served.workers() == workers
    assert "Traceback" not in served.log()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.connect() as client:
        yield client


class Stopwatch:
    """``with struck_after(0.5): ...`` fails if the block ends before the time or long after it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            # The server's clock is coarse: it may have looked at it up to a tick before the client began.
            assert 0.75 * self._seconds < time.monotonic() - self._began < self._seconds + LATE


struck_after = Stopwatch


# Slow ones.


def test_new_connection_that_says_nothing_is_closed(client):
    with struck_after(HEADER):
        assert client.rest() == b""


def test_head_that_stops_is_answered_with_408(client):
    with struck_after(HEADER):
        client.send(b"GET / HTTP/1.1\r\nhost: te")
        assert client.response().status == 408
    assert client.rest() == b""


def test_head_that_drips_is_answered_with_408(client):
    client.sock.settimeout(0.05)
    with struck_after(HEADER):
        received = drip(client, b"GET / HTTP/1.1\r\nhost: test\r\nx-drip: " + b"x" * 1000)
    assert received.startswith(b"HTTP/1.1 408 ")


def drip(client: Client, data: bytes) -> bytes:
    """Send a byte whenever the client has waited in vain for an answer; the answer."""
    for at in range(len(data)):
        client.send(data[at : at + 1])
        with suppress(TimeoutError):
            return client.sock.recv(65536)
    raise AssertionError("everything was sent and nobody has answered")


def test_body_that_stops_is_answered_with_408(client):
    with struck_after(BODY):
        client.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
        response = client.response()
    assert (response.status, response.closes) == (408, True)
    assert client.rest() == b""


def test_body_that_stops_within_its_response_breaks_the_connection(client):
    client.send(b"POST /started HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
    with pytest.raises((Broken, ConnectionError)):
        client.response()


def test_quiet_connection_is_closed_after_the_keep_alive_time(client):
    assert client.get("/").status == 200
    with struck_after(KEEP_ALIVE):
        assert client.rest() == b""


def test_client_that_never_reads_is_reset_and_costs_little_memory(served):
    before = {pid: memory(pid) for pid in served.workers()}
    said = served.log().count(STALLED)
    with ExitStack() as stack:
        deaf = [stack.enter_context(connect_deaf(served)) for _ in range(16)]
        for client in deaf:
            client.request("/large?64")
        with struck_after(WRITE):
            wait_until(lambda: served.log().count(STALLED) == said + len(deaf), "all of them are given up")
        for client in deaf:
            with pytest.raises((Broken, ConnectionError)):
                client.response()
        grown = {pid: memory(pid) - pss for pid, pss in before.items()}

    assert max(grown.values()) < GROWTH_LIMIT, grown


def connect_deaf(served: Served) -> Client:
    """A client with a small receive buffer, which fills up soon."""
    client = served.connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return client


def test_healthy_client_is_served_among_bad_ones(served):
    with ExitStack() as stack, served.connect() as healthy:
        for number in range(100):
            bad = stack.enter_context(connect_deaf(served))
            if number % 4 == 1:
                bad.send(b"GET / HTTP/1.1\r\nho")
            elif number % 4 == 2:
                bad.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
            elif number % 4 == 3:
                bad.request("/large?64")
        began = time.monotonic()
        times = []
        while time.monotonic() - began < 2 * WRITE:
            sent = time.monotonic()
            assert healthy.get("/").text == "Hello, World!"
            times.append(time.monotonic() - sent)

    assert sorted(times)[len(times) // 2] < 0.1, f"the median of {len(times)} requests"


# Wrong ones.


def tls_hello() -> bytes:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="test").do_handshake()
    return outgoing.read()


NOISE = b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(64))
FIELDS = b"".join(b"x-%d: %b\r\n" % (number, b"v" * 1000) for number in range(70))

WRONG = {
    "noise": (NOISE, {400}),
    "nothing but zeros": (bytes(5000), {400}),
    "a TLS hello": (tls_hello(), {400}),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", {400, 505}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400, 505}),
    "a request line of 10 KiB": (b"GET /" + b"a" * 10240 + b" HTTP/1.1\r\nhost: test\r\n\r\n", {414}),
    "a request line without end": (b"GET /" + b"a" * 100_000, {414}),
    "70 KiB of fields": (b"GET / HTTP/1.1\r\nhost: test\r\n" + FIELDS + b"\r\n", {431}),
    "one field of 70 KiB": (b"GET / HTTP/1.1\r\nhost: test\r\nx: " + b"v" * 70_000 + b"\r\n\r\n", {431}),
    "a field without end": (b"GET / HTTP/1.1\r\nhost: test\r\nx: " + b"v" * 200_000, {431}),
    "200 fields": (b"GET / HTTP/1.1\r\nhost: test\r\n" + b"a: b\r\n" * 200 + b"\r\n", {431}),
    "two framings": (
        b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "two lengths": (
        b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        {400},
    ),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", {400}),
    "two Hosts": (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", {400}),
    "a chunk of no size": (b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", {400}),
    "a space before a colon": (b"GET / HTTP/1.1\r\nhost : test\r\n\r\n", {400}),
    "bare line feeds": (b"GET / HTTP/1.1\nhost: test\n\n", {400}),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_request_is_refused_and_the_connection_closed(client, what):
    data, statuses = WRONG[what]
    with suppress(ConnectionError):  # the server may have closed before all was sent
        client.send(data)

    response = client.response()

    assert response.status in statuses
    assert response.closes
    assert client.rest() == b""


@pytest.mark.parametrize(
    "half",
    [b"", b"G", b"GET / HTTP/1.1\r\n", b"\r\n", b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nabc"],
    ids=["nothing", "a letter", "a line", "a blank line", "a body"],
)
def test_half_a_request_before_the_end_of_the_stream_is_closed(client, half):
    client.send(half)
    client.sock.shutdown(socket.SHUT_WR)
    began = time.monotonic()

    received = client.rest()

    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert time.monotonic() - began < LATE


def test_upgrade_to_what_is_not_spoken_is_served_as_plain_http(client):
    response = client.get("/", connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="AAMAAABk")

    assert (response.status, response.text) == (200, "Hello, World!")
    assert client.get("/").status == 200


def test_reset_in_the_middle_of_a_response_is_no_error(served):
    client = served.connect()
    client.request("/large?16")
    assert client.head().status == 200
    # RFC 9293 calls it an abort; Linux sends a reset when a socket with this option is closed.
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
