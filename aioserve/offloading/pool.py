"""The pool: a queue of calls in front of lanes that run them, with deadlines, counters and an orderly end.

It belongs to one loop, the *home* loop, and is touched there only. Loops of other threads of the same worker
(--accept threads) hand their calls over and have their results handed back; thus one process has one queue and one set
of children, whatever number of loops it has.

What runs a call is the engine's business; the pool speaks to it through ``Lane`` and is spoken to through ``opened``,
``lost``, ``answered``, ``failed`` and ``freed``. Whoever waits is answered first and the lane looked after then, so a
call that has timed out fails at once, whether or not what it is stuck in can be stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.errors import OffloadClosed, OffloadError, OffloadFull, OffloadTimeout
from aioserve.observe import scoreboard as cells
from aioserve.offloading.call import OVER, Call, State
from aioserve.offloading.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.offloading.settings import Settings

log = logging.getLogger("aioserve")

#: A generator that is told to end has this long to come to its next ``yield``, in seconds; then its child is killed.
CLOSE_SECONDS: Final = 1.0


class Lane(Protocol):
    """A place in which one call runs at a time."""

    #: How many calls it has run.
    calls: int

    def run(self, call: Call, /) -> None:
        """Begin. Ends with ``freed`` or ``lost``."""

    def more(self, call: Call, /) -> None:
        """The next piece of a stream is wanted."""

    def close(self, call: Call, /) -> None:
        """No more pieces of a stream are wanted."""

    def kill(self, why: str, /) -> bool:
        """Stop what runs, with the lane; False if that cannot be done, and then it is ``freed`` when it has ended."""

    def retire(self) -> None:
        """It is idle, and not wanted any more."""


class Engine(Protocol):
    """Opens lanes for one pool."""

    @property
    def pickles(self) -> bool:
        """Whether calls leave this process, so that they have to be pickled."""

    @property
    def stops(self) -> bool:
        """Whether what runs can be stopped."""

    def open(self) -> Lane:
        """Begin to open a lane. Ends with ``opened`` or ``cannot_open``. Raises ``OffloadError`` if it cannot begin."""

    def rest(self) -> None:
        """There are no lanes, and none will be wanted soon."""

    async def shut(self) -> None:
        """End whatever is left."""

    def abandon(self) -> None:
        """The loop is closed: end whatever is left without it, and without waiting."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How a pool is. Times are seconds, and sums over all calls."""

    engine: str
    children: int
    waiting: int
    running: int
    calls: int
    full: int
    timeouts: int
    cancelled: int
    crashes: int
    kills: int
    wait_seconds: float
    run_seconds: float


