"""Who serves a connection: the usher accepts for all loops of a process and hands each to the one with the fewest.

    listener -> Gate (main loop) -> Usher.usher -> Lane.inbox -> Lane.receive (the lane's loop) -> Server.take

A *lane* is one loop, as the usher sees it. Its load is what was handed to it less what has gone; the usher counts the
one, the loop the other, and each number has one thread that writes it. Ties go round, so that short connections do.

Nobody waits behind a busy loop while another is idle: a loop that has not looked into its inbox for ``LATE`` is
late. It gets nothing more, and what still lies in its inbox goes to a loop that is not. While all are late, nothing is
accepted, so that other workers at the same socket can. When the main loop itself has overslept, it had no processor, or
no interpreter lock, and the other loops may have had none either: their time begins anew (``aioserve.accept.balance``).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

from aioserve.accept.balance import INEXCUSABLE, LATE, Alarm
from aioserve.observe.scoreboard import (
    ACCEPTING,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CONNECTIONS_TOTAL,
    LATE_TOTAL,
    QUEUE,
    RETAKEN_TOTAL,
)
from aioserve.worker.admission import room, spare_descriptors
from aioserve.worker.gate import Gate

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Listener, Source
    from aioserve.observe.scoreboard import Row
    from aioserve.worker.server import Server
    from aioserve.worker.settings import Settings

log = logging.getLogger("aioserve")

#: While a limit keeps the usher from accepting, it looks again after this long, in seconds.
FULL_SECONDS: Final = 0.02

#: Free descriptors are looked for at every so manieth beat: it takes 0.1 ms.
ROOM_BEATS: Final = 5


@final
class Lane:
    """One loop. All but ``receive`` and ``answered`` is the usher's."""

    __slots__ = (
        "answered", "asked", "asked_at", "closed", "excused_at", "handed", "inbox", "loop", "patience", "seen",
        "server",
    )  # fmt: skip

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, *, patience: float = LATE) -> None:
        self.patience = patience
        self.server: Final = server
        self.loop: Final = loop
        #: Both sides take from it; whoever has taken a connection has it (deques are safe to use from several threads).
        self.inbox: Final[deque[tuple[Listener, socket.socket]]] = deque()
        self.handed = 0
        #: How often the loop was asked to look into its inbox, and how often it has.
        self.asked = 0
        self.answered = 0
        #: ``answered`` when it was last looked at, and since when it has not changed although it should.
        self.seen = 0
        self.asked_at = 0.0
        #: That is to be reckoned from here on, within bounds.
        self.excused_at = 0.0
        #: The loop has gone.
        self.closed = False

    @property
    def load(self) -> int:
        """Connections that are open, or soon will be."""
        return self.handed - self.server.departed

    def ask(self, now: float) -> None:
        """Let the loop look into its inbox."""
        if self.asked == self.answered:
            self.asked_at = now
        self.asked += 1
        try:
            self.loop.call_soon_threadsafe(self.receive)
        except RuntimeError:  # it is closed
            self.closed = True

    def is_late(self, now: float) -> bool:
        """Whether the loop has not come to its inbox for too long."""
        answered = self.answered
        if answered != self.seen:
            self.seen = answered
            self.asked_at = now
        if self.asked == answered or self.closed:
            return False
        since = max(self.asked_at, self.excused_at)
        return now - since > self.patience or now - self.asked_at > max(self.patience, INEXCUSABLE)

    def rank(self, now: float) -> tuple[bool, bool, int]:
        """The lower, the sooner it gets the next connection."""
        return self.closed, self.is_late(now), self.load

    def receive(self) -> None:
        """In the loop's thread: serve what lies in the inbox."""
        self.answered += 1
        inbox = self.inbox
        while inbox:
            try:
                listener, sock = inbox.popleft()
            except IndexError:  # the usher has just taken the last one back
                return
            self.server.take(listener, sock)


