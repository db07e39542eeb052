"""The fork of a child: what has to happen on both sides of it, and in which order.

It is made with all signals blocked. What arrives meanwhile for the master waits and is seen after the fork; a pending
signal is not inherited (fork(2)). What arrives meanwhile for the child waits in the child until the handlers that
belong to the master have gone, and then has the child's own disposition: TERM and QUIT end it, whatever it is doing,
until the child function installs handlers of its own; INT and HUP are ignored, because a terminal sends them to
everybody and the master decides; USR1 and USR2 are ignored, because their default action is death, TTIN and TTOU,
because theirs is to stop, and people send them to all processes of a name.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_IGNORED: Final = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

CRASHED: Final = 1


def fork(run: Callable[[], int], *, caught: Iterable[int], clear: Callable[[], None]) -> int:
    """The new process's id. It gives up the handlers of ``caught``, calls ``clear``, then ``run``, and exits."""
    flush()  # what is buffered would be written by both
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(run, caught, clear, old_mask)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Whoever reads them may have gone, and they are None or closed in a server started without them.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _be_child(
    run: Callable[[], int], caught: Iterable[int], clear: Callable[[], None], mask: Iterable[int]
) -> NoReturn:
    status = CRASHED
    try:
        signal.set_wakeup_fd(-1)
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = run()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else CRASHED
    except BaseException:  # noqa: BLE001 - nothing may unwind into the master's frames, which this process has too
        traceback.print_exc()
    finally:
        flush()
        os._exit(status)
