"""The frames between a worker and a child: a kind, flags, a length, and that many bytes.

    worker: SETUP, then CALL (or STREAM, with MORE for each piece, CLOSE to end it early), again and again
    child:  READY or FAILED after SETUP; RESULT or ERROR after CALL; PIECE ..., then END or ERROR after STREAM;
            LOG at any time

Large parcels stand in the child's arena and not in the frame (ARENA); the frame then says how long their parts are.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

SETUP: Final = 1
CALL: Final = 2
STREAM: Final = 3
MORE: Final = 4
CLOSE: Final = 5

READY: Final = 11
FAILED: Final = 12
RESULT: Final = 13
ERROR: Final = 14
PIECE: Final = 15
END: Final = 16
LOG: Final = 17

KINDS: Final = frozenset((SETUP, CALL, STREAM, MORE, CLOSE, READY, FAILED, RESULT, ERROR, PIECE, END, LOG))

#: Flags: the parcel is in the arena; the child has grown too large and should be replaced.
ARENA: Final = 1
RETIRE: Final = 2

HEAD: Final = struct.Struct("!BBI")
READ_SIZE: Final = 256 * 1024

#: No frame has a longer body, by far: what says so was not written by us.
LONGEST: Final = 64 * 1024 * 1024


class Garbage(Exception):
    """What was read is no frame."""


def frame(kind: int, flags: int = 0, body: bytes = b"") -> bytes:
    return HEAD.pack(kind, flags, len(body)) + body


@final
class Frames:
    """Cuts what was read into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Every frame that is complete: kind, flags, body. Raises ``Garbage``."""
        buffer = self._buffer + data if self._buffer else data
        at, size = 0, len(buffer)
        while size - at >= HEAD.size:
            kind, flags, length = HEAD.unpack_from(buffer, at)
            if kind not in KINDS or length > LONGEST:
                raise Garbage
            end = at + HEAD.size + length
            if end > size:
                break
            body = buffer[at + HEAD.size : end]
            at = end
            # What is left is kept before anybody acts on the frame: to act may be to close.
            self._buffer = buffer[at:]
            yield kind, flags, body
        else:
            self._buffer = buffer[at:]
            return
        self._buffer = buffer[at:]


def pack_sizes(sizes: list[int]) -> bytes:
    return struct.pack(f"!{len(sizes)}Q", *sizes)


def unpack_sizes(body: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(body) // 8}Q", body)
