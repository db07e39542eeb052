"""The usher over real listeners, and lanes whose loops turn when a test says so."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from aioserve.accept.balance import INEXCUSABLE, LATE
from aioserve.accept.base import Listener
from aioserve.observe.scoreboard import CONNECTIONS, CONNECTIONS_TOTAL, LATE_TOTAL, RETAKEN_TOTAL, Scoreboard
from aioserve.worker.usher import Lane, Usher


class LaneLoop:
    """A loop that does what it was asked for when it turns."""

    def __init__(self):
        self.asked = []
        self.closed = False

    def call_soon_threadsafe(self, callback):
        if self.closed:
            raise RuntimeError("the loop is closed")
        self.asked.append(callback)

    def turn(self):
        asked, self.asked = self.asked, []
        for callback in asked:
            callback()


class LaneServer:
    """A server that keeps what it is given."""

    def __init__(self):
        self.taken = []
        self.departed = 0

    def take(self, listener, sock):
        self.taken.append(sock)


class Hall:
    """An usher, its lanes, and clients that come to its door."""

    def __init__(self, usher, lanes, port, row):
        self.usher, self.lanes, self.row = usher, lanes, row
        self._port = port
        self._clients = []

    def come(self, count=1):
        """Clients connect; the kernel has them at once."""
        for _ in range(count):
            self._clients.append(socket.create_connection(("127.0.0.1", self._port)))

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def arrive(self, count=1):
        """Clients connect and are handed over."""
        before = self.row.cells[CONNECTIONS_TOTAL]
        self.come(count)
        await self.until(lambda: self.row.cells[CONNECTIONS_TOTAL] == before + count)

    def turn(self, *numbers):
        for number in numbers or range(len(self.lanes)):
            self.lanes[number].loop.turn()

    @property
    def taken(self):
        return [len(lane.server.taken) for lane in self.lanes]

    @property
    def waiting(self):
        return [len(lane.inbox) for lane in self.lanes]

    def leave(self):
        socks = [sock for lane in self.lanes for sock in (*lane.server.taken, *(sock for _, sock in lane.inbox))]
        for sock in (*socks, *self._clients):
            sock.close()


@pytest.fixture
async def hall():
    opened = []

    async def open_hall(lanes=2, limit=0, patience=60.0, **more):
        sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        lanes = [Lane(LaneServer(), LaneLoop(), patience=patience) for _ in range(lanes)]
        row = Scoreboard(1).row(0, 0)
        usher = Usher(
            asyncio.get_running_loop(),
            lanes,
            [Listener(sock=sock, address="tcp", server=None)],
            SimpleNamespace(limit_connections=limit),
            backlog=64,
            row=row,
            **more,
        )
        opened.append(Hall(usher, lanes, sock.getsockname()[1], row))
        await usher.open()
        return opened[0]

    yield open_hall
    for one in opened:
        await one.usher.close(take_queue=False)
        one.leave()


async def test_connections_are_spread_evenly_and_counted(hall):
    hall = await hall(lanes=4)
    await hall.arrive(64)
    hall.turn()
    assert hall.taken == [16, 16, 16, 16]
    assert hall.row.cells[CONNECTIONS] == 64


async def test_the_loop_with_the_fewest_is_next_and_ties_go_round(hall):
    hall = await hall(lanes=3)
    for _ in range(3):
        await hall.arrive()
        hall.turn()
    assert hall.taken == [1, 1, 1]
    hall.lanes[2].server.departed = 1
    await hall.arrive()
    hall.turn()
    assert hall.taken == [1, 1, 2]
    assert hall.row.cells[CONNECTIONS] == 3


async def test_a_loop_is_woken_once_for_all_that_came_together(hall):
    hall = await hall(lanes=1)
    hall.come(8)
    await hall.until(lambda: hall.waiting == [8])
    assert len(hall.lanes[0].loop.asked) <= 2
    hall.turn()
    assert hall.taken == [8]


async def test_what_a_late_loop_has_not_come_to_goes_to_another(hall):
    now = 100.0
    hall = await hall(patience=LATE, clock=lambda: now)
    hall.lanes[1].patience = 60.0
    await hall.arrive(4)
    now += 1.1 * INEXCUSABLE  # also by a main loop that has overslept
    await hall.until(lambda: hall.waiting == [0, 4])
    hall.turn(1)
    assert (hall.row.cells[LATE_TOTAL], hall.row.cells[RETAKEN_TOTAL]) == (1, 2)
    # And nothing more, until it has turned.
    await hall.arrive(2)
    hall.turn(1)
    assert hall.taken == [0, 6]
    hall.turn(0)
    hall.lanes[0].patience = 60.0
    await hall.arrive(2)
    hall.turn(0)
    assert hall.taken == [2, 6]


async def test_a_main_loop_that_has_overslept_blames_nobody_and_looks_again(hall):
    now = 100.0
    hall = await hall(patience=LATE, clock=lambda: now)
    hall.lanes[1].patience = 60.0
    await hall.arrive(2)
    now += 2 * LATE
    hall.usher._look()
    assert hall.row.cells[LATE_TOTAL] == 0
    now += 1.1 * LATE
    hall.usher._look()
    assert hall.row.cells[LATE_TOTAL] == 1
    assert hall.waiting == [0, 2]


async def test_while_all_loops_are_late_connections_wait_for_other_workers(hall):
    now = 100.0
    hall = await hall(patience=LATE, clock=lambda: now)
    await hall.arrive(2)
    now += 1.1 * INEXCUSABLE  # also by a main loop that has overslept
    await hall.until(lambda: not hall.usher._gate.accepting)
    hall.come(3)
    await asyncio.sleep(5 * LATE)  # in which the usher looks again, and the gate would have accepted
    assert hall.row.cells[CONNECTIONS_TOTAL] == 2
    # The first that turns is given what the other one had, too.
    await hall.until(lambda: hall.turn(0) or hall.taken == [5, 0])


async def test_a_loop_that_has_gone_gets_nothing_and_loses_nothing_in_its_inbox(hall):
    hall = await hall()
    hall.lanes[0].loop.closed = True
    await hall.arrive(4)
    await hall.until(lambda: hall.waiting == [0, 4])
    hall.turn(1)
    await hall.arrive(2)
    hall.turn(1)
    assert hall.taken == [0, 6]


async def test_accepting_pauses_at_the_limit_until_one_has_gone(hall, caplog):
    hall = await hall(limit=3)
    hall.come(5)
    await hall.until(lambda: hall.row.cells[CONNECTIONS_TOTAL] == 3)
    hall.turn()
    await hall.until(lambda: not hall.usher._gate.accepting)
    assert "3 connections are open, the limit: accepting pauses until one of them closes" in caplog.messages
    hall.lanes[0].server.departed = 1
    await hall.until(lambda: hall.row.cells[CONNECTIONS_TOTAL] == 4)


async def test_what_waits_in_the_queue_is_handed_over_at_the_end(hall):
    hall = await hall()
    hall.usher._gate.pause()
    hall.come(6)
    await hall.usher.close(take_queue=True)
    hall.turn()
    assert hall.taken == [3, 3]
    hall.usher.beat()  # beats go on while the loops drain
    assert not hall.usher._gate.accepting


async def test_accepting_pauses_while_descriptors_are_short(hall, caplog):
    hall = await hall()
    hall.usher._room = 1 << 30
    hall.usher._gate.has_room = lambda _: False
    for _ in range(5):
        hall.usher.beat()
    assert caplog.messages == [f"fewer than {1 << 30} descriptors are free: accepting pauses until there are more"]
    assert not hall.usher._gate.accepting


def test_a_loop_is_excused_but_not_for_ever():
    lane = Lane(LaneServer(), LaneLoop())
    lane.ask(1.0)
    lane.excused_at = 1.0 + LATE
    assert not lane.is_late(1.0 + 1.5 * LATE)
    assert lane.is_late(1.0 + 2.5 * LATE)
    lane.excused_at = 1.0 + INEXCUSABLE
    assert lane.is_late(1.001 + INEXCUSABLE)


def test_a_late_loop_that_makes_headway_is_not_late():
    lane = Lane(LaneServer(), LaneLoop())
    lane.ask(1.0)
    lane.ask(1.001)
    assert not lane.is_late(1.0 + LATE)
    assert lane.is_late(1.001 + LATE)
    lane.loop.asked.pop(0)()
    assert not lane.is_late(1.002 + LATE)
    lane.loop.turn()
    assert not lane.is_late(9.0)
