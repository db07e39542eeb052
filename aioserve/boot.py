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
from dataclasses import replace
from typing import TYPE_CHECKING

from aioserve import surroundings
from aioserve.accept.dispatch import Dispatch
from aioserve.accept.fronted import Fronted
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, NamedAddress, parse_address
from aioserve.config.values import AUTO
from aioserve.errors import BindError, BootError, ConfigError
from aioserve.master.inspector import in_child
from aioserve.master.machine import CANNOT_START
from aioserve.master.notify import EXTEND, PULSE, NotifySocket
from aioserve.master.upgrade import Origin, inherit
from aioserve.observe import log as logs
from aioserve.observe.scoreboard import PID
from aioserve.supervise import Start, run_hook, supervise
from aioserve.system import hooks
from aioserve.system.pidfile import PidFile
from aioserve.system.process import hide
from aioserve.tls import take
from aioserve.tls.credentials import Credentials
from aioserve.tls.keeper import Keeper
from aioserve.version import __version__
from aioserve.worker.assemble import assemble
from aioserve.worker.main import run_single
from aioserve.worker.parts import import_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.activation import Passed
    from aioserve.accept.base import Acceptor, Inherited
    from aioserve.config.addresses import Address
    from aioserve.config.tree import Config
    from aioserve.master.notify import Manager
    from aioserve.observe.scoreboard import Scoreboard
    from aioserve.system.identity import Identity
    from aioserve.tune.run import Wishes

log = logging.getLogger("aioserve")

#: Exit status when an address cannot be bound.
NOT_BOUND = 4


def run(
    config: Config,
    *,
    origin: Origin | None = None,
    reread: Callable[[], Config] | None = None,
    scoreboard: Scoreboard | None = None,
) -> int:
    """Serve until stopped; the exit status. Raises ``ConfigError`` for what only shows here.

    ``origin`` is how to start a new master (USR2), if it is not how things are now; ``reread`` reads the configuration
    again (HUP), which otherwise stays as it is; ``scoreboard`` is one that somebody else reads, too.
    """
    origin = origin or Origin.now()
    predecessor = inherit(os.environ)
    surroundings.enter(config)
    check_reload(config)
    logs.configure(config.log)
    config = surroundings.choose_ktls(surroundings.count_workers(config))
    identity = surroundings.take_identity(config)
    keeper = keep_certificates(config)
    manager = surroundings.take_manager()
    inherited = predecessor.sockets if predecessor is not None else ()
    acceptor = choose_acceptor(config, surroundings.take_passed(), identity, inherited)
    with ExitStack() as stack:
        pid_file = PidFile(config.process.pid) if config.process.pid else None
        if pid_file is not None:
            pid_file.claim(predecessor=predecessor.pid if predecessor is not None else 0)
            stack.callback(pid_file.release)
        surroundings.raise_limits()
        try:
            acceptor.open(inherited)
        except BindError as error:
            log.critical("%s", error)
            return NOT_BOUND
        stack.callback(acceptor.close)
        try:
            import_parts(config)
            if config.process.accept == "single":
                announce(config, acceptor, keeper)
                surroundings.settle_in(identity)
                return run_alone(config, acceptor, manager, scoreboard, keeper)
            announce(config, acceptor, keeper)
            start = Start(
                origin=origin,
                reread=reread or (lambda: config),
                manager=manager,
                identity=identity,
                pid_file=pid_file,
                predecessor=predecessor,
                scoreboard=scoreboard,
                keeper=keeper,
            )
            return supervise(config, acceptor, start)
        except BootError as error:
            log.critical("%s", "\n".join(filter(None, (str(error), error.detail))))
            return CANNOT_START


def check(config: Config) -> None:
    """Import all applications, as a worker would. Raises ``BootError`` or ``ConfigError``."""
    surroundings.enter(config)
    check_reload(config)
    if config.ssl.enabled:
        keeper = Keeper(config.ssl, take.take(config.ssl))
        keeper.current.close()
        keeper.announce()
    hooks.load(config, (*hooks.MASTER, *hooks.WORKER))
    assemble(config)


def tune(config: Config, wishes: Wishes) -> int:
    """Try the accept patterns on the application, and say which to take; the exit status."""
    from aioserve.tune.run import run as run_tune

    def serve(candidate: Config, scoreboard: Scoreboard) -> int:
        return run(candidate, scoreboard=scoreboard)

    # No service manager is to hear of servers that come and go here.
    surroundings.settle_in(None)
    every_cpu = replace(config, process=replace(config.process, accept="shared", workers=AUTO))
    cpus = surroundings.count_workers(every_cpu).process.workers
    return run_tune(surroundings.count_workers(config), wishes, serve, cpus=cpus)


