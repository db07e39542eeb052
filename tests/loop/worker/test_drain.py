from __future__ import annotations

import asyncio
import re

from aioserve.observe.scoreboard import PHASE, Phase, Scoreboard
from aioserve.worker import drain as module
from aioserve.worker.drain import announce, drain
from tests.loop.worker.conftest import Client, settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}


def piece(body, *, more):
    return {"type": "http.response.body", "body": body, "more_body": more}


async def until_told(scope, receive, send):
    """A stream that says goodbye when it is told to end."""
    await send(START)
    await send(piece(b"first", more=True))
    while (await receive())["type"] != "http.disconnect":
        pass
    await send(piece(b"last", more=False))


async def test_a_stream_that_listens_is_told_at_half_time_and_may_say_goodbye(connect, caplog):
    caplog.set_level("INFO")
    client = connect(until_told)
    await client.ask(GET)
    await drain(client.server, 0.1, asyncio.Event())
    assert client.transport.take() == b"4\r\nlast\r\n0\r\n\r\n"
    assert "telling 1 requests to end" in caplog.text
    assert "cut" not in caplog.text


async def test_a_stream_that_only_sends_goes_on_until_it_ends(connect, caplog):
    told = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        await send(piece(b"first", more=True))
        await told.wait()
        await send(piece(b"second", more=True))
        await send(piece(b"third", more=False))

    client = connect(app)
    await client.ask(GET)
    draining = asyncio.ensure_future(drain(client.server, 1.0, asyncio.Event()))
    await settle()
    client.protocol.cycle.leave()
    told.set()
    await draining
    assert client.transport.take().endswith(b"second\r\n5\r\nthird\r\n0\r\n\r\n")
    assert "cut" not in caplog.text


async def test_an_upload_is_read_to_its_end_before_its_application_is_told(connect):
    async def app(scope, receive, send):
        seen = []
        while not seen or seen[-1] != "http.disconnect":
            seen.append((await receive())["type"])
        await send(START)
        await send(piece(b",".join(kind.encode() for kind in seen), more=False))

    client = connect(app)
    await client.ask(POST + b"ab")
    client.protocol.cycle.leave()
    await settle()
    assert client.transport.take() == b""
    assert (await client.ask(b"cde")).endswith(b"http.request,http.request,http.disconnect")


async def test_a_long_poll_that_returns_without_an_answer_when_told_is_answered_for(connect):
    async def app(scope, receive, send):
        await receive()
        await receive()

    client = connect(app)
    await client.ask(GET)
    client.protocol.cycle.leave()
    await settle()
    assert client.transport.take().startswith(b"HTTP/1.1 503 ")


async def test_a_stream_that_returns_early_when_told_does_not_pass_for_complete(connect):
    async def app(scope, receive, send):
        await send(START)
        await send(piece(b"first", more=True))
        await receive()
        await receive()

    client = connect(app)
    await client.ask(GET)
    client.protocol.cycle.leave()
    await settle()
    assert client.transport.take() == b""
    assert client.state == "closed"


async def test_many_streams_are_told_one_after_another(connect):
    times = []

    async def app(scope, receive, send):
        await receive()
        await receive()
        times.append(asyncio.get_running_loop().time())
        await send(START)
        await send(piece(b"", more=False))

    first = connect(app)
    for client in [first, *(Client(first.server, first.listener) for _ in range(4))]:
        client.send(GET)
    await settle()
    await drain(first.server, 10 * module.TELL_INTERVAL * 4, asyncio.Event())
    assert len(times) == 5
    assert times[-1] - times[0] >= 3 * module.TELL_INTERVAL


async def test_a_cut_says_what_whose_how_old_how_far_and_where(connect, caplog):
    async def app(scope, receive, send):
        await send(START)
        await send(piece(b"first", more=True))
        await inner()

    async def inner():
        await asyncio.sleep(60)

    client = connect(app)
    await client.ask(GET)
    await drain(client.server, 0.02, asyncio.Event())
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(
        r"cut at the end of the grace time: .*GET '/' of 192\.0\.2\.7:50000, \d\.\d s old, \d+ bytes sent, "
        r"at .*test_drain\.py:\d+ inner\(\), there in .*tasks\.py:\d+ sleep\(\)",
        line,
    )


async def test_an_application_that_ignores_its_cancellation_is_named(connect, caplog, monkeypatch):
    monkeypatch.setattr(module, "CANCEL_SECONDS", 0.02)
    over = asyncio.Event()

    async def app(scope, receive, send):
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    client = connect(app)
    await client.ask(GET)
    await drain(client.server, 0.0, asyncio.Event())
    over.set()
    await settle()
    assert re.search(r"GET '/' goes on after it was cancelled, at .*test_drain\.py:\d+ app\(\)", caplog.text)


async def test_clients_who_had_not_taken_their_response_are_counted(connect, caplog):
    async def app(scope, receive, send):
        await send(START)
        await send(piece(b"x" * 1000, more=False))

    client = connect(app, transport={"accept": 100})
    client.transport.close = lambda: None  # it waits for the client to read
    client.send(GET)
    await settle()
    await drain(client.server, 0.02, asyncio.Event())
    assert "1 clients that had not taken all of their response" in caplog.text


async def test_the_delay_ends_by_itself(connect, monkeypatch):
    monkeypatch.setattr(module, "HEAD_START", 0.01)
    client = connect(until_told)
    await asyncio.wait_for(announce(client.server, 0.01, asyncio.Event()), 10)


async def test_the_delay_serves_on_while_readiness_fails(connect):
    client = connect(until_told)
    hurry = asyncio.Event()
    delay = asyncio.ensure_future(announce(client.server, 1000.0, hurry))
    await settle()
    assert client.server._cells[PHASE] == Phase.DRAINING
    assert b"connection: close" not in await client.ask(GET)
    hurry.set()
    await asyncio.wait_for(delay, 10)


def test_a_worker_is_relieved_when_the_other_seat_serves():
    board = Scoreboard(2)
    mine, other = board.row(1, 0), board.row(1, 1)
    assert not mine.is_relieved()
    other.cells[PHASE] = Phase.READY
    assert mine.is_relieved()
    assert not other.is_relieved()
    assert not board.row(0, 0).is_relieved()
