"""The composition root: from a configuration to a running server. The only module that may import everything.

Choices are made here, once: the accept pattern, the roles that the master supervises, what runs in each child.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from aioserve import surroundings
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, NamedAddress, parse_address
from aioserve.errors import BindError, BootError, ConfigError
from aioserve.master.events import Role, Say
from aioserve.master.machine import CANNOT_START, Machine
from aioserve.master.namesake import Namesake
from aioserve.master.notify import NotifySocket, ServiceManager, any_turns
from aioserve.master.shell import Master
from aioserve.master.slots import Policy, RoleSpec
from aioserve.master.turns import TurningPoints
from aioserve.master.watcher import run_watcher
from aioserve.observe import log as logs
from aioserve.observe.scoreboard import Scoreboard
from aioserve.system import hooks
from aioserve.system.hooks import Moment
from aioserve.system.pidfile import PidFile
from aioserve.system.process import end_with_parent
from aioserve.version import __version__
from aioserve.worker.assemble import assemble
from aioserve.worker.main import run_single, run_worker
from aioserve.worker.preload import preload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioserve.accept.activation import Passed
    from aioserve.accept.base import Acceptor, Inherited
    from aioserve.config.tree import Config
    from aioserve.master.channel import Birth
    from aioserve.master.notify import Manager
    from aioserve.master.observer import Observer
    from aioserve.system.hooks import Hook
    from aioserve.system.identity import Identity

log = logging.getLogger("aioserve")

#: Exit status when an address cannot be bound.
NOT_BOUND = 4

#: A reload with --preload would look as if it had loaded new code.
NO_RELOAD = "--preload keeps the application that was imported at the start; send USR2 to load a new one"

#: Seconds on top of the lifespan's shutdown that a worker has between the end of its grace time and KILL: cancelled
#: applications clean up, the access log is written.
KILL_MARGIN = 8.0


def run(config: Config) -> int:
    """Serve until stopped; the exit status. Raises ``ConfigError`` for what only shows here."""
    surroundings.enter(config)
    check_extras(config)
    logs.configure(config.log)
    config = surroundings.count_workers(config)
    identity = surroundings.take_identity(config)
    manager = surroundings.take_manager()
    acceptor = choose_acceptor(config, surroundings.take_passed(), identity)
    with ExitStack() as stack:
        pid_file = PidFile(config.process.pid) if config.process.pid else None
        if pid_file is not None:
            pid_file.claim()
            stack.callback(pid_file.release)
        try:
            acceptor.open()
        except BindError as error:
            log.critical("%s", error)
            return NOT_BOUND
        stack.callback(acceptor.close)
        surroundings.raise_limits()
        try:
            if config.process.accept == "single":
                announce(config, acceptor)
                surroundings.settle_in(identity)
                return run_alone(config, acceptor, manager)
            return run_master(config, acceptor, manager, identity, pid_file)
        except BootError as error:
            log.critical("%s", "\n".join(filter(None, (str(error), error.detail))))
            return CANNOT_START


def check(config: Config) -> None:
    """Import all applications, as a worker would. Raises ``BootError`` or ``ConfigError``."""
    surroundings.enter(config)
    check_extras(config)
    hooks.load(config, (*hooks.MASTER, *hooks.WORKER))
    assemble(config)


def check_extras(config: Config) -> None:
    """Refuse what needs a package that is not installed."""
    if config.reload.enabled and importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(["--reload needs the package watchfiles: install aioserve[reload]"])


def choose_acceptor(
    config: Config,
    passed: Sequence[Passed] = (),
    identity: Identity | None = None,
    inherited: Sequence[Inherited] = (),
) -> Acceptor:
    listen = config.listen
    options = SocketOptions(
        backlog=listen.backlog,
        dual_stack=listen.dual_stack,
        unix_mode=listen.uds_mode,
        unix_owner=(identity.uid, identity.gid) if identity is not None else None,
        passed=passed,
    )
    addresses = listen.addresses()
    if listen.unsaid:
        # What a service manager has passed on, to us or to the master before us.
        names = dict.fromkeys(one.address for one in inherited if one.address.startswith("fd://"))
        addresses = [FdAddress(one.fd) for one in passed] or [parse_address(name) for name in names] or addresses
    for one in passed:
        if not {FdAddress(one.fd), NamedAddress(one.name)} & set(addresses):
            log.warning("%s was passed in and no address names it: its clients wait in vain", one)
    if config.process.accept == "reuseport":
        return ReusePort(addresses, config.process.workers, options)
    return Shared(addresses, options)


def run_alone(config: Config, acceptor: Acceptor, manager: Manager | None) -> int:
    """Serve in this process, without a master."""
    mine = hooks.load(config, hooks.WORKER)

    def on_ready() -> None:
        log.info("ready: this process")
        if manager is not None:
            notify_alone(manager)
        run_hook(mine, "on_worker_ready", slot=0, generation=1)

    run_hook(mine, "on_worker_start", slot=0, generation=1)
    return run_single(config, acceptor.listeners(0), on_ready=on_ready)


def notify_alone(manager: Manager) -> None:
    """Say that this process serves, and then again and again, as long as its loop turns."""
    send = NotifySocket(manager.address).send
    send("READY=1\nSTATUS=serving: one process")
    if manager.watchdog is not None:
        feed_watchdog(asyncio.get_running_loop(), send, manager.watchdog / 2)


def feed_watchdog(loop: asyncio.AbstractEventLoop, send: Callable[[str], None], interval: float) -> None:
    send("WATCHDOG=1")
    loop.call_later(interval, feed_watchdog, loop, send, interval)


def run_hook(found: Mapping[str, Hook], name: str, *, slot: int | None = None, generation: int = 1) -> None:
    """Call the hook of this name, if there is one, about this process."""
    if name in found:
        found[name].run(Moment(hook=name, pid=os.getpid(), slot=slot, generation=generation))


def load_masters_hooks(config: Config) -> dict[str, Hook]:
    """Import the hooks that run in the master, and nothing else."""
    found = hooks.load(config, hooks.MASTER)
    early = hooks.imported_too_early(config) if found and not config.process.preload else ""
    if early:
        log.warning(
            "%s is imported together with the hooks that run in the master: a reload cannot load new code; keep these "
            "hooks in a module of their own",
            early,
        )
    return found


def run_master(
    config: Config,
    acceptor: Acceptor,
    manager: Manager | None = None,
    identity: Identity | None = None,
    pid_file: PidFile | None = None,
) -> int:
    specs = [RoleSpec(role=Role.WORKER, slots=config.process.workers, reloads=True, required=True)]
    if config.reload.enabled:
        specs.append(RoleSpec(role=Role.WATCHER, slots=1, reloads=False, required=False))
    policy = Policy(
        boot_timeout=config.timeout.boot,
        grace=config.timeout.graceful_shutdown,
        margin=config.timeout.drain_delay + config.timeout.lifespan_shutdown + KILL_MARGIN,
        boot_failure_ends=not config.reload.enabled,
        no_reload=NO_RELOAD if config.process.preload else "",
    )

    scoreboard = Scoreboard(sum(spec.slots for spec in specs))
    observers: list[Observer] = []
    if manager is not None:
        observers.append(observe_for(manager, scoreboard))
    if pid_file is not None:
        observers.append(Namesake(pid_file))
    master = os.getpid()
    masters_hooks = load_masters_hooks(config)
    observers.append(TurningPoints(masters_hooks, pid=master))
    applications = preload(config) if config.process.preload else None

    def child(birth: Birth) -> int:
        # Until the user is changed, which clears it, and again from then on.
        end_with_parent(master)
        try:
            surroundings.settle_in(identity)
            end_with_parent(master)
            if birth.role is Role.WATCHER:
                return run_watcher(config.reload, config.app.dir, birth)
            found = hooks.load(config, hooks.WORKER)
        except BootError as error:
            birth.channel.failed(str(error), error.detail)
            return CANNOT_START
        run_hook(found, "on_worker_start", slot=birth.slot, generation=birth.generation)
        birth.channel.then = lambda: run_hook(found, "on_worker_ready", slot=birth.slot, generation=birth.generation)
        return run_worker(
            config, acceptor.listeners(birth.slot), row=birth.row, reporter=birth.channel, applications=applications
        )

    def reopen_logs() -> None:
        logs.reopen()
        if identity is not None:
            surroundings.own_logs(config, identity)

    announce(config, acceptor)
    run_hook(masters_hooks, "on_master_start")
    return Master(
        machine=Machine(specs, policy),
        child=child,
        acceptor=acceptor,
        scoreboard=scoreboard,
        log=say,
        reopen_logs=reopen_logs,
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
