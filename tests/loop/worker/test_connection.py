from __future__ import annotations

import asyncio
import contextvars
import errno

import pytest

import aioserve
from aioserve.errors import ClientDisconnected
from aioserve.worker.drain import drain
from tests.loop.worker.conftest import Client, read_body, settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
START = {"type": "http.response.start", "status": 200, "headers": []}


async def answer(send, data=b"ok"):
    await send(START)
    await send({"type": "http.response.body", "body": data})


async def hello(scope, receive, send):
    await answer(send)


async def echo(scope, receive, send):
    await answer(send, await read_body(receive))


async def test_a_request_is_answered(connect):
    client = connect(hello)
    assert await client.ask(GET) == OK
    assert client.state == "open"


async def test_the_scope_says_what_the_request_was(connect):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answer(send)

    await connect(app).ask(b"GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-Y: z\r\n\r\n")
    assert scopes[0] == {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/a b", "raw_path": b"/a%20b", "query_string": b"c=d", "root_path": "",
        "headers": [(b"host", b"h"), (b"x-y", b"z")], "client": ("192.0.2.7", 50000), "server": ("192.0.2.1", 80),
        "state": {},
        "extensions": {
            "http.response.pathsend": {}, "http.response.zerocopysend": {}, "http.response.trailers": {},
            "http.response.early_hint": {}, "http.request.trailers": {}, "aioserve.offload": aioserve.offload,
        },
    }  # fmt: skip


async def test_a_unix_peer_has_no_client_address(connect):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answer(send)

    await connect(app, transport={"peer": ""}).ask(GET)
    assert scopes[0]["client"] is None


async def test_pipelined_requests_are_answered_in_order(connect):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/1":
            await gate.wait()
        await answer(send, scope["path"].encode())

    client = connect(app)
    raw = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in (1, 2, 3))
    assert await client.ask(raw) == b""
    assert not client.transport.reading
    gate.set()
    await settle()
    written = client.transport.take()
    assert [written.index(path) for path in (b"/1", b"/2", b"/3")] == sorted(
        written.index(path) for path in (b"/1", b"/2", b"/3")
    )
    assert client.transport.reading


async def test_a_long_pipeline_is_answered_completely(connect):
    client = connect(hello)
    client.send(GET * 500)
    while client.protocol.reader.rest:
        await settle()
    assert client.transport.take() == OK * 500


@pytest.mark.parametrize("before", [30, 31, 32])
async def test_a_body_behind_as_many_requests_as_one_turn_serves_is_read_to_its_end(connect, before):
    client = connect(echo)
    client.send(GET * before + POST + b"hello")
    for _ in range(before):
        await settle()
    assert client.transport.take().endswith(b"\r\n\r\nhello")
    assert client.transport.reading


async def test_a_body_of_empty_lines_is_read_to_its_end_turn_by_turn(connect):
    client = connect(echo)
    body = b"\r\n\r\n" * 40_000
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    client.send(chunked % (len(body), body))
    await settle()
    assert client.transport.take().endswith(body)
    assert client.transport.reading


async def test_a_body_that_is_parsed_turn_by_turn_stays_unread_until_the_application_takes_it(connect):
    gate = asyncio.Event()
    sizes = []

    async def app(scope, receive, send):
        await gate.wait()
        sizes.append(len(await read_body(receive)))

    client = connect(app)
    body = b"\r\n\r\n" * 40_000
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b" % (2 * len(body), body))
    await settle()
    assert not client.transport.reading
    gate.set()
    await settle()
    assert client.transport.reading
    client.send(body + b"\r\n0\r\n\r\n")
    await settle()
    assert sizes == [2 * len(body)]


async def test_the_context_of_a_request_is_its_own(connect):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope, receive, send):
        seen.append(variable.get())
        variable.set("set")
        await answer(send)

    client = connect(app)
    await client.ask(GET + GET)
    await client.ask(GET)
    assert seen == ["unset"] * 3


async def test_a_body_reaches_the_application_as_it_comes(connect):
    client = connect(echo)
    assert await client.ask(POST + b"he") == b""
    assert (await client.ask(b"llo")).endswith(b"\r\n\r\nhello")


