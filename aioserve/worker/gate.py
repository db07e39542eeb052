"""The gate of one loop: its listeners, open, paused or closed.

The sockets belong to whoever bound them (the master, for its whole life); the gate accepts from them and closes this
process's copy when it closes. A *door* is one listener that is being accepted from. There are three kinds:

- uvloop's own listener is the cheapest way to a connection (7 us against 10). It works on a duplicate, which it closes.
- Under any other loop, and where somebody wants the sockets themselves (``attach``), the gate accepts by itself, one
  connection per turn. asyncio's listener takes as many as the backlog in one go, whatever the limit on connections, and
  drops those that it has taken when it is closed in the same turn ("Error on transport creation for incoming
  connection").
- Where a dispatcher accepts, connections come through a feed, one message per turn (``aioserve.accept.passing``).

A gate may also accept for others (``hand_on``): then it has doors of the second kind, which take a few connections per
turn, because the loop that has this gate serves none itself.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from aioserve.accept import passing
from aioserve.accept.base import Feed, Listener
from aioserve.accept.sockets import BROKEN, NO_ROOM_SECONDS, queue_length
from aioserve.worker.loops import loop_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Source
    from aioserve.worker.stealing import Stealing

    Connect = Callable[[Listener], asyncio.BaseProtocol]
    HandOn = Callable[[Listener, socket.socket], None]
    Attach = Callable[[Listener], HandOn | None]

log = logging.getLogger("aioserve")

#: How long a feed has to be quiet, in seconds, before a worker that leaves believes that nothing comes any more.
#: Mostly it need not wait, because the dispatcher has left and the feed is at its end.
QUIET: Final = 0.1

#: What a gate that serves nobody itself accepts in one turn. More would leave less to other workers at the same socket:
#: with 64 at a time one of four took 40 of 64 connections.
BURST: Final = 16


def nobody(_slot: int) -> bool:
    """Has left."""
    return False


class Door(Protocol):
    """One listener that is being accepted from."""

    def close(self) -> None: ...


@final
class Gate:
    """Accepts for ``connect``, which makes the protocol of a new connection from its listener.

    ``tell`` is told whether it accepts, before that is so. With ``hand_on`` that is called for each accepted socket,
    which does not block, instead of serving it here. ``places`` says how many more connections may be open.
    ``attach`` says what serves the sockets that were accepted from a listener, if the loop's transports do not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Source],
        connect: Connect,
        *,
        backlog: int,
        tell: Callable[[bool], None] | None = None,
        hand_on: HandOn | None = None,
        places: Callable[[], int] | None = None,
        attach: Attach | None = None,
    ) -> None:
        self._loop: Final = loop
        self._listeners: Final = listeners
        self._connect: Final = connect
        self._backlog: Final = backlog
        self._tell: Final = tell or (lambda _accepts: None)
        self._hand_on: Final[HandOn] = hand_on or self.take
        self._serves: Final = hand_on is None
        self._places: Final = places
        self._attach: Final[Attach] = attach or (lambda _listener: None)
        #: Connections that were given to ``take`` and broke before they could be served.
        self.broken = 0
        self._doors: list[Door] = []
        self._wanted = False
        self._closed = False
        self._changing: asyncio.Task[None] | None = None
        self._opening = False
        self._adopting: Final[set[asyncio.Task[None]]] = set()
        #: Accepts for siblings, whenever this gate accepts for itself.
        self.stealing: Stealing | None = None
        for listener in listeners:
            listener.sock.setblocking(False)  # the standard library's signature

    @property
    def accepting(self) -> bool:
        return bool(self._doors)

    async def open(self) -> None:
        """Accept until ``pause`` or ``close``. Connections that came before wait in the kernel's queue."""
        self._wanted = self._opening = True
        self._tell(True)
        try:
            for listener in self._listeners:
                if not self._wanted:
                    break
                self._doors.append(await self._open_door(listener))
        finally:
            self._opening = False
        if self._wanted and self.stealing is not None:
            self.stealing.open(self._loop, self.adopt)

    def pause(self) -> None:
        """Accept no more; the kernel goes on queueing, up to the backlog."""
        self._wanted = False
        self._tell(False)
        for door in self._doors:
            door.close()
        self._doors.clear()
        if self.stealing is not None:
            self.stealing.pause()

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

    def use(self, make: Callable[[Listener], Door]) -> bool:
        """Accept at doors of another kind until the next pause; False if that cannot be now."""
        if not self._doors or self._opening:
            return False
        for door in self._doors:
            door.close()
        self._doors[:] = [make(source) for source in self._listeners if isinstance(source, Listener)]
        return True

    def waiting(self) -> int:
        """How many connections wait in the kernel's queues."""
        return 0 if self._closed else sum(queue_length(listener.sock) for listener in self._listeners)

    def is_short(self, feed: Feed) -> bool:
        """Whether the next message may bring more descriptors than are free: the kernel would close the others.

        Exactly: the lowest number that is free says nothing, because connections that have closed leave gaps.
        """
        return not self.has_room(min(passing.waiting(feed.sock), passing.MOST))

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

    async def close(self, *, take_queue: bool, last: Callable[[int], bool] = nobody) -> None:
        """Accept no more, for good, and close this process's copies of the sockets.

        ``take_queue``: first serve what waits in the kernel's queues. When the last copy of a listening socket is
        closed, the kernel resets what nobody has accepted; as long as one is open, it goes on taking connections,
        and nobody ever looks at them. ``last`` says of a sibling's slot whether that sibling has left before us.
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
                taken += await self._empty(listener)
            listener.sock.close()
        if self.stealing is not None:
            taken += self.stealing.close(last if take_queue else nobody, self._take)
        if taken:
            log.info("%d connections that waited to be accepted are served before the end", taken)
        while self._adopting:
            await asyncio.wait(self._adopting)
        # A loop calls connection_made some turns after it has accepted.
        await _turns()

    async def _empty(self, source: Source) -> int:
        match source:
            case Feed():
                return await self._take_passed(source)
            case _:
                return self._take(source)

    async def _take_passed(self, feed: Feed) -> int:
        """Take all that waits and what is on its way; how many that were. Within the same bounds."""
        taken, last = 0, self._loop.time()
        while taken < 2 * self._backlog and self._loop.time() - last < QUIET:
            count = self.take_message(feed)
            if count is None:
                break
            if count:
                taken, last = taken + count, self._loop.time()
            else:
                await asyncio.sleep(QUIET / 20)
        return taken

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
        # Some turns go by before one that was accepted is open, and there may be many doors. At the end all are served.
        if self._places is not None and not self._closed:
            places = self._places()
            if len(self._adopting) >= places:
                if places <= 0:  # nobody has seen it, because the doors were just being opened
                    self.pause()
                return False
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

    def _adopt_some(self, listener: Listener) -> None:
        for _ in range(BURST):
            if not self.adopt(listener) or not self._wanted:
                return

    def take_message(self, feed: Feed) -> int | None:
        """Serve the connections of the next message; how many, and None if there will never be one again."""
        message = passing.receive(feed.sock)
        if message is None:
            return 0
        origins, descriptors = message
        if not origins:
            return None
        for index, descriptor in zip(origins, descriptors, strict=False):
            listener = feed.listeners[index]
            like = listener.sock
            sock = socket.socket(like.family, like.type, like.proto, fileno=descriptor)
            sock.setblocking(False)
            self.take(listener, sock)
        if len(descriptors) < len(origins) and origins[0] != passing.PROBE:
            log.error("%d connections are lost: too few descriptors are free", len(origins) - len(descriptors))
        return len(descriptors)

    def take(self, listener: Listener, sock: socket.socket) -> None:
        """Serve a connection that was accepted, by whomever, from this listener. ``sock`` does not block."""
        attach = self._attach(listener)
        if attach is not None:
            try:
                attach(listener, sock)
            except OSError:  # it broke meanwhile
                self.broken += 1
                sock.close()
            return
        task = self._loop.create_task(self._serve(listener, sock))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _serve(self, listener: Listener, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(functools.partial(self._connect, listener), sock)
        except OSError:  # it broke meanwhile
            self.broken += 1
            sock.close()

    async def _open_door(self, listener: Source) -> Door:
        if isinstance(listener, Feed):
            return _Fed(self._loop, self, listener)
        if not self._serves or loop_name(self._loop) != "uvloop" or self._attach(listener) is not None:
            listener.sock.listen(self._backlog)
            return PolledDoor(self._loop, listener, self.adopt if self._serves else self._adopt_some)
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
class PolledDoor:
    """A door at which ``accept`` is called when something has come: once each time, so that others get their turn.

    ``ended`` is asked whether an error is the end of the listener; by then the door has been closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        accept: Callable[[Listener], object],
        ended: Callable[[OSError], bool] | None = None,
    ) -> None:
        self._loop: Final = loop
        self._listener: Final = listener
        self._accept: Final = accept
        self._ended: Final = ended
        self._again: asyncio.TimerHandle | None = None
        self._open()

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.sock)

    def _open(self) -> None:
        self._loop.add_reader(self._listener.sock, self._readable)

    def _readable(self) -> None:
        try:
            self._accept(self._listener)
        except OSError as error:
            if self._ended is not None and self._ended(error):
                return
            log.error("no connection can be accepted for %g s: %s", NO_ROOM_SECONDS, error.strerror)  # noqa: TRY400
            self._loop.remove_reader(self._listener.sock)
            self._again = self._loop.call_later(NO_ROOM_SECONDS, self._open)


@final
class _Fed:
    """A door at which a dispatcher leaves what it has accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, feed: Feed) -> None:
        self._loop: Final = loop
        self._gate: Final = gate
        self._feed: Final = feed
        loop.add_reader(feed.sock, self._readable)
        # It may have been waiting for somebody who takes. With nobody there, there is nobody to be told.
        with suppress(OSError):
            feed.sock.send(passing.AWAKE)

    def close(self) -> None:
        self._loop.remove_reader(self._feed.sock)

    def _readable(self) -> None:
        if self._gate.is_short(self._feed):
            self._gate.pause()  # until the server's next beat, or until a connection has closed
        elif self._gate.take_message(self._feed) is None:
            self.close()  # dispatcher and master have gone, and the worker is about to notice


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
