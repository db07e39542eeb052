"""A WebSocket client that sends what it is told, right or wrong, frame by frame, and says which frames came back."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.process.clients import PATIENCE, Broken, Client, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The applications that they talk to.
APPS = Path(__file__).resolve().parent / "apps"

# RFC 6455 5.2.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: RFC 6455 1.3.
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

MASK = b"\x37\xfa\x21\x3d"

#: RFC 7692 7.2.1: what a sender leaves out.
TAIL = b"\x00\x00\xff\xff"

DEFLATE = "permessage-deflate"


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv1: bool = False

    @property
    def code(self) -> int | None:
        """Of a close."""
        return int.from_bytes(self.payload[:2]) if self.payload else None

    @property
    def reason(self) -> str:
        return self.payload[2:].decode()


def frame(
    opcode: int,
    payload: bytes | str = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length: bytes | None = None,
) -> bytes:
    """A frame as a client sends it. ``length`` replaces the bytes of its length, the bit of the mask included."""
    if isinstance(payload, str):
        payload = payload.encode()
    size, bit = len(payload), 0x80 if mask else 0
    if length is None:
        if size < 126:
            length = bytes((bit | size,))
        elif size < 65536:
            length = struct.pack("!BH", bit | 126, size)
        else:
            length = struct.pack("!BQ", bit | 127, size)
    head = bytes((fin << 7 | rsv << 4 | opcode,)) + length
    return head + mask + masked(payload, mask) if mask else head + payload


fragment = partial(frame, fin=False)
last = partial(frame, CONTINUATION)
more = partial(frame, CONTINUATION, fin=False)


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    if len(payload) < 64:
        return bytes(a ^ b for a, b in zip(payload, cycle(mask), strict=False))
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


def close(code: int | None = 1000, reason: bytes | str = b"") -> bytes:
    if isinstance(reason, str):
        reason = reason.encode()
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason)


def deflated(payload: bytes | str, *, level: int = 6) -> bytes:
    """``payload`` as RFC 7692 has it, without a context."""
    if isinstance(payload, str):
        payload = payload.encode()
    compressor = zlib.compressobj(level, wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def handshake(path: str = "/echo", **headers: str | None) -> bytes:
    """The request. Names of headers are written with ``_`` for ``-``; None leaves one out."""
    fields = {
        "host": "test",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
        "sec-websocket-version": "13",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


class WebSocket(Client):
    """One open WebSocket. ``response`` is the server's, which has been looked at."""

    def __init__(self, port: int, path: str = "/echo", *, timeout: float = PATIENCE, **headers: str | None) -> None:
        super().__init__(("127.0.0.1", port), timeout=timeout)
        # Small writes are to go out at once, not when the one before has been acknowledged (tcp(7), TCP_NODELAY).
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = handshake(path, **headers)
        self.send(request)
        self.switched = self.switch(request)
        self._inflater = zlib.decompressobj(wbits=-15)

    def switch(self, request: bytes) -> Response:
        """The 101 to ``request``, if it is one (RFC 6455 4.2.2)."""
        response = self.head()
        key = request.partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0].decode()
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        assert response.status == 101, response
        assert response.headers["upgrade"].lower() == "websocket", response
        assert response.headers["connection"].lower() == "upgrade", response
        assert response.headers["sec-websocket-accept"] == accept, response
        return response

    def frame(self) -> Frame:
        """The next frame; ``Broken`` if there is none. It is not masked, and its length is written in the short way."""
        first, second = self._bytes(2)
        assert not first & 0x30, f"reserved bits: {first:#x}"
        assert not second & 0x80, "a server masks nothing (RFC 6455 5.1)"
        size = second
        if second == 126:
            size = int.from_bytes(self._bytes(2))
            assert size > 125
        elif second == 127:
            size = int.from_bytes(self._bytes(8))
            assert size > 65535
        return Frame(first & 0x0F, self._bytes(size), bool(first & 0x80), bool(first & 0x40))

    def message(self) -> Frame:
        """The next message, its fragments joined and inflated, or the next control frame."""
        begun = self.frame()
        if begun.opcode in {CLOSE, PING, PONG}:
            assert begun.fin and not begun.rsv1, begun
            return begun
        assert begun.opcode in {TEXT, BINARY}, begun
        payload, last = begun.payload, begun
        while not last.fin:
            last = self.frame()
            assert last.opcode == CONTINUATION and not last.rsv1, last
            payload += last.payload
        if begun.rsv1:
            payload = self._inflater.decompress(payload + TAIL)
        if begun.opcode == TEXT:
            payload.decode()
        return Frame(begun.opcode, payload)

    def messages(self) -> Iterator[Frame]:
        """Whatever comes up to the close, which is the last."""
        while True:
            message = self.message()
            yield message
            if message.opcode == CLOSE:
                return

    def alive(self, mark: bytes = b"alive?") -> None:
        """Once this returns, the server has read everything that was sent before."""
        self.send(frame(PING, mark))
        answer = self.message()
        assert answer == Frame(PONG, mark), answer

    def _bytes(self, size: int) -> bytes:
        data = b"".join(self._exactly(size))
        if len(data) < size:
            raise Broken(f"the connection ended within a frame: {data!r}")
        return data

    def __enter__(self) -> Self:
        return self
