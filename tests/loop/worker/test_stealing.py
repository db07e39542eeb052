"""A worker that accepts what waits for its siblings, in a loop of either kind."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from aioserve.accept.base import Listener
from aioserve.accept.orders import Gone, Lend, Watch
from aioserve.observe.scoreboard import STOLEN, Scoreboard
from aioserve.worker.gate import Gate
from aioserve.worker.stealing import Stealing
from tests.descriptors import few_descriptors
from tests.loop.worker.greeter import Greeter, greeting


def listener(name, *, listens=True):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    if listens:
        sock.listen(16)
    sock.setblocking(False)
    return Listener(sock=sock, address=name, server=None)


def copy(of):
    return Listener(sock=of.sock.dup(), address=of.address, server=None)


@pytest.fixture
def masters():
    """The sockets as the master has them: slot 0 is ours."""
    made = [listener(f"slot {slot}") for slot in range(3)]
    yield made
    for one in made:
        one.sock.close()


class Worker:
    """``async with Worker(masters, always=True) as worker``: a gate with what it steals from."""

    def __init__(self, masters, *, always=False):
        self.cells = Scoreboard(1).row(0, 0).cells
        siblings = {slot: [copy(masters[slot])] for slot in (1, 2)}
        self.stealing = Stealing(siblings, always=always, cells=self.cells)
        self.gate = Gate(asyncio.get_running_loop(), [copy(masters[0])], Greeter, backlog=16)
        self.gate.stealing = self.stealing
        self._open = True

    async def __aenter__(self):
        await self.gate.open()
        return self

    async def __aexit__(self, *_):
        if self._open:
            await self.close()

    async def close(self, **how):
        self._open = False
        await self.gate.close(**{"take_queue": False, **how})


async def waits(of):
    """Whether nobody answers there."""
    with pytest.raises(TimeoutError):
        await greeting(of.sock, 0.05)
    of.sock.accept()[0].close()
    return True


def test_always_means_every_sibling(run, masters):
    async def main():
        async with Worker(masters, always=True) as worker:
            answers = [await greeting(one.sock) for one in masters]
            return answers, worker.stealing.connections, worker.cells[STOLEN]

    assert run(main()) == ([b"slot 0", b"slot 1", b"slot 2"], 2, 2)


def test_otherwise_those_that_the_master_names_and_no_longer(run, masters):
    async def main():
        async with Worker(masters) as worker:
            assert await waits(masters[1])
            worker.stealing.obey(Watch(frozenset({1})))
            answer = await greeting(masters[1].sock)
            assert await waits(masters[2])
            worker.stealing.obey(Watch(frozenset()))
            assert await waits(masters[1])
            return answer, worker.stealing.watched

    assert run(main()) == (b"slot 1", frozenset())


def test_one_connection_is_taken_per_turn_so_that_others_get_some(run, masters):
    async def main():
        clients = [socket.create_connection(masters[1].sock.getsockname()) for _ in range(8)]
        async with Worker(masters) as worker:
            worker.stealing.obey(Watch(frozenset({1})))
            most, before = 0, 0
            while worker.stealing.connections < len(clients):
                await asyncio.sleep(0)
                most, before = max(most, worker.stealing.connections - before), worker.stealing.connections
            for client in clients:
                client.close()
            return most

    assert run(main()) == 1


def test_a_paused_gate_steals_nothing_and_remembers_its_orders(run, masters):
    async def main():
        async with Worker(masters) as worker:
            worker.stealing.obey(Watch(frozenset({1})))
            worker.gate.pause()
            assert await waits(masters[1])
            worker.stealing.obey(Watch(frozenset({2})))
            assert worker.stealing.watched == frozenset()
            worker.gate.resume()
            return await greeting(masters[2].sock), worker.stealing.watched

    assert run(main()) == (b"slot 2", {2})


def test_orders_come_before_the_gate_opens(run, masters):
    async def main():
        worker = Worker(masters)
        worker.stealing.obey(Watch(frozenset({2})))
        async with worker:
            return await greeting(masters[2].sock)

    assert run(main()) == b"slot 2"


@pytest.mark.parametrize("always", [False, True])
def test_a_socket_that_was_shut_down_ends_its_door(run, masters, always):
    async def main():
        async with Worker(masters, always=always) as worker:
            worker.stealing.obey(Watch(frozenset({1, 2})))
            masters[1].sock.shutdown(socket.SHUT_RDWR)
            while 1 in worker.stealing.watched:
                await asyncio.sleep(0)
            return await greeting(masters[2].sock), worker.stealing.watched

    assert run(main()) == (b"slot 2", {2})


def test_a_slot_that_has_gone_is_watched_no_more_and_its_copies_are_closed(run, masters):
    async def main():
        async with Worker(masters, always=True) as worker:
            kept = worker.stealing._siblings[1][0].sock
            worker.stealing.obey(Gone(1))
            worker.stealing.obey(Gone(1))
            return kept.fileno(), worker.stealing.watched

    assert run(main()) == (-1, {2})


@pytest.mark.parametrize("always", [False, True])
def test_a_socket_that_is_lent_later_is_used(run, masters, always):
    new = listener("slot 3")

    async def main():
        async with Worker(masters, always=always) as worker:
            worker.stealing.obey(Watch(frozenset({3})))
            worker.stealing.obey(Lend(3, (copy(new),)))
            return await greeting(new.sock)

    with new.sock:
        assert run(main()) == b"slot 3"


def test_a_socket_that_does_not_listen_yet_is_used_when_it_is_lent(run, masters):
    new = listener("slot 3", listens=False)

    async def main():
        async with Worker(masters, always=True) as worker:
            worker.stealing.obey(Lend(3, (copy(new),)))
            first = worker.stealing._siblings[3][0].sock
            for _ in range(5):
                await asyncio.sleep(0)
            new.sock.listen(16)
            worker.stealing.obey(Lend(3, (copy(new),)))
            return first.fileno(), await greeting(new.sock)

    with new.sock:
        assert run(main()) == (-1, b"slot 3")


def test_a_worker_that_leaves_takes_nothing_from_siblings_that_serve(run, masters):
    async def main():
        client = socket.create_connection(masters[1].sock.getsockname())
        worker = Worker(masters)
        async with worker:
            await worker.close(take_queue=True)
        with client:
            return masters[1].sock.accept()[0].close()

    run(main())


def test_the_last_that_has_the_socket_of_a_sibling_takes_what_waits_there(run, masters):
    async def main():
        worker = Worker(masters)
        async with worker:
            client = socket.create_connection(masters[1].sock.getsockname())
            await worker.close(take_queue=True, last={1}.__contains__)
            client.setblocking(False)
            with client:
                return await asyncio.get_running_loop().sock_recv(client, 64)

    assert run(main()) == b"slot 1"


@pytest.mark.parametrize("order", [Lend, Gone, Watch])
def test_after_the_end_orders_have_no_effect(run, masters, order):
    async def main():
        worker = Worker(masters, always=True)
        async with worker:
            await worker.close()
        lent = copy(masters[1])
        worker.stealing.obey(
            {Lend: Lend(1, (lent,)), Gone: Gone(1), Watch: Watch(frozenset({1}))}[order],
        )
        found = lent.sock.fileno()
        lent.sock.close()
        return worker.stealing.watched, found == -1

    assert run(main()) == (frozenset(), order is Lend)


def test_without_descriptors_the_sibling_is_left_alone_for_a_while(run, masters, caplog):
    async def main():
        async with Worker(masters) as worker:
            client = socket.create_connection(masters[1].sock.getsockname())
            with few_descriptors():
                worker.stealing.obey(Watch(frozenset({1})))
                while not caplog.records:
                    await asyncio.sleep(0)
            client.close()
            return worker.stealing.watched

    with caplog.at_level(logging.ERROR):
        assert run(main()) == {1}
    assert "no connection can be accepted for 1 s" in caplog.text
