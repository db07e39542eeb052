"""Changes that are made slot by slot: one step at a time, and the successor first.

Three wishes end in such steps, and take their turn in this order:

- Reload: every slot. The new generation is prepared (its configuration read), then slot by slot a successor starts in
  the other seat; when it is ready the predecessor is told TERM, and when that has gone it is the next slot's turn. A
  successor that cannot start, or dies in its turn, cancels the reload: what was replaced stays replaced, the rest was
  never touched, and what failed goes back to the generation it had. A further wish meanwhile is one more reload.
- Size: one slot more has its sockets made and is filled at once. One less is the highest: new connections are steered
  away from it, it goes on accepting for ``Policy.linger`` (clients in the middle of their handshake belong to it
  already), is told TERM, and its sockets are closed when it has gone.
- Recycling: the slot of a worker that has asked for it. A successor that cannot start leaves the worker serving; it is
  tried again after ``Policy.recycle_retry``. A reload replaces the worker anyway, which fulfils the wish.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Forget, Grow, Level, Milestone, Prepare, Role
from aioserve.master.slots import Life

if TYPE_CHECKING:
    from aioserve.master.crew import Crew
    from aioserve.master.events import Prepared, PrepareFailed, ReloadRequested, ResizeRequested
    from aioserve.master.slots import Child, Policy, Slot


@final
@dataclass(slots=True, eq=False)
class Reload:
    """A reload under way and the slots still to come."""

    generation: int
    before: dict[Slot, int]  # the generations that slots had
    policy: Policy  # what it was
    queue: deque[Slot] = field(default_factory=deque)
    prepared: bool = False
    total: int = 0  # workers, and how many of them have been replaced
    replaced: int = 0
    failure: str = ""


@final
@dataclass(slots=True, eq=False)
class Step:
    """What is being done to one slot: its worker is replaced, or without a successor it goes away."""

    slot: Slot
    successor: Child | None = None
    retire_at: float | None = None  # TERM at this time
    kept: bool = False  # it was to go away, and is wanted again
    recycled: Child | None = None  # who had asked for it
    failure: str = ""


@final
class Rollout:
    """Wishes come in, ``advance`` takes them as far as they go now; ``ready``, ``failed`` and ``lost`` bring news."""

    def __init__(self, crew: Crew) -> None:
        self._crew: Final = crew
        self._spec: Final = next(spec for spec in crew.specs if spec.role is Role.WORKER)
        self._generation = 1  # the newest there is; a failed reload uses one up
        self.good = 1  # the newest that was not cancelled
        self.configured = self._spec.slots
        self._wanted_size = self._spec.slots
        self._growing = False  # asked for, not yet answered
        self._wanted: ReloadRequested | None = None
        self._reload: Reload | None = None
        self._step: Step | None = None

    @property
    def generations(self) -> set[int]:
        """Those that children belong to, or may belong to."""
        return self._crew.generations | {self.good}

    @property
    def shrinks(self) -> bool:
        """A slot is being taken away."""
        return self._step is not None and self._step.successor is None

    # Wishes

    def reload(self, event: ReloadRequested) -> None:
        if self._reload is not None:
            self._crew.say(Level.INFO, f"{event.reason}: another reload follows the one under way")
        self._wanted = event

    def recycle(self, child: Child, reason: str) -> None:
        if child.life is Life.READY and child.slot.spec.reloads and not child.recycle:
            child.recycle = reason
            child.recycle_at = self._crew.now

    def resize(self, event: ResizeRequested) -> None:
        size = self._wanted_size + event.change
        if size < 1:
            self._crew.say(Level.WARNING, f"{event.reason}: one worker has to stay")
        elif size > self._spec.room:
            self._crew.say(Level.WARNING, f"{event.reason}: there is no room for more than {self._spec.room} workers")
        else:
            self._crew.say(Level.INFO, f"{event.reason}: {size} worker{'' if size == 1 else 's'} from now on")
            self._wanted_size = size

    # Answers

    def prepared(self, event: Prepared) -> None:
        reload, crew = self._reload, self._crew
        if reload is None or reload.generation != event.generation:
            return
        reload.prepared = True
        used = self.generations
        crew.policies = {number: policy for number, policy in crew.policies.items() if number in used}
        crew.policies[event.generation] = crew.policy = event.policy
        if event.workers != self.configured:
            self.configured = event.workers
            self._wanted_size = min(event.workers, self._spec.room)
            if event.workers > self._spec.room:
                crew.say(Level.WARNING, f"there is no room for more than {self._spec.room} workers before a restart")
        for slot in crew.slots:
            if not slot.spec.reloads:
                continue
            if slot.holder is None:
                slot.generation = reload.generation
                slot.spawn_at = crew.now
            else:
                reload.queue.append(slot)
        reload.total = sum(slot.spec is self._spec for slot in reload.queue)
        crew.fill()

    def refused(self, event: PrepareFailed) -> None:
        reload = self._reload
        if reload is not None and reload.generation == event.generation:
            reload.prepared = True
            reload.failure = event.reason
            reload.total = sum(slot.spec is self._spec for slot in self._crew.slots)

    def grown(self, number: int) -> None:
        self._growing = False
        self._crew.add_slot(self._spec, number, self.good).spawn_at = self._crew.now

    def not_grown(self, number: int, reason: str) -> None:
        self._growing = False
        self._wanted_size = number
        self._crew.say(Level.ERROR, f"no further worker: {reason}")

    # News

    def ready(self, child: Child) -> bool:
        """It serves; whether that is a step of ours, and told already."""
        step, crew = self._step, self._crew
        if step is None or child is not step.successor:
            return False
        if self._reload is not None:
            self._reload.replaced += child.slot.spec is self._spec
        for other in child.slot.children:
            if other is not child and other.stays:
                crew.say(Level.INFO, f"{child.label} is ready and takes over from pid {other.pid}")
                crew.dismiss(other)
        return True

    def failed(self, child: Child, why: str) -> None:
        """It has gone, or is about to, without having been told."""
        if self._step is not None and child is self._step.successor:
            self._step.failure = why
        elif self._reload is not None and child.slot in self._reload.queue:
            # Its turn comes now: what takes its place belongs to the new generation.
            child.slot.generation = self._reload.generation

    # Steps

    def advance(self) -> None:
        """Go on until something has to be waited for."""
        while True:
            if self._step is not None:
                if not self._is_over(self._step):
                    return
                self._finish(self._step)
                self._step = None
            if not (self._go_on_reloading() or self._resize_next() or self._recycle_next()):
                return

    def cancel(self) -> None:
        """Everything is given up: all workers have been told to leave."""
        if self._step is not None:
            self._step.slot.retiring = False
        if self._reload is not None:
            self._revert(self._reload)
        self._step = self._reload = self._wanted = None

    def wake(self) -> float | None:
        """When ``advance`` should be called, if nothing happens before."""
        step = self._step
        if step is not None:
            return step.retire_at
        if self._reload is not None:
            return None
        times = [child.recycle_at for child in self._crew.children if child.recycle and child.life is Life.READY]
        return min((time for time in times if time > self._crew.now), default=None)

    def _is_over(self, step: Step) -> bool:
        """Nobody in the slot is still to become ready or still to leave on account of this step."""
        children = step.slot.children
        if step.successor is not None:
            booting = step.successor.life in {Life.SPAWNING, Life.BOOTING}
            return not booting and all(child.stays for child in children)
        if step.retire_at is not None and step.slot.number < self._wanted_size:
            step.kept = True  # it is wanted again, and nobody has been told yet
            return True
        if step.retire_at is not None and step.retire_at <= self._crew.now:
            step.retire_at = None
            for child in children:
                self._crew.dismiss(child)
        return not children

    def _finish(self, step: Step) -> None:
        crew = self._crew
        if step.kept:
            self._keep(step.slot)
        elif step.successor is None:
            crew.slots.remove(step.slot)
            crew.actions.append(Forget(step.slot.number))
            crew.say(Level.INFO, f"{step.slot.label} has gone")
        elif step.failure and self._reload is not None:
            self._reload.failure = step.failure
        elif step.failure and step.recycled is not None and step.recycled.stays:
            retry = crew.policy.recycle_retry
            step.recycled.recycle_at = crew.now + retry
            crew.say(
                Level.ERROR,
                f"{step.recycled.label} is not recycled: {step.failure}; it serves on, the next attempt is in "
                f"{retry:g} s",
            )

    def _keep(self, slot: Slot) -> None:
        """It was about to go away, and stays."""
        slot.retiring = False
        if slot.holder is None:
            slot.spawn_at = self._crew.now
        elif slot.holder.life is Life.READY:
            self._crew.steer(slot, away=False)

    # Reload

    def _go_on_reloading(self) -> bool:
        """Whether there is something new to look at."""
        reload = self._reload
        if reload is None:
            if self._wanted is None:
                return False
            self._begin(self._wanted)
            return True
        if not reload.prepared:
            return False
        if reload.failure or not reload.queue:
            self._end(reload)
            self._reload = None
            return True
        slot = reload.queue[0]
        if slot.free_seat is None:
            return False  # a child that failed to start has not left yet; it has a deadline
        reload.queue.popleft()
        holder = slot.holder
        if holder is None:
            slot.generation = reload.generation  # it failed to start meanwhile; the next attempt is a new one
        elif holder.generation != reload.generation:
            self._step = Step(slot, self._crew.spawn(slot, reload.generation))
        return True

    def _begin(self, event: ReloadRequested) -> None:
        crew = self._crew
        self._wanted = None
        self._generation += 1
        self._reload = Reload(self._generation, {slot: slot.generation for slot in crew.slots}, crew.policy)
        crew.say(Level.INFO, f"{event.reason}: reload to generation {self._generation}")
        crew.mark(Milestone.RELOADING, f"reloading to generation {self._generation}")
        crew.actions.append(Prepare(self._generation))

    def _end(self, reload: Reload) -> None:
        crew = self._crew
        if reload.failure:
            self._revert(reload)
            if not reload.replaced:
                crew.policy = reload.policy
            crew.say(
                Level.ERROR,
                f"reload to generation {reload.generation} failed: {reload.failure}; "
                f"{reload.replaced} of {reload.total} replaced, the others serve on",
            )
        else:
            self.good = reload.generation
            if reload.replaced:
                crew.say(Level.INFO, f"reload to generation {reload.generation} finished: {reload.replaced} replaced")
        failed = f"serving; the reload to generation {reload.generation} failed: {reload.failure}"
        text = failed if reload.failure else f"serving, generation {reload.generation}"
        crew.mark(Milestone.SERVING, text, failed=bool(reload.failure))

    def _revert(self, reload: Reload) -> None:
        for slot, generation in reload.before.items():
            served = any(child.ready_at is not None and child.generation > generation for child in slot.children)
            if slot.generation == reload.generation and not served:
                slot.generation = generation

    # Size

    def _resize_next(self) -> bool:
        crew = self._crew
        if self._reload is not None or self._growing or crew.shared:
            return False
        workers = [slot for slot in crew.slots if slot.spec is self._spec]
        if len(workers) < self._wanted_size:
            self._growing = True
            crew.actions.append(Grow(len(workers)))
        elif len(workers) > self._wanted_size:
            slot = workers[-1]
            slot.retiring = True
            slot.spawn_at = None
            crew.steer(slot, away=True)
            self._step = Step(slot, retire_at=crew.now + crew.policy.linger)
            return True
        return False

    # Recycling

    def _recycle_next(self) -> bool:
        crew = self._crew
        if self._reload is not None:
            return False
        waiting = [child for child in crew.children if child.recycle and child.recycle_at <= crew.now]
        for child in sorted(waiting, key=lambda child: child.recycle_at):
            slot = child.slot
            if child.life is Life.READY and slot.holder is child and slot.free_seat is not None:
                crew.say(Level.INFO, f"{child.label} has reached a limit ({child.recycle}): a successor starts")
                self._step = Step(slot, crew.spawn(slot, slot.generation), recycled=child)
                return True
        return False
