"""Strict-Transport-Security: on connections with TLS, and on no others (RFC 6797 7.2)."""

from __future__ import annotations

import pytest

from aioserve.http.proxy_protocol import SIGNATURE
from aioserve.worker.connection import Connection
from aioserve.worker.peer import Peer
from aioserve.worker.preamble import Reception
from tests.fakes import FakeTransport
from tests.loop.worker.conftest import settle
from tests.loop.worker.test_websocket import HANDSHAKE

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POLICY = b"max-age=60; includeSubDomains"
FIELD = b"\r\nstrict-transport-security: " + POLICY + b"\r\n"
TLS = b"\x20\x00\x05\x01\x00\x00\x00\x00"  # PP2_TYPE_SSL: the client came over TLS
LOCALHOST = b"\x7f\0\0\x01\x7f\0\0\x01\xc3\x50\x01\xbb"


def app(*headers):
    async def answer(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": headers})
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    return answer


async def asked(client, data, *, scheme="https"):
    """What comes back on a new connection of this scheme."""
    transport = FakeTransport()
    transport.protocol = connection = Connection(client.server, client.listener)
    client.server.connection_opened()
    connection.take_over(transport, Peer(("192.0.2.7", 50000), ("192.0.2.1", 443), scheme))
    connection.data_received(data)
    await settle()
    return transport.take()


@pytest.mark.parametrize("data", [GET, GET.replace(b"GET", b"HEAD"), b"nonsense\r\n\r\n", HANDSHAKE])
async def test_every_response_over_tls_has_the_policy(connect, data):
    client = connect(app(), hsts=POLICY)
    assert (await asked(client, data)).count(FIELD) == 1
    assert b"strict-transport" not in await asked(client, data, scheme="http")
    assert b"strict-transport" not in await client.ask(data)


@pytest.mark.parametrize("data", [GET, HANDSHAKE])
async def test_without_the_setting_nothing_is_added(connect, data):
    assert b"strict-transport" not in await asked(connect(app()), data)


@pytest.mark.parametrize("data", [GET, HANDSHAKE])
async def test_what_the_application_says_itself_counts(connect, data):
    answer = await asked(connect(app((b"Strict-Transport-Security", b"max-age=1")), hsts=POLICY), data)
    assert answer.lower().count(b"strict-transport-security: ") == 1
    assert b": max-age=1\r\n" in answer


async def test_a_header_that_the_operator_sets_counts(connect):
    own = ((b"Strict-Transport-Security", b"max-age=2"),)
    answer = await asked(connect(app(), hsts=POLICY, extra_headers=own), GET)
    assert answer.lower().count(b"strict-transport-security: ") == 1
    assert b": max-age=2\r\n" in answer


async def test_a_client_that_came_over_tls_to_a_front_end_has_it_too(connect):
    client = connect(app(), hsts=POLICY, proxy_protocol="v2", proxy_protocol_from=("192.0.2.7",))
    for tlvs, expected in ((TLS, 1), (b"", 0)):
        transport = FakeTransport()
        transport.protocol = Reception(client.server).connect(client.listener)
        transport.protocol.connection_made(transport)
        body = LOCALHOST + tlvs
        transport.protocol.data_received(SIGNATURE + b"\x21\x11" + len(body).to_bytes(2, "big") + body + GET)
        await settle()
        assert transport.take().count(FIELD) == expected


async def test_a_response_over_tls_says_that_the_server_leaves_and_has_a_date_like_any_other(connect):
    client = connect(app(), hsts=POLICY, date_header=True)
    client.server._tick()
    await client.server.close_gate(take_queue=False)
    answer = await asked(client, GET)
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"\r\ndate: ") == 1
    client.server.stop()
