"""What the control group of this process allows it, versions 1 and 2 (cgroups(7)): CPUs and memory.

Files are read through a function, so that a test can be any machine. A limit of a parent holds for its children, so
the smallest on the way up counts. What cannot be read is no limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

# The text of a file; None if it cannot be read.
Read: TypeAlias = Callable[[str], str | None]

_ROOT: Final = "/sys/fs/cgroup"
# Version 1 writes "no limit" as the largest number of pages; nobody has an exbibyte.
_NO_MEMORY_LIMIT: Final = 1 << 60


def read_text(path: str) -> str | None:
    """A ``Read`` of the real files."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def cpus(read: Read) -> float | None:
    """How many CPUs' worth of time may be used; None: all there are."""
    return min((quota for quota in _quotas(read)), default=None)


def memory(read: Read) -> int | None:
    """How many bytes may be used; None: all there are."""
    texts = [*_values(read, "", "memory.max"), *_values(read, "memory", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min((limit for limit in limits if limit < _NO_MEMORY_LIMIT), default=None)


def workers(affinity: int, quota: float | None) -> int:
    """How many workers keep busy what there is: a loop uses one CPU. A part of a CPU is worth a worker too."""
    return max(1, min(affinity, affinity if quota is None else math.ceil(quota)))


def _quotas(read: Read) -> Iterator[float]:
    for text in _values(read, "", "cpu.max"):  # "max 100000" or "150000 100000"
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)
    periods = _values(read, "cpu", "cpu.cfs_period_us")
    for text, period in zip(_values(read, "cpu", "cpu.cfs_quota_us"), periods, strict=False):  # "-1" is no limit
        if text.isdecimal() and period.isdecimal() and int(period):
            yield int(text) / int(period)


def _values(read: Read, controller: str, name: str) -> Iterator[str]:
    """The file of this name in our group and all above it; no controller is version 2."""
    for line in (read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(",") or (not controller and controllers):
            continue
        mounts = [f"{_ROOT}/{controllers}", f"{_ROOT}/{controller}"] if controller else [_ROOT, f"{_ROOT}/unified"]
        group = PurePosixPath(path if path.startswith("/") else f"/{path}")
        for mount in dict.fromkeys(mounts):
            for place in (group, *group.parents):
                text = read(f"{mount}{'' if str(place) == '/' else place}/{name}")
                if text is not None:
                    yield text.strip()
