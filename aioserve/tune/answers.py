"""Requests as bytes, and where an answer ends: what the built-in client knows of HTTP. No socket, no clock.

The peer is our own server, whose framing is right; what is read here is how far an answer goes, its status, and whether
its connection is kept.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request of the load. With ``body`` it is a POST."""

    path: str
    headers: tuple[str, ...] = ()
    body: bytes | None = None

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"

    def encode(self, host: str, *, closes: bool = False) -> bytes:
        """The whole request; ``closes`` asks for the end of the connection."""
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        given = {line.partition(":")[0].strip().lower() for line in self.headers}
        if "host" not in given:
            lines.append(f"Host: {host}")
        if "user-agent" not in given:
            lines.append("User-Agent: aioserve-tune")
        lines += self.headers
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        if closes:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body or b"")


class _Body(enum.Enum):
    """What ends the body."""

    LENGTH = enum.auto()
    CHUNKS = enum.auto()
    CLOSE = enum.auto()


_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_WITHOUT_BODY: Final = frozenset({204, 304})


class NotAnAnswer(Exception):
    """What came is no answer to what was asked."""


@final
class Answer:
    """Feed it what arrives for one request; ``feed`` says whether the answer is complete."""

    __slots__ = ("_body", "_data", "_left", "closes", "size", "status")

    def __init__(self) -> None:
        self.status = 0
        self.size = 0  # bytes of head and body, framing included
        self.closes = False
        self._data = b""
        self._body: _Body | None = None  # None: the head is not complete
        self._left = 0

    def feed(self, data: bytes) -> bool:
        self.size += len(data)
        if self._body is None:
            data = self._data + data if self._data else data
            rest = self._head(data)
            if rest is None:
                return False
            data = rest
        if self._body is _Body.LENGTH:
            self._left -= len(data)
            if self._left < 0:
                raise NotAnAnswer("bytes after the end of the answer")
            return not self._left
        return self._body is _Body.CHUNKS and self._chunks(data)

    def end(self) -> bool:
        """The connection has ended: whether that completes the answer."""
        return self._body is _Body.CLOSE

    def _head(self, data: bytes) -> bytes | None:
        """Read the head; what follows it, or None while it is incomplete."""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._data = data
                return None
            head = data[: end + 2]
            data = data[end + 4 :]
            if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
                raise NotAnAnswer(f"this is no answer of HTTP/1.1: {head[:40]!r}")
            self.status = int(head[9:12])
            if self.status >= 200:  # interim ones (103) have no body and are not the answer
                break
        self._data = b""
        self.closes = _CLOSE.search(head) is not None
        length = _LENGTH.search(head)
        if self.status in _WITHOUT_BODY:
            self._body, self._left = _Body.LENGTH, 0
        elif length is not None:
            self._body, self._left = _Body.LENGTH, int(length[1])
        elif _CHUNKED.search(head):
            self._body = _Body.CHUNKS
        else:
            self._body = _Body.CLOSE
        return data

    def _chunks(self, data: bytes) -> bool:
        """Go on to the last chunk. ``_left``: bytes of the current one and its line end that are to come; -1: none."""
        data = self._data + data
        while self._left >= 0:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._left:
                    self._data = b""
                    return False
            line, found, rest = data.partition(b"\r\n")
            if not found:
                self._data = data
                return False
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise NotAnAnswer(f"this is no chunk: {line[:40]!r}") from None
            data = rest
            self._left = size + 2 if size else -1
        # The trailer: fields up to an empty line.
        while True:
            line, found, rest = data.partition(b"\r\n")
            if not found:
                self._data = data
                return False
            if not line:
                if rest:
                    raise NotAnAnswer("bytes after the end of the answer")
                return True
            data = rest
