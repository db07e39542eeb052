"""What holds for every accept pattern, and what sets them apart."""

import dataclasses
import json
import os
import socket

import pytest

from aioserve.accept import steer
from aioserve.accept.base import Inherited
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import FdAddress, TcpAddress, UnixAddress
from aioserve.errors import BindError
from tests.descriptors import few_descriptors

OPTIONS = SocketOptions(backlog=64)
LOCAL = TcpAddress("127.0.0.1", 0)


def shared(addresses, slots):
    return Shared(addresses, OPTIONS)


def reuse_port(addresses, slots):
    return ReusePort(addresses, slots, OPTIONS, platform="linux")


def lending(addresses, slots):
    return ReusePort(addresses, slots, OPTIONS, platform="linux", lends=True)


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


def test_reuseport_that_lends_keeps_the_sockets_of_all_slots_in_a_worker(acceptor):
    one = acceptor(lending, [LOCAL])
    one.open()
    one.keep_only(1)
    assert {slot: inodes(listeners) for slot, listeners in one.queues().items()} == {
        slot: inodes(one.listeners(slot)) for slot in (0, 1)
    }


def test_reuseport_that_lends_leaves_nothing_to_a_process_that_accepts_nothing(acceptor):
    one = acceptor(lending, [LOCAL])
    one.open()
    [first] = one.listeners(0)
    one.keep_only(None)
    assert first.sock.fileno() == -1


@every_pattern
def test_nothing_is_lent_unless_it_is_asked_for(acceptor, kind):
    one = acceptor(kind, [LOCAL])
    one.open()
    assert one.queues() == {}


def test_reuseport_shares_a_unix_socket(acceptor, tmp_path):
    one = acceptor(reuse_port, [LOCAL, UnixAddress(f"{tmp_path}/s")])
    one.open()
    assert inodes(one.listeners(0)[1:]) == inodes(one.listeners(1)[1:])


def test_reuseport_is_refused_where_the_kernel_does_not_balance():
    with pytest.raises(BindError, match=r"needs Linux.*use --accept shared"):
        ReusePort([LOCAL], 2, OPTIONS, platform="darwin").open()


def connect(one, count=64):
    """So many clients of the first address; the caller closes them."""
    port = int(one.addresses()[0].rpartition(":")[2])
    return [socket.create_connection(("127.0.0.1", port), 5) for _ in range(count)]


def shares(one, slots, count=64):
    """How many of ``count`` new connections fall to each slot."""
    clients = connect(one, count)
    found = [accepted(one.listeners(slot)) for slot in slots]
    for client in clients:
        client.close()
    return found


@every_pattern
def test_slots_come_and_go_without_a_word_wherever_sockets_are_shared(acceptor, kind, tmp_path):
    one = acceptor(kind, [UnixAddress(f"{tmp_path}/s")])
    one.open()
    one.grow(2)
    one.joined(2)
    one.retire(2)
    one.restore(2)
    one.forget(2)
    assert inodes(one.listeners(2)) == inodes(one.listeners(0))


@every_pattern
def test_a_slot_that_grows_gets_no_connection_before_it_listens(acceptor, kind):
    one = acceptor(kind, [LOCAL])
    one.open()
    one.grow(2)
    assert sum(shares(one, [0, 1])) == 64


