"""A WebSocket between a fake transport and an application: the handshake, messages, closes, limits."""

from __future__ import annotations

import asyncio
import logging

import pytest
from websockets.frames import Close, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

import aioserve
from aioserve.errors import AppError, ClientDisconnected, OffloadFull
from aioserve.observe.scoreboard import MESSAGES_RECEIVED, MESSAGES_SENT, WEBSOCKETS, WEBSOCKETS_TOTAL
from aioserve.worker.drain import drain
from tests.loop.worker.conftest import Client, settle
from tests.pure.http.test_ws_frames import closing, deflated, masked

CONT, TEXT, BINARY, CLOSE, PING, PONG = Opcode

HANDSHAKE = (
    b"GET /chat/%C3%A9?a=b HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
OTHER = (b"HTTP/1.1 200 OK\r\n", b"content-length: 2\r\n\r\nok")
ACCEPT = {"type": "websocket.accept"}


def with_fields(*lines):
    return HANDSHAKE[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


class App:
    """An application that is told by its test what to send, and keeps what it receives and what was raised."""

    def __init__(self):
        self.scope = None
        self.received = []
        self.raised = None
        self.orders = asyncio.Queue()

    async def __call__(self, scope, receive, send):
        self.scope = scope
        self.receive = receive
        self.send = send
        while (order := await self.orders.get()) != "return":
            try:
                if order == "receive":
                    self.received.append(await receive())
                elif isinstance(order, BaseException):
                    raise order
                else:
                    await send(order)
            except Exception as error:
                self.raised = error
                if error is order:
                    raise

    async def do(self, *orders):
        for order in orders:
            self.orders.put_nowait(order)
        await settle()
        return self.received[-1] if self.received else None


async def echo(scope, receive, send):
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def frames(data):
    """The frames of a server, as a client of `websockets` reads them."""
    protocol = Protocol(CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [(frame.opcode, bytes(frame.data)) for frame in protocol.events_received()]


def close_of(code, reason=""):
    return (CLOSE, Close(code, reason).serialize())


async def opened(connect, app, **settings):
    """A client whose WebSocket is open."""
    client = connect(app, **settings)
    client.send(HANDSHAKE)
    await settle()
    if isinstance(app, App):
        await app.do("receive", ACCEPT)
    assert client.transport.take() == SWITCHED
    return client


def disconnect(code, reason=""):
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


# The handshake.


async def test_the_scope_is_that_of_the_newest_spec(connect):
    app = App()
    client = connect(app)
    await client.ask(with_fields(b"Sec-WebSocket-Protocol: a, b"))

    assert app.scope.pop("headers")[-1] == (b"sec-websocket-protocol", b"a, b")
    assert app.scope == {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.5"}, "http_version": "1.1", "scheme": "ws",
        "path": "/chat/é", "raw_path": b"/chat/%C3%A9", "query_string": b"a=b", "root_path": "",
        "client": ("192.0.2.7", 50000), "server": ("192.0.2.1", 80), "subprotocols": ["a", "b"], "state": {},
        "extensions": {"websocket.http.response": {}, "aioserve.offload": aioserve.offload},
    }  # fmt: skip
    await app.do("return")


@pytest.mark.parametrize(("forwarded", "scheme"), [("https", "wss"), ("wss", "wss"), ("http", "ws")])
async def test_a_trusted_proxy_says_what_the_scheme_is(connect, forwarded, scheme):
    app = App()
    client = connect(app, trusted=("*",))
    await client.ask(with_fields(f"X-Forwarded-Proto: {forwarded}".encode()))

    assert app.scope["scheme"] == scheme
    await app.do("return")


async def test_an_accepted_websocket_is_open(connect):
    app = App()
    client = await opened(connect, app)

    assert app.received == [{"type": "websocket.connect"}]
    assert (client.server.websockets, client.server.websockets_total, client.server.requests_total) == (1, 1, 1)
    assert client.state == "open"
    await app.do("return")


async def test_subprotocol_and_headers_go_into_the_101(connect):
    app = App()
    client = connect(app)
    await client.ask(with_fields(b"Sec-WebSocket-Protocol: a, b"))
    await app.do({**ACCEPT, "subprotocol": "b", "headers": [(b"x-y", b"z")]})

    assert b"sec-websocket-protocol: b\r\nx-y: z\r\n\r\n" in client.transport.take()
    await app.do("return")


async def test_a_101_that_cannot_be_is_a_mistake_that_may_be_mended(connect, caplog):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do({**ACCEPT, "subprotocol": "x"})
    assert isinstance(app.raised, AppError)
    assert client.transport.take() == b""
    assert "tests:app: WebSocket '/chat/é': websocket.accept has the subprotocol 'x'" in caplog.text

    await app.do(ACCEPT, "return")
    assert client.transport.take().startswith(SWITCHED)


async def test_a_close_instead_of_an_accept_is_403(connect):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do("receive", {"type": "websocket.close"}, "receive", ACCEPT)

    assert client.transport.take().startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert client.state == "half-closed"
    assert app.received[-1] == disconnect(1006)
    assert isinstance(app.raised, ClientDisconnected)
    (session,) = client.server.access.sessions
    assert (session.status, session.close_code, client.server.websockets_total) == (403, None, 0)
    await app.do("return")


async def test_a_response_may_deny_the_handshake(connect):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do(
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"x")]},
        {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
    )
    assert client.state == "open"
    await app.do({"type": "websocket.http.response.body", "body": b"are you?"}, "receive")
    await app.do("receive")

    assert client.transport.take() == (
        b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"4\r\nwho \r\n8\r\nare you?\r\n0\r\n\r\n"
    )
    assert client.state == "half-closed"
    assert app.received == [{"type": "websocket.connect"}, disconnect(1006)]
    (session,) = client.server.access.sessions
    assert (session.status, session.sent_bytes, session.close_code) == (401, 12, None)
    await app.do("return")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (None, {"type": "websocket.send", "text": "x"}, "websocket.send was sent before websocket.accept"),
        (None, {"type": "websocket.http.response.body"}, "was sent before websocket.accept"),
        (None, {"type": "websocket.http.response.start", "status": 99}, "websocket.http.response.start has the status"),
        (None, {"type": "websocket.http.response.start"}, "a message without the key 'status'"),
        (401, ACCEPT, "within a response that denies the handshake"),
        (401, {"type": "websocket.http.response.body", "body": "x"}, "websocket.http.response.body has a body of type"),
    ],
)
async def test_wrong_answers_to_a_handshake_raise(connect, first, second, said, caplog):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    if first is not None:
        await app.do({"type": "websocket.http.response.start", "status": first})
    await app.do(second)

    assert isinstance(app.raised, AppError)
    assert said in str(app.raised)
    assert caplog.text.count(said) == 1
    await app.do("return")


