"""A dispatcher accepts, and passes each connection on to the worker with the fewest.

One listening socket per address, as in ``Shared``, and one feed per slot (``aioserve.accept.passing``). Master and
dispatcher have both ends of every feed, a worker its own end of its own: what waits in it outlives both processes,
and the dispatcher can take it back. A dispatcher that is killed takes along what it has accepted and not passed on yet,
which is what it does in one turn; everything else waits in the kernel for its successor.

A slot that is added later has its feed sent to the dispatcher that is there (one that is forked later has it). A
slot that is taken away is marked in memory that the dispatcher reads before it chooses: there is nothing to linger for.
"""

from __future__ import annotations

import logging
import mmap
import socket
import struct
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, final

from aioserve.accept import passing
from aioserve.accept.base import Feed, Keeper
from aioserve.accept.dispatcher import Dispatching
from aioserve.accept.shared import Shared
from aioserve.errors import BindError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aioserve.accept.base import Inherited, Listener, Reporter
    from aioserve.accept.sockets import SocketOptions
    from aioserve.config.addresses import Address
    from aioserve.observe.scoreboard import Row

log = logging.getLogger("aioserve")

#: A byte per slot, and nobody has more than 2,048 (twice the 1,024 workers that there may be).
_PAGE: Final = 4096

#: News for the dispatcher: a slot, with the two ends of its feed if it is new.
_SLOT: Final = struct.Struct("I")


@final
class Dispatch:
    """An ``Acceptor``, and its ``Dispatcher``."""

    linger: float = 0.0
    front: Final = None

    def __init__(
        self, addresses: Iterable[Address], slots: int, options: SocketOptions, *, platform: str = sys.platform
    ) -> None:
        self._shared: Final = Shared(addresses, options)
        self._size: Final = slots
        self._backlog: Final = options.backlog
        self._platform: Final = platform
        self._feeds: Final[dict[int, tuple[socket.socket, socket.socket]]] = {}
        self._avoided: Final = memoryview(mmap.mmap(-1, _PAGE))
        self._listeners: Sequence[Listener] = ()
        self._news: tuple[socket.socket, socket.socket] | None = None

    @property
    def dispatcher(self) -> Dispatch:
        return self

    def open(self, inherited: Sequence[Inherited] = ()) -> None:
        if self._platform != "linux":
            raise BindError("--accept dispatch needs Linux (sequenced packets that carry descriptors); use shared")
        with ExitStack() as stack:
            stack.callback(self.close)
            self._shared.open(inherited)
            self._listeners = self._shared.listeners(0)
            if len(self._listeners) > passing.PROBE:
                raise BindError(f"--accept dispatch takes {passing.PROBE} addresses at most; use --accept shared")
            try:
                self._news = passing.feed()
                for slot in range(self._size):
                    self._feeds[slot] = passing.feed()
            except OSError as error:
                raise BindError(f"--accept dispatch: no feeds to the workers: {error.strerror}") from error
            stack.pop_all()

    def listeners(self, slot: int) -> list[Feed]:
        return [Feed(sock=self._feeds[slot][1], listeners=self._listeners)]

    def queues(self) -> Mapping[int, Sequence[Listener]]:
        return {}

    def keep_only(self, who: int | Keeper | None) -> None:
        if who is Keeper.DISPATCHER:
            return
        for other, (out, back) in self._feeds.items():
            out.close()
            if other != who:
                back.close()
        self._close_news()
        # A copy of a listening socket here would keep it alive when the dispatcher has left, and nobody accepts.
        self._shared.close(keep_files=True)

    def grow(self, slot: int) -> None:
        assert slot not in self._feeds, f"slot {slot} is there"
        assert self._news is not None, "it is not open"
        try:
            ends = passing.feed()
        except OSError as error:
            raise BindError(f"no feed to a further worker: {error.strerror}") from error
        self._avoided[slot] = False
        self._feeds[slot] = ends
        if not passing.send(self._news[0], _SLOT.pack(slot), [end.fileno() for end in ends]):
            self._close_feed(slot)
            raise BindError("the dispatcher does not listen to its master")

    def joined(self, slot: int) -> None:
        pass

    def retire(self, slot: int) -> None:
        self._avoided[slot] = True

    def restore(self, slot: int) -> None:
        self._avoided[slot] = False

    def forget(self, slot: int) -> None:
        self._move(slot)
        self._close_feed(slot)
        self._avoided[slot] = False
        if self._news is not None:
            # Unheard, it costs the dispatcher two descriptors.
            passing.send(self._news[0], _SLOT.pack(slot), ())

    def hand_over(self) -> list[Inherited]:
        return self._shared.hand_over()

    def alone(self) -> None:
        self._shared.alone()

    def refuse(self) -> None:
        self._shared.refuse()

    def reclaim(self) -> None:
        pass

    def addresses(self) -> list[str]:
        return self._shared.addresses()

    def close(self, *, keep_files: bool = False) -> None:
        for slot in list(self._feeds):
            self._close_feed(slot)
        self._close_news()
        self._shared.close(keep_files=keep_files)

    # The dispatcher

    def run(self, workers: Sequence[Sequence[Row]], row: Row, reporter: Reporter) -> int:
        assert self._news is not None, "it is not open"
        dispatching = Dispatching(self._listeners, row=row, avoided=self._avoided, backlog=self._backlog)

        def add(slot: int, out: socket.socket, back: socket.socket) -> None:
            dispatching.add(slot, [seat.cells for seat in workers[slot]], out, back)

        def hear() -> None:
            """A slot more, or one less."""
            while (message := passing.receive(news)) is not None and message[0]:
                (slot,) = _SLOT.unpack(message[0])
                dispatching.remove(slot)
                if len(message[1]) == 2:
                    out, back = (socket.socket(fileno=fd) for fd in message[1])
                    add(slot, out, back)

        news = self._news[1]
        for slot, (out, back) in self._feeds.items():
            add(slot, out, back)
        dispatching.listen_to(news.fileno(), hear)
        return dispatching.run(reporter)

    def _move(self, slot: int) -> None:
        """Give what waits for a slot that goes to another; mostly the dispatcher has done so."""
        others = [out for other, (out, _) in self._feeds.items() if other != slot]
        while (message := passing.receive(self._feeds[slot][1])) is not None and message[0]:
            origins, descriptors = message
            if descriptors and not any(passing.send(out, origins, descriptors) for out in others):
                log.warning("%d connections of a worker that has gone found no room with another", len(descriptors))
            for descriptor in descriptors:
                socket.close(descriptor)

    def _close_feed(self, slot: int) -> None:
        for end in self._feeds.pop(slot):
            end.close()

    def _close_news(self) -> None:
        for end in self._news or ():
            end.close()
        self._news = None
