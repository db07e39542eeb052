"""The dispatcher's process: a loop that accepts, chooses and passes on. It serves nobody and imports no application.

A turn: look at every slot, take back what waits for a worker that is late or gone, accept as many as there is room for,
and send each slot its share in one message. It never waits for a worker: what does not find room stays in the kernel's
queue, where it belongs to nobody yet. While nobody has room it does not listen, and looks again after ``TICK``; workers
that have taken no connections say when they do.

It leaves on TERM, or when the master has gone: relieved by a successor it only passes on what it holds, otherwise it
accepts what waits, closes the listening sockets, and passes all of it on, to busy workers too, which take it before
they leave. On QUIT it leaves at once.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final, final

from aioserve.accept import passing
from aioserve.accept.balance import Alarm, Choice, Lane
from aioserve.accept.sockets import BROKEN, NO_ROOM_SECONDS
from aioserve.observe.faults import watch_for_faults
from aioserve.observe.log import reopen
from aioserve.observe.scoreboard import (
    CONNECTIONS,
    HEARTBEAT_NS,
    LATE_TOTAL,
    PASSED_TOTAL,
    PHASE,
    RETAKEN_TOTAL,
    Phase,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Listener, Reporter
    from aioserve.observe.scoreboard import Row

log = logging.getLogger("aioserve")

#: Between two looks while somebody waits for a worker that has no room. Seconds.
TICK: Final = 0.001

#: Between two beats: the master counts on two a second. Seconds.
BEAT: Final = 0.4

#: How long it tries to pass on what it holds before it leaves; the master has more patience (Policy.quick_limit).
LEAVE_SECONDS: Final = 3.0

#: Room for everything.
_ENDLESS: Final = 1 << 30


@final
class Dispatching:
    """``add`` every slot, then ``run``. ``avoided`` has a byte for each slot, which the master writes."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        row: Row,
        avoided: Sequence[int],
        backlog: int,
        clock: Callable[[], float] = time.monotonic,
        beat: float = BEAT,
    ) -> None:
        self._listeners: Final = [listener.sock for listener in listeners]
        self._row: Final = row
        self._avoided: Final = avoided
        self._backlog: Final = backlog
        self._clock: Final = clock
        self._beat_every: Final = beat
        self._lanes: Final[dict[int, Lane]] = {}
        self._ends: Final[dict[int, tuple[socket.socket, socket.socket]]] = {}
        self._choice: Final = Choice()
        self._held: list[tuple[int, int]] = []  # listener and descriptor: accepted, or taken back, and nobody's yet
        self._poll: Final = select.epoll()
        self._calls: Final[dict[int, Callable[[], None]]] = {}
        self._ready: Final[set[int]] = set()  # listeners that have somebody waiting
        self._listening = False
        self._shut_until = 0.0
        self._look_at_all = 0.0
        self._alarm: Final = Alarm()
        self._leaving = self._quick = False

    def add(self, slot: int, seats: Sequence[memoryview], out: socket.socket, back: socket.socket) -> None:
        """A slot: the cells of its two rows, the end to send to, and the worker's, to take back from."""
        self._lanes[slot] = Lane(slot, seats)
        self._ends[slot] = out, back
        self.listen_to(out.fileno(), lambda: _hear(out))

    def remove(self, slot: int) -> None:
        if slot in self._lanes:
            self._retake(self._lanes.pop(slot))
            out, back = self._ends.pop(slot)
            self._poll.unregister(out)
            del self._calls[out.fileno()]
            out.close()
            back.close()

    def listen_to(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call when there is something to read."""
        self._calls[descriptor] = call
        self._poll.register(descriptor, select.EPOLLIN)

    def watch(self) -> None:
        """Look at the listeners from now on; ``run`` does it."""
        for index, listener in enumerate(self._listeners):
            self._calls[listener.fileno()] = partial(self._ready.add, index)
            self._poll.register(listener, 0)

    def run(self, reporter: Reporter) -> int:
        """Accept until told to leave; the exit status."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.listen_to(wake_read, lambda: self._read_signals(wake_read))
        self.listen_to(reporter.fileno(), self._master_gone)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
            signal.signal(number, _nothing)
        watch_for_faults(usr2=True)
        self.watch()
        self._beat()
        self._row.cells[PHASE] = Phase.READY
        reporter.ready()
        while not self._leaving:
            self._turn()
        self._row.cells[PHASE] = Phase.DRAINING
        if not self._quick:
            self._leave()
        return 0

    def _turn(self) -> None:
        now = self._clock()
        patience = self._patience(now)
        self._alarm.set(now + patience)
        for descriptor, _ in self._poll.poll(patience):
            if descriptor in self._calls:  # its slot may have gone with what came before in this turn
                self._calls[descriptor]()
        if self._leaving:
            return
        now = self._clock()
        if self._alarm.overslept(now):
            for lane in self._lanes.values():
                lane.excuse(now)
        self._look(now)
        self._take_back(now)
        self._give(now)
        self._accept(now)
        self._give(now)
        self._beat()

    # What there is

    def _look(self, now: float) -> None:
        # What another dispatcher has sent is seen once in a while: asking the kernel takes 2 us for each slot.
        look_at_all = now >= self._look_at_all
        if look_at_all:
            self._look_at_all = now + BEAT
        for slot, lane in self._lanes.items():
            ask = partial(passing.waiting, self._ends[slot][1]) if look_at_all or lane.waiting else _none
            lane.look(ask, now, avoided=bool(self._avoided[slot]))

    def _patience(self, now: float) -> float:
        """How long nothing has to be done if nothing comes; and listen only while somebody has room."""
        lanes = self._lanes.values()
        has_room = not self._held and now >= self._shut_until and any(lane.room > 0 for lane in lanes)
        if has_room is not self._listening:
            self._listening = has_room
            for listener in self._listeners:
                self._poll.modify(listener, select.EPOLLIN if has_room else 0)
        taking = sum(lane.takes for lane in lanes)
        if taking and not has_room:
            return TICK
        patience = self._beat_every
        for lane in lanes:
            if lane.waiting > lane.probed and taking > lane.takes:  # and somebody else might have it
                patience = min(patience, max(lane.due() - now, TICK))
        return patience

    # What is done about it

    def _take_back(self, now: float) -> None:
        """A connection does not wait for a busy worker while another one is idle."""
        cells = self._row.cells
        for slot, lane in self._lanes.items():
            if lane.lags(now):
                cells[LATE_TOTAL] += 1
            if lane.waiting <= lane.probed or (lane.takes and not lane.late):
                continue
            if any(other.idle if lane.takes else other.room > 0 for other in self._lanes.values() if other is not lane):
                cells[RETAKEN_TOTAL] += self._retake(lane)
                if lane.takes and passing.send(self._ends[slot][0], bytes([passing.PROBE]), ()):
                    lane.probe()

    def _retake(self, lane: Lane) -> int:
        """Take back all that waits for it; how many."""
        found = 0
        while (message := passing.receive(self._ends[lane.number][1])) is not None and message[0]:
            origins, descriptors = message
            if len(descriptors) < len(origins) and origins[0] != passing.PROBE:
                missing = len(origins) - len(descriptors)
                log.error("%d connections are lost: the dispatcher has too few descriptors", missing)
            self._held += zip(origins, descriptors, strict=False)
            found += len(descriptors)
        lane.retaken(found)
        return found

    def _accept(self, now: float) -> None:
        """As many as there is room for, and one message takes; from each listener in turn."""
        room = 0 if self._held else min(sum(lane.room for lane in self._lanes.values()), passing.MOST)
        while self._ready and room > 0:
            share = max(room // len(self._ready), 1)
            for index in list(self._ready):
                try:
                    taken = self._accept_from(index, share)
                except OSError as error:
                    log.error("no connection can be accepted for %g s: %s", NO_ROOM_SECONDS, error.strerror)  # noqa: TRY400
                    self._shut_until = now + NO_ROOM_SECONDS
                    self._ready.clear()
                    return
                room -= taken
                if taken < share:
                    self._ready.discard(index)
        # It is level-triggered: whoever has still somebody waiting is back in the next turn.
        self._ready.clear()

    def _accept_from(self, index: int, most: int) -> int:
        """So many, if they are there; how many. Raises ``OSError`` if they cannot be had."""
        for taken in range(most):
            try:
                # perf: accept() makes a socket object first, with two enumerations: 3.8 us against 1.7.
                descriptor, _ = self._listeners[index]._accept()  # type: ignore[attr-defined]  # typeshed has it not
            except (BlockingIOError, InterruptedError):
                return taken
            except OSError as error:
                if error.errno in BROKEN:
                    continue
                raise
            self._held.append((index, descriptor))
        return most

    def _give(self, now: float) -> None:
        """Send what is held, as far as there is room."""
        if not self._held:
            return
        shares: dict[int, list[tuple[int, int]]] = {}
        left = []
        for number, connection in enumerate(self._held):
            lane = self._choice.among(self._lanes.values())
            if lane is None:
                left = self._held[number:]
                break
            shares.setdefault(lane.number, []).append(connection)
        self._held = left
        for slot, share in shares.items():
            for first in range(0, len(share), passing.MOST):
                self._send(slot, share[first : first + passing.MOST], now)

    def _send(self, slot: int, share: list[tuple[int, int]], now: float) -> None:
        lane = self._lanes[slot]
        descriptors = [descriptor for _, descriptor in share]
        if not passing.send(self._ends[slot][0], bytes(index for index, _ in share), descriptors):
            lane.room = 0
            self._held += share
            return
        for descriptor in descriptors:
            os.close(descriptor)
        lane.sent(len(share), now)
        self._row.cells[PASSED_TOTAL] += len(share)

    def _beat(self) -> None:
        cells = self._row.cells
        cells[HEARTBEAT_NS] = time.monotonic_ns()
        cells[CONNECTIONS] = len(self._held)

    # The end

    def _leave(self) -> None:
        """Pass everything on: what is held, and unless a successor accepts, what waits."""
        if not self._row.is_relieved():
            for index in range(len(self._listeners)):
                self._empty(index)
        self._give_at_last()

    def _empty(self, index: int) -> None:
        """Accept all that waits and close the door. Within bounds: under load more may come for ever."""
        for _ in range(2 * self._backlog // passing.MOST + 1):
            try:
                taken = self._accept_from(index, passing.MOST)
            except OSError as error:
                log.warning("connections that wait cannot be accepted before the end: %s", error.strerror)
                break
            if taken < passing.MOST:
                break
            self._give_at_last()
        # At once, before anything is passed on: whoever comes between the last look and this is reset.
        self._listeners[index].close()

    def _give_at_last(self) -> None:
        """To those that take, or else to those that are there, or else to their successors, however busy they are."""
        deadline = self._clock() + LEAVE_SECONDS
        while True:
            now = self._clock()
            self._look(now)
            lanes = self._lanes.values()
            for lane in lanes:
                if not lane.serves and any(other.serves for other in lanes):
                    self._retake(lane)
            found = [lane for lane in lanes if lane.takes] or [lane for lane in lanes if lane.serves] or lanes
            for lane in lanes:
                lane.room = _ENDLESS if lane in found else 0
            self._give(now)
            self._beat()
            if not self._held or now > deadline:
                break
            time.sleep(TICK)
        if self._held:
            log.warning("%d connections could not be passed on before the end", len(self._held))

    def _read_signals(self, descriptor: int) -> None:
        for number in os.read(descriptor, 4096):
            if number == signal.SIGUSR1:
                reopen()
                watch_for_faults(usr2=True)
            else:
                self._leaving = True
                self._quick = self._quick or number == signal.SIGQUIT

    def _master_gone(self) -> None:
        self._leaving = True


def _none() -> int:
    """Nothing was sent that could wait."""
    return 0


def _hear(end: socket.socket) -> None:
    """A worker takes connections: the turn that follows looks at it. All others that say so are read at once."""
    while message := passing.receive(end):
        if not message[0]:
            return


def _nothing(_number: int, _frame: object) -> None:
    pass
