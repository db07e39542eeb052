"""What RFC 9112 demands of HTTP over TLS, with a real engine at each end and a fake transport between them.

The bytes on the transport are what anybody between the two could read.
"""

from __future__ import annotations

import ssl

import pytest

from tests.fakes import PARSERS
from tests.loop.worker import conftest as loop
from tests.loop.worker.tls import AUTHORITY, Caller, speak_tls

# RFC 8446 5.1: the type of a record, and how long it is behind its five bytes.
HANDSHAKE_RECORDS = {20, 22}
ALERT, APPLICATION_DATA = 21, 23
ANSWER = b"the answer that nobody else may read"

connect = loop.connect


async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-secret", ANSWER)]})
    await send({"type": "http.response.body", "body": ANSWER, "more_body": True})
    await send({"type": "http.response.body", "body": ANSWER})


def records(data):
    """The types of all records, which is all that there is."""
    found = []
    while data:
        size = int.from_bytes(data[3:5], "big")
        found.append(data[0])
        assert len(data) >= 5 + size, "half a record"
        data = data[5 + size :]
    return found


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def caller(connect, request):
    """A client that has finished its handshake with this version."""
    plain = connect(app, proxy_headers=False)
    context = AUTHORITY.client_context(minimum_version=request.param, maximum_version=request.param)
    return await Caller(speak_tls(plain.server), plain.listener, context).shake_hands()


@pytest.mark.parametrize("parser", sorted(PARSERS))
@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_all_http_data_is_sent_as_application_data(connect, parser, request_):
    plain = connect(app, parser=parser)
    context = AUTHORITY.client_context(maximum_version=ssl.TLSVersion.TLSv1_2)  # whose types tell more
    caller = Caller(speak_tls(plain.server), plain.listener, context)
    await caller.shake_hands()
    caller.hear()
    caller.send(caller.tls.write(request_))
    await caller.settle()
    wire = caller.transport.take()
    assert set(records(wire)) <= {APPLICATION_DATA, ALERT}
    assert APPLICATION_DATA in records(wire)
    assert not any(part in wire for part in (ANSWER, b"HTTP/1.1", b"content-length"))
    caller.tls.feed(wire)
    assert caller.tls.read().startswith(b"HTTP/1.1 ")


async def test_nothing_of_http_is_sent_before_the_handshake_is_complete(connect):
    plain = connect(app)
    caller = Caller(speak_tls(plain.server), plain.listener, AUTHORITY.client_context())
    client = caller.tls
    wire = b""
    while not client.shake_hands():
        caller.send(client.take())
        await caller.settle()
        sent = caller.transport.take()
        wire += sent
        client.feed(sent)
    # 1.3 hides what follows the first message, so that a type says no more than that it is encrypted.
    assert set(records(wire)) <= HANDSHAKE_RECORDS | {APPLICATION_DATA}
    assert client.read() == b""


@pytest.mark.parametrize(
    "last",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_closure_alert_is_sent_before_the_connection_is_closed(caller, last):
    answer = await caller.ask(last)
    assert answer.startswith(b"HTTP/1.1 ")
    assert caller.tls.ended, "no close_notify"
    assert caller.state in {"closed", "half-closed"}


async def test_a_closure_alert_is_sent_to_a_client_that_has_been_quiet_for_too_long(caller):
    await caller.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not caller.tls.ended
    caller.wait(90)
    await caller.settle()
    caller.hear()
    assert caller.tls.ended


async def test_a_closure_alert_of_the_client_is_answered_with_one(caller):
    caller.send(caller.tls.close())
    await caller.settle()
    caller.hear()
    assert caller.tls.ended
    assert caller.state == "closed"