@final
class Pool:
    """``make`` makes the engine. ``row`` are the cells of the worker on the scoreboard, where it has one."""

    def __init__(self, settings: Settings, make: Callable[[Pool], Engine], *, row: memoryview | None = None) -> None:
        self.settings: Final = settings
        self.loop: Final = asyncio.get_running_loop()
        self._engine: Final = make(self)
        self._schedule: Final[Schedule[Call, Lane]] = Schedule(settings.workers, settings.queue)
        self._row: Final = row if row is not None else memoryview(bytearray(cells.ROW_CELLS * 8)).cast("Q")
        self._idling: asyncio.TimerHandle | None = None
        self._running: set[Call] = set()
        self.closed = False

    @property
    def pickles(self) -> bool:
        return self._engine.pickles

    # What callers call, in the home loop.

    def submit(self, call: Call) -> None:
        """Queue ``call``. Raises ``OffloadFull`` or ``OffloadClosed``."""
        if self.closed:
            raise OffloadClosed(f"{call.name} was not begun: the offload pool is closed, the server is shutting down")
        if not self._schedule.add(call):
            self._count(cells.OFFLOAD_FULL)
            raise OffloadFull(
                f"{call.name} was not begun: {self._schedule.waiting} calls wait already (--offload-queue "
                f"{self.settings.queue}) for {self.settings.workers} at a time (--offload-workers)"
            )
        call.queued = time.monotonic()
        self._arm(call)
        self._advance()

    def submit_from_afar(self, call: Call) -> None:
        """``submit`` for a caller in another thread, whom an error has to be sent to."""
        try:
            self.submit(call)
        except OffloadError as error:
            call.state = State.ENDED
            call.refuse(error)

    def more(self, call: Call) -> None:
        """Whoever reads the stream ``call`` waits for its next piece."""
        if call.state is State.RUNNING:
            self._arm(call)
            call.lane.more(call)

    def leave(self, call: Call, why: str) -> None:
        """Nobody waits for ``call`` any more."""
        if call.state is State.ENDED:
            return
        self._count(cells.OFFLOAD_CANCELLED)
        if self._schedule.remove(call):
            self._end(call)
        elif call.streams:
            # It stands at a yield, or is on the way to one.
            self._end(call)
            self.close_stream(call, why)
        else:
            self._end(call)
            self._stop(call, why)
        self._publish()

    def close_stream(self, call: Call, why: str) -> None:
        """Have the generator of ``call``, which has ended for whoever read it, end as well."""
        call.lane.close(call)
        if call.timer is not None:
            call.timer.cancel()
        call.timer = self.loop.call_later(CLOSE_SECONDS, self._stop, call, why)

    # What lanes call.

    def opened(self, lane: Lane) -> None:
        """``lane`` takes calls from now on."""
        if self.closed:
            self._schedule.gone(lane)
            lane.retire()
            return
        self._schedule.opened(lane, time.monotonic())
        self._advance()

    def answered(self, call: Call, value: object) -> None:
        """A result, or a piece of a stream, or ``OVER``. The lane is ``freed`` apart from that, when it is."""
        if call.state is State.ENDED:
            return
        if not call.streams or value is OVER:
            self._end(call)
        elif call.timer is not None:
            call.timer.cancel()
        call.answer(value)

    def failed(self, call: Call, error: BaseException) -> None:
        """The function has raised, or the call could not be carried out."""
        if call.state is not State.ENDED:
            self._end(call)
            call.refuse(error)

    def freed(self, lane: Lane, call: Call, *, tired: bool = False) -> None:
        """The call of ``lane`` is over. ``tired``: it should not have another one."""
        self._account(call)
        most = self.settings.max_tasks
        if tired or (most and lane.calls >= most) or self.closed:
            self._schedule.gone(lane)
            lane.retire()
        else:
            self._schedule.freed(lane, time.monotonic())
        self._advance()

    def put_back(self, call: Call) -> None:
        """The lane of ``call`` was lost before it could begin."""
        if call.state is not State.ENDED:
            call.state = State.WAITING
            self._running.discard(call)
            self._schedule.put_back(call)
            self._advance()

    def lost(self, lane: Lane, error: OffloadError, call: Call | None = None) -> None:
        """``lane`` has ended by itself, in the middle of ``call``."""
        if not self._schedule.gone(lane):
            return
        if call is not None:
            self._account(call)
            if call.state is not State.ENDED:
                self._count(cells.OFFLOAD_CRASHES)
                log.error("%s", error)
            self.failed(call, error)
        self._advance()

    def cannot_open(self, lane: Lane, error: OffloadError) -> None:
        """``lane`` cannot be opened. If there is no other, nobody's call can be run."""
        if self._schedule.gone(lane):
            self._cannot(error)

    def _cannot(self, error: OffloadError) -> None:
        log.error("%s", error)
        if not self._schedule.lanes:
            for call in self._schedule.take_all():
                self.failed(call, error)
        self._publish()

    def waits_for(self, call: Call) -> bool:
        """Whether anybody still wants what comes of ``call``."""
        return call.state is not State.ENDED

    # The end.

    async def close(self) -> None:
        """Fail what waits, kill what runs, end every child. Returns when nothing is left."""
        if self.closed:
            return
        self.closed = True
        error = OffloadClosed("the offload pool was closed: the server is shutting down")
        for call in self._schedule.take_all():
            self.failed(call, error)
        if self._running:
            log.warning("offload: %d calls that nobody waits for are stopped", len(self._running))
        for call in list(self._running):
            self.failed(call, error)
            if not self._stop(call, "the server is shutting down") and call.streams:
                call.lane.close(call)  # a thread waits to be asked for more
        self._retire(time.monotonic())
        if self._idling is not None:
            self._idling.cancel()
        await self._engine.shut()
        self._publish()

    def abandon(self) -> None:
        """``close`` for a pool whose loop was closed before it, and with it everybody who waits."""
        if not self.closed:
            self.closed = True
            self._engine.abandon()

    def snapshot(self) -> Snapshot:
        row = self._row
        return Snapshot(
            engine=self.settings.engine,
            children=self._schedule.lanes,
            waiting=self._schedule.waiting,
            running=self._schedule.running,
            calls=row[cells.OFFLOAD_CALLS],
            full=row[cells.OFFLOAD_FULL],
            timeouts=row[cells.OFFLOAD_TIMEOUTS],
            cancelled=row[cells.OFFLOAD_CANCELLED],
            crashes=row[cells.OFFLOAD_CRASHES],
            kills=row[cells.OFFLOAD_KILLS],
            wait_seconds=row[cells.OFFLOAD_WAIT_NS] / 1e9,
            run_seconds=row[cells.OFFLOAD_RUN_NS] / 1e9,
        )

    # Inside.

    def _advance(self) -> None:
        """Give lanes their calls and open those that are missing."""
        schedule = self._schedule
        while pair := schedule.match():
            lane, call = pair
            call.lane = lane
            call.state = State.RUNNING
            call.started = time.monotonic()
            self._running.add(call)
            self._row[cells.OFFLOAD_WAIT_NS] += int((call.started - call.queued) * 1e9)
            lane.run(call)
        for _ in range(0 if self.closed else schedule.lacking()):
            try:
                lane = self._engine.open()
            except OffloadError as error:
                # Later: whoever has queued a call a moment ago is not yet waiting for it.
                self.loop.call_soon(self._cannot, error)
                break
            schedule.opening(lane)
        if self._idling is None and self.settings.idle and not self.closed:
            self._idling = self.loop.call_later(self.settings.idle, self._look_for_idle)
        self._publish()

    def _arm(self, call: Call) -> None:
        """Begin to count ``call``'s timeout: of a stream, for each piece."""
        if call.timer is not None:
            call.timer.cancel()
        seconds = self.settings.timeout if call.timeout is None else call.timeout
        if seconds:
            call.timer = self.loop.call_later(seconds, self._expire, call, seconds)

    def _expire(self, call: Call, seconds: float) -> None:
        if call.state is State.ENDED:
            return
        self._count(cells.OFFLOAD_TIMEOUTS)
        if self._schedule.remove(call):
            what = f"it was never begun, because {self._schedule.running} others are running"
        elif self._stop(call, f"its timeout of {seconds:g} s was over"):
            what = f"it was killed after running for {time.monotonic() - call.started:.1f} s"
        else:
            what = "its data was still being copied" if self._engine.stops else "it goes on, and cannot be stopped"
            if call.streams:
                call.lane.close(call)  # it ends at its next yield, where it would wait for ever to be asked for more
        self.failed(call, OffloadTimeout(f"{call.name} was not done after {seconds:g} s: {what}"))
        self._publish()

    def _stop(self, call: Call, why: str) -> bool:
        """Stop what runs, if that can be done; nobody waits for it any more, or will not in a moment."""
        lane: Lane = call.lane
        if call not in self._running or not lane.kill(f"{call.name}: {why}"):
            return False
        self._count(cells.OFFLOAD_KILLS)
        self._account(call)
        self._schedule.gone(lane)
        self.loop.call_soon(self._advance)
        return True

    def _end(self, call: Call) -> None:
        call.state = State.ENDED
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _account(self, call: Call) -> None:
        """The call does not run any more: add up its time, once."""
        if call in self._running:
            self._running.remove(call)
            self._count(cells.OFFLOAD_CALLS)
            self._row[cells.OFFLOAD_RUN_NS] += int((time.monotonic() - call.started) * 1e9)
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _look_for_idle(self) -> None:
        """Close what has been idle for too long, and look again when the next one will have been."""
        self._idling = None
        now = time.monotonic()
        self._retire(now - self.settings.idle)
        if self._schedule.lanes:
            since = self._schedule.idle_since()
            rest = self.settings.idle if since is None else since + self.settings.idle - now
            self._idling = self.loop.call_later(max(rest, 0.01), self._look_for_idle)
        else:
            self._engine.rest()
        self._publish()

    def _retire(self, since: float) -> None:
        for lane in self._schedule.tired(since):
            self._schedule.gone(lane)
            lane.retire()

    def _count(self, cell: int) -> None:
        self._row[cell] += 1

    def _publish(self) -> None:
        row, schedule = self._row, self._schedule
        row[cells.OFFLOAD_WAITING] = schedule.waiting
        row[cells.OFFLOAD_RUNNING] = schedule.running
        row[cells.OFFLOAD_CHILDREN] = schedule.lanes
