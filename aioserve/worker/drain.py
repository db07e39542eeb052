"""How a server ends: four phases, from the wish to stop to the last connection.

    announce   the scoreboard says DRAINING, so readiness fails; everything is served as before    --drain-delay
    no more    what waits in the kernel's queue is taken, then the listeners close; responses say
               Connection: close, idle connections close after drain_linger                        half of the grace
    told       whoever still runs gets http.disconnect from receive(), WebSockets are closed
               with 1012, one after another                                                        the other half
    cut        what is left is cancelled, awaited and reported, request by request

``hurry`` skips to the last one at any time. The server goes on beating throughout. The applications' lifespans and
KILL come after all this and are others' business.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from aioserve.observe.scoreboard import Phase
from aioserve.worker.places import place
from aioserve.worker.stacks import describe

if TYPE_CHECKING:
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: How long cancelled applications have to clean up, in seconds.
CANCEL_SECONDS: Final = 5.0

#: The master closes its copies of the listening sockets after the same delay, and has to be before the workers: whoever
#: closes the last copy resets what has come since the queue was emptied. Seconds.
HEAD_START: Final = 0.1

#: Streams are told to end this many seconds apart: their clients come back at once, all of them, to another server.
TELL_INTERVAL: Final = 0.01


class Announcer(Protocol):
    """A server, or several as one."""

    def enter_phase(self, phase: Phase) -> None: ...


async def announce(server: Announcer, delay: float, hurry: asyncio.Event) -> None:
    """Let readiness fail and serve on for ``delay`` seconds, so that load balancers look elsewhere first."""
    server.enter_phase(Phase.DRAINING)
    if delay > 0:
        log.info("draining: serving on for %g s (--drain-delay)", delay)
        await _wait(hurry, delay + HEAD_START)


async def drain(server: Server, grace: float, hurry: asyncio.Event, *, take_queue: bool = True) -> None:
    """Finish what has begun, for ``grace`` seconds or until ``hurry``; then cancel the rest and say what it was.

    A connection is closed once it has been quiet for ``drain_linger`` seconds: a client in the middle of a series of
    requests then gets its answer, with ``Connection: close``.
    """
    server.enter_phase(Phase.DRAINING)
    await server.close_gate(take_queue=take_queue)
    over = asyncio.ensure_future(_either(server.quiet, hurry))
    telling: asyncio.Task[None] | None = None
    try:
        await asyncio.wait((over,), timeout=grace / 2)
        if not over.done():
            telling = asyncio.create_task(_tell(server, grace / 4))
            await asyncio.wait((over,), timeout=grace / 2)
    finally:
        over.cancel()
        if telling is not None:
            telling.cancel()
    if not server.quiet.is_set():
        await _cut(server, "at once" if hurry.is_set() else "at the end of the grace time")


async def _tell(server: Server, spread: float) -> None:
    """Tell every application that still runs to come to an end; no two at once, and all within ``spread`` seconds."""
    cycles = [cycle for _, cycle in server.in_flight()]
    if cycles:
        log.info(
            "half of the grace time is over: telling %d requests to end (http.disconnect, 1012 for WebSockets)",
            len(cycles),
        )
    due = server.loop.time()
    for cycle in cycles:
        cycle.leave()
        # By the clock: a loop sleeps a millisecond at least, which would be too long for each of thousands.
        due += min(TELL_INTERVAL, spread / len(cycles))
        await asyncio.sleep(max(due - server.loop.time(), 0.0))
    for _, cycle in server.in_flight():  # those that have begun meanwhile
        cycle.leave()


async def _cut(server: Server, when: str) -> None:
    tasks = dict(server.in_flight())
    for task, cycle in tasks.items():
        log.warning("cut %s: %s, at %s", when, describe(cycle), place(task))
        task.cancel("the server is shutting down")
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        for task in pending:
            log.error("%s goes on after it was cancelled, at %s", tasks[task], place(task))
    # Applications have written their last words; a client that does not read would hold them back for ever.
    unsent = server.abort_connections()
    if unsent:
        log.warning("cut %s: %d clients that had not taken all of their response", when, unsent)
    # One turn of the loop for connection_lost to be called.
    await asyncio.sleep(0)


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
