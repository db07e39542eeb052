"""What the supervisor remembers: its phase, the slots, the child in each seat, and the numbers it goes by.

A slot is a numbered place for a process. It has two seats, because a successor starts while its predecessor still
serves. At most one child of a slot is to stay (its *holder*), except while a rollout waits for the successor. What
must outlive a child (generation, crash count, time of the next attempt) belongs to the slot.

A child moves  SPAWNING -> BOOTING -> READY -> DRAINING -> GONE  in a good life. Nothing here decides anything.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioserve.master.events import Role


@final
class Phase(enum.Enum):
    """The server as a whole."""

    NEW = enum.auto()
    STARTING = enum.auto()  # until every required slot has been ready once
    SERVING = enum.auto()
    STOPPING = enum.auto()  # all children were told TERM
    QUITTING = enum.auto()  # all children were told to leave at once
    GONE = enum.auto()


@final
class Life(enum.Enum):
    """One child."""

    SPAWNING = enum.auto()  # asked for, no process id yet
    BOOTING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()  # has said that it cannot serve, and will exit
    STUCK = enum.auto()  # its loop stands still, or its boot does not end: it writes its stacks and is killed
    DRAINING = enum.auto()  # was told TERM
    QUITTING = enum.auto()  # was told to leave at once
    KILLED = enum.auto()  # was sent KILL, not yet reaped
    GONE = enum.auto()


# The one table of moves, for the server and for a child.
LEGAL: Final[Mapping[Phase | Life, frozenset[Phase | Life]]] = {
    Phase.NEW: frozenset({Phase.STARTING}),
    Phase.STARTING: frozenset({Phase.SERVING, Phase.STOPPING, Phase.QUITTING}),
    Phase.SERVING: frozenset({Phase.STOPPING, Phase.QUITTING}),
    Phase.STOPPING: frozenset({Phase.QUITTING, Phase.GONE}),
    Phase.QUITTING: frozenset({Phase.GONE}),
    Phase.GONE: frozenset(),
    Life.SPAWNING: frozenset({Life.BOOTING, Life.GONE}),
    Life.BOOTING: frozenset({Life.READY, Life.FAILED, Life.STUCK, Life.DRAINING, Life.QUITTING, Life.GONE}),
    Life.READY: frozenset({Life.STUCK, Life.DRAINING, Life.QUITTING, Life.GONE}),
    Life.FAILED: frozenset({Life.KILLED, Life.GONE}),
    Life.STUCK: frozenset({Life.KILLED, Life.GONE}),
    Life.DRAINING: frozenset({Life.STUCK, Life.QUITTING, Life.KILLED, Life.GONE}),
    Life.QUITTING: frozenset({Life.KILLED, Life.GONE}),
    Life.KILLED: frozenset({Life.GONE}),
    Life.GONE: frozenset(),
}

_STAYING: Final = frozenset({Life.SPAWNING, Life.BOOTING, Life.READY})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """How many slots a role has and what its children mean to the server."""

    role: Role
    slots: int
    reloads: bool  # replaced by a reload
    required: bool  # the server has started when it is ready, and cannot start without it; it serves and is watched
    most: int = 0  # it may grow to so many slots; 0: it stays as it is
    leads: int = 0  # those with less have their connections from it, and are told to leave when it has no more of them
    relays: bool = False  # what it has passed on goes through it for as long as it lives

    @property
    def room(self) -> int:
        """How many slots there have to be rows for."""
        return max(self.slots, self.most)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The supervisor's numbers, in seconds."""

    boot_timeout: float  # from fork to Ready
    grace: float  # what a worker gives its requests after TERM
    margin: float  # what it may need after that (lifespan shutdown, slack) before KILL
    # One retry at once, then these. 30 s is where a wait stops helping the machine and starts hurting the operator.
    backoff_initial: float = 0.5
    backoff_max: float = 30.0
    stable_after: float = 10.0  # ready this long: earlier crashes are forgotten
    # After so many failures in a row of one slot, while nobody serves well, the server ends: some 30 s of trying, which
    # is where an orchestrator's own restart (another machine, the last release) helps more. 0: never.
    breaker_failures: int = 8
    worker_limit: float = 0.0  # a loop that has stood still this long is not waited for; 0: for ever
    stacks_time: float = 1.0  # from the order to write stacks to ABRT, or to KILL if it was still booting
    abort_time: float = 2.0  # from ABRT to KILL: the kernel may have a core to write
    recycle_retry: float = 30.0  # a recycling whose successor could not start is tried again
    linger: float = 0.0  # a slot that goes away accepts this much longer
    drain_delay: float = 0.0  # after a graceful stop was asked for, workers accept this much longer
    quick_limit: float = 5.0  # from a quick stop, or a reported failure, to KILL
    # After so long nobody waits for who relays to pass on what it has accepted: twice what it gives that itself.
    pass_on_limit: float = 5.0
    # timeout(1), shells and supervisors that signal a process and its group send the same wish to stop twice.
    same_wish: float = 0.25
    no_reload: str = ""  # why there is no reload; empty: there is
    boot_failure_ends: bool = True  # False (--reload): the slot stays empty until the next reload


