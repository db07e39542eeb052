"""The vocabulary between the supervisor's decisions and the world: events in, actions out.

Plain frozen values. The shell makes events and carries out actions; the machine does the opposite. Every event comes
with the time at which it is handled, so none carries one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

if TYPE_CHECKING:
    from aioserve.master.slots import Policy


@final
class Role(enum.Enum):
    """What a slot is for. The value is what logs say."""

    WORKER = "worker"
    DISPATCHER = "dispatcher"  # accepts for all workers and passes connections on
    TERMINATOR = "terminator"  # speaks TLS for the workers, and relays
    WATCHER = "watcher"  # watches files for --reload


@final
class Sig(enum.Enum):
    """What the master tells a child by signal. The values are the names in the signal module."""

    TERM = "SIGTERM"  # finish what you serve and leave
    QUIT = "SIGQUIT"  # leave now, but in order
    USR1 = "SIGUSR1"  # reopen your logs
    USR2 = "SIGUSR2"  # write your stacks and your requests in flight to the log; sent when the loop stands still
    ABRT = "SIGABRT"  # follows USR2: end with a core, if there is to be one
    KILL = "SIGKILL"


@final
class Level(enum.StrEnum):
    """How loud a line is; the names are those of the logging module in lower case."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@final
class Milestone(enum.Enum):
    """Where the server as a whole is: what a service manager wants to know."""

    SERVING = enum.auto()  # every first worker is ready, or a reload is over
    RELOADING = enum.auto()
    STOPPING = enum.auto()


@final
@dataclass(frozen=True, slots=True)
class Started:
    """The sockets are bound and the signals are caught: fill the slots. The first event, once."""


@final
@dataclass(frozen=True, slots=True)
class Spawned:
    """A ``Spawn`` was carried out. Comes before any other event about this process."""

    role: Role
    slot: int
    seat: int
    pid: int


@final
@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """A ``Spawn`` could not be carried out: no memory, no more processes, no more descriptors."""

    role: Role
    slot: int
    seat: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Ready:
    """The child serves."""

    pid: int


@final
@dataclass(frozen=True, slots=True)
class BootFailed:
    """The child cannot serve, says why, and is about to exit."""

    pid: int
    message: str
    detail: str


@final
@dataclass(frozen=True, slots=True)
class Exited:
    """A process was reaped. It may be nobody we know: a process 1 inherits orphans."""

    pid: int
    status: int  # as os.waitstatus_to_exitcode() says it: negative is a signal
    how: str  # the same for people: "killed by SIGSEGV", "exited with status 1"
    out_of_memory: bool = False  # the kernel has counted a kill for want of memory since the last exit


@final
@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """Replace every worker by one that has loaded the application anew; a dormant server takes its workers back."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """A ``Prepare`` was carried out: what children of this generation will be like, and how many workers are wanted."""

    generation: int
    workers: int
    policy: Policy


@final
@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """A ``Prepare`` could not be carried out: the configuration is broken. All its mistakes are in the log already."""

    generation: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class RecycleRequested:
    """A worker has reached a limit on its life and wants a successor."""

    pid: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class PassedOn:
    """A child that was told to leave accepts no more, and all that it had accepted has got to the others."""

    pid: int


@final
@dataclass(frozen=True, slots=True)
class ResizeRequested:
    """So many workers more, or less if it is negative."""

    change: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Grown:
    """A ``Grow`` was carried out: the slot has its sockets."""

    slot: int


@final
@dataclass(frozen=True, slots=True)
class GrowFailed:
    """A ``Grow`` could not be carried out."""

    slot: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Beats:
    """How long ago the loop of each child that serves has last turned: (process id, seconds)."""

    ages: tuple[tuple[int, float], ...]


@final
@dataclass(frozen=True, slots=True)
class UpgradeRequested:
    """Start a new master, with new code, that takes over the sockets."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class HeirStarted:
    """An ``Upgrade`` was carried out: this process is to become the new master."""

    pid: int


@final
@dataclass(frozen=True, slots=True)
class HeirReady:
    """The new master's workers serve."""


@final
@dataclass(frozen=True, slots=True)
class HeirFailed:
    """There is no new master: it could not be started, or says why it cannot serve."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class PredecessorGone:
    """The old master, whose sockets we have taken over, has ended."""


@final
@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Let the workers finish and leave, and stay: a new master serves."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class StopRequested:
    """End the server. A second request makes a graceful stop a quick one."""

    quick: bool
    reason: str


@final
@dataclass(frozen=True, slots=True)
class ReopenRequested:
    """The log files were moved away: every process opens them again."""


@final
@dataclass(frozen=True, slots=True)
class Tick:
    """The time of the last ``WakeAt`` has come."""


Event: TypeAlias = (
    Started
    | Spawned
    | SpawnFailed
    | Ready
    | BootFailed
    | Exited
    | ReloadRequested
    | Prepared
    | PrepareFailed
    | RecycleRequested
    | PassedOn
    | ResizeRequested
    | Grown
    | GrowFailed
    | Beats
    | UpgradeRequested
    | HeirStarted
    | HeirReady
    | HeirFailed
    | PredecessorGone
    | DrainRequested
    | StopRequested
    | ReopenRequested
    | Tick
)


@final
@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a child into this seat and answer with ``Spawned`` or ``SpawnFailed`` before any other event."""

    role: Role
    slot: int
    seat: int
    generation: int


@final
@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal to a child that has not been reaped."""

    pid: int
    sig: Sig


@final
@dataclass(frozen=True, slots=True)
class Prepare:
    """A generation is about to start: read its configuration, and answer before any other event."""

    generation: int


@final
@dataclass(frozen=True, slots=True)
class Grow:
    """Make sockets for one more worker, and answer with ``Grown`` or ``GrowFailed`` before any other event."""

    slot: int


@final
@dataclass(frozen=True, slots=True)
class Steer:
    """Let new connections go to other workers than this one, or to this one again."""

    slot: int
    away: bool


@final
@dataclass(frozen=True, slots=True)
class Forget:
    """The worker's slot is no more, and its last child has gone: close its sockets everywhere."""

    slot: int


@final
@dataclass(frozen=True, slots=True)
class Unlisten:
    """From now on nobody accepts: close the master's copies of the sockets."""


@final
@dataclass(frozen=True, slots=True)
class Upgrade:
    """Start the new master, and answer with ``HeirStarted`` or ``HeirFailed`` before any other event."""


@final
@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send ``Beats`` and a ``Tick`` at this time, unless told otherwise before; None: no tick is needed."""

    time: float | None


@final
@dataclass(frozen=True, slots=True)
class Say:
    """A line for the log; ``detail`` is a traceback that goes below it, or empty."""

    level: Level
    text: str
    detail: str = ""


@final
@dataclass(frozen=True, slots=True)
class Mark:
    """A milestone is reached; nothing is to be done but to tell whoever wants to know."""

    milestone: Milestone
    text: str
    failed: bool = False  # a reload, which is over


@final
@dataclass(frozen=True, slots=True)
class Quit:
    """No child is left: the server ends with this exit status. The last action."""

    status: int


Action: TypeAlias = Spawn | Kill | Prepare | Grow | Steer | Forget | Unlisten | Upgrade | WakeAt | Say | Mark | Quit
