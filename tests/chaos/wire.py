"""One connection of a strict client: what it sends, and what it accepts as an answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

Address = tuple[str, int] | str

#: A request that has taken longer is lost, in seconds. When queues overflow, TCP itself waits for 1, 2, 4, 8 and 16 s.
PATIENCE = 60.0

#: How long the server may take to close after it has said so, in seconds. It closes at once, but machines are busy.
CLOSE_PATIENCE = 15.0


class Wrong(Exception):
    """An answer that is not what it should be."""


@dataclass(frozen=True)
class Answer:
    pid: int
    closes: bool
    body: bytes


class Wire:
    """One connection. ``stage`` says what it waits for, ``pid`` who has answered last."""

    def __init__(self) -> None:
        self.stage = "connect"
        self.pid = 0
        self.port = 0
        self.opened = 0.0
        self.quiet_since = 0.0  # the last answer, or the beginning

    async def connect(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        began = time.monotonic()
        name = "localhost" if tls else None
        if isinstance(address, str):
            self._reader, self._writer = await asyncio.open_unix_connection(address, ssl=tls, server_hostname=name)
        else:
            self._reader, self._writer = await asyncio.open_connection(*address, ssl=tls, server_hostname=name)
            self.port = self._writer.get_extra_info("sockname")[1]
        # With TLS the server has it long before the client is through.
        self.opened, self.quiet_since = began, time.monotonic()
        self.stage = "idle"

    async def close(self) -> None:
        if self.opened:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    def is_over(self) -> bool:
        """Whether the server has closed in good order, as far as the client has noticed. Raises what else it did."""
        error = self._reader.exception()
        if error is not None:
            raise error
        return self._reader.at_eof()

    async def exchange(self, pieces: Sequence[bytes], *, expected: bytes, pause: float = 0.0) -> Answer:
        """Send the pieces with pauses between them, and take the answer, which must be ``expected``."""
        self.stage = "head"
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause)
            self._writer.write(piece)
            await self._writer.drain()
        status, headers = await self._head()
        if status != b"HTTP/1.1 200 OK":
            raise Wrong(f"answered with {status!r}")
        self.pid = int(headers[b"x-pid"])
        self.stage = "body"
        body = await self._body(headers, expected)
        if body != expected:
            raise Wrong(f"{len(body)} bytes that are not the {len(expected)} expected")
        self.stage = "idle"
        self.quiet_since = time.monotonic()
        return Answer(self.pid, headers.get(b"connection", b"").lower() == b"close", body)

    async def see_close(self) -> None:
        """The server has said that it closes: nothing may come but the end."""
        self.stage = "close"
        async with asyncio.timeout(CLOSE_PATIENCE):
            rest = await self._reader.read()
        if rest:
            raise Wrong(f"{len(rest)} bytes after the last answer")

    async def _head(self) -> tuple[bytes, dict[bytes, bytes]]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b": ")
            if name.lower() in headers:
                raise Wrong(f"{name!r} twice")
            headers[name.lower()] = value
        return status, headers

    async def _body(self, headers: dict[bytes, bytes], expected: bytes) -> bytes:
        body = bytearray()
        if b"content-length" in headers:
            await self._take(int(headers[b"content-length"]), body, expected)
            return bytes(body)
        if headers.get(b"transfer-encoding") != b"chunked":
            raise Wrong("a body without an end")
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            await self._take(size, body, expected)
            if await self._reader.readexactly(2) != b"\r\n":
                raise Wrong("a chunk without its end")
        if await self._reader.readexactly(2) != b"\r\n":
            raise Wrong("trailers that nobody has sent")
        return bytes(body)

    async def _take(self, size: int, body: bytearray, expected: bytes) -> None:
        """Read piece by piece, so that the first byte that is wrong, or missing, says where it is."""
        while size:
            data = await self._reader.read(min(size, 65536))
            if not data:
                raise Wrong(f"the answer ended after {len(body)} of {len(expected)} bytes")
            if expected[len(body) : len(body) + len(data)] != data:
                raise Wrong(f"a wrong byte within the {len(data)} after {len(body)}")
            body += data
            size -= len(data)


def request(target: str, *, method: str = "GET", headers: Iterable[str] = (), body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: chaos", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(target: str, body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """A POST whose body comes in chunks; each is one of the pieces."""
    pieces = [request(target, method="POST", headers=["Transfer-Encoding: chunked"])]
    at = 0
    for size in sizes:
        piece = body[at : at + size]
        at += len(piece)
        if piece:
            pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    return [*pieces, b"0\r\n\r\n"]


def split(data: bytes, count: int) -> list[bytes]:
    step = max(-(-len(data) // count), 1)
    return [data[at : at + step] for at in range(0, len(data), step)]
