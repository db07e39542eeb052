"""From objects to bytes and back: pickle protocol 5, with large parts by reference and never joined.

A small object becomes one piece of bytes (``pack``). Whether it is small shows while it is pickled: after the first
64 KiB ``TooLarge`` ends the attempt, which has then cost the loop a fraction of a millisecond, and the same object is
written into an *arena* by a thread (``write``), and read there by another (``read``).

An arena is memory that two processes share through a descriptor: a memfd, which has no name, needs no /dev/shm (Docker
gives that 64 MiB) and is gone with the last process that has it open, however that ended. It is written and read as a
file, not mapped: what is read is a private copy, so that the arena can be used for the next call while objects made
from the last one live on. Large ``bytes`` go from the object into the arena and from there into the new object, one
copy each way; pickle hands large objects to its file by reference at any depth. Objects that offer their memory
out-of-band (NumPy arrays, ``pickle.PickleBuffer``) do the same.

Layout: the pickle, then each out-of-band buffer; the lengths travel in the frame.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What still counts as small, in bytes: pickling so much takes a loop some 0.1 to 0.5 ms. It is pickle's own frame
#: size, after which it first gives a file anything.
INLINE: Final = 64 * 1024

#: An arena keeps this much memory from one call to the next; what a larger one took is given back.
KEEP: Final = 32 * 1024 * 1024


class TooLarge(Exception):
    """The object does not fit into a small parcel."""


@final
class _Pickler(pickle.Pickler):
    """Pickle's own, and views of memory, which it refuses because it cannot know that a copy will do. Here it must."""

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is memoryview:
            return memoryview, (pickle.PickleBuffer(thing) if thing.contiguous else thing.tobytes(),)
        return NotImplemented


@final
class _Small:
    """A file that takes ``limit`` bytes."""

    __slots__ = ("data", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.data: list[Any] = []
        self.limit = limit
        self.size = 0

    def write(self, data: Any) -> None:
        self.size += len(data)
        if self.size > self.limit:
            raise TooLarge
        self.data.append(data)


def _in_band(buffer: pickle.PickleBuffer) -> bool:
    """Small buffers are copied into the pickle."""
    if _length(buffer) > INLINE:
        raise TooLarge
    return True


def _length(buffer: pickle.PickleBuffer) -> int:
    with memoryview(buffer) as view:
        return view.nbytes


def pack(thing: object, limit: int = INLINE) -> bytes:
    """Pickle something of ``limit`` bytes at most. Raises ``TooLarge``, and what pickle raises for what it cannot."""
    small = _Small(limit)
    _Pickler(small, 5, buffer_callback=_in_band).dump(thing)
    return small.data[0] if len(small.data) == 1 else b"".join(small.data)


def open_arena() -> int:
    """A new arena's descriptor."""
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("aioserve-offload", os.MFD_CLOEXEC)
        except OSError:  # forbidden by a sandbox: an unlinked file does the same
            pass
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


@final
class _Writer:
    """A file that writes to a descriptor at once. Each write lets other threads run."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0

    def write(self, data: Any) -> None:
        view = memoryview(data)
        if view.ndim != 1 or view.itemsize != 1:
            view = view.cast("B")
        while view:
            written = os.write(self._fd, view)
            self.size += written
            view = view[written:]


def write(arena: int, thing: object) -> list[int]:
    """Pickle ``thing`` into the arena; the lengths of its parts. For a thread: it takes as long as it takes."""
    os.lseek(arena, 0, os.SEEK_SET)
    writer = _Writer(arena)
    buffers: list[pickle.PickleBuffer] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        if _length(buffer) <= INLINE:
            return True
        buffers.append(buffer)
        return False

    try:
        _Pickler(writer, 5, buffer_callback=out_of_band).dump(thing)
        sizes = [writer.size]
        for buffer in buffers:
            writer.write(buffer.raw())
            sizes.append(writer.size - sum(sizes))
    except BaseException:
        trim(arena, writer.size)  # nobody will read it
        raise
    return sizes


def read(arena: int, sizes: Sequence[int], unpickler: Callable[..., Any] = pickle.Unpickler) -> Any:
    """What ``write`` has put into the arena. For a thread, too."""
    offset = sizes[0]
    buffers = []
    for size in sizes[1:]:
        buffer = bytearray(size)
        _read_into(arena, buffer, offset)
        buffers.append(buffer)
        offset += size
    os.lseek(arena, 0, os.SEEK_SET)
    with open(arena, "rb", buffering=INLINE, closefd=False) as file:
        thing = unpickler(file, buffers=buffers).load()
    trim(arena, offset)
    return thing


def trim(arena: int, size: int) -> None:
    """Give back the memory that a large parcel took."""
    if size > KEEP:
        os.ftruncate(arena, 0)


def _read_into(arena: int, buffer: bytearray, offset: int) -> None:
    with memoryview(buffer) as whole:
        done = 0
        while done < len(whole):
            # Python's own limit for one read is below what the kernel allows, which is below 2 GiB.
            count = os.preadv(arena, [whole[done:]], offset + done) if _PREADV else _pread(arena, whole, done, offset)
            if not count:
                raise EOFError(f"the arena ends {len(whole) - done} bytes early")
            done += count


#: macOS has it from version 11 on.
_PREADV: Final = hasattr(os, "preadv")


def _pread(arena: int, whole: memoryview, done: int, offset: int) -> int:
    data = os.pread(arena, min(len(whole) - done, 1 << 24), offset + done)
    whole[done : done + len(data)] = data
    return len(data)
