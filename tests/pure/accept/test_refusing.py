"""Nobody begins to connect to a server that stops, and whoever was connected is accepted."""

import errno
import os
import select
import socket
from dataclasses import replace

import pytest

from aioserve.accept import refusing
from aioserve.accept.dispatch import Dispatch
from aioserve.accept.fronted import Fronted
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, TcpAddress, UnixAddress
from tests.handshakes import begin, error_of, is_over

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


def is_let_in(acceptor):
    sockets = listening(acceptor)
    client = begin(sockets[0].getsockname()[1])
    try:
        return is_over(client)
    finally:
        for sock in [client, *sockets]:
            sock.close()


def test_who_is_connected_is_accepted_and_nobody_else_gets_in(kind):
    acceptor = kind(LOCAL)
    acceptor.open()
    sockets = listening(acceptor)
    port = sockets[0].getsockname()[1]
    before = begin(port)
    assert is_over(before)
    acceptor.refuse()
    after = [begin(port) for _ in range(8)]
    ready = select.select(sockets, [], [], 10)[0]
    accepted = ready[0].accept()[0]
    before.send(b"x")
    assert accepted.recv(8) == b"x"
    assert not any(map(is_over, after))
    # As when a process that has a copy has closed it: who is still there finds nobody.
    acceptor.close()
    for sock in sockets:
        sock.close()
    for client in after:
        assert is_over(client, within=10)
        assert error_of(client) == errno.ECONNREFUSED
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


def test_nobody_finds_a_unix_socket_any_more(kind, tmp_path):
    acceptor = kind([UnixAddress(f"{tmp_path}/s")])
    acceptor.open()
    [fd] = [one.fd for one in acceptor.hand_over() if one.file]
    with socket.socket(fileno=os.dup(fd)) as listener, socket.socket(socket.AF_UNIX) as before:
        before.connect(f"{tmp_path}/s")
        acceptor.refuse()
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
            late.connect(f"{tmp_path}/s")
        listener.accept()[0].close()
    acceptor.close()


def test_a_file_of_a_predecessor_stays(kind, tmp_path):
    one, other = kind([UnixAddress(f"{tmp_path}/s")]), kind([UnixAddress(f"{tmp_path}/s")])
    one.open()
    other.open([replace(sent, fd=os.dup(sent.fd)) for sent in one.hand_over()])
    other.refuse()
    assert (tmp_path / "s").exists()
    other.close()
    one.close()


def test_where_it_cannot_be_the_log_says_so(caplog):
    caplog.set_level("INFO", "aioserve")
    with socket.socket() as sock:
        os.close(sock.detach())  # a closed one stands for a sandbox that forbids it
        refusing.refuse(sock)
    assert "a client that connects in the last instant may be reset: no filter" in caplog.text
