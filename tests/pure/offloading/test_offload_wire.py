from __future__ import annotations

import random

import pytest

from aioserve.offloading import wire

SENT = [(wire.CALL, 0, b"first"), (wire.LOG, wire.ARENA, b""), (wire.END, wire.RETIRE, b"x" * 1000)]
STREAM = b"".join(wire.frame(*one) for one in SENT)


def fed(pieces):
    frames = wire.Frames()
    return [frame for piece in pieces for frame in frames.feed(piece)]


def test_frames_come_out_as_they_went_in():
    assert fed([STREAM]) == SENT


def test_frames_that_come_byte_by_byte_are_the_same():
    assert fed([STREAM[at : at + 1] for at in range(len(STREAM))]) == SENT


@pytest.mark.parametrize("seed", range(20))
def test_frames_cut_anywhere_are_the_same(seed):
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(len(STREAM)), 5))
    assert fed([STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]) == SENT


def test_a_reader_that_stops_in_the_middle_goes_on_with_the_next_frame():
    frames = wire.Frames()
    assert next(frames.feed(STREAM)) == SENT[0]
    assert list(frames.feed(b"")) == SENT[1:]


def test_sizes_come_out_as_they_went_in():
    sizes = [0, 1, 1 << 40]
    assert list(wire.unpack_sizes(wire.pack_sizes(sizes))) == sizes


@pytest.mark.parametrize("data", [b"Traceback (most", wire.HEAD.pack(wire.LOG, 0, wire.LONGEST + 1), bytes(6)])
def test_what_is_no_frame_is_noticed(data):
    with pytest.raises(wire.Garbage):
        list(wire.Frames().feed(data))
