"""Single turns of the dispatcher's loop, with real sockets and made-up workers, in this process."""

import os
import socket
from contextlib import ExitStack

import pytest

from aioserve.accept import passing
from aioserve.accept.balance import LATE
from aioserve.accept.base import Listener
from aioserve.accept.dispatcher import Dispatching
from aioserve.observe.scoreboard import (
    ACCEPTING,
    CONNECTIONS,
    LATE_TOTAL,
    PASSED_TOTAL,
    PHASE,
    RETAKEN_TOTAL,
    Phase,
    Scoreboard,
)
from tests.descriptors import few_descriptors


class Stage:
    """A dispatcher between listeners and slots. ``taken`` is what the worker of a slot would receive."""

    def __init__(self, stack, slots, listeners=1, beat=0.0):
        self.board = Scoreboard(slots + 1)
        self.row = self.board.row(slots, 0)
        self.socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(listeners)]
        for sock in self.socks:
            sock.setblocking(False)
        made = [Listener(sock=sock, address="tcp", server=None) for sock in self.socks]
        self.avoided = bytearray(slots)
        self.now = self.asleep = 0.0
        self.dispatching = Dispatching(
            made, row=self.row, avoided=self.avoided, backlog=64, clock=self.clock, beat=beat
        )
        stack.callback(self.dispatching._poll.close)
        self.backs = []
        self.stack = stack
        for slot in range(slots):
            out, back = passing.feed()
            stack.enter_context(out)
            self.backs.append(stack.enter_context(back))
            rows = [self.board.row(slot, seat) for seat in range(2)]
            self.dispatching.add(slot, [row.cells for row in rows], out, back)
            self.serve(slot)
        self.dispatching.watch()

    def clock(self):
        """A turn looks at it before it sleeps, and afterwards."""
        now = self.now
        self.now, self.asleep = now + self.asleep, 0.0
        return now

    def serve(self, slot, *, connections=0, accepting=True, phase=Phase.READY):
        cells = self.board.row(slot, 0).cells
        cells[CONNECTIONS], cells[ACCEPTING], cells[PHASE] = connections, accepting, phase

    def connect(self, count=1, listener=0):
        for _ in range(count):
            self.stack.enter_context(socket.create_connection(self.socks[listener].getsockname()))

    def turn(self, count=1):
        """Whatever there is to do takes two turns: one sees that somebody has room, the next one accepts."""
        for _ in range(count + 1):
            self.dispatching._turn()

    def taken(self, slot):
        """Where each connection in the feed of this slot came from."""
        found = []
        while (message := passing.receive(self.backs[slot])) is not None and message[0]:
            for descriptor in message[1]:
                os.close(descriptor)
            found += message[0]
        return found

    def wait(self, seconds):
        self.now += seconds
        self.turn()


@pytest.fixture
def stage():
    with ExitStack() as stack:
        yield lambda *args, **kwargs: Stage(stack, *args, **kwargs)


def test_connections_are_passed_to_the_smallest_loads_in_few_messages(stage):
    it = stage(2)
    it.serve(0, connections=4)
    it.connect(10)
    it.turn()
    assert (len(it.taken(0)), len(it.taken(1))) == (3, 7)
    assert it.row.cells[PASSED_TOTAL] == 10


def test_a_connection_says_which_listener_it_came_from(stage):
    it = stage(1, listeners=2)
    it.connect(2, listener=1)
    it.connect(1, listener=0)
    it.turn()
    assert sorted(it.taken(0)) == [0, 1, 1]


def test_nobody_is_accepted_while_nobody_takes(stage):
    it = stage(1)
    it.serve(0, accepting=False)
    it.connect(3)
    it.turn()
    assert it.taken(0) == []
    for _ in range(3):
        it.socks[0].accept()[0].close()  # they wait in the kernel still


def test_a_worker_that_takes_again_says_so_and_is_given_what_waits(stage):
    it = stage(1, beat=60.0)  # it would not look by itself
    it.connect(1)
    it.backs[0].send(passing.AWAKE)
    it.turn()
    assert it.taken(0) == [0]


def test_no_more_is_sent_than_a_feed_is_to_hold(stage):
    it = stage(1)
    it.connect(passing.MOST + 5)
    it.turn(3)
    assert len(it.taken(0)) == passing.MOST
    it.turn()
    assert len(it.taken(0)) == 5


def test_what_waits_for_a_late_worker_is_taken_back_for_an_idle_one(stage):
    it = stage(2)
    it.serve(1, connections=9)
    it.connect(2)
    it.turn()
    assert [passing.waiting(back) for back in it.backs] == [2, 0]
    it.wait(2 * LATE)

    assert it.taken(1) == [0, 0]
    # A probe shows when it is back; until then it gets nothing, however few it has.
    assert it.taken(0) == [passing.PROBE]
    assert (it.row.cells[LATE_TOTAL], it.row.cells[RETAKEN_TOTAL]) == (1, 2)