@pytest.mark.parametrize(
    ("ending", "status"), [("return", b"500 Internal Server Error"), (ValueError("x"), b"500 Internal Server Error")]
)
async def test_an_application_that_does_not_answer_is_500(connect, ending, status, caplog):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do(ending)

    assert client.transport.take().startswith(b"HTTP/1.1 " + status)
    assert "without websocket.accept" in caplog.text if ending == "return" else "ValueError: x" in caplog.text


async def test_an_application_that_breaks_off_its_response_resets(connect, caplog):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do(
        {"type": "websocket.http.response.start", "status": 401},
        {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
        "return",
    )

    assert client.state == "aborted"
    assert "returned before its response was complete" in caplog.text


async def test_a_full_offload_queue_is_503_or_1013_and_no_mistake(connect, caplog):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do(OffloadFull("full"))
    assert client.transport.take().startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    client = await opened(connect, app)
    await app.do(OffloadFull("full"))
    assert frames(client.transport.take()) == [close_of(1013, "try again later")]

    assert [(record.levelname, record.message.rpartition(": ")[2]) for record in caplog.records] == [
        ("WARNING", "answered with 503, the offload queue is full"),
        ("WARNING", "closed with 1013, the offload queue is full"),
    ]


@pytest.mark.parametrize("ending", ["return", ValueError("x")])
async def test_an_application_that_only_begins_its_response_is_500(connect, ending, caplog):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do({"type": "websocket.http.response.start", "status": 401}, ending)

    assert client.transport.take().startswith(b"HTTP/1.1 500 ")
    assert client.state == "half-closed"
    assert ("before its response was complete" if ending == "return" else "ValueError: x") in caplog.text
    (session,) = client.server.access.sessions
    assert session.status == 500


async def test_an_application_that_is_late_is_503(connect, caplog):
    app = App()
    client = connect(app, ws_handshake_timeout=5.0)
    client.send(HANDSHAKE)
    await settle()
    client.wait(4)
    assert client.transport.take() == b""

    client.wait(4)
    await app.do("receive", "receive")
    assert client.transport.take().startswith(b"HTTP/1.1 503 ")
    assert app.received[-1] == disconnect(1006)
    assert "has not answered the handshake within 5 s" in caplog.text
    await app.do("return")


async def test_a_client_that_leaves_before_the_answer_is_gone(connect):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do("receive", "receive")
    client.transport.abort()
    await app.do(ACCEPT)

    assert app.received == [{"type": "websocket.connect"}, disconnect(1006)]
    assert isinstance(app.raised, ClientDisconnected)
    assert [session.status for session in client.server.access.sessions] == [499]
    await app.do("return")


@pytest.mark.parametrize("parser", ["httptools", "h11"])
async def test_another_version_is_426_and_says_which(connect, parser):
    client = connect(App(), parser=parser)
    answer = await client.ask(HANDSHAKE.replace(b"Version: 13", b"Version: 8"))

    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nconnection: upgrade, close\r\n" in answer
    assert client.state == "half-closed"


@pytest.mark.parametrize("parser", ["httptools", "h11"])
@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ((b"Connection: Upgrade", b"Connection: keep-alive"), {}),
        ((b"Upgrade: websocket", b"Upgrade: h2c"), {}),
        ((b"Host", b"Host"), {"ws": False}),
    ],
)
async def test_other_upgrades_are_served_as_plain_requests(connect, parser, change, settings):
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    client = connect(app, parser=parser, **settings)
    for _ in range(2):
        answer = await client.ask(HANDSHAKE.replace(*change))
        assert (answer.startswith(OTHER[0]), answer.endswith(OTHER[1])) == (True, True)
    assert client.state == "open"


