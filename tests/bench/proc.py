"""What /proc says of a server: which processes it consists of, their CPU time, their memory."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def tree(root):
    """All processes of the session that ``root`` leads, and whatever descends from them: pid -> CPU seconds.

    Both, because a child may start a session of its own, and one whose parent has died keeps its session.
    """
    found = {}
    processes = dict(_processes())
    pending = [pid for pid, (_, session, _) in processes.items() if pid == root or session == root]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found[pid] = processes[pid][2]
            pending += [child for child, (parent, _, _) in processes.items() if parent == pid]
    return found


def pss_kib(pids):
    """Proportional memory in KiB: what is shared counts by its share, so that the sum over a tree is true."""
    return sum(_pss(pid) for pid in pids)


def core_seconds(core):
    """How long ``core`` has been busy for anybody, the hypervisor's other guests included."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
    raise ValueError(f"/proc/stat knows no core {core}")


def _processes():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it has ended since it was listed
            yield int(entry.name), parse_stat(stat)


def parse_stat(stat):
    """Parent, session and CPU seconds: fields 4, 6, 14 and 15 of proc_pid_stat(5). The name may hold anything."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[1]), int(fields[3]), (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _pss(pid):
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
