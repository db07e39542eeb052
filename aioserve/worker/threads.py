"""``--accept threads``: a worker whose main thread accepts, and whose loops serve, each in a thread of its own.

    all lifespans start -> the usher opens -> on_ready() -> until stop -> no more -> all loops drain -> all have ended

The main thread runs no application: it has the signals, the master's channel, the usher, and the beat that sums up what
the loops count into the worker's one row of the scoreboard. Its heartbeat is that of the loop which is the most behind,
so that the master sees one loop that stands still. A loop that dies takes its connections with it; a successor is asked
for at once, and the others serve until it is there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import signal
import time
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.importer import trim
from aioserve.observe.faults import watch_for_faults
from aioserve.observe.log import reopen
from aioserve.observe.scoreboard import (
    EVER,
    HEARTBEAT_NS,
    LAG_NS,
    LAG_WORST_NS,
    NOW,
    PHASE,
    REQUESTS_TOTAL,
    Phase,
    Scoreboard,
)
from aioserve.offloading.api import pooled
from aioserve.offloading.settings import Settings as PoolSettings
from aioserve.worker.drain import announce
from aioserve.worker.loop_thread import LoopThread
from aioserve.worker.recycling import Recycling
from aioserve.worker.serving import Stop
from aioserve.worker.settings import Settings
from aioserve.worker.stacks import Stacks
from aioserve.worker.usher import Lane, Usher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioserve.offloading.pool import Pool
    from aioserve.worker.main import Work

log = logging.getLogger("aioserve")

#: Seconds between two beats of the main thread. Loops beat twice a second, and the two are not in step: what the master
#: sees is older by one of these at most.
BEAT: Final = 0.1

#: Exit statuses.
CLEAN, FAILED = 0, 1


async def many_loops(work: Work) -> int:
    """Serve with one loop in a thread for each of the applications. Returns the exit status.

    Raises ``BootError`` if a lifespan cannot start, and then all have been shut down.
    """
    stop = Stop()
    work.prepare(asyncio.get_running_loop(), stop)
    assert work.row is not None, "this pattern has a master"
    # One pool for all loops: it is the main thread's, which is never busy for long, and ends after they have.
    async with pooled(PoolSettings.of(work.config), work.row.cells) as pool:
        return await _Threads(work, stop, pool).run()


@final
class _Threads:
    """All loops of this worker, as one."""

    def __init__(self, work: Work, stop: Stop, pool: Pool) -> None:
        assert work.row is not None and work.recycle is not None, "this pattern has a master"
        self._work: Final = work
        self._stop: Final = stop
        self._row: Final = work.row
        self._recycle: Final = work.recycle
        self._loop: Final = asyncio.get_running_loop()
        self._settings: Final = Settings.of(work.config, work.listeners)
        # A stop is announced once for all, by the main thread.
        settings = dataclasses.replace(self._settings, drain_delay=0.0)
        count = len(work.applications)
        rows = Scoreboard(count)  # private: nobody forks from here
        self._threads: Final = [
            LoopThread(
                f"loop {number + 1} of {count}",
                work.config,
                settings,
                applications,
                rows.row(number, 0),
                pool,
                work.credentials,
                work.terminators,
            )
            for number, applications in enumerate(work.applications)
        ]
        self._started: Final[list[LoopThread]] = []
        self._died = False
        self._stuck = False
        self._quickly: Final = self._loop.create_task(self._hurry())
        self._timer: asyncio.TimerHandle | None = None

    # What Recycling and announce() take for a server.

    @property
    def requests_total(self) -> int:
        return sum(thread.row.cells[REQUESTS_TOTAL] for thread in self._threads)

    @property
    def draining(self) -> bool:
        return self._stop.requested.is_set()

    def enter_phase(self, phase: Phase) -> None:
        self._row.cells[PHASE] = phase

    # The order of things.

    async def run(self) -> int:
        stacks = Stacks(self._loop)
        stacks.install(self._stop.quickly)
        self._loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        try:
            for thread in self._threads:
                thread.start()
                self._started.append(thread)
                stacks.others.append(thread.station.stacks)
            if await self._boot():
                await self._serve()
        finally:
            for thread in self._started:
                thread.stop(quick=self._stop.quick.is_set())
            await _all_done(thread.ended for thread in self._started)
            self._quickly.cancel()
            if self._timer is not None:
                self._timer.cancel()
        return FAILED if self._died else CLEAN

    async def _boot(self) -> bool:
        """Wait until all serve; False if a stop was requested before. Raises what has ended one of them."""
        stopping = self._loop.create_task(self._stop.requested.wait())
        served = self._loop.create_task(_all_done(thread.ready for thread in self._threads))
        ended = [thread.ended for thread in self._threads]
        news: set[asyncio.Future[Any]] = {stopping, served, *ended}
        try:
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            served.cancel()
        for one in ended:
            if one.done() and (error := one.result()) is not None:
                raise error
        return served.done() and not served.cancelled()

    async def _serve(self) -> None:
        work, stop = self._work, self._stop
        servers = [thread.ready.result() for thread in self._threads]
        for server in servers:
            server.take_part(servers)
        lanes = [Lane(server, thread.loop) for server, thread in zip(servers, self._threads, strict=True)]
        usher = Usher(
            self._loop, lanes, work.listeners, self._settings, backlog=work.config.listen.backlog, row=self._row
        )
        recycling = Recycling(self._settings, self, self._recycle, now=self._loop.time())
        for thread, lane in zip(self._threads, lanes, strict=True):
            thread.ended.add_done_callback(functools.partial(self._left, thread.name, lane))
        await usher.open()
        self._beat(usher, recycling)
        self.enter_phase(Phase.READY)
        work.on_ready()
        await stop.requested.wait()
        # As ``serve_until_stopped`` has it.
        relieved = self._row.is_relieved()
        await announce(self, 0.0 if relieved else self._settings.drain_delay, stop.quick)
        await usher.close(take_queue=not relieved)

    def _left(self, name: str, lane: Lane, ended: asyncio.Future[BaseException | None]) -> None:
        """A loop is over; it has died, unless it was told to stop."""
        lane.closed = True
        error = ended.result()
        if error is None and self.draining:
            return
        self._died = True
        why = trim(error) if error is not None else "it has ended by itself"
        log.critical("%s has died, and its connections with it\n%s", name, why)
        if all(thread.ended.done() for thread in self._threads):
            self._stop.quickly()
        else:
            self._recycle(f"{name} has died")

    async def _hurry(self) -> None:
        await self._stop.quick.wait()
        for thread in self._started:
            thread.stop(quick=True)

    def _look_for_stuck(self, now: int) -> None:
        """Ask for a successor when one loop has stood still for half of what the master allows.

        At the limit the worker is killed, and with it the requests of its other loops that have not drained by then.
        """
        limit = self._work.config.timeout.worker
        if not limit or self._stuck or self.draining:
            return
        for thread in self._threads:
            still = (now - thread.row.cells[HEARTBEAT_NS]) / 1e9
            if still >= limit / 2 and not thread.ended.done():
                self._stuck = True
                reason = f"{thread.name} has stood still for {still:.1f} s"
                log.warning("asking for a successor: %s", reason)
                self._recycle(reason)
                return

    def _reopen_logs(self) -> None:
        reopen()
        watch_for_faults(usr2=True)
        for thread in self._threads:
            thread.reopen()

    # The beat.

    def _beat(self, usher: Usher, recycling: Recycling) -> None:
        cells = self._row.cells
        turning = [thread.row.cells for thread in self._threads if not thread.ended.done()]
        now = time.monotonic_ns()
        cells[HEARTBEAT_NS] = min((loop[HEARTBEAT_NS] for loop in turning), default=now)
        self._look_for_stuck(now)
        cells[LAG_NS] = max((loop[LAG_NS] for loop in turning), default=0)
        cells[LAG_WORST_NS] = max((loop[LAG_WORST_NS] for loop in turning), default=0)
        for cell in NOW:
            cells[cell] = sum(loop[cell] for loop in turning)
        for cell in EVER:
            cells[cell] = sum(thread.row.cells[cell] for thread in self._threads)
        usher.beat()
        recycling.beat(self._loop.time(), 0.0)
        self._timer = self._loop.call_later(BEAT, self._beat, usher, recycling)


async def _all_done(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Wait for all, and cancel none if that is not to go on."""
    waited: list[asyncio.Future[Any]] = list(futures)
    if waited:
        await asyncio.wait(waited)
