from __future__ import annotations

import asyncio
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
        gate.close()
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
        gate.close()
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
        gate.close()
        await asyncio.sleep(0)
        return gate.accepting

    with tcp:
        assert run(main()) is False
        assert tcp.fileno() != -1
