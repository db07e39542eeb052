"""Workers are told of sockets that were made or shut down after their fork, and of nothing else."""

import socket

import pytest

from aioserve.accept.base import Listener
from aioserve.accept.orders import Gone, Lend
from aioserve.master.channel import pair
from aioserve.master.events import Started, Unlisten
from aioserve.master.hands import Kin
from aioserve.master.lender import Lender


class Scene:
    """Three kin: the workers of slots 0 and 1, and a child that serves nobody."""

    def __init__(self):
        self.queues = {0: [listener()], 1: [listener()]}
        self.ends = [pair() for _ in range(3)]
        kin = {
            100 + index: Kin(master, None, worker)
            for index, (master, _) in enumerate(self.ends)
            for worker in [(0, 1, None)[index]]
        }
        self.lender = Lender(lambda: self.queues)
        self.lender.join(kin)

    def saw(self, *actions):
        self.lender.saw(Started(), actions, 0.0)

    def told(self):
        """What each worker has heard: (order, slot, number of sockets)."""
        found = []
        for _, child in self.ends:
            heard = []
            while orders := child.hear()[0]:
                heard += orders
            found.append([spelt(order) for order in heard])
        return found

    def close(self):
        for listeners in self.queues.values():
            for one in listeners:
                one.sock.close()
        for master, child in self.ends:
            master.close()
            child.close()


def listener(*, listens=True):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    if listens:
        sock.listen(4)
    return Listener(sock=sock, address="x", server=None)


def spelt(order):
    if isinstance(order, Lend):
        for one in order.listeners:
            one.sock.close()
        return Lend, order.slot, len(order.listeners)
    return type(order), order.slot


@pytest.fixture
def scene():
    scene = Scene()
    yield scene
    scene.close()


def test_what_was_there_before_the_fork_is_not_told(scene):
    scene.saw()
    assert (scene.told(), scene.lender.wake_at) == ([[], [], []], None)


def test_a_socket_is_lent_when_it_listens_and_not_to_its_own_worker(scene):
    scene.queues[1].append(listener(listens=False))
    scene.lender.join(scene.lender._kin)  # slot 1 is a new one: its sockets do not all listen
    scene.saw()
    assert scene.told() == [[], [], []]
    scene.queues[1][1].sock.listen(4)
    scene.saw()
    scene.saw()
    assert scene.told() == [[(Lend, 1, 2)], [], []]


def test_a_slot_that_has_gone_is_told_to_the_others(scene):
    scene.queues.pop(0)[0].sock.close()
    scene.saw()
    assert scene.told() == [[], [(Gone, 0)], []]


def test_a_slot_that_comes_again_has_other_sockets(scene):
    scene.queues[0].pop().sock.close()
    scene.queues[0].append(listener())
    scene.saw()
    assert scene.told() == [[], [(Lend, 0, 1)], []]


def test_what_is_lent_is_another_mapping_once_it_has_changed(scene):
    before = scene.lender.lent
    scene.saw()
    assert scene.lender.lent is before
    scene.queues.pop(0)[0].sock.close()
    scene.saw()
    assert list(scene.lender.lent) == [1]


def test_when_the_master_closes_its_copies_at_the_end_nobody_has_to_close_his(scene):
    for listeners in scene.queues.values():
        listeners[0].sock.close()
    scene.queues.clear()
    scene.saw(Unlisten())
    scene.saw()
    scene.lender.tick(0.0)
    assert scene.told() == [[], [], []]