def test_a_slot_that_grew_gets_its_share_once_it_listens(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    one.grow(2)
    one.listeners(2)[0].sock.listen(64)
    one.joined(2)
    assert all(shares(one, [0, 1, 2]))


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_retired_slot_gets_nothing_and_the_others_everything(acceptor, gone):
    one = acceptor(reuse_port, [LOCAL], 3)
    one.open()
    one.retire(gone)
    found = shares(one, [0, 1, 2])
    assert (found[gone], sum(found), sum(map(bool, found))) == (0, 64, 2)


def test_a_slot_that_is_restored_gets_its_share_again(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    one.retire(1)
    one.restore(1)
    assert all(shares(one, [0, 1]))


def test_the_last_slot_cannot_be_avoided(acceptor):
    one = acceptor(reuse_port, [LOCAL], 1)
    one.open()
    one.retire(0)
    assert shares(one, [0]) == [64]


def test_slots_can_be_retired_one_after_another_in_any_order(acceptor):
    one = acceptor(reuse_port, [LOCAL], 5)
    one.open()
    left = [0, 1, 2, 3, 4]
    for gone in (1, 4, 0, 3):
        one.retire(gone)
        left.remove(gone)
        assert (accepted(one.listeners(gone)), all(shares(one, left))) == (0, True)
        one.forget(gone)
        assert sum(shares(one, left)) == 64


def test_a_slot_that_joins_while_another_is_avoided_is_chosen_too(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    one.retire(0)
    one.grow(2)
    one.listeners(2)[0].sock.listen(64)
    one.joined(2)
    found = shares(one, [0, 1, 2])
    assert (found[0], found[1] > 0, found[2] > 0) == (0, True, True)


def test_a_forgotten_slot_is_shut_down_in_every_process(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    with one.listeners(1)[0].sock.dup() as copy:
        one.forget(1)
        with pytest.raises(OSError, match="Invalid argument"):
            copy.accept()
        assert shares(one, [0]) == [64]
    assert one.listeners(1) == []


def test_a_slot_that_never_listened_can_be_forgotten(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    one.grow(2)
    one.forget(2)
    one.grow(2)
    assert len(one.listeners(2)) == 1


def test_a_slot_that_cannot_grow_leaves_nothing(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    with few_descriptors(), pytest.raises(BindError, match="Too many open files"):
        one.grow(2)
    assert one.listeners(2) == []


def heir(kind, one, addresses, slots=2):
    """An acceptor of the same kind with the sockets of ``one``, through descriptors of its own as after an exec."""
    passed = [
        Inherited(fd=os.dup(each.fd), address=each.address, slot=each.slot, indices=each.indices, file=each.file)
        for each in one.hand_over()
    ]
    successor = kind(addresses, slots)
    successor.open(passed)
    return successor


@every_pattern
def test_a_successor_has_the_very_same_sockets(acceptor, kind, tmp_path):
    addresses = [LOCAL, UnixAddress(f"{tmp_path}/s")]
    one = acceptor(kind, addresses)
    one.open()
    other = heir(kind, one, addresses)
    try:
        assert [inodes(other.listeners(slot)) for slot in (0, 1)] == [inodes(one.listeners(slot)) for slot in (0, 1)]
        assert other.addresses() == one.addresses()
    finally:
        other.close()


@every_pattern
@pytest.mark.parametrize("alone", [False, True])
def test_the_file_is_the_successors_once_it_is_alone(acceptor, kind, tmp_path, alone):
    addresses = [UnixAddress(f"{tmp_path}/s")]
    one = acceptor(kind, addresses)
    one.open()
    other = heir(kind, one, addresses)
    if alone:
        other.alone()
        one.close(keep_files=True)
    other.close()
    assert (tmp_path / "s").exists() is not alone


@every_pattern
def test_an_address_that_is_not_wanted_any_more_is_closed(acceptor, kind, tmp_path):
    one = acceptor(kind, [LOCAL, UnixAddress(f"{tmp_path}/s")])
    one.open()
    before = len(os.listdir("/proc/self/fd"))
    other = heir(kind, one, [])
    assert (other.addresses(), len(os.listdir("/proc/self/fd"))) == ([], before)


@every_pattern
def test_an_address_that_is_new_is_opened(acceptor, kind, tmp_path):
    one = acceptor(kind, [LOCAL])
    one.open()
    other = heir(kind, one, [LOCAL, UnixAddress(f"{tmp_path}/s")])
    try:
        assert other.addresses() == [*one.addresses(), f"unix:{tmp_path}/s"]
    finally:
        other.close()


def test_a_successor_knows_the_order_of_the_kernel(acceptor):
    one = acceptor(reuse_port, [LOCAL], 4)
    one.open()
    one.forget(1)
    other = heir(reuse_port, one, [LOCAL], 4)
    try:
        other.retire(3)
        found = shares(other, [0, 2, 3])
        assert (found[0] > 0, found[1] > 0, found[2]) == (True, True, 0)
    finally:
        other.close()


def test_a_successor_with_more_slots_lets_the_new_ones_listen_themselves(acceptor):
    one = acceptor(reuse_port, [LOCAL])
    one.open()
    other = heir(reuse_port, one, [LOCAL], 3)
    try:
        assert sum(shares(other, [0, 1])) == 64
        other.listeners(2)[0].sock.listen(64)
        other.joined(2)
        assert all(shares(other, [0, 1, 2]))
    finally:
        other.close()


def test_a_successor_with_fewer_slots_leaves_the_others_to_their_workers_and_then_ends_them(acceptor):
    one = acceptor(reuse_port, [LOCAL], 3)
    one.open()
    other = heir(reuse_port, one, [LOCAL], 2)
    try:
        assert shares(other, [0, 1, 2])[2] == 0
        other.alone()
        assert other.listeners(2) == []
        with pytest.raises(OSError, match="Invalid argument"):
            one.listeners(2)[0].sock.accept()
    finally:
        other.close()


@every_pattern
def test_what_is_inherited_can_be_sent_as_json(acceptor, kind):
    one = acceptor(kind, [LOCAL])
    one.open()
    [first, *_] = one.hand_over()
    again = Inherited(**json.loads(json.dumps(dataclasses.asdict(first))))
    assert (again.fd, again.address, again.slot) == (first.fd, "127.0.0.1:0", first.slot)


def test_what_a_successor_has_steered_is_undone_when_it_has_come_to_nothing(acceptor):
    ours = acceptor(reuse_port, [LOCAL], 2)
    ours.open()
    sockets = [ours.listeners(slot)[0].sock for slot in range(2)]
    steer.attach(sockets[0], steer.program([0]))  # as the successor may have left it
    ours.reclaim()
    clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(32)]
    assert all(accepted(ours.listeners(slot)) for slot in range(2))
    for client in clients:
        client.close()


SPEAKING = [
    TcpAddress("127.0.0.1", 0, speaks="https"),
    TcpAddress("127.0.0.2", 0, speaks="http"),
    TcpAddress("127.0.0.3", 0, speaks="redirect"),
]


@every_pattern
def test_a_listener_speaks_what_its_address_says(acceptor, kind, tmp_path):
    one = acceptor(kind, [*SPEAKING, UnixAddress(f"{tmp_path}/s", speaks="https")])
    one.open()
    listeners = one.listeners(1)
    assert [(each.scheme, each.redirect) for each in listeners] == [
        ("https", False),
        ("http", False),
        ("http", True),
        ("https", False),
    ]
    assert [each.speaks for each in listeners] == ["https", "http", "redirect", "https"]
    ports = [each.sock.getsockname()[1] for each in listeners[:3]]
    assert [each.port for each in listeners] == [*ports, None]
    assert one.addresses() == [
        f"https://127.0.0.1:{ports[0]}",
        f"http://127.0.0.2:{ports[1]}",
        f"http://127.0.0.3:{ports[2]}",
        f"https://unix:{tmp_path}/s",
    ]


def test_a_slot_that_is_added_speaks_what_the_others_speak(acceptor):
    one = acceptor(lending, SPEAKING)
    one.open()
    one.grow(2)
    assert [each.speaks for each in one.queues()[2]] == ["https", "http", "redirect"]
    assert [each.address for each in one.listeners(2)] == one.addresses()


@every_pattern
def test_a_successor_may_speak_something_else_at_the_same_socket(acceptor, kind):
    old = acceptor(kind, SPEAKING)
    old.open()
    given = [dataclasses.replace(each, fd=os.dup(each.fd)) for each in old.hand_over()]
    changed = [dataclasses.replace(each, speaks="https") for each in SPEAKING]
    new = acceptor(kind, changed, 3)
    new.open(given)
    for slot in range(2):
        assert inodes(new.listeners(slot)) == inodes(old.listeners(slot))
    for slot in range(3):
        assert [each.speaks for each in new.listeners(slot)] == ["https"] * 3
