"""Connections through terminators: real unix sockets, because the kernel has to say who connects."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import subprocess
import sys
import time

import pytest

from aioserve.accept.base import Listener
from aioserve.http.introduction import Introduced, write
from aioserve.observe.scoreboard import ACCEPTING, HEARTBEAT_NS, PHASE, PID, Phase, Scoreboard
from aioserve.worker.speakers import protocol_of
from aioserve.worker.trusted import DEAD_SECONDS, LOOK_SECONDS, SAME_TIME_SECONDS, all_passed_on
from tests.loop.worker.conftest import settle
from tests.tls import Authority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="--tls-processes needs Linux")

AUTHORITY = Authority()
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
ALICE = Introduced(
    client=("203.0.113.9", 50000),
    server=("198.51.100.1", 443),
    version="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    alpn="http/1.1",
    authority="example.org",
    own_certificate=AUTHORITY.server().pem.decode(),
)


class House:
    """A worker with a private listener, and one row for a terminator, which is this process."""

    def __init__(self, server):
        self.server = server
        self.row = Scoreboard(1).row(0, 0)
        self.row.begin(generation=1, started_ns=0)
        self.row.cells[PID] = os.getpid()
        self.row.cells[PHASE] = Phase.READY
        self.row.cells[ACCEPTING] = 1
        server.terminators = (self.row.cells, self.row.beside)
        self.listener = Listener(sock=None, address="private", server=None, private=True)
        self.connect = protocol_of(server)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind("")
        self.listening.listen()
        self.open = [self.listening]

    async def terminator(self, one=ALICE):
        """A connection that a terminator has made, and has introduced; the terminator's end of it."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.listening.getsockname())
        await self.accept()
        sock.setblocking(False)
        if one is not None:
            sock.send(write(one))
        self.open.append(sock)
        return sock

    async def accept(self):
        accepted, _ = self.listening.accept()
        accepted.setblocking(False)
        await self.server.loop.connect_accepted_socket(lambda: self.connect(self.listener), accepted)

    def leave(self):
        """The terminator accepts no more."""
        self.row.cells[PHASE] = Phase.DRAINING
        self.row.cells[ACCEPTING] = 0

    def beat(self, seconds=0.0):
        """Let time pass, and the worker look."""
        deadlines = self.server.deadlines
        deadlines.now += seconds
        for act in self.server.at_beats:
            act(deadlines.now, 0.0)


