"""A supervisor for a test: events are fed by hand, time is a number, and every order is carried out at once."""

from aioserve.master.events import (
    Beats,
    Exited,
    Grow,
    GrowFailed,
    Grown,
    HeirStarted,
    Kill,
    Mark,
    Prepare,
    Prepared,
    PrepareFailed,
    Quit,
    Ready,
    ReloadRequested,
    Role,
    Say,
    Spawn,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Tick,
    Upgrade,
    WakeAt,
)
from aioserve.master.machine import Machine, Policy, RoleSpec

HUP = ReloadRequested("SIGHUP")
TERM = StopRequested(quick=False, reason="SIGTERM")
QUIT = StopRequested(quick=True, reason="SIGQUIT")


class Story:
    """A machine whose spawns succeed at once, with process ids 101, 102 ..., and whose heir is 900."""

    def __init__(self, workers=1, watchers=0, dispatchers=0, terminators=0, forks=True, most=8, **policy):
        specs = [RoleSpec(role=Role.WORKER, slots=workers, reloads=True, required=True, most=most)]
        if watchers:
            specs.append(RoleSpec(role=Role.WATCHER, slots=watchers, reloads=False, required=False))
        if dispatchers:
            specs.append(RoleSpec(role=Role.DISPATCHER, slots=1, reloads=True, required=True, leads=1))
        if terminators:
            specs.append(
                RoleSpec(role=Role.TERMINATOR, slots=terminators, reloads=True, required=True, leads=2, relays=True)
            )
        numbers = {"boot_timeout": 60.0, "grace": 30.0, "margin": 5.0} | policy
        self.policy = Policy(**numbers)
        self.machine = Machine(specs, self.policy)
        self.workers = workers  # what the configuration says when it is read again
        self.mistakes = ""  # what is wrong with it
        self.sockets = True  # whether there are any for one more worker
        self.now = 0.0
        self.forks = forks
        self.pids = 100
        self.spawns = []  # (role, slot, seat, generation) of every fork, in order
        self.wake_at = None
        self.said = []
        self.quit = None
        self.marks = []
        self.did = []  # further actions: what is done to sockets

    def feed(self, event):
        """Everything that follows from an event, with the forks it asks for; answers the signals sent."""
        kills = []
        events = [event]
        while events:
            for action in self.machine.handle(events.pop(0), self.now):
                match action:
                    case Spawn(role, slot, seat, generation):
                        self.spawns.append((role, slot, seat, generation))
                        if self.forks:
                            self.pids += 1
                            events.append(Spawned(role, slot, seat, self.pids))
                        else:
                            events.append(SpawnFailed(role, slot, seat, "no memory"))
                    case Kill(pid, sig):
                        kills.append((pid, sig))
                    case Prepare(generation) if self.mistakes:
                        events.append(PrepareFailed(generation, self.mistakes))
                    case Prepare(generation):
                        events.append(Prepared(generation, self.workers, self.policy))
                    case Grow(slot):
                        self.did.append(Grow(slot))
                        events.append(Grown(slot) if self.sockets else GrowFailed(slot, "no port"))
                    case Upgrade():
                        events.append(HeirStarted(900))
                    case Mark(milestone, text):
                        self.marks.append((milestone, text))
                    case WakeAt(time):
                        self.wake_at = time
                    case Say():
                        self.said.append(action)
                    case Quit(status):
                        self.quit = status
                    case _:
                        self.did.append(action)
        return kills

    def started(self):
        self.feed(Started())
        return self

    def serving(self):
        """All first workers are ready."""
        self.started()
        for pid in range(101, self.pids + 1):
            self.feed(Ready(pid))
        self.said.clear()
        return self

    def after(self, seconds):
        self.now += seconds
        return self

    def tick(self):
        """Go to the next time that the machine waits for."""
        self.now = max(self.now, self.wake_at)
        return self.feed(Tick())

    def beats(self, ages, after=0):
        """The master looks after so many seconds, and the loops of these children have last turned so long ago."""
        self.now += after
        return self.feed(Beats(tuple(ages.items()))) + self.feed(Tick())

    def dies(self, pid, status=-11, how="killed by SIGSEGV"):
        return self.feed(Exited(pid, status, how))

    def leaves(self, pid):
        return self.feed(Exited(pid, 0, "exited with status 0"))

    def told(self, text):
        return [say for say in self.said if text in say.text]
