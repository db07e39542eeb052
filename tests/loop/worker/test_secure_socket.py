"""OpenSSL on the socket itself, through real sockets of both loops. Here the kernel has no TLS: tests/ktls has one."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import struct
import time
from contextlib import contextmanager, suppress

import pytest
from websockets.sync.client import connect

from aioserve.accept.base import Listener
from aioserve.config.tree import Ssl
from aioserve.http.reader import Limits
from aioserve.tls.terms import apply
from aioserve.worker.handshakes import Handshakes
from aioserve.worker.mount import Mount
from aioserve.worker.readiness import READ
from aioserve.worker.secure_socket import HIGH_WATER, RECORD, TURN, SecureSocket, SocketTls
from aioserve.worker.server import Server
from aioserve.worker.settings import Settings
from tests.fakes import OneCertificate
from tests.loop.worker.conftest import read_body
from tests.loop.worker.tls import AUTHORITY, terms
from tests.tls import leave_an_error

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NONE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
START = {"type": "http.response.start", "status": 200, "headers": []}
LARGE = os.urandom(1 << 20) * 8
#: A certificate that is longer than what a small socket takes.
LONG = AUTHORITY.server(*(f"{number:060}.example.org" for number in range(150)), "localhost")
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
PATIENCE = 10.0


async def hello(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": b"ok"})


async def large(scope, receive, send):
    await send({**START, "headers": [(b"content-length", b"%d" % len(LARGE))]})
    await send({"type": "http.response.body", "body": LARGE})


async def careless(scope, receive, send):
    await hello(scope, receive, send)
    leave_an_error()


async def echo(scope, receive, send):
    body = await read_body(receive)
    await send({**START, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Caller:
    """A client in a thread of its own, whose calls block."""

    def __init__(self, port, context, *, receive_buffer=0):
        self.raw = socket.socket()
        self.raw.settimeout(PATIENCE)
        if receive_buffer:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.raw.connect(("127.0.0.1", port))
        self.context = context
        self.tls = None

    def shake_hands(self):
        self.tls = self.context.wrap_socket(self.raw, server_hostname="localhost", suppress_ragged_eofs=False)
        return self

    def ask(self, data=GET, count=0):
        self.tls.sendall(data)
        return self.read(count or len(OK))

    def read(self, count):
        got = bytearray()
        while len(got) < count and (data := self.tls.recv(min(count - len(got), 1 << 18))):
            got += data
        return bytes(got)

    def read_all(self):
        """Up to the server's close_notify; anything else that ends it raises."""
        got = bytearray()
        while data := self.tls.recv(1 << 18):
            got += data
        return bytes(got)

    def close(self):
        (self.tls or self.raw).close()

    def reset(self):
        sock = self.tls or self.raw
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


class Place:
    """A server that listens with --ktls."""

    def __init__(self, app, *, certificate=None, **settings):
        limits = Limits(**settings.pop("limits", {}))
        settings = {
            "parser": "httptools", "limit_concurrency": 0, "limit_connections": 0, "header_timeout": 10.0,
            "body_timeout": 30.0, "write_timeout": 30.0, "keep_alive_timeout": 75.0, "graceful_shutdown": 30.0,
            "drain_linger": 0.1, "date_header": False, "server_header": False, "extra_headers": (),
            "proxy_headers": True, "trusted": ("127.0.0.1",), "limits": limits, "ktls": True, **settings,
        }  # fmt: skip
        self.mount = Mount("", app, "", "tests:app", body_limit=limits.request_body)
        self.server = Server(Settings(**settings), enter=self._enter, access=None)
        context = terms(*([certificate] if certificate else []))
        apply(Ssl(ktls=True), context)
        self.server.credentials = OneCertificate(context)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.listener = Listener(sock=self.sock, address="https://127.0.0.1", server=None, scheme="https")
        self.port = self.sock.getsockname()[1]
        self.callers = []

        self.state = {}

    def _enter(self, scope):
        scope["state"] = self.state
        return self.mount

    def caller(self, *, version=V13, receive_buffer=0, **context):
        context = AUTHORITY.client_context(maximum_version=version, **context)
        caller = Caller(self.port, context, receive_buffer=receive_buffer)
        self.callers.append(caller)
        return caller

    async def client(self, **context):
        """A caller whose handshake is complete."""
        return await asyncio.to_thread(self.caller(**context).shake_hands)

    async def until(self, condition, what):
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.01)
        assert condition(), what

    async def empty(self):
        await self.until(lambda: not self.server.connections, "a connection stays open")

    def transports(self):
        """Those of all connections."""
        return [timed._transport for timed in self.server.deadlines if getattr(timed, "_transport", None) is not None]

    async def end(self):
        for caller in self.callers:
            caller.close()
        await self.server.close_gate(take_queue=False)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.server.quiet.wait(), 2)
        self.server.abort_connections()
        await asyncio.sleep(0)
        self.server.stop()


