"""Random histories of the supervisor in a world that obeys or does not.

Children boot, fail, crash, hang, ignore what they are told, and die in any order; forks and configurations fail; the
machine is suspended; a new master comes and goes; signals come at any moment and ticks come late. The invariants are
code, in ``World``, and are checked after every event; every history must be able to end. A failure prints its history
(hypothesis) or its seed (the long ones).
"""

import random
import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioserve.master.events import (
    Beats,
    BootFailed,
    DrainRequested,
    Exited,
    Forget,
    Grow,
    GrowFailed,
    Grown,
    HeirFailed,
    HeirReady,
    HeirStarted,
    Kill,
    PassedOn,
    PredecessorGone,
    Prepare,
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
    Spawn,
    Spawned,
    SpawnFailed,
    Started,
    Steer,
    StopRequested,
    Tick,
    Unlisten,
    Upgrade,
    UpgradeRequested,
    WakeAt,
)
from aioserve.master.machine import Machine, Policy, RoleSpec
from aioserve.master.slots import Phase

ROOM = 6
LIMIT = 8.0
STACKS, LEAVE = {Sig.USR2, Sig.ABRT}, {Sig.TERM, Sig.QUIT, Sig.KILL, Sig.ABRT}


@dataclass(eq=False)
class Process:
    pid: int
    place: tuple[Role, int]
    seat: int
    generation: int
    state: str = "boots"  # boots, failed, ready
    told: Sig | None = None  # to leave
    why: str = ""  # who has told it: a rollout, a smaller size, a drain, the end
    given_up: bool = False
    hangs: bool = False
    passed_on: bool = False
    told_at: float = 0.0
    beat: float = 0.0

    @property
    def serves(self):
        return self.state == "ready" and self.told is None and not self.given_up


