"""What a child and its master tell each other: a socket pair, five messages and four orders.

A child says once that it serves (``ready``) or why it cannot (``failed``, and then it exits); one that watches files
asks for a reload (``reload``), one that has lived long enough for a successor (``recycle``), and one that leaves says
when it has nothing more for others (``passed_on``). The channel is also how a child learns that its master is no more:
it reads end-of-file. Numbers that change all the time are not sent here, they are in the scoreboard. The other way go
orders about the sockets of siblings (aioserve.accept.orders) and certificates (aioserve.tls.sets), with descriptors
(SCM_RIGHTS, unix(7)) of what was made after the fork.

A message is one byte for its kind, four for the length of its body, and the body: a stream, because sequenced packets
do not exist everywhere (unix(7); macOS has none). An unknown kind is skipped, so a message can be added on one side.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never, final

from aioserve.accept.orders import Gone, Lend, Watch
from aioserve.accept.sockets import adopt_lent
from aioserve.tls.sets import Show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioserve.accept import orders
    from aioserve.master.events import Role
    from aioserve.observe.scoreboard import Row

_HEAD: Final = struct.Struct("!BI")
_DESCRIPTOR: Final = struct.Struct("@i")
#: Programs that a worker executes get nothing of what was passed to it; elsewhere adopting has to see to that.
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_READY: Final = 1
_FAILED: Final = 2
_RELOAD: Final = 3
_RECYCLE: Final = 4
_PASSED_ON: Final = 5
# The other way.
_WATCH: Final = 65
_LEND: Final = 66
_GONE: Final = 67
_SHOW: Final = 68

# A traceback of the user's own frames is a few KiB; the end of a longer one is what says why.
DETAIL_LIMIT: Final = 64 * 1024
# The master reads whenever it is awake; it is never busy for long. A child must not hang on telling it something.
SEND_TIMEOUT: Final = 5.0
_RECV_BYTES: Final = 64 * 1024
# Linux takes no more descriptors in one message (SCM_MAX_FD); a slot has one for each address.
_MOST_DESCRIPTORS: Final = 253


@final
@dataclass(frozen=True, slots=True)
class ReadyMessage:
    """The child accepts connections."""


@final
@dataclass(frozen=True, slots=True)
class FailedMessage:
    """The child cannot serve and is about to exit. ``detail`` is a traceback, or empty."""

    message: str
    detail: str


@final
@dataclass(frozen=True, slots=True)
class ReloadMessage:
    """The child has seen a reason to reload, and says which."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class RecycleMessage:
    """The child wants to be replaced, and says what it has reached: "10000 requests", "age 3600 s", "512 MiB"."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class PassedOnMessage:
    """The child was told to leave, accepts no more, and has passed on all that it had accepted."""


Order: TypeAlias = "orders.Order | Show"
Message: TypeAlias = ReadyMessage | FailedMessage | ReloadMessage | RecycleMessage | PassedOnMessage


@final
class ChildChannel:
    """The child's end. ``fileno()`` becomes readable when the master has an order, or has gone: see ``hear``."""

    def __init__(self, sock: socket.socket) -> None:
        # A timeout is kept by Python with poll(), whatever a loop does to the O_NONBLOCK flag of this descriptor.
        sock.settimeout(SEND_TIMEOUT)
        self._sock: Final = sock
        self._buffer: Final = bytearray()
        self._descriptors: Final[list[int]] = []  # that have come for orders which are not complete yet
        #: What this process does once the master knows that it serves.
        self.then: Callable[[], None] | None = None

    def fileno(self) -> int:
        return self._sock.fileno()

    def ready(self) -> None:
        """Say that the listener is registered and connections are served; then do what is to follow that."""
        self._send(_READY, b"")
        if self.then is not None:
            self.then()

    def failed(self, message: str, detail: str = "") -> None:
        """Say why this process cannot serve; exit next."""
        body = json.dumps([message[-DETAIL_LIMIT:], detail[-DETAIL_LIMIT:]])
        self._send(_FAILED, body.encode())

    def reload(self, reason: str) -> None:
        """Ask for a rolling reload; the reason goes to the log."""
        self._send(_RELOAD, reason[-DETAIL_LIMIT:].encode(errors="replace"))

    def recycle(self, reason: str) -> None:
        """Ask to be replaced, once; serve on until the master says TERM, which it does when the successor serves."""
        self._send(_RECYCLE, reason[-DETAIL_LIMIT:].encode(errors="replace"))

    def passed_on(self) -> None:
        """Say that nothing new goes from here to other processes; what went before may go on."""
        self._send(_PASSED_ON, b"")

    def hear(self) -> tuple[list[Order], bool]:
        """The orders that have come, and whether the master is still there. To be called when there is something."""
        self._sock.settimeout(0)
        try:
            room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR.size)
            received, ancillary, _, _ = self._sock.recvmsg(_RECV_BYTES, room, _CLOSE_ON_EXEC)
        except BlockingIOError:
            return [], True
        except OSError:  # ECONNRESET: it died with something of ours unread
            return [], False
        finally:
            self._sock.settimeout(SEND_TIMEOUT)
        for level, kind, passed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(passed) - len(passed) % _DESCRIPTOR.size
                self._descriptors.extend(number for (number,) in _DESCRIPTOR.iter_unpack(passed[:whole]))
        self._buffer.extend(received)
        return self._orders(), bool(received)

    def close(self) -> None:
        self._sock.close()

    def _orders(self) -> list[Order]:
        orders: list[Order] = []
        for kind, body in _messages(self._buffer):
            if kind == _WATCH:
                orders.append(Watch(frozenset(json.loads(body))))
            elif kind == _LEND:
                slot, speaks = json.loads(body)
                # Fewer have come than were sent if descriptors are short.
                orders.append(Lend(slot, tuple(map(adopt_lent, self._take(len(speaks)), speaks))))
            elif kind == _GONE:
                orders.append(Gone(json.loads(body)))
            elif kind == _SHOW:
                orders.append(Show(tuple(self._take(json.loads(body)))))
        return orders

    def _take(self, count: int) -> list[int]:
        """The descriptors of one order."""
        mine, self._descriptors[:] = self._descriptors[:count], self._descriptors[count:]
        return mine

    def _send(self, kind: int, body: bytes) -> None:
        # A master that has gone, or is stopped in a debugger, cannot be told; end-of-file will say the first.
        with contextlib.suppress(OSError):
            self._sock.sendall(_HEAD.pack(kind, len(body)) + body)


