from __future__ import annotations

import os
import pickle

import pytest

from aioserve.offloading import parcel


@pytest.fixture
def arena():
    fd = parcel.open_arena()
    yield fd
    os.close(fd)


class Picture:
    """An object that offers its memory out-of-band, as an array does."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __reduce_ex__(self, protocol):
        return Picture, (pickle.PickleBuffer(self.pixels),)


class Unwilling:
    def __reduce__(self):
        raise TypeError("no")


LARGE = parcel.INLINE + 1


def test_a_small_object_is_one_piece():
    assert pickle.loads(parcel.pack({"a": [1, 2.5, b"x", None]})) == {"a": [1, 2.5, b"x", None]}


@pytest.mark.parametrize(
    "thing",
    [
        bytes(LARGE),
        bytearray(LARGE),
        "x" * LARGE,
        [{"a": [bytes(LARGE)]}],
        list(range(LARGE)),
        Picture(bytes(LARGE)),
    ],
    ids=["bytes", "bytearray", "str", "nested", "list", "out of band"],
)
def test_what_is_large_is_noticed(thing):
    with pytest.raises(parcel.TooLarge):
        parcel.pack(thing)


def test_noticing_costs_no_more_than_a_frame():
    """An object of a hundred million parts would take seconds."""
    seen = []

    class Part:
        def __reduce__(self):
            seen.append(self)
            return str, (f"{len(seen)}" + "x" * 1000,)

    with pytest.raises(parcel.TooLarge):
        parcel.pack([Part() for _ in range(10_000)])
    assert len(seen) < 300


@pytest.mark.parametrize("size", [1, parcel.INLINE - 200])
def test_a_buffer_that_is_small_goes_in_the_pickle(size):
    assert bytes(pickle.loads(parcel.pack(Picture(bytes(size)))).pixels) == bytes(size)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_come_out_of_the_arena_as_they_went_in(arena, kind):
    thing = [kind(os.urandom(3 * LARGE)), {"small": 1}, kind(os.urandom(LARGE))]
    assert parcel.read(arena, parcel.write(arena, thing)) == thing


def test_out_of_band_buffers_come_back_writable_and_apart(arena):
    pictures = [Picture(bytearray(os.urandom(LARGE))) for _ in range(3)]
    sizes = parcel.write(arena, pictures)
    assert sizes[1:] == [LARGE] * 3
    back = parcel.read(arena, sizes)
    assert [bytes(one.pixels) for one in back] == [bytes(one.pixels) for one in pictures]
    back[0].pixels[0] ^= 1


def test_what_was_read_stays_when_the_arena_is_used_again(arena):
    first = parcel.read(arena, parcel.write(arena, Picture(bytearray(b"a" * LARGE))))
    parcel.read(arena, parcel.write(arena, Picture(bytearray(b"b" * LARGE))))
    assert bytes(first.pixels) == b"a" * LARGE


def test_views_of_memory_go_too(arena):
    view = memoryview(bytearray(range(256)) * 1000)
    assert bytes(parcel.read(arena, parcel.write(arena, view))) == bytes(view)
    assert bytes(pickle.loads(parcel.pack(view[:1000:3]))) == bytes(view[:1000:3])


def test_an_array_of_numbers_is_written_whole(arena):
    numbers = memoryview(bytearray(8 * LARGE)).cast("d")
    sizes = parcel.write(arena, pickle.PickleBuffer(numbers))
    assert sizes[1] == 8 * LARGE


def test_a_shorter_parcel_after_a_longer_one_is_read_to_its_own_end(arena):
    parcel.read(arena, parcel.write(arena, b"x" * (4 * LARGE)))
    assert parcel.read(arena, parcel.write(arena, [1, 2])) == [1, 2]


def test_the_memory_of_a_very_large_parcel_is_given_back(arena):
    parcel.read(arena, parcel.write(arena, bytes(parcel.KEEP)))
    assert os.fstat(arena).st_size == 0


def test_an_arena_that_ends_early_is_an_error(arena):
    sizes = parcel.write(arena, Picture(bytearray(LARGE)))
    os.ftruncate(arena, sizes[0] + 10)
    with pytest.raises(EOFError, match="bytes early"):
        parcel.read(arena, sizes)


def test_an_arena_has_no_name():
    fd = parcel.open_arena()
    try:
        assert os.fstat(fd).st_nlink == 0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_what_was_written_in_vain_takes_no_memory(arena):
    with pytest.raises(TypeError):
        parcel.write(arena, [bytes(parcel.KEEP + 1), Unwilling()])
    assert os.fstat(arena).st_size == 0
