"""What a process asks of the kernel for itself: more descriptors, the death of its parent, how large it is."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

#: More descriptors than this no server needs; a hard limit of a thousand million, as some container runtimes set it,
#: makes programs that close all their descriptors one by one spin for minutes.
MOST_DESCRIPTORS: Final = 1 << 20

# <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15


def raise_descriptor_limit() -> tuple[int, int]:
    """Raise the soft limit to the hard one; the limit before and the one now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft, soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS has a lower limit of its own (kern.maxfilesperproc)
        return soft, soft
    return soft, wanted


def name_process(name: str) -> None:
    """Let ``ps -o comm`` and ``top`` call this process by a name of its own, fifteen bytes at most. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def end_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Have TERM, or ``number``, sent to this process when ``parent`` dies, be it by KILL; now if that has happened.

    A worker that serves drains then, as it does when it sees the end of its channel; one that is still in its import,
    where it sees nothing, ends at once. Call it after a change of user, which clears the wish (prctl(2)). Elsewhere
    than on Linux there is no such thing, and the channel has to do.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def hide(hidden: bool = True) -> None:
    """Keep what this process has from others of its user: they may not trace it, nor open what it has open.

    That is what protects keys from the application's processes where all have one user (proc(5), /proc/pid/fd;
    ptrace(2)); no core is dumped either. Children inherit it, and those that are to be seen say ``hide(False)``. Linux
    only; elsewhere nobody opens another process's descriptors by a path.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(not hidden), 0, 0, 0)


def resident_bytes() -> int:
    """What this process has in memory; proc(5), /proc/pid/statm, counts pages."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
