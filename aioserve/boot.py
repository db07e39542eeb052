"""The composition root: from a configuration to a running server. The only module that may import everything.

Choices are made here, once: the accept pattern, the roles that the master supervises, what runs in each child.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import time
from typing import TYPE_CHECKING

from aioserve.accept import activation
from aioserve.accept.activation import passed_on
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, NamedAddress
from aioserve.errors import BindError, ConfigError
from aioserve.master import notify
from aioserve.master.events import Role, Say
from aioserve.master.machine import Machine
from aioserve.master.notify import Manager, NotifySocket, ServiceManager, any_turns
from aioserve.master.shell import Master
from aioserve.master.slots import Policy, RoleSpec
from aioserve.master.watcher import run_watcher
from aioserve.observe import log as logs
from aioserve.observe.scoreboard import Scoreboard
from aioserve.version import __version__
from aioserve.worker.assemble import assemble
from aioserve.worker.main import run_single, run_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.activation import Passed
    from aioserve.accept.base import Acceptor
    from aioserve.config.tree import Config
    from aioserve.master.channel import Birth
    from aioserve.master.observer import Observer

log = logging.getLogger("aioserve")

#: Exit status when an address cannot be bound.
NOT_BOUND = 4

#: Seconds on top of the lifespan's shutdown that a worker has between the end of its grace time and KILL: cancelled
#: applications clean up, the access log is written.
KILL_MARGIN = 8.0


def run(config: Config) -> int:
    """Serve until stopped; the exit status. Raises ``ConfigError`` for what only shows here."""
    check_extras(config)
    logs.configure(config.log)
    manager = take_manager()
    acceptor = choose_acceptor(config, take_passed())
    try:
        acceptor.open()
    except BindError as error:
        log.critical("%s", error)
        return NOT_BOUND
    try:
        if config.process.accept == "single":
            announce(config, acceptor)
            return run_single(config, acceptor.listeners(0), on_ready=lambda: ready_alone(manager))
        return run_master(config, acceptor, manager)
    finally:
        acceptor.close()


def check(config: Config) -> None:
    """Import all applications, as a worker would. Raises ``BootError`` or ``ConfigError``."""
    check_extras(config)
    assemble(config)


def check_extras(config: Config) -> None:
    """Refuse what needs a package that is not installed."""
    if config.reload.enabled and importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(["--reload needs the package watchfiles: install aioserve[reload]"])


def take_passed() -> tuple[Passed, ...]:
    """The sockets that a service manager has opened for this process; nobody else is to find them."""
    passed = passed_on(os.environ, os.getpid())
    for name in activation.VARIABLES:
        os.environ.pop(name, None)
    return passed


def take_manager() -> Manager | None:
    """The service manager that wants to be told how the server is."""
    manager = Manager.of(os.environ, os.getpid())
    if manager is not None and manager.watchdog is not None:
        # A new master program of another process id takes the watchdog over with everything else.
        os.environ.pop("WATCHDOG_PID", None)
    return manager


def choose_acceptor(config: Config, passed: Sequence[Passed] = ()) -> Acceptor:
    listen = config.listen
    options = SocketOptions(
        backlog=listen.backlog, dual_stack=listen.dual_stack, unix_mode=listen.uds_mode, passed=passed
    )
    addresses = listen.addresses()
    if passed and listen.unsaid:
        addresses = [FdAddress(one.fd) for one in passed]
    for one in passed:
        if not {FdAddress(one.fd), NamedAddress(one.name)} & set(addresses):
            log.warning("%s was passed in and no address names it: its clients wait in vain", one)
    if config.process.accept == "reuseport":
        return ReusePort(addresses, config.process.workers, options)
    return Shared(addresses, options)


def ready_alone(manager: Manager | None) -> None:
    """Without a master: say that this process serves, and then again and again, as long as its loop turns."""
    log.info("ready: this process")
    if manager is None:
        return
    send = NotifySocket(manager.address).send
    send("READY=1\nSTATUS=serving: one process")
    if manager.watchdog is not None:
        feed_watchdog(asyncio.get_running_loop(), send, manager.watchdog / 2)


def feed_watchdog(loop: asyncio.AbstractEventLoop, send: Callable[[str], None], interval: float) -> None:
    send("WATCHDOG=1")
    loop.call_later(interval, feed_watchdog, loop, send, interval)


def run_master(config: Config, acceptor: Acceptor, manager: Manager | None = None) -> int:
    specs = [RoleSpec(role=Role.WORKER, slots=config.process.workers, reloads=True, required=True)]
    if config.reload.enabled:
        specs.append(RoleSpec(role=Role.WATCHER, slots=1, reloads=False, required=False))
    policy = Policy(
        boot_timeout=config.timeout.boot,
        grace=config.timeout.graceful_shutdown,
        margin=config.timeout.lifespan_shutdown + KILL_MARGIN,
        boot_failure_ends=not config.reload.enabled,
    )

    scoreboard = Scoreboard(sum(spec.slots for spec in specs))
    observers: list[Observer] = []
    if manager is not None:
        observers.append(observe_for(manager, scoreboard))

    def child(birth: Birth) -> int:
        for name in notify.VARIABLES:
            os.environ.pop(name, None)
        if birth.role is Role.WATCHER:
            return run_watcher(config.reload, config.app.dir, birth)
        return run_worker(config, acceptor.listeners(birth.slot), row=birth.row, reporter=birth.channel)

    announce(config, acceptor)
    return Master(
        machine=Machine(specs, policy),
        child=child,
        acceptor=acceptor,
        scoreboard=scoreboard,
        log=say,
        reopen_logs=logs.reopen,
        observers=observers,
    ).run()


def observe_for(manager: Manager, scoreboard: Scoreboard) -> Observer:
    """What tells the service manager how the server is."""

    def healthy() -> bool:
        rows = (row.snapshot() for row in scoreboard)
        return any_turns(rows, time.monotonic_ns(), manager.watchdog or 0.0)

    return ServiceManager(
        NotifySocket(manager.address).send, pid=os.getpid(), watchdog=manager.watchdog, healthy=healthy
    )


def say(line: Say) -> None:
    """Write what the master's state machine has to say."""
    level = logging.getLevelNamesMapping()[line.level.upper()]
    log.log(level, "%s", line.text)
    if line.detail:
        log.log(level, "%s", line.detail)


def announce(config: Config, acceptor: Acceptor) -> None:
    """Say what starts here and where it listens."""
    process = config.process
    count = f"{process.workers} worker{'s' if process.workers > 1 else ''}"
    workers = "one process" if process.accept == "single" else f"{count}, --accept {process.accept}"
    log.info("aioserve %s, pid %d, %s", __version__, os.getpid(), workers)
    for address in acceptor.addresses():
        log.info("listening on %s", address)
