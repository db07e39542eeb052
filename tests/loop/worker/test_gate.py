from __future__ import annotations

import asyncio
import os
import socket

import pytest

from aioserve.accept import passing
from aioserve.accept.base import Feed, Listener
from aioserve.worker.gate import Gate
from aioserve.worker.loops import new_loop
from tests.descriptors import few_descriptors
from tests.loop.worker.greeter import Greeter, greeting


def listen(family, address):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen(16)
    return sock


def test_every_listener_is_served_with_its_own_name(run, tmp_path):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))
    unix = listen(socket.AF_UNIX, str(tmp_path / "s"))

    async def main():
        listeners = [Listener(sock=tcp, address="tcp", server=None), Listener(sock=unix, address="unix", server=None)]
        gate = Gate(asyncio.get_running_loop(), listeners, Greeter, backlog=16)
        await gate.open()
        answers = await greeting(tcp), await greeting(unix)
        await gate.close(take_queue=False)
        return answers

    with tcp, unix:
        assert run(main()) == (b"tcp", b"unix")
        # The socket's file belongs to whoever made it: other workers still accept from it.
        assert (tmp_path / "s").exists()


def test_a_paused_gate_leaves_connections_in_the_queue_until_it_resumes(run):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        gate = Gate(asyncio.get_running_loop(), [Listener(sock=tcp, address="tcp", server=None)], Greeter, backlog=16)
        await gate.open()
        gate.pause()
        assert not gate.accepting
        waiting = asyncio.ensure_future(greeting(tcp))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        gate.resume()
        answer = await asyncio.wait_for(waiting, 10)
        await gate.close(take_queue=False)
        return answer

    with tcp:
        assert run(main()) == b"tcp"


def test_whoever_wants_the_sockets_of_a_listener_gets_them(run):
    tcp, own = (listen(socket.AF_INET, ("127.0.0.1", 0)) for _ in range(2))

    async def main():
        def serve(listener, sock):
            with sock:
                sock.send(b"by its socket")

        listeners = [Listener(sock=tcp, address="tcp", server=None), Listener(sock=own, address="own", server=None)]
        gate = Gate(
            asyncio.get_running_loop(),
            listeners,
            Greeter,
            backlog=16,
            attach=lambda listener: serve if listener is listeners[1] else None,
        )
        await gate.open()
        answers = await greeting(tcp), await greeting(own)
        await gate.close(take_queue=False)
        return answers

    with tcp, own:
        assert run(main()) == (b"tcp", b"by its socket")


def test_a_socket_that_breaks_before_it_is_served_is_counted(run):
    own = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        def serve(listener, sock):
            raise OSError("not connected")

        gate = Gate(
            asyncio.get_running_loop(),
            [Listener(sock=own, address="own", server=None)],
            Greeter,
            backlog=16,
            attach=lambda _: serve,
        )
        await gate.open()
        answer = await greeting(own)
        await gate.close(take_queue=False)
        return answer, gate.broken

    with own:
        assert run(main()) == (b"", 1)


def test_no_more_are_adopted_than_there_are_places_until_the_end(run):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        opened = []

        def connect(listener):
            opened.append(listener)
            return Greeter(listener)

        listener = Listener(sock=tcp, address="tcp", server=None)
        gate = Gate(asyncio.get_running_loop(), [listener], connect, backlog=16, places=lambda: 2 - len(opened))
        clients = [socket.create_connection(tcp.getsockname()) for _ in range(5)]
        for client in clients:
            client.setblocking(False)
        adopted = [gate.adopt(listener) for _ in range(5)]
        answers = [await receive(client) for client in clients[:2]]
        assert len(opened) == 2
        await gate.close(take_queue=True)
        return adopted, answers + [await receive(client) for client in clients[2:]]

    assert run(main()) == ([True, True, False, False, False], [b"tcp"] * 5)


def test_a_gate_that_has_opened_without_a_place_pauses_and_does_not_spin():
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        places = 0
        listener = Listener(sock=tcp, address="tcp", server=None)
        gate = Gate(asyncio.get_running_loop(), [listener], Greeter, backlog=16, places=lambda: places)
        await gate.open()
        waiting = asyncio.ensure_future(greeting(tcp))
        while gate.accepting:
            await asyncio.sleep(0)
        places = 1
        gate.resume()
        answer = await waiting
        await gate.close(take_queue=False)
        return answer

    with tcp:
        assert asyncio.run(main()) == b"tcp"


