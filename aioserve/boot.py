"""The composition root: from a configuration to a running server. The only module that may import everything.

Choices are made here, once: the accept pattern, the roles that the master supervises, what runs in each child.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import TYPE_CHECKING

from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.errors import BindError, ConfigError
from aioserve.master.events import Role, Say
from aioserve.master.machine import Machine
from aioserve.master.shell import Master
from aioserve.master.slots import Policy, RoleSpec
from aioserve.master.watcher import run_watcher
from aioserve.observe import log as logs
from aioserve.observe.scoreboard import Scoreboard
from aioserve.version import __version__
from aioserve.worker.assemble import assemble
from aioserve.worker.main import run_single, run_worker

if TYPE_CHECKING:
    from aioserve.accept.base import Acceptor
    from aioserve.config.tree import Config
    from aioserve.master.channel import Birth

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
    acceptor = choose_acceptor(config)
    try:
        acceptor.open()
    except BindError as error:
        log.critical("%s", error)
        return NOT_BOUND
    try:
        if config.process.accept == "single":
            announce(config, acceptor)
            return run_single(config, acceptor.listeners(0), on_ready=lambda: log.info("ready: this process"))
        return run_master(config, acceptor)
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


def choose_acceptor(config: Config) -> Acceptor:
    listen = config.listen
    options = SocketOptions(backlog=listen.backlog, dual_stack=listen.dual_stack, unix_mode=listen.uds_mode)
    if config.process.accept == "reuseport":
        return ReusePort(listen.addresses(), config.process.workers, options)
    return Shared(listen.addresses(), options)


def run_master(config: Config, acceptor: Acceptor) -> int:
    specs = [RoleSpec(role=Role.WORKER, slots=config.process.workers, reloads=True, required=True)]
    if config.reload.enabled:
        specs.append(RoleSpec(role=Role.WATCHER, slots=1, reloads=False, required=False))
    policy = Policy(
        boot_timeout=config.timeout.boot,
        grace=config.timeout.graceful_shutdown,
        margin=config.timeout.lifespan_shutdown + KILL_MARGIN,
        boot_failure_ends=not config.reload.enabled,
    )

    def child(birth: Birth) -> int:
        if birth.role is Role.WATCHER:
            return run_watcher(config.reload, config.app.dir, birth)
        return run_worker(config, acceptor.listeners(birth.slot), row=birth.row, reporter=birth.channel)

    announce(config, acceptor)
    return Master(
        machine=Machine(specs, policy),
        child=child,
        acceptor=acceptor,
        scoreboard=Scoreboard(sum(spec.slots for spec in specs)),
        log=say,
        reopen_logs=logs.reopen,
    ).run()


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
