"""How connections end over real sockets: early answers, half-closed, deaf and vanished clients, and what is left."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from tests.process.clients import Broken, Client
from tests.process.servers import PATIENCE, Served, memory, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CHOICES = {
    "httptools on uvloop": ("--http", "httptools", "--loop", "uvloop"),
    "h11 on asyncio": ("--http", "h11", "--loop", "asyncio"),
}

#: Seconds.
WRITE, BODY = 2.0, 2.0

KIB = 1024
MIB = 1024 * KIB

#: More than the server throws away for the sake of the next request.
TOO_MUCH = 2 * MIB

#: What a worker may grow by while thousands of connections end badly, once it has seen each kind of them.
GROWTH_LIMIT = 2 * MIB

GET = b"GET %b HTTP/1.1\r\nhost: test\r\n\r\n"
POST = b"POST %b HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture(scope="module", params=CHOICES)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    limits = ("--timeout-write", str(WRITE), "--timeout-body", str(BODY))
    with Served("endings:app", *CHOICES[request.param], *limits, "--no-access-log") as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(served: Served) -> Iterator[None]:
    """Whatever has ended, and however: the worker holds no connection of it, and its code has not failed."""
    [worker] = served.workers()
    served.get("/seen")
    wait_until(lambda: sockets(worker) == idle_sockets(served), "connections of the test before are closed")
    yield
    wait_until(lambda: sockets(worker) == idle_sockets(served), "all connections are closed")
    assert served.get("/").text == "Hello, World!"
    assert served.workers() == {worker}
    assert "Traceback" not in served.log()


def sockets(pid: int) -> int:
    """How many sockets ``pid`` has open."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(entry.path).startswith("socket:")
    return count


_idle: dict[int, int] = {}


def idle_sockets(served: Served) -> int:
    """How many sockets the worker has without a connection: the fewest that were ever seen."""
    [worker] = served.workers()
    _idle[worker] = min(sockets(worker), _idle.get(worker, 1 << 30))
    return _idle[worker]


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.connect() as client:
        yield client


def seen(served: Served) -> list[str]:
    """What the application was told, once it was told something."""
    return wait_until(lambda: json.loads(served.get("/seen").text), "the application is told")


def reset(client: Client) -> None:
    """Leave with a reset: Linux sends one when a socket with this option is closed (socket(7))."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def send_all_of(client: Client, data: bytes) -> int:
    """Send until the server no longer takes it; how much it took. A client that does not look while it sends."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < len(data):
            sent += client.sock.send(data[sent : sent + 64 * KIB])
    return sent


# Early answers.


def test_answer_before_the_body_and_a_short_body_leave_the_connection_open(client):
    client.send(POST % (b"/early", 200 * KIB))
    assert len(client.response().body) == KIB

    client.send(bytes(200 * KIB) + GET % b"/")
    assert client.response().text == "Hello, World!"


def test_requests_behind_an_early_answer_are_served_in_order(client):
    client.send((POST % (b"/early", 50 * KIB) + bytes(50 * KIB)) * 3 + GET % b"/")

    assert [len(client.response().body) for _ in range(4)] == [KIB, KIB, KIB, 13]


