"""Descriptors in messages: what arrives, what waits, and what a full feed says."""

import errno
import os
import socket
from contextlib import ExitStack

import pytest

from aioserve.accept import passing
from tests.descriptors import few_descriptors


@pytest.fixture
def ends():
    out, back = passing.feed()
    with out, back:
        yield out, back


def pipes(stack, count):
    """So many descriptors, each of another pipe."""
    found = []
    for _ in range(count):
        read, write = os.pipe()
        stack.callback(os.close, read)
        stack.callback(os.close, write)
        found.append(read)
    return found


def same(one, other):
    return os.path.sameopenfile(one, other)


def test_descriptors_arrive_in_order_each_with_where_it_came_from(ends):
    out, back = ends
    with ExitStack() as stack:
        sent = pipes(stack, passing.MOST)
        origins = bytes(range(passing.MOST))
        assert passing.send(out, origins, sent)
        received, descriptors = passing.receive(back)
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        assert received == origins
        assert all(same(one, other) for one, other in zip(sent, descriptors, strict=True))
        assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)


def test_what_waits_is_counted_whoever_has_sent_it(ends):
    out, back = ends
    with ExitStack() as stack, out.dup() as other:
        passing.send(out, bytes(3), pipes(stack, 3))
        passing.send(other, bytes(2), pipes(stack, 2))
        assert passing.waiting(back) == 5
        for descriptor in passing.receive(back)[1]:
            os.close(descriptor)
        assert passing.waiting(back) == 2


def test_a_probe_carries_nothing(ends):
    out, back = ends
    passing.send(out, bytes([passing.PROBE]), ())
    assert passing.receive(back) == (bytes([passing.PROBE]), [])


def test_nothing_waits(ends):
    assert passing.receive(ends[1]) is None


def test_the_end_is_told_from_a_pause(ends):
    out, back = ends
    out.close()
    assert passing.receive(back) == (b"", [])


def test_what_waits_is_there_also_when_the_other_end_was_closed_with_something_unread(ends):
    out, back = ends
    back.send(passing.AWAKE)
    passing.send(out, bytes([passing.PROBE]), ())
    out.close()
    assert [passing.receive(back), passing.receive(back)] == [(bytes([passing.PROBE]), []), (b"", [])]


def test_a_full_feed_takes_no_more_and_loses_nothing(ends):
    out, back = ends
    with ExitStack() as stack:
        [descriptor] = pipes(stack, 1)
        sent = 0
        while passing.send(out, b"\0", [descriptor]):
            sent += 1
        assert passing.waiting(back) == sent > 100


def test_a_feed_without_its_other_end_is_an_error(ends):
    out, back = ends
    back.close()
    with pytest.raises(BrokenPipeError):
        passing.send(out, b"\0", [out.fileno()])


def test_who_has_too_few_descriptors_sees_how_many_are_missing(ends):
    out, back = ends
    with ExitStack() as stack:
        passing.send(out, bytes(5), pipes(stack, 5))
        with few_descriptors(2):
            origins, descriptors = passing.receive(back)
        for descriptor in descriptors:
            os.close(descriptor)
        assert (len(origins), len(descriptors)) == (5, 2)


def test_too_many_descriptors_under_way_are_a_full_feed():
    """The kernel counts them by user, against the limit of one process (unix(7), ETOOMANYREFS)."""

    class Refusing:
        def sendmsg(self, *_):
            raise OSError(errno.ETOOMANYREFS, "Too many references")

    assert not passing.send(Refusing(), b"\0", [0])


def test_ends_do_not_block():
    for end in passing.feed():
        with end:
            assert end.gettimeout() == 0.0
            assert end.type & ~socket.SOCK_NONBLOCK == socket.SOCK_SEQPACKET
