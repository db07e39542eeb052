"""Files in responses: what http.response.pathsend and http.response.zerocopysend ask for (ASGI, Extensions).

The kernel moves the bytes from the file to the socket (sendfile(2)), once everything that the transport has buffered
is out: uvloop writes at the end of a turn of the loop, and a file that is sent before that would overtake its own head.
Where that cannot be done (a file that cannot be mapped, a transport that encrypts) the file is read and written; and
where it fails, so that whoever is to blame says so: reading the disk, or the transport that the client has gone.

A file is read where the loop runs, as nginx does it by default: a cold disk keeps the other connections waiting for
the time of one piece.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aioserve.errors import AppError, ClientDisconnected
from aioserve.http.writer import DONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioserve.types import Message
    from aioserve.worker.connection import Connection
    from aioserve.worker.cycle import Cycle

#: What is sent in one go before others have their turn, in bytes; a socket takes a few hundred KiB at a time.
PIECE: Final = 512 * 1024

#: A file up to this many bytes is read and leaves with its head in one write: less work than the kernel's way.
SMALL: Final = 32 * 1024


class Part(NamedTuple):
    """``size`` bytes of a file from ``offset``, and whether more of the body comes after them."""

    descriptor: int
    offset: int
    size: int
    more: bool


@contextmanager
def part_of_path(message: Message) -> Iterator[Part]:
    """The whole file that a pathsend names, open. Raises ``AppError``, or ``OSError`` if it cannot be opened."""
    path = message.get("path")
    if not isinstance(path, (str, os.PathLike)) or not Path(path).is_absolute():
        raise AppError(f"http.response.pathsend has the path {path!r}, which is no absolute path")
    # A pipe without a writer would keep the whole loop waiting (fifo(7)).
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise AppError(f"http.response.pathsend has the path {os.fspath(path)!r}, which is no regular file")
        yield Part(descriptor, 0, found.st_size, more=False)
    finally:
        os.close(descriptor)


@contextmanager
def part_of_file(message: Message) -> Iterator[Part]:
    """What a zerocopysend asks for; without an offset the file's position says where, and moves.

    Raises ``AppError``.
    """
    file, offset, count = message.get("file"), message.get("offset"), message.get("count")
    try:
        descriptor = file if isinstance(file, int) else file.fileno()  # type: ignore[union-attr]  # whatever it is
        found = os.fstat(descriptor)
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise AppError(f"http.response.zerocopysend has the file {file!r}, which is no open file: {error}") from error
    for name, number in (("offset", offset), ("count", count)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise AppError(f"http.response.zerocopysend has the {name} {number!r}, which is no number of bytes")
    if not stat.S_ISREG(found.st_mode):
        raise AppError(
            f"http.response.zerocopysend has the file {file!r}, which is no regular file; send what it gives"
        )
    begin = _position(file, descriptor) if offset is None else offset
    there = max(found.st_size - begin, 0)
    if count is not None and count > there:
        raise AppError(f"http.response.zerocopysend asks for {count} bytes where the file has {there}")
    wanted = there if count is None else count
    yield Part(descriptor, begin, wanted, bool(message.get("more_body", False)))
    if offset is None:
        _move(file, descriptor, begin + wanted)


def _position(file: Any, descriptor: int) -> int:
    # A buffered file has read ahead: only it knows where its reader is.
    position: int = file.tell() if hasattr(file, "tell") else os.lseek(descriptor, 0, os.SEEK_CUR)
    return position


def _move(file: Any, descriptor: int, position: int) -> None:
    if hasattr(file, "seek"):
        file.seek(position)
    else:
        os.lseek(descriptor, position, os.SEEK_SET)


async def send_part(cycle: Cycle, connection: Connection, part: Part) -> None:
    """Put ``part`` on the wire as a piece of the body. Raises what ``Cycle.send`` raises."""
    if part.size <= SMALL:
        body = os.pread(part.descriptor, part.size, part.offset)
        _refuse_shrunk(part, len(body))
        await cycle.send({"type": "http.response.body", "body": body, "more_body": part.more})
        return
    writer = cycle.writer
    connection.write(writer.begin_file(part.size, more=part.more))
    if not cycle.first_byte:
        cycle.first_byte = perf_counter()
    if not writer.bodiless:
        sendable = await _flushed(connection)
        if cycle.gone:
            raise ClientDisconnected("the client has closed the connection")
        offset = await _by_kernel(cycle, connection, part) if sendable else part.offset
        if offset < part.offset + part.size:
            await _by_hand(cycle, connection, part, offset)
        connection.write(writer.end_file(more=part.more))
    if writer.stage is DONE:
        connection.response_complete(cycle)


async def _by_kernel(cycle: Cycle, connection: Connection, part: Part) -> int:
    """Send as far as the kernel can; the offset of what is left."""
    offset, end = part.offset, part.offset + part.size
    with _socket_copy(connection) as out:
        while offset < end:
            try:
                sent = os.sendfile(out, part.descriptor, offset, min(end - offset, PIECE))
            except BlockingIOError:
                await _writable(connection, out)
            except OSError:
                return offset
            else:
                _refuse_shrunk(part, sent or offset - part.offset, at_end=sent == 0)
                offset += sent
                cycle.writer.sent += sent
                await asyncio.sleep(0)
            if cycle.gone:
                raise ClientDisconnected("the client has closed the connection")
    return offset


async def _by_hand(cycle: Cycle, connection: Connection, part: Part, offset: int) -> None:
    end = part.offset + part.size
    while offset < end:
        data = os.pread(part.descriptor, min(end - offset, PIECE), offset)
        _refuse_shrunk(part, offset - part.offset, at_end=not data)
        offset += len(data)
        cycle.writer.sent += len(data)
        connection.write(data)
        await _flushed(connection)
        await asyncio.sleep(0)
        if cycle.gone:
            raise ClientDisconnected("the client has closed the connection")


async def _flushed(connection: Connection) -> bool:
    """Wait until the transport holds nothing back; whether the socket then takes bytes from the kernel."""
    transport = connection.transport
    if transport is None:
        return False
    transport.set_write_buffer_limits(high=0)
    try:
        while connection.write_resumed is not None:
            await connection.write_resumed.wait()
    finally:
        if connection.transport is not None:
            transport.set_write_buffer_limits()
    ask = transport.get_extra_info
    return ask("socket") is not None and (ask("sslcontext") is None or ask("kernel_tls", default=False))


@contextmanager
def _socket_copy(connection: Connection) -> Iterator[int]:
    """A descriptor of our own for the same socket: the loop lets nobody else wait for the transport's."""
    if connection.transport is None:
        raise ClientDisconnected("the client has closed the connection")
    copy = os.dup(connection.transport.get_extra_info("socket").fileno())
    try:
        yield copy
    finally:
        os.close(copy)


async def _writable(connection: Connection, copy: int) -> None:
    """Wait until the socket behind ``copy`` takes bytes, the connection is lost, or write_timeout resets it."""
    loop = connection.server.loop
    connection.pause_writing()
    resumed = connection.write_resumed
    if connection.transport is None or resumed is None:
        return
    loop.add_writer(copy, connection.resume_writing)
    try:
        await resumed.wait()
    finally:
        loop.remove_writer(copy)


def _refuse_shrunk(part: Part, sent: int, *, at_end: bool | None = None) -> None:
    """A length that was said cannot be kept by a file that has become shorter."""
    if sent < part.size if at_end is None else at_end:
        raise AppError(f"the file ended after {sent} of {part.size} bytes: it has become shorter while it was sent")
