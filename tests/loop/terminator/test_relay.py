"""Relays between a client in memory, whose TLS is real, and a worker on a real unix socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from contextlib import suppress

import pytest

from aioserve.http.introduction import IntroductionReader
from aioserve.terminator.relay import CONNECT_SECONDS, PIECE, Relay, Relays
from aioserve.worker.handshakes import Handshakes
from aioserve.worker.loops import new_loop
from aioserve.worker.waits import LINGER_SECONDS
from tests.descriptors import few_descriptors
from tests.fakes import OneCertificate
from tests.loop.worker.tls import CERTIFICATE, Caller, terms

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Worker:
    """One connection as a worker has it: blocking calls in threads, because it is another process in life."""

    def __init__(self, sock):
        sock.settimeout(10)
        self.sock = sock
        self.reader = IntroductionReader()

    async def introduced(self):
        while (client := self.reader.feed(await self._read(4096))) is None:
            pass
        return client

    async def received(self, size):
        found = self.reader.rest
        while len(found) < size:
            data = await self._read(65536)
            assert data, f"it ended after {found!r}"
            found += data
        self.reader.rest = b""
        return found

    async def ended(self):
        """Whether the other side sends no more."""
        return await self._read(1) == b""

    async def send(self, data):
        await asyncio.to_thread(self.sock.sendall, data)

    def _read(self, size):
        return asyncio.to_thread(self.sock.recv, size)


class Stage:
    """A terminator without its process, and the queue of workers that nobody empties by itself."""

    def __init__(self, server, listener, backlog, patience):
        self.server = server
        self.listener = listener
        self.queue = socket.socket(socket.AF_UNIX)
        self.queue.bind("")
        self.queue.listen(backlog)
        self.queue.settimeout(10)
        self.relays = Relays(server, self.queue.getsockname(), patience=patience)
        server.credentials = OneCertificate(terms(), CERTIFICATE.pem.decode())
        server.handshakes = Handshakes(server, self.relays.follow)
        self.open = [self.queue]

    async def client(self, **transport):
        return await Caller(self.server, self.listener, **transport).shake_hands()

    async def worker(self):
        sock, _ = await asyncio.to_thread(self.queue.accept)
        self.open.append(sock)
        return Worker(sock)

    async def pair(self, **transport):
        """A client and its worker, which has been introduced."""
        client = await self.client(**transport)
        worker = await self.worker()
        await worker.introduced()
        return client, worker

    def relay(self):
        (found,) = (timed for timed in self.server.deadlines if isinstance(timed, Relay))
        return found


async def soon(condition, what):
    """Let the loop turn until it is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


async def heard(client, size):
    """What the client has been sent, once it is so much."""
    found = b""
    async with asyncio.timeout(10):
        while len(found) < size:
            await asyncio.sleep(0.001)
            client.transport.peer_reads()
            found += client.hear()
    return found


@pytest.fixture
def stage(connect):
    stages = []

    def open_stage(backlog=16, patience=CONNECT_SECONDS, **settings):
        ordinary = connect(None, **settings)
        ordinary.transport.abort()
        stages.append(Stage(ordinary.server, ordinary.listener, backlog, patience))
        return stages[-1]

    yield open_stage
    for one in stages:
        one.server.abort_connections()
        for sock in one.open:
            sock.close()


# The good life.


async def test_the_worker_is_told_who_the_client_is_before_its_first_byte(stage):
    one = stage()
    client = await one.client()
    client.send(client.tls.write(GET))
    worker = await one.worker()
    told = await worker.introduced()
    assert (told.client, told.server, told.alpn) == (("192.0.2.7", 50000), ("192.0.2.1", 80), "")
    assert (told.version, told.own_certificate) == ("TLSv1.3", CERTIFICATE.pem.decode())
    assert await worker.received(len(GET)) == GET


async def test_bytes_go_both_ways(stage):
    client, worker = await stage().pair()
    client.send(client.tls.write(b"question"))
    assert await worker.received(8) == b"question"
    await worker.send(b"answer")
    assert await heard(client, 6) == b"answer"
    client.send(client.tls.write(b"another"))
    assert await worker.received(7) == b"another"


async def test_what_the_client_sends_before_there_is_a_worker_waits_and_no_more_is_read(stage):
    one = stage(backlog=0)
    await one.client()
    client = await one.client()
    client.send(client.tls.write(b"early"))
    assert not client.transport.reading
    await one.worker()
    worker = await one.worker()
    await worker.introduced()
    assert await worker.received(5) == b"early"
    await soon(lambda: client.transport.reading, "it reads again")


