from __future__ import annotations

import asyncio
import os
import resource
import socket

import pytest

from aioserve.accept.base import Listener
from aioserve.worker.gate import Gate
from aioserve.worker.loops import new_loop


class Greeter(asyncio.Protocol):
    def __init__(self, listener):
        self.listener = listener

    def connection_made(self, transport):
        transport.write(self.listener.address.encode())
        transport.close()


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request):
    """Run a coroutine in a loop of either kind."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=lambda: new_loop(request.param)) as runner:
            return runner.run(coroutine)

    return run


def listen(family, address):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen(16)
    return sock


async def greeting(sock):
    if sock.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(sock.getsockname())
    else:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        loop = asyncio.get_running_loop()
        gate = Gate(loop, [Listener(sock=tcp, address="tcp", server=None)], Greeter, backlog=16)
        await gate.open()
        client = socket.socket()
        client.setblocking(False)
        with open(os.devnull) as lowest:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, hard))
        with open(os.devnull):
            await loop.sock_connect(client, tcp.getsockname())
            while not caplog.text:
                await asyncio.sleep(0)
        answer = await receive(client)
        await gate.close(take_queue=False)
        return answer

    try:
        with asyncio.Runner(loop_factory=lambda: new_loop("asyncio")) as runner:
            assert runner.run(main()) == b"tcp"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
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