async def test_reading_goes_on_after_a_body_that_was_long_and_came_at_once(connect):
    client = connect(echo)
    body = b"x" * 100_000
    assert (await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + body)).endswith(body)
    assert client.transport.is_reading()


async def test_reading_pauses_until_the_application_takes_the_body(connect):
    take = asyncio.Event()

    async def app(scope, receive, send):
        await take.wait()
        await answer(send, b"%d" % len(await read_body(receive)))

    client = connect(app)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
    assert not client.transport.reading
    take.set()
    await settle()
    assert client.transport.reading
    assert (await client.ask(b"x" * 100_000)).endswith(b"200000")


async def test_chunks_in_pieces_do_not_stop_the_reading(connect):
    client = connect(echo)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in b"5\r\nhello\r\n0\r\n\r\n":
        assert client.transport.reading
        await client.ask(bytes([byte])) if byte != 10 else client.send(b"\n")
    await settle()
    assert client.transport.take().endswith(b"\r\n\r\nhello")


async def test_a_body_in_the_same_read_as_its_head_is_received_at_once(connect):
    messages = []

    async def app(scope, receive, send):
        messages.append(await receive())
        await answer(send)

    assert await connect(app).ask(POST + b"hello") == OK
    assert messages == [{"type": "http.request", "body": b"hello", "more_body": False}]


async def test_a_body_that_is_broken_from_the_beginning_never_meets_the_application(connect):
    started = []

    async def app(scope, receive, send):
        started.append(scope)

    client = connect(app)
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
    assert (await client.ask(raw)).startswith(b"HTTP/1.1 400")
    assert not started
    assert client.server.requests == 0


async def test_100_continue_is_sent_when_the_body_is_wanted(connect):
    client = connect(echo)
    head = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert await client.ask(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.ask(b"hello")).startswith(b"HTTP/1.1 200 OK")


async def test_a_final_status_replaces_the_100_and_closes(connect):
    client = connect(hello)
    head = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.ask(head)).startswith(b"HTTP/1.1 200 OK")
    assert client.state == "half-closed"


async def test_no_100_for_a_body_that_has_come(connect):
    client = connect(echo)
    head = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.ask(head + b"hello")).startswith(b"HTTP/1.1 200 OK")


async def test_the_rest_of_an_unwanted_body_is_discarded(connect):
    client = connect(hello)
    assert await client.ask(POST) == OK
    assert await client.ask(b"hello" + GET) == OK
    assert client.state == "open"


async def test_an_unwanted_body_that_is_too_long_ends_the_connection(connect):
    client = connect(hello)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
    await settle()
    for _ in range(5):
        client.send(b"x" * 100_000)
    assert client.state == "half-closed"


async def test_the_rest_of_an_unwanted_body_has_to_come_in_time(connect):
    client = connect(hello)
    assert await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n") == OK
    client.wait(29)
    client.send(b"x")
    client.wait(10)
    assert client.state == "aborted"


async def test_connection_close_closes(connect):
    client = connect(hello)
    assert b"connection: close" in await client.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert client.state == "closed"


async def test_receive_reports_the_disconnect(connect):
    seen = []

    async def app(scope, receive, send):
        await receive()
        seen.append(await receive())
        with pytest.raises(ClientDisconnected):
            await send(START)

    client = connect(app)
    client.send(GET)
    client.transport.abort()
    await settle()
    assert seen == [{"type": "http.disconnect"}]
    assert client.server.access.cycles[0].status == 499


async def test_receive_after_the_response_is_a_disconnect(connect):
    seen = []

    async def app(scope, receive, send):
        await receive()
        await answer(send)
        seen.append(await receive())

    await connect(app).ask(GET)
    assert seen == [{"type": "http.disconnect"}]


async def test_a_half_closed_client_gets_its_answer(connect):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await answer(send)

    client = connect(app)
    client.send(GET)
    assert client.protocol.eof_received()
    gate.set()
    await settle()
    assert client.transport.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    assert client.state == "closed"