async def test_a_websocket_counts_as_a_request_in_flight(connect):
    first = await opened(connect, echo, limit_concurrency=1)
    second = Client(first.server, first.listener)

    assert (await second.ask(HANDSHAKE)).startswith(b"HTTP/1.1 503 ")
    await first.ask(closing())
    third = Client(first.server, first.listener)
    assert await third.ask(HANDSHAKE) == SWITCHED


async def test_none_is_opened_by_a_server_that_stops(connect):
    client = await opened(connect, echo)
    other = Client(client.server, client.listener)
    await client.server.close_gate(take_queue=False)

    assert (await other.ask(HANDSHAKE)).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("parser", ["httptools", "h11"])
async def test_messages_in_the_same_read_as_the_handshake_are_not_lost(connect, parser):
    client = connect(echo, parser=parser)
    answer = await client.ask(HANDSHAKE + masked(TEXT, b"early"))

    assert answer == SWITCHED + b"\x81\x05early"


async def test_a_handshake_behind_another_request_waits_for_its_turn(connect):
    go = asyncio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        await go.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    client = connect(app)
    assert await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HANDSHAKE + masked(TEXT, b"early")) == b""
    assert not client.transport.reading
    go.set()
    await settle()

    assert client.transport.take() == b"HTTP/1.1 204 No Content\r\n\r\n" + SWITCHED + b"\x81\x05early"
    assert client.transport.reading


async def test_a_client_that_sends_no_more_has_no_websocket(connect):
    go = asyncio.Event()

    async def app(scope, receive, send):
        await go.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    client = connect(app)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HANDSHAKE)
    assert client.protocol.eof_received()
    go.set()
    await settle()

    answers = client.transport.take()
    assert answers.startswith(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 400 ")
    assert client.state == "closed"


async def test_an_accept_does_not_stand_in_for_the_connect(connect):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE + masked(TEXT, b"early"))
    await app.do(ACCEPT)
    await app.do("receive", "receive")

    assert app.received == [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "early"}]
    await app.do("return")


async def test_what_a_client_sends_before_the_101_is_bounded(connect):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await settle()
    client.send(masked(BINARY, bytes(70_000)))
    assert not client.transport.reading

    await app.do("receive", ACCEPT, "receive")
    assert len(app.received[-1]["bytes"]) == 70_000
    assert client.transport.reading
    await app.do("return")


# Messages.


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (masked(TEXT, "é".encode()), "é"),
        (masked(BINARY, b"\xff"), b"\xff"),
        (masked(TEXT), ""),
        (masked(BINARY), b""),
        (masked(TEXT, b"x" * 70_000), "x" * 70_000),
        (masked(TEXT, b"a", fin=False) + masked(CONT, b"b"), "ab"),
    ],
)
async def test_messages_go_both_ways(connect, frame, answer):
    client = await opened(connect, echo)

    ((opcode, data),) = frames(await client.ask(frame))

    assert (data.decode() if opcode is TEXT else data) == answer
    assert (client.server.messages_received, client.server.messages_sent) == (1, 1)


