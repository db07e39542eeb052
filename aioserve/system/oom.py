"""Whether the kernel has killed for want of memory: it counts, per control group, and tells nobody whom.

A process that died by a SIGKILL that was not ours, while the counter went up, was its victim in all likelihood.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, final

_COUNT: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@final
class OomCounter:
    """``grown()`` says whether there were kills since the last call."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files: Final = counters(root)
        self._seen = self._read()

    def grown(self) -> bool:
        before, self._seen = self._seen, self._read()
        return self._seen > before

    def _read(self) -> int:
        for file in self._files:
            try:
                found = _COUNT.search(file.read_text())
            except OSError:
                continue
            if found is not None:
                return int(found[1])
        return 0


def counters(root: Path) -> list[Path]:
    """Where our own control group may have its counter, the machine's last; cgroups(7), proc(5)."""
    files = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    groups = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inner = path.lstrip("/")
        if controllers == "":  # version 2
            places, name = [groups / inner, groups / "unified" / inner, groups], "memory.events"
        elif "memory" in controllers.split(","):
            places, name = [groups / "memory" / inner, groups / "memory"], "memory.oom_control"
        else:
            continue
        # A container sees its own group as the root of the file system, whatever the path says.
        files += [place / name for place in places]
    return [*files, root / "proc/vmstat"]