async def test_trailers_are_not_lost_when_the_client_half_closes_behind_them(connect):
    gate = asyncio.Event()
    messages = []

    async def app(scope, receive, send):
        await gate.wait()
        messages.append(await receive())

    client = connect(app)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")
    client.protocol.eof_received()
    gate.set()
    await settle()
    assert messages[0]["trailers"] == [(b"x-sum", b"1")]


async def test_an_application_that_returns_on_a_half_close_is_no_error(connect, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    client = connect(app)
    await client.ask(GET)
    assert client.protocol.eof_received()
    await settle()
    assert client.state == "closed"
    assert not caplog.records


async def test_send_waits_while_the_client_does_not_read(connect):
    sent = []

    async def app(scope, receive, send):
        await send(START)
        for number in range(3):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body"})

    client = connect(app, transport={"accept": 1500})
    await client.ask(GET)
    assert sent == [0]
    client.transport.peer_reads()
    await settle()
    assert sent == [0, 1, 2] or sent == [0, 1]


async def test_a_client_that_never_reads_is_aborted(connect):
    async def app(scope, receive, send):
        await send(START)
        with pytest.raises(ClientDisconnected):
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})

    client = connect(app, transport={"accept": 1500}, write_timeout=5.0)
    await client.ask(GET)
    client.wait(4)
    assert client.state == "open"
    client.wait(3)
    assert client.state == "aborted"
    await settle()


@pytest.mark.parametrize(
    ("before", "seconds", "written", "state"),
    [
        (b"", 12, b"", "closed"),
        (b"GET / HT", 12, b"HTTP/1.1 408", "half-closed"),
        (GET, 70, b"HTTP/1.1 200", "open"),
        (GET, 80, b"HTTP/1.1 200", "closed"),
    ],
)
async def test_waits_for_a_request_are_limited(connect, before, seconds, written, state):
    client = connect(hello)
    client.send(before)
    await settle()
    client.wait(seconds)
    await settle()
    assert client.transport.take().startswith(written)
    assert client.state == state


@pytest.mark.parametrize("pieces", [[GET], [GET[:5], GET[5:]]], ids=["whole", "in two pieces"])
async def test_an_idle_time_below_all_other_limits_is_kept(connect, pieces):
    client = connect(hello, keep_alive_timeout=2.0)
    for piece in pieces:
        client.send(piece)
        await settle()
    client.wait(1.5)
    await settle()
    assert client.state == "open"
    client.wait(1.5)
    await settle()
    assert client.state == "closed"


async def test_a_request_that_lies_unread_when_time_is_up_is_served(connect):
    client = connect(hello)
    await client.ask(GET)
    client.wait(80)
    assert client.state == "open"
    assert await client.ask(GET) == OK
    assert client.state == "open"
    client.wait(80)
    await settle()
    assert client.state == "closed"


async def test_a_head_that_trickles_in_is_not_given_more_time(connect):
    client = connect(hello)
    for byte in b"GET / HTTP/1.1\r\n":
        client.send(bytes([byte]))
        client.wait(1)
    assert client.transport.take().startswith(b"HTTP/1.1 408")


async def test_a_body_that_stalls_is_answered_with_408(connect):
    client = connect(echo)
    await client.ask(POST + b"he")
    client.wait(25)
    await client.ask(b"l")
    client.wait(25)
    assert client.transport.take() == b""
    client.wait(10)
    assert client.transport.take().startswith(b"HTTP/1.1 408")
    await settle()


async def test_a_slow_application_is_not_limited(connect):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await answer(send)

    client = connect(app)
    await client.ask(GET)
    client.wait(500)
    assert client.state == "open"
    gate.set()
    await settle()
    assert client.transport.take() == OK


@pytest.mark.parametrize("unread", [0, 100_000])
async def test_an_application_that_is_slow_with_a_part_of_the_body_is_not_limited(connect, unread):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await gate.wait()
        await answer(send, await read_body(receive))

    client = connect(app)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n")
    await client.ask(b"x")
    client.send(b"x" * unread)
    client.wait(500)
    assert client.state == "open"
    gate.set()
    assert (await client.ask(b"x" * (100_000 - unread))).endswith(b"\r\n\r\n" + b"x" * 100_000)