async def ask(sock, data=GET):
    """What comes back; empty if the connection ends."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, data)
    return await hear(sock)


async def hear(sock):
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), 10)
    except ConnectionError:
        return b""


@pytest.fixture
def house(connect):
    houses = []

    def open_house(app=None, **settings):
        scopes = []

        async def answer(scope, receive, send):
            scopes.append(scope)
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                await receive()
                while (await receive())["type"] != "websocket.disconnect":
                    pass
                return
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

        ordinary = connect(app or answer, **settings)
        ordinary.transport.abort()
        houses.append(House(ordinary.server))
        houses[-1].scopes = scopes
        return houses[-1]

    yield open_house
    for one in houses:
        one.server.abort_connections()
        for sock in one.open:
            sock.close()


async def test_the_client_is_whom_the_terminator_has_introduced(house):
    one = house()
    sock = await one.terminator()
    assert b"200 OK" in await ask(sock)
    (scope,) = one.scopes
    assert (scope["client"], scope["server"], scope["scheme"]) == (ALICE.client, ALICE.server, "https")
    assert scope["extensions"]["tls"] == {
        "server_cert": ALICE.own_certificate,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1302,
    }
    assert "aioserve.proxy_protocol" not in scope["extensions"]


async def test_its_certificates_are_shown_as_it_has_sent_them(house):
    chain = [AUTHORITY.client("alice"), AUTHORITY.client("bob")]
    one = house()
    told = Introduced(client=None, server=None, certificates=tuple(c.der for c in chain), name="CN=alice", fault="old")
    await ask(await one.terminator(told))
    tls = one.scopes[0]["extensions"]["tls"]
    assert tls["client_cert_chain"] == tuple(ssl.DER_cert_to_PEM_cert(certificate.der) for certificate in chain)
    assert (tls["client_cert_name"], tls["client_cert_error"], tls["server_cert"]) == ("CN=alice", "old", None)
    assert (one.scopes[0]["client"], one.scopes[0]["server"]) == (None, None)


async def test_what_a_load_balancer_has_said_in_front_is_shown_too(house):
    one = house(trusted=("*",))
    more = {
        "anonymous": True,
        "extensions": {"aioserve.proxy_protocol": {"alpn": {"bytes": "h\u00ff"}, "authority": "a"}},
    }
    told = Introduced(client=("192.0.2.7", 1), server=("192.0.2.1", 2), more=more)
    await ask(await one.terminator(told), b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1\r\n\r\n")
    assert one.scopes[0]["extensions"]["aioserve.proxy_protocol"] == {"alpn": b"h\xff", "authority": "a"}
    # Relayed for somebody who cannot be named: nothing that is forwarded is believed.
    assert one.scopes[0]["client"] == ("192.0.2.7", 1)


async def test_what_clients_forward_is_believed_as_if_they_had_come_here(house):
    one = house(trusted=("203.0.113.9",))
    await ask(await one.terminator(), b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1\r\n\r\n")
    assert one.scopes[0]["client"][0] == "1.1.1.1"


async def test_a_process_that_is_no_terminator_is_closed_and_named_now_and_then(house, caplog):
    one = house()
    one.row.cells[PID] = 1
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await hear(await one.terminator(None)) == b""
    (line,) = caplog.messages
    assert line.startswith(f"process {os.getpid()} has connected")
    assert one.server.connections == 0


async def test_a_terminator_that_is_no_more_is_not_believed_from_that_moment(house):
    """Between two beats its process id may be somebody else's."""
    one = house()
    assert b"200 OK" in await ask(await one.terminator())
    one.row.cells[PID] = 0
    assert await hear(await one.terminator(None)) == b""


async def test_another_process_is_told_apart_by_the_kernel(house):
    one = house()
    name = one.listening.getsockname()
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({name!r}); print(s.recv(1))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    one.listening.settimeout(10)
    accepted, _ = await asyncio.to_thread(one.listening.accept)
    accepted.setblocking(False)
    await one.server.loop.connect_accepted_socket(lambda: one.connect(one.listener), accepted)
    out, _ = await process.communicate()
    assert out.strip() == b"b''"
    assert one.server.connections == 0


async def test_other_listeners_are_what_they_were(house, connect):
    one = house()
    public = Listener(sock=None, address="http://192.0.2.1:80", server=("192.0.2.1", 80))
    assert type(one.connect(public)).__name__ == "Connection"


async def test_a_header_that_is_none_ends_the_connection(house, caplog):
    one = house()
    with caplog.at_level(logging.INFO):
        assert await ask(await one.terminator(None)) == b""
    assert "no PROXY header of version 2" in caplog.text


# A terminator that leaves.


async def test_the_next_response_is_the_last_when_the_terminator_leaves(house):
    one = house()
    sock = await one.terminator()
    assert b"connection" not in await ask(sock)
    one.beat()
    assert b"connection" not in await ask(sock)
    one.leave()
    one.beat()
    assert b"connection: close\r\n" in await ask(sock)
    assert await hear(sock) == b""


async def test_one_that_only_announces_its_end_changes_nothing(house):
    one = house()
    sock = await one.terminator()
    one.row.cells[PHASE] = Phase.DRAINING
    one.beat()
    assert b"connection" not in await ask(sock)