def test_a_closed_gate_does_not_resume_what_was_under_way(run):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        gate = Gate(asyncio.get_running_loop(), [Listener(sock=tcp, address="tcp", server=None)], Greeter, backlog=16)
        await gate.open()
        gate.pause()
        gate.resume()
        await gate.close(take_queue=False)
        await asyncio.sleep(0)
        return gate.accepting

    with tcp:
        assert run(main()) is False


def test_a_closing_gate_serves_what_waits_in_the_queue(run):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        gate = Gate(asyncio.get_running_loop(), [Listener(sock=tcp, address="tcp", server=None)], Greeter, backlog=16)
        await gate.open()
        gate.pause()
        clients = [socket.create_connection(tcp.getsockname()) for _ in range(5)]
        await gate.close(take_queue=True)
        for client in clients:
            client.setblocking(False)
        return [await receive(client) for client in clients]

    assert run(main()) == [b"tcp"] * 5
    assert tcp.fileno() == -1


def test_a_closing_gate_leaves_the_queue_to_others_who_hold_the_socket(run):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        gate = Gate(
            asyncio.get_running_loop(), [Listener(sock=tcp.dup(), address="tcp", server=None)], Greeter, backlog=16
        )
        await gate.open()
        gate.pause()
        with socket.create_connection(tcp.getsockname()):
            await gate.close(take_queue=False)
            tcp.accept()[0].close()

    with tcp:
        run(main())


async def receive(client):
    with client:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 10)


def test_a_gate_without_descriptors_accepts_again_when_there_are_some(caplog):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        loop = asyncio.get_running_loop()
        gate = Gate(loop, [Listener(sock=tcp, address="tcp", server=None)], Greeter, backlog=16)
        await gate.open()
        client = socket.socket()
        client.setblocking(False)
        with few_descriptors(1):
            with open(os.devnull):
                await loop.sock_connect(client, tcp.getsockname())
                while not caplog.text:
                    await asyncio.sleep(0)
            answer = await receive(client)
        await gate.close(take_queue=False)
        return answer

    with asyncio.Runner(loop_factory=lambda: new_loop("asyncio")) as runner:
        assert runner.run(main()) == b"tcp"
    assert "no connection can be accepted for 1 s: Too many open files" in caplog.text


def test_a_gate_that_closes_is_not_opened_by_a_connection_that_leaves_meanwhile(run):
    tcp = listen(socket.AF_INET, ("127.0.0.1", 0))

    async def main():
        gate = Gate(asyncio.get_running_loop(), [Listener(sock=tcp, address="tcp", server=None)], Greeter, backlog=16)
        await gate.open()
        closing = asyncio.ensure_future(gate.close(take_queue=False))
        await asyncio.sleep(0)
        gate.resume()
        await closing
        return gate.accepting

    assert run(main()) is False


class Passed:
    """A feed, and a dispatcher that passes on what it is told."""

    def __init__(self):
        self.out, self.back = passing.feed()
        self.clients = []
        self.tcp = [listen(socket.AF_INET, ("127.0.0.1", 0)) for _ in range(2)]
        listeners = [Listener(sock=sock, address=f"tcp {n}", server=None) for n, sock in enumerate(self.tcp)]
        self.feed = Feed(sock=self.back, listeners=listeners)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in (self.out, self.back, *self.tcp, *self.clients):
            sock.close()

    def connect(self, *origins):
        """Clients of these listeners, in one message."""
        clients, accepted = [], []
        for origin in origins:
            client = socket.create_connection(self.tcp[origin].getsockname())
            client.setblocking(False)
            clients.append(client)
            accepted.append(self.tcp[origin].accept()[0])
        assert passing.send(self.out, bytes(origins), [sock.fileno() for sock in accepted])
        for sock in accepted:
            sock.close()
        self.clients += clients
        return clients


def test_connections_that_were_passed_on_are_served_each_with_its_own_name(run):
    async def main(passed):
        gate = Gate(asyncio.get_running_loop(), [passed.feed], Greeter, backlog=16)
        await gate.open()
        answers = [await receive(client) for client in passed.connect(1, 0, 1)]
        await gate.close(take_queue=False)
        return answers

    with Passed() as passed:
        assert run(main(passed)) == [b"tcp 1", b"tcp 0", b"tcp 1"]


