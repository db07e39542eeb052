"""A server's life inside a running loop, the same for a worker process, a single process and an embedder.

    applications start -> listeners open -> on_ready() -> until Stop.requested -> drain -> applications shut down

Nothing here knows of signals, processes or the master: whoever runs it says when to stop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, final

from aioserve.worker.drain import announce, drain
from aioserve.worker.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Source
    from aioserve.observe.scoreboard import Row
    from aioserve.types import Scope
    from aioserve.worker.applications import Applications
    from aioserve.worker.mount import Mount
    from aioserve.worker.server import AccessRecorder
    from aioserve.worker.settings import Settings

log = logging.getLogger("aioserve")

#: A wish that is repeated within so many seconds is the same one: timeout(1) and shells signal a process and its group.
SAME_WISH: Final = 0.25


@final
class Stop:
    """The wish to stop: ``requested``, and ``quick`` for those who do not want to wait for requests in flight."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.quick = asyncio.Event()
        #: What is done when it is said for the first time.
        self.then: Callable[[], None] | None = None
        self._since = 0.0

    def gracefully(self) -> None:
        """Drain, then stop. Saying it again changes nothing."""
        if not self.requested.is_set():
            self.requested.set()
            if self.then is not None:
                self.then()

    def quickly(self) -> None:
        """Cut what is in flight, then stop."""
        self.quick.set()
        self.gracefully()

    def insist(self) -> None:
        """Gracefully the first time, quickly from then on: what a person at a terminal means."""
        now = asyncio.get_running_loop().time()
        if not self.requested.is_set():
            self._since = now
            log.info("stopping; a second signal stops at once")
            self.gracefully()
        elif now >= self._since + SAME_WISH and not self.quick.is_set():
            log.info("stopping at once")
            self.quickly()


async def serve_until_stopped(
    settings: Settings,
    applications: Applications,
    listeners: Sequence[Source],
    *,
    backlog: int,
    access: AccessRecorder | None,
    row: Row | None,
    stop: Stop,
    on_ready: Callable[[], None],
    on_server: Callable[[Server], None] | None = None,
) -> None:
    """Serve. Raises ``BootError`` if a lifespan cannot start; returns once everything has been shut down.

    ``on_server`` is called with the server before it accepts.
    """
    if not await _start_unless_stopped(applications, stop):
        return
    server = Server(settings, enter=_enter(applications), access=access, row=row)
    if on_server is not None:
        on_server(server)
    try:
        await server.start(listeners, backlog=backlog)
        on_ready()
        await stop.requested.wait()
        # Whoever is relieved by a successor leaves the queue to it, and load balancers need not know.
        relieved = row is not None and row.is_relieved()
        await announce(server, 0.0 if relieved else settings.drain_delay, stop.quick)
        await drain(server, settings.graceful_shutdown, stop.quick, take_queue=not relieved)
    finally:
        if not server.draining:  # cancelled, or a listener could not be registered
            await drain(server, 0.0, stop.quick, take_queue=False)
        await applications.shutdown()
        server.stop()


async def _start_unless_stopped(applications: Applications, stop: Stop) -> bool:
    """Start the applications; False if a stop was requested before they had started."""
    startup = asyncio.ensure_future(applications.startup())
    stopping = asyncio.ensure_future(stop.requested.wait())
    try:
        await asyncio.wait({startup, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if startup.done():
            await startup
            return True
        log.info("stopped before the application had started")
        return False
    finally:
        for task in (startup, stopping):
            task.cancel()
        await asyncio.gather(startup, stopping, return_exceptions=True)


def _enter(applications: Applications) -> Callable[[Scope], Mount]:
    """The way from a scope to its mount: a short one when there is only one application."""
    mounts = applications.mounts
    lone = mounts.lone
    if lone is None:
        return mounts.enter
    state = lone.state

    def enter(scope: Scope) -> Mount:
        scope["state"] = state.copy()
        return lone

    return enter
