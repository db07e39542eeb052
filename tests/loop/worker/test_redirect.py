"""Plain HTTP where TLS is wanted, on a transport and a clock of our own."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aioserve.accept.base import Listener
from aioserve.observe import access
from aioserve.worker.drain import drain
from aioserve.worker.peer import Peer
from aioserve.worker.redirect import Redirect
from tests.fakes import FakeTransport
from tests.loop.worker.conftest import settle

GET = b"GET /p?q HTTP/1.1\r\nHost: a.example\r\n\r\n"
MOVED = (
    b"HTTP/1.1 308 Permanent Redirect\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 36\r\n"
    b"location: https://a.example:8443/p?q\r\nconnection: close\r\n\r\n"
)
TEXT = b"moved to https://a.example:8443/p?q\n"
PLAIN = Listener(sock=None, address="http://192.0.2.1:80", server=("192.0.2.1", 80), redirect=True)
TLS = Listener(sock=None, address="https://192.0.2.1:8443", server=("192.0.2.1", 8443), scheme="https")


@pytest.fixture
def door(connect):
    """A server whose application is never asked; ``peer()`` is a connection to it."""

    async def app(scope, receive, send):
        raise AssertionError("no application hears of it")

    class Door:
        def __init__(self, **settings):
            client = connect(app, redirects=True, redirect_port=8443, **settings)
            client.transport.abort()
            self.client, self.server = client, client.server
            self.wait = client.wait

        def peer(self, listener=PLAIN, **transport):
            made = FakeTransport(**transport)
            made.protocol = Redirect(self.server, listener)
            made.protocol.connection_made(made)
            return made

    return Door


async def test_every_request_is_sent_on_and_the_connection_closed(door):
    house = door()
    peer = house.peer()
    assert house.server.connections == 1
    peer.protocol.data_received(GET)
    assert peer.take().replace(b"content-length: 36", b"content-length: 36") == MOVED + TEXT
    assert peer.state == "closed"
    assert house.server.connections == 0
    assert list(house.server.deadlines) == []


async def test_a_head_gets_no_text(door):
    peer = door().peer()
    peer.protocol.data_received(GET.replace(b"GET", b"HEAD"))
    assert peer.take().endswith(b"connection: close\r\n\r\n")


async def test_a_head_may_come_in_pieces(door):
    house = door()
    peer = house.peer()
    for byte in GET:
        assert not peer.written
        peer.protocol.data_received(bytes((byte,)))
    assert peer.take().startswith(b"HTTP/1.1 308 ")


@pytest.mark.parametrize(
    "behind",
    [b"Content-Length: 10\r\n\r\n0123", b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"],
)
async def test_a_body_is_dropped_behind_a_fin_and_the_answer_can_be_read(door, behind):
    house = door()
    peer = house.peer()
    peer.protocol.data_received(b"POST /p?q HTTP/1.1\r\nHost: a.example\r\n" + behind)
    assert peer.take().endswith(TEXT)
    assert peer.state == "half-closed"
    peer.protocol.data_received(b"456789")
    assert not peer.written
    house.wait(4)
    assert peer.state == "aborted"
    assert house.server.connections == 0


async def test_what_comes_behind_the_first_request_has_no_answer(door):
    peer = door().peer()
    peer.protocol.data_received(GET + GET)
    assert peer.take().count(b"HTTP/1.1 308") == 1
    assert peer.state == "half-closed"


async def test_a_body_above_the_limit_has_the_same_answer(door):
    peer = door(limits={"request_body": 4}).peer()
    peer.protocol.data_received(b"POST /p?q HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n")
    assert peer.take().endswith(TEXT)
    assert not peer.written


async def test_without_a_host_there_is_nowhere_to_go(door):
    peer = door().peer()
    peer.protocol.data_received(b"GET / HTTP/1.0\r\n\r\n")
    written = peer.take()
    assert written.startswith(b"HTTP/1.1 400 ")
    assert b"does not say to which host" in written
    assert peer.state == "half-closed"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400"),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (b"\x16\x03\x01\x02\x00", b"400"),
    ],
)
async def test_what_is_no_request_is_refused_as_anywhere(door, data, status):
    peer = door().peer()
    peer.protocol.data_received(data)
    assert peer.take().startswith(b"HTTP/1.1 " + status)


async def test_a_head_that_does_not_come_in_time_is_refused(door):
    house = door()
    peer = house.peer()
    peer.protocol.data_received(GET[:-4])
    house.wait(9)
    assert peer.state == "open"
    house.wait(2)
    assert peer.take().startswith(b"HTTP/1.1 408 ")
    assert peer.state == "half-closed"


async def test_a_connection_that_says_nothing_is_closed(door):
    house = door()
    peer = house.peer()
    house.wait(13)
    await settle()
    assert (peer.state, peer.written) == ("aborted", b"")


async def test_a_request_that_was_unread_at_the_deadline_has_its_answer(door):
    house = door()
    peer = house.peer()
    house.wait(13)
    peer.protocol.data_received(GET)
    await settle()
    assert peer.take().endswith(TEXT)
    assert peer.state == "closed"


async def test_a_client_that_does_not_read_on_is_not_waited_for(door):
    house = door(write_timeout=5.0)
    peer = house.peer()
    peer.close = lambda: None  # the transport has bytes that nobody takes
    peer.protocol.data_received(GET)
    house.wait(8)
    assert peer.state == "aborted"


async def test_the_drain_waits_for_no_request(door):
    house = door()
    peer = house.peer()
    await house.server.close_gate(take_queue=False)
    assert not house.server.quiet.is_set()
    house.wait(3)
    await settle()
    assert peer.state == "aborted"
    assert house.server.quiet.is_set()


async def test_the_drain_may_cut(door):
    house = door()
    peer = house.peer()
    await drain(house.server, 0.0, asyncio.Event(), take_queue=False)
    assert peer.state == "aborted"


async def test_a_client_that_leaves_is_forgotten(door):
    house = door()
    peer = house.peer()
    assert peer.protocol.eof_received() is False
    peer.protocol.connection_lost(None)
    assert list(house.server.deadlines) == []
    peer.protocol.data_received(GET)
    peer.protocol.abort()
    assert not peer.written


async def test_a_reset_while_the_answer_is_written_is_no_error(door):
    peer = door().peer()

    def gone():
        raise OSError

    peer.write_eof = gone
    peer.protocol.data_received(GET + GET)
    assert peer.state == "aborted"


async def test_it_is_in_the_access_log(door):
    house = door()
    peer = house.peer()
    peer.protocol.data_received(GET)
    (exchange,) = house.server.access.cycles
    assert (exchange.status, exchange.sent_bytes, exchange.scope["client"]) == (308, len(TEXT), ("192.0.2.7", 50000))
    assert exchange.started <= exchange.first_byte <= exchange.ended
    assert access.line(exchange).startswith('192.0.2.7:50000 - "GET /p?q HTTP/1.1" 308 Permanent Redirect 36B ')
    assert '"GET /p?q HTTP/1.1" 308 36 "-" "-"' in access.combined(exchange, 0.0)
    assert access.fields(exchange, 0.0)["host"] == "a.example"


async def test_without_an_access_log_there_is_no_line(door):
    house = door()
    house.server.access = None
    peer = house.peer()
    peer.protocol.data_received(GET)
    assert peer.take().endswith(TEXT)


async def test_who_has_read_the_first_bytes_knows_the_client(door):
    house = door()
    peer = FakeTransport()
    peer.protocol = Redirect(house.server, PLAIN)
    house.server.connection_opened()
    peer.protocol.take_over(peer, Peer(("203.0.113.9", 1), ("192.0.2.1", 80), "http"))
    peer.protocol.data_received(GET)
    (exchange,) = house.server.access.cycles
    assert exchange.scope["client"] == ("203.0.113.9", 1)
    assert house.server.connections == 0


# At a port that speaks TLS.


async def test_plain_http_at_a_port_of_tls_is_sent_to_the_same_port(door):
    peer = door().peer(TLS)
    peer.protocol.data_received(GET.replace(b"a.example", b"a.example:9443"))
    assert b"\r\nlocation: https://a.example:9443/p?q\r\n" in peer.take()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET ", b"G"])
async def test_plain_http_that_names_no_host_is_told_that_tls_is_spoken(door, data):
    house = door()
    peer = house.peer(TLS)
    peer.protocol.data_received(data)
    house.wait(12)
    written = peer.take()
    assert written.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 "))
    assert written.endswith(b"this port speaks TLS, and this was plain HTTP; ask for https:// instead of http://\n")


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x03\x00", b"\x15\x03\x01\x00\x02\x02\x28", b"get / "]
)
async def test_what_is_neither_is_closed_without_an_answer(door, data, caplog):
    caplog.set_level(logging.INFO, "aioserve")
    peer = door().peer(TLS)
    peer.protocol.data_received(data)
    assert (peer.state, peer.written) == ("aborted", b"")
    assert caplog.records == []