async def test_a_body_that_stalls_again_is_answered_with_408(connect):
    client = connect(echo)
    await client.ask(POST)
    client.wait(29)
    await client.ask(b"he")
    client.wait(29)
    assert client.state == "open"
    client.wait(10)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")


async def test_a_lingering_connection_is_aborted_in_the_end(connect):
    client = connect(hello)
    client.send(b"garbage\r\n\r\n")
    assert client.state == "half-closed"
    client.wait(5)
    assert client.state == "aborted"


async def test_a_client_that_leaves_while_lingering_is_closed(connect):
    client = connect(hello)
    client.send(b"garbage\r\n\r\n")
    client.send(b"more garbage")
    assert not client.protocol.eof_received()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"GET /" + b"a" * 10_000, b"414"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000, b"431"),
    ],
)
async def test_what_is_no_request_is_refused(connect, raw, status):
    client = connect(hello)
    assert (await client.ask(raw)).startswith(b"HTTP/1.1 " + status)
    assert client.state == "half-closed"


async def test_good_requests_in_front_of_a_bad_one_are_answered_first(connect):
    written = await connect(hello).ask(GET + GET + b"\0\0")
    assert written.startswith(OK + OK + b"HTTP/1.1 400")


async def test_a_body_over_the_limit_is_answered_with_413(connect):
    client = connect(echo, limits={"request_body": 10})
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.ask(b"b\r\nhello world\r\n")).startswith(b"HTTP/1.1 413")


async def test_too_much_concurrency_is_answered_with_503(connect):
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await answer(send)

    client = connect(app, limit_concurrency=1)
    client.send(GET)
    other = Client(client.server, client.listener)
    written = await other.ask(GET)
    assert written.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in written
    gate.set()
    await settle()
    assert (await client.ask(GET)).startswith(b"HTTP/1.1 200 OK")


async def test_an_exception_before_the_response_is_a_500(connect, caplog):
    async def app(scope, receive, send):
        await send(START)
        raise RuntimeError("oops")

    client = connect(app)
    assert (await client.ask(GET)).startswith(b"HTTP/1.1 500")
    assert client.state == "half-closed"
    assert "oops" in caplog.text
    assert client.server.requests == 0


async def test_an_exception_within_the_response_breaks_the_connection(connect, caplog):
    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise RuntimeError("oops")

    client = connect(app)
    await client.ask(GET)
    assert client.state == "aborted"
    assert "oops" in caplog.text


async def test_an_exception_after_the_response_is_only_logged(connect, caplog):
    async def app(scope, receive, send):
        await answer(send)
        raise RuntimeError("oops")

    client = connect(app)
    assert await client.ask(GET + GET) == OK + OK
    assert caplog.text.count("RuntimeError: oops") == 2


@pytest.mark.parametrize(
    ("sends", "words"),
    [
        ([], "returned without sending a response"),
        ([START], "returned before its response was complete"),
        ([{"type": "http.response.body"}], "before http.response.start"),
        (
            [{**START, "headers": [(b"content-length", b"5")]}, {"type": "http.response.body", "body": b"a"}],
            "fewer bytes",
        ),
    ],
)
async def test_a_wrong_response_is_a_500_and_a_line_in_the_log(connect, caplog, sends, words):
    async def app(scope, receive, send):
        for message in sends:
            await send(message)

    assert (await connect(app).ask(GET)).startswith(b"HTTP/1.1 500")
    assert words in caplog.text
    assert "GET '/'" in caplog.text


async def test_a_message_after_the_response_raises(connect, caplog):
    async def app(scope, receive, send):
        await answer(send)
        await send({"type": "http.response.body", "body": b"more"})

    assert await connect(app).ask(GET) == OK
    assert "after the response was complete" in caplog.text


async def test_the_access_log_gets_every_request_once(connect):
    client = connect(hello)
    await client.ask(GET * 3)
    assert [(cycle.status, cycle.sent_bytes) for cycle in client.server.access.cycles] == [(200, 2)] * 3
    assert all(cycle.started <= cycle.first_byte <= cycle.ended for cycle in client.server.access.cycles)