@final
class Usher:
    """Make it in the main loop once all loops serve; then ``open``, ``beat`` again and again, and ``close``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lanes: Sequence[Lane],
        listeners: Sequence[Source],
        settings: Settings,
        *,
        backlog: int,
        row: Row,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._loop: Final = loop
        self._clock: Final = clock
        self._lanes: Final = lanes
        self._limit: Final = settings.limit_connections or spare_descriptors()
        self._room: Final = room()
        self._cells: Final = row.cells
        self._cells[CONNECTIONS_LIMIT] = self._limit
        self._gate: Final = Gate(loop, listeners, _never, backlog=backlog, tell=self._say_accepting, hand_on=self.usher)
        self._turn = 0  # the lane that is asked first
        self._called: set[Lane] = set()  # lanes that have got something in this turn of the loop
        self._accepted = 0
        self._left = self._limit  # connections that may be accepted before they are counted again
        self._beats = 0
        self._has_room = True
        self._full = False
        self._timer: asyncio.TimerHandle | None = None
        self._alarm: Final = Alarm()
        self._closed = False

    async def open(self) -> None:
        await self._gate.open()

    async def close(self, *, take_queue: bool) -> None:
        """Accept no more, for good; what was accepted has been handed over, and stays where it is."""
        await self._gate.close(take_queue=take_queue)
        self._hand_over()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def beat(self) -> None:
        """Look whether there are descriptors, and count; to be called several times a second."""
        self._beats += 1
        if self._beats % ROOM_BEATS == 0:
            had_room, self._has_room = self._has_room, self._gate.has_room(self._room)
            if had_room and not self._has_room:
                log.warning("fewer than %d descriptors are free: accepting pauses until there are more", self._room)
        self._settle(self._now())
        self._cells[QUEUE] = self._gate.waiting()
        self.publish()

    def publish(self) -> None:
        """Write how many connections there are into the worker's row."""
        count = self._open_connections()
        self._left = self._limit - count
        self._cells[CONNECTIONS] = count
        self._cells[CONNECTIONS_TOTAL] = self._accepted

    def usher(self, listener: Listener, sock: socket.socket) -> None:
        """Choose who serves it, and let the loops know at the end of this turn."""
        self._accepted += 1
        if not self._called:
            self._loop.call_soon(self._hand_over)
        now = self._now()
        self._give(self._choose(now), listener, sock)
        self._left -= 1
        if self._left <= 0:
            self._settle(now)

    def _choose(self, now: float) -> Lane:
        """The lane with the lowest load of those that are on time, or of all if none is."""
        lanes, turn = self._lanes, self._turn
        places = (*range(turn, len(lanes)), *range(turn))
        place: int = min(places, key=lambda place: lanes[place].rank(now))
        self._turn = (place + 1) % len(lanes)
        return lanes[place]

    def _give(self, lane: Lane, listener: Listener, sock: socket.socket) -> None:
        lane.inbox.append((listener, sock))
        lane.handed += 1
        self._called.add(lane)

    def _hand_over(self) -> None:
        now = self._clock()
        for lane in self._called:
            if not lane.closed:
                lane.ask(now)
        self._called.clear()
        self.publish()
        if self._timer is None and not self._closed:
            self._look_in(LATE, now)

    def _look(self) -> None:
        """Take back what a late loop has not come to, as long as another can serve it."""
        self._timer = None
        now = self._now()
        late = [lane for lane in self._lanes if lane.is_late(now)]
        behind = [lane for lane in self._lanes if lane.closed or lane in late]
        if len(behind) < len(self._lanes):
            for lane in behind:
                if lane.inbox:
                    self._cells[LATE_TOTAL] += 1
                    self._take_back(lane, now)
            if self._called:
                self._hand_over()
        self._settle(now)
        if self._timer is None:
            if late or any(lane.inbox for lane in self._lanes):
                self._look_in(LATE, now)
            elif self._full:
                self._look_in(FULL_SECONDS, now)
            else:
                self._alarm.set(math.inf)

    def _look_in(self, seconds: float, now: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)
        self._alarm.set(now + seconds)

    def _now(self) -> float:
        """The time, once the loops have been excused if it is later than it should be."""
        now = self._clock()
        if self._alarm.overslept(now):
            for lane in self._lanes:
                lane.excused_at = now
        return now

    def _take_back(self, lane: Lane, now: float) -> None:
        while lane.inbox:
            try:
                listener, sock = lane.inbox.pop()
            except IndexError:  # its loop has just taken the last one
                return
            self._cells[RETAKEN_TOTAL] += 1
            lane.handed -= 1
            self._give(self._choose(now), listener, sock)

    def _settle(self, now: float) -> None:
        """Accept or pause, as things are."""
        if self._closed:
            return
        count = self._open_connections()
        self._left = self._limit - count
        was_full, self._full = self._full, count >= self._limit
        if self._full and not was_full:
            log.warning("%d connections are open, the limit: accepting pauses until one of them closes", count)
        if self._has_room and not self._full and not all(lane.closed or lane.is_late(now) for lane in self._lanes):
            self._gate.resume()
        elif self._gate.accepting:
            self._gate.pause()

    def _say_accepting(self, accepting: bool) -> None:
        self._cells[ACCEPTING] = accepting

    def _open_connections(self) -> int:
        return sum(lane.load for lane in self._lanes if not lane.closed)


def _never(listener: Listener) -> asyncio.BaseProtocol:
    raise AssertionError(f"the usher serves no connection of {listener.address} itself")