@pytest.fixture
def serve(run):
    """Serve an application, and run a coroutine function with the place where that is."""

    def serve(app, visit, **settings):
        async def main():
            place = Place(app, **settings)
            await place.server.start([place.listener], backlog=100)
            try:
                return await visit(place)
            finally:
                await place.end()

        return run(main())

    return serve


def in_thread(client, **context):
    """A visit that is a blocking function of a client whose handshake is complete."""

    async def visit(place):
        def run():
            return client(place.caller(**context).shake_hands())

        found = await asyncio.to_thread(run)
        assert all(type(transport) is SecureSocket for transport in place.transports())
        return found

    return visit


# Requests and responses.


@pytest.mark.parametrize("version", [V12, V13])
def test_requests_are_answered(serve, version):
    def client(caller):
        assert caller.tls.version() == version.name.replace("_", ".")
        return caller.ask(), caller.ask(GET + GET, 2 * len(OK)), caller.ask()

    assert serve(hello, in_thread(client, version=version)) == (OK, OK + OK, OK)


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, len(LARGE)])
def test_bodies_of_any_size_go_both_ways(serve, version, size):
    def client(caller):
        caller.tls.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + LARGE[:size])
        head = caller.read(len(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size))
        return head.endswith(b"\r\n\r\n"), caller.read(size) == LARGE[:size], caller.ask(count=len(NONE))

    assert serve(echo, in_thread(client, version=version)) == (True, True, NONE)


def test_the_scope_says_who_and_how(serve):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)
        await hello(scope, receive, send)

    def client(caller):
        caller.ask()
        return caller.raw.getsockname() if caller.raw.fileno() >= 0 else caller.tls.getsockname()

    address = serve(app, in_thread(client))
    assert seen["scheme"] == "https"
    assert tuple(seen["client"]) == address
    assert seen["extensions"]["tls"]["tls_version"] == 0x0304


def test_a_websocket_takes_the_place_of_a_connection(serve):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})

    async def visit(place):
        def run():
            context = AUTHORITY.client_context()
            # Client and server share an interpreter: megabytes to be compressed and unpacked take seconds of it.
            url = f"wss://localhost:{place.port}"
            with connect(url, ssl=context, max_size=None, compression=None, open_timeout=PATIENCE) as client:
                client.send(LARGE)
                return client.recv() == LARGE

        return await asyncio.to_thread(run)

    assert serve(app, visit)


@pytest.mark.parametrize("app", [hello, careless])
def test_a_record_may_come_in_pieces(serve, app):
    """The engine asks for a header, a body, and waits in between."""

    async def visit(place):
        client = place.caller()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = client.context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def send_slowly(data):
            for index in range(len(data)):
                client.raw.sendall(data[index : index + 1])

        def run():
            client.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                try:
                    engine.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    send_slowly(outgoing.read())
                    incoming.write(client.raw.recv(65536))
            got = b""
            for count in (1, 2):
                engine.write(GET)
                send_slowly(outgoing.read())
                while len(got) < count * len(OK):
                    incoming.write(client.raw.recv(65536))
                    with suppress(ssl.SSLWantReadError):
                        got += engine.read(65536)
            return got

        return await asyncio.to_thread(run)

    assert serve(app, visit) == OK + OK


# Back-pressure.


@pytest.mark.parametrize("others", ["are careful", "leave an error"])
def test_a_client_that_reads_slowly_gets_everything(serve, others):
    async def visit(place):
        # Accepted sockets have it, too: they are full before a turn of the loop is over.
        place.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        client = await place.client(receive_buffer=4096)
        client.tls.sendall(LAST)
        await place.until(
            lambda: any(one.get_write_buffer_size() > HIGH_WATER for one in place.transports()), "nothing is kept"
        )
        kept = place.transports()[0].get_write_buffer_size()
        if others == "leave an error":
            leave_an_error()
        got = await asyncio.to_thread(client.read_all)
        return kept, got.partition(b"\r\n\r\n")[2] == LARGE

    kept, same = serve(large, visit)
    assert same
    assert kept < len(LARGE) + 1000


