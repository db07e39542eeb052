"""What /proc says of a server: its processes, their CPU time, their memory. Elsewhere than on Linux it says nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Whether the columns that come from here can be filled at all.
AVAILABLE: Final = sys.platform == "linux"

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PSS: Final = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)
_PRIVATE: Final = re.compile(rb"^Private_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)


def of_session(leader: int, root: Path = Path("/proc")) -> dict[int, float]:
    """The processes of a session and whatever descends from them: pid to CPU seconds so far."""
    all_of_them = dict(_processes(root))
    found: dict[int, float] = {}
    pending = [pid for pid, (_, session, _) in all_of_them.items() if session == leader]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found[pid] = all_of_them[pid][2]
            pending += [child for child, (parent, _, _) in all_of_them.items() if parent == pid]
    return found


def memory(pids: Iterable[int], own: int, root: Path = Path("/proc")) -> int:
    """Bytes of these processes together, pages that they share counted once.

    They were forked from ``own``, which still has a share of the pages that they have not written: it is theirs, too,
    because a server that is started by itself would have it alone.
    """
    mine = _rollup(own, root)
    shared = _sum(_PSS, mine) - _sum(_PRIVATE, mine)
    return 1024 * (max(shared, 0) + sum(_sum(_PSS, _rollup(pid, root)) for pid in pids))


def machine(root: Path = Path("/proc")) -> tuple[float, float] | None:
    """CPU seconds since the machine has started, over all its CPUs: those that somebody has used, and all there were.

    Used is also what the host of a virtual machine has taken away; interrupts are nobody's, and most of them our own:
    what the kernel does for the connections of the load.
    """
    try:
        fields = (root / "stat").read_text(encoding="ascii").split(maxsplit=9)
    except OSError:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[1:9])
    busy = user + nice + system + steal
    return busy / _TICKS, (busy + irq + softirq + idle + iowait) / _TICKS


def others(began: tuple[float, float] | None, ended: tuple[float, float] | None, ours: float) -> float | None:
    """The part of the machine that others have used between two looks, of which ``ours`` seconds were not theirs."""
    if began is None or ended is None or ended[1] <= began[1]:
        return None
    return max(ended[0] - began[0] - ours, 0.0) / (ended[1] - began[1])


def _processes(root: Path) -> Iterator[tuple[int, tuple[int, int, float]]]:
    for entry in root.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has ended since it was listed
            # proc_pid_stat(5): fields 4, 6, 14 and 15, counted after the name, which may hold anything.
            fields = stat.rpartition(")")[2].split()
            yield int(entry.name), (int(fields[1]), int(fields[3]), (int(fields[11]) + int(fields[12])) / _TICKS)


def _rollup(pid: int, root: Path) -> bytes:
    try:
        return (root / str(pid) / "smaps_rollup").read_bytes()
    except OSError:
        return b""  # it has ended, or belongs to another user (--user)


def _sum(field: re.Pattern[bytes], rollup: bytes) -> int:
    return sum(map(int, field.findall(rollup)))
