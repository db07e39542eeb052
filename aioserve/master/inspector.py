"""Inspects certificates in a child, so that no key is ever in the memory of the master, which every worker inherits.

The child lives for some milliseconds: it loads the copies, writes what it has found into a pipe, and exits. It has ten
seconds or so, then the master ends it. If the master dies, so does the child, which has copies of its sockets: at once
on Linux, elsewhere by an alarm.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from aioserve.master import forks
from aioserve.system.process import end_with_parent, hide
from aioserve.tls.findings import Finding, Report, Weight
from aioserve.tls.inspection import inspect

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.tls.material import Material

#: One certificate takes some 20 ms; most of the limit is for a machine that is busy. Seconds, and so many for each.
LIMIT: Final = 10.0
EACH: Final = 0.05

_READ: Final = 1 << 16
#: What a master may have handlers for, which are not the child's.
_CAUGHT: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR2, signal.SIGWINCH)


@final
class Inspection:
    """One child. Its descriptor is readable when there is something to ``hear``; ``end`` it in any case."""

    def __init__(
        self, copied: Material, *, limit: float = LIMIT, look: Callable[[Material, float], Report] = inspect
    ) -> None:
        self.material: Final = copied
        self._limit: Final = limit + EACH * len(copied.pairs)
        self._look: Final = look
        self._said = bytearray()
        self._parent: Final = os.getpid()
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self.due: Final = time.monotonic() + self._limit
        try:
            self.pid = forks.fork(lambda: self._be_child(write), caught=_CAUGHT, clear=lambda: os.close(self._read))
        except OSError:
            os.close(self._read)
            raise
        finally:
            os.close(write)

    def fileno(self) -> int:
        return self._read

    def hear(self, now: float) -> Report | None:
        """What it has found, or why there is nothing; None: not yet. ``now`` is on the monotonic clock."""
        with suppress(BlockingIOError):
            while piece := os.read(self._read, _READ):
                self._said += piece
            return self._whole()
        if now < self.due:
            return None
        return self._failure(f"could not be inspected within {self._limit:g} s")

    def reaped(self) -> None:
        """Somebody has waited for it; its number may be another process's now."""
        self.pid = 0

    def end(self) -> None:
        """Let nothing of it be left."""
        os.close(self._read)
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def _whole(self) -> Report:
        try:
            return Report.spelt(bytes(self._said))
        except ValueError:
            return self._failure("could not be inspected: the process that was to do so has died")

    def _failure(self, text: str) -> Report:
        return Report(findings=(Finding(Weight.REFUSED, self.material.pairs[0].certificate.path, text),))

    def _be_child(self, write: int) -> int:
        hide()
        end_with_parent(self._parent, signal.SIGKILL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * self._limit)
        said = memoryview(self._look(self.material, time.time()).spell())
        while said:
            said = said[os.write(write, said) :]
        return 0


def in_child(copied: Material) -> Report:
    """Inspect and wait for it: at the start, and when settings are read again."""
    try:
        inspection = Inspection(copied)
    except OSError as error:
        path = copied.pairs[0].certificate.path
        return Report(findings=(Finding(Weight.REFUSED, path, f"cannot be inspected: fork: {error.strerror}"),))
    try:
        while (report := inspection.hear(time.monotonic())) is None:
            select.select([inspection], [], [], max(0.0, inspection.due - time.monotonic()))
        return report
    finally:
        inspection.end()
