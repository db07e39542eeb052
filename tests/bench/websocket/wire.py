"""Bytes of a WebSocket, made before anything is measured."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib

TEXT, BINARY = 1, 2

KEY = base64.b64encode(b"aioserve, bench!")
MASK = b"\x12\x34\x56\x78"

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n"
)


def handshake(*, deflate=False):
    """A client's request; a browser offers compression with these words."""
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if deflate else b""
    return HANDSHAKE + offer + b"\r\n"


def accept_for(request):
    """The 101 to ``request``."""
    key = re.search(rb"(?i)sec-websocket-key: (\S+)", request)[1]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(digest)
        + b"\r\n\r\n"
    )


def head(first, size, bit):
    if size < 126:
        return bytes((first, bit | size))
    return struct.pack("!BBH", first, bit | 126, size) if size < 65536 else struct.pack("!BBQ", first, bit | 127, size)


def request(opcode, payload, *, rsv1=False):
    """A client's frame."""
    mask = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(len(payload))
    return head(0x80 | rsv1 << 6 | opcode, len(payload), 0x80) + MASK + masked


def answer(opcode, payload):
    """The server's frame with the same payload."""
    return head(0x80 | opcode, len(payload), 0) + payload


def echo_of(frame):
    """The answer to a client's whole frame."""
    size = frame[1] & 0x7F
    body = 2 + {126: 2, 127: 8}.get(size, 0)
    mask, payload = frame[body : body + 4], frame[body + 4 :]
    return answer(frame[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))


def deflated(payload):
    """As a browser compresses a message (RFC 7692 7.2.1)."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
