"""What holds for every accept pattern, and what sets them apart."""

import os
import socket

import pytest

from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, TcpAddress, UnixAddress
from aioserve.errors import BindError

OPTIONS = SocketOptions(backlog=64)
LOCAL = TcpAddress("127.0.0.1", 0)


def shared(addresses, slots):
    return Shared(addresses, OPTIONS)


def reuse_port(addresses, slots):
    return ReusePort(addresses, slots, OPTIONS, platform="linux")


@pytest.fixture
def acceptor():
    made = []

    def make(kind, addresses, slots=2):
        made.append(kind(addresses, slots))
        return made[-1]

    yield make
    for one in made:
        one.close()


every_pattern = pytest.mark.parametrize("kind", [shared, reuse_port])


def accepted(listeners):
    """How many connections wait in the queues of these listeners."""
    count = 0
    for listener in listeners:
        while True:
            try:
                connection, _ = listener.sock.accept()
            except BlockingIOError:
                break
            connection.close()
            count += 1
    return count


def inodes(listeners):
    return [os.fstat(listener.sock.fileno()).st_ino for listener in listeners]


@every_pattern
def test_every_address_is_opened_once_and_named(acceptor, kind, tmp_path):
    one = acceptor(kind, [LOCAL, UnixAddress(f"{tmp_path}/s"), LOCAL])
    one.open()
    tcp, unix = one.addresses()
    assert (tcp.startswith("http://127.0.0.1:"), unix) == (True, f"unix:{tmp_path}/s")


@every_pattern
def test_a_slot_gets_the_same_sockets_every_time(acceptor, kind):
    one = acceptor(kind, [LOCAL])
    one.open()
    assert inodes(one.listeners(1)) == inodes(one.listeners(1))


@every_pattern
def test_no_connection_is_lost_between_the_slots(acceptor, kind):
    one = acceptor(kind, [LOCAL])
    one.open()
    target = one.listeners(0)[0].sock.getsockname()
    clients = [socket.create_connection(target) for _ in range(32)]
    assert accepted(one.listeners(0)) + accepted(one.listeners(1)) == 32
    for client in clients:
        client.close()


@every_pattern
def test_closing_removes_the_files_of_unix_sockets(acceptor, kind, tmp_path):
    one = acceptor(kind, [UnixAddress(f"{tmp_path}/s")])
    one.open()
    one.close()
    assert not (tmp_path / "s").exists()


@every_pattern
def test_closing_twice_is_harmless(acceptor, kind):
    one = acceptor(kind, [LOCAL])
    one.open()
    one.close()
    one.close()
    assert one.listeners(0) == []


@every_pattern
def test_an_address_that_fails_closes_those_before_it(acceptor, kind, tmp_path):
    one = acceptor(kind, [UnixAddress(f"{tmp_path}/s"), UnixAddress(f"{tmp_path}/no/s")])
    with pytest.raises(BindError):
        one.open()
    assert (one.listeners(0), (tmp_path / "s").exists()) == ([], False)


@every_pattern
def test_a_process_that_accepts_nothing_keeps_nothing(acceptor, kind, tmp_path):
    one = acceptor(kind, [LOCAL, UnixAddress(f"{tmp_path}/s")])
    one.open()
    sockets = [listener.sock for slot in (0, 1) for listener in one.listeners(slot)]
    one.keep_only(None)
    assert {sock.fileno() for sock in sockets} == {-1}


@every_pattern
def test_a_child_that_drops_sockets_leaves_the_files_alone(acceptor, kind, tmp_path):
    one = acceptor(kind, [UnixAddress(f"{tmp_path}/s")])
    one.open()
    one.keep_only(None)
    assert (tmp_path / "s").exists()


@every_pattern
def test_an_adopted_descriptor_serves_every_slot(acceptor, kind):
    one = acceptor(kind, [FdAddress(socket.create_server(("127.0.0.1", 0)).detach())])
    one.open()
    assert inodes(one.listeners(0)) == inodes(one.listeners(1))


def test_shared_slots_have_one_socket(acceptor):
    one = acceptor(shared, [LOCAL])
    one.open()
    assert inodes(one.listeners(0)) == inodes(one.listeners(1))


def test_shared_keeps_its_socket_in_every_worker(acceptor):
    one = acceptor(shared, [LOCAL])
    one.open()
    one.keep_only(1)
    assert one.listeners(1)[0].sock.fileno() >= 0


def test_reuseport_slots_have_sockets_of_their_own_on_the_same_port(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    [first], [second] = one.listeners(0), one.listeners(1)
    assert (first.address == second.address, inodes([first]) == inodes([second])) == (True, False)


def test_reuseport_spreads_connections_over_the_slots(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    target = one.listeners(0)[0].sock.getsockname()
    # The kernel hashes the client's port: that 64 of them fall on one side has a probability of 2 ** -63.
    clients = [socket.create_connection(target) for _ in range(64)]
    assert accepted(one.listeners(0)) > 0
    assert accepted(one.listeners(1)) > 0
    for client in clients:
        client.close()


def test_reuseport_keeps_only_the_socket_of_its_slot(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    [[first], [second]] = one.listeners(0), one.listeners(1)
    one.keep_only(1)
    assert (first.sock.fileno(), second.sock.fileno() >= 0) == (-1, True)


def test_reuseport_shares_a_unix_socket(acceptor, tmp_path):
    one = acceptor(reuse_port, [LOCAL, UnixAddress(f"{tmp_path}/s")])
    one.open()
    assert inodes(one.listeners(0)[1:]) == inodes(one.listeners(1)[1:])


def test_reuseport_is_refused_where_the_kernel_does_not_balance():
    with pytest.raises(BindError, match=r"needs Linux.*use --accept shared"):
        ReusePort([LOCAL], 2, OPTIONS, platform="darwin").open()