async def test_compression_is_used_where_it_was_agreed_on(connect):
    client = connect(echo)
    answer = await client.ask(with_fields(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
    assert b"sec-websocket-extensions: permessage-deflate; server_max_window_bits=12" in answer

    answer = await client.ask(masked(TEXT, deflated(b"x" * 1000), rsv1=True))
    assert answer[0] == 0xC1
    assert len(answer) < 40


async def test_compression_can_be_declined(connect):
    client = connect(echo, ws_per_message_deflate=False)

    assert await client.ask(with_fields(b"Sec-WebSocket-Extensions: permessage-deflate")) == SWITCHED


async def test_a_ping_is_answered_whatever_the_application_does(connect):
    app = App()
    client = await opened(connect, app)

    assert await client.ask(masked(PING, b"1") + masked(PING, b"2")) == b"\x8a\x011\x8a\x012"
    await app.do("return")


async def test_bytes_in_other_wrappings_are_sent(connect):
    app = App()
    client = await opened(connect, app)
    await app.do(
        {"type": "websocket.send", "bytes": bytearray(b"a")},
        {"type": "websocket.send", "bytes": memoryview(b"b"), "text": None},
        {"type": "websocket.send", "text": "c", "bytes": None},
        {"type": "websocket.send", "text": ""},
    )

    assert frames(client.transport.take()) == [(BINARY, b"a"), (BINARY, b"b"), (TEXT, b"c"), (TEXT, b"")]
    await app.do("return")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "websocket.send"}, "websocket.send has neither text nor bytes"),
        ({"type": "websocket.send", "text": "a", "bytes": b"b"}, "websocket.send has both text and bytes"),
        ({"type": "websocket.send", "text": b"a"}, "websocket.send has a value that cannot be sent"),
        ({"type": "websocket.send", "text": "\ud800"}, "websocket.send has a value that cannot be sent"),
        ({"type": "websocket.send", "bytes": "a"}, "websocket.send has bytes of type str"),
        ({"text": "a"}, "a message without the key 'type'"),
        (("websocket.send", "a"), "a message of type tuple was sent, not a dict"),
        (ACCEPT, "websocket.accept' was sent while the WebSocket was open"),
        ({"type": "http.response.body"}, "http.response.body' was sent while the WebSocket was open"),
        ({"type": "websocket.close", "code": 1005}, "websocket.close has the code 1005"),
        ({"type": "websocket.close", "reason": "x" * 124}, "websocket.close has a reason of 124 bytes"),
    ],
)
async def test_a_wrong_message_raises_is_logged_once_and_may_be_followed_by_a_right_one(connect, message, said, caplog):
    app = App()
    client = await opened(connect, app)
    await app.do(message)

    assert isinstance(app.raised, AppError)
    assert said in str(app.raised)
    assert caplog.text.count(said) == 1
    await app.do({"type": "websocket.send", "text": "right"})
    assert client.transport.take() == b"\x81\x05right"
    await app.do("return")


async def test_a_task_that_is_cancelled_while_it_receives_loses_no_message(connect):
    app = App()
    client = await opened(connect, app)
    first = asyncio.ensure_future(app.receive())
    await settle()
    client.send(masked(TEXT, b"kept"))
    first.cancel()
    await settle()

    assert first.cancelled()
    assert (await app.do("receive"))["text"] == "kept"
    await app.do("return")


async def test_two_tasks_that_receive_have_a_message_each(connect):
    app = App()
    client = await opened(connect, app)
    tasks = [asyncio.ensure_future(app.receive()) for _ in range(3)]
    await settle()
    tasks.pop(1).cancel()
    client.send(masked(TEXT, b"a"))
    await settle()
    client.send(masked(TEXT, b"b"))

    assert sorted([(await task)["text"] for task in tasks]) == ["a", "b"]
    await app.do("return")


# Back-pressure.


async def test_reading_pauses_until_the_application_has_caught_up(connect):
    app = App()
    client = await opened(connect, app, ws_max_queue=2)
    client.send(masked(TEXT, b"x") * 5)
    assert not client.transport.reading

    await app.do("receive", "receive", "receive")
    assert not client.transport.reading
    await app.do("receive")
    assert client.transport.reading
    await app.do("receive")
    assert len(app.received) == 6
    await app.do("return")