def test_the_application_waits_for_a_client_that_does_not_read(serve):
    sent = []

    async def app(scope, receive, send):
        await send(START)
        for _ in range(64):
            await send({"type": "http.response.body", "body": LARGE[: 1 << 18], "more_body": True})
            sent.append(1)
        await send({"type": "http.response.body", "body": b""})

    async def visit(place):
        client = await place.client(receive_buffer=1 << 17)
        client.tls.sendall(LAST)
        await place.until(
            lambda: any(one.get_write_buffer_size() > HIGH_WATER for one in place.transports()), "nothing is kept"
        )
        for _ in range(20):
            await asyncio.sleep(0)
        before = len(sent)
        got = await asyncio.to_thread(client.read_all)
        return before, len(got) > 64 << 18

    before, complete = serve(app, visit)
    assert before < 64
    assert complete
    assert len(sent) == 64


def test_a_large_body_leaves_others_their_turn(serve):
    """However fast its client reads."""
    left = []

    async def app(scope, receive, send):
        await send({**START, "headers": [(b"content-length", b"%d" % len(LARGE))]})
        wire = scope["state"]["transports"]()[0]
        asyncio.get_running_loop().call_soon(lambda: left.append(wire.get_write_buffer_size()))
        await send({"type": "http.response.body", "body": LARGE})

    async def visit(place):
        place.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(LARGE))
        place.state["transports"] = place.transports
        client = await place.client(receive_buffer=2 * len(LARGE))
        client.tls.sendall(LAST)
        return await asyncio.to_thread(client.read_all)

    assert serve(app, visit).partition(b"\r\n\r\n")[2] == LARGE
    assert left[0] > len(LARGE) - 4 * TURN


def test_nothing_is_read_for_an_application_that_does_not_ask(serve):
    go, started = {}, {}

    async def app(scope, receive, send):
        go["event"] = asyncio.Event()
        started["event"] = True
        await go["event"].wait()
        await echo(scope, receive, send)

    async def visit(place):
        client = await place.client()
        sending = asyncio.ensure_future(
            asyncio.to_thread(
                client.tls.sendall, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(LARGE) + LARGE
            )
        )
        await place.until(
            lambda: started and any(not one.is_reading() for one in place.transports()), "it goes on reading"
        )
        assert not sending.done()
        go["event"].set()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LARGE)
        got = await asyncio.to_thread(client.read, len(head) + len(LARGE))
        await sending
        return got == head + LARGE

    assert serve(app, visit)


# The end.


@pytest.mark.parametrize("version", [V12, V13])
def test_the_end_is_said(serve, version):
    """Without a close_notify it could be somebody else's end."""

    def client(caller):
        caller.tls.sendall(LAST)
        return caller.read_all()

    assert serve(hello, in_thread(client, version=version)) == CLOSED


@pytest.mark.parametrize("version", [V12, V13])
def test_an_answer_survives_what_is_still_being_sent(serve, version):
    """A body that nobody wants: the answer, our end, and only then the client stops."""

    def client(caller):
        caller.tls.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
        caller.tls.sendall(LARGE[: 1 << 20])
        return caller.read_all()

    got = serve(hello, in_thread(client, version=version), limits={"request_body": 1000})
    assert got.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_has_said_its_end_gets_its_answer(serve):
    go = {}

    async def app(scope, receive, send):
        go["event"] = asyncio.Event()
        await go["event"].wait()
        await hello(scope, receive, send)

    async def visit(place):
        client = await place.client()
        client.tls.sendall(GET)
        socket.socket.shutdown(client.tls, socket.SHUT_WR)
        await place.until(lambda: go and not place.transports()[0].is_reading(), "the end is not seen")
        go["event"].set()
        return await asyncio.to_thread(client.read_all)

    assert serve(app, visit) == CLOSED


