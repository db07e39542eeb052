"""The gate of one loop: its listeners, open, paused or closed.

The sockets belong to whoever bound them (the master, for its whole life); the gate accepts from them and closes this
process's copy when it closes. A *door* is one listener that is being accepted from. There are two kinds:

- uvloop's own listener is the cheapest way to a connection (7 us against 10). It works on a duplicate, which it closes.
- Under any other loop the gate accepts by itself, one connection per turn. asyncio's listener takes as many as the
  backlog in one go, whatever the limit on connections, and drops those that it has taken when it is closed in the same
  turn ("Error on transport creation for incoming connection").

A gate may also accept for others (``hand_on``): then it has doors of the second kind, which take a few connections per
turn, because the loop that has this gate serves none itself.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from aioserve.worker.loops import loop_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Listener

    Connect = Callable[[Listener], asyncio.BaseProtocol]
    HandOn = Callable[[Listener, socket.socket], None]

log = logging.getLogger("aioserve")

#: accept(2): the connection that was next broke before it was accepted, or a firewall forbids it. There may be others.
BROKEN: Final = frozenset({
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.EOPNOTSUPP, errno.ENOPROTOOPT,
})  # fmt: skip

#: How long a door is left alone at which nothing can be accepted (no descriptors, no memory), in seconds; asyncio's
#: figure. Without it the loop would spin, because the listener stays readable.
NO_ROOM_SECONDS: Final = 1.0

#: What a gate that serves nobody itself accepts in one turn. More would leave less to other workers at the same socket:
#: with 64 at a time one of four took 40 of 64 connections.
BURST: Final = 16


class Door(Protocol):
    """One listener that is being accepted from."""

    def close(self) -> None: ...


@final
class Gate:
    """Accepts for ``connect``, which makes the protocol of a new connection from its listener.

    With ``hand_on`` that is called for each accepted socket, which does not block, instead of serving it here.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Listener],
        connect: Connect,
        *,
        backlog: int,
        hand_on: HandOn | None = None,
    ) -> None:
        self._loop: Final = loop
        self._listeners: Final = listeners
        self._connect: Final = connect
        self._backlog: Final = backlog
        self._hand_on: Final[HandOn] = hand_on or self.take
        self._serves: Final = hand_on is None
        #: Connections that were given to ``take`` and broke before they could be served.
        self.broken = 0
        self._doors: list[Door] = []
        self._wanted = False
        self._closed = False
        self._changing: asyncio.Task[None] | None = None
        self._adopting: Final[set[asyncio.Task[None]]] = set()
        for listener in listeners:
            listener.sock.setblocking(False)  # the standard library's signature

    @property
    def accepting(self) -> bool:
        return bool(self._doors)

    async def open(self) -> None:
        """Accept until ``pause`` or ``close``. Connections that came before wait in the kernel's queue."""
        self._wanted = True
        for listener in self._listeners:
            if not self._wanted:
                break
            self._doors.append(await self._open_door(listener))

    def pause(self) -> None:
        """Accept no more; the kernel goes on queueing, up to the backlog."""
        self._wanted = False
        for door in self._doors:
            door.close()
        self._doors.clear()

    def resume(self) -> None:
        """Accept again after ``pause``."""
        if not self._wanted and not self._closed and (self._changing is None or self._changing.done()):
            self._wanted = True
            self._changing = self._loop.create_task(self._reopen())

    async def _reopen(self) -> None:
        try:
            await self.open()
        except OSError as error:
            self.pause()
            log.error("the listeners cannot be opened again yet: %s", error.strerror)  # noqa: TRY400

    def has_room(self, count: int) -> bool:
        """Whether ``count`` descriptors are free: the kernel is asked for them, and has them back at once.

        Counting those in use would take longer the more there are; this takes 2 us for each of ``count``.
        """
        if self._closed or not self._listeners:
            return True
        sample = self._listeners[0].sock.fileno()
        found: list[int] = []
        try:
            for _ in range(count):
                found.append(os.dup(sample))  # noqa: PERF401  # those before an error have to be closed
        except OSError:
            return False
        finally:
            for descriptor in found:
                os.close(descriptor)
        return True

    async def close(self, *, take_queue: bool) -> None:
        """Accept no more, for good, and close this process's copies of the sockets.

        ``take_queue``: first serve what waits in the kernel's queues. When the last copy of a listening socket is
        closed, the kernel resets what nobody has accepted; as long as one is open, it goes on taking connections,
        and nobody ever looks at them.
        """
        self._closed = True
        if self._changing is not None:
            self._changing.cancel()
        self.pause()
        # libuv closes its duplicates at the end of this turn. What comes meanwhile waits in the queue.
        await _turns()
        taken = 0
        for listener in self._listeners:
            if take_queue:
                taken += self._take(listener)
            listener.sock.close()
        if taken:
            log.info("%d connections that waited to be accepted are served before the end", taken)
        while self._adopting:
            await asyncio.wait(self._adopting)
        # A loop calls connection_made some turns after it has accepted.
        await _turns()

    def _take(self, listener: Listener) -> int:
        """Accept all that waits; how many that were. Within bounds: on a shared socket more may come for ever."""
        for taken in range(2 * self._backlog):
            try:
                if not self.adopt(listener):
                    return taken
            except OSError as error:
                log.warning("connections that wait cannot be accepted before the end: %s", error.strerror)
                return taken
        return 2 * self._backlog

    def adopt(self, listener: Listener) -> bool:
        """Accept one connection and serve it; False if none waits. Raises ``OSError`` if it cannot be had."""
        try:
            sock, _ = listener.sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in BROKEN:
                return True
            raise
        sock.setblocking(False)
        self._hand_on(listener, sock)
        return True

    def take(self, listener: Listener, sock: socket.socket) -> None:
        """Serve a connection that was accepted, by whomever, from this listener. ``sock`` does not block."""
        task = self._loop.create_task(self._serve(listener, sock))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _serve(self, listener: Listener, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(functools.partial(self._connect, listener), sock)
        except OSError:  # it broke meanwhile
            self.broken += 1
            sock.close()

    async def _open_door(self, listener: Listener) -> Door:
        if not self._serves or loop_name(self._loop) != "uvloop":
            listener.sock.listen(self._backlog)
            return _Polled(self._loop, self, listener, 1 if self._serves else BURST)
        factory = functools.partial(self._connect, listener)
        sock = listener.sock.dup()
        # Both calls listen() again, with a default of 100 that would shrink the queue for every worker that shares it.
        if sock.family == socket.AF_UNIX:
            options: dict[str, Any] = {}
            if "cleanup_socket" in inspect.signature(self._loop.create_unix_server).parameters:
                # From Python 3.13 on it would remove the socket's file when the first of several workers stops.
                options["cleanup_socket"] = False
            return await self._loop.create_unix_server(factory, sock=sock, backlog=self._backlog, **options)
        return await self._loop.create_server(factory, sock=sock, backlog=self._backlog)


@final
class _Polled:
    """A door of a loop whose own listener is not good enough."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, listener: Listener, burst: int) -> None:
        self._loop: Final = loop
        self._gate: Final = gate
        self._listener: Final = listener
        self._burst: Final = burst
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        self._open()

    def close(self) -> None:
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.sock)

    def _open(self) -> None:
        self._loop.add_reader(self._listener.sock, self._readable)

    def _readable(self) -> None:
        try:
            for _ in range(self._burst):
                if not self._gate.adopt(self._listener) or self._closed:
                    break
        except OSError as error:
            log.error("no connection can be accepted for %g s: %s", NO_ROOM_SECONDS, error.strerror)  # noqa: TRY400
            self._loop.remove_reader(self._listener.sock)
            self._again = self._loop.call_later(NO_ROOM_SECONDS, self._open)


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