@final
class MasterChannel:
    """The master's end: never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock: Final = sock
        self._buffer: Final = bytearray()

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> tuple[list[Message], bool]:
        """Everything that has arrived, and whether the channel is still open."""
        is_open = True
        while True:
            try:
                received = self._sock.recv(_RECV_BYTES)
            except BlockingIOError:
                break
            except OSError:  # ECONNRESET: the child died with something unread
                received = b""
            if not received:
                is_open = False
                break
            self._buffer.extend(received)
        return self._parse(), is_open

    def order(self, order: Order) -> bool:
        """Tell the child; False if it cannot be told now, because it has not read for long, or has gone."""
        descriptors: list[int] = []
        match order:
            case Watch():
                kind, body = _WATCH, json.dumps(sorted(order.slots))
            case Lend():
                descriptors = [listener.sock.fileno() for listener in order.listeners]
                kind, body = _LEND, json.dumps([order.slot, [one.speaks for one in order.listeners]])
            case Gone():
                kind, body = _GONE, json.dumps(order.slot)
            case Show():
                descriptors = list(order.descriptors)
                kind, body = _SHOW, json.dumps(len(descriptors))
            case _:
                assert_never(order)
        message = _HEAD.pack(kind, len(body)) + body.encode()
        try:
            # So little is taken as a whole or not at all: it fits into one buffer of the kernel.
            socket.send_fds(self._sock, [message], descriptors)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._sock.close()

    def _parse(self) -> list[Message]:
        messages: list[Message] = []
        for kind, body in _messages(self._buffer):
            if kind == _READY:
                messages.append(ReadyMessage())
            elif kind == _FAILED:
                message, detail = json.loads(body)
                messages.append(FailedMessage(message, detail))
            elif kind == _RELOAD:
                messages.append(ReloadMessage(body.decode()))
            elif kind == _RECYCLE:
                messages.append(RecycleMessage(body.decode()))
            elif kind == _PASSED_ON:
                messages.append(PassedOnMessage())
        return messages


def _messages(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take what is complete out of the buffer: kind and body of each."""
    while len(buffer) >= _HEAD.size:
        kind, length = _HEAD.unpack_from(buffer)
        end = _HEAD.size + length
        if len(buffer) < end:
            break
        body = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        yield kind, body


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Birth:
    """What a new process is told about itself."""

    role: Role
    slot: int
    generation: int
    row: Row
    channel: ChildChannel


def pair() -> tuple[MasterChannel, ChildChannel]:
    """Make both ends, before the fork. Each side closes the end that is not its own, after it."""
    master, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return MasterChannel(master), ChildChannel(child)