def test_a_client_that_has_said_its_end_and_leaves_is_forgotten(serve):
    told = []

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        told.append("half")
        while (await receive())["type"] != "http.disconnect" or scope["state"]["there"]():
            await asyncio.sleep(0.01)
        told.append("gone")

    async def visit(place):
        place.state["there"] = lambda: place.server.connections
        client = await place.client()
        client.tls.sendall(GET)
        socket.socket.shutdown(client.tls, socket.SHUT_WR)
        await place.until(lambda: told, "its end is not seen")
        assert place.server.connections == 1
        client.reset()
        await place.until(lambda: "gone" in told, "it stays")

    serve(app, visit)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_is_forgotten(serve, how):
    async def visit(place):
        for request in (b"", GET[:5], GET):
            client = await place.client(receive_buffer=4096)
            await place.until(lambda: place.server.connections == 1, "it is not there")
            client.tls.sendall(request)
            getattr(client, how)()
            await place.empty()
        return await asyncio.to_thread(lambda: place.caller().shake_hands().ask(GET, 10))

    assert serve(large, visit) == b"HTTP/1.1 2"


def test_garbage_ends_its_own_connection(serve):
    async def visit(place):
        other, client = await place.client(), await place.client()
        socket.socket.sendall(client.tls, b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            await asyncio.to_thread(client.read_all)
        await place.until(lambda: place.server.connections == 1, "it stays")
        return await asyncio.to_thread(other.ask)

    assert serve(hello, visit) == OK


def test_a_client_that_reads_nothing_is_reset(serve):
    async def visit(place):
        client = await place.client(receive_buffer=4096)
        client.tls.sendall(GET)
        await place.until(lambda: place.server.connections == 1, "it is not there")
        await place.empty()
        # OpenSSL does not always tell Python how it was cut.
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            await asyncio.to_thread(client.read_all)

    serve(large, visit, write_timeout=0.2)


# Before TLS.


def test_plain_http_is_told_so(serve):
    async def visit(place):
        client = place.caller()
        client.raw.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        found = await asyncio.to_thread(client.raw.recv, 65536)
        await place.empty()
        return found

    assert serve(hello, visit).startswith((b"HTTP/1.1 308 ", b"HTTP/1.1 400 "))


def test_silence_and_half_a_handshake_end_in_time(serve):
    async def visit(place):
        silent, half = place.caller(), place.caller()
        half.raw.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert await asyncio.to_thread(silent.raw.recv, 1) == b""
        with suppress(ConnectionResetError):
            assert await asyncio.to_thread(half.raw.recv, 1) == b""
        await place.empty()
        return place.server.handshakes.failed

    assert serve(hello, visit, handshake_timeout=0.1) == 2


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_client_that_leaves_within_the_handshake_is_forgotten(serve, how, sent):
    async def visit(place):
        client = place.caller()
        await place.until(lambda: place.server.connections == 1, "it is not there")
        client.raw.sendall(sent)
        getattr(client, how)()
        await place.empty()

    serve(hello, visit)


def test_a_handshake_that_fails_is_told(serve):
    async def visit(place):
        client = place.caller(version=V12, minimum_version=V12)
        client.context.set_ciphers("DHE-RSA-AES128-SHA")
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            await asyncio.to_thread(client.shake_hands)
        await place.empty()
        return place.server.handshakes.failed

    assert serve(hello, visit) == 1


def test_a_handshake_waits_for_room_in_the_socket(serve):
    async def visit(place):
        place.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = await place.client(receive_buffer=2048)
        return await asyncio.to_thread(client.ask)

    assert serve(hello, visit, certificate=LONG) == OK


def test_whoever_takes_no_handshake_is_not_looked_at_all_the_time(serve):
    """What it sends meanwhile is not read, and would be ready to be read in every turn."""

    async def visit(place):
        place.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = place.caller(receive_buffer=2048)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = client.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with suppress(ssl.SSLWantReadError):
            engine.do_handshake()
        client.raw.sendall(outgoing.read() + b"\x14\x03\x03\x00\x01\x01" * 10)
        await place.until(lambda: [one for one in place.transports() if one._stuck], "it has all been sent")
        begun = time.process_time()
        await asyncio.sleep(0.3)
        return time.process_time() - begun

    assert serve(hello, visit, certificate=LONG) < 0.15


@contextmanager
def accepted():
    """A place, what its connections share, and both ends of one that has not begun. Close what is shared in the end."""
    place = Place(hello)
    place.server.handshakes = Handshakes(place.server)
    with place.sock, socket.create_connection(place.sock.getsockname(), PATIENCE) as client:
        sock = place.sock.accept()[0]
        sock.setblocking(False)
        with sock:
            yield place, SocketTls(place.server.handshakes), client, sock


async def test_a_connection_that_is_broken_already_is_not_begun():
    with accepted() as (place, shared, client, sock):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(OSError, match="not connected"):
            shared.connect(place.listener, sock)
        shared.close()
    assert place.server.connections == 0


async def test_a_protocol_that_fails_loses_its_connection():
    """And the loop says why, as it does for its own transports."""
    lost, said = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["exception"]))

    class Failing(asyncio.Protocol):
        def data_received(self, data):
            raise ZeroDivisionError

        def connection_lost(self, exc):
            lost.set()

    with accepted() as (_, shared, client, sock):
        SecureSocket(shared, sock).start(Failing())
        client.send(b"x")
        await asyncio.wait_for(lost.wait(), PATIENCE)
    shared.close()
    assert [type(error) for error in said] == [ZeroDivisionError]


