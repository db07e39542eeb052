"""The life of a terminator: accept, shake hands, relay; and how it ends.

    announce    everything as before, while readiness fails (not when a successor is there)    --drain-delay
    no more     what waits in the kernel's queue is taken, the listeners close; handshakes under way may end
    passed on   the master and the scoreboard are told: nothing new comes from here, so that workers may leave, too
    relay on    until the last connection has ended, or its time is up

It is the server of a worker without applications: the same gate, limits and deadlines. Nobody here knows what a request
is. So it is the workers that end connections between two requests, when they see in the scoreboard that this process
leaves (``aioserve.worker.trusted``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from aioserve.observe.faults import watch_for_faults
from aioserve.observe.log import reopen
from aioserve.observe.scoreboard import Phase
from aioserve.terminator.relay import Relay, Relays
from aioserve.tls.sets import Show
from aioserve.worker.admission import spare_descriptors
from aioserve.worker.drain import CANCEL_SECONDS, announce
from aioserve.worker.handshakes import Handshake
from aioserve.worker.loops import new_loop
from aioserve.worker.preamble import Introduction
from aioserve.worker.renewal import publish, show
from aioserve.worker.server import Server
from aioserve.worker.serving import Stop
from aioserve.worker.settings import Settings
from aioserve.worker.stacks import Stacks

if TYPE_CHECKING:
    from aioserve.accept import orders
    from aioserve.accept.base import Front
    from aioserve.config.tree import Config
    from aioserve.observe.scoreboard import Row
    from aioserve.tls.credentials import Credentials
    from aioserve.worker.evenness import Balance

log = logging.getLogger("aioserve")

#: How long handshakes have to end when no more are taken, and a full queue of the workers to take what has been
#: decrypted. Handshakes themselves give up after drain_linger. The master waits twice as long. Seconds.
PASS_ON_SECONDS: Final = 2.5

#: Between two looks at the same. Seconds.
LOOK_SECONDS: Final = 0.01

#: In a quick stop workers cancel their requests and close; then there is nothing left. Seconds.
QUICK_SECONDS: Final = 3.0


class Reporter(Protocol):
    """Where a terminator says how far it is, and hears orders."""

    def ready(self) -> None: ...
    def passed_on(self) -> None: ...
    def recycle(self, reason: str) -> None: ...
    def hear(self) -> tuple[list[orders.Order | Show], bool]: ...
    def fileno(self) -> int: ...


def run_terminator(
    config: Config, front: Front, *, row: Row, reporter: Reporter, credentials: Credentials, balance: Balance
) -> int:
    """Until the master says TERM (graceful) or QUIT (quick), or has gone. Returns the exit status.

    ``balance`` compares it with its siblings, which accept from the same sockets.
    """
    watch_for_faults()
    publish(credentials, row.cells)
    with asyncio.Runner(loop_factory=lambda: new_loop(config.process.loop)) as runner:
        runner.run(_terminate(config, front, row, reporter, credentials, balance))
    return 0


async def _terminate(
    config: Config, front: Front, row: Row, reporter: Reporter, credentials: Credentials, balance: Balance
) -> None:
    loop = asyncio.get_running_loop()
    stop = Stop()
    settings = Settings.of(config)
    server = Server(settings, enter=_nobody, access=None, row=row)
    # Each connection is two descriptors here. What workers may have open is for them to say.
    server.admission.limit = max(spare_descriptors() // 2, 1)
    server.credentials, server.admission.balance = credentials, balance
    relays = Relays(server, front.workers)
    server.follow = relays.follow
    _listen(loop, stop, server, reporter, row)
    await server.start(front.listeners, backlog=config.listen.backlog)
    reporter.ready()
    await stop.requested.wait()
    relieved = row.is_relieved()
    await announce(server, 0.0 if relieved else settings.drain_delay, stop.quick)
    await server.close_gate(take_queue=not relieved)
    await _pass_on(relays, stop)
    server.enter_phase(Phase.RELAYING)
    reporter.passed_on()
    # The workers of a server that ends begin to drain now, and then cancel what is left.
    grace = settings.graceful_shutdown + (0.0 if relieved else CANCEL_SECONDS)
    if not await _either(server.quiet, stop.quick, grace):
        log.warning("cut at the end of the grace time: %d connections", relays.open)
    elif not server.quiet.is_set():
        await _either(server.quiet, server.quiet, QUICK_SECONDS)
    server.abort_connections()
    # One turn of the loop for connection_lost to be called.
    await asyncio.sleep(0)
    server.stop()


def _listen(loop: asyncio.AbstractEventLoop, stop: Stop, server: Server, reporter: Reporter, row: Row) -> None:
    """To the master, and to signals."""

    def hear() -> None:
        heard, is_there = reporter.hear()
        for order in heard:
            if isinstance(order, Show):
                show(order, server.credentials, row.cells, reporter.recycle)
        if not is_there:
            loop.remove_reader(reporter.fileno())
            log.error("the master has gone: draining")
            stop.gracefully()

    def reopen_logs() -> None:
        reopen()
        watch_for_faults(usr2=True)

    stacks = Stacks(loop)
    stacks.server = server
    stacks.install(stop.quickly)
    loop.add_reader(reporter.fileno(), hear)
    loop.add_signal_handler(signal.SIGTERM, stop.gracefully)
    loop.add_signal_handler(signal.SIGUSR1, reopen_logs)


async def _pass_on(relays: Relays, stop: Stop) -> None:
    """Wait until every connection has a worker, and give up those that take too long."""
    server = relays.server
    until = server.loop.time() + PASS_ON_SECONDS
    while server.connections > relays.open or relays.waiting:
        if server.loop.time() > until or stop.quick.is_set():
            for timed in server.deadlines:
                if isinstance(timed, (Handshake, Introduction)) or (isinstance(timed, Relay) and timed.waits):
                    timed.abort()
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _either(one: asyncio.Event, other: asyncio.Event, seconds: float) -> bool:
    """Whether one of them has come in time."""
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return bool(done)


def _nobody(_scope: object) -> NoReturn:
    raise AssertionError("there are no applications here")