async def test_a_large_response_goes_through_in_pieces(stage):
    client, worker = await stage().pair()
    body = os.urandom(1 << 20)
    sending = asyncio.create_task(worker.send(body))
    assert await heard(client, len(body)) == body
    await sending


# One end, then the other.


async def test_a_client_that_sends_no_more_still_gets_its_answer(stage):
    client, worker = await stage().pair()
    client.send(client.tls.write(b"last") + client.tls.close())
    assert await worker.received(4) == b"last"
    assert await worker.ended()
    await worker.send(b"answer")
    assert await heard(client, 6) == b"answer"
    worker.sock.close()
    await soon(lambda: client.state == "closed", "both have ended")


async def test_a_client_that_ends_before_there_is_a_worker(stage):
    one = stage(backlog=0)
    await one.client()
    client = await one.client()
    client.transport.protocol.data_received(client.tls.close())
    await one.worker()
    worker = await one.worker()
    await worker.introduced()
    assert await worker.ended()


async def test_a_worker_that_closes_ends_the_connection_behind_its_last_byte(stage):
    one = stage()
    client, worker = await one.pair()
    await worker.send(b"the end")
    worker.sock.close()
    await soon(lambda: client.state == "closed", "it is closed")
    assert client.hear() == b"the end"
    assert client.tls.ended
    assert (one.relays.open, one.server.connections) == (0, 0)


async def test_a_worker_that_lingers_goes_on_reading(stage):
    client, worker = await stage().pair()
    await worker.send(b"the end")
    worker.sock.shutdown(socket.SHUT_WR)
    await soon(lambda: client.state == "half-closed", "it is half-closed")
    assert client.hear() == b"the end"
    assert client.tls.ended
    client.send(client.tls.write(b"a rest"))
    assert await worker.received(6) == b"a rest"
    client.send(client.tls.close())
    await soon(lambda: client.state == "closed", "both have ended")


async def test_a_client_that_does_not_leave_after_its_last_answer_is_closed(stage):
    one = stage()
    client, worker = await one.pair()
    worker.sock.shutdown(socket.SHUT_WR)
    await soon(lambda: client.state == "half-closed", "it is half-closed")
    client.wait(LINGER_SECONDS + 2 * one.server.deadlines.resolution)
    assert client.state == "aborted"


async def test_a_client_that_reads_its_last_answer_slowly_has_time_for_it(stage):
    one = stage(write_timeout=30.0)
    client, worker = await one.pair(accept=10_000)
    await worker.send(b"x" * 60_000)
    worker.sock.shutdown(socket.SHUT_WR)
    await soon(lambda: client.transport.queued >= 60_000, "it has been sent")
    client.transport.peer_reads()
    await soon(lambda: client.transport.written and one.relay()._ended, "the worker has ended")
    client.transport.queued = 50_000
    client.wait(20)
    client.transport.queued = 20_000  # it has taken some
    client.wait(20)
    assert client.state == "half-closed"
    client.wait(31)
    assert client.state == "aborted"


async def test_a_worker_that_dies_with_something_unread_resets_the_client(stage):
    client, worker = await stage().pair()
    client.send(client.tls.write(b"a request that is never read"))
    await asyncio.sleep(0.01)
    worker.sock.close()
    await soon(lambda: client.state == "aborted", "it is reset")
    client.hear()
    assert not client.tls.ended


async def test_a_client_that_is_lost_ends_the_connection_to_the_worker(stage):
    one = stage()
    client, worker = await one.pair()
    client.transport.abort()
    assert await worker.ended()
    assert (one.relays.open, one.server.connections) == (0, 0)


async def test_a_client_that_is_lost_before_its_worker_is_there(stage):
    one = stage()
    client = await one.client()
    client.transport.abort()
    worker = await one.worker()
    await worker.introduced()
    assert await worker.ended()
    assert one.relays.open == 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_descriptor_is_closed_once(stage, loop):
    """The second time it may be somebody else's, and libuv ends the process when that is polled."""

    async def leave_before_the_worker_is_there():
        one = stage()
        client = Caller(one.server, one.listener)
        while not client.tls.shake_hands():
            client.send(client.tls.take())
            await client.settle()
            client.tls.feed(client.transport.take())
        client.send(client.tls.take())
        client.transport.abort()  # in the turn in which its handshake is complete
        newer = []
        for _ in range(20):
            newer += os.pipe()  # the lowest numbers that are free
            await asyncio.sleep(0)
        gc.collect()
        worker = await one.worker()
        await worker.introduced()
        assert await worker.ended()
        return newer

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        newer = runner.run(leave_before_the_worker_is_there())
    for descriptor in newer:
        os.close(descriptor)