@final
@dataclass(slots=True, eq=False)
class Child:
    """One process, from the decision to start it until it has been reaped."""

    slot: Slot
    seat: int
    generation: int
    serial: int  # of two children of a slot, the one with the lower number is the older
    policy: Policy  # of its generation: the child itself goes by these times
    life: Life = Life.SPAWNING
    pid: int = 0
    ready_at: float | None = None
    deadline: float | None = None  # KILL at this time
    told_to_leave: bool = False
    passed_on: bool = False  # it has nothing new for those that it leads
    awaited_until: float | None = None  # they wait no longer than this for it
    reopen_due: bool = False  # logs were moved away while it booted
    failure: str = ""  # why it cannot serve, in its own words or ours
    detail: str = ""
    worst_lag: float = 0.0  # of its loop, while it is late; 0: it is on time
    aborted: bool = False
    recycle: str = ""  # why it wants a successor
    recycle_at: float = 0.0  # not before this time

    def move(self, to: Life) -> None:
        assert to in LEGAL[self.life], f"{self.label}: {self.life} -> {to}"
        self.life = to

    @property
    def stays(self) -> bool:
        """It serves or will, as far as we know."""
        return self.life in _STAYING

    @property
    def label(self) -> str:
        return f"{self.slot.label} (pid {self.pid})"


@final
@dataclass(slots=True, eq=False)
class Slot:
    """A place for a process, and what outlives the processes that hold it."""

    spec: RoleSpec
    number: int
    generation: int = 1  # what the next child belongs to
    seats: list[Child | None] = field(default_factory=lambda: [None, None])
    ever_ready: bool = False
    failures: int = 0
    spawn_at: float | None = None  # None: nothing planned
    retiring: bool = False  # it goes away with the children it has
    avoided: bool = False  # new connections go to other slots
    numbered: bool = False  # it has, or had, others beside it

    @property
    def label(self) -> str:
        return f"{self.spec.role.value} {self.number}" if self.numbered else self.spec.role.value

    @property
    def children(self) -> list[Child]:
        return [child for child in self.seats if child is not None]

    @property
    def holder(self) -> Child | None:
        """The child that is to stay; while a rollout waits for a successor, the older of the two."""
        return min((child for child in self.children if child.stays), key=lambda child: child.serial, default=None)

    @property
    def free_seat(self) -> int | None:
        return next((seat for seat, child in enumerate(self.seats) if child is None), None)

    @property
    def settled(self) -> bool:
        """It has been ready, or nothing more will happen to it until a reload."""
        return self.ever_ready or (self.spawn_at is None and not self.children)

    def put_off(self, now: float, ready_at: float | None, policy: Policy) -> float:
        """Plan the next attempt after a failure, and answer how long that is."""
        if ready_at is not None and now - ready_at >= policy.stable_after:
            self.failures = 0
        self.failures += 1
        if self.failures == 1:
            delay = 0.0
        else:
            # The exponent is bounded, because a float is: 2.0 ** 1024 overflows after some hours of failing.
            delay = min(policy.backoff_max, policy.backoff_initial * 2.0 ** min(self.failures - 2, 64))
        self.spawn_at = now + delay
        return delay
