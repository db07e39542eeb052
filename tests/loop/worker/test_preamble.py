"""Connections that begin with a PROXY header, on a transport and a clock of our own."""

from __future__ import annotations

import asyncio
import gc

import pytest

from aioserve.http.proxy_protocol import SIGNATURE
from aioserve.http.proxy_tlvs import ClientTls, Facts
from aioserve.worker.connection import Connection
from aioserve.worker.drain import drain
from aioserve.worker.preamble import Introduction, Reception, extensions, tls_extension
from aioserve.worker.speakers import protocol_of
from tests.fakes import FakeTransport
from tests.loop.worker.conftest import settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LINE = b"PROXY TCP4 203.0.113.9 198.51.100.1 50000 443\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BALANCER = "192.0.2.7"


def block(tlvs=b"", command=1, family=0x11, addresses=b"\xcb\x00\x71\x09\xc6\x33\x64\x01\xc3\x50\x01\xbb"):
    body = addresses + tlvs
    return SIGNATURE + bytes((0x20 | command, family)) + len(body).to_bytes(2, "big") + body


def tlv(kind, value):
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


TLS = tlv(
    0x20,
    b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_256_GCM_SHA384") + tlv(0x22, b"robot, the"),
)


class Peer:
    """A connection of somebody to a server that wants PROXY headers."""

    def __init__(self, reception, listener, **transport):
        self.server = reception.server
        self.transport = FakeTransport(**transport)
        self.transport.protocol = reception.connect(listener)
        self.transport.protocol.connection_made(self.transport)

    @property
    def protocol(self):
        return self.transport.protocol

    def send(self, data):
        self.protocol.data_received(data)

    async def ask(self, data):
        self.send(data)
        await settle()
        return self.transport.take()

    @property
    def state(self):
        return self.transport.state


