"""Nobody begins to connect to a server that stops, and whoever was connected is accepted."""

import errno
import os
import select
import socket
from dataclasses import replace

import pytest

from aioserve.accept.dispatch import Dispatch
from aioserve.accept.fronted import Fronted
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, TcpAddress, UnixAddress

OPTIONS = SocketOptions(backlog=64)
LOCAL = [TcpAddress("127.0.0.1", 0)]

PATTERNS = {
    "shared": lambda addresses: Shared(addresses, OPTIONS),
    "reuseport": lambda addresses: ReusePort(addresses, 2, OPTIONS),
    "dispatch": lambda addresses: Dispatch(addresses, 2, OPTIONS),
    "fronted": lambda addresses: Fronted(addresses, [], OPTIONS, lambda plain: Shared(plain, OPTIONS)),
}


@pytest.fixture(params=PATTERNS)
def kind(request):
    return PATTERNS[request.param]


def listening(acceptor):
    """The TCP sockets."""
    sockets = [socket.socket(fileno=os.dup(one.fd)) for one in acceptor.hand_over()]
    return [sock for sock in sockets if sock.family == socket.AF_INET]


def connecting(address):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(address)
    return client


def is_connected(client):
    # On loopback a handshake is over when connect() returns, unless its first packet was dropped.
    return bool(select.select([], [client], [], 0)[1])


def is_let_in(acceptor):
    sockets = listening(acceptor)
    client = connecting(sockets[0].getsockname())
    try:
        return is_connected(client)
    finally:
        for sock in [client, *sockets]:
            sock.close()


def test_who_is_connected_is_accepted_and_nobody_else_gets_in(kind):
    acceptor = kind(LOCAL)
    acceptor.open()
    sockets = listening(acceptor)
    address = sockets[0].getsockname()
    before = connecting(address)
    assert is_connected(before)
    acceptor.refuse()
    after = [connecting(address) for _ in range(8)]
    ready = select.select(sockets, [], [], 10)[0]
    accepted = ready[0].accept()[0]
    before.send(b"x")
    assert accepted.recv(8) == b"x"
    assert not any(map(is_connected, after))
    # As when a process that has a copy has closed it: who is still there finds nobody.
    acceptor.close()
    for sock in sockets:
        sock.close()
    for client in after:
        assert select.select([], [client], [], 10)[1]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    for sock in [before, accepted, *after]:
        sock.close()


def test_sockets_of_a_predecessor_are_left_as_they_are_until_it_has_gone(kind):
    one, other = kind(LOCAL), kind(LOCAL)
    one.open()
    other.open([replace(sent, fd=os.dup(sent.fd)) for sent in one.hand_over()])
    other.refuse()
    assert is_let_in(one)
    other.alone()
    other.refuse()
    assert not is_let_in(one)
    other.close()
    one.close()


def test_a_socket_that_was_passed_in_is_left_as_it_is():
    with socket.create_server(("127.0.0.1", 0)) as passed:
        acceptor = Shared([FdAddress(os.dup(passed.fileno()))], OPTIONS)
        acceptor.open()
        acceptor.refuse()
        assert is_let_in(acceptor)
        acceptor.close()


def test_a_unix_socket_needs_nothing(kind, tmp_path):
    acceptor = kind([UnixAddress(f"{tmp_path}/s")])
    acceptor.open()
    with socket.socket(socket.AF_UNIX) as client:
        acceptor.refuse()
        client.connect(f"{tmp_path}/s")
    acceptor.close()
