"""Which sockets are ready, by both loops, and the one thing that uvloop alone does not tell."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack

import pytest

from aioserve.worker.readiness import BATCH, ENDED, READ, WRITE, Readiness


class Watched:
    """Remembers what it was told, and may do something about it."""

    def __init__(self):
        self.told = []
        self.then = None

    def readable(self):
        self.told.append("read")
        if self.then is not None:
            self.then()

    def writable(self):
        self.told.append("write")

    def ended(self):
        self.told.append("end")


@pytest.fixture
def run(run):
    """``run`` for coroutine functions that take a ``Readiness`` and both ends of a connection."""

    def in_loop(visit):
        async def main():
            readiness = Readiness(asyncio.get_running_loop())
            one, other = socket.socketpair()
            with one, other:
                try:
                    return await visit(readiness, one, other)
                finally:
                    readiness.close()

        return run(main())

    return in_loop


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_is_asked_for_is_told_as_long_as_it_is_so(run):
    async def visit(readiness, one, other):
        watched = Watched()
        readiness.watch(one.fileno(), watched, READ)
        await turns()
        assert watched.told == []
        other.send(b"x")
        await turns()
        assert set(watched.told) == {"read"}
        one.recv(1)
        await turns()
        watched.told.clear()
        await turns()
        assert watched.told == []
        readiness.watch(one.fileno(), watched, READ | WRITE)
        readiness.watch(one.fileno(), watched, READ | WRITE)
        await turns()
        assert set(watched.told) == {"write"}

    run(visit)


def test_who_asks_for_nothing_is_told_nothing(run):
    async def visit(readiness, one, other):
        watched = Watched()
        readiness.watch(one.fileno(), watched, READ)
        readiness.watch(one.fileno(), watched, 0)
        readiness.watch(one.fileno(), watched, 0)
        other.close()
        await turns()
        assert watched.told == []

    run(visit)


@pytest.mark.parametrize(("wanted", "told"), [(READ, "read"), (WRITE, "write"), (ENDED, "end")])
def test_an_end_is_told_to_whoever_waits_for_anything(run, wanted, told):
    async def visit(readiness, one, other):
        one.setblocking(False)
        while wanted is WRITE:
            try:
                one.send(bytes(1 << 16))
            except BlockingIOError:
                break
        watched = Watched()
        readiness.watch(one.fileno(), watched, wanted)
        await turns()
        assert watched.told == []
        other.close()
        await turns()
        assert set(watched.told) == {told}

    run(visit)


def test_a_reset_is_told_again_after_the_last_bytes_have_been_read(run):
    async def visit(readiness, *_):
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            sock = server.accept()[0]
            client.send(b"x")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            seen = []

            def read():
                try:
                    seen.append(sock.recv(1))
                except OSError as error:
                    seen.append(type(error))
                    readiness.watch(sock.fileno(), watched, 0)

            watched = Watched()
            watched.then = read
            with sock:
                readiness.watch(sock.fileno(), watched, READ)
                await turns()
        return seen

    assert run(visit)[-1] is ConnectionResetError


def test_whoever_was_given_up_in_the_same_turn_is_not_told(run):
    async def visit(readiness, one, other):
        both = Watched(), Watched()
        for watched in both:
            watched.then = lambda: [readiness.watch(sock.fileno(), both[0], 0) for sock in (one, other)]
        one.send(b"x")
        other.send(b"x")
        readiness.watch(one.fileno(), both[0], READ)
        readiness.watch(other.fileno(), both[1], READ)
        await turns()
        return sorted(watched.told for watched in both)

    assert run(visit) == [[], ["read"]]


def test_all_who_are_ready_are_told_in_one_turn(run):
    """A connection that has been quiet for too long is closed in the next one: its request may have come just now."""

    async def visit(readiness, *_):
        with ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(BATCH + 1)]
            everybody = [Watched() for _ in pairs]
            turns_over = []

            def first():
                if not turns_over:
                    loop = asyncio.get_running_loop()
                    loop.call_soon(lambda: turns_over.append(sum(bool(watched.told) for watched in everybody)))
                    turns_over.append("begun")

            for watched, (one, other) in zip(everybody, pairs, strict=True):
                stack.enter_context(one)
                stack.enter_context(other)
                watched.then = first
                other.send(b"x")
                readiness.watch(one.fileno(), watched, READ)
            await turns()
            for one, _ in pairs:
                readiness.watch(one.fileno(), everybody[0], 0)
        return turns_over

    assert run(visit) == ["begun", BATCH + 1]