async def test_a_large_message_pauses_reading_until_it_is_received(connect):
    app = App()
    client = await opened(connect, app)
    client.send(masked(BINARY, bytes(70_000)))
    assert not client.transport.reading

    await app.do("receive")
    assert client.transport.reading
    await app.do("return")


async def test_sending_waits_for_a_client_that_does_not_read(connect):
    app = App()
    client = await opened(connect, app, transport={"accept": 1000})
    client.transport.queued = 0
    message = {"type": "websocket.send", "bytes": bytes(2000)}
    await app.do(message, message, message)
    assert len(client.transport.take()) == 2004

    client.transport.peer_reads()
    await settle()
    assert len(client.transport.take()) == 2004
    client.transport.abort()
    await settle()
    assert isinstance(app.raised, ClientDisconnected)
    await app.do("return")


async def test_a_flood_of_pings_whose_answers_are_not_read_stops_being_read(connect):
    app = App()
    client = await opened(connect, app, transport={"accept": 1000})
    client.transport.queued = 0
    client.send(masked(PING, b"x" * 100) * 50)
    await settle()
    assert not client.transport.reading

    client.transport.peer_reads()
    await settle()
    assert client.transport.reading
    await app.do("return")


async def test_a_burst_of_frames_without_a_message_takes_several_turns(connect):
    app = App()
    client = await opened(connect, app)
    client.send(masked(PING) * 600)
    assert not client.transport.reading
    assert len(client.transport.take()) == 512

    await settle()
    assert client.transport.reading
    assert len(client.transport.take()) == 688
    await app.do("return")


async def test_an_application_that_only_sends_lets_others_have_their_turn(connect):
    turns = 0

    async def app(scope, receive, send):
        await send(ACCEPT)
        for _ in range(1000):
            await send({"type": "websocket.send", "text": "x"})
        done.set()

    done = asyncio.Event()
    client = connect(app)
    client.send(HANDSHAKE)
    while not done.is_set():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 2


# Closes.


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (4321, "é")])
async def test_the_clients_close_is_echoed_and_told(connect, code, reason):
    app = App()
    client = await opened(connect, app)
    answer = await client.ask(closing(code, reason))
    await app.do("receive", "receive", {"type": "websocket.send", "text": "late"})

    assert frames(answer) == [close_of(code, reason)]
    assert client.state == "closed"
    assert app.received[1:] == [disconnect(code, reason)] * 2
    assert isinstance(app.raised, ClientDisconnected)
    (session,) = client.server.access.sessions
    assert (session.status, session.close_code, client.server.websockets) == (101, code, 0)
    await app.do("return")


async def test_a_close_without_a_code_is_1005(connect):
    app = App()
    client = await opened(connect, app)

    assert await client.ask(masked(CLOSE)) == b"\x88\0"
    assert await app.do("receive") == disconnect(1005)
    await app.do("return")


async def test_a_connection_that_is_lost_is_1006(connect):
    app = App()
    client = await opened(connect, app)
    client.transport.abort()

    assert await app.do("receive") == disconnect(1006)
    assert [session.close_code for session in client.server.access.sessions] == [1006]
    await app.do("return")


async def test_an_end_of_the_stream_without_a_close_is_1006(connect):
    app = App()
    client = await opened(connect, app)
    assert client.transport.protocol.eof_received() is False
    client.transport.close()

    assert await app.do("receive") == disconnect(1006)
    await app.do("return")


async def test_messages_before_a_close_are_received_and_answered_first(connect):
    client = await opened(connect, echo)

    assert frames(await client.ask(masked(TEXT, b"a") + masked(TEXT, b"b") + closing())) == [
        (TEXT, b"a"),
        (TEXT, b"b"),
        close_of(1000),
    ]


async def test_a_close_does_not_wait_for_ever_for_an_application_that_does_not_receive(connect):
    app = App()
    client = await opened(connect, app)
    client.send(masked(TEXT, b"a") + closing())
    assert client.transport.take() == b""

    client.wait(6)
    assert frames(client.transport.take()) == [close_of(1000)]
    await app.do("receive", "receive")
    assert app.received[1:] == [{"type": "websocket.receive", "text": "a"}, disconnect(1000)]
    await app.do("return")


