"""The dispatcher's acceptor: whose the feeds are, and what becomes of them as slots come and go."""

import os
import socket

import pytest

from aioserve.accept import passing
from aioserve.accept.dispatch import Dispatch
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import TcpAddress, UnixAddress
from aioserve.errors import BindError

LOCAL = TcpAddress("127.0.0.1", 0)
OPTIONS = SocketOptions(backlog=64)


@pytest.fixture
def acceptor():
    made = []

    def make(addresses=(LOCAL,), slots=2, **how):
        one = Dispatch(addresses, slots, OPTIONS, **how)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def opened(acceptor):
    one = acceptor()
    one.open()
    return one


def inode(one, slot):
    [feed] = one.listeners(slot)
    return os.fstat(feed.sock.fileno()).st_ino


def news(one):
    return passing.receive(one._news[1])


def test_elsewhere_than_on_linux_one_sentence_says_what_to_use(acceptor):
    with pytest.raises(BindError, match=r"--accept dispatch needs Linux .*; use shared"):
        acceptor(platform="darwin").open()


def test_an_address_that_is_taken_leaves_nothing_open(acceptor):
    with socket.create_server(("127.0.0.1", 0)) as other:
        one = acceptor([TcpAddress("127.0.0.1", other.getsockname()[1])])
        with pytest.raises(BindError, match="another process is listening"):
            one.open()
    assert one._feeds == {}


def test_more_addresses_than_a_byte_can_name_are_refused(acceptor, monkeypatch):
    monkeypatch.setattr(passing, "PROBE", 1)
    with pytest.raises(BindError, match="takes 1 addresses at most"):
        acceptor([LOCAL, TcpAddress("127.0.0.2", 0)]).open()


def test_a_slot_has_the_same_feed_every_time_and_no_other_slot_has_it(opened):
    assert inode(opened, 0) == inode(opened, 0) != inode(opened, 1)


def test_a_feed_knows_every_address(acceptor, tmp_path):
    one = acceptor([LOCAL, UnixAddress(f"{tmp_path}/s")])
    one.open()
    [feed] = one.listeners(1)
    assert [listener.address for listener in feed.listeners] == one.addresses()


def test_a_worker_keeps_its_end_of_its_own_feed_and_nothing_else(opened):
    [mine], [other] = opened.listeners(1), opened.listeners(0)
    out = opened._feeds[1][0]
    opened.keep_only(1)
    listening = [listener.sock.fileno() for listener in mine.listeners]
    assert (listening, other.sock.fileno(), out.fileno(), mine.sock.fileno() >= 0) == ([-1], -1, -1, True)
    # What connections look like is still known.
    assert mine.listeners[0].sock.family == socket.AF_INET


def test_who_accepts_nothing_keeps_nothing(opened, tmp_path):
    feeds = [opened.listeners(slot)[0] for slot in range(2)]
    opened.keep_only(None)
    assert [feed.sock.fileno() for feed in feeds] == [-1, -1]


def test_a_worker_does_not_remove_the_file_of_a_unix_socket(acceptor, tmp_path):
    one = acceptor([UnixAddress(f"{tmp_path}/s")])
    one.open()
    one.keep_only(0)
    one.close()
    assert (tmp_path / "s").exists()


def test_the_dispatcher_is_told_of_a_further_slot(opened):
    opened.grow(2)
    message, ends = news(opened)
    assert (int.from_bytes(message, "little"), len(ends)) == (2, 2)
    assert os.fstat(ends[1]).st_ino == inode(opened, 2)
    for end in ends:
        os.close(end)


def test_a_dispatcher_that_hears_nothing_is_no_dispatcher_for_a_further_slot(opened):
    while passing.send(opened._news[0], b"full", ()):
        pass
    with pytest.raises(BindError, match="the dispatcher does not listen"):
        opened.grow(2)
    assert 2 not in opened._feeds


def test_what_waits_for_a_slot_that_goes_is_given_to_another(opened):
    with socket.socket() as connection:
        passing.send(opened._feeds[1][0], b"\0", [connection.fileno()])
        [feed] = opened.listeners(0)
        opened.retire(1)
        opened.forget(1)
        origins, [descriptor] = passing.receive(feed.sock)
        assert (origins, os.path.sameopenfile(descriptor, connection.fileno())) == (b"\0", True)
        os.close(descriptor)
    message, ends = news(opened)
    assert (int.from_bytes(message, "little"), ends) == (1, [])


@pytest.mark.parametrize("full", [1, 2])
def test_a_feed_that_is_full_is_passed_over_for_what_waits_for_a_slot_that_goes(acceptor, caplog, full):
    opened = acceptor(slots=3)
    opened.open()
    for slot in range(full):
        while passing.send(opened._feeds[slot][0], bytes([passing.PROBE]), ()):
            pass
    with socket.socket() as connection:
        passing.send(opened._feeds[2][0], b"\0", [connection.fileno()])
    opened.forget(2)
    [feed] = opened.listeners(1)
    assert passing.waiting(feed.sock) == 1 or full == 2
    assert caplog.messages == ["1 connections of a worker that has gone found no room with another"] * (full - 1)


def test_a_slot_is_marked_while_it_is_to_be_avoided_and_a_new_one_is_not(opened):
    opened.retire(1)
    assert list(opened._avoided[:3]) == [0, 1, 0]
    opened.restore(1)
    assert list(opened._avoided[:3]) == [0, 0, 0]
    opened.retire(1)
    opened.forget(1)
    opened.grow(1)
    assert list(opened._avoided[:3]) == [0, 0, 0]


def test_a_successor_gets_the_listening_sockets_and_feeds_of_its_own(acceptor, opened):
    heir = acceptor()
    inherited = opened.hand_over()
    heir.open([type(one)(fd=os.dup(one.fd), address=one.address, slot=one.slot) for one in inherited])
    heir.alone()
    heir.joined(0)
    heir.reclaim()
    assert heir.addresses() == opened.addresses()
    assert inode(heir, 0) != inode(opened, 0)


def test_it_is_closed_once(opened):
    opened.close()
    opened.close()
    assert opened.addresses() == []
