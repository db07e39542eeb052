"""Clients that do not read, and clients that do not stop: the server stays as it is, and serves the others."""

from __future__ import annotations

import select
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.process.servers import Served, wait_until
from tests.websocket.frames import APPS, BINARY, DEFLATE, PING, TEXT, Frame, WebSocket, deflated, fragment, frame, more
from tests.websocket.transfer import flat_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The frames and the protocol under them are tested with every Python.
pytestmark = [pytest.mark.slow, pytest.mark.once]

#: --timeout-write, in seconds.
WRITE_TIMEOUT = 1

#: Without progress for so long a flood is dammed; longer than any pause of a server that reads on, in seconds.
DAMMED = 0.5

#: More than the kernel holds of a connection on either side: 6 MiB to be received, 4 to be sent (tcp(7), tcp_rmem and
#: tcp_wmem), and twice as much on a machine with larger limits.
FLOOD = 32 << 20

#: What a connection under pressure may cost the worker: what asyncio buffers (64 KiB), a read of 256 KiB, a message of
#: as much in pieces, joined and unmasked, and what the allocator keeps.
COST = 2 << 20


@pytest.fixture
def torrents(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def server(torrents: Path) -> Iterator[Served]:
    options = ("--no-access-log", "--workers", "1", "--timeout-write", str(WRITE_TIMEOUT))
    with Served("sockets:app", *options, cwd=APPS, env={"TORRENTS": str(torrents)}) as server:
        with WebSocket(server.port) as first:
            first.alive()  # what is needed once is there now
        yield server


def says(server: Served, text: str) -> None:
    """Somebody else is served."""
    with WebSocket(server.port) as other:
        other.send(frame(TEXT, text))
        assert other.message() == Frame(TEXT, text.encode())


def pour(client: WebSocket, flood: bytes) -> int:
    """Send ``flood`` again and again until nobody takes any more; how many bytes were taken."""
    client.sock.setblocking(False)
    taken = 0
    left = memoryview(flood)
    while taken < FLOOD:
        _, writable, _ = select.select([], [client.sock], [], DAMMED)
        if not writable:
            return taken
        sent = client.sock.send(left)
        taken += sent
        left = left[sent:] or memoryview(flood)
    return taken


def test_a_reader_that_does_not_read_is_cut_and_its_application_told(server, torrents):
    with flat_memory(server, COST), WebSocket(server.port, "/torrent?deaf"):
        says(server, "meanwhile")
        wait_until((torrents / "deaf").exists, "the application's end")

    pieces, error = (torrents / "deaf").read_text().split()
    assert error == "ClientDisconnected"
    # As much as the kernel takes, and no more.
    assert 0 < int(pieces) * 65536 < FLOOD


def test_fifty_readers_that_do_not_read_cost_little(server, torrents):
    with flat_memory(server, 50 * COST // 4), ExitStack() as stack:
        for number in range(50):
            stack.enter_context(WebSocket(server.port, f"/torrent?{number}"))
        says(server, "meanwhile")
        wait_until(lambda: len(list(torrents.iterdir())) == 50, "the end of fifty")


def test_a_reader_that_is_slow_is_not_cut(server, torrents):
    with WebSocket(server.port, "/torrent?slow") as client:
        # Reads in one go what came within half the limit, three times over.
        for _ in range(3):
            select.select([], [], [], WRITE_TIMEOUT * 0.5)
            for _ in range(64):
                assert len(client.message().payload) == 65536
        assert not (torrents / "slow").exists()
    wait_until((torrents / "slow").exists, "the application's end")


FLOODS = {
    "large messages": frame(BINARY, bytes(1 << 18)),
    "small messages": frame(TEXT, "small") * 10_000,
    "empty messages": frame(TEXT) * 10_000,
    "messages in fragments": (fragment(BINARY, bytes(1000)) + more(bytes(1000)) * 50 + frame(0, b"")) * 10,
    "messages that swell": frame(BINARY, deflated(bytes(60_000)), rsv=4) * 1000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_to_an_application_that_does_not_receive_is_dammed(server, flood):
    with flat_memory(server, COST), WebSocket(server.port, "/deaf", sec_websocket_extensions=DEFLATE) as client:
        taken = pour(client, FLOODS[flood])

        assert taken < FLOOD
        says(server, "meanwhile")


def test_a_flood_of_pings_whose_pongs_nobody_reads_is_dammed_and_cut(server):
    with flat_memory(server, COST), WebSocket(server.port) as client:
        taken = pour(client, frame(PING, bytes(125)) * 1000)

        assert taken < FLOOD
        says(server, "meanwhile")
        server.wait_for("it has read next to nothing")


def test_a_flood_to_a_slow_application_arrives_whole(server):
    count = 3000
    with flat_memory(server, COST), WebSocket(server.port, "/drowsy") as client:
        client.send(frame(BINARY, bytes(8000)) * count)
        client.send(frame(TEXT, "how many"))
        assert client.message() == Frame(TEXT, b"%d" % count)
