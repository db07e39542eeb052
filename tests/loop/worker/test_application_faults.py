"""What an application may do wrong: each has one line in the log that names it, and the stream stays in step."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from aioserve.errors import AppError
from aioserve.worker.drain import drain

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BODY = {"type": "http.response.body", "body": b"ok"}
MORE = {"type": "http.response.body", "body": b"ok", "more_body": True}


def start(*headers, status=200, **rest):
    return {"type": "http.response.start", "status": status, "headers": list(headers), **rest}


def without(message, key):
    return {name: value for name, value in message.items() if name != key}


LENGTH_3 = start((b"content-length", b"3"))

#: What is sent before anything has left, and what the log says of it.
EARLY = {
    "a body before the start": ([BODY], "http.response.body was sent before http.response.start"),
    "two starts": ([start(), start()], "http.response.start was sent twice"),
    "no message": ([None], "of type NoneType"),
    "text": (["http.response.start"], "of type str"),
    "a number": ([7], "of type int"),
    "no type": ([{}], "without the key 'type'"),
    "an unknown type": ([{"type": "http.response.oops"}], "no part of an HTTP response"),
    "a websocket message": ([{"type": "websocket.send", "text": "a"}], "no part of an HTTP response"),
    "no status": ([without(start(), "status")], "without the key 'status'"),
    "status 99": ([start(status=99)], "status 99, which is not a final status"),
    "status 101": ([start(status=101)], "status 101, which is not a final status"),
    "status 1000": ([start(status=1000)], "status 1000, which is not a final status"),
    "a status in text": ([start(status="200")], "status '200', which is not a final status"),
    "a status with a fraction": ([start(status=200.0)], "status 200.0, which is not a final status"),
    "headers of text": ([start(("a", "b"))], "is not a token of bytes"),
    "a value of text": ([start((b"a", "b"))], "not pairs of bytes"),
    "a value that is a number": ([start((b"content-length", 2))], "not pairs of bytes"),
    "headers that are no pairs": ([start(b"abc")], "not pairs of bytes"),
    "headers that are None": ([{**start(), "headers": None}], "not pairs of bytes"),
    "CR LF in a value": ([start((b"a", b"b\r\nset-cookie: c"))], "CR, LF or NUL"),
    "LF in a value": ([start((b"a", b"b\nc"))], "CR, LF or NUL"),
    "NUL in a value": ([start((b"a", b"b\0c"))], "CR, LF or NUL"),
    "CR LF in a name": ([start((b"a\r\nb", b"c"))], "is not a token of bytes"),
    "a space in a name": ([start((b"a b", b"c"))], "is not a token of bytes"),
    "an empty name": ([start((b"", b"c"))], "is not a token of bytes"),
    "two lengths": ([start((b"content-length", b"1"), (b"content-length", b"2"))], "two content-length headers"),
    "a length that is no number": ([start((b"content-length", b"-1"))], "not a number of bytes"),
    "too few bytes at once": ([LENGTH_3, BODY], "fewer bytes than its content-length: 2, not 3"),
    "too many bytes at once": (
        [start((b"content-length", b"1")), BODY],
        "more bytes than its content-length: 2, not 1",
    ),
    "a body of text": ([start(), {**BODY, "body": "ok"}], "a body of type str, not bytes"),
    "a body that is None": ([start(), {**BODY, "body": None}], "a body of type NoneType, not bytes"),
    "trailers nobody announced": ([start(), {"type": "http.response.trailers"}], "did not announce trailers"),
}

#: What is sent after a part of the response has left.
LATE = {
    "a second start": ([start(), MORE, start()], "http.response.start was sent twice"),
    "too many bytes in all": ([LENGTH_3, MORE, BODY], "more bytes than its content-length: 4, not 3"),
    "too few bytes in all": ([LENGTH_3, MORE, {**BODY, "body": b""}], "fewer bytes than its content-length: 2, not 3"),
    "a body of text": ([start(), MORE, {**BODY, "body": "ok"}], "a body of type str, not bytes"),
    "no body type": ([start(), MORE, {}], "without the key 'type'"),
}

#: What is sent after the response.
AFTER = {
    "a body": (BODY, "http.response.body was sent after the response was complete"),
    "a start": (start(), "http.response.start was sent twice"),
    "a file": ({"type": "http.response.pathsend", "path": "/etc/passwd"}, "pathsend was sent after the response"),
    "trailers": ({"type": "http.response.trailers"}, "did not announce trailers"),
    "nonsense": ({"type": "nonsense"}, "nonsense was sent after the response was complete"),
}


def cases(table):
    return pytest.mark.parametrize(("messages", "words"), table.values(), ids=table)


def sending(messages, *, catching=False):
    async def app(scope, receive, send):
        for message in messages:
            with contextlib.suppress(AppError if catching else ()):
                await send(message)

    return app


def one_line(caplog):
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 1, lines
    assert lines[0].startswith("tests:app: GET '/x': ")
    return lines[0]


@cases(EARLY)
async def test_a_mistake_before_anything_has_left_is_a_500(connect, caplog, messages, words):
    client = connect(sending(messages))
    written = await client.ask(GET)
    assert written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert written.count(b"HTTP/1.1") == 1
    assert client.state == "half-closed"
    assert words in one_line(caplog)


@cases({name: case for name, case in EARLY.items() if len(case[0]) == 1})
async def test_an_application_that_catches_its_mistake_may_answer_better(connect, caplog, messages, words):
    client = connect(sending([*messages, start(), BODY], catching=True))
    assert await client.ask(GET) == OK
    assert client.state == "open"
    assert words in one_line(caplog)


@cases(LATE)
async def test_a_mistake_within_the_response_breaks_the_connection(connect, caplog, messages, words):
    client = connect(sending(messages))
    written = await client.ask(GET)
    assert written.count(b"HTTP/1.1") == 1
    assert client.state == "aborted"
    assert words in one_line(caplog)


@cases(AFTER)
async def test_a_message_after_the_response_changes_nothing(connect, caplog, messages, words):
    client = connect(sending([start(), BODY, messages]))
    assert await client.ask(GET) == OK
    assert client.state == "open"
    assert words in one_line(caplog)
    assert await client.ask(GET) == OK


async def test_the_line_shows_where_the_message_was_sent(connect, caplog):
    await connect(sending([BODY])).ask(GET)
    assert "sent from (most recent call last):" in one_line(caplog)
    assert "await send(message)" in one_line(caplog).splitlines()[-1]


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, SystemError])
@pytest.mark.parametrize(
    ("messages", "state"),
    [([], "half-closed"), ([start()], "half-closed"), ([start(), MORE], "aborted"), ([start(), BODY], "open")],
)
async def test_an_exception_is_logged_once_with_its_traceback(connect, caplog, kind, messages, state):
    async def app(scope, receive, send):
        await sending(messages)(scope, receive, send)
        raise kind("oops")

    client = connect(app)
    written = await client.ask(GET)
    assert client.state == state
    assert written.startswith(b"HTTP/1.1 500") == (state == "half-closed")
    assert "the application failed" in one_line(caplog)
    assert caplog.text.count("Traceback") == 1


async def test_a_mistake_that_comes_back_in_a_group_is_not_logged_again(connect, caplog):
    async def app(scope, receive, send):
        async with asyncio.TaskGroup() as group:
            group.create_task(send(BODY))

    assert (await connect(app).ask(GET)).startswith(b"HTTP/1.1 500")
    assert "before http.response.start" in one_line(caplog)


async def test_a_mistake_that_was_wrapped_in_another_error_shows_both(connect, caplog):
    async def app(scope, receive, send):
        try:
            await send(BODY)
        except AppError as error:
            raise RuntimeError("a framework's own words") from error

    await connect(app).ask(GET)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "before http.response.start" in lines[0]
    assert "the application failed" in lines[1]


@pytest.mark.parametrize(
    ("messages", "words", "state"),
    [
        ([], "returned without sending a response", "half-closed"),
        ([start()], "returned before its response was complete", "half-closed"),
        ([start(), MORE], "returned before its response was complete", "aborted"),
    ],
)
async def test_returning_too_early_is_a_mistake(connect, caplog, messages, words, state):
    client = connect(sending(messages))
    await client.ask(GET)
    assert client.state == state
    assert words in one_line(caplog)


async def test_a_body_that_is_never_received_does_not_stop_the_next_request(connect, caplog):
    client = connect(sending([start(), BODY]))
    post = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
    assert await client.ask(post + b"x" * 100_000) == OK
    assert await client.ask(b"x" * 100_000 + GET) == OK
    assert not caplog.records


async def test_what_the_drain_cancels_is_answered_with_503_and_one_line(connect, caplog):
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    client = connect(app)
    client.send(GET)
    await drain(client.server, 0.01, asyncio.Event())
    assert client.transport.take().startswith(b"HTTP/1.1 503")
    assert "was cancelled before its response was complete" in one_line(caplog)


async def test_trailers_come_with_the_last_piece_of_the_body(connect):
    messages = []

    async def app(scope, receive, send):
        while not messages or messages[-1]["more_body"]:
            messages.append(await receive())
        await sending([start(), BODY])(scope, receive, send)

    client = connect(app)
    raw = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
    await client.ask(raw)
    await client.ask(b"0\r\nX-Sum: 1\r\nAuthorization: a\r\n\r\n")
    # RFC 9110 6.5.1: fields that have no place in trailers are ignored.
    assert messages[-1] == {
        "type": "http.request", "body": b"", "more_body": False,
        "trailers": [(b"x-sum", b"1")],
    }  # fmt: skip


async def test_a_limit_of_the_mount_takes_the_place_of_the_servers(connect):
    client = connect(sending([start(), BODY]), limits={"request_body": 10})
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"
    assert (await client.ask(head)).startswith(b"HTTP/1.1 413")
