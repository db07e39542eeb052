"""The moments of the hooks that run in the master."""

from aioserve.master.events import Exited, Prepare, ReloadRequested, Role, Spawn, Spawned, Started, Tick
from aioserve.master.turns import TurningPoints
from aioserve.system.hooks import Hook, Moment


class Recorded:
    """An observer whose hooks write down what they are told."""

    def __init__(self, *names):
        self.told = []
        hooks = {name: Hook(name, "test", self.told.append) for name in names}
        self.observer = TurningPoints(hooks, pid=7)

    def spawned(self, slot, seat, generation, pid, role=Role.WORKER):
        self.observer.saw(Tick(), [Spawn(role, slot, seat, generation)], 0.0)
        self.observer.saw(Spawned(role, slot, seat, pid), [], 0.0)


def test_the_end_of_a_worker_says_which_it_was():
    recorded = Recorded("on_worker_exit")
    recorded.spawned(slot=1, seat=0, generation=1, pid=101)
    recorded.spawned(slot=1, seat=1, generation=2, pid=102)
    recorded.observer.saw(Exited(102, -9, "killed by SIGKILL"), [], 0.0)
    recorded.observer.saw(Exited(101, 0, "exited with status 0"), [], 0.0)
    assert recorded.told == [
        Moment(hook="on_worker_exit", pid=102, slot=1, generation=2, status=-9, how="killed by SIGKILL"),
        Moment(hook="on_worker_exit", pid=101, slot=1, generation=1, status=0, how="exited with status 0"),
    ]


def test_the_end_of_others_is_no_moment():
    recorded = Recorded("on_worker_exit")
    recorded.spawned(slot=0, seat=0, generation=1, pid=101, role=Role.WATCHER)
    recorded.observer.saw(Exited(101, 0, "exited with status 0"), [], 0.0)
    recorded.observer.saw(Exited(4711, 0, "exited with status 0"), [], 0.0)
    assert recorded.told == []


def test_a_reload_has_the_generation_that_begins():
    recorded = Recorded("on_reload")
    recorded.observer.saw(ReloadRequested("SIGHUP"), [Prepare(3)], 0.0)
    assert recorded.told == [Moment(hook="on_reload", pid=7, generation=3)]


def test_a_reload_that_is_put_off_is_no_moment_yet():
    recorded = Recorded("on_reload")
    recorded.observer.saw(ReloadRequested("SIGHUP"), [], 0.0)
    assert recorded.told == []


def test_hooks_that_nobody_wants_are_not_missed():
    recorded = Recorded()
    recorded.observer.saw(Started(), [Prepare(2)], 0.0)
    recorded.observer.tick(0.0)
    assert (recorded.told, recorded.observer.wake_at) == ([], None)