async def test_quiet_connections_are_closed_when_it_leaves_and_others_are_not(house):
    """A connection that was busy just before a tick has been quiet for less than the ticks say."""
    one = house(drain_linger=1.0)
    sock = await one.terminator()
    await ask(sock)
    one.leave()
    one.beat()
    one.beat(1.0 + 0.9 * one.server.deadlines.resolution)
    await settle()
    assert one.server.connections == 1
    one.beat(0.2 * one.server.deadlines.resolution)
    assert await hear(sock) == b""
    assert one.server.connections == 0


async def test_websockets_go_on_for_half_of_the_grace_time_and_no_new_ones_begin(house):
    upgrade = (
        b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    one = house(graceful_shutdown=30.0)
    sock = await one.terminator()
    assert b"101" in await ask(sock, upgrade)
    late = await one.terminator()
    one.leave()
    one.beat()
    assert b"503" in await ask(late, upgrade)
    one.beat(14)
    await settle()
    assert one.server.websockets == 1
    one.beat(2)
    assert (await hear(sock))[2:4] == (1012).to_bytes(2, "big")


async def test_a_request_in_the_middle_is_told_to_end_at_half_of_the_grace_time(house):
    told = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    one = house(app, graceful_shutdown=30.0)
    sock = await one.terminator()
    await asyncio.get_running_loop().sock_sendall(sock, GET)
    await asyncio.sleep(0.05)
    one.leave()
    one.beat()
    one.beat(14)
    await settle()
    assert not told.is_set()
    one.beat(2)
    await asyncio.wait_for(told.wait(), 10)


# A worker that is told to end at the same time.


@pytest.fixture
def rows():
    board = Scoreboard(2)
    rows = [board.row(slot, 0).cells for slot in range(2)]
    for cells in rows:
        cells[HEARTBEAT_NS] = time.monotonic_ns()
        cells[PHASE] = Phase.DRAINING
    return rows


@pytest.fixture
async def waiting(rows):
    hurry = asyncio.Event()
    task = asyncio.create_task(all_passed_on(rows, hurry))
    task.hurry = hurry
    await asyncio.sleep(2 * LOOK_SECONDS)
    yield task
    task.cancel()


async def test_it_waits_until_each_terminator_has_passed_on_what_it_has(rows, waiting):
    rows[0][PHASE] = Phase.RELAYING
    await asyncio.sleep(2 * LOOK_SECONDS)
    assert not waiting.done()
    rows[1][PHASE] = Phase.RELAYING
    await asyncio.wait_for(waiting, 10)


async def test_it_waits_for_nobody_in_a_hurry(waiting):
    assert not waiting.done()
    waiting.hurry.set()
    await asyncio.wait_for(waiting, 10)


async def test_it_waits_for_no_terminator_that_is_dead(rows, waiting):
    for cells in rows:
        cells[HEARTBEAT_NS] -= int(DEAD_SECONDS * 1e9)
    await asyncio.wait_for(waiting, 10)


async def test_it_waits_a_moment_for_those_who_may_have_been_told_too(rows):
    for cells in rows:
        cells[PHASE] = Phase.READY
    waiting = asyncio.create_task(all_passed_on(rows, asyncio.Event()))
    await asyncio.sleep(SAME_TIME_SECONDS / 2)
    for cells in rows:
        cells[PHASE] = Phase.DRAINING
    await asyncio.sleep(SAME_TIME_SECONDS)
    assert not waiting.done()
    waiting.cancel()


async def test_it_ends_alone_if_a_terminator_stays(rows):
    rows[1][PHASE] = Phase.READY
    await asyncio.wait_for(all_passed_on(rows, asyncio.Event()), 10)


async def test_its_successor_in_the_same_row_is_another_one(house):
    one = house()
    sock = await one.terminator()
    await ask(sock)
    one.leave()
    one.beat()
    one.row.begin(generation=2, started_ns=0)
    one.row.cells[PID] = 1
    one.beat()
    one.row.cells[PID] = os.getpid()
    one.row.cells[ACCEPTING] = 1
    fresh = await one.terminator()
    one.beat()
    assert b"connection" not in await ask(fresh)
