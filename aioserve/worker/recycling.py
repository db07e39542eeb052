"""When a worker has lived long enough: after so many requests, at some age, or above so much resident memory.

It looks at the beat of the loop, at totals that are there anyway, so a request costs nothing. It asks once, and the
worker serves on: when and how a successor takes over is the master's decision.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.system.process import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.worker.settings import Settings

log = logging.getLogger("aioserve")

#: Resident memory is looked at this often, in seconds, and has to be too much so many times in a row: what one large
#: request takes for a moment is no leak.
MEMORY_INTERVAL: Final = 5.0
MEMORY_LOOKS: Final = 3

#: Workers that were started together must not all reach their age together.
AGE_JITTER: Final = 0.1


class Serving(Protocol):
    """A server, or several as one."""

    @property
    def requests_total(self) -> int: ...
    @property
    def draining(self) -> bool: ...


@final
class Recycling:
    """``ask`` is called with the reason, once. ``now`` is the loop's time at the beginning."""

    def __init__(
        self,
        settings: Settings,
        server: Serving,
        ask: Callable[[str], None],
        *,
        now: float,
        resident: Callable[[], int] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._server: Final = server
        self._ask: Final = ask
        self._resident: Final = resident or resident_bytes
        self._asked = False
        self._began: Final = now
        self._requests: Final = settings.limit_max_requests and (
            settings.limit_max_requests + round(settings.limit_max_requests_jitter * jitter())
        )
        self._age: Final = settings.limit_worker_age * (1 + AGE_JITTER * jitter())
        self._memory = settings.limit_worker_memory
        self._look_at = now
        self._over = 0

    def beat(self, now: float, _late: float) -> None:
        """Look at what has come together; to be called at every beat."""
        if self._asked or self._server.draining:
            return
        reason = self._reason(now)
        if reason:
            self._asked = True
            log.info("asking for a successor: %s", reason)
            self._ask(reason)

    def _reason(self, now: float) -> str:
        if self._requests and self._server.requests_total >= self._requests:
            return f"it has served {self._server.requests_total} requests (limit.max_requests)"
        if self._age and now - self._began >= self._age:
            return f"it has served for {now - self._began:.0f} s (limit.worker_age)"
        if self._memory and now >= self._look_at:
            self._look_at = now + MEMORY_INTERVAL
            return self._look_at_memory()
        return ""

    def _look_at_memory(self) -> str:
        try:
            resident = self._resident()
        except (OSError, ValueError) as error:
            log.warning("--limit-worker-memory has no effect: /proc/self/statm cannot be read (%s)", error)
            self._memory = 0
            return ""
        self._over = self._over + 1 if resident > self._memory else 0
        if self._over < MEMORY_LOOKS:
            return ""
        return f"it has {resident >> 20} MiB of resident memory (limit.worker_memory)"
