"""From a configuration to a master with its workers: the roles, the numbers, what runs in each child, who looks on.

A generation has a configuration of its own: HUP reads it again, and what the workers do follows. What belongs to the
master itself (addresses, the accept pattern, the user) stays as it is until a restart, and is said to.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from aioserve import surroundings
from aioserve.config.renew import renew
from aioserve.errors import BootError
from aioserve.master.certificates import Certificates
from aioserve.master.events import Role, Say
from aioserve.master.lateness import Lateness
from aioserve.master.lender import Lender
from aioserve.master.lookout import Lookout
from aioserve.master.machine import CANNOT_START, Machine
from aioserve.master.namesake import Namesake
from aioserve.master.notify import NotifySocket, ServiceManager, any_turns
from aioserve.master.shell import Generation, Master
from aioserve.master.slots import Policy, RoleSpec
from aioserve.master.turns import TurningPoints
from aioserve.master.watcher import run_watcher
from aioserve.observe import log as logs
from aioserve.observe.scoreboard import PHASE, SEATS, Phase, Scoreboard
from aioserve.system import hooks
from aioserve.system.hooks import Moment
from aioserve.system.process import end_with_parent, hide, name_process
from aioserve.tls.credentials import Credentials
from aioserve.tls.tickets import can_be_forgotten
from aioserve.worker.early import Early, StoppedEarly
from aioserve.worker.evenness import Balance
from aioserve.worker.main import CLEAN, one_loop, run_worker
from aioserve.worker.preload import preload
from aioserve.worker.stealing import Stealing
from aioserve.worker.threads import many_loops

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioserve.accept.base import Acceptor, Front
    from aioserve.config.tree import Config
    from aioserve.master.channel import Birth
    from aioserve.master.notify import Manager
    from aioserve.master.observer import Observer
    from aioserve.master.upgrade import Origin, Predecessor
    from aioserve.observe.scoreboard import Row
    from aioserve.system.hooks import Hook
    from aioserve.system.identity import Identity
    from aioserve.system.pidfile import PidFile
    from aioserve.tls.keeper import Keeper
    from aioserve.worker.applications import Applications

log = logging.getLogger("aioserve")

#: A reload with --preload would look as if it had loaded new code.
NO_RELOAD: Final = "--preload keeps the application that was imported at the start; send USR2 to load a new one"

#: Seconds on top of the lifespan's shutdown that a worker has between the end of its grace time and KILL: cancelled
#: applications clean up, the access log is written.
KILL_MARGIN: Final = 8.0

#: Loops beat twice a second at least, whatever the settings; less than two beats is nothing to be killed for. Seconds.
SHORTEST_LIMIT: Final = 1.0

#: The scoreboard is made before the first fork, so this is how far TTIN and HUP can go: twice the start, or this many.
ROOM: Final = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How this master came about, beside its configuration."""

    origin: Origin
    #: Reads the configuration again; raises ``ConfigError``.
    reread: Callable[[], Config]
    manager: Manager | None = None
    identity: Identity | None = None
    pid_file: PidFile | None = None
    predecessor: Predecessor | None = None
    #: One that somebody outside reads, with room enough; None: it makes its own.
    scoreboard: Scoreboard | None = None
    #: The certificates, if there are any.
    keeper: Keeper | None = None


def supervise(config: Config, acceptor: Acceptor, start: Start) -> int:
    """Serve until stopped; the exit status."""
    early = Early()
    with suppress(StoppedEarly), early:
        server = _Server(config, acceptor, start)
    if early.came is not None:
        log.info("%s", early.why)
        return CLEAN
    return server.run()