class World:
    def __init__(
        self,
        workers=2,
        watchers=1,
        dispatchers=0,
        terminators=0,
        boot_failure_ends=True,
        breaker=0,
        limit=LIMIT,
        linger=1.0,
        drain_delay=0.0,
        shared=False,
    ):
        self.policy = Policy(
            boot_timeout=60,
            grace=30,
            margin=5,
            boot_failure_ends=boot_failure_ends,
            breaker_failures=breaker,
            worker_limit=limit,
            linger=linger,
            drain_delay=drain_delay,
        )
        self.machine = Machine(
            [
                RoleSpec(role=Role.WORKER, slots=workers, reloads=True, required=True, most=ROOM),
                RoleSpec(role=Role.WATCHER, slots=watchers, reloads=False, required=False),
                RoleSpec(role=Role.DISPATCHER, slots=dispatchers, reloads=True, required=True, leads=1),
                RoleSpec(role=Role.TERMINATOR, slots=terminators, reloads=True, required=True, leads=2, relays=True),
            ],
            self.policy,
            shared=shared,
        )
        self.watchers = watchers
        self.dispatchers = dispatchers
        self.terminators = terminators
        self.boot_failure_ends = boot_failure_ends
        self.breaker = breaker
        self.limit = limit
        self.now = 0.0
        self.wake_at = None
        self.alive = {}
        self.pids = 0
        self.generation = 1
        self.size = self.slots = self.configured = workers
        self.heir = None
        self.shared = shared
        self.dormant = self.stopping = self.listening = False
        self.forks_fail = self.config_broken = False
        self.away = set()
        self.status = None
        self.events = 0
        self.listening = True
        self.feed(Started())

    @property
    def places(self):
        return [
            *((Role.WORKER, n) for n in range(self.slots)),
            *((Role.WATCHER, n) for n in range(self.watchers)),
            *((Role.DISPATCHER, n) for n in range(self.dispatchers)),
            *((Role.TERMINATOR, n) for n in range(self.terminators)),
        ]

    # The machine's side

    def feed(self, event):
        events = [event]
        while events:
            event = events.pop(0)
            self.events += 1
            serving = {p for p in self.serving() if not isinstance(event, Ready) or p.pid != event.pid}
            actions = self.machine.handle(event, self.now)
            assert self.status is None, "an event after the end was answered"
            assert isinstance(actions[-1], WakeAt | Quit), "the machine does not say when to wake it"
            for action in actions:
                self.carry_out(action, events)
            if isinstance(event, Tick):
                assert self.wake_at is None or self.wake_at > self.now, "it would be woken for ever"
            # Who serves no more is dead, hangs, or was told to leave by a wish for fewer; a rollout costs nobody.
            lost = {p for p in serving if p.pid not in self.alive or p.given_up or p.why in {"size", "drain", "end"}}
            assert len(self.serving()) >= len(serving - lost), f"fewer workers serve after {event}"
            self.nobody_is_doubled()
        self.look_around()

    def serving(self):
        return {p for p in self.alive.values() if p.place[0] is not Role.WATCHER and p.serves}

    def carry_out(self, action, events):
        match action:
            case Spawn():
                events.append(self.spawn(action))
            case Kill():
                self.kill(self.alive[action.pid], action.sig)
            case WakeAt(time):
                self.wake_at = time
            case Quit(status):
                self.end(status)
            case Prepare(generation):
                events.append(self.prepare(generation))
            case Grow(slot):
                assert slot == self.slots < self.size, "there are enough"
                assert not self.shared, "the sockets are another master's too"
                if self.forks_fail:
                    self.size = slot
                    events.append(GrowFailed(slot, "no port"))
                else:
                    self.slots += 1
                    events.append(Grown(slot))
            case Steer(slot, away):
                assert slot < self.slots
                assert self.listening, "there are no sockets any more"
                assert away is (slot not in self.away), "told twice"
                self.away ^= {slot}
                if away and not self.stopping:
                    leaves = slot == self.slots - 1 >= self.size
                    serve = [p for p in self.of((Role.WORKER, slot)) if p.serves and not p.hangs]
                    assert leaves or not serve, "it serves"
            case Forget(slot):
                assert slot == self.slots - 1, "only the highest goes"
                assert not self.shared, "the other master's sockets are shut down"
                assert not self.of((Role.WORKER, slot)), "somebody is still there"
                self.slots -= 1
                self.away.discard(slot)
            case Unlisten():
                assert self.stopping or self.gave_up()
                self.listening = False
            case Upgrade():
                assert not self.shared
                self.shared = True
                if self.forks_fail:
                    self.shared = False
                    events.append(HeirFailed("no memory"))
                else:
                    self.pids += 1
                    self.heir = self.pids
                    events.append(HeirStarted(self.heir))

    def spawn(self, spawn):
        place = (spawn.role, spawn.slot)
        # A machine that has just ended the server because of a failed fork may still have asked for others.
        assert not any((p.place, p.seat) == (place, spawn.seat) for p in self.alive.values()), "two in one seat"
        assert 1 <= spawn.generation <= self.generation
        assert place in self.places
        assert not self.stopping, "a process is started while the server stops"
        assert not self.dormant or spawn.role is Role.WATCHER, "a worker is started while another master serves"
        if self.forks_fail:
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, "no memory")
        self.pids += 1
        self.alive[self.pids] = Process(self.pids, place, spawn.seat, spawn.generation)
        return Spawned(spawn.role, spawn.slot, spawn.seat, self.pids)

    def prepare(self, generation):
        assert generation == self.generation + 1, "a number is used twice, or skipped"
        self.generation = generation
        if self.config_broken:
            return PrepareFailed(generation, "the configuration has a mistake")
        if self.machine.workers != self.configured:
            self.size = self.configured
        return Prepared(generation, self.configured, self.policy)

    def kill(self, process, sig):
        if sig is Sig.USR1:
            assert process.state == "ready", "USR1 is deadly before there are handlers"
            return
        if sig is Sig.USR2:
            assert process.hangs or process.state == "boots", "it is well, and given up"
            assert process.told is not Sig.KILL
            process.given_up = True
            return
        if sig is Sig.ABRT:
            assert process.given_up
            assert process.state == "ready", "there is no application to leave a core"
            process.told = sig
            return
        if sig is Sig.QUIT:
            assert self.stopping or self.gave_up()
            assert process.state == "ready" or process.told is Sig.TERM, "QUIT dumps core before there are handlers"
            process.why = "end"
        if sig is Sig.TERM:
            process.why = self.reason_to_leave(process)
            process.told_at = self.now
        process.told = sig

    def reason_to_leave(self, process):
        role, _ = process.place
        leaves = self.stopping or self.gave_up()
        if leaves or self.dormant:
            in_a_hurry = self.machine._crew.phase is Phase.QUITTING
            serves_on = leaves and self.policy.drain_delay and not self.terminators
            boots = process.state == "boots" and role is not Role.DISPATCHER
            awaited = any(self.awaits(role, other) for other in self.alive.values())
            assert not awaited or boots or in_a_hurry or serves_on, "it leaves before it has got what was accepted"
        if leaves:
            return "end"
        assert role is not Role.WATCHER, "a watcher is not replaced"
        if self.dormant:
            return "drain"
        slots = self.machine._crew.slots
        if next(s for s in slots if (s.spec.role, s.number) == process.place).retiring:
            return "size"
        others = [p for p in self.of(process.place) if p is not process]
        assert any(p.serves for p in others), "told to leave before its successor serves"
        leaving = [p for p in self.alive.values() if p.why == "rollout" and p.place != process.place]
        assert not leaving, "two slots are replaced at the same time"
        return "rollout"

    def awaits(self, role, leader):
        """Whether somebody of this role is to wait for this one."""
        if leader.place[0] is Role.DISPATCHER:
            return role in {Role.WORKER, Role.WATCHER}
        if leader.place[0] is not Role.TERMINATOR or role is Role.TERMINATOR or leader.passed_on:
            return False
        return leader.told is None or self.now < leader.told_at + self.policy.drain_delay + self.policy.pass_on_limit

    def gave_up(self):
        """It ends the server by itself: the first generation cannot boot, or a slot cannot be held."""
        return self.machine._crew.status != 0

    def end(self, status):
        assert not self.alive, "it ends with children alive"
        assert not self.listening or self.policy.drain_delay, "it ends with its sockets open"
        assert status in ({0, 1, 3} if self.boot_failure_ends else {0, 1})
        self.status = status

    def nobody_is_doubled(self):
        for place in self.places:
            serving = [p for p in self.of(place) if p.serves]
            assert len(serving) <= 1, f"{place} has {len(serving)} holders"
            staying = [p for p in self.of(place) if p.state != "failed" and not p.told and not p.given_up]
            assert len(staying) <= 2
            assert len(self.of(place)) <= 2

    def look_around(self):
        """When nothing is to come, everything is there."""
        if self.status is not None or self.wake_at is not None or self.dormant:
            return
        if any(p.state != "ready" or p.told for p in self.alive.values()):
            return
        assert self.shared or self.slots == self.size, "the size that was wished for is not reached"
        for place in self.places:
            serving = [p for p in self.of(place) if p.serves]
            parked = place[0] is not Role.WATCHER and not self.boot_failure_ends and not serving
            assert len(serving) == 1 or parked, f"{place} is held by {len(serving)}"
            assert parked or place[0] is not Role.WORKER or self.shared or place[1] not in self.away, "nobody finds it"

    def of(self, place):
        return [p for p in self.alive.values() if p.place == place]

    # The world's side: each takes a number to choose by

    def pick(self, number, choose):
        found = [p for p in self.alive.values() if choose(p)]
        return found[number % len(found)] if found else None

    def becomes_ready(self, number):
        process = self.pick(number, lambda p: p.state == "boots" and p.told is not Sig.KILL and not p.given_up)
        if process:
            process.state = "ready"
            process.beat = self.now
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
        process = self.pick(number, lambda p: (p.told and not p.hangs) or p.told is Sig.KILL or p.state == "failed")
        if process:
            self.leave(process, -9 if process.told is Sig.KILL else 0)

    def leave(self, process, status):
        del self.alive[process.pid]
        self.feed(Exited(process.pid, status, "left", status == -9))

    def passes_on(self, number):
        process = self.pick(number, lambda p: p.place[0] is Role.TERMINATOR and p.told is Sig.TERM and not p.hangs)
        if process and process.state == "ready":
            process.passed_on = True
            self.feed(PassedOn(process.pid))

    def hangs(self, number):
        process = self.pick(number, lambda p: p.state == "ready" and p.place[0] is not Role.WATCHER)
        if process:
            process.hangs = True

    def wakes_up(self, number):
        process = self.pick(number, lambda p: p.hangs and not p.given_up)
        if process:
            process.hangs = False

    def orphan(self, number):
        self.feed(Exited(100_000 + number, 0, "left"))

    def reload(self, _number):
        if self.dormant:
            self.dormant = False  # it takes its workers back
        self.feed(ReloadRequested("test"))

    def recycle(self, number):
        process = self.pick(number, lambda p: p.state == "ready")
        if process:
            self.feed(RecycleRequested(process.pid, "10000 requests"))

    def resize(self, number):
        change = 1 if number % 2 else -1
        if not self.shared and not self.stopping and 1 <= self.size + change <= ROOM:
            self.size += change
        self.feed(ResizeRequested(change, "test"))

    def edit(self, number):
        self.config_broken = number % 4 == 0
        self.configured = 1 + number % 4

    def upgrade(self, _number):
        self.feed(UpgradeRequested("test"))

    def heir_serves(self, _number):
        if self.heir is not None:
            self.feed(HeirReady())

    def heir_dies(self, number):
        if self.heir is not None:
            pid, self.heir = self.heir, None
            if number % 2:
                self.feed(HeirFailed("its configuration is broken"))
            self.shared = self.dormant = False
            self.feed(Exited(pid, 1, "exited with status 1"))

    def drain(self, _number):
        self.dormant = self.dormant or (self.machine._heir.ready and not self.stopping)
        if self.dormant:
            for process in self.alive.values():
                process.why = process.why and "drain"
        self.feed(DrainRequested("test"))

    def predecessor_goes(self, _number):
        if self.shared and not self.machine._heir._asked:
            self.shared = False
            self.feed(PredecessorGone())

    def reopen(self, _number):
        self.feed(ReopenRequested())

    def tick(self, number):
        """The time that it waits for comes, or a little later."""
        if self.wake_at is not None:
            self.now = max(self.now, self.wake_at) + (number % 3)
            for process in self.alive.values():
                if not process.hangs:
                    process.beat = self.now
            self.beats_and_tick()

    def freeze(self, number):
        """Everybody is suspended, the master too."""
        for process in self.alive.values():
            if not process.hangs:
                process.beat = self.now
        self.now += 3 * LIMIT * (1 + number)
        self.beats_and_tick()

    def beats_and_tick(self):
        if self.wake_at is not None and self.wake_at <= self.now:
            ages = tuple((p.pid, self.now - p.beat) for p in self.alive.values() if p.beat)
            self.feed(Beats(ages))
            if self.status is None:
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
    *["becomes_ready"] * 8,
    *["obeys"] * 6,
    *["tick"] * 5,
    *["dies", "reload", "recycle", "time_passes"] * 2,
    *["cannot_boot", "orphan", "reopen", "forks_change", "resize", "edit", "hangs", "wakes_up", "freeze", "stop"],
    *["passes_on", "upgrade", "heir_serves", "heir_dies", "drain", "predecessor_goes"],
]
UNSTOPPED = [step for step in STEPS if step != "stop"]

