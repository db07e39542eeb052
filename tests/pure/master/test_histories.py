"""Random histories of the supervisor in a world that obeys or does not.

Children boot, fail, crash, ignore TERM and QUIT, and die in any order; forks fail; signals come at any moment and ticks
come late. The invariants are code, in ``World``, and are checked after every event; every history must be able to end.
A failure prints its history (hypothesis) or its seed (the long ones).
"""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioserve.master.events import (
    BootFailed,
    Exited,
    Kill,
    Quit,
    Ready,
    ReloadRequested,
    ReopenRequested,
    Role,
    Sig,
    Spawn,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Tick,
    WakeAt,
)
from aioserve.master.machine import Machine, Policy, RoleSpec


@dataclass(eq=False)
class Process:
    pid: int
    place: tuple[Role, int]
    seat: int
    state: str = "boots"  # boots, failed, ready
    told: Sig | None = None

    @property
    def serves(self):
        return self.state == "ready" and self.told is None


class World:
    def __init__(self, workers=2, watchers=1, boot_failure_ends=True):
        self.machine = Machine(
            [
                RoleSpec(role=Role.WORKER, slots=workers, reloads=True, required=True),
                RoleSpec(role=Role.WATCHER, slots=watchers, reloads=False, required=False),
            ],
            Policy(boot_timeout=60, grace=30, margin=5, boot_failure_ends=boot_failure_ends),
        )
        self.places = [(Role.WORKER, n) for n in range(workers)] + [(Role.WATCHER, n) for n in range(watchers)]
        self.boot_failure_ends = boot_failure_ends
        self.now = 0.0
        self.wake_at = None
        self.alive = {}
        self.pids = 0
        self.reloads = 0
        self.stopping = False
        self.forks_fail = False
        self.status = None
        self.feed(Started())

    # The machine's side

    def feed(self, event):
        events = [event]
        while events:
            event = events.pop(0)
            actions = self.machine.handle(event, self.now)
            assert self.status is None, "an event after the end was answered"
            assert isinstance(actions[-1], WakeAt | Quit), "the machine does not say when to wake it"
            for action in actions:
                match action:
                    case Spawn():
                        events.append(self.spawn(action))
                    case Kill():
                        self.kill(self.alive[action.pid], action.sig)
                    case WakeAt(time):
                        self.wake_at = time
                    case Quit(status):
                        self.end(status)
            if isinstance(event, Tick):
                assert self.wake_at is None or self.wake_at > self.now, "it would be woken for ever"
        self.look_around()

    def spawn(self, spawn):
        place = (spawn.role, spawn.slot)
        # A machine that has just ended the server because of a failed fork may still have asked for others.
        assert not any((p.place, p.seat) == (place, spawn.seat) for p in self.alive.values()), "two in one seat"
        assert 1 <= spawn.generation <= self.reloads + 1
        assert not self.stopping, "a process is started while the server stops"
        if self.forks_fail:
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, "no memory")
        self.pids += 1
        self.alive[self.pids] = Process(self.pids, place, spawn.seat)
        return Spawned(spawn.role, spawn.slot, spawn.seat, self.pids)

    def kill(self, process, sig):
        if sig is Sig.USR1:
            assert process.state == "ready", "USR1 is deadly before there are handlers"
            return
        if sig is Sig.QUIT:
            assert self.stopping or not self.machine_serves()
            assert process.state == "ready" or process.told is Sig.TERM, "QUIT dumps core before there are handlers"
        if sig is Sig.TERM and not self.stopping and self.machine_serves():
            assert process.place[0] is Role.WORKER, "a watcher is not replaced"
            others = [p for p in self.of(process.place) if p is not process]
            assert any(p.serves for p in others), "told to leave before its successor serves"
            leaving = [p for p in self.alive.values() if p.told is Sig.TERM and p.place != process.place]
            assert not leaving, "two slots are replaced at the same time"
        process.told = sig

    def machine_serves(self):
        """False once it has given up because the first generation cannot boot."""
        return self.machine._status == 0

    def end(self, status):
        assert not self.alive, "it ends with children alive"
        assert status in ({0, 1, 3} if self.boot_failure_ends else {0, 1})
        self.status = status

    def look_around(self):
        """When nothing is to come, everything is there."""
        if self.status is not None or self.wake_at is not None:
            return
        if any(p.state != "ready" or p.told for p in self.alive.values()):
            return
        for place in self.places:
            serving = [p for p in self.of(place) if p.serves]
            parked = place[0] is Role.WORKER and not self.boot_failure_ends and not serving
            assert len(serving) == 1 or parked, f"{place} is held by {len(serving)}"

    def of(self, place):
        return [p for p in self.alive.values() if p.place == place]

    # The world's side: each takes a number to choose by

    def pick(self, number, choose):
        found = [p for p in self.alive.values() if choose(p)]
        return found[number % len(found)] if found else None

    def becomes_ready(self, number):
        process = self.pick(number, lambda p: p.state == "boots" and p.told is not Sig.KILL)
        if process:
            process.state = "ready"
            self.feed(Ready(process.pid))

    def cannot_boot(self, number):
        process = self.pick(number, lambda p: p.state == "boots" and p.told is not Sig.KILL)
        if process:
            process.state = "failed"
            self.feed(BootFailed(process.pid, "no", "Traceback"))

    def dies(self, number):
        process = self.pick(number, lambda _: True)
        if process:
            self.leave(process, (0, 1, 3, -9, -11, -15)[number % 6])

    def obeys(self, number):
        process = self.pick(number, lambda p: p.told or p.state == "failed")
        if process:
            self.leave(process, -9 if process.told is Sig.KILL else 0)

    def leave(self, process, status):
        del self.alive[process.pid]
        self.feed(Exited(process.pid, status, "left"))

    def orphan(self, number):
        self.feed(Exited(100_000 + number, 0, "left"))

    def reload(self, _number):
        self.reloads += 1
        self.feed(ReloadRequested("test"))

    def reopen(self, _number):
        self.feed(ReopenRequested())

    def tick(self, number):
        if self.wake_at is not None:
            self.now = max(self.now, self.wake_at) + (number % 3)
            self.feed(Tick())

    def time_passes(self, number):
        self.now += number / 4

    def forks_change(self, number):
        self.forks_fail = number % 3 == 0

    def stop(self, number):
        if number % 4 == 0:
            self.stopping = True
            self.feed(StopRequested(quick=number % 8 == 0, reason="test"))

    def step(self, name, number):
        if self.status is None:
            getattr(self, name)(number)

    def finish(self):
        """Ask for the end, and let nobody obey anything but KILL."""
        self.step("stop", 4)
        for _ in range(1000):
            if self.status is not None:
                return
            killed = [p for p in self.alive.values() if p.told is Sig.KILL]
            if killed:
                self.leave(killed[0], -9)
            else:
                self.tick(0)
        raise AssertionError("it never ends")