@final
class _Server:
    def __init__(self, config: Config, acceptor: Acceptor, start: Start) -> None:
        self._config = config
        self._acceptor: Final = acceptor
        self._start: Final = start
        self._pid: Final = os.getpid()
        self._hooks: Final = _load_hooks(config)
        self._workers: list[list[Row]] = []  # both rows of each slot
        self._terminators: list[memoryview] = []  # the cells of both rows of each slot
        if config.process.preload:  # which is never reloaded: the configuration is not read again
            surroundings.forget_secrets()
        self._applications: Final[list[Applications]] = preload(config) if config.process.preload else []
        keeper = start.keeper
        self._certificates: Final = Certificates(keeper, shows_in(config)) if keeper is not None else None
        #: Whether those who show certificates have the keys of session tickets in common.
        self._tickets = True
        if config.ssl.processes:
            as_root = os.geteuid() == 0 and (start.identity is None or start.identity.uid == 0)
            if as_root and acceptor.front is not None:
                log.warning("--tls-processes: workers are root, from whom nothing can be kept; add --user")
            self._tickets = can_be_forgotten()
            if not self._tickets:
                log.info("this Python cannot forget keys: each terminator resumes its own sessions only")
        self._body: Final = many_loops if config.process.accept == "threads" else one_loop

    def run(self) -> int:
        config, start = self._config, self._start
        workers = config.process.workers
        specs = [RoleSpec(role=Role.WORKER, slots=workers, reloads=True, required=True, most=max(2 * workers, ROOM))]
        if config.reload.enabled:
            specs.append(RoleSpec(role=Role.WATCHER, slots=1, reloads=False, required=False))
        if self._acceptor.dispatcher is not None:
            specs.append(RoleSpec(role=Role.DISPATCHER, slots=1, reloads=True, required=True, leads=1))
        if self._acceptor.front is not None:
            slots = config.ssl.processes
            specs.append(RoleSpec(role=Role.TERMINATOR, slots=slots, reloads=True, required=True, leads=2, relays=True))
        scoreboard = start.scoreboard or Scoreboard(sum(spec.room for spec in specs))
        if self._acceptor.front is not None:
            first_row = sum(spec.room for spec in specs[:-1])
            self._terminators = [
                scoreboard.row(slot, seat).cells
                for slot in range(first_row, first_row + config.ssl.processes)
                for seat in range(SEATS)
            ]
        self._workers = [[scoreboard.row(slot, seat) for seat in range(SEATS)] for slot in range(specs[0].room)]
        first = self._generation(config)
        steals = bool(self._acceptor.queues())
        lender = Lender(self._acceptor.queues) if steals else None
        lookout = (
            Lookout(lender, scoreboard, Lateness()) if lender is not None and config.process.steal == "late" else None
        )
        run_hook(self._hooks, "on_master_start")
        return Master(
            machine=Machine(specs, first.policy, shared=start.predecessor is not None),
            child=first.child,
            renew=self._renew,
            acceptor=self._acceptor,
            scoreboard=scoreboard,
            log=say,
            reopen_logs=self._reopen_logs,
            observers=self._observers(),
            origin=start.origin,
            predecessor=start.predecessor,
            lender=lender,
            lookout=lookout,
            certificates=self._certificates,
        ).run()

    def _generation(self, config: Config) -> Generation:
        def child(birth: Birth) -> int:
            return self._be_child(config, birth)

        return Generation(child, config.process.workers, policy_of(config, linger=self._acceptor.linger))

    def _renew(self) -> Generation:
        """Read the configuration again. Raises ``ConfigError``, and then nothing has changed."""
        wanted = surroundings.count_workers(self._start.reread(), accept=self._config.process.accept)
        renewed = renew(self._config, surroundings.choose_ktls(wanted))
        self._renew_certificates(renewed.config)
        if renewed.config.log != self._config.log:
            logs.configure(renewed.config.log)
            self._give_logs_away(renewed.config)
        self._config = renewed.config
        for line in renewed.applied:
            log.info("the configuration has changed: %s", line)
        for line in renewed.postponed:
            log.warning("the configuration has changed: %s", line)
        return self._generation(renewed.config)

    def _renew_certificates(self, config: Config) -> None:
        """Look at the files again, also if nobody has changed the settings. Raises ``ConfigError``."""
        if self._certificates is not None and config.ssl.enabled:
            self._certificates.reload(config.ssl)

    def _credentials(self, config: Config, birth: Birth) -> Credentials | None:
        """In a child, before anything of the application's: what it shows in handshakes, if it is one that does."""
        if self._certificates is None:
            return None
        stock = self._certificates.stock(config.ssl)
        try:
            if not self._certificates.shows(birth.role):
                return None
            return Credentials(config.ssl, stock.chosen, stock.front if self._tickets else None)
        except (ssl.SSLError, OSError) as error:
            raise BootError(f"the certificates cannot be loaded: {error}") from None
        finally:
            self._certificates.close()
            if config.ssl.processes and not self._certificates.shows(birth.role):
                if self._tickets:
                    self._certificates.forget()
                hide(False)

    def _be_child(self, config: Config, birth: Birth) -> int:
        # Until the user is changed, which clears it, and again from then on.
        end_with_parent(self._pid)
        try:
            credentials = self._credentials(config, birth)
            surroundings.settle_in(self._start.identity)
            end_with_parent(self._pid)
            if birth.role is Role.WATCHER:
                return run_watcher(config.reload, config.app.dir, birth)
            if birth.role is Role.DISPATCHER:
                return self._be_dispatcher(birth)
            if birth.role is Role.TERMINATOR:
                return self._be_terminator(config, birth, credentials)
            found = hooks.load(config, hooks.WORKER)
        except BootError as error:
            birth.channel.failed(str(error), error.detail)
            return CANNOT_START
        if self._acceptor.front is not None:
            config = _behind(self._acceptor.front, config)
        run_hook(found, "on_worker_start", slot=birth.slot, generation=birth.generation)
        birth.channel.then = lambda: run_hook(found, "on_worker_ready", slot=birth.slot, generation=birth.generation)
        return run_worker(
            config,
            self._acceptor.listeners(birth.slot),
            row=birth.row,
            reporter=birth.channel,
            applications=self._applications,
            stealing=self._stealing(config, birth),
            has_left=self._has_left,
            balance=self._balance(config, birth),
            credentials=credentials,
            terminators=self._terminators,
            body=self._body,
        )

    def _stealing(self, config: Config, birth: Birth) -> Stealing | None:
        """In a worker: what accepts for its siblings."""
        queues = dict(self._acceptor.queues())
        if birth.slot not in queues:  # the pattern has none, or there are unix sockets only, which are everybody's
            return None
        del queues[birth.slot]
        return Stealing(queues, always=config.process.steal == "always", cells=birth.row.cells)

    def _balance(self, config: Config, birth: Birth) -> Balance | None:
        """In a worker: what compares it with its siblings, if they accept from the same sockets."""
        if config.process.accept != "shared":
            return None
        siblings = [row.cells for slot, rows in enumerate(self._workers) if slot != birth.slot for row in rows]
        return Balance(birth.row.cells, siblings)

    def _has_left(self, slot: int) -> bool:
        """Whether nobody accepts for this slot any more; seats that are empty or boot accept nothing either."""
        return all(row.cells[PHASE] != Phase.READY for row in self._workers[slot])

    def _be_dispatcher(self, birth: Birth) -> int:
        dispatcher = self._acceptor.dispatcher
        assert dispatcher is not None, "there is no such role"
        name_process("dispatcher")
        return dispatcher.run(self._workers, birth.row, birth.channel)

    def _be_terminator(self, config: Config, birth: Birth, credentials: Credentials | None) -> int:
        from aioserve.terminator.main import run_terminator

        front = self._acceptor.front
        assert front is not None and credentials is not None, "there is no such role"
        hide()  # again: another user is seen again
        name_process("terminator")
        mine = slice(SEATS * birth.slot, SEATS * (birth.slot + 1))
        siblings = self._terminators.copy()
        del siblings[mine]
        return run_terminator(
            config,
            front,
            row=birth.row,
            reporter=birth.channel,
            credentials=credentials,
            balance=Balance(birth.row.cells, siblings),
        )

    def _reopen_logs(self) -> None:
        logs.reopen()
        self._give_logs_away(self._config)

    def _give_logs_away(self, config: Config) -> None:
        if self._start.identity is not None:
            surroundings.own_logs(config, self._start.identity)

    def _observers(self) -> list[Observer]:
        observers: list[Observer] = []
        if self._start.manager is not None:
            observers.append(_tell(self._start.manager, self._workers, guest=self._start.predecessor is not None))
        if self._start.pid_file is not None:
            observers.append(Namesake(self._start.pid_file))
        return [*observers, TurningPoints(self._hooks, pid=self._pid)]


