"""The clients of the chaos test see what they are there to see."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.chaos.wire import Wire, Wrong, request

HEAD = b"HTTP/1.1 200 OK\r\nx-pid: 7\r\ncontent-length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nx-pid: 7\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nx-pid: 7\r\nconnection: close\r\ncontent-length: 5\r\n\r\n"


@asynccontextmanager
async def wire_to(answer):
    """A connection to a server that says ``answer`` and closes."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Wire()
    async with server:
        await wire.connect(server.sockets[0].getsockname())
        try:
            yield wire
        finally:
            await wire.close()


def ask(wire):
    return wire.exchange([request("/")], expected=b"hello")


@pytest.mark.parametrize("answer", [HEAD + b"hello", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"])
async def test_whole_and_right_answer_says_who_gave_it(answer):
    async with wire_to(answer) as wire:
        assert (await ask(wire)).pid == 7


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="none"),
        pytest.param(HEAD[:-2], id="half a head"),
        pytest.param(HEAD + b"hell", id="a byte less"),
        pytest.param(HEAD + b"hallo", id="a wrong byte"),
        pytest.param(HEAD.replace(b"200 OK", b"503 Service Unavailable") + b"hello", id="another status"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", id="no last chunk"),
        pytest.param(CHUNKED + b"6\r\nhello!\r\n0\r\n\r\n", id="a byte more"),
        pytest.param(HEAD.replace(b"content-length: 5\r\n", b"") + b"hello", id="a body without an end"),
    ],
)
async def test_whatever_else_comes_is_a_loss(answer):
    async with wire_to(answer) as wire:
        with pytest.raises((Wrong, EOFError)):
            await ask(wire)


async def test_bytes_after_the_last_answer_are_seen():
    async with wire_to(CLOSING + b"hello!") as wire:
        assert (await ask(wire)).closes
        with pytest.raises(Wrong, match="1 bytes after the last answer"):
            await wire.see_close()
