"""The PROXY protocol over real sockets: headers of our own, and those that haproxy sends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING, Self

import pytest

from aioserve.http.proxy_protocol import SIGNATURE
from aioserve.testing import serving
from tests.process.apps import proxied
from tests.process.clients import Client
from tests.process.identities import Identities
from tests.process.servers import PATIENCE, REPO, Served, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (Debian: haproxy)")

#: A client that is not the load balancer and yet on this machine, to which all of 127.0.0.0/8 belongs.
CLIENT = "127.0.0.2"

LINE = b"PROXY TCP4 203.0.113.9 198.51.100.1 50000 443\r\n"
BLOCK = SIGNATURE + b"\x21\x11\x00\x0c\xcb\x00\x71\x09\xc6\x33\x64\x01\xc3\x50\x01\xbb"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

NAMED = ["--proxy-protocol", "auto"]


def seen(client) -> dict:
    """What the application says of the client in its next response."""
    return json.loads(client.response().text)


# Headers of our own.


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_header_arrives_with_the_request_or_byte_by_byte(loop):
    with Served("proxied:app", "--loop", loop, *NAMED) as server:
        for header in (LINE, BLOCK):
            with server.connect() as client:
                client.send(header + GET + GET)
                assert seen(client)["client"] == ["203.0.113.9", 50000]
                assert seen(client)["server"] == ["198.51.100.1", 443]
            with server.connect() as client:
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for at in range(len(header + GET)):
                    client.send((header + GET)[at : at + 1])
                assert seen(client)["client"] == ["203.0.113.9", 50000]
        with server.connect() as client:
            client.send(LOCAL + GET)
            assert seen(client)["client"] == list(client.sock.getsockname())


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_whoever_may_not_send_a_header_is_closed(loop):
    with Served("proxied:app", "--loop", loop, *NAMED, "--proxy-protocol-from", "127.0.0.2,192.0.2.0/24") as server:
        for _ in range(3):
            with server.connect() as client:
                assert client.sock.recv(1) == b""
        line = server.wait_for("it may not send PROXY headers")
        assert "127.0.0.1:" in line
        assert "names 127.0.0.2, 192.0.2.0/24;" in line
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE, source_address=(CLIENT, 0)) as balancer:
            balancer.sendall(LINE + GET)
            assert b"203.0.113.9" in balancer.recv(4096)
        assert server.log().count("may not send") == 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("sent", [GET, b"\x16\x03\x01\x02\x00", LINE.replace(b"\r\n", b"\n") + GET])
def test_anything_but_a_header_is_closed_without_an_answer(loop, sent):
    with Served("proxied:app", "--loop", loop, *NAMED) as server, server.connect() as client:
        client.send(sent)
        with suppress(ConnectionResetError):
            assert client.sock.recv(1) == b""
        server.wait_for(" - closed: ")
        assert server.stdout() == ""


def test_a_header_that_does_not_come_is_not_awaited_for_ever():
    with Served("proxied:app", *NAMED, "--timeout-header", "200ms") as server, server.connect() as client:
        client.send(LINE[:-1])
        assert client.sock.recv(1) == b""
        server.wait_for("no whole PROXY header within 0.2 s")


def test_a_load_balancer_on_a_unix_socket_speaks_for_its_clients(tmp_path):
    path = f"{tmp_path}/s"
    with Served("proxied:app", "--uds", path, *NAMED), socket.socket(socket.AF_UNIX) as balancer:
        balancer.settimeout(PATIENCE)
        balancer.connect(path)
        balancer.sendall(BLOCK + GET)
        assert b"203.0.113.9" in balancer.recv(4096)


def test_connections_without_a_header_do_not_hold_up_the_end():
    with Served("proxied:app", *NAMED, "--timeout-header", "60s") as server, server.connect() as client:
        client.send(LINE[:9])
        server.signal(signal.SIGTERM)
        assert client.sock.recv(1) == b""
        assert server.wait() == 0


def test_an_embedded_server_speaks_it_too():
    with (
        serving(proxied.app, proxy_protocol="v2", proxy_protocol_from="127.0.0.0/8") as running,
        Client(("127.0.0.1", running.port)) as client,
    ):
        client.send(BLOCK + GET)
        assert seen(client)["client"] == ["203.0.113.9", 50000]


# haproxy.


class HAProxy:
    """``with HAProxy(tmp_path, upstream) as haproxy``: deploy/haproxy.cfg on free ports, plain and with TLS.

    ``sends`` takes the place of the shipped words about the PROXY protocol, ``more`` stands at the end of a bind.
    """

    def __init__(
        self, directory: Path, upstream: str, *, sends: str = "", identities: Identities | None = None, more: str = ""
    ) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.tls_port = (sock.getsockname()[1] for sock in self._sockets)
        self._identities = identities
        self._control = f"{directory}/control"
        text = (REPO / "deploy" / "haproxy.cfg").read_text()
        shipped = "send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c"
        changes = {
            "global\n": f"global\n    stats socket {self._control}\n",
            "bind :8080": f"bind fd@{self._sockets[0].fileno()}",
            "app:8000 check inter 2s": f"{upstream} check inter 500ms",
            "/hello": "/check",
            shipped: sends or shipped,
        }
        if identities is None:
            text = text[: text.index("frontend encrypted")] + text[text.index("\nbackend app\n") :]
        else:
            changes["bind :8443"] = f"bind fd@{self._sockets[1].fileno()}"
            changes["/etc/haproxy/"] = f"{identities.directory}/"
            changes["verify optional"] = f"verify optional {more}"
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        self._conf = directory / "haproxy.cfg"
        self._conf.write_text(text)

    def __enter__(self) -> Self:
        fds = [sock.fileno() for sock in self._sockets]
        self._process = subprocess.Popen([str(HAPROXY), "-db", "-q", "-f", str(self._conf)], pass_fds=fds)
        # Should it end at once, nobody waits in the queue of a socket that is only ours.
        self.close()
        return self

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def seen(self, *, tls: bool = False, identity: str = "", name: str = "a.example") -> dict:
        """What the application sees of a client, which waits in the queue of the socket until haproxy runs."""
        address = {"host": "127.0.0.1", "timeout": PATIENCE, "source_address": (CLIENT, 0)}
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if identity:
                context.load_cert_chain(f"{self._identities.directory}/{identity}.pem")
            client = HTTPSConnection(port=self.tls_port, context=context, **address)
            plain = socket.create_connection(("127.0.0.1", self.tls_port), PATIENCE, source_address=(CLIENT, 0))
            client.sock = context.wrap_socket(plain, server_hostname=name)
        else:
            client = HTTPConnection(port=self.port, **address)
        client.request("GET", "/seen")
        with client.getresponse() as response:
            assert response.status == 200
            said = json.load(response)
        client.close()
        return said

    def check(self) -> str:
        """What the last health check has found: L7OK once it has had its answer."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(self._control)
            control.sendall(b"show stat\n")
            with control.makefile() as lines:
                names = next(lines).lstrip("# ").rstrip().split(",")
                for line in lines:
                    row = dict(zip(names, line.rstrip().split(","), strict=False))
                    if row.get("svname") == "one":
                        return row["check_status"]
        return ""


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    return Identities(tmp_path_factory.mktemp("identities"))


