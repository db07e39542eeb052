"""How late the loop is, and what held it up.

The beat of the loop measures: what it was late by is the time for which something blocked the loop, or for which the
machine had no processor to spare. A thread wakes four times a second, looks whether the beat is overdue, and then
takes down where the loop's thread is. It costs nothing per request. A call into C that keeps the interpreter's lock
keeps the thread waiting, too; then nobody knows where it was, unless the master has asked faulthandler.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

from aioserve.worker.stacks import running, stack

if TYPE_CHECKING:
    from aioserve.worker.stacks import Stacks

log = logging.getLogger("aioserve")

#: A loop that stands still for this long is worth a line in the log, in seconds.
LIMIT: Final = 1.0

#: There is at most one such line in so many seconds.
QUIET_SECONDS: Final = 10.0

#: Between two looks of the thread, in seconds.
INTERVAL: Final = 0.25

#: The worst lag is that of one to two such periods, in seconds: a scrape every 15 s misses none.
PERIOD: Final = 15.0


@final
class LagMeter:
    """The worst lag of the last while."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._worst = 0.0
        self._before = 0.0

    def add(self, now: float, late: float) -> float:
        """Take in the lag of one beat; the worst of those of the last period or two."""
        if now - self._since >= PERIOD:
            self._before = self._worst
            self._since, self._worst = now, 0.0
        self._worst = max(self._worst, late)
        return max(self._worst, self._before)


@final
class LagWatch:
    """Says in the log how long the loop stood still and where. ``beat`` is called by the loop, ``close`` at its end."""

    def __init__(
        self,
        stacks: Stacks,
        *,
        name: str = "the event loop",
        limit: float = LIMIT,
        interval: float = INTERVAL,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        self._stacks: Final = stacks
        self._limit: Final = limit
        self._interval: Final = interval
        self._quiet: Final = quiet
        self._name: Final = name
        self._over: Final = threading.Event()
        # The time of the last beat is the loop's to change; what was seen after which beat, the thread's.
        self._beat_at = perf_counter()
        self._seen = (0.0, "")
        self._silent_until = 0.0
        self._unsaid = 0
        self._thread: Final = threading.Thread(target=self._watch, name="loop watch", daemon=True)
        self._thread.start()

    def beat(self, now: float, late: float) -> None:
        """The loop turns; ``late`` is by how much its beat was overdue, in seconds."""
        beat, where = self._seen
        if late > self._limit:
            if now < self._silent_until:
                self._unsaid += 1
            else:
                often = f" ({self._unsaid} times more since the last line)" if self._unsaid else ""
                found = where if beat == self._beat_at else ", it is not known where"
                log.warning("%s stood still for at least %.1f s%s%s", self._name, late, often, found)
                self._silent_until = now + self._quiet
                self._unsaid = 0
        self._beat_at = perf_counter()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(1.0)

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            beat = self._beat_at
            server = self._stacks.server
            if server is None or self._seen[0] == beat:
                continue
            # The next beat will be late, and this is why.
            if perf_counter() - beat >= server.deadlines.resolution + self._limit / 2:
                self._seen = (beat, self._where())

    def _where(self) -> str:
        frame = sys._current_frames().get(self._stacks.thread)
        task = self._stacks.current()
        whose = ""
        with suppress(RuntimeError):  # the loop's thread has changed what is being looked at
            whose = next((f" in {cycle}" for cycle, own in self._stacks.requests() if own and own is task), "")
        text = stack(frame)
        return f"{whose}, at {running(frame)}\n{text}" if text else whose