def test_chunked_body_behind_an_early_answer_is_passed_over(client):
    client.send(b"POST /early HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
    assert len(client.response().body) == KIB

    client.send(b"3\r\nabc\r\n" * 1000 + b"0\r\nx-trailer: GET /early\r\n\r\n" + GET % b"/")
    assert client.response().text == "Hello, World!"


@pytest.mark.parametrize("size", [1, 60, 500])
def test_client_that_sends_a_long_body_to_its_end_still_reads_its_early_answer(client, size):
    client.send(POST % (b"/early?%d" % size, TOO_MUCH))
    send_all_of(client, bytes(TOO_MUCH))

    assert len(client.response().body) == size * KIB
    assert client.rest() == b""


@pytest.mark.once
def test_slow_reader_of_an_early_answer_gets_all_of_it_although_it_sent_too_much(client):
    narrow(client)
    client.send(POST % (b"/early?60", TOO_MUCH))
    send_all_of(client, bytes(TOO_MUCH))

    began = time.monotonic()
    received = b""
    # It takes longer than a client has that does not read.
    while data := read_slowly(client, 16 * KIB):
        received += data

    assert received.endswith(b"\r\n\r\n" + bytes(60 * KIB))
    assert time.monotonic() - began > 3


def narrow(client: Client) -> None:
    """Receive so little at once that the server has to keep most of its answer."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * KIB)


def read_slowly(client: Client, bytes_per_second: float) -> bytes:
    """A piece, and the time that it should take."""
    data = client.sock.recv(2048)
    select.select([], [], [], len(data) / bytes_per_second)
    return data


def test_application_that_has_answered_early_is_told_that_there_is_no_more(served, client):
    client.send(POST % (b"/early-then-read", 10))
    assert client.response().text == "early"

    assert seen(served) == ["0 bytes after the answer, then http.disconnect"]


def test_early_answer_to_a_client_that_expects_100_closes(client):
    client.send(b"POST /early HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n")

    assert len(client.response().body) == KIB
    assert client.rest() == b""


def test_client_that_expects_100_and_sends_all_the_same_reads_its_early_answer(client):
    client.send(b"POST /early HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\nexpect: 100-continue\r\n\r\n" % TOO_MUCH)
    send_all_of(client, bytes(TOO_MUCH))

    assert len(client.response().body) == KIB
    assert client.rest() == b""


def test_unwanted_body_that_stops_ends_the_connection(client):
    client.send(POST % (b"/early", 100) + b"half")
    assert len(client.response().body) == KIB

    assert client.rest() == b""


# Closing.


@pytest.mark.parametrize("more", [GET % b"/", bytes(TOO_MUCH)], ids=["a request", "megabytes"])
def test_client_that_sends_more_behind_connection_close_reads_its_answer_and_no_other(client, more):
    client.send(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    send_all_of(client, more)

    response = client.response()
    assert (response.text, response.closes) == ("Hello, World!", True)
    assert client.rest() == b""


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.0\r\n\r\n", POST % (b"/echo", 4) + b"abcd"], ids=["head", "body"])
def test_megabytes_behind_the_last_request_do_not_end_in_a_reset(client, request_):
    request_ = request_.replace(b"content-length", b"connection: close\r\ncontent-length")
    client.sock.sendall(request_ + bytes(TOO_MUCH))

    assert client.response().status == 200
    assert client.sock.recv(1) == b""


def test_http_1_0_client_that_sends_more_reads_its_answer(client):
    client.send(b"GET /early?60 HTTP/1.0\r\n\r\n")
    send_all_of(client, bytes(TOO_MUCH))

    assert len(client.response().body) == 60 * KIB
    assert client.rest() == b""


def test_answer_during_a_drain_says_close_and_requests_behind_it_are_answered():
    with Served("endings:app", "--no-access-log") as server, server.connect() as client, server.connect() as other:
        client.send(POST % (b"/echo", 4))
        other.get("/")
        server.signal(signal.SIGTERM)
        server.wait_for("SIGTERM")
        # A connection that was open before the drain: its answer says when the worker has heard of it.
        wait_until(lambda: other.get("/").closes, "the worker drains")
        client.send(b"abcd")
        response = client.response()

        assert (response.text, response.closes) == ("abcd", True)
        assert client.rest() == b""
        assert server.wait() == 0


# Half-closed clients.


@pytest.mark.parametrize("size", [1, 60, 4000])
def test_half_closed_client_gets_its_answer_to_the_end(client, size):
    client.send(GET % (b"/early?%d" % size))
    client.sock.shutdown(socket.SHUT_WR)

    assert len(client.response().body) == size * KIB
    assert client.rest() == b""


def test_half_closed_client_gets_the_answers_to_all_that_it_has_sent(client):
    client.send(GET % b"/" * 100)
    client.sock.shutdown(socket.SHUT_WR)

    assert [client.response().text for _ in range(100)] == ["Hello, World!"] * 100
    assert client.rest() == b""


def test_client_that_half_closes_while_the_application_works_gets_its_answer(served, client):
    client.send(GET % b"/hold")
    assert seen(served) == ["working"]
    client.sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: served.get("/release").text and readable(client), "it is released")

    assert client.response().text == "worked"
    assert client.rest() == b""
    assert seen(served) == ["sent"]


def readable(client: Client) -> bool:
    return select.select([client.sock], [], [], 0) != ([], [], [])


@pytest.mark.parametrize("path", [b"/echo", b"/wait"])
def test_application_is_told_of_a_half_close_within_the_body(served, client, path):
    client.send(POST % (path, 10) + b"12345")
    client.sock.shutdown(socket.SHUT_WR)

    assert client.rest() == b""
    assert seen(served) == ["5 bytes, then http.disconnect"]


def test_application_that_waits_for_the_client_to_go_is_told_of_a_half_close(served, client):
    client.send(POST % (b"/wait", 5) + b"12345")
    client.sock.shutdown(socket.SHUT_WR)

    assert client.rest() == b""
    assert seen(served) == ["5 bytes, then http.disconnect"]


def test_half_close_within_an_unwanted_body_closes(client):
    client.send(POST % (b"/early", 100) + b"half")
    assert len(client.response().body) == KIB
    client.sock.shutdown(socket.SHUT_WR)

    assert client.rest() == b""


# Clients that do not read, or hardly.


@pytest.mark.once
def test_client_that_stops_reading_is_reset_and_costs_little(served, client):
    [worker] = served.workers()
    before = memory(worker, "VmRSS")
    narrow(client)
    mark = served.mark()
    client.send(GET % b"/stream")
    head = client.head()
    served.wait_for("read next to nothing", since=mark)

    assert seen(served) == ["ClientDisconnected"]
    assert memory(worker, "VmRSS") - before < 8 * MIB
    with pytest.raises((Broken, ConnectionError)):
        for _ in client.body(head):
            pass


@pytest.mark.once
def test_slow_and_steady_reader_is_not_cut(served, client):
    narrow(client)
    client.send(GET % b"/stream")
    mark = served.mark()
    began = time.monotonic()
    # The kernel asks for more after 64 KiB: at this pace, longer than the limit.
    while time.monotonic() - began < 3 * WRITE:
        assert read_slowly(client, 24 * KIB)

    assert "read next to nothing" not in served.log()[mark:]


def test_client_that_sends_and_does_not_read_is_reset_in_time(served, client):
    mark = served.mark()
    narrow(client)
    client.send(POST % (b"/stream", 1000))
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        while time.monotonic() - began < PATIENCE:
            client.send(b"x")
            select.select([], [], [], WRITE / 10)

    assert "read next to nothing" in served.log()[mark:]
    assert seen(served) == ["ClientDisconnected"]


# Clients that vanish.

VANISHING = {
    "before a byte": b"",
    "in the head": b"GET / HTT",
    "behind a blank line": b"\r\n",
    "in the body": POST % (b"/echo", 10) + b"12345",
    "in the body that nobody reads": POST % (b"/early", 10) + b"12345",
    "while a 100 is awaited": b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
    "while the application waits": GET % b"/wait",
    "in the response": GET % b"/stream",
    "in a large response": GET % b"/early?4000",
    "before the response": GET % b"/early",
    "in a pipeline": GET % b"/early?60" * 40,
    "behind a wrong request": b"GET / HTTP/1.1\r\n\r\n" * 3,
    "behind connection close": b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n" * 3,
}


@pytest.mark.parametrize("where", VANISHING)
def test_reset_leaves_nothing_and_says_nothing(served, where):
    mark = served.mark()
    for _ in range(20):
        client = served.connect()
        client.send(VANISHING[where])
        reset(client)

    assert "ERROR" not in served.log()[mark:]


def test_reset_while_the_application_works_is_no_error(served):
    mark = served.mark()
    client = served.connect()
    client.send(GET % b"/hold")
    assert seen(served) == ["working"]
    [worker] = served.workers()
    open_then = sockets(worker)
    reset(client)
    wait_until(lambda: sockets(worker) < open_then, "the worker has noticed")

    assert served.get("/release").text == "released"
    assert seen(served) == ["ClientDisconnected"]
    assert "ERROR" not in served.log()[mark:]


def test_thousands_of_bad_endings_do_not_make_the_worker_grow(served):
    [worker] = served.workers()
    rounds = 40

    def vanish() -> None:
        for data in VANISHING.values():
            for polite in (False, True):
                client = served.connect()
                with contextlib.suppress(ConnectionError):
                    client.send(data)
                if polite:
                    client.close()
                else:
                    reset(client)

    def occupied() -> int:
        for _ in range(rounds):
            vanish()
        wait_until(lambda: sockets(worker) == idle_sockets(served), "all connections are closed")
        return memory(worker, "VmRSS")

    # What leaks does so every time; the allocator takes or gives back some MiB now and then.
    sizes = [occupied() for _ in range(4)]
    grown = statistics.median(after - before for before, after in itertools.pairwise(sizes))

    print(f"{grown / KIB:.0f} KiB after {rounds * 2 * len(VANISHING)} endings")
    assert grown < GROWTH_LIMIT