@pytest.mark.parametrize("order", ["return", {"type": "websocket.close", "code": 4000}])
async def test_a_close_that_was_there_first_stands(connect, order):
    app = App()
    client = await opened(connect, app)
    client.send(masked(TEXT, b"a") + closing(1001))
    await app.do(order)

    assert frames(client.transport.take()) == [close_of(1001)]
    assert client.state == "closed"
    assert [session.close_code for session in client.server.access.sessions] == [1001]
    await app.do("return")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80\0\0\0\0", 1002),
        (masked(TEXT, b"\xff"), 1007),
        (masked(BINARY, bytes(2000)), 1009),
    ],
)
async def test_a_mistake_of_the_client_is_told_to_both(connect, frame, code, caplog):
    caplog.set_level("INFO")
    app = App()
    client = await opened(connect, app, ws_max_size=1000)
    ((opcode, data),) = frames(await client.ask(frame))
    told = await app.do("receive")

    assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, code)
    assert (told["code"], told["reason"]) == (code, data[2:].decode())
    assert client.state == "half-closed"
    assert f"192.0.2.7:50000 - WebSocket closed with {code}: " in caplog.text
    client.send(masked(TEXT, b"ignored"))
    client.wait(4)
    assert client.state == "aborted"
    assert [session.close_code for session in client.server.access.sessions] == [code]
    await app.do("return")


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": None, "reason": None}, 1000, ""),
        ({"code": 4000, "reason": "enough"}, 4000, "enough"),
        ({"code": 1008}, 1008, ""),
    ],
)
async def test_the_applications_close_is_awaited(connect, message, code, reason):
    app = App()
    client = await opened(connect, app)
    await app.do({"type": "websocket.close", **message}, "receive")

    assert frames(client.transport.take()) == [close_of(code, reason)]
    assert app.received[-1] == disconnect(code, reason)
    assert client.state == "open"
    await client.ask(masked(TEXT, b"dropped") + closing(code))
    assert (client.state, client.transport.take()) == ("closed", b"")
    assert [session.close_code for session in client.server.access.sessions] == [code]
    await app.do("return")


async def test_a_close_that_is_not_answered_ends_in_the_end(connect):
    app = App()
    client = await opened(connect, app)
    await app.do({"type": "websocket.close"}, "return")
    client.wait(9)
    assert client.state == "open"

    client.wait(3)
    assert client.state == "aborted"


async def test_an_answer_to_our_close_is_read_past_messages_that_nobody_takes(connect):
    app = App()
    client = await opened(connect, app, ws_max_queue=1)
    client.send(masked(TEXT, b"x") * 3)
    assert not client.transport.reading
    await app.do({"type": "websocket.close"})
    assert client.transport.reading
    client.send(closing())

    assert client.state == "closed"
    await app.do("receive", "receive")
    assert app.received[1:] == [{"type": "websocket.receive", "text": "x"}, disconnect(1000)]
    await app.do("return")


async def test_sending_after_the_own_close_is_a_mistake(connect, caplog):
    app = App()
    client = await opened(connect, app)
    await app.do({"type": "websocket.close"}, {"type": "websocket.send", "text": "x"})
    assert isinstance(app.raised, AppError)
    assert "websocket.send was sent after websocket.close" in caplog.text

    client.transport.abort()
    await app.do({"type": "websocket.send", "text": "x"})
    assert isinstance(app.raised, ClientDisconnected)
    await app.do("return")


@pytest.mark.parametrize(
    ("ending", "code", "reason"), [("return", 1000, ""), (ValueError("x"), 1011, "internal error")]
)
async def test_an_application_that_ends_closes(connect, ending, code, reason, caplog):
    app = App()
    client = await opened(connect, app)
    await app.do(ending)

    assert frames(client.transport.take()) == [close_of(code, reason)]
    assert ("ValueError: x" in caplog.text) == (code == 1011)


@pytest.mark.parametrize(("error", "logged"), [(ClientDisconnected("x"), False), (ValueError("x"), True)])
async def test_an_error_after_the_end_is_logged_unless_it_says_so(connect, error, logged, caplog):
    app = App()
    client = await opened(connect, app)
    client.transport.abort()
    await app.do(error)

    assert ("ValueError: x" in caplog.text) == logged
    assert bool(caplog.records) == logged


# Limits.


