"""The kernel's order of a SO_REUSEPORT group, mirrored, and programs that choose within it."""

import random
import socket
import struct

import pytest

from aioserve.accept import steer
from aioserve.accept.steer import Group


def slots_of(group):
    return [sorted(place) for place in group.places]


def test_the_order_is_that_of_joining():
    group = Group()
    group.join([4])
    group.join([2])
    assert slots_of(group) == [[4], [2]]


def test_the_last_takes_the_place_of_one_that_leaves():
    group = Group([[0], [1], [2], [3]])
    group.leave(1)
    assert slots_of(group) == [[0], [3], [2]]


def test_the_last_may_leave():
    group = Group([[0], [1]])
    group.leave(1)
    assert slots_of(group) == [[0]]


def test_one_that_never_listened_leaves_nothing():
    group = Group([[0]])
    group.leave(7)
    assert slots_of(group) == [[0]]


def test_two_that_joined_unseen_may_have_either_place():
    group = Group([[0]])
    group.join([1, 2])
    assert (group.indices(1), group.indices(2), 2 in group) == ([1, 2], [1, 2], True)


def test_an_index_in_doubt_is_not_chosen():
    group = Group([[0]])
    group.join([1, 2])
    assert group.without([2]) == [0]


def test_doubt_ends_when_the_other_leaves():
    group = Group([[0]])
    group.join([1, 2])
    group.leave(1)
    assert slots_of(group) == [[0], [2]]


def test_one_that_moved_into_a_doubtful_hole_may_be_in_each():
    group = Group([[0], [1, 2], [1, 2], [3]])
    group.leave(1)
    assert slots_of(group) == [[0], [2, 3], [2, 3]]


class Kernel:
    """What the kernel does with the members of a group: reuseport_add_sock, reuseport_detach_sock."""

    def __init__(self):
        self.socks = []

    def listen(self, slot):
        self.socks.append(slot)

    def close(self, slot):
        index = self.socks.index(slot)
        self.socks[index] = self.socks[-1]
        self.socks.pop()


@pytest.mark.parametrize("seed", range(200))
def test_the_truth_is_always_among_what_is_thought_possible(seed):
    chance = random.Random(seed)
    kernel, group, unseen = Kernel(), Group(), []
    for slot in range(60):
        kernel.listen(slot)
        unseen.append(slot)
        if chance.random() < 0.7:
            group.join(unseen)
            unseen = []
        if group.places and not unseen and chance.random() < 0.5:
            gone = chance.choice(kernel.socks)
            kernel.close(gone)
            group.leave(gone)
        avoided = chance.sample(range(60), 3)
        if not unseen:
            assert len(group.places) == len(kernel.socks)
        assert all(kernel.socks[index] in place for index, place in enumerate(group.places))
        assert not {kernel.socks[index] for index in group.without(avoided)} & set(avoided)


def interpret(code, random_word):
    """Run a program as bpf(4) describes it; only the instructions that occur."""
    instructions = list(struct.iter_unpack("=HBBI", code))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, operand = instructions[at]
        at += 1
        match operation:
            case 0x20:
                assert operand == 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM
                accumulator = random_word
            case 0x94:
                accumulator %= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(operation)


@pytest.mark.parametrize("indices", [[0], [2], [0, 3], [1, 2, 5], list(range(1, 1024))])
def test_a_program_chooses_each_of_its_indices_alike(indices):
    code = steer.program(indices)
    assert [interpret(code, 7 * len(indices) + number) for number in range(len(indices))] == indices


def test_a_program_for_the_most_workers_is_one_that_the_kernel_takes():
    assert len(steer.program(range(1024))) // 8 <= 4096  # BPF_MAXINSNS


def test_the_kernel_obeys_and_forgets():
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", first.getsockname()[1] if sock is second else 0))
            sock.setblocking(False)
            sock.listen(64)
        steer.attach(first, steer.program([1]))
        clients = [socket.create_connection(first.getsockname()) for _ in range(16)]
        with pytest.raises(BlockingIOError):
            first.accept()
        steer.detach(second)
        # The hash of sixteen ports falls on one side with a probability of 2 ** -48.
        clients += [socket.create_connection(first.getsockname()) for _ in range(48)]
        first.accept()[0].close()
        for client in clients:
            client.close()
