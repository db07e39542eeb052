"""What follows when a child is lost that was to stay.

- A required child that cannot become ready before the server has started ends it with status 3, because an orchestrator
  must see a broken release. ``Policy.boot_failure_ends`` is off under --reload: the slot waits for the next edit.
- A crash: new connections are steered to other slots, and the slot is filled again at once, then after 0.5, 1, 2 ...
  30 s.
- The breaker: a slot that has failed ``Policy.breaker_failures`` times in a row, with not ``stable_after`` seconds of
  serving in between, while no other worker has served that long either, ends the server with status 1, so that an
  orchestrator sees that it cannot be held. As long as another worker serves well, the slot is tried every 30 s and that
  is all: a server that is one worker short is better than none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.master.crew import CANNOT_START, FAILED
from aioserve.master.events import Level
from aioserve.master.slots import Life, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.master.crew import Crew
    from aioserve.master.events import Exited
    from aioserve.master.rollout import Rollout
    from aioserve.master.slots import Child, Slot

# POSIX gives SIGKILL this number everywhere (kill(1)).
_KILLED: Final = -9


@final
class Losses:
    """``never_ready``, ``crashed`` or ``stuck``: each is told once of a child that nobody had told to leave."""

    def __init__(self, crew: Crew, rollout: Rollout, stop: Callable[[Phase], None]) -> None:
        self._crew: Final = crew
        self._rollout: Final = rollout
        self._stop: Final = stop
        self._explained = 0  # the newest generation whose failure to start was told in full

    def never_ready(self, child: Child) -> None:
        """It has gone without having been ready."""
        crew, slot = self._crew, child.slot
        self._explain(child)
        self._rollout.failed(child, child.failure)
        if slot.holder is not None or not crew.wants(slot):
            return
        if not slot.spec.required:
            self._put_off(slot, None)
        elif not crew.policy.boot_failure_ends:
            crew.say(Level.INFO, f"{slot.label} stays empty until the next reload")
        elif slot.ever_ready or crew.phase is Phase.SERVING:
            self._put_off(slot, None)
        else:
            crew.status = CANNOT_START
            self._stop(Phase.QUITTING)

    def crashed(self, child: Child, ready_at: float, event: Exited) -> None:
        self._avoid(child.slot)
        seconds = self._crew.now - ready_at
        self._crew.say(Level.ERROR, f"{child.label} {event.how}{who_killed(event)} after {seconds:.1f} s of serving")
        self._lose(child, event.how)

    def stuck(self, child: Child) -> None:
        """It lives, serves nobody, and will be killed. Its exit is no further loss."""
        if not child.told_to_leave:
            self._avoid(child.slot)
            self._lose(child, "is stuck")

    def _lose(self, child: Child, how: str) -> None:
        crew, slot = self._crew, child.slot
        self._rollout.failed(child, f"the successor {how}")
        if slot.holder is None and crew.wants(slot):
            self._put_off(slot, child.ready_at)

    def _avoid(self, slot: Slot) -> None:
        """Who connects now need not wait for the successor. First of all: each moment may bring somebody."""
        crew = self._crew
        if not crew.stopping and not crew.shared and not any(child.life is Life.READY for child in slot.children):
            crew.steer(slot, away=True)

    def _put_off(self, slot: Slot, ready_at: float | None) -> None:
        crew = self._crew
        delay = slot.put_off(crew.now, ready_at, crew.policy)
        if slot.spec.required and self._is_hopeless(slot):
            crew.status = FAILED
            crew.say(
                Level.ERROR,
                f"{slot.label} has failed {slot.failures} times in a row, and no other {slot.spec.role.value} serves "
                "well: the server gives up. The lines above say why",
            )
            self._stop(Phase.STOPPING)
        elif delay:
            crew.say(
                Level.WARNING, f"{slot.label} starts again in {delay:g} s, after {slot.failures} failures in a row"
            )

    def _is_hopeless(self, slot: Slot) -> bool:
        crew, policy = self._crew, self._crew.policy
        if not policy.breaker_failures or slot.failures < policy.breaker_failures or not policy.boot_failure_ends:
            return False
        return not any(
            child.life is Life.READY and child.ready_at is not None and crew.now - child.ready_at >= policy.stable_after
            for other in crew.required()
            if other.spec is slot.spec
            for child in other.children
        )

    def _explain(self, child: Child) -> None:
        """Say why it could not start; the traceback once per generation, because all would print the same."""
        detail = child.detail if child.generation > self._explained else ""
        who = child.label if child.pid else child.slot.label
        self._crew.say(Level.ERROR, f"{who} could not start: {child.failure}", detail)
        if detail:
            self._explained = child.generation


def who_killed(event: Exited) -> str:
    """Who may have killed it, as far as that is known."""
    if event.status != _KILLED:
        return ""
    if event.out_of_memory:
        return " by the kernel, for want of memory (the limit of its control group, or of the machine)"
    return " (not by aioserve: a person, or another program)"
