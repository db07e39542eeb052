"""The supervisor's decisions: a pure state machine, ``handle(event, now) -> actions``.

It is told what happened and says what to do; it touches neither processes nor clocks. Its parts share a ``Crew``:
``Losses`` says what follows from a child that was lost, ``Rollout`` replaces, adds and takes away slots, ``Watchdog``
gives up on loops that stand still, ``Heir`` is about a new master. Here are the start, a child's life, and the end:

- Start: every slot is filled at once.
- Stop: TERM to all, KILL after grace and margin. A second request makes it quick: QUIT to all, KILL after 5 s. The
  master's copies of the sockets are closed when the workers stop accepting, after ``Policy.drain_delay``. Who leads (a
  dispatcher, or processes that speak TLS for the workers) is told first, and the others when everything has been
  passed on.

Each event handler records what is new and acts on the child concerned; ``_settle`` then does what follows from the
state as a whole (fill empty slots, take the next step of a rollout, end). Whatever waits for a time is a deadline of a
child, a slot or a part, and the last action is ``WakeAt`` the earliest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never, final

from aioserve.master.crew import CANNOT_START, CLEAN, Crew
from aioserve.master.events import (
    Beats,
    BootFailed,
    DrainRequested,
    Exited,
    GrowFailed,
    Grown,
    HeirFailed,
    HeirReady,
    HeirStarted,
    Level,
    Milestone,
    PassedOn,
    PredecessorGone,
    Prepared,
    PrepareFailed,
    Quit,
    Ready,
    RecycleRequested,
    ReloadRequested,
    ReopenRequested,
    ResizeRequested,
    Role,
    Sig,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Tick,
    Unlisten,
    UpgradeRequested,
    WakeAt,
)
from aioserve.master.heir import Heir
from aioserve.master.losses import Losses, who_killed
from aioserve.master.rollout import Rollout
from aioserve.master.slots import Life, Phase, Policy, RoleSpec
from aioserve.master.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.master.events import Action, Event
    from aioserve.master.slots import Child

__all__ = ["CANNOT_START", "Machine", "Policy", "Role", "RoleSpec"]


@final
class Machine:
    """Feed it every event in order; carry out the actions in order.

    ``shared``: the sockets were taken over from an old master, which is still there.
    """

    def __init__(self, specs: Sequence[RoleSpec], policy: Policy, *, shared: bool = False) -> None:
        self._crew: Final = Crew(specs, policy)
        self._crew.shared = shared
        self._rollout: Final = Rollout(self._crew)
        self._losses: Final = Losses(self._crew, self._rollout, self._stop)
        self._watchdog: Final = Watchdog(self._crew, self._losses.stuck)
        self._heir: Final = Heir(self._crew, self._rollout)
        self._announced = False
        self._stop_at = 0.0  # when the last wish to stop came
        self._unlisten_at: float | None = None

    @property
    def specs(self) -> tuple[RoleSpec, ...]:
        return self._crew.specs

    @property
    def policy(self) -> Policy:
        return self._crew.policy

    @property
    def workers(self) -> int:
        """How many the configuration wants."""
        return self._rollout.configured

    @property
    def generations(self) -> set[int]:
        """Those that children belong to, or may belong to."""
        return self._rollout.generations

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event and answer what to do. ``WakeAt`` comes last, or ``Quit`` when all is over."""
        if self._crew.phase is Phase.GONE:
            return []
        self._crew.begin(now)
        self._take(event)
        self._settle()
        return self._crew.actions

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._start()
            case Spawned():
                self._spawned(event)
            case SpawnFailed():
                self._spawn_failed(event)
            case Ready():
                self._ready(event)
            case BootFailed():
                self._boot_failed(event)
            case Exited():
                self._exited(event)
            case ReloadRequested():
                self._reload_requested(event)
            case Prepared():
                self._rollout.prepared(event)
            case PrepareFailed():
                self._rollout.refused(event)
            case RecycleRequested():
                self._recycle_requested(event)
            case PassedOn():
                self._passed_on(event)
            case ResizeRequested():
                self._resize_requested(event)
            case Grown():
                self._rollout.grown(event.slot)
            case GrowFailed():
                self._rollout.not_grown(event.slot, event.reason)
            case Beats():
                self._watchdog.look(event)
            case UpgradeRequested():
                self._heir.upgrade(event)
            case HeirStarted():
                self._heir.started(event)
            case HeirReady():
                self._heir.serves()
            case HeirFailed():
                self._heir.failed(event)
            case DrainRequested():
                self._heir.drain(event)
            case PredecessorGone():
                self._heir.alone()
            case StopRequested():
                self._stop_requested(event)
            case ReopenRequested():
                self._reopen()
            case Tick():
                self._tick()
            case _:
                assert_never(event)

    # What happened

    def _start(self) -> None:
        crew = self._crew
        crew.move(Phase.STARTING)
        for slot in crew.slots:
            slot.spawn_at = crew.now

    def _spawned(self, event: Spawned) -> None:
        crew = self._crew
        child = crew.seat(event.role, event.slot, event.seat)
        child.pid = event.pid
        child.deadline = crew.now + child.policy.boot_timeout
        child.move(Life.BOOTING)
        crew.by_pid[event.pid] = child
        if not crew.wants(child.slot):
            crew.dismiss(child)

    def _spawn_failed(self, event: SpawnFailed) -> None:
        child = self._crew.seat(event.role, event.slot, event.seat)
        child.failure = f"no process could be started: {event.reason}"
        self._crew.remove(child)
        if not self._crew.stopping:
            self._losses.never_ready(child)

    def _ready(self, event: Ready) -> None:
        crew = self._crew
        child = crew.by_pid.get(event.pid)
        if child is None:
            return
        if child.life is not Life.BOOTING:
            # It became ready just when it was told TERM instead of QUIT, being still in its boot.
            if child.life is Life.QUITTING:
                crew.kill(child, Sig.QUIT)
            return
        child.move(Life.READY)
        child.ready_at = crew.now
        child.deadline = None
        slot = child.slot
        slot.ever_ready = True
        slot.generation = child.generation
        if not slot.retiring:
            crew.steer(slot, away=False)
        if child.reopen_due:
            crew.kill(child, Sig.USR1)
        if not self._rollout.ready(child) and self._announced:
            crew.say(Level.INFO, f"{child.label} is ready")

    def _boot_failed(self, event: BootFailed) -> None:
        child = self._crew.by_pid.get(event.pid)
        if child is None or child.life is not Life.BOOTING:
            return
        child.move(Life.FAILED)
        child.failure = event.message
        child.detail = event.detail
        child.deadline = self._crew.now + self._crew.policy.quick_limit

    def _exited(self, event: Exited) -> None:
        crew = self._crew
        child = crew.by_pid.pop(event.pid, None)
        if child is None:
            self._heir.exited(event)
            return
        life = child.life
        crew.remove(child)
        if child.ready_at is not None and (life is Life.STUCK or child.aborted):
            crew.say(Level.ERROR, f"{child.label} {event.how}, by aioserve, because it was stuck")
        elif child.told_to_leave:
            served = child.ready_at is not None and child.slot.spec.required
            if event.status != 0 and served and life is not Life.KILLED:
                crew.say(Level.ERROR, f"{child.label} {event.how}{who_killed(event)} while it was leaving")
                crew.blame(child)
        elif child.ready_at is None:
            child.failure = child.failure or f"{event.how}{who_killed(event)} before it was ready"
            if not crew.stopping:
                self._losses.never_ready(child)
        else:
            self._losses.crashed(child, child.ready_at, event)

    def _reload_requested(self, event: ReloadRequested) -> None:
        if self._crew.stopping:
            self._crew.say(Level.INFO, f"{event.reason}: no reload, the server is stopping")
        elif self._crew.dormant:
            self._heir.take_back(event.reason)
        elif self._crew.policy.no_reload:
            self._crew.say(Level.ERROR, f"{event.reason}: no reload: {self._crew.policy.no_reload}")
        else:
            self._rollout.reload(event)

    def _recycle_requested(self, event: RecycleRequested) -> None:
        child = self._crew.by_pid.get(event.pid)
        if child is not None:
            self._rollout.recycle(child, event.reason)

    def _passed_on(self, event: PassedOn) -> None:
        child = self._crew.by_pid.get(event.pid)
        if child is not None:
            child.passed_on = True

    def _resize_requested(self, event: ResizeRequested) -> None:
        crew = self._crew
        if crew.stopping:
            crew.say(Level.INFO, f"{event.reason}: nothing changes, the server is stopping")
        elif crew.shared:
            crew.say(Level.WARNING, f"{event.reason}: nothing changes while there are two masters")
        else:
            self._rollout.resize(event)

    def _stop_requested(self, event: StopRequested) -> None:
        crew = self._crew
        if crew.phase is Phase.QUITTING:
            return
        again = crew.phase is Phase.STOPPING
        # Beside a new master QUIT is the last word of an upgrade, and nobody is in a hurry.
        quick = event.quick and (again or not self._heir.ready)
        if again and not quick and crew.now < self._stop_at + crew.policy.same_wish:
            return
        quick = quick or again
        self._stop_at = crew.now
        how = (
            "stopping at once"
            if quick
            else f"stopping: requests may take {crew.policy.grace:g} s more; a second signal stops at once"
        )
        crew.say(Level.INFO, f"{event.reason}: {how}")
        self._stop(Phase.QUITTING if quick else Phase.STOPPING)

    def _reopen(self) -> None:
        for child in self._crew.children:
            if child.ready_at is not None:
                self._crew.kill(child, Sig.USR1)
            else:
                # The default action of USR1 is death, and a child that boots may not have its handlers yet.
                child.reopen_due = True

    def _tick(self) -> None:
        crew = self._crew
        for child in crew.children:
            if child.deadline is not None and child.deadline <= crew.now:
                self._overdue(child)
            if not child.passed_on and child.awaited_until is not None and child.awaited_until <= crew.now:
                child.passed_on = True
                crew.say(Level.WARNING, f"{child.label} may still pass something on; the others do not wait for it")

    # What becomes of a child

    def _overdue(self, child: Child) -> None:
        if child.life is Life.STUCK:
            self._watchdog.press(child)
        elif child.life is Life.BOOTING:
            self._watchdog.give_up_boot(child)
        else:
            if child.told_to_leave:
                self._crew.say(
                    Level.WARNING, f"{child.label} did not leave in time and is killed; its requests are lost"
                )
                self._crew.blame(child)
            child.deadline = None
            child.move(Life.KILLED)
            self._crew.kill(child, Sig.KILL)

    # What follows from the state as a whole

    def _settle(self) -> None:
        crew = self._crew
        if crew.phase is Phase.STARTING and all(slot.settled for slot in crew.required()):
            crew.move(Phase.SERVING)
        if not crew.stopping:
            self._announce()
            if crew.phase is Phase.SERVING and not crew.dormant:
                self._rollout.advance()
                self._heir.advance()
            crew.fill()
        elif self._unlisten_at is not None and self._unlisten_at <= crew.now:
            self._unlisten_at = None
            crew.actions.append(Unlisten())
        if crew.stopping or crew.dormant:
            crew.send_home(accepting=self._unlisten_at is not None)
        if crew.stopping and not any(slot.children for slot in crew.slots):
            crew.move(Phase.GONE)
            level = Level.INFO if crew.status == CLEAN else Level.ERROR
            crew.say(level, "stopped" if crew.status == CLEAN else f"stopped, with status {crew.status}")
            crew.actions.append(Quit(crew.status))
        else:
            times = (crew.earliest(), self._rollout.wake(), self._watchdog.wake(), self._unlisten_at)
            crew.actions.append(WakeAt(min((time for time in times if time is not None), default=None)))

    def _announce(self) -> None:
        crew = self._crew
        if not self._announced and all(slot.ever_ready for slot in crew.required()):
            self._announced = True
            count = sum(slot.spec.role is Role.WORKER for slot in crew.required())
            workers = f"{count} worker{'' if count == 1 else 's'}"
            crew.say(Level.INFO, f"ready: {workers}")
            crew.mark(Milestone.SERVING, f"serving: {workers}")

    def _stop(self, phase: Phase) -> None:
        crew = self._crew
        crew.move(phase)
        crew.mark(Milestone.STOPPING, "stopping" if phase is Phase.STOPPING else "stopping at once")
        # With nobody to accept, a connection that the kernel takes would wait for the end of the drain. The workers
        # take what waits before they close their copies, so theirs have to be the last: this comes before the signals.
        if phase is Phase.QUITTING or not crew.policy.drain_delay:
            self._unlisten_at = None
            crew.actions.append(Unlisten())
        else:
            self._unlisten_at = crew.now + crew.policy.drain_delay
        self._rollout.cancel()
        for slot in crew.slots:
            slot.spawn_at = None