@pytest.fixture
def house(connect):
    """A server with --proxy-protocol; ``scopes`` is what its application has seen, ``peer()`` another connection."""

    class House:
        def __init__(self, **settings):
            self.scopes = []
            settings = {"proxy_protocol": "auto", "proxy_protocol_from": (BALANCER, "unix:"), **settings}
            ordinary = connect(self.app, **settings)
            self.server, self.listener = ordinary.server, ordinary.listener
            ordinary.transport.abort()
            assert self.server.connections == 0
            self.reception = None

        async def app(self, scope, receive, send):
            self.scopes.append(scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        def peer(self, **transport):
            self.reception = self.reception or Reception(self.server)
            return Peer(self.reception, self.listener, **transport)

        async def scope(self, data, **transport):
            """The scope of a request behind ``data``."""
            assert await self.peer(**transport).ask(data + GET) == OK
            return self.scopes[-1]

        def wait(self, seconds):
            deadlines = self.server.deadlines
            until = deadlines.now + seconds
            while deadlines.now < until:
                deadlines.advance(deadlines.now + deadlines.resolution)

    return House


@pytest.mark.parametrize("header", [LINE, block()], ids=["v1", "v2"])
async def test_the_application_sees_the_client_and_the_server_of_the_header(house, header):
    scope = await house().scope(header)
    assert (scope["client"], scope["server"]) == (("203.0.113.9", 50000), ("198.51.100.1", 443))
    assert scope["scheme"] == "http"
    assert "tls" not in scope.get("extensions", {})


async def test_a_header_and_a_request_arrive_in_any_pieces(house):
    one = house()
    raw = block(TLS) + GET
    for cut in range(1, len(raw)):
        peer = one.peer()
        peer.send(raw[:cut])
        assert await peer.ask(raw[cut:]) == OK
    peer = one.peer()
    for at in range(len(raw)):
        peer.send(raw[at : at + 1])
    await settle()
    assert peer.transport.take() == OK
    assert {scope["client"] for scope in one.scopes} == {("203.0.113.9", 50000)}


async def test_every_request_of_the_connection_has_the_same_client(house):
    one = house()
    assert await one.peer().ask(LINE + GET + GET) == OK + OK
    assert [scope["client"][0] for scope in one.scopes] == ["203.0.113.9"] * 2


async def test_a_second_header_is_no_request(house):
    answer = await house().peer().ask(LINE + LINE + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", block(command=0), block(command=0, family=0, addresses=b""), block(family=0, addresses=b"")],
    ids=["UNKNOWN", "LOCAL", "LOCAL without addresses", "UNSPEC"],
)
async def test_without_a_client_the_connection_keeps_its_own_addresses(house, header):
    scope = await house().scope(header)
    assert (scope["client"], scope["server"]) == (("192.0.2.7", 50000), ("192.0.2.1", 80))


async def test_a_client_on_a_unix_socket_has_no_address_but_its_tls_counts(house):
    scope = await house().scope(block(TLS, family=0x31, addresses=b"/run/x".ljust(216, b"\0")))
    assert (scope["client"], scope["server"], scope["scheme"]) == (("192.0.2.7", 50000), ("192.0.2.1", 80), "https")


async def test_a_client_over_tls_has_https_and_the_tls_extension(house):
    scope = await house().scope(block(TLS))
    assert scope["scheme"] == "https"
    assert scope["extensions"]["tls"] == {
        "server_cert": None,
        "client_cert_chain": (),
        "client_cert_name": "CN=robot\\, the",
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1302,
    }


async def test_what_an_application_changes_in_its_extension_is_not_seen_by_the_next_request(house):
    one = house()
    peer = one.peer()
    await peer.ask(block(TLS) + GET)
    one.scopes[0]["extensions"]["tls"]["client_cert_name"] = "CN=root"
    await peer.ask(GET)
    assert one.scopes[1]["extensions"]["tls"]["client_cert_name"] == "CN=robot\\, the"


async def test_names_and_ids_are_shown_under_a_name_of_ours(house):
    scope = await house().scope(block(tlv(1, b"http/1.1") + tlv(2, b"a.example") + tlv(5, b"\1")))
    assert scope["extensions"]["aioserve.proxy_protocol"] == {
        "alpn": b"http/1.1", "authority": "a.example", "unique_id": b"\1",
    }  # fmt: skip


def test_without_facts_there_is_no_extension():
    assert extensions(Facts()) is None


@pytest.mark.parametrize(
    ("tls", "name", "error"),
    [
        (ClientTls(client_name="a"), None, False),
        (ClientTls(client_name="a", client_presented=True, verify=18), None, True),
        (ClientTls(client_name="a", client_presented=True, client_verified=True), "CN=a", False),
        (ClientTls(client_presented=True, client_verified=True), None, False),
    ],
)
def test_only_a_verified_client_is_named(tls, name, error):
    said = tls_extension(tls)
    assert (said["client_cert_name"], bool(said["client_cert_error"])) == (name, error)


@pytest.mark.parametrize(
    ("version", "cipher", "numbers"),
    [
        ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", (0x0303, 0xC02F)),
        ("TLS 1.3", "TLS_CHACHA20_POLY1305_SHA256", (0x0304, 0x1303)),
        ("TLSv9", "NONE-SUCH", (None, None)),
        ("", "", (None, None)),
    ],
)
def test_versions_and_ciphers_are_shown_by_their_registered_numbers(version, cipher, numbers):
    said = tls_extension(ClientTls(version=version, cipher=cipher))
    assert (said["tls_version"], said["cipher_suite"]) == numbers


def test_a_name_cannot_pass_for_several_parts_of_one():
    said = tls_extension(ClientTls(client_name="a,O=root", client_presented=True, client_verified=True))
    assert said["client_cert_name"] == "CN=a\\,O=root"


# Whom the forwarding headers of a proxied client are believed.


async def test_a_clients_own_forwarding_headers_are_not_believed_because_the_load_balancer_is(house):
    one = house(trusted=(BALANCER,))
    await one.peer().ask(LINE + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert one.scopes[0]["client"] == ("203.0.113.9", 50000)


async def test_the_forwarding_headers_of_a_trusted_client_of_the_header_are_believed(house):
    one = house(trusted=("203.0.113.9",))
    await one.peer().ask(LINE + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert one.scopes[0]["client"] == ("1.2.3.4", 0)


@pytest.mark.parametrize(
    ("header", "believed"),
    [
        (b"PROXY UNKNOWN\r\n", False),
        (block(family=0, addresses=b""), False),
        (block(family=0x31, addresses=bytes(216)), False),
        # The load balancer speaks for itself.
        (block(command=0, family=0, addresses=b""), True),
    ],
    ids=["UNKNOWN", "UNSPEC", "unix", "LOCAL"],
)
async def test_a_client_without_a_name_cannot_choose_one(house, header, believed):
    one = house(trusted=(BALANCER,))
    await one.peer().ask(header + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert one.scopes[0]["client"] == (("1.2.3.4", 0) if believed else (BALANCER, 50000))


# Who may not.


async def test_others_are_closed_and_nothing_of_them_is_read(house, caplog):
    caplog.set_level("INFO")
    one = house()
    peer = one.peer(peer=("192.0.2.8", 1))
    assert peer.state == "aborted"
    assert await peer.ask(LINE + GET) == b""
    assert (one.scopes, one.server.connections) == ([], 0)
    assert (
        "192.0.2.8:1 - closed: it may not send PROXY headers, --proxy-protocol-from names 192.0.2.7, unix:"
        in caplog.text
    )


async def test_many_others_are_one_line_a_minute(house, caplog, monkeypatch):
    caplog.set_level("INFO")
    one = house(proxy_protocol_from=())
    times = iter([1000.0, 1059.9, 1060.0, 1060.1])
    monkeypatch.setattr(one.server, "loop", type("Clock", (), {"time": lambda self: next(times)})())
    for _ in range(4):
        assert one.peer().state == "aborted"
    assert [record.args[-1] for record in caplog.records] == [1, 2]
    assert "names nobody" in caplog.text


async def test_a_unix_peer_is_a_load_balancer_if_they_may_be(house):
    scope = await house().scope(LINE, peer="")
    assert scope["client"] == ("203.0.113.9", 50000)
    assert house(proxy_protocol_from=(BALANCER,)).peer(peer="").state == "aborted"


# Headers that are none, or do not come.


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (GET, "no PROXY header but b'GET / HTTP/1.1"),
        (b"\x16\x03\x01", "no PROXY header but"),
        (b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n" + GET, "for an IPv4 address"),
        (SIGNATURE + b"\x11\x11\0\0" + GET, "version 1"),
    ],
)
async def test_anything_but_a_header_ends_the_connection_without_an_answer(house, caplog, sent, said):
    caplog.set_level("INFO")
    one = house()
    peer = one.peer()
    assert await peer.ask(sent) == b""
    assert (peer.state, one.scopes, one.server.connections) == ("aborted", [], 0)
    # Whatever comes after that changes nothing.
    peer.protocol.eof_received()
    peer.protocol.abort()
    (line,) = caplog.messages
    assert line.startswith("192.0.2.7:50000 - closed: ")
    assert said in line


@pytest.mark.parametrize("sent", [b"", LINE[:20]])
async def test_a_header_that_does_not_come_in_time_ends_the_connection(house, caplog, sent):
    caplog.set_level("INFO")
    one = house(header_timeout=5.0)
    peer = one.peer()
    peer.send(sent)
    one.wait(4.9)
    await settle()
    assert peer.state == "open"
    one.wait(2.0)
    # What lies unread in the socket is read first.
    assert peer.state == "open"
    await settle()
    assert (peer.state, one.server.connections) == ("aborted", 0)
    assert "no whole PROXY header within 5 s" in caplog.text


async def test_a_header_read_in_the_turn_in_which_its_time_is_up_counts(house):
    one = house(header_timeout=5.0)
    peer = one.peer()
    one.wait(7.0)
    assert await peer.ask(LINE + GET) == OK
    await settle()
    assert peer.state == "open"


async def test_the_request_behind_the_header_has_a_time_of_its_own(house):
    one = house(header_timeout=5.0)
    peer = one.peer()
    one.wait(4.0)
    peer.send(LINE)
    one.wait(4.0)
    peer.send(GET[:5])
    assert await peer.ask(GET[5:]) == OK
    silent = one.peer()
    silent.send(LINE)
    one.wait(7.0)
    await settle()
    assert silent.state == "closed"


async def test_a_peer_that_leaves_within_the_header_is_named_and_a_probe_is_not(house, caplog):
    caplog.set_level("INFO")
    one = house()
    probe = one.peer()
    assert probe.protocol.eof_received() is False
    probe.transport.close()
    assert caplog.messages == []
    peer = one.peer()
    peer.send(LINE[:9])
    assert not peer.protocol.eof_received()
    assert "left within the PROXY header" in caplog.text
    assert one.server.connections == 0


# The server's books.


async def test_a_connection_is_counted_once(house):
    one = house()
    before = one.server.connections_total
    peer = one.peer()
    assert (one.server.connections, one.server.connections_total) == (1, before + 1)
    peer.send(LINE)
    assert type(peer.protocol) is Connection
    assert (one.server.connections, one.server.connections_total) == (1, before + 1)
    peer.transport.close()
    assert one.server.connections == 0


async def test_the_protocol_of_the_header_is_forgotten_once_it_is_read(house):
    one = house()
    peer = one.peer()
    assert type(peer.protocol) is Introduction
    peer.send(LINE)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is Introduction and thing._listener is one.listener]


async def test_a_drain_ends_what_waits_for_a_header_in_silence(house, caplog):
    caplog.set_level("INFO")
    one = house(drain_linger=0.0)
    peer, served = one.peer(), one.peer()
    await served.ask(LINE + GET)
    hurry = asyncio.Event()
    draining = asyncio.ensure_future(drain(one.server, 10.0, hurry))
    for _ in range(50):
        await settle()
        one.wait(0.5)
    assert draining.done()
    assert (peer.state, one.server.connections) == ("aborted", 0)
    assert caplog.messages == []


async def test_the_end_of_the_grace_time_ends_what_waits_for_a_header(house):
    one = house(drain_linger=60.0)
    peer = one.peer()
    await drain(one.server, 0.0, asyncio.Event())
    assert peer.state == "aborted"


# The choice.


async def test_without_the_proxy_protocol_connections_are_ordinary(house):
    for mode, kind in (("off", Connection), ("auto", Introduction)):
        one = house(proxy_protocol=mode)
        assert type(protocol_of(one.server)(one.listener)) is kind
