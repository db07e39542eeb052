import json
import os
import select
import socket
import struct

import pytest

from aioserve.accept.orders import Gone, Lend, Watch
from aioserve.accept.sockets import adopt_lent
from aioserve.master.channel import (
    DETAIL_LIMIT,
    ChildChannel,
    FailedMessage,
    MasterChannel,
    PassedOnMessage,
    ReadyMessage,
    RecycleMessage,
    ReloadMessage,
    pair,
)
from aioserve.tls.sets import Show


@pytest.fixture
def ends():
    master, child = pair()
    yield master, child
    master.close()
    child.close()


def frame(kind, body=b""):
    return struct.pack("!BI", kind, len(body)) + body


def test_nothing_said_is_nothing_heard(ends):
    master, _ = ends
    assert master.receive() == ([], True)


def test_ready_is_heard(ends):
    master, child = ends
    child.ready()
    assert master.receive() == ([ReadyMessage()], True)


def test_a_failure_comes_with_its_traceback(ends):
    master, child = ends
    child.failed("no module named shop", "Traceback\n  line é")
    assert master.receive()[0] == [FailedMessage("no module named shop", "Traceback\n  line é")]


def test_text_that_is_not_unicode_arrives_too(ends):
    master, child = ends
    child.failed("no \udcff", "")
    child.reload("\udcff.py changed")
    assert master.receive()[0] == [FailedMessage("no \udcff", ""), ReloadMessage("?.py changed")]


def test_a_reason_to_reload_is_heard(ends):
    master, child = ends
    child.reload("shop.py changed")
    assert master.receive()[0] == [ReloadMessage("shop.py changed")]


def test_a_wish_to_be_replaced_is_heard(ends):
    master, child = ends
    child.recycle("10000 requests")
    assert master.receive()[0] == [RecycleMessage("10000 requests")]


def test_that_nothing_new_is_passed_on_is_heard(ends):
    master, child = ends
    child.passed_on()
    assert master.receive()[0] == [PassedOnMessage()]


def test_messages_keep_their_order(ends):
    master, child = ends
    child.ready()
    child.reload("a")
    assert master.receive()[0] == [ReadyMessage(), ReloadMessage("a")]


def test_the_last_words_are_heard_after_the_child_has_gone(ends):
    master, child = ends
    child.failed("no", "")
    child.close()
    assert master.receive() == ([FailedMessage("no", "")], False)


def test_of_a_long_traceback_the_end_arrives(ends):
    master, child = ends
    child.failed("no", "x" * DETAIL_LIMIT + "the reason")
    [message], _ = master.receive()
    assert (len(message.detail), message.detail[-10:]) == (DETAIL_LIMIT, "the reason")


def test_a_child_reads_end_of_file_when_the_master_has_gone(ends):
    master, child = ends
    assert select.select([child], [], [], 0)[0] == []
    master.close()
    assert select.select([child], [], [], 0)[0] == [child]


def test_a_child_without_a_master_speaks_to_nobody(ends):
    master, child = ends
    master.close()
    child.ready()


def test_a_child_that_dies_with_something_unread_is_a_closed_channel(ends):
    one, other = socket.socketpair()
    master = MasterChannel(one)
    one.send(b"unread")
    other.close()  # resets the connection (unix(7))
    assert master.receive() == ([], False)
    master.close()


@pytest.mark.parametrize("size", [1, 4, 7])
def test_messages_are_put_together_from_pieces(size):
    one, other = socket.socketpair()
    master, heard = MasterChannel(one), []
    stream = frame(2, json.dumps(["no", "Traceback"]).encode()) + frame(1)
    for start in range(0, len(stream), size):
        other.send(stream[start : start + size])
        heard += master.receive()[0]
    assert heard == [FailedMessage("no", "Traceback"), ReadyMessage()]
    master.close()
    other.close()


def test_a_message_of_another_version_is_skipped():
    one, other = socket.socketpair()
    master = MasterChannel(one)
    other.send(frame(99, b"what?") + frame(1))
    assert master.receive()[0] == [ReadyMessage()]
    master.close()
    other.close()


def test_the_childs_end_keeps_its_time_limit():
    one, other = socket.socketpair()
    channel = ChildChannel(one)
    assert one.gettimeout() is not None
    channel.close()
    other.close()


def listener(speaks="http"):
    sock = socket.create_server(("127.0.0.1", 0))
    return adopt_lent(sock.detach(), speaks)


def test_no_order_is_no_order(ends):
    _, child = ends
    assert child.hear() == ([], True)


@pytest.mark.parametrize("order", [Watch(frozenset()), Watch(frozenset({1, 63})), Gone(4)])
def test_an_order_is_heard(ends, order):
    master, child = ends
    assert master.order(order)
    assert child.hear() == ([order], True)


def test_sockets_that_are_lent_arrive_as_copies_that_no_program_inherits(ends):
    master, child = ends
    lent = [listener(), listener("https"), listener("redirect")]
    master.order(Watch(frozenset({7})))
    master.order(Lend(7, tuple(lent)))
    master.order(Gone(7))
    orders = []
    while len(orders) < 3:
        more, _ = child.hear()
        orders += more
    watch, arrived, gone = orders
    assert (watch, arrived.slot, gone) == (Watch(frozenset({7})), 7, Gone(7))
    for one, copy in zip(lent, arrived.listeners, strict=True):
        assert copy.sock.fileno() != one.sock.fileno()
        assert (copy.address, copy.sock.getsockname()) == (one.address, one.sock.getsockname())
        assert (copy.scheme, copy.redirect) == (one.scheme, one.redirect)
        assert not copy.sock.get_inheritable()
        copy.sock.close()
        one.sock.close()


def test_a_child_that_waits_for_orders_can_still_speak_patiently(ends):
    _, child = ends
    child.hear()
    assert child._sock.gettimeout() == 5.0


@pytest.mark.parametrize("unread", [False, True])
def test_the_end_of_the_master_is_heard(ends, unread):
    master, child = ends
    if unread:
        child.ready()
    master.close()
    assert child.hear() == ([], False)


def test_a_child_that_reads_nothing_cannot_be_told_for_ever(ends):
    master, child = ends
    told = 0
    while master.order(Watch(frozenset({told}))):
        told += 1
    assert told > 64
    heard = []
    while orders := child.hear()[0]:
        heard += orders
    assert heard == [Watch(frozenset({number})) for number in range(told)]


def test_a_child_that_has_gone_cannot_be_told(ends):
    master, child = ends
    child.close()
    assert not master.order(Gone(1))


def test_an_order_to_show_certificates_brings_their_descriptors(ends):
    master, child = ends
    read, write = os.pipe()
    assert master.order(Show((read, write)))
    (order,), _ = child.hear()
    os.write(order.descriptors[1], b"through")
    assert os.read(order.descriptors[0], 100) == b"through"
    assert not any(map(os.get_inheritable, order.descriptors))
    for descriptor in (read, write, *order.descriptors):
        os.close(descriptor)
