"""The children and slots of a server, and what every part of the supervisor does with them.

Machine, rollout, watchdog and heir share one crew: it keeps the books (who sits where, what time it is, which phase)
and collects the actions of the event being handled. It knows how a child is started, told to leave and forgotten, and
never why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Kill, Mark, Role, Say, Sig, Spawn, Steer
from aioserve.master.slots import LEGAL, Child, Life, Phase, Slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioserve.master.events import Action, Level, Milestone
    from aioserve.master.slots import Policy, RoleSpec

# Exit statuses of the server; 2 and 4 (configuration, address) are decided before there is a machine.
CLEAN: Final = 0
FAILED: Final = 1
CANNOT_START: Final = 3


@final
class Crew:
    """Everybody's shared state. ``begin`` opens the handling of an event; ``actions`` is its answer."""

    def __init__(self, specs: Sequence[RoleSpec], policy: Policy) -> None:
        self.specs: Final = tuple(specs)
        self.policy = policy  # the newest
        self.policies: dict[int, Policy] = {1: policy}  # of every generation that children belong to, or may
        self.phase = Phase.NEW
        self.dormant = False  # all workers have been told to leave, and the master stays: a new one serves
        self.shared = False  # the sockets are another master's too: it is not ours to say who gets connections
        self.status = CLEAN
        self.now = 0.0
        self.actions: list[Action] = []
        self.slots: Final[list[Slot]] = []
        self.by_pid: Final[dict[int, Child]] = {}
        self._serial = 0
        for spec in specs:
            for number in range(spec.slots):
                self.add_slot(spec, number)

    def begin(self, now: float) -> None:
        self.now = now
        self.actions = []

    # The books

    @property
    def stopping(self) -> bool:
        return self.phase in {Phase.STOPPING, Phase.QUITTING}

    @property
    def children(self) -> list[Child]:
        """All processes that have been started and not been reaped."""
        return list(self.by_pid.values())

    @property
    def generations(self) -> set[int]:
        """Those that there are children of, and those of the next ones."""
        return {child.generation for slot in self.slots for child in slot.children} | {
            slot.generation for slot in self.slots
        }

    def required(self) -> Iterator[Slot]:
        return (slot for slot in self.slots if slot.spec.required)

    def wants(self, slot: Slot) -> bool:
        """Whether somebody is to be there."""
        return not (self.stopping or slot.retiring or (self.dormant and slot.spec.required))

    def seat(self, role: Role, number: int, seat: int) -> Child:
        """Who was asked for there."""
        child = next(slot for slot in self.slots if slot.spec.role is role and slot.number == number).seats[seat]
        assert child is not None, f"nobody was asked for: {role.value} {number}, seat {seat}"
        return child

    def add_slot(self, spec: RoleSpec, number: int, generation: int = 1) -> Slot:
        slot = Slot(spec, number, generation)
        self.slots.append(slot)
        peers = [other for other in self.slots if other.spec.role is spec.role]
        for peer in peers:
            peer.numbered = peer.numbered or len(peers) > 1
        return slot

    def remove(self, child: Child) -> None:
        child.move(Life.GONE)
        child.slot.seats[child.seat] = None

    def move(self, to: Phase) -> None:
        assert to in LEGAL[self.phase], f"{self.phase} -> {to}"
        self.phase = to

    def earliest(self) -> float | None:
        """When the next deadline of a child, or the next attempt to fill a slot, is due."""
        deadlines = [child.deadline for child in self.by_pid.values()]
        deadlines += [child.awaited_until for child in self.by_pid.values() if not child.passed_on]
        # Without a free seat the slot waits for an exit, not for a time.
        spawns = [slot.spawn_at for slot in self.slots if slot.free_seat is not None]
        return min((time for time in deadlines + spawns if time is not None), default=None)

    # Acts

    def fill(self) -> None:
        """Start somebody wherever the time has come."""
        for slot in self.slots:
            if slot.spawn_at is not None and slot.spawn_at <= self.now and slot.free_seat is not None:
                slot.spawn_at = None
                self.spawn(slot, slot.generation)

    def spawn(self, slot: Slot, generation: int) -> Child:
        seat = slot.free_seat
        assert seat is not None, f"{slot.label}: both seats are taken"
        self._serial += 1
        child = slot.seats[seat] = Child(slot, seat, generation, self._serial, self.policies[generation])
        self.actions.append(Spawn(slot.spec.role, slot.number, seat, generation))
        return child

    def dismiss(self, child: Child) -> None:
        """Tell it to leave, as the phase has it. Who was told before, or is leaving anyway, keeps its deadline."""
        policy = child.policy
        if self.phase is Phase.QUITTING:
            if child.life not in {Life.BOOTING, Life.READY, Life.DRAINING}:
                return
            # While it boots it may have no handlers yet: the default action of QUIT would dump core, TERM just ends it.
            sig = Sig.TERM if child.life is Life.BOOTING else Sig.QUIT
            child.move(Life.QUITTING)
            child.deadline = self.now + policy.quick_limit
        else:
            if child.life not in {Life.BOOTING, Life.READY}:
                return
            sig = Sig.TERM
            child.move(Life.DRAINING)
            drain = policy.drain_delay + policy.grace + policy.margin
            if child.slot.spec.relays:
                # The others begin to drain when it has passed on everything, and it ends when they have.
                child.awaited_until = self.now + policy.drain_delay + policy.pass_on_limit
                drain += policy.pass_on_limit + policy.quick_limit
            elif child.slot.spec.leads:
                # It has no requests to wait for, and the others wait for it.
                drain = policy.quick_limit
            child.deadline = self.now + drain
        child.told_to_leave = True
        self.kill(child, sig)

    def send_home(self, *, accepting: bool = False) -> None:
        """Tell everybody to leave whom a stop or a drain is about, as far as it goes now. Say it again later.

        What leaders have accepted they pass on, and the others take it before they leave: so these are told when each
        leader has said that it passes on nothing new, or has left. In a quick stop nobody waits for anybody, and who
        still boots has nothing to wait for.

        ``accepting``: all is served as before for now, while readiness fails. Whoever relays sees to that by itself and
        is told at once; where nobody does, workers do, while their leader goes on.
        """
        turn = 0 if self.phase is Phase.QUITTING else self._turn()
        goes_on = accepting and not any(spec.relays for spec in self.specs)
        for slot in self.slots:
            leads = slot.spec.leads
            may_go = leads < turn if goes_on and turn else leads >= turn
            for child in slot.children:
                if (self.stopping or slot.spec.required) and (may_go or (child.life is Life.BOOTING and not leads)):
                    self.dismiss(child)

    def _turn(self) -> int:
        """Whose turn it is to leave: of the leaders that may still have something for others, the first."""
        return max(
            (slot.spec.leads for slot in self.slots for child in slot.children if not child.passed_on), default=0
        )

    def kill(self, child: Child, sig: Sig) -> None:
        self.actions.append(Kill(child.pid, sig))

    def steer(self, slot: Slot, *, away: bool) -> None:
        """Let new connections go to other slots while nobody serves here, and back; at the end it does not matter."""
        if slot.spec.role is Role.WORKER and slot.avoided is not away and not self.stopping:
            slot.avoided = away
            self.actions.append(Steer(slot.number, away=away))

    def blame(self, child: Child) -> None:
        """A clean end it is not, if the server is ending."""
        if self.stopping and child.slot.spec.required:
            self.status = self.status or FAILED

    def say(self, level: Level, text: str, detail: str = "") -> None:
        self.actions.append(Say(level, text, detail))

    def mark(self, milestone: Milestone, text: str, *, failed: bool = False) -> None:
        self.actions.append(Mark(milestone, text, failed))