def test_a_gate_tells_whether_it_accepts_and_wakes_the_dispatcher_when_it_does(run):
    async def main(passed):
        told = []
        gate = Gate(asyncio.get_running_loop(), [passed.feed], Greeter, backlog=16, tell=told.append)
        await gate.open()
        assert (told, passing.receive(passed.out)) == ([True], (passing.AWAKE, []))
        gate.pause()
        [client] = passed.connect(0)
        await asyncio.sleep(0)
        assert (told, passing.waiting(passed.back)) == ([True, False], 1)
        gate.resume()
        answer = await receive(client)
        await gate.close(take_queue=False)
        return answer, told

    with Passed() as passed:
        assert run(main(passed)) == (b"tcp 0", [True, False, True, False])


def test_a_probe_is_taken_and_that_is_all(run):
    async def main(passed):
        gate = Gate(asyncio.get_running_loop(), [passed.feed], Greeter, backlog=16)
        await gate.open()
        passing.send(passed.out, bytes([passing.PROBE]), ())
        while passing.waiting(passed.back):
            await asyncio.sleep(0)
        await gate.close(take_queue=False)

    with Passed() as passed:
        run(main(passed))


@pytest.mark.parametrize("ended", [True, False])
def test_a_closing_gate_serves_what_waits_in_its_feed_and_is_on_its_way(run, ended):
    async def main(passed):
        gate = Gate(asyncio.get_running_loop(), [passed.feed], Greeter, backlog=16)
        await gate.open()
        gate.pause()
        clients = passed.connect(0, 1)
        closing = asyncio.ensure_future(gate.close(take_queue=True))
        for _ in range(5):
            await asyncio.sleep(0)
        clients += passed.connect(1)
        if ended:
            passed.out.close()
        await closing
        return [await receive(client) for client in clients]

    with Passed() as passed:
        assert run(main(passed)) == [b"tcp 0", b"tcp 1", b"tcp 1"]


def test_a_relieved_gate_leaves_the_feed_to_its_successor(run):
    async def main(passed, mine):
        gate = Gate(asyncio.get_running_loop(), [mine], Greeter, backlog=16)
        await gate.open()
        gate.pause()
        passed.connect(0)
        await gate.close(take_queue=False)
        assert passing.waiting(passed.back) == 1

    with Passed() as passed:
        run(main(passed, Feed(sock=passed.back.dup(), listeners=passed.feed.listeners)))


def test_a_gate_whose_dispatcher_and_master_have_gone_does_not_spin(run):
    async def main(passed):
        loop = asyncio.get_running_loop()
        gate = Gate(loop, [passed.feed], Greeter, backlog=16)
        await gate.open()
        passed.out.close()
        await asyncio.sleep(0.01)
        assert not loop.remove_reader(passed.back)
        await gate.close(take_queue=True)

    with Passed() as passed:
        run(main(passed))


@pytest.mark.parametrize("gaps", [0, 1])
def test_a_gate_that_is_short_of_descriptors_takes_no_message(run, gaps):
    async def main(passed):
        loop = asyncio.get_running_loop()
        gate = Gate(loop, [passed.feed], Greeter, backlog=16)
        await gate.open()
        clients = passed.connect(0, 1)
        taken = [os.dup(0) for _ in range(8)]
        with few_descriptors():
            for descriptor in taken[:gaps]:
                os.close(descriptor)
            while gate.accepting:
                await asyncio.sleep(0)
        for descriptor in taken[gaps:]:
            os.close(descriptor)
        assert passing.waiting(passed.back) == 2
        gate.resume()
        answers = [await receive(client) for client in clients]
        await gate.close(take_queue=False)
        return answers

    with Passed() as passed:
        assert run(main(passed)) == [b"tcp 0", b"tcp 1"]


def test_what_the_kernel_had_no_descriptors_for_is_said(run, caplog):
    async def main(passed):
        gate = Gate(asyncio.get_running_loop(), [passed.feed], Greeter, backlog=16)
        clients = passed.connect(0, 1)
        with few_descriptors(1):
            assert gate.take_message(passed.feed) == 1
        answers = [await receive(client) for client in clients]
        await gate.close(take_queue=False)
        return answers

    with Passed() as passed:
        assert run(main(passed)) == [b"tcp 0", b""]
    assert "1 connections are lost: too few descriptors are free" in caplog.text
