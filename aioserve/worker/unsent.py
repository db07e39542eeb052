"""What was written: how much of it a client has not taken, the FIN behind it, and the end of one that takes nothing.

What it has not taken is what the transport keeps, and what the kernel does.
The transport's own number changes only when the kernel asks for more, which it does in steps of 64 KiB and above: a
client that reads 2 KiB a second moves nothing there for half a minute. What the client has acknowledged is counted to
the byte.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

#: A client that takes less than this within the time limit, in bytes, does not read: else one that takes a byte every
#: now and then could keep its connection, and the response, for ever. A modem does as much in a second or two.
PROGRESS: Final = 4096

#: SO_LINGER with a time of 0 (socket(7)): the kernel drops what it has not sent, and closing sends a reset.
LINGER_NOT: Final = struct.pack("ii", 1, 0)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that were written to ``transport`` and that the peer has not acknowledged."""
    unsent = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # SIOCOUTQ of tcp(7) and unix(7) has the number of TIOCOUTQ. A system that has it for terminals alone says so,
        # and a socket that was closed has none.
        with suppress(OSError, ValueError):
            unsent += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return unsent


def has_progressed(before: int, now: int) -> bool:
    """Whether a peer reads that had ``before`` bytes to take and now has ``now``; it has made room for more of them."""
    return now > before or before - now >= PROGRESS


def half_close(transport: asyncio.Transport) -> bool:
    """Send a FIN behind what was written; False, and the connection is closed, if the peer has reset it."""
    try:
        transport.write_eof()
    except OSError:  # ENOTCONN of shutdown(2): the loop has yet to say so
        transport.abort()
        return False
    return True


def reset(transport: asyncio.Transport) -> None:
    """Break a connection, so that the peer can tell and the kernel keeps nothing.

    After a mere close the kernel offers what it holds, megabytes for a client that does not read, for minutes, and
    ends it with a FIN, which passes for the end of a body without a length (RFC 9112 8).
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    transport.abort()