@needs_haproxy
@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize(
    ("mode", "sends"),
    [
        ("auto", "send-proxy"),
        ("v1", "send-proxy"),
        ("auto", "send-proxy-v2"),
        ("v2", "send-proxy-v2"),
        ("auto", "send-proxy-v2 proxy-v2-options crc32c,ssl,authority"),
    ],
)
def test_the_application_sees_the_client_of_haproxy(tmp_path, way, mode, sends):
    path = f"{tmp_path}/s"
    listen = ["--port", "0"] if way == "tcp" else ["--uds", path]
    with Served("proxied:app", *listen, "--proxy-protocol", mode) as server:
        upstream = f"127.0.0.1:{server.port}" if way == "tcp" else path
        with HAProxy(tmp_path, upstream, sends=sends) as haproxy:
            said = haproxy.seen()
    assert said["client"][0] == CLIENT
    assert said["server"] == ["127.0.0.1", haproxy.port]
    assert (said["scheme"], said["tls"], said["names"]) == ("http", None, None)


@needs_haproxy
@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2", ""])
def test_health_checks_of_haproxy_pass_and_come_from_haproxy(tmp_path, sends):
    with (
        Served("proxied:app", *NAMED) as server,
        HAProxy(tmp_path, f"127.0.0.1:{server.port}", sends=sends) as haproxy,
    ):
        haproxy.seen()  # it runs
        wait_until(lambda: haproxy.check() == "L7OK", "a good health check")
        # The access log is written in batches.
        lines = wait_until(
            lambda: [line for line in server.stdout().splitlines() if "/check" in line], "a line for the health check"
        )
    assert all("127.0.0.1" in line and " 200 " in line for line in lines)
    assert " - closed: " not in server.log()


@needs_haproxy
@pytest.mark.parametrize("sends", ["send-proxy-v2-ssl-cn", ""])
@pytest.mark.parametrize(
    ("identity", "name", "error"),
    [("robot", "CN=robot\\, the", None), ("", None, None), ("stranger", None, "21")],
)
def test_the_application_sees_what_haproxy_knows_of_tls(tmp_path, identities, sends, identity, name, error):
    with (
        Served("proxied:app", *NAMED) as server,
        HAProxy(
            tmp_path,
            f"127.0.0.1:{server.port}",
            sends=sends,
            identities=identities,
            # Let those in whose certificate is not to be trusted: haproxy says so in the header.
            more="crt-ignore-err all ca-ignore-err all ssl-min-ver TLSv1.3",
        ) as haproxy,
    ):
        said = haproxy.seen(tls=True, identity=identity)
    assert (said["client"][0], said["scheme"]) == (CLIENT, "https")
    assert said["server"] == ["127.0.0.1", haproxy.tls_port]
    tls = said["tls"]
    assert tls["client_cert_name"] == name
    assert (tls["client_cert_error"] is not None) == (error is not None)
    assert error is None or error in tls["client_cert_error"]
    assert tls["tls_version"] == 0x0304
    # haproxy names cipher and host only where it is told to.
    assert tls["cipher_suite"] in ({0x1301, 0x1302, 0x1303} if not sends else {None})
    assert said["names"] == (None if sends else {"alpn": "", "authority": "a.example", "unique_id": ""})


@needs_haproxy
def test_haproxy_accepts_the_shipped_file_without_a_warning(tmp_path, identities):
    haproxy = HAProxy(tmp_path, "127.0.0.1:8000", identities=identities)
    try:
        fds = [sock.fileno() for sock in haproxy._sockets]
        done = subprocess.run(
            [str(HAPROXY), "-c", "-f", str(haproxy._conf)], capture_output=True, text=True, check=False, pass_fds=fds
        )
    finally:
        haproxy.close()
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