async def test_a_client_is_pinged_and_any_byte_is_an_answer(connect):
    app = App()
    client = await opened(connect, app, ws_ping_interval=20.0, ws_ping_timeout=20.0)
    for _ in range(4):
        client.wait(26)
        assert frames(client.transport.take()) in ([(PING, b"")], [(PING, b"")] * 2)
        client.send(masked(PONG))
    client.wait(26)
    client.send(masked(TEXT, b"x"))
    client.wait(16)

    assert client.state == "open"
    await app.do("return")


async def test_a_client_that_does_not_answer_a_ping_is_lost(connect, caplog):
    caplog.set_level("INFO")
    app = App()
    client = await opened(connect, app, ws_ping_interval=20.0, ws_ping_timeout=10.0)
    client.wait(24)
    assert frames(client.transport.take()) == [(PING, b"")]
    assert client.state == "open"

    client.wait(14)
    assert frames(client.transport.take()) == [close_of(1011, "keepalive ping timeout")]
    assert client.state == "closed"
    assert await app.do("receive") == disconnect(1006, "no answer to a ping within 10 s")
    assert "192.0.2.7:50000 - WebSocket closed: nothing came for 10 s after a ping" in caplog.text
    await app.do("return")


@pytest.mark.parametrize("off", [{"ws_ping_interval": 0.0}, {"ws_ping_timeout": 0.0}])
async def test_without_pings_or_their_limit_a_silent_client_may_stay(connect, off):
    app = App()
    client = await opened(connect, app, **off)
    client.wait(300)

    assert client.state == "open"
    assert (client.transport.take() == b"") == ("ws_ping_interval" in off)
    await app.do("return")


async def test_a_client_that_is_not_read_need_not_answer(connect):
    app = App()
    client = await opened(connect, app, ws_max_queue=1)
    client.send(masked(TEXT, b"x"))
    assert not client.transport.reading
    client.wait(300)

    assert client.state == "open"
    await app.do("return")


@pytest.mark.parametrize("part", [b"\x81", masked(TEXT, b"abc")[:-1], masked(TEXT, b"abc", fin=False)])
async def test_a_message_that_is_begun_has_to_be_completed(connect, part):
    app = App()
    client = await opened(connect, app, body_timeout=10.0, ws_ping_timeout=0.0)
    client.send(part)
    client.wait(9)
    assert client.state == "open"
    client.transport.take()

    client.wait(6)
    assert close_of(1008, "the rest of a message did not come in time") in frames(client.transport.take())
    assert (await app.do("receive"))["code"] == 1008
    await app.do("return")


async def test_silence_either_way_ends_it_where_a_limit_is_set(connect):
    app = App()
    client = await opened(connect, app, ws_idle_timeout=60.0, ws_ping_timeout=0.0)
    for _ in range(3):
        client.wait(30)
        client.send(masked(PONG) + masked(TEXT, b"x"))
        client.wait(30)
        client.send(masked(PONG))
        await app.do({"type": "websocket.send", "text": "x"}, "receive")
    assert client.state == "open"
    client.transport.take()

    for _ in range(6):
        client.wait(12)
        client.send(masked(PONG))
    assert close_of(1001, "no message for 60 s") in frames(client.transport.take())
    await app.do("return")


async def test_a_client_that_takes_nothing_is_cut(connect, caplog):
    caplog.set_level("INFO")
    app = App()
    client = await opened(connect, app, transport={"accept": 1000}, write_timeout=10.0)
    client.transport.queued = 0
    message = {"type": "websocket.send", "bytes": bytes(200_000)}
    await app.do(message, message, "receive")
    client.wait(9)
    assert client.state == "open"

    client.wait(6)
    assert client.state == "aborted"
    await settle()
    assert isinstance(app.raised, ClientDisconnected)
    assert app.received[-1] == disconnect(1006)
    assert "has read next to nothing for 10 s" in caplog.text
    await app.do("return")


async def test_a_client_that_reads_slowly_is_not_cut(connect):
    app = App()
    client = await opened(connect, app, transport={"accept": 1000}, write_timeout=10.0)
    client.transport.queued = 0
    message = {"type": "websocket.send", "bytes": bytes(200_000)}
    await app.do(message, message)
    for _ in range(10):
        client.wait(8)
        client.transport.queued -= 5000

    assert client.state == "open"
    client.transport.abort()
    await app.do("return")


