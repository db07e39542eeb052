"""Single frames of a WebSocket on the wire (RFC 6455 5.2): their first bytes, and those that a server sends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from websockets.exceptions import ProtocolError
from websockets.frames import Close

from aioserve.errors import AppError

if TYPE_CHECKING:
    from websockets.typing import BytesLike

# The first byte: FIN and the opcode, and RSV1 for a compressed message (RFC 7692 6).
FIN: Final = 0x80
DEFLATED: Final = 0x40
TEXT_FRAME: Final = 0x81
BINARY_FRAME: Final = 0x82
CLOSE_FRAME: Final = 0x88
PING_FRAME: Final = 0x89
PONG_FRAME: Final = 0x8A

#: In the second byte.
MASKED: Final = 0x80

#: RFC 6455 5.5: the most that a control frame carries; a close has two bytes of code before its reason.
CONTROL_LIMIT: Final = 125
_REASON_LIMIT: Final = 123


def long_frame(first: int, payload: BytesLike) -> bytes:
    """A frame of any length."""
    size = len(payload)
    if size < 126:
        head = bytes((first, size))
    elif size < 1 << 16:
        head = bytes((first, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 127)) + size.to_bytes(8, "big")
    return b"".join((head, payload))


def control_frame(first: int, payload: bytes) -> bytes:
    """A ping, pong or close, of at most 125 bytes."""
    return bytes((first, len(payload))) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close. Raises ``AppError`` for what cannot stand in one (RFC 6455 7.4)."""
    try:
        payload = Close(code, reason).serialize()
    except (ProtocolError, struct.error, TypeError, AttributeError, UnicodeEncodeError):
        raise AppError(
            f"websocket.close has the code {code!r} and the reason {reason!r}; codes are 1000 to 1014 without 1004 to "
            "1006, and 3000 to 4999, a reason is text"
        ) from None
    if len(payload) > CONTROL_LIMIT:
        raise AppError(f"websocket.close has a reason of {len(payload) - 2} bytes; a close carries {_REASON_LIMIT}")
    return control_frame(CLOSE_FRAME, payload)