async def test_everything_can_be_cut_at_once(stage):
    one = stage()
    client, worker = await one.pair()
    one.server.abort_connections()
    assert client.state == "aborted"
    assert await worker.ended()


async def test_nothing_is_due_while_both_are_there(stage):
    one = stage(keep_alive_timeout=5.0)
    client, _ = await one.pair()
    client.wait(600)
    assert client.state == "open"


# Somebody is slow.


async def test_a_client_that_does_not_read_stops_the_worker_soon(stage):
    one = stage()
    client, worker = await one.pair(accept=PIECE)
    worker.sock.setblocking(False)
    while not client.transport.queued > PIECE:
        with suppress(BlockingIOError):
            worker.sock.send(bytes(PIECE))
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    held = client.transport.queued
    # Two pieces at most, and what TLS adds to them.
    assert held < 2 * PIECE + 4096
    client.transport.peer_reads()
    await soon(lambda: client.transport.queued > 0, "more comes")


async def test_a_worker_that_does_not_read_stops_the_client(stage):
    client, worker = await stage().pair()
    sent = 0
    while client.transport.reading:
        client.transport.protocol.data_received(client.tls.write(bytes(16384)))
        sent += 16384
        assert sent < 16 << 20, "it reads for ever"
        await asyncio.sleep(0)
    reading = asyncio.create_task(worker.received(sent))
    await soon(lambda: client.transport.reading, "it reads again")
    assert len(await reading) == sent


async def test_a_full_queue_is_waited_for(stage):
    one = stage(backlog=0)
    first = await one.client()
    second = await one.client()
    assert (one.relays.open, one.relays.waiting) == (2, 1)
    await (await one.worker()).introduced()
    worker = await one.worker()
    await worker.introduced()
    second.send(second.tls.write(b"here"))
    assert await worker.received(4) == b"here"
    assert one.relays.waiting == 0
    first.transport.abort()


async def test_those_who_wait_are_taken_in_the_order_in_which_they_came(stage):
    one = stage(backlog=0)
    await one.client()
    second = await one.client()
    second.send(second.tls.write(b"2"))
    await (await one.worker()).introduced()  # now there is room for one
    third = await one.client()
    third.send(third.tls.write(b"3"))
    for said in (b"2", b"3"):
        worker = await one.worker()
        await worker.introduced()
        assert await worker.received(1) == said


async def test_descriptors_that_are_short_are_waited_for(stage):
    one = stage()
    with few_descriptors():
        client = await one.client()
        client.send(client.tls.write(b"here"))
        assert one.relays.waiting == 1
    worker = await one.worker()
    await worker.introduced()
    assert await worker.received(4) == b"here"


async def test_a_queue_that_stays_full_turns_clients_away_and_says_so_once(stage, caplog):
    one = stage(backlog=0, patience=0.05)
    await one.client()
    with caplog.at_level(logging.ERROR):
        waiting = [await one.client(), await one.client()]
        await soon(lambda: all(client.state == "aborted" for client in waiting), "they are closed")
    assert one.relays.turned_away == 2
    assert one.relays.waiting == 0
    (line,) = caplog.messages
    assert line.startswith("no worker has taken a connection within 0.05 s")


async def test_a_client_that_leaves_while_it_waits_is_forgotten(stage):
    one = stage(backlog=0)
    await one.client()
    client = await one.client()
    client.transport.abort()
    assert (one.relays.open, one.relays.waiting) == (1, 0)
    await asyncio.sleep(0.03)
    assert one.relays.turned_away == 0


async def test_where_nobody_listens_clients_are_closed_at_once(stage):
    one = stage()
    one.queue.close()
    client = await one.client()
    assert client.state == "aborted"
    assert one.relays.turned_away == 1


async def test_a_client_of_whom_there_is_too_much_to_say_is_closed(stage, caplog):
    one = stage()
    one.server.credentials.pem = "x" * 70_000
    with caplog.at_level(logging.INFO):
        client = await one.client()
    assert client.state == "aborted"
    assert "too much" in caplog.text
    assert (one.relays.open, one.relays.waiting, one.server.connections) == (0, 0, 0)
