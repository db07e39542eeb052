"""A process that serves: the worker that a master has forked, or the one process of ``--accept single``.

What it runs is a ``Body``: one loop, which is here, or several in threads (``threads``).

The application is imported before the loop starts. A worker that is told to end meanwhile has no handler and simply
ends; a single process ends cleanly (``early``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

from aioserve.errors import BootError
from aioserve.observe.faults import watch_for_faults
from aioserve.observe.log import reopen
from aioserve.offloading.api import pooled
from aioserve.offloading.settings import Settings as PoolSettings
from aioserve.tls.sets import Show
from aioserve.worker.assemble import assemble_all
from aioserve.worker.early import Early, StoppedEarly
from aioserve.worker.gate import nobody
from aioserve.worker.gil import say_shortfall
from aioserve.worker.loops import new_loop
from aioserve.worker.recycling import Recycling
from aioserve.worker.renewal import Renewal, publish, show
from aioserve.worker.serving import Stop
from aioserve.worker.settings import Settings
from aioserve.worker.station import Station

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from aioserve.accept import orders
    from aioserve.accept.base import Source
    from aioserve.config.tree import Config
    from aioserve.observe.scoreboard import Row
    from aioserve.tls.credentials import Credentials
    from aioserve.tls.keeper import Keeper
    from aioserve.worker.applications import Applications
    from aioserve.worker.evenness import Balance
    from aioserve.worker.server import Server
    from aioserve.worker.stealing import Stealing

log = logging.getLogger("aioserve")

#: Exit statuses (see the command line's help).
CLEAN, APPLICATION = 0, 3


class Reporter(Protocol):
    """Where a worker says how far it is, and hears orders; its descriptor is readable when there is one."""

    def ready(self) -> None: ...
    def failed(self, message: str, detail: str = "") -> None: ...
    def recycle(self, reason: str) -> None: ...
    def hear(self) -> tuple[list[orders.Order | Show], bool]: ...
    def fileno(self) -> int: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a process is to do."""

    config: Config
    #: One for each loop.
    applications: Sequence[Applications]
    listeners: Sequence[Source]
    row: Row | None
    #: Called in the main thread's loop, before anything else: signals and whoever else may say stop.
    prepare: Callable[[asyncio.AbstractEventLoop, Stop], None]
    on_ready: Callable[[], None]
    #: What connections to https listeners are shown.
    credentials: Credentials | None = None
    #: The cells of those who speak TLS for it, if that is not this process.
    terminators: Sequence[memoryview] = ()
    #: Asks for a successor, with the reason.
    recycle: Callable[[str], None] | None = None
    #: Called with the server of a worker that has one, before it accepts.
    then: Callable[[Server], None] | None = None


Body: TypeAlias = "Callable[[Work], Coroutine[None, None, int]]"


async def one_loop(work: Work) -> int:
    """Serve in the running loop. Returns the exit status."""
    loop = asyncio.get_running_loop()
    stop = Stop()
    work.prepare(loop, stop)
    station = Station(work.config)
    station.stacks.install(stop.quickly)

    def reopen_logs() -> None:
        reopen()
        watch_for_faults(usr2=True)
        station.reopen()

    def on_server(server: Server) -> None:
        server.credentials, server.terminators = work.credentials, work.terminators
        if work.then is not None:
            work.then(server)
        if work.recycle is not None:
            server.at_beats.append(Recycling(server.settings, server, work.recycle, now=loop.time()).beat)

    loop.add_signal_handler(signal.SIGUSR1, reopen_logs)
    async with pooled(PoolSettings.of(work.config), work.row.cells if work.row is not None else None):
        await station.serve(
            Settings.of(work.config, work.listeners),
            work.applications[0],
            work.listeners,
            row=work.row,
            stop=stop,
            on_ready=work.on_ready,
            on_server=on_server,
        )
    return CLEAN