@pytest.mark.parametrize("order", [{"type": "websocket.close"}, closing()])
async def test_a_client_to_whom_something_is_on_its_way_may_take_it(connect, order):
    app = App()
    client = await opened(connect, app, transport={"accept": 1000})
    client.transport.queued = 0
    client.transport.close = lambda: None  # a transport that has something to send closes later
    message = {"type": "websocket.send", "bytes": bytes(200_000)}
    await app.do(message)
    if isinstance(order, bytes):
        client.send(order)
    else:
        client.transport.protocol.close(1000, "")
    for _ in range(10):
        client.wait(6)
        client.transport.queued -= 5000
    assert client.state == "open"

    client.wait(70)
    assert client.state == "aborted"
    await app.do("return")


# The end of the server.


async def test_a_drain_closes_with_1012_at_half_time_and_waits_for_the_answer(connect, caplog):
    caplog.set_level("INFO")
    app = App()
    client = await opened(connect, app)
    draining = asyncio.ensure_future(drain(client.server, 0.4, asyncio.Event()))
    await app.do("receive")
    while not (written := client.transport.take()):
        await asyncio.sleep(0)
    assert frames(written) == [close_of(1012, "service restart")]
    await settle()
    assert app.received[-1] == disconnect(1012, "service restart")
    assert not draining.done()
    await app.do("return")
    client.send(closing(1012))
    await draining

    assert client.state == "closed"
    assert "cut" not in caplog.text
    assert [session.close_code for session in client.server.access.sessions] == [1012]


async def test_at_the_end_of_a_drain_what_is_left_is_cut_and_named(connect, caplog):
    client = await opened(connect, echo)
    hurry = asyncio.Event()
    hurry.set()
    await drain(client.server, 10.0, hurry)

    assert client.state == "aborted"
    assert frames(client.transport.take()) == [close_of(1012, "service restart")]
    assert "cut at once: tests:app: WebSocket '/chat/é' of 192.0.2.7:50000" in caplog.text


@pytest.mark.parametrize(("how", "status"), [("told", b"503"), ("cut", b"503")])
async def test_a_handshake_without_an_answer_is_503_when_the_server_stops(connect, how, status):
    app = App()
    client = connect(app)
    client.send(HANDSHAKE)
    await app.do("receive", "receive")
    hurry = asyncio.Event()
    if how == "cut":
        hurry.set()
    draining = asyncio.ensure_future(drain(client.server, 0.1, hurry))
    while not (written := client.transport.take()):
        await asyncio.sleep(0)
    assert written.startswith(b"HTTP/1.1 " + status)
    if how == "told":
        await app.do("return")
        assert app.received[-1] == disconnect(1006)
    client.transport.abort()
    await draining


async def test_a_websocket_that_closes_need_not_be_told(connect):
    app = App()
    client = await opened(connect, app)
    await app.do({"type": "websocket.close"})
    client.transport.take()
    client.transport.protocol.cycle.leave()

    assert client.transport.take() == b""
    await app.do("return")


async def test_open_websockets_are_in_flight(connect):
    app = App()
    client = await opened(connect, app)
    cycle = client.transport.protocol.cycle
    assert client.server.open_cycles() == [cycle]
    assert [found for _, found in client.server.in_flight()] == [cycle]

    await app.do("return")
    assert client.server.open_cycles() == []
    assert client.server.in_flight() == []


async def test_the_scoreboard_counts_websockets_and_messages(connect):
    client = await opened(connect, echo)
    await client.ask(masked(TEXT, b"a") * 3)
    client.server.stop()
    cells = client.server._cells

    assert [cells[WEBSOCKETS], cells[WEBSOCKETS_TOTAL], cells[MESSAGES_RECEIVED], cells[MESSAGES_SENT]] == [1, 1, 3, 3]


async def test_a_lost_transport_in_the_middle_of_a_linger_is_the_end(connect):
    app = App()
    client = await opened(connect, app)

    def fail():
        raise OSError(107, "not connected")

    client.transport.write_eof = fail
    await client.ask(b"\x83\x80\0\0\0\0")
    assert client.state == "aborted"
    await app.do("return")


async def test_a_transport_that_cannot_half_close_is_closed(connect):
    app = App()
    client = await opened(connect, app)
    client.transport.can_write_eof = lambda: False
    await client.ask(b"\x83\x80\0\0\0\0")

    assert client.state == "closed"
    await app.do("return")


def test_the_log_is_not_told_by_the_library(caplog):
    """Its messages about connections are at a level that nobody has asked for."""
    assert not logging.getLogger("websockets.server").isEnabledFor(logging.DEBUG)