async def test_forwarded_headers_count_only_from_a_trusted_peer(connect):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answer(send)

    raw = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n")
    await connect(app, transport={"peer": ("127.0.0.1", 1)}).ask(raw)
    await connect(app, transport={"peer": ("192.0.2.9", 1)}).ask(raw)
    assert (scopes[0]["client"], scopes[0]["scheme"]) == (("203.0.113.9", 0), "https")
    assert (scopes[1]["client"], scopes[1]["scheme"]) == (("192.0.2.9", 1), "http")


async def test_a_draining_server_says_goodbye_and_closes_what_is_quiet(connect):
    client = connect(hello)
    quiet = Client(client.server, client.listener)
    await quiet.ask(GET)
    await client.ask(GET)
    draining = asyncio.ensure_future(drain(client.server, 5.0, asyncio.Event()))
    await settle()
    assert b"connection: close" in await client.ask(GET)
    assert client.state == "closed"
    assert quiet.state == "open"
    quiet.wait(2)
    await settle()
    assert quiet.state == "closed"
    await draining


async def test_what_outlives_the_grace_time_is_cut_and_named(connect, caplog):
    cancelled = []

    async def app(scope, receive, send):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(scope["path"])
            raise

    client = connect(app)
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await drain(client.server, 0.01, asyncio.Event())
    assert cancelled == ["/slow"]
    assert "GET '/slow'" in caplog.text
    assert client.state in {"aborted", "half-closed"}


async def test_a_second_wish_to_stop_ends_the_grace_time(connect):
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    client = connect(app)
    client.send(GET)
    hurry = asyncio.Event()
    hurry.set()
    await asyncio.wait_for(drain(client.server, 1000.0, hurry), 10)


async def test_reading_goes_on_when_only_the_framing_of_a_chunk_has_come(connect):
    client = connect(echo)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await settle()
    client.send(b"0\r\n")
    assert client.transport.reading
    assert (await client.ask(b"\r\n")).endswith(b"content-length: 3\r\n\r\nabc")


async def test_an_application_that_only_sends_lets_the_loop_say_that_the_connection_has_failed(connect):
    raised = []

    async def app(scope, receive, send):
        await send(START)
        # As loops do when a write fails: what is written from now on is dropped, and the loss told in the next turn.
        client.transport.state = "aborted"
        asyncio.get_running_loop().call_soon(client.protocol.connection_lost, None)
        try:
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except ClientDisconnected as error:
            raised.append(error)

    client = connect(app)
    client.send(GET)
    await settle()
    assert len(raised) == 1


@pytest.mark.parametrize(("size", "most"), [(100_000, 12), (1, 300)])
async def test_an_application_that_only_sends_gives_way_to_others_while_the_client_keeps_up(connect, size, most):
    sent = []
    others = asyncio.Event()

    async def app(scope, receive, send):
        asyncio.get_running_loop().call_soon(others.set)
        await send(START)
        while not others.is_set() and len(sent) < 1000:
            sent.append(size)
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        await send({"type": "http.response.body"})

    assert (await connect(app).ask(GET)).endswith(b"\r\n0\r\n\r\n")
    assert len(sent) <= most


async def test_a_client_that_still_takes_its_answer_is_not_sent_away(connect):
    async def app(scope, receive, send):
        await answer(send, b"x" * 50_000)

    client = connect(app, transport={"accept": 100_000})
    client.transport.get_write_buffer_size = lambda: client.transport.queued
    await client.ask(POST.replace(b"5", b"9000000"))
    client.send(b"x" * 300_000)
    assert client.state == "half-closed"
    for _ in range(4):
        client.wait(5)
        client.transport.queued -= 5_000
    assert client.state == "half-closed"
    client.transport.queued = 0
    client.wait(10)
    assert client.state == "aborted"


async def test_a_client_that_has_gone_unnoticed_is_not_lingered_for(connect, caplog):
    client = connect(hello)

    def not_connected():
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    client.transport.write_eof = not_connected
    await client.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    assert client.state == "aborted"
    assert not caplog.records
