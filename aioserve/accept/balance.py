"""Who gets the next connection: what a dispatcher knows of each slot, and its choice. No socket and no clock.

A slot's *load* is the connections that its workers have open, and those that were sent and are not open yet. These
are counted, not measured: between taking a connection and opening it a worker has it in no cell. The count is put
right by what the kernel says of the feed, whenever that knows better.

A slot is *late* from the moment when something has waited for it longer than ``LATE`` without anything being taken. It
gets nothing until it has taken all, and what waits may be taken back. A probe takes its place in the feed, and
shows when the worker is back.

When the dispatcher has overslept itself (``Alarm``), the machine had no processor for it, and probably none for the
worker either. That says nothing of the worker, whose time begins anew; but not for ever, because a machine may be so
busy all the time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

from aioserve.accept.passing import MOST
from aioserve.observe.scoreboard import (
    ACCEPTING,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CONNECTIONS_TOTAL,
    PHASE,
    Phase,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Seconds. A worker that is only busy takes what waits within one turn of its loop, mostly less than a millisecond.
LATE: Final = 0.003

#: Seconds after which a connection that was taken and did not open is no longer believed to: its client has left.
FORGOTTEN: Final = 1.0

#: Seconds. Timers are a millisecond coarse; who wakes so much later than it meant to was not given a processor.
OVERSLEPT: Final = 0.0015

#: Seconds. Who has taken nothing for so long is late, whatever the machine does: five times ``LATE``.
INEXCUSABLE: Final = 0.015


@final
class Alarm:
    """When somebody means to be awake again; ``set`` it before each sleep."""

    def __init__(self) -> None:
        self._due = math.inf

    def set(self, due: float) -> None:
        self._due = due

    def overslept(self, now: float) -> bool:
        """Whether the sleep has lasted clearly longer; said once."""
        if now - self._due < OVERSLEPT:
            return False
        self._due = math.inf
        return True


@final
class Lane:
    """A slot as its dispatcher sees it. ``seats`` are the cells of its two rows."""

    def __init__(self, number: int, seats: Sequence[memoryview]) -> None:
        self.number: Final = number
        self.takes = False  # somebody takes what is sent
        self.serves = False  # somebody is there at all
        self.load = 0
        self.room = 0  # how many more it may be sent now
        self.waiting = 0  # in the feed, probes among them
        self.probed = False
        self.late = False
        self._seats: Final = seats
        self._opened: Final = [0] * len(seats)  # what each seat's total was
        self._pending = 0  # sent, and not open yet
        self._since = 0.0  # nothing has been taken, or opened, since then
        self._excused = 0.0  # and is to be reckoned from then on

    def look(self, ask: Callable[[], int], now: float, *, avoided: bool) -> None:
        """Take in what the scoreboard and the feed say; ``ask`` is asked how many wait in the feed.

        It is asked last. A worker may take and open some meanwhile: they would be among those that wait, and with those
        that have opened, and so be counted for ever.
        """
        connections, limit = 0, 0
        self.takes = self.serves = False
        for seat, cells in enumerate(self._seats):
            total = cells[CONNECTIONS_TOTAL]
            # A total that is lower belongs to another process.
            opened = total - self._opened[seat] if total >= self._opened[seat] else total
            self._opened[seat] = total
            if opened:
                self._pending -= opened
                self._since = now
            phase = cells[PHASE]
            self.serves = self.serves or phase in {Phase.READY, Phase.DRAINING}
            if cells[ACCEPTING]:
                self.takes = True
                connections += cells[CONNECTIONS]
                limit += cells[CONNECTIONS_LIMIT]
        waiting = ask()
        if waiting < self.waiting:
            self._since = now
        self.waiting = waiting
        if not waiting:
            self.late = self.probed = False
        connections_waiting = waiting - self.probed
        if self._pending < connections_waiting or (
            self._pending > connections_waiting and now - self._since > FORGOTTEN
        ):
            self._pending = connections_waiting
        self.takes = self.takes and not avoided
        self.load = connections + self._pending
        # Few descriptors are few for what comes in one message, too.
        most = min(MOST, max(limit // 4, 1)) if limit else MOST
        room = most - waiting if self.takes and not self.late else 0
        self.room = max(min(room, limit - self.load if limit else room), 0)

    def lags(self, now: float) -> bool:
        """Whether it has become late just now."""
        if self.late or not self.waiting or now < self.due():
            return False
        self.late = True
        self.room = 0
        return True

    def excuse(self, now: float) -> None:
        """Nothing was taken, and it need not be the worker's fault."""
        self._excused = now

    def due(self) -> float:
        """When it becomes late, if nothing is taken."""
        return min(max(self._since, self._excused) + LATE, self._since + INEXCUSABLE)

    def sent(self, count: int, now: float) -> None:
        if not self.waiting:
            self._since = now
        self.waiting += count
        self._pending += count

    def retaken(self, count: int) -> None:
        """So many were taken back, and nothing is left."""
        self.waiting = 0
        self._pending -= count

    def probe(self) -> None:
        """A probe is in its feed, alone."""
        self.waiting, self.probed = 1, True

    def give(self) -> None:
        """It is to have one more."""
        self.load += 1
        self.room -= 1

    @property
    def idle(self) -> bool:
        """Nothing waits for it, and it has room."""
        return self.room > 0 and not self.waiting


@final
class Choice:
    """The lane with the smallest load that has room; of equals the one whose turn it is."""

    def __init__(self) -> None:
        self._last = -1

    def among(self, lanes: Iterable[Lane]) -> Lane | None:
        best: Lane | None = None
        key = (0, False, 0)
        for lane in lanes:
            if lane.room > 0:
                mine = (lane.load, lane.number <= self._last, lane.number)
                if best is None or mine < key:
                    best, key = lane, mine
        if best is not None:
            self._last = best.number
            best.give()
        return best
