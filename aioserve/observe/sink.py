"""Where the access log's lines go: collected by the loop, written by a thread, so that no reader can hold up a request.

The loop's side only appends; every tenth of a second, or when 64 KiB have come together, it hands the batch over to a
daemon thread. The thread writes, and waits when the other end of a pipe does not read. What waits is bounded: beyond
that, lines are dropped, counted, and the count is logged when writing works again. A disk that is full or a pipe whose
reader has gone costs the lines, never the server.

Several workers write to one file or pipe. A batch goes to a file in one write, which the kernel keeps together there
(O_APPEND, or the offset that forked processes share). Into a pipe only PIPE_BUF bytes go in one piece (POSIX, write):
there a batch is cut at ends of lines.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import threading
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import BootError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

log = logging.getLogger("aioserve")

#: A tail -f shows a line within this; at 10,000 requests a second it makes batches of 1,000 lines.
INTERVAL_SECONDS: Final = 0.1
BATCH_BYTES: Final = 64 * 1024
#: What may wait for a reader: some seconds of a busy worker.
WAITING_LIMIT: Final = 4 * 1024 * 1024

#: Readable by all, as web servers leave their logs; the umask takes away from it.
_FILE_MODE: Final = 0o644
#: A FIFO that nobody reads is then an error (ENXIO) and not a server that hangs at start. Files do not care.
_FILE_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


@final
class Sink:
    """``target`` is a descriptor, which stays the caller's, or the path of a file. Lines are ASCII and end in LF.

    All methods belong to the loop's thread. Make it after the last fork: threads do not survive one.
    """

    def __init__(
        self, target: int | str, loop: asyncio.AbstractEventLoop, *, waiting_limit: int = WAITING_LIMIT
    ) -> None:
        self._loop = loop
        self._limit = waiting_limit
        self._lines: list[str] = []
        self._size = 0
        self._handed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._writer = _Writer(target)

    def write(self, line: str) -> None:
        """Take a line; it is out within a moment."""
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None or self._size >= BATCH_BYTES:
            self._attend()

    def reopen(self) -> None:
        """Open the file again by its name; what was written before goes to the old one. A descriptor is left alone."""
        self._hand_over()
        self._writer.order(_REOPEN)

    def flush_and_close(self, timeout: float) -> bool:
        """Write out everything, waiting for at most ``timeout`` seconds; whether that was possible.

        Blocks. Lines that come later are dropped.
        """
        if self._closed:
            return True
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_over()
        return self._writer.finish(timeout)

    def _attend(self) -> None:
        if self._closed:
            self._lines.clear()
            self._size = 0
            return
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL_SECONDS, self._due)
        if self._size >= BATCH_BYTES:
            self._hand_over()

    def _due(self) -> None:
        self._timer = None
        self._hand_over()

    def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        size, self._size = self._size, 0
        if not lines:
            return
        writer = self._writer
        if self._handed - writer.done + size > self._limit:
            writer.overflowed += len(lines)
            return
        self._handed += size
        writer.order(lines)


@final
class _Order:
    """What the thread is asked for that is no batch."""


_REOPEN: Final = _Order()
_FINISH: Final = _Order()


@final
class _Writer:
    """The thread's side. Each counter has one thread that changes it; the other only reads."""

    def __init__(self, target: int | str) -> None:
        self.done = 0  # bytes that no longer wait: written or lost
        self.overflowed = 0  # lines that the loop has dropped because too many waited
        self._lost = 0  # lines that could not be written
        self._lost_said = 0
        self._failing = False
        self._torn = False  # the last thing written was the beginning of a line
        self._path = target if isinstance(target, str) else None
        self._fd = self._open(target) if isinstance(target, str) else target
        self._whole = _is_file(self._fd)
        self._orders: queue.SimpleQueue[list[str] | _Order] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def order(self, order: list[str] | _Order) -> None:
        """Called by the loop."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()
        self._orders.put(order)

    def finish(self, timeout: float) -> bool:
        """Called by the loop: whether all that was ordered has been written."""
        if self._thread is not None:
            self._orders.put(_FINISH)
            self._thread.join(timeout)
            if self._thread.is_alive():
                log.warning("the access log could not be written to its end: its reader does not read")
                return False
        if self._path is not None:
            os.close(self._fd)
        lost = self._lost + self.overflowed
        if lost > self._lost_said:
            log.warning("%d lines of the access log were lost", lost - self._lost_said)
        return not lost

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            if isinstance(order, list):
                self._write_batch(order)
            elif order is _REOPEN:
                self._reopen()
            else:
                return

    def _write_batch(self, lines: list[str]) -> None:
        batch = "".join(lines).encode("ascii", "backslashreplace")
        written = 0
        try:
            if self._torn:
                self._write(b"\n")
                self._torn = False
            for piece in (batch,) if self._whole else pieces(batch, select.PIPE_BUF):
                written += self._write(piece)
        except _Stopped as stopped:
            written += stopped.written
            if written:
                self._torn = batch[written - 1] != 0x0A
            self._lost += len(lines) - batch.count(b"\n", 0, written)
            if not self._failing:
                self._failing = True
                log.error(  # noqa: TRY400
                    "the access log cannot be written (%s): lines are dropped until it can", stopped.reason
                )  # the reason is all there is
        else:
            self._recovered()
        finally:
            self.done += sum(map(len, lines))

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
        elif not self._orders.empty():
            # One batch has gone through a pipe that is still being caught up with.
            return
        lost = self._lost + self.overflowed
        if lost > self._lost_said:
            log.warning("the access log can be written again: %d lines were lost", lost - self._lost_said)
            self._lost_said = lost

    def _write(self, piece: bytes) -> int:
        """Write all of ``piece``, waiting as long as it takes; ``_Stopped`` if that is not possible."""
        written = 0
        while written < len(piece):
            try:
                written += os.write(self._fd, piece[written:] if written else piece)
            except BlockingIOError:
                # Somebody has made a descriptor that we share non-blocking.
                waiting = select.poll()
                waiting.register(self._fd, select.POLLOUT)
                waiting.poll()
            except OSError as error:
                raise _Stopped(written, error.strerror or str(error)) from None
        return written

    def _reopen(self) -> None:
        if self._path is None:
            return
        try:
            fd = self._open(self._path)
        except BootError as error:
            log.error("%s; it is written where it was", error)  # noqa: TRY400  # the reason is all there is
            return
        os.close(self._fd)
        self._fd = fd
        self._whole = _is_file(fd)
        self._torn = False

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, _FILE_FLAGS, _FILE_MODE)
        except OSError as error:
            raise BootError(f"the access log {path} cannot be opened: {error.strerror}") from None


class _Stopped(Exception):  # says how far a write has come
    def __init__(self, written: int, reason: str) -> None:
        super().__init__(reason)
        self.written = written
        self.reason = reason


def pieces(batch: bytes, limit: int) -> Iterator[bytes]:
    """``batch`` in pieces of whole lines, each at most ``limit`` bytes unless a single line is longer."""
    start = 0
    while len(batch) - start > limit:
        end = batch.rfind(b"\n", start, start + limit) + 1
        if end <= start:
            end = batch.find(b"\n", start) + 1 or len(batch)
        yield batch[start:end]
        start = end
    if start < len(batch):
        yield batch[start:]


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        # Closed before the server was started; the first write will say so.
        return False