# What happens often comes several times.
STEPS = [
    *["becomes_ready"] * 5,
    *["obeys"] * 4,
    *["tick"] * 3,
    *["dies", "reload", "time_passes"] * 2,
    *["cannot_boot", "orphan", "reopen", "forks_change", "stop"],
]

worlds = st.builds(World, workers=st.integers(1, 4), watchers=st.integers(0, 1), boot_failure_ends=st.booleans())
histories = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 31)), max_size=120)


@settings(max_examples=150, deadline=None, print_blob=True)
@given(world=worlds, history=histories)
def test_any_history_keeps_the_invariants_and_ends(world, history):
    for name, number in history:
        world.step(name, number)
    world.finish()


@pytest.mark.parametrize("boot_failure_ends", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_long_life_keeps_the_invariants_and_ends(seed, boot_failure_ends):
    chance = random.Random(seed)
    world = World(workers=1 + seed % 5, watchers=seed % 2, boot_failure_ends=boot_failure_ends)
    steps = [step for step in STEPS if step != "stop"]
    for slot in range(len(world.places)):
        world.step("becomes_ready", slot)  # past the start, where one failure may end it all
    for _ in range(1500):
        world.step(chance.choice(steps), chance.randrange(32))
    assert world.status is None
    world.finish()


@pytest.mark.parametrize("seed", range(8))
def test_a_server_left_in_peace_becomes_whole_again(seed):
    chance = random.Random(seed)
    world = World(workers=3)
    for slot in range(4):
        world.step("becomes_ready", slot)
    steps = [step for step in STEPS if step != "stop"]
    for _ in range(200):
        world.step(chance.choice(steps), chance.randrange(32))
    world.forks_fail = False
    for _ in range(500):
        for peaceful in ("becomes_ready", "obeys", "tick"):
            world.step(peaceful, 0)
    assert all(len([p for p in world.of(place) if p.serves]) == 1 for place in world.places)