def shows_in(config: Config) -> Callable[[Role], bool]:
    """Whose children show certificates, and have their keys."""
    return lambda role: role is (Role.TERMINATOR if config.ssl.processes else Role.WORKER)


def _behind(front: Front, config: Config) -> Config:
    """The configuration of a worker behind terminators.

    These announce the end to load balancers, and workers are told when that is over; and theirs is the port of TLS.
    """
    return replace(
        config,
        timeout=replace(config.timeout, drain_delay=0.0),
        ssl=replace(config.ssl, redirect_port=config.ssl.redirect_port or front.port or 0),
    )


def policy_of(config: Config, *, linger: float) -> Policy:
    """The numbers that a master goes by."""
    timeout = config.timeout
    # Applications shut down one after another.
    applications = len(config.app.mount) + bool(config.app.target)
    return Policy(
        boot_timeout=timeout.boot,
        # A developer's breakpoint stops the loop, and is not to be shot at.
        worker_limit=max(timeout.worker, SHORTEST_LIMIT) if timeout.worker and not config.reload.enabled else 0.0,
        drain_delay=timeout.drain_delay,
        grace=timeout.graceful_shutdown,
        margin=timeout.lifespan_shutdown * applications + KILL_MARGIN,
        linger=linger,
        boot_failure_ends=not config.reload.enabled,
        no_reload=NO_RELOAD if config.process.preload else "",
    )


def run_hook(found: Mapping[str, Hook], name: str, *, slot: int | None = None, generation: int = 1) -> None:
    """Call the hook of this name, if there is one, about this process."""
    if name in found:
        found[name].run(Moment(hook=name, pid=os.getpid(), slot=slot, generation=generation))


def _load_hooks(config: Config) -> dict[str, Hook]:
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


def _tell(manager: Manager, workers: Sequence[Sequence[Row]], *, guest: bool) -> Observer:
    """What tells the service manager how the server is."""

    def healthy() -> bool:
        rows = (row.snapshot() for seats in workers for row in seats)
        return any_turns(rows, time.monotonic_ns(), manager.watchdog or 0.0)

    return ServiceManager(
        NotifySocket(manager.address).send, pid=os.getpid(), watchdog=manager.watchdog, healthy=healthy, guest=guest
    )


def say(line: Say) -> None:
    """Write what the master's state machine has to say."""
    level = logging.getLevelNamesMapping()[line.level.upper()]
    log.log(level, "%s", line.text)
    if line.detail:
        log.log(level, "%s", line.detail)
