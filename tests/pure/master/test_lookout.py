"""The looks of the master: when there are any, what they see, who is told. Real sockets, no processes, no sleeps."""

import selectors
import socket

import pytest

from aioserve.accept.balance import OVERSLEPT
from aioserve.accept.base import Listener
from aioserve.master.channel import pair
from aioserve.master.events import Exited, Ready, Started, Tick, Unlisten
from aioserve.master.hands import Kin
from aioserve.master.lateness import Lateness
from aioserve.master.lender import Lender
from aioserve.master.lookout import INTERVAL, LONGEST_INTERVAL, QUIET, Lookout
from aioserve.observe.scoreboard import ACCEPTING, CONNECTIONS, CONNECTIONS_TOTAL, PHASE, STOLEN, Phase, Scoreboard


class Scene:
    """A master with slots 0 and 1, whose workers are rows and channels; time is what ``look`` says."""

    def __init__(self, slots=2):
        self.now = 50.0
        self.board = Scoreboard(slots)
        self.queues = {slot: [listener()] for slot in range(slots)}
        self.ends = [pair() for _ in range(slots)]
        self.kin = {100 + slot: Kin(self.ends[slot][0], self.row(slot), slot) for slot in range(slots)}
        self.kin[99] = Kin(self.ends[0][0], None, None)  # a child that serves nobody
        self.selector = selectors.DefaultSelector()
        self.lender = Lender(lambda: self.queues)
        self.lookout = Lookout(self.lender, self.board, Lateness())
        self.lender.join(self.kin)
        self.lookout.join(self.selector, self.kin)
        self.clients = []

    def row(self, slot, seat=0):
        return self.board.row(slot, seat)

    def saw(self, event, *actions):
        self.lender.saw(event, actions, self.now)
        self.lookout.saw(event, actions, self.now)

    def begin(self):
        self.saw(Started())
        for slot in self.queues:
            self.row(slot).cells[PHASE] = Phase.READY
            self.row(slot).cells[ACCEPTING] = 1
            self.saw(Ready(100 + slot))
        return self

    def rest(self):
        """Until nothing was to be seen for a while."""
        while self.lookout.wake_at is not None:
            self.look()
        return self

    def connect(self, slot):
        self.clients.append(socket.create_connection(self.queues[slot][0].sock.getsockname()))

    def accept(self, slot, *, thief=None):
        self.queues[slot][0].sock.accept()[0].close()
        self.row(slot if thief is None else thief).cells[CONNECTIONS_TOTAL] += 1
        if thief is not None:
            self.row(thief).cells[STOLEN] += 1

    def look(self, *, too_late=0.0):
        """The time of the next look has come."""
        self.now = self.lookout.wake_at + too_late
        self.lookout.tick(self.now)

    @property
    def wakes(self):
        """Whether the master would be woken by what waits, and is."""
        found = self.selector.select(0)
        for key, _ in found:
            key.data()
        return bool(found)

    def told(self):
        """The last order of each worker; None: none since the last time."""
        return [last(child) for _, child in self.ends]

    def close(self):
        self.lookout.close()
        self.selector.close()
        for client in self.clients:
            client.close()
        for listeners in self.queues.values():
            listeners[0].sock.close()
        for master, child in self.ends:
            master.close()
            child.close()


def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return Listener(sock=sock, address="x", server=None)


def last(child):
    found = None
    while orders := child.hear()[0]:
        found = orders[-1].slots
    return found


@pytest.fixture
def made():
    scenes = []

    def make(slots=2):
        scenes.append(Scene(slots))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(made):
    return made().begin()


def test_nobody_looks_until_somebody_serves(made):
    scene = made()
    scene.saw(Started())
    scene.rest()
    scene.connect(1)
    assert scene.wakes
    assert (scene.lookout.wake_at, scene.wakes) == (None, False)
    scene.row(0).cells[PHASE] = Phase.READY
    scene.saw(Ready(100))
    assert scene.lookout.wake_at is not None


def test_with_nothing_to_see_the_looks_end_and_other_events_do_not_begin_them(scene):
    scene.rest()
    scene.saw(Tick())
    assert (scene.lookout.wake_at, scene.wakes) == (None, False)


def test_a_connection_that_waits_begins_them(scene):
    scene.rest()
    scene.connect(0)
    assert scene.wakes
    assert scene.lookout.wake_at is not None
    assert not scene.wakes, "the selector waits for it no more: it would spin"


