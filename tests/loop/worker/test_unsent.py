import asyncio
import errno
import socket

import pytest

from aioserve.worker.unsent import PROGRESS, half_close, has_progressed, unsent_bytes
from tests.fakes import FakeTransport


class SocketTransport(FakeTransport):
    """A fake transport over a socket, or none."""

    def __init__(self, sock, held):
        super().__init__(accept=0)
        self.sock = sock
        self.queued = held

    def get_extra_info(self, name, default=None):
        return self.sock if name == "socket" else super().get_extra_info(name, default)


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@pytest.mark.parametrize("pair", [tcp_pair, socket.socketpair])
def test_what_the_transport_and_the_kernel_hold_is_counted(pair):
    one, other = pair()
    with one, other:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                one.send(bytes(65536))
        full = unsent_bytes(SocketTransport(one, 7))
        assert full > 7
        assert unsent_bytes(SocketTransport(one, 10)) == full + 3


def test_a_transport_without_a_socket_counts_alone():
    assert unsent_bytes(SocketTransport(None, 7)) == 7


def test_a_socket_that_is_closed_holds_nothing():
    sock = socket.socket()
    sock.close()
    assert unsent_bytes(SocketTransport(sock, 7)) == 7


def test_writing_ends_unless_the_peer_has_reset_the_connection():
    transport = FakeTransport()
    transport.protocol = asyncio.Protocol()
    assert half_close(transport)
    assert transport.state == "half-closed"

    def not_connected():
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    transport.write_eof = not_connected
    assert not half_close(transport)
    assert transport.state == "aborted"


@pytest.mark.parametrize(
    ("before", "now", "reads"),
    [
        (100_000, 100_000, False),
        (100_000, 100_000 - PROGRESS + 1, False),
        (100_000, 100_000 - PROGRESS, True),
        (100_000, 100_001, True),
        (100, 100, False),
    ],
)
def test_a_few_bytes_are_no_progress_and_more_to_take_is(before, now, reads):
    assert has_progressed(before, now) is reads
