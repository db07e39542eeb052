"""Waiting, and being interrupted: the only place where a run of tune stands still, and where signals are taken.

A handler only records that its signal has come (and wakes the wait through ``signal.set_wakeup_fd``); ``until`` raises
``Interrupted`` at the next look. So an interruption never falls between a fork and the line that notes the child, and
what stops children is not interrupted by the wish to stop them. A second signal says that it must be quick.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, final

if TYPE_CHECKING:
    from collections.abc import Callable

#: What people and service managers send to end a program; HUP is a terminal that has gone.
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds between two looks, which are also those of the progress bar.
LOOK: Final = 0.1


class Interrupted(Exception):
    """Somebody wants this to end."""


@final
class Waits:
    """Use it as a context: handlers are there within it. ``tick`` is called at every look."""

    def __init__(self) -> None:
        self.tick: Callable[[], None] = _nothing
        self._came = 0
        self._before: dict[int, Any] = {}
        self._read = self._write = -1
        self._wakeup = -1

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._stop) for number in STOPPING}
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _nothing)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    @property
    def insisted(self) -> bool:
        """More than one signal to stop has come."""
        return self._came > 1

    def until(self, done: Callable[[], bool], seconds: float, *, stopping: bool = False) -> bool:
        """Wait for that, for so long at most; whether it is so. A child's end wakes it, anything else it looks for.

        Raises ``Interrupted``, unless ``stopping``: then it waits on, and gives up when somebody insists.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self._came and not stopping:
                raise Interrupted
            if done():
                return True
            left = deadline - time.monotonic()
            if left <= 0 or (stopping and self.insisted):
                return False
            self.tick()
            select.select([self._read], [], [], min(left, LOOK))
            with suppress(BlockingIOError):
                os.read(self._read, 4096)

    def leave(self) -> None:
        """In a child, with all signals blocked: be as if there had been no handlers.

        SIGINT is ignored, which exec(3) leaves as it is: to wrk it means to report, which is too early before it can.
        """
        signal.set_wakeup_fd(-1)
        for number in (*STOPPING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(self._read)
        os.close(self._write)

    def _stop(self, _number: int, _frame: object) -> None:
        self._came += 1


def _nothing(*_: object) -> None:
    pass