worlds = st.builds(
    World,
    workers=st.integers(1, 4),
    watchers=st.integers(0, 1),
    dispatchers=st.integers(0, 1),
    terminators=st.integers(0, 2),
    boot_failure_ends=st.booleans(),
    breaker=st.sampled_from([0, 3]),
    limit=st.sampled_from([0.0, LIMIT]),
    linger=st.sampled_from([0.0, 1.0]),
    drain_delay=st.sampled_from([0.0, 3.0]),
    shared=st.booleans(),
)
histories = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 31)), max_size=150)


@settings(max_examples=200, deadline=None, print_blob=True)
@given(world=worlds, history=histories)
def test_any_history_keeps_the_invariants_and_ends(world, history):
    for name, number in history:
        world.step(name, number)
    world.finish()


def started(**options):
    """A world past the start, where one failure may end it all."""
    world = World(**options)
    for _ in world.places:
        world.step("becomes_ready", 0)
    return world


@pytest.mark.parametrize("boot_failure_ends", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_long_life_keeps_the_invariants_and_ends(seed, boot_failure_ends):
    chance = random.Random(seed)
    world = started(
        workers=1 + seed % 5,
        watchers=seed % 2,
        dispatchers=seed // 4 % 2,
        terminators=seed // 2 % 3,
        boot_failure_ends=boot_failure_ends,
        limit=(0.0, LIMIT)[seed // 2 % 2],
    )
    for _ in range(1500):
        world.step(chance.choice(UNSTOPPED), chance.randrange(32))
    assert world.status is None
    world.finish()


@pytest.mark.parametrize("limit", [0.0, LIMIT])
@pytest.mark.parametrize("seed", range(8))
def test_a_server_left_in_peace_becomes_whole_again(seed, limit):
    chance = random.Random(seed)
    world = started(workers=3, dispatchers=seed % 2, terminators=seed // 2 % 2, limit=limit)
    for _ in range(200):
        world.step(chance.choice(UNSTOPPED), chance.randrange(32))
    world.forks_fail = world.config_broken = False
    world.heir_dies(0)
    for process in world.alive.values():
        process.hangs = process.given_up
    for _ in range(800):
        for peaceful in ("becomes_ready", "obeys", "tick"):
            world.step(peaceful, 0)
    assert world.slots == world.size
    assert all(len([p for p in world.of(place) if p.serves]) == 1 for place in world.places)
    assert not world.away


def test_histories_run_at_tens_of_thousands_of_events_per_second():
    """So that many of them can be had; a machine that is busy with other tests is a few times slower."""
    chance = random.Random(0)
    world = started(workers=4)
    begin = time.process_time()
    for _ in range(5000):
        world.step(chance.choice(UNSTOPPED), chance.randrange(32))
    assert world.events / (time.process_time() - begin) > 5_000