def test_a_dispatcher_that_has_overslept_blames_nobody_and_looks_again(stage):
    it = stage(2)
    it.serve(1, connections=9)
    it.connect(2)
    it.turn()
    it.asleep = 2 * LATE
    it.turn()
    assert it.row.cells[LATE_TOTAL] == 0
    assert [passing.waiting(back) for back in it.backs] == [2, 0]
    it.wait(LATE)
    assert it.row.cells[LATE_TOTAL] == 1
    assert it.taken(1) == [0, 0]


def test_a_late_worker_gets_nothing_until_it_has_taken_the_probe(stage):
    it = stage(2)
    it.serve(1, connections=9)
    it.connect(1)
    it.turn()
    it.wait(2 * LATE)
    it.taken(1)
    it.connect(1)
    it.turn()
    assert it.taken(1) == [0]
    it.taken(0)
    it.connect(1)
    it.turn()
    assert it.taken(0) == [0]


def test_what_waits_for_a_late_worker_stays_when_nobody_is_idle(stage):
    it = stage(2)
    it.connect(2)
    it.turn()
    it.wait(3 * LATE)
    assert [it.taken(0), it.taken(1)] == [[0], [0]]


@pytest.mark.parametrize("how", ["avoided", "dead"])
def test_what_waits_for_a_slot_without_a_worker_goes_to_another(stage, how):
    it = stage(2)
    it.connect(2)
    it.turn()
    if how == "avoided":
        it.avoided[0] = 1
    else:
        it.board.row(0, 0).clear()
    it.turn()
    assert [it.taken(0), it.taken(1)] == [[], [0, 0]]


def test_a_slot_that_goes_leaves_what_waits_to_the_others(stage):
    it = stage(2)
    it.connect(2)
    it.turn()
    it.dispatching.remove(1)
    it.turn()
    assert it.taken(0) == [0, 0]


def test_who_leaves_passes_on_what_waits_in_the_kernel_and_closes_the_door(stage):
    it = stage(2)
    it.serve(0, accepting=False)  # at its limit, but there
    it.serve(1, accepting=False, phase=Phase.BOOTING)
    it.connect(70)
    it.dispatching._leave()
    assert len(it.taken(0)) == 70
    assert it.socks[0].fileno() == -1


def test_who_is_relieved_leaves_the_queue_to_the_successor(stage):
    it = stage(1)
    it.board.row(1, 1).cells[PHASE] = Phase.READY
    it.connect(2)
    it.dispatching._leave()
    assert it.taken(0) == []
    it.socks[0].accept()[0].close()


def test_at_the_end_a_dead_workers_connections_go_to_one_that_is_there(stage):
    it = stage(2)
    it.connect(2)
    it.turn()
    it.board.row(0, 0).clear()
    it.dispatching._leave()
    assert [it.taken(0), it.taken(1)] == [[], [0, 0]]


def test_a_full_feed_leaves_connections_with_the_dispatcher_until_there_is_room(stage):
    it = stage(1)
    out = it.dispatching._ends[0][0]
    it.connect(1)
    while passing.send(out, bytes([passing.PROBE]), ()):
        pass
    it.dispatching._accept_from(0, 1)
    it.dispatching._lanes[0].room = 1
    it.dispatching._give(0.0)
    assert len(it.dispatching._held) == 1
    it.taken(0)
    it.turn()
    assert it.taken(0) == [0]


def test_without_descriptors_connections_wait_in_the_kernel_for_a_second(stage, caplog):
    it = stage(1)
    it.connect(1)
    with few_descriptors():
        it.turn()
    assert caplog.messages == ["no connection can be accepted for 1 s: Too many open files"]
    it.turn()
    assert it.taken(0) == []
    it.wait(1.0)
    assert it.taken(0) == [0]


def test_what_cannot_be_taken_back_for_want_of_descriptors_is_said(stage, caplog):
    it = stage(2)
    it.connect(4)
    it.turn()
    it.avoided[0] = 1
    with few_descriptors(1):
        it.turn()
    assert "1 connections are lost: the dispatcher has too few descriptors" in caplog.messages
    assert it.taken(1) == [0, 0, 0]


def test_at_the_end_without_descriptors_what_is_lost_is_said(stage, caplog):
    it = stage(1)
    it.connect(1)
    with few_descriptors():
        it.dispatching._leave()
    assert caplog.messages == ["connections that wait cannot be accepted before the end: Too many open files"]


def test_what_is_there_to_hear_is_heard_in_the_next_turn(stage):
    it = stage(1)
    read, write = os.pipe()
    heard = []
    it.dispatching.listen_to(read, lambda: heard.append(os.read(read, 10)))
    os.write(write, b"news")
    it.turn()
    os.close(read)
    os.close(write)
    assert heard == [b"news"]


def test_a_master_that_has_gone_ends_it(stage):
    it = stage(1)
    it.dispatching._master_gone()
    assert it.dispatching._leaving
