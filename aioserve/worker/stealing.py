"""Accepting what waits for a sibling: the siblings' sockets, and a door at each of those that are being watched.

The worker has copies of the sockets of all slots since its fork. Which of them it watches is said by the master (a
sibling is late), or it watches all of them always. At a watched socket it competes with the socket's own worker and
with other siblings, and takes one connection per event: whoever is idle is the first to get it, and nobody takes more
than he can serve.

A slot that goes away has its sockets shut down, in every process that has a copy: accept(2) then says EINVAL for ever,
and the descriptor is always readable. So that is the end of a door, and no reason to look again.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Final, assert_never, final

from aioserve.accept.orders import Gone, Lend, Watch
from aioserve.accept.sockets import listens
from aioserve.observe.scoreboard import STOLEN
from aioserve.worker.gate import PolledDoor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from aioserve.accept.base import Listener
    from aioserve.accept.orders import Order

    Adopt = Callable[[Listener], bool]

log = logging.getLogger("aioserve")


@final
class Stealing:
    """Obeys orders from the beginning; accepts between ``open`` and ``pause``, and nothing more after ``close``.

    ``always``: every sibling is watched, now and later. ``connections`` counts what was accepted for others, and so
    does the worker's row of the scoreboard, of which these are the ``cells``.
    """

    def __init__(
        self, siblings: Mapping[int, Sequence[Listener]], *, always: bool = False, cells: memoryview | None = None
    ) -> None:
        self._cells: Final = cells
        self._always: Final = always
        self._siblings: Final = {slot: list(listeners) for slot, listeners in siblings.items()}
        self._watched: frozenset[int] = frozenset(siblings) if always else frozenset()
        self._doors: Final[dict[int, list[PolledDoor]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is open
        self._adopt: Adopt | None = None
        self._closed = False
        self.connections = 0

    @property
    def watched(self) -> frozenset[int]:
        """The slots at whose sockets there is a door."""
        return frozenset(self._doors)

    def obey(self, order: Order) -> None:
        """Do as the master says."""
        match order:
            case Watch():
                self._watched = order.slots
            case Lend():
                self._drop(order.slot)
                if self._closed:
                    _close(order.listeners)
                else:
                    self._siblings[order.slot] = list(order.listeners)
            case Gone():
                self._drop(order.slot)
            case _:
                assert_never(order)
        if self._always:
            self._watched = frozenset(self._siblings)
        self._settle()

    def open(self, loop: asyncio.AbstractEventLoop, adopt: Adopt) -> None:
        """Accept from those that are watched, by ``adopt``."""
        self._loop, self._adopt = loop, adopt
        self._settle()

    def pause(self) -> None:
        """Accept nothing; orders are still obeyed."""
        self._loop = None
        self._settle()

    def close(self, last: Callable[[int], bool], take: Callable[[Listener], int]) -> int:
        """Give up all sockets; what ``take`` has made of the queues of slots of which this process is the ``last``."""
        self.pause()
        self._closed = True
        taken = 0
        for slot, listeners in self._siblings.items():
            for listener in listeners:
                if listens(listener) and last(slot):
                    taken += take(listener)
            _close(listeners)
        self._siblings.clear()
        return taken

    def _settle(self) -> None:
        """Have doors where they are wanted."""
        wanted = self._watched & self._siblings.keys() if self._loop is not None else frozenset()
        for slot in self._doors.keys() - wanted:
            self._shut(slot)
        if self._loop is None:
            return
        for slot in wanted - self._doors.keys():
            # One that does not listen yet reads as an end-of-file; it is sent again when it does.
            self._doors[slot] = [
                PolledDoor(self._loop, listener, self._steal, self._ended(slot))
                for listener in self._siblings[slot]
                if listens(listener)
            ]

    def _steal(self, listener: Listener) -> None:
        assert self._adopt is not None
        if self._adopt(listener):
            self.connections += 1
            if self._cells is not None:
                self._cells[STOLEN] = self.connections

    def _ended(self, slot: int) -> Callable[[OSError], bool]:
        def ended(error: OSError) -> bool:
            if error.errno != errno.EINVAL:
                return False
            self._drop(slot)
            return True

        return ended

    def _shut(self, slot: int) -> None:
        for door in self._doors.pop(slot, ()):
            door.close()

    def _drop(self, slot: int) -> None:
        self._shut(slot)
        _close(self._siblings.pop(slot, []))


def _close(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        listener.sock.close()