async def test_a_connection_that_cannot_be_watched_is_not_counted():
    with accepted() as (place, shared, _, sock):
        shared.readiness.close()
        with pytest.raises(ValueError, match="closed epoll"):
            shared.connect(place.listener, sock)
    assert place.server.connections == 0


async def test_a_protocol_that_fails_at_the_end_leaves_no_socket_open():
    class Failing(asyncio.Protocol):
        def connection_lost(self, exc):
            raise ZeroDivisionError

    said = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda *_: said.set())
    with accepted() as (_, shared, _, sock):
        transport = SecureSocket(shared, sock)
        transport.start(Failing())
        transport.close()
        await asyncio.wait_for(said.wait(), PATIENCE)
        assert sock.fileno() == -1
    shared.close()


async def test_the_descriptor_of_a_lost_connection_may_be_somebody_elses():
    with accepted() as (_, shared, _, sock):
        lost = SecureSocket(shared, sock)
        lost.start(asyncio.Protocol())
        lost.abort()
        come = asyncio.Event()

        class Next:
            def readable(self):
                shared.readiness.watch(sock.fileno(), self, 0)
                come.set()

        one, other = socket.socketpair()
        with one, other:
            number = sock.fileno()
            await asyncio.sleep(0)
            assert sock.fileno() == -1
            os.dup2(one.fileno(), number)
            try:
                shared.readiness.watch(number, Next(), READ)
                lost.pause_reading()
                other.send(b"x")
                await asyncio.wait_for(come.wait(), PATIENCE)
            finally:
                os.close(number)
    shared.close()


async def test_openssl_is_asked_again_for_the_same_bytes():
    """With the kernel's help it makes no copy of what it could not send yet."""
    asked = []

    def send(data):
        asked.append(data.obj if isinstance(data, memoryview) else data)
        raise ssl.SSLWantWriteError

    with accepted() as (_, shared, _, sock):
        transport = SecureSocket(shared, sock)
        transport.start(asyncio.Protocol())
        transport._secured, transport._send = True, send
        mine = bytearray(b"mine")
        transport.write(mine)
        mine[:] = b"your"
        transport.writable()
        transport.abort()
        await asyncio.sleep(0)
    shared.close()
    assert asked == [b"mine"] * 3
    assert len({id(data) for data in asked}) == 1


async def test_limits_of_the_buffer_are_as_those_of_asyncio():
    with accepted() as (_, shared, _, sock):
        transport = SecureSocket(shared, sock)
        assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        transport.set_write_buffer_limits(high=100, low=1)
        assert transport.get_write_buffer_limits() == (1, 100)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)
    shared.close()


# The kernel.


def test_a_missing_key_is_said_once_and_only_where_there_should_be_one(serve, caplog):
    async def visit(place):
        for version in (V12, V12, V13):
            client = place.caller(version=version, minimum_version=version)
            client.context.set_ciphers("ECDHE+CHACHA20" if not caplog.records else "ECDHE+AESGCM")
            await asyncio.to_thread(client.shake_hands)
            assert await asyncio.to_thread(client.ask) == OK
        assert [one.get_extra_info("kernel_tls") for one in place.transports()] == [False] * 3
        return place.server.handshakes.by_kernel

    with caplog.at_level(logging.WARNING, "aioserve"):
        assert serve(hello, visit) == 0
    (said,) = [record.getMessage() for record in caplog.records if "--ktls" in record.getMessage()]
    assert said.startswith(f"--ktls: {ssl.OPENSSL_VERSION} has not given the kernel the key of a connection with ")
    assert "GCM" in said


def test_files_are_read_and_written_then(serve, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    def client(caller):
        caller.tls.sendall(LAST)
        return caller.read_all()

    assert serve(app, in_thread(client)).partition(b"\r\n\r\n")[2] == LARGE