def run_worker(
    config: Config,
    listeners: Sequence[Source],
    *,
    row: Row,
    reporter: Reporter,
    applications: Sequence[Applications] = (),
    stealing: Stealing | None = None,
    has_left: Callable[[int], bool] = nobody,
    balance: Balance | None = None,
    credentials: Credentials | None = None,
    terminators: Sequence[memoryview] = (),
    body: Body = one_loop,
) -> int:
    """Serve until the master says TERM (graceful) or QUIT (quick), or has gone. Returns the exit status.

    ``applications`` are those that the master has imported; without them the worker does that itself. ``stealing``
    has the siblings' sockets, if there are any to be accepted from; ``has_left`` says whether a sibling serves no more.
    ``balance`` is for workers that accept from the same sockets.
    """

    def prepare(loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        async def end_behind_terminators() -> None:
            from aioserve.worker.trusted import all_passed_on

            await all_passed_on(terminators, stop.quick)
            stop.gracefully()

        def end() -> None:
            if not terminators or row.is_relieved():
                stop.gracefully()
            elif not ending:
                ending.append(loop.create_task(end_behind_terminators()))

        def hear() -> None:
            heard, is_there = reporter.hear()
            for order in heard:
                if isinstance(order, Show):
                    show(order, credentials, row.cells, reporter.recycle)
                elif stealing is not None:
                    stealing.obey(order)
            if not is_there:
                loop.remove_reader(reporter.fileno())
                log.error("the master has gone: draining")
                end()

        loop.add_reader(reporter.fileno(), hear)
        # Not "the second one is quick": systemd and container runtimes send TERM to every process of a group, on top
        # of the master's. The master says QUIT when it means it.
        loop.add_signal_handler(signal.SIGTERM, end)

    ending: list[asyncio.Task[None]] = []

    def on_server(server: Server) -> None:
        server.stealing, server.has_left, server.admission.balance = stealing, has_left, balance

    try:
        watch_for_faults()
        publish(credentials, row.cells)
        imported = applications or assemble_all(config)
        if row.slot == 0:  # one for all
            say_shortfall(len(imported))
        work = Work(
            config=config,
            applications=imported,
            listeners=listeners,
            row=row,
            credentials=credentials,
            terminators=terminators,
            prepare=prepare,
            on_ready=reporter.ready,
            recycle=reporter.recycle,
            then=on_server,
        )
        return _run(work, body)
    except BootError as error:
        reporter.failed(str(error), error.detail)
        return APPLICATION


def run_single(
    config: Config,
    listeners: Sequence[Source],
    *,
    row: Row | None,
    credentials: Credentials | None = None,
    keeper: Keeper | None = None,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
    refuse: Callable[[], None],
) -> int:
    """Serve in this process, without a master, until TERM or INT (the second one: quick). Returns the exit status.

    ``keeper`` looks at the files of the ``credentials``; ``refuse`` is that of the acceptor.
    """
    early = Early()

    def begin(server: Server) -> None:
        server.refuse = refuse

    def prepare(loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        stop.then = on_stop
        loop.add_signal_handler(signal.SIGTERM, stop.insist)
        loop.add_signal_handler(signal.SIGINT, stop.insist)
        # Its default action would end the server in the middle of its requests.
        loop.add_signal_handler(
            signal.SIGHUP, log.warning, "SIGHUP: there is no master here to reload; restart instead"
        )
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            # Theirs would stop it for good.
            loop.add_signal_handler(
                number, log.warning, "%s: there is one process and no master, which could have more", number.name
            )
        if keeper is not None and credentials is not None:
            Renewal(keeper, credentials, loop, row.cells if row is not None else None)
        if early.settle():
            stop.gracefully()

    try:
        with early:
            watch_for_faults()
            applications = assemble_all(config)
            work = Work(
                config=config,
                applications=applications,
                listeners=listeners,
                row=row,
                credentials=credentials,
                prepare=prepare,
                on_ready=on_ready,
                then=begin,
            )
            _run(work, one_loop)
    except StoppedEarly:
        log.info("%s", early.why)
    except BootError as error:
        log.critical("%s", error)
        if error.detail:
            log.critical("%s", error.detail)
        return APPLICATION
    return CLEAN


def _run(work: Work, body: Body) -> int:
    with asyncio.Runner(loop_factory=lambda: new_loop(work.config.process.loop)) as runner:
        return runner.run(body(work))
