"""What the master does: carries out actions, in the order in which the machine gives them, and answers some of them.

It keeps the kin: every process that the master has started and not yet reaped, the children and the new master. Only
kin is ever signalled.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never, final

from aioserve.accept.base import Keeper
from aioserve.errors import BindError, ConfigError
from aioserve.master import channel as channels
from aioserve.master import forks, upgrade
from aioserve.master.events import (
    Forget,
    Grow,
    GrowFailed,
    Grown,
    HeirFailed,
    HeirStarted,
    Kill,
    Level,
    Mark,
    Milestone,
    Prepare,
    Prepared,
    PrepareFailed,
    Quit,
    Role,
    Say,
    Spawn,
    Spawned,
    SpawnFailed,
    Steer,
    Unlisten,
    Upgrade,
    WakeAt,
)
from aioserve.observe.scoreboard import PID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioserve.accept.base import Acceptor
    from aioserve.master.events import Action, Event
    from aioserve.master.machine import Machine
    from aioserve.master.slots import Policy
    from aioserve.observe.scoreboard import Row, Scoreboard


#: Who keeps sockets, besides workers.
_KEEPERS: Final = {Role.DISPATCHER: Keeper.DISPATCHER, Role.TERMINATOR: Keeper.TERMINATOR}


@final
@dataclass(frozen=True, slots=True)
class Generation:
    """What the configuration makes of the children that start with it."""

    child: Callable[[channels.Birth], int]  # runs in the new process and answers its exit status
    workers: int
    policy: Policy


@final
@dataclass(frozen=True, slots=True, eq=False)
class Kin:
    """A process that we have started."""

    channel: channels.MasterChannel
    row: Row | None = None  # None: it is the new master
    worker: int | None = None  # the slot, if it is a worker
    role: Role | None = None


@final
class Hands:
    """``act`` on every action but those of the loop itself (WakeAt, Say, Quit)."""

    def __init__(
        self,
        machine: Machine,
        *,
        child: Callable[[channels.Birth], int],
        renew: Callable[[], Generation] | None,
        acceptor: Acceptor,
        scoreboard: Scoreboard,
        log: Callable[[Say], None],
        origin: upgrade.Origin,
        predecessor: upgrade.Predecessor | None,
        kin: dict[int, Kin],
        caught: Iterable[int],
        listen: Callable[[channels.MasterChannel, int], None],
        close: Callable[[], None],
    ) -> None:
        self._machine: Final = machine
        self._generations: Final = {1: child}
        self._renew: Final = renew or (lambda: Generation(child, machine.workers, machine.policy))
        self._acceptor: Final = acceptor
        self._scoreboard: Final = scoreboard
        self._log: Final = log
        self._origin: Final = origin
        self.predecessor = predecessor
        self._kin: Final = kin
        self._caught: Final = tuple(caught)
        self._listen: Final = listen  # to a new process, from now on
        self._close: Final = close  # what a new process must not keep open
        # The rows of a role come after those of the roles before it.
        self._first_row: Final[dict[Role, int]] = {}
        rows = 0
        for spec in machine.specs:
            self._first_row[spec.role] = rows
            rows += spec.room

    def act(self, action: Action) -> Event | None:
        """Carry it out; some actions have an answer."""
        match action:
            case Spawn():
                return self._spawn(action)
            case Kill():
                # Reaped a moment ago, while the machine hears its last words: the number may be another's.
                if action.pid in self._kin:
                    os.kill(action.pid, signal.Signals[action.sig.value])
            case Prepare():
                return self._prepare(action.generation)
            case Grow():
                return self._grow(action.slot)
            case Steer():
                steer = self._acceptor.retire if action.away else self._acceptor.restore
                steer(action.slot)
            case Forget():
                self._acceptor.forget(action.slot)
            case Unlisten():
                has_heir = any(kin.row is None for kin in self._kin.values())
                if not has_heir:
                    self._acceptor.refuse()
                self._acceptor.close(keep_files=has_heir)
            case Upgrade():
                return self._upgrade()
            case Mark():
                if action.milestone is Milestone.SERVING and self.predecessor is not None:
                    self.predecessor.channel.ready()
            case WakeAt() | Say() | Quit():
                raise AssertionError(f"{action} is for the loop")
            case _:
                assert_never(action)
        return None

    def joined(self, kin: Kin) -> None:
        """It says that it is ready."""
        if kin.worker is not None:
            self._acceptor.joined(kin.worker)

    def left(self, kin: Kin) -> None:
        """It has been reaped."""
        if kin.row is not None:
            kin.row.clear()
        else:
            self._acceptor.reclaim()

    def be_alone(self) -> None:
        """The old master has gone."""
        if self.predecessor is not None:
            self.predecessor.channel.close()
            self.predecessor = None
            self._acceptor.alone()

    def _prepare(self, number: int) -> Event:
        try:
            generation = self._renew()
        except ConfigError as error:
            for problem in error.problems:
                self._log(Say(Level.ERROR, problem))
            count = len(error.problems)
            return PrepareFailed(number, f"the configuration has {count} mistake{'' if count == 1 else 's'}")
        for unused in self._generations.keys() - self._machine.generations:
            del self._generations[unused]
        self._generations[number] = generation.child
        return Prepared(number, generation.workers, generation.policy)

    def _grow(self, slot: int) -> Event:
        try:
            self._acceptor.grow(slot)
        except BindError as error:
            return GrowFailed(slot, str(error))
        return Grown(slot)

    def _upgrade(self) -> Event:
        if os.getpid() == 1:
            return HeirFailed("this master is process 1, and its end is the container's; start a new container instead")
        try:
            pid, channel = upgrade.launch(self._origin, self._acceptor.hand_over())
        except OSError as error:
            return HeirFailed(f"no process could be started: {error.strerror}")
        self._kin[pid] = Kin(channel)
        self._listen(channel, pid)
        return HeirStarted(pid)

    def _spawn(self, spawn: Spawn) -> Event:
        row = self._scoreboard.row(self._first_row[spawn.role] + spawn.slot, spawn.seat)
        try:
            mine, theirs = channels.pair()
        except OSError as error:
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, f"socketpair: {error.strerror}")
        row.begin(generation=spawn.generation, started_ns=time.monotonic_ns())
        birth = channels.Birth(role=spawn.role, slot=spawn.slot, generation=spawn.generation, row=row, channel=theirs)
        worker = spawn.slot if spawn.role is Role.WORKER else None
        keeper = worker if worker is not None else _KEEPERS.get(spawn.role)
        child = self._generations[spawn.generation]

        def clear() -> None:
            mine.close()
            self._leave_to_child()
            self._acceptor.keep_only(keeper)
            row.cells[PID] = os.getpid()

        try:
            pid = forks.fork(lambda: child(birth), caught=self._caught, clear=clear)
        except OSError as error:
            mine.close()
            row.clear()
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, f"fork: {error.strerror}")
        finally:
            theirs.close()
        row.cells[PID] = pid
        self._kin[pid] = Kin(mine, row, worker, spawn.role)
        self._listen(mine, pid)
        return Spawned(spawn.role, spawn.slot, spawn.seat, pid)

    def _leave_to_child(self) -> None:
        """In a new process: close what is the master's."""
        # A copy of the master's end in a sibling would keep that sibling's brothers from seeing the master die.
        for kin in self._kin.values():
            kin.channel.close()
        if self.predecessor is not None:
            self.predecessor.channel.close()
        self._close()
