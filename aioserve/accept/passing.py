"""Connections that go from one process to another: descriptors in messages over a unix socket (unix(7), SCM_RIGHTS).

The socket is a pair of sequenced packets, one for each slot of a worker, and both ends are the master's for the whole
life of the slot: what waits in it waits for whoever holds the slot next, as in the queue of a listening socket.

A message carries up to ``MOST`` descriptors and as many bytes: each says which listener its connection came from. So
the kernel's count of bytes that wait is the count of connections that wait, whoever has sent or taken any. A single
``PROBE`` and no descriptor is a question that is answered by being taken.

In the other direction goes one message, ``AWAKE``: this worker takes connections from now on.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The kernel takes 253 descriptors in one message (SCM_MAX_FD). 64 cost 0.13 us each, 253 hardly less, one alone 3.5.
MOST: Final = 64

#: The index of a listener is a byte, and this is none.
PROBE: Final = 255

AWAKE: Final = b"!"

#: The feed is full, or too many descriptors of this user are under way (ETOOMANYREFS: as many as one process may
#: have open), or the kernel has no memory to spare.
_FULL: Final = frozenset({errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})

_ROOM: Final = socket.CMSG_SPACE(MOST * array.array("i").itemsize)


def feed() -> tuple[socket.socket, socket.socket]:
    """The dispatcher's end and the worker's. Neither blocks."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def send(sock: socket.socket, origins: bytes, descriptors: Sequence[int]) -> bool:
    """Pass descriptors on; False if there is no room for them now. They stay open here, and are to be closed."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        sock.sendmsg([origins], rights)
    except OSError as error:
        if error.errno in _FULL:
            return False
        raise
    return True


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next message: where each of its descriptors came from; None if there is none now.

    ``(b"", [])``: nobody will ever send one again. Fewer descriptors than bytes, unless it is a probe: this process
    could not have more, and the kernel has closed the others.
    """
    while True:
        try:
            origins, rights, _, _ = sock.recvmsg(MOST, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:
            continue  # the other end was closed with something unread: told once, and what waits here is there still
        break
    descriptors = array.array("i")
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return origins, descriptors.tolist()


def waiting(sock: socket.socket) -> int:
    """How many connections (and probes) wait at this end to be taken."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    return int(count)