def check_reload(config: Config) -> None:
    """Refuse what needs a package that is not installed, or a directory that is not there."""
    if not config.reload.enabled:
        return
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(["--reload needs the package watchfiles: install aioserve[reload]"])
    missing = [name for name in config.reload.dirs if not os.path.exists(name)]
    if missing:
        raise ConfigError(
            [f"--reload-dir {name}: there is no such directory; make it, or name another" for name in missing]
        )


def keep_certificates(config: Config) -> Keeper | None:
    """The certificates, if there are any, found good. Raises ``ConfigError`` with all that is wrong with them."""
    if not config.ssl.enabled:
        return None
    if config.ssl.processes:
        hide()  # workers, which may be of the same user, are not to open the copies of the keys that are here
    # Where there is a master, keys must not be in its memory.
    look = take.here if config.process.accept == "single" else in_child
    return Keeper(config.ssl, take.take_at_start(config.ssl, look))


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
    addresses, redirects = listen.addresses(), config.redirects()
    if listen.unsaid:
        # What a service manager has passed on, to us or to the master before us.
        names = dict.fromkeys(one.address for one in inherited if one.address.startswith("fd://"))
        given: list[Address] = [FdAddress(one.fd) for one in passed if not _names_of(one) & set(redirects)]
        kept = [address for name in names if (address := parse_address(name)) not in redirects]
        addresses = given or kept or addresses
    addresses = [*config.speaking(addresses), *redirects]
    for one in passed:
        if not _names_of(one) & set(addresses):
            log.warning("%s was passed in and no address names it: its clients wait in vain", one)

    def choose(addresses: list[Address]) -> Acceptor:
        if config.process.accept == "reuseport":
            return ReusePort(addresses, config.process.workers, options, lends=config.process.steal != "off")
        if config.process.accept == "dispatch":
            return Dispatch(addresses, config.process.workers, options)
        return Shared(addresses, options)

    secured = [address for address in addresses if address.speaks == "https"]
    if config.ssl.processes and secured:
        plain = [address for address in addresses if address.speaks != "https"]
        return Fronted(secured, plain, options, choose)
    return choose(addresses)


def _names_of(one: Passed) -> set[Address]:
    """The addresses that mean it."""
    return {FdAddress(one.fd), NamedAddress(one.name)}


def run_alone(
    config: Config, acceptor: Acceptor, manager: Manager | None, scoreboard: Scoreboard | None, keeper: Keeper | None
) -> int:
    """Serve in this process, without a master."""
    mine = hooks.load(config, hooks.WORKER)
    row = scoreboard.row(0, 0) if scoreboard is not None else None
    if row is not None:
        row.begin(generation=1, started_ns=time.monotonic_ns())
        row.cells[PID] = os.getpid()

    def on_ready() -> None:
        log.info("ready: this process")
        if manager is not None:
            notify_ready(manager)
        run_hook(mine, "on_worker_ready", slot=0, generation=1)

    def on_stop() -> None:
        if manager is not None:
            notify_stopping(manager)

    run_hook(mine, "on_worker_start", slot=0, generation=1)
    credentials = Credentials(config.ssl, keeper.current) if keeper is not None else None
    return run_single(
        config,
        acceptor.listeners(0),
        row=row,
        credentials=credentials,
        keeper=keeper,
        on_ready=on_ready,
        on_stop=on_stop,
        refuse=acceptor.refuse,
    )


def notify_ready(manager: Manager) -> None:
    """Say that this process serves, and then again and again, as long as its loop turns."""
    send = NotifySocket(manager.address).send
    send("READY=1\nSTATUS=serving: one process")
    if manager.watchdog is not None:
        repeat(asyncio.get_running_loop(), send, "WATCHDOG=1", manager.watchdog / 2)


def notify_stopping(manager: Manager) -> None:
    """Say that this process stops, and ask for more time until it has."""
    send = NotifySocket(manager.address).send
    send("STOPPING=1\nSTATUS=stopping")
    repeat(asyncio.get_running_loop(), send, EXTEND, PULSE)


def repeat(loop: asyncio.AbstractEventLoop, send: Callable[[str], None], message: str, interval: float) -> None:
    """Send the message now, and again after each interval."""
    send(message)
    loop.call_later(interval, repeat, loop, send, message, interval)


def announce(config: Config, acceptor: Acceptor, keeper: Keeper | None) -> None:
    """Say what starts here and where it listens."""
    process = config.process
    count = f"{process.workers} worker{'s' if process.workers > 1 else ''}"
    if process.threads > 1:
        count += f" with {process.threads} loops{' each' if process.workers > 1 else ''}"
    workers = "one process" if process.accept == "single" else f"{count}, --accept {process.accept}"
    if acceptor.front is not None:
        workers += f", --tls-processes {config.ssl.processes}"
    log.info("aioserve %s, pid %d, %s", __version__, os.getpid(), workers)
    for address in acceptor.addresses():
        log.info("listening on %s", address)
    for text in config.ssl.redirect:
        log.info("plain HTTP at %s is redirected to https", text)
    if keeper is not None:
        keeper.announce()
