"""Time limits of connections at no cost per request: one coarse timer for all of them.

A connection is filed under the tick at which it has to be looked at again, and only then it works out what it is
waiting for and since when. So a request on a busy connection stores a number and moves nothing; a connection that was
active in the meantime is simply filed anew. Only a wait that may end earlier than the tick it is filed under (part of
a head, a body, a stalled write) files itself again when it begins.

All times are ``loop.time()`` seconds; they are as coarse as ``resolution``, and never early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    from collections.abc import Iterator


class Timed(Protocol):
    """Something with a deadline. ``look(now)`` acts if the time is up and files it again if not."""

    bucket: set[Timed] | None

    def look(self, now: float) -> None: ...


@final
class Deadlines:
    """Everything that waits, by tick. ``now`` is the time of the last tick."""

    __slots__ = ("_buckets", "_next", "now", "resolution")

    def __init__(self, resolution: float, now: float) -> None:
        self.resolution: float = resolution
        self.now: float = now
        self._buckets: dict[int, set[Timed]] = {}
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

    def advance(self, now: float) -> None:
        """Look at all whose tick has come. Call it about every ``resolution`` seconds."""
        self.now = now
        last = int(now / self.resolution)
        while self._next <= last:
            bucket = self._buckets.pop(self._next, None)
            self._next += 1
            for timed in bucket or ():
                timed.bucket = None
                timed.look(now)

    def __iter__(self) -> Iterator[Timed]:
        """All that are filed, in no order; they may be filed anew while they are visited."""
        return iter([timed for bucket in self._buckets.values() for timed in bucket])
