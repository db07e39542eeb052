"""Workers at one listener: who clearly has more leaves what comes to the others, and never waits in vain."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import pytest

from aioserve.accept.base import Listener
from aioserve.observe.scoreboard import ACCEPTING, CONNECTIONS, CONNECTIONS_TOTAL, Scoreboard
from aioserve.worker.evenness import BRIEF, MOMENT, SAMPLE, SHARE, SLACK, Balance, PoliteDoor


class Scene:
    """This worker's row, and those of two siblings that accept."""

    def __init__(self, *siblings):
        board = Scoreboard(1 + len(siblings))
        self.mine = board.row(0, 0).cells
        self.siblings = [board.row(slot, 0).cells for slot in range(1, 1 + len(siblings))]
        for cells, connections in zip(self.siblings, siblings, strict=True):
            cells[CONNECTIONS] = connections
            cells[ACCEPTING] = 1
        self.balance = Balance(self.mine, self.siblings)

    def leans_with(self, connections):
        self.mine[CONNECTIONS] = connections
        return self.balance.leans


def test_some_more_than_the_least_loaded_are_even_enough():
    scene = Scene(10, 3)
    assert [scene.leans_with(3 + SLACK + more) for more in (0, 1)] == [False, True]


def test_with_many_connections_more_are_even_enough():
    scene = Scene(100 * SHARE, 100 * SHARE)
    assert scene.balance.most == 100 * SHARE + SLACK + 100


def test_a_worker_that_is_alone_never_leans():
    assert not Scene().leans_with(1_000_000)


def test_siblings_that_do_not_accept_are_not_compared_with():
    scene = Scene(0, 40)
    scene.siblings[0][ACCEPTING] = 0
    assert scene.leans_with(40)
    scene.balance.look(1.0)
    assert not scene.leans_with(40)


def stays(seconds, *, closed, scene):
    """Let so many connections close within a second, of which each has stayed so long."""
    scene.balance.look(1.0)
    scene.mine[CONNECTIONS] = round(seconds * closed)
    scene.mine[CONNECTIONS_TOTAL] = scene.mine[CONNECTIONS] + closed
    scene.balance.look(2.0)
    return scene.balance


@pytest.mark.parametrize(
    ("seconds", "closed", "brief"),
    [(BRIEF / 2, 1000, True), (BRIEF * 2, 1000, False), (BRIEF / 2, SAMPLE, True), (BRIEF / 2, SAMPLE - 1, False)],
)
def test_connections_that_do_not_stay_need_no_spreading(seconds, closed, brief):
    scene = Scene(0)
    balance = stays(seconds, closed=closed, scene=scene)
    assert (balance.brief, scene.leans_with(1000)) == (brief, not brief)


def test_a_pause_changes_nothing():
    scene = Scene(0)
    stays(0.01, closed=1000, scene=scene)
    scene.mine[CONNECTIONS] = 0
    scene.balance.look(3.0)
    assert not scene.leans_with(1000)


def test_those_that_stay_from_then_on_do():
    scene = Scene(0)
    stays(0.01, closed=1000, scene=scene)
    scene.balance.look(3.0)
    assert scene.leans_with(1000)


@pytest.fixture
def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    with sock:
        yield Listener(sock=sock, address="x", server=None)


class Opened:
    """A door at which connections are accepted and closed; the times at which they were, from its opening on."""

    def __init__(self, listener, scene, fail=0):
        self.accepted = []
        self.fail = fail
        self._listener = listener
        self._clients = []
        self._began = time.perf_counter()
        self.door = PoliteDoor(asyncio.get_running_loop(), listener, self._accept, scene.balance)

    def connect(self, count=1):
        for _ in range(count):
            self._clients.append(socket.create_connection(self._listener.sock.getsockname()))
        return self

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.accepted) < count:
                await asyncio.sleep(0)

    def close(self):
        self.door.close()
        for client in self._clients:
            client.close()

    def _accept(self, listener):
        if self.fail:
            self.fail -= 1
            raise OSError(24, "Too many open files")
        try:
            listener.sock.accept()[0].close()
        except BlockingIOError:
            return False
        self.accepted.append(time.perf_counter() - self._began)
        return True


def test_while_it_is_even_connections_are_accepted_at_once(listener):
    async def main():
        scene = Scene(0)
        opened = Opened(listener, scene).connect(3)
        await opened.until(3)
        opened.close()
        return scene.balance.stood_back_at

    assert asyncio.run(main()) == 0.0


def test_what_nobody_else_takes_is_accepted_after_a_moment_and_the_rest_at_once(listener):
    async def main():
        scene = Scene(0)
        scene.mine[CONNECTIONS] = 100
        opened = Opened(listener, scene).connect(20)
        await opened.until(20)
        opened.close()
        return opened.accepted, scene.balance.stood_back_at

    accepted, stood_back_at = asyncio.run(main())
    assert accepted[0] >= MOMENT
    assert stood_back_at > 0
    # Each after a moment of its own would take longer.
    assert accepted[-1] - accepted[0] < 19 * MOMENT


def test_what_another_one_has_taken_meanwhile_is_his(listener):
    async def main():
        scene = Scene(0)
        scene.mine[CONNECTIONS] = 100
        opened = Opened(listener, scene).connect()
        while scene.balance.stood_back_at == 0.0:
            await asyncio.sleep(0)
        listener.sock.accept()[0].close()
        await asyncio.sleep(2 * MOMENT)
        missed = len(opened.accepted)
        opened.connect()
        await opened.until(1)
        opened.close()
        return missed

    assert asyncio.run(main()) == 0


def test_a_door_that_closes_in_that_moment_stays_closed(listener):
    async def main():
        scene = Scene(0)
        scene.mine[CONNECTIONS] = 100
        opened = Opened(listener, scene).connect()
        while scene.balance.stood_back_at == 0.0:
            await asyncio.sleep(0)
        opened.close()
        await asyncio.sleep(3 * MOMENT)
        return opened.accepted

    assert asyncio.run(main()) == []


def test_a_door_that_is_closed_by_what_it_calls_stays_closed(listener):
    async def main():
        loop, scene = asyncio.get_running_loop(), Scene(0)
        scene.mine[CONNECTIONS] = 100
        called = []

        def accept(_listener):
            called.append(loop.time())
            door.close()
            return False

        door = PoliteDoor(loop, listener, accept, scene.balance)
        with socket.create_connection(listener.sock.getsockname()):
            while not called:
                await asyncio.sleep(0)
        return called, loop.remove_reader(listener.sock)

    called, reads = asyncio.run(main())
    assert (len(called), reads) == (1, False)


def test_without_descriptors_it_is_left_alone_for_a_while(listener, caplog):
    async def main():
        scene = Scene(0)
        scene.mine[CONNECTIONS] = 100
        opened = Opened(listener, scene, fail=2).connect()
        while not caplog.records:
            await asyncio.sleep(0)
        opened.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "no connection can be accepted for 1 s" in caplog.text
