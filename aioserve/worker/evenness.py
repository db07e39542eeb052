"""Standing back from a shared listener, so that long-lived connections spread evenly over the workers.

Of several workers that wait at one socket whoever wakes first accepts, and at a burst that is the same one again and
again: 64 connections that stay were 0, 0, 10 and 54 on four workers. So a worker with clearly more connections than the
least loaded of its siblings leaves what comes to them, for a moment: if nobody has taken it after that, they are all
busy, and it accepts at once, and for a while whatever comes. So no connection waits for longer than that moment, and
beside a blocked worker few do.

Connections that do not stay need no spreading: their number is another one at every moment, and standing back from them
cost half as much CPU again per connection at a saturated server. A worker whose connections are brief, as far as it can
tell from how many it has closed, takes what comes.

As long as the spread is even, accepting costs what it did: one comparison of numbers per connection (Server). The first
time that it is not, the loop's own listener makes way for doors at which this can be asked, until nobody has had to
stand back for a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.observe.scoreboard import ACCEPTING, CONNECTIONS, CONNECTIONS_TOTAL
from aioserve.worker.gate import PolledDoor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from aioserve.accept.base import Listener

#: How many connections more than the least loaded sibling are even enough, and what share of its own on top: at a
#: saturated server with short connections the numbers differ by as much at any moment, and it does not matter.
SLACK: Final = 4
SHARE: Final = 16

#: How long a connection is left to the others. An idle worker wakes in a twentieth of that. Seconds.
MOMENT: Final = 0.001

#: When nobody else has taken a connection, everything is accepted at once for so long, in seconds.
BUSY_SECONDS: Final = 0.005

#: Connections that stay for less than this on average need no spreading, in seconds; and so many have to have closed
#: between two beats for there to be an average.
BRIEF: Final = 0.1
SAMPLE: Final = 100

#: The loop's own listener comes back when nobody has stood back for so long, in seconds.
EVEN_SECONDS: Final = 1.0


@final
class Balance:
    """The connections of this worker and of its siblings, from their rows of the scoreboard."""

    def __init__(self, mine: memoryview, siblings: Iterable[memoryview]) -> None:
        self._mine: Final = mine
        self._looked_at = 0.0
        self._closed = 0
        self.brief = False  # this worker's connections do not stay
        self._siblings: Final = tuple(siblings)
        self._accepting: Sequence[memoryview] = ()
        self.stood_back_at = 0.0  # the loop's time
        self.look(0.0)

    def look(self, now: float) -> None:
        """See who accepts, and how long connections stay; to be called at every beat.

        There may be many rows and few workers, so this is not done for each connection.
        """
        open_now = self._mine[CONNECTIONS]
        closed = self._mine[CONNECTIONS_TOTAL] - open_now
        before, self._closed = self._closed, closed
        if closed - before >= SAMPLE:
            # Little's law: how many there are is how many come in a while, times how long they stay.
            self.brief = open_now * (now - self._looked_at) < BRIEF * (closed - before)
        elif open_now > SLACK:
            self.brief = False  # and with none there is nothing to be learned: they will be as they were
        self._looked_at = now
        self._accepting = [cells for cells in self._siblings if cells[ACCEPTING]]

    @property
    def most(self) -> int:
        """With more connections than this, a worker stands back."""
        if not self._accepting or self.brief:
            return 1 << 60
        least = min([cells[CONNECTIONS] for cells in self._accepting])
        return least + SLACK + least // SHARE

    @property
    def leans(self) -> bool:
        """This worker has clearly more than another one."""
        return self._mine[CONNECTIONS] > self.most


@final
class PoliteDoor:
    """A door at which a connection is left to others for a moment, when they have fewer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        accept: Callable[[Listener], bool],
        balance: Balance,
    ) -> None:
        self._loop: Final = loop
        self._listener: Final = listener
        self._accept: Final = accept
        self._balance: Final = balance
        self._busy_until = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._door = PolledDoor(loop, listener, self._come)

    def close(self) -> None:
        self._closed = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._door.close()

    def _come(self, listener: Listener) -> None:
        now = self._loop.time()
        if now >= self._busy_until and self._balance.leans:
            self._balance.stood_back_at = now
            self._door.close()
            self._again = self._loop.call_later(MOMENT, self._look)
        else:
            self._accept(listener)

    def _look(self) -> None:
        self._again = None
        try:
            taken = self._accept(self._listener)
        except OSError:  # the door meets it, too, and knows what to do
            taken = True
        if taken:
            self._busy_until = self._loop.time() + BUSY_SECONDS
        if self._closed:  # the gate has paused over it
            return
        self._door = PolledDoor(self._loop, self._listener, self._come)
