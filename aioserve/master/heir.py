"""A new master program that takes over the sockets of this one, and what both do as long as there are two.

USR2 starts it: new code, new dependencies, the same sockets. When its workers serve, both masters serve side by side,
and the operator decides: WINCH drains the workers of the old one, which then is *dormant*; QUIT or TERM ends it; HUP
lets it take its workers back, with the configuration that they had. If the new master dies, a dormant old one takes
them back by itself.

As long as there are two, none changes the number of its workers or steers connections: the sockets are the other's too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Level, Upgrade
from aioserve.master.slots import Phase

if TYPE_CHECKING:
    from aioserve.master.crew import Crew
    from aioserve.master.events import DrainRequested, Exited, HeirFailed, HeirStarted, UpgradeRequested
    from aioserve.master.rollout import Rollout


@final
class Heir:
    """The new master, if there is one."""

    def __init__(self, crew: Crew, rollout: Rollout) -> None:
        self._crew: Final = crew
        self._rollout: Final = rollout
        self._pid = 0
        self._asked = False
        self._postponed: UpgradeRequested | None = None
        self._failure = ""
        self.ready = False

    def upgrade(self, event: UpgradeRequested) -> None:
        crew = self._crew
        if crew.phase is not Phase.SERVING:
            why = "the server is stopping" if crew.stopping else "the server has not started yet"
        elif self._asked:
            why = f"there is a new master already, pid {self._pid}"
        elif crew.shared:
            why = "the old master is still there"
        elif self._rollout.shrinks:
            self._postponed = event  # the sockets of the slot that goes away would be closed under the new master
            return
        else:
            self._asked = crew.shared = True
            crew.say(Level.INFO, f"{event.reason}: a new master starts and takes over the sockets")
            crew.actions.append(Upgrade())
            return
        crew.say(Level.WARNING, f"{event.reason}: no upgrade, {why}")

    def advance(self) -> None:
        """What had to wait may come now."""
        if self._postponed is not None and not self._rollout.shrinks:
            event, self._postponed = self._postponed, None
            self.upgrade(event)

    def alone(self) -> None:
        """In the new master: the old one has ended."""
        self._crew.shared = False
        self._crew.say(Level.INFO, "the old master has gone")

    def started(self, event: HeirStarted) -> None:
        self._pid = event.pid

    def failed(self, event: HeirFailed) -> None:
        """Its exit follows, unless it never was a process."""
        self._failure = event.reason
        if not self._pid:
            self._lost("it could not be started")

    def serves(self) -> None:
        if not self._pid or self.ready:
            return
        self.ready = True
        self._crew.say(
            Level.INFO,
            f"the new master, pid {self._pid}, serves. WINCH to this one drains its workers, then QUIT ends it, and "
            "HUP takes its workers back",
        )

    def exited(self, event: Exited) -> bool:
        """Whether it was the new master that has ended."""
        if not self._pid or event.pid != self._pid:
            return False
        self._lost(event.how, clean=event.status == 0)
        return True

    def drain(self, event: DrainRequested) -> None:
        crew = self._crew
        if crew.stopping or crew.dormant:
            return
        if not self.ready:
            # A terminal sends WINCH whenever its window changes; and without another master nobody would serve.
            crew.say(Level.INFO, f"{event.reason}: no new master serves (USR2 starts one), nothing is drained")
            return
        crew.dormant = True
        crew.say(Level.INFO, f"{event.reason}: the workers drain, pid {self._pid} serves; HUP takes them back")
        self._rollout.cancel()
        for slot in crew.required():
            slot.spawn_at = None

    def take_back(self, reason: str) -> None:
        """Serve again."""
        crew = self._crew
        crew.dormant = False
        crew.say(Level.INFO, f"{reason}: this master takes its workers back")
        for slot in crew.required():
            if slot.holder is None:
                slot.spawn_at = crew.now

    def _lost(self, how: str, *, clean: bool = False) -> None:
        crew, was_ready = self._crew, self.ready
        why = self._failure or how
        self._pid, self._asked, self._failure, self.ready = 0, False, "", False
        crew.shared = False
        if crew.stopping:
            return
        crew.say(
            Level.INFO if was_ready and clean else Level.ERROR,
            f"the new master has gone: {why}" if was_ready else f"the upgrade failed, this master serves on: {why}",
        )
        if crew.dormant:
            self.take_back("nobody else serves")
