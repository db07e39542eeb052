"""Time limits of connections at no cost per request: one coarse timer for all of them.

A connection is filed under the tick at which it has to be looked at again, and only then it works out what it is
waiting for and since when. So a request on a busy connection stores a number and moves nothing; a connection that was
active in the meantime is simply filed anew. Only a wait that may end earlier than the tick it is filed under (part of
a head, a body, a stalled write) files itself again when it begins.

All times are ``loop.time()`` seconds; they are as coarse as ``resolution``, and never early. Thousands that are due at
once, a flood of clients that came together and went silent, are looked at a few at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


#: Looks in one turn of the loop. One that ends a connection with a response in flight costs 0.2 ms: 2,000 in one
#: turn kept everybody else waiting for 100 ms and more.
TURN_LIMIT: Final = 64


class Timed(Protocol):
    """Something with a deadline. ``look(now)`` acts if the time is up and files it again if not."""

    bucket: set[Timed] | None

    def look(self, now: float) -> None: ...


@final
class Deadlines:
    """Everything that waits, by tick. ``now`` is the time of the last tick."""

    __slots__ = ("_buckets", "_due", "_next", "now", "resolution")

    def __init__(self, resolution: float, now: float) -> None:
        self.resolution: float = resolution
        self.now: float = now
        self._buckets: dict[int, set[Timed]] = {}
        # The rest of a tick that has come.
        self._due: set[Timed] = set()
        self._next: int = int(now / resolution)

    def file(self, timed: Timed, deadline: float) -> None:
        """Look at ``timed`` at the first tick after ``deadline``, and no longer at any other."""
        if timed.bucket is not None:
            timed.bucket.discard(timed)
        tick = max(int(deadline / self.resolution) + 1, self._next)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
        bucket.add(timed)
        timed.bucket = bucket

    def forget(self, timed: Timed) -> None:
        """Never look at ``timed`` again."""
        if timed.bucket is not None:
            timed.bucket.discard(timed)
            timed.bucket = None

    def advance(self, now: float) -> bool:
        """Look at those whose tick has come. Call it about every ``resolution`` seconds.

        True if more are due than one turn of the loop should bear: call ``go_on`` in the next.
        """
        self.now = now
        return self.go_on()

    def go_on(self) -> bool:
        """Look at some more of those whose tick has come; True if even more are due."""
        left = TURN_LIMIT
        last = int(self.now / self.resolution)
        while True:
            while self._due:
                if not left:
                    return True
                left -= 1
                timed = self._due.pop()
                timed.bucket = None
                timed.look(self.now)
            if self._next > last:
                return False
            self._due = self._buckets.pop(self._next, set())
            self._next += 1

    def __iter__(self) -> Iterator[Timed]:
        """All that are filed, in no order; they may be filed anew while they are visited."""
        return iter([timed for bucket in (self._due, *self._buckets.values()) for timed in bucket])


def after_reading(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Call back once what lies in the sockets by now has been read: a time may be up for something that is there.

    Two turns: in uvloop the first comes before the sockets are looked at, with call_later and a delay of 0 too, and in
    asyncio before what was found in them is read.
    """
    loop.call_soon(loop.call_soon, callback, *args)
