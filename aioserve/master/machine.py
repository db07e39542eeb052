"""The supervisor's decisions: a pure state machine, ``handle(event, now) -> actions``.

It is told what happened and says what to do; it touches neither processes nor clocks. The rules:

- Start: every slot is filled at once. A required child that cannot become ready before the server has started ends
  the server with status 3, because an orchestrator must see a broken release (``Policy.boot_failure_ends``).
- Crash: the slot is filled again at once, then after 0.5, 1, 2 ... 30 s.
- Reload: slot by slot the successor is started in the other seat; only when it is ready is the predecessor told TERM,
  and only when that has gone is it the next slot's turn. A successor that cannot start, or dies in its turn, cancels
  the reload: what was replaced stays replaced, the rest was never touched.
- Stop: TERM to all, KILL after grace and margin. A second request makes it quick: QUIT to all, KILL after 5 s.

Each event handler records what is new and acts on the child concerned; ``_settle`` then does what follows from the
state as a whole (fill empty slots, take the next step of a reload, end). Whatever waits for a time is a deadline of a
child or of a slot, and the last action is ``WakeAt`` the earliest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never, final

from aioserve.master.events import (
    BootFailed,
    Exited,
    Kill,
    Level,
    Mark,
    Milestone,
    Quit,
    Ready,
    RecycleRequested,
    ReloadRequested,
    ReopenRequested,
    Role,
    Say,
    Sig,
    Spawn,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Tick,
    WakeAt,
)
from aioserve.master.slots import LEGAL, Child, Life, Phase, Policy, Reload, RoleSpec, Slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioserve.master.events import Action, Event

__all__ = ["Machine", "Policy", "Role", "RoleSpec"]

# Exit statuses of the server; 2 and 4 (configuration, address) are decided before there is a machine.
CLEAN: Final = 0
FAILED: Final = 1
CANNOT_START: Final = 3

# POSIX gives SIGKILL this number everywhere (kill(1)).
_KILLED: Final = -9


@final
class Machine:
    """Feed it every event in order; carry out the actions in order."""

    def __init__(self, specs: Sequence[RoleSpec], policy: Policy) -> None:
        self.specs: Final = tuple(specs)
        self._policy: Final = policy
        self._slots: Final = [Slot(spec, number) for spec in specs for number in range(spec.slots)]
        self._by_name: Final = {(slot.spec.role, slot.number): slot for slot in self._slots}
        self._by_pid: Final[dict[int, Child]] = {}
        self._phase = Phase.NEW
        self._generation = 1  # the newest there is; a failed reload uses one up
        self._explained = 0  # the newest generation whose failure to start was told in full
        self._announced = False
        self._reload: Reload | None = None
        self._reload_wanted: ReloadRequested | None = None
        self._status = CLEAN
        self._now = 0.0
        self._stop_at = 0.0  # when the last wish to stop came
        self._actions: list[Action] = []

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event and answer what to do. ``WakeAt`` comes last, or ``Quit`` when all is over."""
        if self._phase is Phase.GONE:
            return []
        self._now = now
        self._actions = []
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
            case RecycleRequested():
                pass  # it serves on
            case StopRequested():
                self._stop_requested(event)
            case ReopenRequested():
                self._reopen()
            case Tick():
                self._tick()
            case _:
                assert_never(event)
        self._settle()
        return self._actions

    # What happened

    def _start(self) -> None:
        self._move(Phase.STARTING)
        for slot in self._slots:
            slot.spawn_at = self._now

    def _spawned(self, event: Spawned) -> None:
        child = self._by_name[event.role, event.slot].seats[event.seat]
        assert child is not None, f"nobody was asked for: {event}"
        child.pid = event.pid
        child.deadline = self._now + self._policy.boot_timeout
        child.move(Life.BOOTING)
        self._by_pid[event.pid] = child
        if self._stopping:
            self._dismiss(child)

    def _spawn_failed(self, event: SpawnFailed) -> None:
        child = self._by_name[event.role, event.slot].seats[event.seat]
        assert child is not None, f"nobody was asked for: {event}"
        child.failure = f"no process could be started: {event.reason}"
        self._remove(child)
        if not self._stopping:
            self._never_ready(child)

    def _ready(self, event: Ready) -> None:
        child = self._by_pid.get(event.pid)
        if child is None:
            return
        if child.life is not Life.BOOTING:
            # It became ready just when it was told TERM instead of QUIT, being still in its boot.
            if child.life is Life.QUITTING:
                self._kill(child, Sig.QUIT)
            return
        child.move(Life.READY)
        child.ready_at = self._now
        child.deadline = None
        slot = child.slot
        slot.ever_ready = True
        slot.generation = child.generation
        if child.reopen_due:
            self._kill(child, Sig.USR1)
        if self._reload is not None and child is self._reload.successor:
            self._succeed(self._reload, child)
        elif self._announced:
            self._say(Level.INFO, f"{child.label} is ready")

    def _boot_failed(self, event: BootFailed) -> None:
        child = self._by_pid.get(event.pid)
        if child is None or child.life is not Life.BOOTING:
            return
        child.move(Life.FAILED)
        child.failure = event.message
        child.detail = event.detail
        child.deadline = self._now + self._policy.quick_limit

    def _exited(self, event: Exited) -> None:
        child = self._by_pid.pop(event.pid, None)
        if child is None:
            return
        killed_by_us = child.life is Life.KILLED
        self._remove(child)
        if child.told_to_leave:
            served = child.ready_at is not None and child.slot.spec.required
            if event.status != 0 and served and not killed_by_us:
                self._say(Level.ERROR, f"{child.label} {event.how} while it was leaving")
                self._blame(child)
        elif self._stopping:
            pass  # it failed to start, and the server ends anyway
        elif child.ready_at is None:
            child.failure = child.failure or f"{event.how} before it was ready"
            self._never_ready(child)
        else:
            self._crashed(child, child.ready_at, event)

    def _reload_requested(self, event: ReloadRequested) -> None:
        if self._stopping:
            self._say(Level.INFO, f"{event.reason}: no reload, the server is stopping")
        else:
            if self._reload is not None:
                self._say(Level.INFO, f"{event.reason}: another reload follows the one under way")
            self._reload_wanted = event

    def _stop_requested(self, event: StopRequested) -> None:
        if self._phase is Phase.QUITTING:
            return
        if self._phase is Phase.STOPPING and not event.quick and self._now < self._stop_at + self._policy.same_wish:
            return
        quick = event.quick or self._phase is Phase.STOPPING
        self._stop_at = self._now
        how = (
            "stopping at once"
            if quick
            else f"stopping: requests may take {self._policy.grace:g} s more; a second signal stops at once"
        )
        self._say(Level.INFO, f"{event.reason}: {how}")
        self._stop(Phase.QUITTING if quick else Phase.STOPPING)

    def _reopen(self) -> None:
        for child in self._children():
            if child.ready_at is not None:
                self._kill(child, Sig.USR1)
            else:
                # The default action of USR1 is death, and a child that boots may not have its handlers yet.
                child.reopen_due = True

    def _tick(self) -> None:
        for child in self._children():
            if child.deadline is not None and child.deadline <= self._now:
                self._overdue(child)

    # What becomes of a child

    def _never_ready(self, child: Child) -> None:
        """It has gone without having been ready, and nobody had told it to."""
        slot = child.slot
        self._explain(child)
        reload = self._reload
        if reload is not None and child is reload.successor:
            reload.failure = child.failure
        if slot.holder is not None:
            return
        if not slot.spec.required:
            self._put_off(slot, None)
        elif not self._policy.boot_failure_ends:
            self._say(Level.INFO, f"{slot.label} stays empty until the next reload")
        elif slot.ever_ready:
            self._put_off(slot, None)
        else:
            self._status = CANNOT_START
            self._stop(Phase.QUITTING)

    def _crashed(self, child: Child, ready_at: float, event: Exited) -> None:
        slot = child.slot
        whose = " (not by aioserve: the out-of-memory killer, or a person)" if event.status == _KILLED else ""
        self._say(Level.ERROR, f"{child.label} {event.how}{whose} after {self._now - ready_at:.1f} s of serving")
        reload = self._reload
        if reload is not None:
            if child is reload.successor:
                reload.failure = f"the successor {event.how}"
            elif slot in reload.queue:
                # Its turn comes now: what takes its place belongs to the new generation.
                slot.generation = reload.generation
        if slot.holder is None:
            self._put_off(slot, ready_at)

    def _put_off(self, slot: Slot, ready_at: float | None) -> None:
        delay = slot.put_off(self._now, ready_at, self._policy)
        if delay:
            self._say(
                Level.WARNING, f"{slot.label} starts again in {delay:g} s, after {slot.failures} failures in a row"
            )

    def _explain(self, child: Child) -> None:
        """Say why it could not start; the traceback once per generation, because all would print the same."""
        detail = child.detail if child.generation > self._explained else ""
        who = child.label if child.pid else child.slot.label
        self._say(Level.ERROR, f"{who} could not start: {child.failure}", detail)
        if detail:
            self._explained = child.generation

    def _overdue(self, child: Child) -> None:
        if child.life is Life.BOOTING:
            child.failure = f"not ready after {self._policy.boot_timeout:g} s (timeout.boot), killed"
        elif child.told_to_leave:
            self._say(Level.WARNING, f"{child.label} did not leave in time and is killed; its requests are lost")
            self._blame(child)
        child.deadline = None
        child.move(Life.KILLED)
        self._kill(child, Sig.KILL)

    def _dismiss(self, child: Child) -> None:
        """Tell it to leave, as the phase has it. Who was told before, or is leaving anyway, keeps its deadline."""
        if self._phase is Phase.QUITTING:
            if child.life not in {Life.BOOTING, Life.READY, Life.DRAINING}:
                return
            # While it boots it may have no handlers yet: the default action of QUIT would dump core, TERM just ends it.
            sig = Sig.TERM if child.life is Life.BOOTING else Sig.QUIT
            child.move(Life.QUITTING)
            child.deadline = self._now + self._policy.quick_limit
        else:
            if child.life not in {Life.BOOTING, Life.READY}:
                return
            sig = Sig.TERM
            child.move(Life.DRAINING)
            child.deadline = self._now + self._policy.grace + self._policy.margin
        child.told_to_leave = True
        self._kill(child, sig)

    def _remove(self, child: Child) -> None:
        child.move(Life.GONE)
        child.slot.seats[child.seat] = None

    def _blame(self, child: Child) -> None:
        """A clean end it is not, if the server is ending."""
        if self._stopping and child.slot.spec.required:
            self._status = self._status or FAILED

    # What follows from the state as a whole

    def _settle(self) -> None:
        if self._phase is Phase.STARTING and all(slot.settled for slot in self._required()):
            self._move(Phase.SERVING)
        if not self._stopping:
            self._announce()
            self._fill()
        if self._phase is Phase.SERVING:
            self._roll()
        if self._stopping and not any(slot.children for slot in self._slots):
            self._move(Phase.GONE)
            level = Level.INFO if self._status == CLEAN else Level.ERROR
            self._say(level, "stopped" if self._status == CLEAN else f"stopped, with status {self._status}")
            self._actions.append(Quit(self._status))
        else:
            self._actions.append(WakeAt(self._earliest()))

    def _announce(self) -> None:
        if not self._announced and all(slot.ever_ready for slot in self._required()):
            self._announced = True
            count = len(list(self._required()))
            workers = f"{count} worker{'' if count == 1 else 's'}"
            self._say(Level.INFO, f"ready: {workers}")
            self._mark(Milestone.SERVING, f"serving: {workers}")

    def _fill(self) -> None:
        for slot in self._slots:
            if slot.spawn_at is not None and slot.spawn_at <= self._now and slot.free_seat is not None:
                slot.spawn_at = None
                self._spawn(slot, slot.generation)

    def _roll(self) -> None:
        """Take the reload as far as it goes now."""
        while True:
            if self._reload is None:
                if self._reload_wanted is None:
                    return
                self._reload = self._begin_reload(self._reload_wanted)
                self._reload_wanted = None
            reload = self._reload
            if not reload.step_is_over():
                return
            if reload.failure or not reload.queue:
                self._end_reload(reload)
                self._reload = None
            elif reload.queue[0].free_seat is None:
                return  # a child that failed to start has not left yet; it has a deadline
            else:
                self._next_step(reload)

    def _begin_reload(self, event: ReloadRequested) -> Reload:
        self._generation += 1
        self._say(Level.INFO, f"{event.reason}: reload to generation {self._generation}")
        self._mark(Milestone.RELOADING, f"reloading to generation {self._generation}")
        reload = Reload(self._generation)
        for slot in self._slots:
            if not slot.spec.reloads:
                continue
            if slot.holder is None:
                slot.generation = self._generation
                slot.spawn_at = self._now
            else:
                reload.queue.append(slot)
        reload.total = len(reload.queue)
        self._fill()
        return reload

    def _next_step(self, reload: Reload) -> None:
        slot = reload.queue.popleft()
        holder = slot.holder
        reload.slot = reload.successor = None
        if holder is None:
            slot.generation = reload.generation  # it failed to start meanwhile; the next attempt is a new one
        elif holder.generation != reload.generation:
            reload.slot = slot
            reload.successor = self._spawn(slot, reload.generation)

    def _succeed(self, reload: Reload, successor: Child) -> None:
        """The successor serves: its predecessor may go."""
        reload.replaced += 1
        for child in successor.slot.children:
            if child is not successor and child.stays:
                self._say(Level.INFO, f"{successor.label} is ready and takes over from pid {child.pid}")
                self._dismiss(child)

    def _end_reload(self, reload: Reload) -> None:
        if reload.failure:
            self._say(
                Level.ERROR,
                f"reload to generation {reload.generation} failed: {reload.failure}; "
                f"{reload.replaced} of {reload.total} replaced, the others serve on",
            )
        elif reload.replaced:
            self._say(Level.INFO, f"reload to generation {reload.generation} finished: {reload.replaced} replaced")
        failed = f"serving; the reload to generation {reload.generation} failed: {reload.failure}"
        self._mark(Milestone.SERVING, failed if reload.failure else f"serving, generation {reload.generation}")

    def _stop(self, phase: Phase) -> None:
        self._move(phase)
        self._mark(Milestone.STOPPING, "stopping" if phase is Phase.STOPPING else "stopping at once")
        self._reload = self._reload_wanted = None
        for slot in self._slots:
            slot.spawn_at = None
            for child in slot.children:
                self._dismiss(child)

    # Small change

    @property
    def _stopping(self) -> bool:
        return self._phase in {Phase.STOPPING, Phase.QUITTING}

    def _required(self) -> Iterator[Slot]:
        return (slot for slot in self._slots if slot.spec.required)

    def _children(self) -> list[Child]:
        return list(self._by_pid.values())

    def _earliest(self) -> float | None:
        deadlines = [child.deadline for child in self._by_pid.values()]
        # Without a free seat the slot waits for an exit, not for a time.
        spawns = [slot.spawn_at for slot in self._slots if slot.free_seat is not None]
        return min((time for time in deadlines + spawns if time is not None), default=None)

    def _move(self, to: Phase) -> None:
        assert to in LEGAL[self._phase], f"{self._phase} -> {to}"
        self._phase = to

    def _spawn(self, slot: Slot, generation: int) -> Child:
        seat = slot.free_seat
        assert seat is not None, f"{slot.label}: both seats are taken"
        child = slot.seats[seat] = Child(slot, seat, generation, self._now)
        self._actions.append(Spawn(slot.spec.role, slot.number, seat, generation))
        return child

    def _kill(self, child: Child, sig: Sig) -> None:
        self._actions.append(Kill(child.pid, sig))

    def _mark(self, milestone: Milestone, text: str) -> None:
        self._actions.append(Mark(milestone, text))

    def _say(self, level: Level, text: str, detail: str = "") -> None:
        self._actions.append(Say(level, text, detail))
