"""Where a server listens: ports, unix sockets, descriptors, both families, several at once."""

from __future__ import annotations

import json
import signal
import socket
import stat

import pytest

from tests.process.clients import Client
from tests.process.servers import PATIENCE, Served

pytestmark = pytest.mark.once

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "reuseport": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
    "single": ("--accept", "single"),
    "threads": ("--accept", "threads", "--threads", "2"),
}


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


def hello(address):
    with Client(address) as client:
        return client.get("/", close=True).text


def test_unix_socket_is_for_owner_and_group_and_gone_afterwards(tmp_path, mode):
    path = tmp_path / "aioserve.sock"
    with Served("plain:app", *mode, "--uds", path) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert hello(str(path)) == "Hello, World!"
        with Client(str(path)) as client:
            scope = json.loads(client.get("/scope").body)
        assert (scope["client"], scope["server"]) == (None, [str(path), None])

        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert not path.exists()


def test_unix_socket_survives_a_reload(tmp_path):
    path = tmp_path / "aioserve.sock"
    with Served("plain:app", "--workers", "2", "--uds", path) as server:
        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2 finished: 2 replaced")

        assert path.exists()
        assert hello(str(path)) == "Hello, World!"


def test_stale_unix_socket_is_taken_over(tmp_path):
    path = tmp_path / "aioserve.sock"
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(path))
    with Served("plain:app", "--uds", path):
        assert hello(str(path)) == "Hello, World!"


def test_live_unix_socket_is_refused_with_4_and_left_alone(tmp_path):
    path = tmp_path / "aioserve.sock"
    with Served("plain:app", "--uds", path):
        with Served("plain:app", "--uds", path, ready=False) as second:
            assert second.wait() == 4
        assert f"unix:{path}: another process is listening there" in second.log()
        assert hello(str(path)) == "Hello, World!"


def test_descriptor_that_was_passed_in_is_served(mode):
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        Served("plain:app", *mode, "--fd", str(sock.fileno()), pass_fds=[sock.fileno()]) as server,
    ):
        assert server.port == sock.getsockname()[1]
        assert hello(sock.getsockname()) == "Hello, World!"


def test_several_ports_are_served_at_once(mode):
    with Served("plain:app", *mode, "--bind", "127.0.0.1:0", "--bind", "127.0.0.2:0") as server:
        urls = server.urls
        assert [url.rpartition(":")[0] for url in urls] == ["http://127.0.0.1", "http://127.0.0.2"]
        addresses = [(url.split("/")[2].partition(":")[0], port_of(url)) for url in urls]
        assert [hello(address) for address in addresses] == ["Hello, World!"] * 2


def test_port_and_unix_socket_are_served_at_once(tmp_path, mode):
    path = tmp_path / "aioserve.sock"
    with Served("plain:app", *mode, "--bind", "127.0.0.1:0", "--bind", f"unix:{path}") as server:
        assert server.urls[1] == f"unix:{path}"
        assert [hello(address) for address in (("127.0.0.1", server.port), str(path))] == ["Hello, World!"] * 2


@pytest.fixture
def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


@pytest.mark.usefixtures("has_ipv6")
def test_ipv6_is_served(mode):
    with Served("plain:app", *mode, "--bind", "[::1]:0") as server:
        assert server.url.startswith("http://[::1]:")
        with Client(("::1", server.port)) as client:
            scope = json.loads(client.get("/scope").body)
        assert (scope["client"], scope["server"]) == ("::1", ["::1", server.port])


@pytest.mark.usefixtures("has_ipv6")
def test_dual_stack_takes_both_families(mode):
    with Served("plain:app", *mode, "--bind", "[::]:0", "--dual-stack") as server:
        assert [hello((host, server.port)) for host in ("::1", "127.0.0.1")] == ["Hello, World!"] * 2


@pytest.mark.usefixtures("has_ipv6")
def test_ipv6_wildcard_alone_leaves_ipv4_alone():
    with Served("plain:app", "--bind", "[::]:0") as server:
        assert hello(("::1", server.port)) == "Hello, World!"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def port_of(url):
    return int(url.rpartition(":")[2])