def test_a_lone_worker_is_not_looked_at(made):
    scene = made(1).begin()
    scene.connect(0)
    assert (scene.lookout.wake_at, scene.wakes) == (None, False)


def late(scene, slot=0):
    scene.rest()
    scene.connect(slot)
    assert scene.wakes
    scene.now = scene.lookout.wake_at
    scene.look()
    return scene


def test_who_is_late_is_counted_and_its_sibling_told(scene):
    late(scene)
    assert scene.told() == [None, {0}]
    seen = scene.row(0).snapshot()
    assert (seen.late_total, seen.queue, scene.row(1).snapshot().late_total) == (1, 1, 0)


def test_a_master_that_has_overslept_looks_once_more(scene):
    scene.rest()
    scene.connect(0)
    assert scene.wakes
    scene.look(too_late=2 * OVERSLEPT)
    assert scene.row(0).snapshot().late_total == 0
    scene.look()
    assert scene.row(0).snapshot().late_total == 1


def test_who_is_back_is_left_to_itself(scene):
    late(scene)
    scene.accept(0, thief=1)
    scene.look()
    assert scene.told() == [None, {0}]
    for _ in range(200):
        scene.connect(0)
        scene.accept(0)
        scene.look()
    assert scene.told() == [None, frozenset()]


def test_looks_go_on_while_connections_are_accepted(scene):
    scene.rest()
    scene.connect(0)
    assert scene.wakes
    for _ in range(int(3 * QUIET / INTERVAL)):
        scene.accept(0)
        scene.look()
        scene.connect(0)
    assert scene.lookout.wake_at is not None


def test_looks_become_rarer_while_nothing_moves_and_everybody_is_late(scene):
    scene.rest()
    scene.connect(0)
    scene.connect(1)
    assert scene.wakes
    for _ in range(50):
        scene.look()
    assert scene.lookout.wake_at - scene.now == pytest.approx(LONGEST_INTERVAL)
    assert scene.told() == [None, None]
    scene.accept(1)
    scene.look()
    assert scene.lookout.wake_at - scene.now == pytest.approx(INTERVAL)


def test_the_idlest_is_asked_first(made):
    scene = made(6).begin()
    for slot in range(6):
        scene.row(slot).cells[CONNECTIONS] = 10 - slot
    late(scene)
    assert scene.told() == [None, None, None, {0}, {0}, {0}]


def test_who_has_paused_is_not_asked_and_the_looks_go_on(scene):
    scene.row(1).cells[ACCEPTING] = 0
    late(scene)
    assert scene.told() == [None, None]
    scene.row(1).cells[ACCEPTING] = 1
    scene.look()
    assert scene.told() == [None, {0}]


def test_a_successor_is_told_what_its_slot_is_to_watch(scene):
    late(scene)
    scene.told()
    mine, theirs = pair()
    scene.ends[1][0].close()
    scene.ends[1][1].close()
    scene.ends[1] = mine, theirs
    del scene.kin[101]
    scene.saw(Exited(101, 0, "exited"))
    scene.kin[111] = Kin(mine, scene.row(1, 1), 1)
    scene.saw(Ready(111))
    assert scene.told() == [None, {0}]


def test_the_death_of_a_worker_begins_looks(scene):
    scene.rest()
    scene.connect(0)
    scene.saw(Exited(100, -9, "killed"))
    assert scene.lookout.wake_at is not None


def test_sockets_that_change_are_looked_at_anew(scene):
    scene.rest()
    old = scene.queues[0].pop()
    scene.queues[0].append(listener())
    scene.saw(Tick())
    scene.rest()
    old.sock.close()
    scene.connect(0)
    assert scene.wakes


def test_when_all_are_told_to_leave_it_looks_no_more(scene):
    scene.rest()
    scene.saw(Started(), Unlisten())
    scene.connect(0)
    scene.saw(Ready(100))
    assert (scene.lookout.wake_at, scene.wakes) == (None, False)


def test_a_child_closes_its_copy_and_the_master_still_waits(scene):
    scene.rest()
    child = scene.lookout._epoll.fileno()
    registered = scene.selector.get_map()[child]
    scene.lookout.close()
    assert scene.lookout._epoll is None
    assert registered in scene.selector.get_map().values()
