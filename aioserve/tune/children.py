"""The processes that a run of tune starts, servers and clients: forked, watched, and surely ended.

Every child leads a session of its own: the terminal's Ctrl-C reaches tune alone, which ends its children in its own
order, and the whole group can be killed. A child ends with tune even if tune is killed (Linux).
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, final

from aioserve.system.process import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.tune.waits import Waits

#: The exit status of a child that raised something.
CRASHED: Final = 1


@final
class Child:
    """A process that runs ``run`` and exits with what it returns. End it with ``stop``, also when it has exited."""

    def __init__(self, run: Callable[[], int], waits: Waits, *, out: int, err: int) -> None:
        self._waits: Final = waits
        #: The exit status; None as long as it runs. Below zero: the signal that has killed it.
        self.status: int | None = None
        #: CPU seconds of it and of all children that it has waited for; known once it has ended.
        self.cpu = 0.0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or both processes would write what is buffered
        parent = os.getpid()
        # What arrives between the fork and the child's own dispositions waits until those are there.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid: Final = os.fork()
            if self.pid == 0:
                _be_child(run, waits, mask, parent, out, err)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def ended(self) -> bool:
        """Whether it has exited; then it is reaped, and what is left of its group is killed."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.cpu = usage.ru_utime + usage.ru_stime
                self._kill_group()
        return self.status is not None

    def signal(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def stop(self, number: int, patience: float) -> None:
        """Send the signal, wait for its end, and KILL whatever is still there."""
        self.signal(number)
        if not self._waits.until(self.ended, patience, stopping=True):
            self._kill_group()
            while not self.ended():
                self._waits.until(self.ended, patience, stopping=True)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)


def _be_child(run: Callable[[], int], waits: Waits, mask: set[int], parent: int, out: int, err: int) -> NoReturn:
    status = CRASHED
    try:
        os.setsid()
        waits.leave()
        end_with_parent(parent)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = run()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else CRASHED
    except BaseException:  # noqa: BLE001 - nothing may unwind into tune's frames, which this process has too
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
