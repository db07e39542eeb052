"""Two clients that are not ours, against a real server: the `websockets` library's and aiohttp's."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
import websockets

from tests.process.servers import Served
from tests.websocket.frames import APPS
from tests.websocket.transfer import TRANSFER, flat_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

#: The frames and the protocol under them are tested with every Python.
pytestmark = [pytest.mark.slow, pytest.mark.once]

#: For anything, on a machine that is busy with other tests; seconds.
PATIENCE = 40

MIB = 1 << 20
NOISE = os.urandom(MIB)
TEXTS = ["hello", "", "Käse \U0001d11e", "long " * 20_000]


class Websockets:
    """What the tests need of a client, from the `websockets` library."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.send = socket.send
        self.receive = socket.recv
        self._socket = socket

    @property
    def subprotocol(self) -> str | None:
        return self._socket.subprotocol

    @property
    def compresses(self) -> bool:
        return bool(self._socket.protocol.extensions)

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason)

    async def closed(self) -> tuple[int | None, str | None]:
        """The close that the server has sent."""
        await self._socket.wait_closed()
        return self._socket.close_code, self._socket.close_reason

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, compress: bool, subprotocols: list[str]) -> AsyncIterator[Websockets]:
        async with websockets.connect(
            url, subprotocols=subprotocols or None, compression="deflate" if compress else None, max_size=None,
            proxy=None, open_timeout=PATIENCE,
        ) as socket:  # fmt: skip
            yield cls(socket)


class Aiohttp:
    """The same from aiohttp."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._reason: str | None = None

    @property
    def subprotocol(self) -> str | None:
        return self._socket.protocol

    @property
    def compresses(self) -> bool:
        return bool(self._socket.compress)

    async def send(self, message: str | bytes) -> None:
        await (self._socket.send_str(message) if isinstance(message, str) else self._socket.send_bytes(message))

    async def receive(self) -> str | bytes:
        message = await self._socket.receive(PATIENCE)
        assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message
        return message.data

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())

    async def closed(self) -> tuple[int | None, str | None]:
        if not self._socket.closed:
            message = await self._socket.receive(PATIENCE)
            assert message.type == aiohttp.WSMsgType.CLOSE, message
            self._reason = message.extra
        return self._socket.close_code, self._reason

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, compress: bool, subprotocols: list[str]) -> AsyncIterator[Aiohttp]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=subprotocols, compress=15 if compress else 0, max_msg_size=0) as socket,
        ):
            yield cls(socket)


CLIENTS = {"websockets": Websockets, "aiohttp": Aiohttp}


@pytest.fixture(params=CLIENTS)
def connect(request, server):
    """``connect(path)``: an open WebSocket of this client's."""
    client = CLIENTS[request.param]

    def connect(path="/echo", *, compress=True, subprotocols=()):
        url = f"ws://127.0.0.1:{server.port}{path}"
        return client.connect(url, compress=compress, subprotocols=list(subprotocols))

    return connect


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served("sockets:app", "--no-access-log", "--workers", "1", cwd=APPS) as server:
        yield server


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "plain"])
async def test_whatever_is_said_comes_back(connect, compress):
    async with connect(compress=compress) as client:
        assert client.compresses is compress
        for message in [*TEXTS, b"", b"\x00\xff\x80", NOISE, bytes(MIB)]:
            await client.send(message)
            assert await client.receive() == message


async def test_messages_keep_their_order(connect):
    async with connect() as client:
        for number in range(500):
            await client.send(f"{number} " * (number % 50))
        for number in range(500):
            assert await client.receive() == f"{number} " * (number % 50)


async def test_the_subprotocol_is_the_one_that_the_application_chose(connect):
    async with connect("/echo/chosen", subprotocols=["chat", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"


async def test_the_client_sees_the_servers_code_and_reason(connect):
    async with connect("/farewell") as client:
        await client.send("4321 so long, Käse")
        assert await client.closed() == (4321, "so long, Käse")


async def test_the_servers_answer_has_the_code_of_the_client(connect):
    async with connect() as client:
        await client.close(3210, "enough")
        code, _ = await client.closed()
        assert code == 3210


async def test_two_hundred_hear_what_each_says(connect):
    entered = [connect("/room", compress=number % 2 == 0) for number in range(200)]
    clients = await asyncio.gather(*(client.__aenter__() for client in entered))
    try:
        for speaker in range(0, 200, 10):
            await clients[speaker].send(f"I am {speaker}")
            heard = await asyncio.gather(*(client.receive() for client in clients))
            assert set(heard) == {f"I am {speaker}"}
    finally:
        await asyncio.gather(*(client.__aexit__(None, None, None) for client in entered))


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "plain"])
async def test_much_from_the_client_takes_no_memory(connect, server, compress):
    with flat_memory(server):
        async with connect("/sink", compress=compress) as client:
            for _ in range(TRANSFER // MIB):
                await client.send(NOISE)
            await client.send("how many")
            assert await client.receive() == str(TRANSFER)


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "plain"])
async def test_much_to_the_client_takes_no_memory(connect, server, compress):
    with flat_memory(server):
        heard = 0
        async with connect(f"/source?{TRANSFER}", compress=compress) as client:
            while heard < TRANSFER:
                heard += len(await client.receive())
            assert await client.closed() == (1000, "")
        assert heard == TRANSFER
