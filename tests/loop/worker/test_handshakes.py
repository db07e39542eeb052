"""Handshakes: what ends them, how many there may be, how long they may take, and whose turn it is."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import ssl

import pytest

from aioserve.observe.scoreboard import HANDSHAKES, HANDSHAKES_FAILED, HANDSHAKES_RESUMED, HANDSHAKES_TOTAL
from aioserve.worker import handshakes
from aioserve.worker.handshakes import GRACE, Handshakes
from aioserve.worker.preamble import Reception
from aioserve.worker.waits import LINGER_SECONDS
from tests.loop.worker.conftest import settle
from tests.loop.worker.tls import AUTHORITY, Caller, speak_tls, terms
from tests.tls import Authority

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLIENTS = Authority()
V12 = ssl.TLSVersion.TLSv1_2


@pytest.fixture
def house(connect, caplog):
    """A server that speaks TLS; ``caller()`` is a client of it, ``lines`` its log without those at debug."""
    caplog.set_level(logging.DEBUG, "aioserve")

    class House:
        def __init__(self, context=None, **settings):
            self.scopes = []
            ordinary = connect(self.app, **settings)
            self.listener = ordinary.listener
            ordinary.transport.abort()
            self.server = speak_tls(ordinary.server, context, "the certificate")
            self.shared = self.server.handshakes

        async def app(self, scope, receive, send):
            self.scopes.append(scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        def caller(self, **options):
            return Caller(self.server, self.listener, **options)

        @property
        def lines(self):
            return [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]

        @property
        def quiet_lines(self):
            return [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]

        def counted(self):
            self.server._publish()
            cells = self.server._cells
            return tuple(cells[cell] for cell in (HANDSHAKES, HANDSHAKES_TOTAL, HANDSHAKES_RESUMED, HANDSHAKES_FAILED))

    return House


def hello(**options):
    """The first flight of a client."""
    client = AUTHORITY.client_context(**options).wrap_bio(
        ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


# What comes of it.


@pytest.mark.parametrize("version", [V12, ssl.TLSVersion.TLSv1_3])
async def test_the_application_learns_what_was_agreed_on(house, version):
    one = house()
    client = await one.caller(context=AUTHORITY.client_context(maximum_version=version)).shake_hands()
    assert await client.ask(GET) == OK
    (scope,) = one.scopes
    assert (scope["scheme"], scope["client"]) == ("https", ("192.0.2.7", 50000))
    assert scope["extensions"]["tls"]["tls_version"] == version
    assert scope["extensions"]["tls"]["server_cert"] == "the certificate"
    assert scope["extensions"]["tls"]["client_cert_name"] is None


async def test_every_request_has_an_extension_of_its_own(house):
    one = house()
    client = await one.caller().shake_hands()
    await client.ask(GET)
    one.scopes[0]["extensions"]["tls"].clear()
    await client.ask(GET)
    assert one.scopes[1]["extensions"]["tls"]["tls_version"] == 0x0304


async def test_the_application_learns_who_its_client_is(house):
    one = house(terms(verify_mode=ssl.CERT_REQUIRED))
    one.server.credentials.context.load_verify_locations(cadata=CLIENTS.pem.decode())
    client = await one.caller(context=AUTHORITY.client_context(CLIENTS.client("alice"))).shake_hands()
    assert await client.ask(GET) == OK
    assert one.scopes[0]["extensions"]["tls"]["client_cert_name"].startswith("CN=alice,")


async def test_they_are_counted(house):
    one = house()
    context = AUTHORITY.client_context()
    assert one.counted() == (0, 0, 0, 0)
    first = one.caller(context=context)
    assert one.counted() == (1, 0, 0, 0)
    await first.shake_hands()
    first.hear()
    assert one.counted() == (0, 1, 0, 0)
    again = one.caller(context=context, session=first.tls.engine.session)
    await again.shake_hands()
    assert one.counted() == (0, 2, 1, 0)
    assert one.server.connections == 2
    again.transport.close()
    assert one.server.connections == 1


async def test_a_connection_that_says_nothing_takes_no_engine_and_is_no_failure(house):
    one = house()
    client = one.caller()
    assert one.server.connections == 1
    handshake = client.transport.protocol
    client.leave()
    handshake.abort()
    assert one.counted() == (0, 0, 0, 0)
    assert one.server.connections == 0
    assert one.lines == []


async def test_a_client_that_leaves_in_the_middle_is_a_failure_for_whom_no_line_is_written(house):
    one = house()
    client = one.caller()
    client.send(hello())
    client.leave()
    assert one.counted() == (0, 0, 0, 1)
    assert one.lines == []
    assert one.quiet_lines == ["192.0.2.7:50000 - TLS handshake failed: the client has left"]


# Failures.


async def told(client):
    """What a client is told while it shakes hands."""
    with pytest.raises(ssl.SSLError) as failed:
        await client.shake_hands()
        client.hear()
    return failed.value.reason


async def test_a_client_that_is_too_old_is_told_and_so_is_the_operator(house):
    one = house(terms(minimum_version=ssl.TLSVersion.TLSv1_3))
    client = one.caller(context=AUTHORITY.client_context(maximum_version=V12))
    assert await told(client) == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert client.state == "half-closed"
    (line,) = one.lines
    assert line.startswith("192.0.2.7:50000 - TLS handshake failed: the client speaks only versions of TLS")
    assert one.counted() == (0, 0, 0, 1)


async def test_of_many_failures_of_a_kind_the_log_has_one_line_a_minute(house):
    one = house()
    for number in range(3):
        one.shared.fail(object(), f"client {number}", "no certificate: none at all", telling=True)
    one.shared.fail(object(), "another", "no version", telling=True)
    assert len(one.lines) == 2
    one.shared._said.update({kind: said - 61 for kind, said in one.shared._said.items()})
    one.shared.fail(object(), "client 4", "no certificate: a different one", telling=True)
    assert one.lines[-1] == (
        "client 4 - TLS handshake failed: no certificate: a different one (2 more since the last line like this)"
    )


async def test_a_client_that_does_not_trust_the_certificate_says_so(house):
    one = house()
    stranger = Authority().client_context()
    client = one.caller(context=stranger)
    with pytest.raises(ssl.SSLCertVerificationError):
        await client.shake_hands()
    client.send(client.tls.take())
    assert "does not know who signed the server's certificate" in one.lines[0]
    assert client.state == "half-closed"


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (None, "the client has shown no certificate, see --ssl-cert-reqs"),
        (Authority().client("mallory"), "the client's certificate was refused: unable to get local issuer certificate"),
    ],
)
async def test_a_client_that_cannot_show_who_it_is_is_refused(house, client, said):
    one = house(terms(verify_mode=ssl.CERT_REQUIRED))
    one.server.credentials.context.load_verify_locations(cadata=CLIENTS.pem.decode())
    await told(one.caller(context=AUTHORITY.client_context(client)))
    assert one.lines == [f"192.0.2.7:50000 - TLS handshake failed: {said}"]


async def test_garbage_is_refused_without_a_line(house):
    one = house()
    client = one.caller()
    client.send(b"\x16\x03\x01\x00\x05hello")
    assert client.transport.written[:1] == b"\x15"
    assert client.state == "half-closed"
    assert one.lines == []
    assert one.quiet_lines[0].startswith("192.0.2.7:50000 - TLS handshake failed: ")
    client.transport.protocol.data_received(b"more")


# What is no TLS.


async def test_plain_http_is_closed_if_nobody_has_an_answer(house):
    one = house()
    client = one.caller()
    client.send(GET)
    assert client.state == "aborted"
    assert one.counted() == (0, 0, 0, 1)
    assert one.server.connections == 0


async def test_plain_http_is_handed_to_whoever_has_an_answer(house):
    class Answer(asyncio.Protocol):
        def connection_lost(self, exc):
            one.server.connection_closed()

    one, given = house(), []
    one.server.plain_on_tls = lambda transport, *rest: (transport.set_protocol(Answer()), given.append(rest))
    client = one.caller()
    client.send(GET)
    ((listener, peer, data),) = given
    assert (listener, str(peer), data) == (one.listener, "192.0.2.7:50000", GET)
    assert (client.state, one.server.connections, list(one.server.deadlines)) == ("open", 1, [])
    client.transport.close()
    assert one.server.connections == 0


# Time.


@pytest.mark.parametrize("first", [b"", hello()[:50], hello()], ids=["silent", "half", "waits"])
async def test_a_handshake_has_so_much_time(house, first):
    one = house(handshake_timeout=5.0)
    client = one.caller()
    client.send(first)
    client.wait(4.9)
    await asyncio.sleep(0.001)
    assert client.state == "open"
    client.wait(2.0)
    await asyncio.sleep(0.001)
    assert client.state == "aborted"
    assert one.quiet_lines == ["192.0.2.7:50000 - TLS handshake failed: it was not complete within 5 s"]
    assert one.server.connections == 0


async def test_bytes_that_lie_in_the_socket_when_the_time_is_up_are_read(house):
    one = house(handshake_timeout=5.0)
    client = one.caller()
    while not client.tls.shake_hands():
        client.send(client.tls.take())
        client.tls.feed(client.transport.take())
    client.wait(6.0)
    client.send(client.tls.take())
    await asyncio.sleep(0.001)
    assert await client.ask(GET) == OK


async def test_one_that_waits_for_its_turn_is_not_late(house, monkeypatch):
    one = house(handshake_timeout=5.0)
    client = one.caller()
    one.shared._spent = 1.0
    client.send(hello())
    assert not client.transport.reading
    client.wait(6.0)
    await asyncio.sleep(0.001)
    assert client.state == "open"
    one.shared._next_turn()
    assert client.transport.reading
    client.wait(1.0)
    await asyncio.sleep(0.001)
    assert client.state == "aborted"


async def test_a_client_has_time_to_read_its_alert_whatever_it_still_sends_and_no_more(house):
    """With TLS 1.3 the request comes behind the certificate that is refused: closing would be answered with a reset."""
    one = house(handshake_timeout=30.0)
    client = one.caller()
    client.send(b"\x16\x03\x01\x00\x05hello")
    client.send(b"whatever")
    client.wait(LINGER_SECONDS / 2)
    assert (client.state, client.transport.reading) == ("half-closed", True)
    client.wait(LINGER_SECONDS)
    assert client.state == "aborted"
    assert one.scopes == []


async def test_a_client_that_has_gone_before_its_alert_needs_no_time(house):
    one = house()
    client = one.caller()

    def write_eof():
        raise OSError(errno.ENOTCONN, "the transport has no peer")

    client.transport.write_eof = write_eof
    client.send(b"\x16\x03\x01\x00\x05hello")
    assert client.state == "aborted"


async def test_a_draining_server_gives_them_a_moment(house):
    one = house(drain_linger=1.0)
    slow, quick = one.caller(), one.caller()
    slow.send(hello())
    await one.server.close_gate(take_queue=False)
    assert (slow.state, quick.state) == ("open", "open")
    await quick.shake_hands()
    assert b"200 OK" in await quick.ask(GET)
    slow.wait(2.0)
    await asyncio.sleep(0.001)
    assert slow.state == "aborted"
    assert "it was not complete when the server stopped" in one.quiet_lines[0]
    assert one.server.quiet.is_set()


async def test_one_that_comes_while_the_server_drains_has_a_moment_too(house):
    one = house(drain_linger=1.0)
    one.server.draining = True
    client = one.caller()
    client.wait(2.0)
    await asyncio.sleep(0.001)
    assert client.state == "aborted"


async def test_all_are_closed_when_the_server_ends(house):
    one = house()
    first, second = one.caller(), await one.caller().shake_hands()
    first.send(hello())
    assert one.server.abort_connections() == 0
    assert (first.state, second.state, one.server.connections) == ("aborted", "aborted", 0)


# How many.


class Waiting:
    """A handshake that began at a certain time."""

    def __init__(self, begun, shared, *, waits_for_client=True):
        self.begun = begun
        self.waits_for_client = waits_for_client
        self.reason = None
        self.shared = shared

    def step(self):
        pass

    def give_up(self, reason):
        self.reason = reason
        self.shared.fail(self, "", reason)


async def test_at_the_limit_the_oldest_is_given_up(house):
    shared = house(limit_handshakes=2).shared
    first, second, third = (Waiting(number * 10.0, shared) for number in range(3))
    for one in (first, second, third):
        shared.begin(one)
    assert first.reason == "2 others are under way, the limit, and it is the oldest"
    assert (second.reason, third.reason, shared.under_way) == (None, None, 2)


async def test_nobody_is_given_up_who_has_just_come(house):
    shared = house(limit_handshakes=2).shared
    many = [Waiting(number / 1000, shared) for number in range(100)]
    for one in many:
        shared.begin(one)
    assert shared.under_way == 100
    shared.begin(Waiting(GRACE + 1.0, shared))
    assert shared.under_way == 2


async def test_nobody_is_given_up_who_waits_for_us(house):
    shared = house(limit_handshakes=1).shared
    one = Waiting(0.0, shared, waits_for_client=False)
    shared.begin(one)
    shared.begin(Waiting(100.0, shared))
    assert one.reason is None


async def test_half_of_few_connections_remain_for_those_who_are_through(house):
    shared = house(limit_connections=6).shared
    many = [Waiting(number * 10.0, shared) for number in range(5)]
    for one in many:
        shared.begin(one)
    assert [one.reason is None for one in many] == [False, False, True, True, True]


async def test_a_real_one_that_is_given_up_is_closed(house):
    one = house(limit_handshakes=1)
    first = one.caller()
    first.send(hello())
    first.transport.protocol.begun -= GRACE
    second = one.caller()
    assert first.state == "aborted"
    assert "the limit" in one.quiet_lines[0]
    await second.shake_hands()
    assert await second.ask(GET) == OK


# Turns.


async def test_a_burst_takes_several_turns_of_the_loop(house):
    one = house()
    callers = [one.caller() for _ in range(60)]
    first = hello()
    for caller in callers:
        caller.send(first)
    begun = sum(bool(caller.transport.written) for caller in callers)
    assert 1 <= begun < 60
    assert [bool(caller.transport.written) for caller in callers] == [True] * begun + [False] * (60 - begun)
    turns = 0
    while not callers[-1].transport.written:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1
    assert all(caller.transport.reading for caller in callers)
    for caller in callers:
        caller.transport.abort()


async def test_one_that_was_closed_while_it_waited_for_its_turn_takes_none(house):
    one = house()
    caller = one.caller()
    one.shared._spent = handshakes.TURN
    caller.send(hello())
    caller.transport.abort()
    one.shared._next_turn()
    assert caller.transport.written == b""


async def test_those_that_waited_for_their_turn_are_served(house):
    one = house()
    callers = [one.caller() for _ in range(30)]
    await asyncio.gather(*(caller.shake_hands() for caller in callers))
    for caller in callers:
        assert await caller.ask(GET) == OK
    assert one.counted() == (0, 30, 0, 0)


# Others.


async def test_somebody_else_may_follow(house):
    one = house()
    followers = []

    class Relay(asyncio.Protocol):
        def __init__(self, transport, listener, peer):
            self.transport, self.listener, self.peer, self.data = transport, listener, peer, b""
            transport.set_protocol(self)

        def data_received(self, data):
            self.data += data

        def connection_lost(self, exc):
            one.server.connection_closed()

    one.server.handshakes = Handshakes(one.server, lambda *given: followers.append(Relay(*given)))
    client = await one.caller().shake_hands()
    client.send(client.tls.write(b"whatever"))
    (relay,) = followers
    assert (relay.data, relay.listener, str(relay.peer)) == (b"whatever", one.listener, "192.0.2.7:50000")
    assert relay.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    client.transport.abort()
    assert one.server.connections == 0


async def test_a_proxy_header_comes_in_front_of_the_handshake(house):
    one = house(proxy_protocol="v1", proxy_protocol_from=("192.0.2.7",))
    client = one.caller()
    client.transport.abort()
    client.transport.state = "open"
    reception = Reception(one.server)
    client.transport.protocol = reception.connect(dataclasses.replace(one.listener, scheme="https"))
    client.transport.protocol.connection_made(client.transport)
    client.tls.shake_hands()
    client.send(b"PROXY TCP4 203.0.113.9 198.51.100.1 50000 443\r\n" + client.tls.take())
    await settle()
    client.tls.feed(client.transport.take())
    await client.shake_hands()
    assert await client.ask(GET) == OK
    (scope,) = one.scopes
    assert (scope["scheme"], scope["client"], scope["server"]) == (
        "https",
        ("203.0.113.9", 50000),
        ("198.51.100.1", 443),
    )
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304
    client.transport.close()
    assert one.server.connections == 0
