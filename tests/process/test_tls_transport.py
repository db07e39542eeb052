"""TLS on real sockets and loops: what memory cannot show of ``worker.secure`` and ``worker.handshakes``."""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress

import pytest
from websockets.sync.client import connect as connect_websocket

from tests.process.clients import Client, Load
from tests.process.servers import Served, forget_peak, memory, wait_until
from tests.tls import Authority

pytestmark = [pytest.mark.slow, pytest.mark.once]

MIB = 1024 * 1024
AUTHORITY = Authority()

#: Each loop, parser and kind of listener at least once.
MODES = {
    "single": ("--accept", "single", "--loop", "uvloop", "--http", "h11"),
    "shared": ("--workers", "2", "--loop", "asyncio", "--http", "httptools"),
    "always": ("--workers", "2", "--reuseport", "--steal", "always", "--loop", "uvloop"),
    "dispatch": ("--workers", "2", "--accept", "dispatch", "--loop", "asyncio", "--http", "h11"),
    "threads": ("--accept", "threads", "--threads", "2", "--loop", "uvloop"),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    certfile, keyfile = AUTHORITY.server().write(tmp_path_factory.mktemp("tls"))
    return ("--ssl-certfile", certfile, "--ssl-keyfile", keyfile, "--no-access-log")


@pytest.fixture(scope="module")
def served(certificate):
    with Served("secured:app", "--workers", "1", *certificate, "--log-level", "debug") as server:
        yield server


def dial(server, **options):
    return Client(("127.0.0.1", server.port), tls=AUTHORITY.client_context(**options))


@pytest.mark.parametrize("mode", MODES)
def test_everything_goes_over_tls_in_every_mode(mode, certificate):
    with Served("secured:app", *MODES[mode], *certificate) as server:
        context = AUTHORITY.client_context()
        with Client(("127.0.0.1", server.port), tls=context) as client:
            assert client.get("/").text == "https 0x0304 None"
            body = bytes(range(256)) * 4096
            client.request("/echo", method="POST", body=body)
            assert hashlib.sha256(client.response().body).digest() == hashlib.sha256(body).digest()
            assert len(client.get("/whole?3").body) == 3 * MIB
        with connect_websocket(f"wss://127.0.0.1:{server.port}/talk", ssl=context, max_size=None) as socket_:
            message = bytes(range(256)) * 8192
            socket_.send(message)
            assert socket_.recv() == message
            socket_.send("short")
            assert socket_.recv() == "short"
        assert socket_.close_code == 1000


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_has_half_closed_gets_its_response(loop, version, certificate):
    with Served("secured:app", "--accept", "single", "--loop", loop, *certificate) as server:
        with dial(server, maximum_version=version) as client:
            client.request("/later")
            # close_notify; then a FIN behind it, at the descriptor.
            client.sock.settimeout(0.0)
            with suppress(ssl.SSLWantReadError):
                client.sock._sslobj.shutdown()
            socket.socket.shutdown(client.sock, socket.SHUT_WR)
            client.sock.settimeout(20.0)
            heard = b""
            with suppress(ssl.SSLZeroReturnError):  # what an end is called once both have said theirs
                while data := client.sock.recv(65536):
                    heard += data
        assert heard.endswith(b"still here")


def test_memory_stays_flat_while_large_bodies_and_files_are_sent(served, tmp_path):
    (worker,) = served.workers()
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(100 * MIB)
    with dial(served) as client:
        client.get("/")
        before = forget_peak(worker)
        client.request(f"/file?{path}")
        size = sum(len(piece) for piece in client.body(client.head()))
        assert size == 100 * MIB
        assert memory(worker, "VmHWM") - before < 8 * MIB
        # The application's own 64 MiB, and no ciphertext of all of it beside them.
        client.request("/whole?64")
        size = sum(len(piece) for piece in client.body(client.head()))
        assert size == 64 * MIB
        assert memory(worker, "VmHWM") - before < 80 * MIB


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    ("version", "command", "said"),
    [
        ("-tls1_3", "K", "KEYUPDATE"),  # new keys in both directions
        ("-tls1_2", "R", "RENEGOTIATING"),  # refused
    ],
)
def test_what_comes_after_the_handshake_does_no_harm(served, version, command, said):
    mark = served.mark()
    client = subprocess.Popen(
        ("openssl", "s_client", version, "-connect", f"127.0.0.1:{served.port}"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip

    def hear_until(text):
        heard = b""
        while text not in heard:
            piece = client.stdout.read1()
            assert piece, heard
            heard += piece

    # s_client takes a line for a command of its own only if it has read it alone.
    client.stdin.write(f"{command}\n".encode())
    client.stdin.flush()
    hear_until(said.encode())
    if command == "K":
        client.stdin.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.stdin.flush()
        hear_until(b"https 0x0304 None")
    client.communicate(timeout=20)
    with dial(served) as another:
        assert another.get("/").status == 200
    assert "Traceback" not in served.log()[mark:]


def test_garbage_behind_the_handshake_ends_the_connection_with_an_alert(served):
    mark = served.mark()
    with dial(served) as client:
        client.get("/")
        socket.socket.sendall(client.sock, b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
            client.sock.recv(1)
    served.wait_for("- TLS: ", since=mark)


def test_half_open_handshakes_keep_nobody_out(certificate):
    with Served("secured:app", "--limit-handshakes", "20", "--accept", "single", *certificate) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        for sock in silent:
            sock.send(b"\x16\x03\x01")

        def ended():
            """A new client is served, and makes room by what it takes away."""
            with dial(server) as client:
                assert client.get("/").status == 200
            found = 0
            for sock in silent:
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    found += not sock.recv(1)
            return found >= 10

        wait_until(ended, "the oldest are given up")
        for sock in silent:
            sock.close()


def test_a_handshake_that_was_begun_before_the_end_is_served(certificate):
    with Served("secured:app", *certificate) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        context = AUTHORITY.client_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
        sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        mark = server.mark()
        server.signal(15)
        server.wait_for("stopping", since=mark)
        engine.do_handshake()
        engine.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.sendall(outgoing.read())
        heard = b""
        while b"https 0x0304" not in heard:
            data = sock.recv(65536)
            assert data
            incoming.write(data)
            with suppress(ssl.SSLWantReadError):
                heard += engine.read(65536)
        sock.close()
        assert server.wait() == 0


@pytest.mark.parametrize("mode", [("--workers", "2"), ("--workers", "2", "--reuseport")])
def test_workers_are_replaced_under_load_without_a_loss(mode, certificate):
    with Served("plain:app", *mode, "--limit-max-requests", "50", *certificate) as server:
        before = server.workers()
        with Load(server, tls=AUTHORITY.client_context()) as load:
            wait_until(lambda: not server.workers() & before, "every worker is replaced")
            load.progress()
        assert load.failures == []
