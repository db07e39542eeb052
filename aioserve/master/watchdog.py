"""Who does not turn its loop any more, and what is done about it.

A worker's loop writes a heartbeat into the scoreboard, while it drains too. A late one is a warning, once, and a line
when it is on time again; meanwhile new connections go to other workers. At the limit (``Policy.worker_limit``) the
worker is given up: it is told to write its stacks and its requests in flight, a moment later ABRT, then KILL. It serves
nobody, so a successor starts at once.

What stops everybody (a suspended machine, a frozen container, a debugger) stops the master as well. If it has overslept
itself, everybody is counted anew from then on, and nobody is killed for what the machine has done.

A boot that takes too long ends in the same way, without ABRT: there is no application to leave a core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Level, Role, Sig
from aioserve.master.slots import Life

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.master.crew import Crew
    from aioserve.master.events import Beats
    from aioserve.master.slots import Child

#: Between two looks, in seconds; more often if the limit is short.
LOOK_EVERY: Final = 1.0

#: A loop that has stood still for less is nothing to write about, in seconds.
LATE: Final = 2.0


@final
class Watchdog:
    """``look`` at every ``Beats``, ``press`` on whoever is given up, and wake the machine at ``wake``."""

    def __init__(self, crew: Crew, lost: Callable[[Child], None]) -> None:
        self._crew: Final = crew
        self._lost: Final = lost
        self._due: float | None = None  # the next look; None: there is nobody to look at
        self._since = 0.0  # what was late before is not counted

    def wake(self) -> float | None:
        crew, limit = self._crew, self._crew.policy.worker_limit
        if not limit or not any(_is_watched(child) for child in crew.by_pid.values()):
            self._due = None
        elif self._due is None:
            self._due = crew.now + min(LOOK_EVERY, limit / 4)
            self._since = crew.now
        return self._due

    def look(self, event: Beats) -> None:
        crew, limit = self._crew, self._crew.policy.worker_limit
        if self._due is None or crew.now < self._due:
            return
        if crew.now - self._due > max(limit / 4, LOOK_EVERY):
            self._since = crew.now
        self._due = crew.now + min(LOOK_EVERY, limit / 4)
        for pid, age in event.ages:
            child = crew.by_pid.get(pid)
            if child is not None and _is_watched(child):
                self._judge(child, min(age, crew.now - self._since), limit)

    def give_up_boot(self, child: Child) -> None:
        """It is not ready in time."""
        child.failure = f"not ready after {child.policy.boot_timeout:g} s (timeout.boot), killed"
        self._give_up(child)

    def press(self, child: Child) -> None:
        """It was given up, and the time for the last signal has passed."""
        if child.ready_at is not None and not child.aborted:
            child.aborted = True
            child.deadline = self._crew.now + self._crew.policy.abort_time
            self._crew.kill(child, Sig.ABRT)
        else:
            child.deadline = None
            child.move(Life.KILLED)
            self._crew.kill(child, Sig.KILL)

    def _judge(self, child: Child, lag: float, limit: float) -> None:
        crew = self._crew
        if lag >= limit:
            crew.say(
                Level.ERROR,
                f"{child.label} is stuck: its event loop has not turned for {lag:.1f} s (timeout.worker is {limit:g} "
                "s). It is told to write its stacks and is killed",
            )
            crew.blame(child)
            self._give_up(child)
            self._lost(child)
        elif lag >= min(max(limit / 4, LATE), limit):
            if not child.worst_lag:
                if child is child.slot.holder and not crew.shared:
                    crew.steer(child.slot, away=True)
                why = "something in the application blocks it, and " if child.slot.spec.role is Role.WORKER else ""
                crew.say(
                    Level.WARNING,
                    f"{child.label} is late: its event loop has not turned for {lag:.1f} s; {why}at {limit:g} s it is "
                    "killed (timeout.worker)",
                )
            child.worst_lag = max(child.worst_lag, lag)
        elif child.worst_lag:
            crew.say(Level.INFO, f"{child.label} is on time again, after more than {child.worst_lag:.1f} s")
            child.worst_lag = 0.0
            if child is child.slot.holder and not child.slot.retiring:
                crew.steer(child.slot, away=False)

    def _give_up(self, child: Child) -> None:
        child.move(Life.STUCK)
        child.deadline = self._crew.now + self._crew.policy.stacks_time
        self._crew.kill(child, Sig.USR2)


def _is_watched(child: Child) -> bool:
    return child.slot.spec.required and child.life in {Life.READY, Life.DRAINING}
