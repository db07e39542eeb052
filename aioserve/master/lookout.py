"""Looks out for workers that are late to accept, while there is something to accept, and tells others to help.

Connections that wait are seen by an epoll descriptor that has every slot's sockets: one call, however many there are.
At rest it is one of the things that the master waits for, so the first connection that is not accepted at once wakes
it. From then on it looks every two milliseconds, until there has been nothing to see for a while. So a server without
new connections, however many requests it serves on those that it has, is not looked at; nor is one whose workers all
wait for the first one to be ready.

What is late, and who is to help, is ``Lateness``; helpers are told by an order with everybody whom they are to watch.
"""

from __future__ import annotations

import select
import selectors
import time
from typing import TYPE_CHECKING, Final, final

from aioserve.accept.balance import OVERSLEPT
from aioserve.accept.orders import Watch
from aioserve.accept.sockets import queue_length
from aioserve.master.events import Exited, Ready, Unlisten
from aioserve.observe.scoreboard import (
    ACCEPTING,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    LATE_TOTAL,
    PHASE,
    QUEUE,
    SEATS,
    STOLEN,
    Phase,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioserve.accept.base import Listener
    from aioserve.master.events import Action, Event
    from aioserve.master.hands import Kin
    from aioserve.master.lateness import Lateness
    from aioserve.master.lender import Lender
    from aioserve.observe.scoreboard import Row, Scoreboard

#: Between two looks, in seconds. A connection waits for the second one that sees it, so for two to four milliseconds
#: (the selector counts whole ones). A look takes some 15 us.
INTERVAL: Final = 0.002

#: Between two looks when nothing moves at all: everybody is busy, and nobody can be told. Seconds.
LONGEST_INTERVAL: Final = 0.01

#: With nothing to see for so long, the looks end. Being woken costs as much as three of them. Seconds.
QUIET: Final = 0.02


@final
class Lookout:
    """An ``Observer``, after the ``Lender`` in their order. ``join`` it to the selector before the first event.

    The rows of slot n are the n-th of the scoreboard: workers come first.
    """

    def __init__(self, lender: Lender, scoreboard: Scoreboard, lateness: Lateness) -> None:
        self._lender: Final = lender
        self._scoreboard: Final = scoreboard
        self._lateness: Final = lateness
        self._selector: selectors.BaseSelector | None = None
        self._kin: Mapping[int, Kin] = {}
        self._epoll: select.epoll | None = None
        self._seen: Mapping[int, tuple[Listener, ...]] = {}  # what is in the epoll descriptor
        self._slots: dict[int, int] = {}  # by descriptor
        self._rows: dict[int, tuple[Row, ...]] = {}
        self._cells: tuple[memoryview, ...] = ()  # of all those rows
        self._told: dict[int, frozenset[int]] = {}  # by process id: whom it watches
        self._total = 0  # connections that all workers have opened
        self._wake_at: float | None = None
        self._interval = INTERVAL
        self._quiet_at = 0.0
        self._resting = False
        self._over = False

    @property
    def wake_at(self) -> float | None:
        return self._wake_at

    def join(self, selector: selectors.BaseSelector, kin: Mapping[int, Kin]) -> None:
        """From now on there may be connections."""
        self._selector, self._kin = selector, kin

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:
        if any(isinstance(action, Unlisten) for action in actions):
            self._end()
            self._over = True
        if self._over:
            return
        if isinstance(event, Exited):
            self._told.pop(event.pid, None)
        changed = self._lender.lent is not self._seen
        if changed:
            self._open()
        self._tell()
        # Who waits may have somebody to be helped by, or has lost its worker: that is nothing new to the descriptor.
        if self._epoll is not None and (changed or isinstance(event, (Ready, Exited))):
            self._stir(now)

    def tick(self, now: float) -> None:
        self._look(now, overslept=self._wake_at is not None and now - self._wake_at >= OVERSLEPT)

    def close(self) -> None:
        """Give up the descriptor: at the end, or in a new process, which must not change what the master waits for."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _end(self) -> None:
        self._rest(False)
        self._wake_at = None
        self.close()

    def _open(self) -> None:
        """A new descriptor for the sockets that there are: those that were closed cannot be taken out of the old one.

        What is registered stays so as long as anybody has the socket open, and workers do.
        """
        self._end()
        self._seen = self._lender.lent
        self._slots = {one.sock.fileno(): slot for slot, listeners in self._seen.items() for one in listeners}
        self._rows = {slot: tuple(self._scoreboard.row(slot, seat) for seat in range(SEATS)) for slot in self._seen}
        self._cells = tuple(row.cells for rows in self._rows.values() for row in rows)
        self._lateness.keep(self._seen.keys())
        if len(self._seen) > 1:  # a lone worker has nobody to help it
            self._epoll = select.epoll()
            for descriptor in self._slots:
                self._epoll.register(descriptor, select.EPOLLIN)

    def _stir(self, now: float) -> None:
        """Look for a while."""
        self._rest(False)
        self._interval = INTERVAL
        self._quiet_at = now + QUIET
        if self._wake_at is None:
            self._look(now)

    def _rest(self, resting: bool) -> None:
        if self._selector is None or self._epoll is None or resting is self._resting:
            return
        self._resting = resting
        if resting:
            self._wake_at = None
            self._selector.register(self._epoll, selectors.EVENT_READ, self._arrived)
        else:
            self._selector.unregister(self._epoll)

    def _arrived(self) -> None:
        self._stir(time.monotonic())

    def _look(self, now: float, *, overslept: bool = False) -> None:
        assert self._epoll is not None
        lateness, watched = self._lateness, self._lateness.watched
        waiting = {self._slots[descriptor] for descriptor, _ in self._epoll.poll(0)}
        total = sum([cells[CONNECTIONS_TOTAL] for cells in self._cells])
        for slot in lateness.look(now, waiting, total, self._opened, self._idlest, overslept=overslept):
            self._count(slot)
        if lateness.watched is not watched:
            self._tell()
        if total != self._total or lateness.watched is not watched:
            self._total = total
            self._quiet_at = now + QUIET
            self._interval = INTERVAL
        elif waiting:
            if not self._serving():
                self._wake_at = None  # until somebody is ready, which is an event
                return
            self._quiet_at = now + QUIET
            self._interval = min(1.25 * self._interval, LONGEST_INTERVAL)
        if now < self._quiet_at:
            self._wake_at = now + self._interval
        else:
            self._rest(True)

    def _opened(self, slot: int) -> int:
        """Connections that the slot's workers have accepted from its own sockets."""
        return sum(row.cells[CONNECTIONS_TOTAL] - row.cells[STOLEN] for row in self._rows[slot])

    def _idlest(self) -> list[int]:
        """Slots that accept, those with the fewest connections first."""
        able = [slot for slot in self._serving() if any(row.cells[ACCEPTING] for row in self._rows[slot])]
        return sorted(able, key=lambda slot: sum(row.cells[CONNECTIONS] for row in self._rows[slot]))

    def _serving(self) -> list[int]:
        return [slot for slot, rows in self._rows.items() if any(row.cells[PHASE] == Phase.READY for row in rows)]

    def _count(self, slot: int) -> None:
        waiting = sum(queue_length(listener.sock) for listener in self._seen[slot])
        for row in self._rows[slot]:
            if row.cells[PHASE] != Phase.EMPTY:
                row.cells[QUEUE] = waiting
                row.cells[LATE_TOTAL] += 1

    def _tell(self) -> None:
        """Let every worker know whom it is to watch, as far as it does not."""
        watched = self._lateness.watched
        for pid, kin in self._kin.items():
            if kin.worker is None:
                continue
            mine = frozenset(slot for slot, helpers in watched.items() if kin.worker in helpers)
            if self._told.get(pid, frozenset()) != mine and kin.channel.order(Watch(mine)):
                self._told[pid] = mine
