"""The last moment of a listening socket: nobody new gets in, and whoever is in is served.

As long as a TCP socket listens, the kernel completes handshakes on its behalf, and a client that got its answer sends
its request. When the last copy of the socket is closed, what has not been accepted is reset: between the last look at
the queue and the close there is always an instant, a long one if the process loses its CPU just then (with 16 clients
in a loop, 7 of 75 stops hit one). So before the last look the socket gets a filter that drops the first packet of a
handshake (SYN without ACK). To that client it is a packet lost on its way: it says it again after a second (RFC 6298,
section 2), and by then nobody listens, so it is refused, as any server that has stopped refuses it.

A unix socket needs none of this: it has no handshake, and nobody finds it once its file is gone.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import Final

from aioserve.accept import bpf

log = logging.getLogger("aioserve")

#: <asm-generic/socket.h>; the socket module does not name it.
_SO_ATTACH_FILTER: Final = 26

# RFC 9293, section 3.1: the byte of the flags in the header of TCP, which is where a packet begins for this filter.
_FLAGS: Final = 13
_SYN: Final = 0x02
_ACK: Final = 0x10

#: Answers how much of a packet is kept.
_NO_SYN: Final = bpf.pack([
    (bpf.LOAD_BYTE, 0, 0, _FLAGS),
    (bpf.AND, 0, 0, _SYN | _ACK),
    (bpf.JUMP_IF_EQUAL, 0, 1, _SYN),
    (bpf.RETURN, 0, 0, 0),
    (bpf.RETURN, 0, 0, 0xFFFFFFFF),
])  # fmt: skip


def refuse(sock: socket.socket) -> None:
    """Let nobody begin to connect any more, whoever has a copy. Where the system cannot, the log says so."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return
    try:
        bpf.attach(sock, _SO_ATTACH_FILTER, _NO_SYN)
    except OSError as error:  # a sandbox that forbids it
        log.info("a client that connects in the last instant may be reset: no filter (%s)", error.strerror)
