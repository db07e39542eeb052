"""The server that things are done to: its files, its masters, its processes, and what they hold.

It reads its settings from a file, which ``configure`` writes anew, and its application from a copy, which can be broken
and mended. After USR2 another master is the one to talk to: ``master`` is always the one that has come last.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.chaos.ledger import Victim
from tests.process.servers import PATIENCE, Served, children_of, freeze, memory, wait_until, workers_of

if TYPE_CHECKING:
    import ssl

    from tests.process.clients import Client

APPLICATION = Path(__file__).with_name("app.py")

#: Whatever takes longer than this on a busy machine is broken, in seconds.
LONG = 3 * PATIENCE


@dataclass(frozen=True)
class State:
    """What a server at rest holds."""

    processes: int
    master: Counter[str]
    workers: list[Counter[str]]
    front: Counter[str]
    resident: int


class Chaotic(Served):
    """``folder`` is its own; ``settings`` are those of its file, ``{"section": {"key": value}}``."""

    def __init__(self, folder: Path, settings: dict[str, dict[str, Any]], *, descriptors: int = 0) -> None:
        self.folder = folder
        self.settings = settings
        self._descriptors = descriptors
        self.mend()
        self.configure()
        super().__init__("service:app", "-c", str(folder / "aioserve.toml"), "--port", "0", cwd=folder)
        listen = settings.get("listen", {})
        if "bind" in listen:
            self.arguments = [one for one in self.arguments if one not in {"--port", "0"}]
        self.master = 0
        self.tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self.master = self.pid
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.master != self.pid and self.master in self.members():
            self.signal(signal.SIGTERM, self.master)
            with suppress(AssertionError):
                wait_until(lambda: not self.members(), "the last master has gone", timeout=LONG)
        super().__exit__(kind, *rest)

    def command(self) -> list[str]:
        if not self._descriptors:
            return super().command()
        # The server raises its limit to the hard one.
        limit = f"--nofile={self._descriptors}:{self._descriptors}"
        return ["prlimit", limit, sys.executable, "-m", "aioserve", *self.arguments]

    # Its files.

    def configure(self, **sections: dict[str, object]) -> None:
        """Write the file, with these settings changed from now on."""
        for section, values in sections.items():
            self.settings[section] = {**self.settings.get(section, {}), **values}
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
        (self.folder / "aioserve.toml").write_text("\n".join(lines))

    def mend(self) -> None:
        shutil.copyfile(APPLICATION, self.folder / "service.py")

    def spoil(self) -> None:
        (self.folder / "service.py").write_text("async def app(scope, receive, send:\n    pass\n")

    # Its processes.

    def crew(self, master: int = 0) -> set[int]:
        """The workers of a master, and its heir."""
        return workers_of(master or self.master)

    def front(self) -> set[int]:
        """The dispatcher, in the mode that has one, and terminators; more of them while they are replaced."""
        return children_of(self.master) - self.crew()

    def connect(self, **options: Any) -> Client:
        return super().connect(**{"tls": self.tls, **options})

    def settled(self, count: int) -> set[int]:
        """The workers, once there are ``count`` and nobody else but the master and those in front of them."""
        others = (
            1 + (self.settings["process"]["accept"] == "dispatch") + self.settings.get("ssl", {}).get("processes", 0)
        )
        return wait_until(
            lambda: crew if len(crew := self.crew()) == count and len(self.members()) == others + count else set(),
            f"{count} workers and nobody else",
            timeout=LONG,
        )

    def call(self, number: int, pid: int = 0) -> int:
        """Send a signal to the master, or to ``pid``; the place in the log before that."""
        mark = self.mark()
        self.signal(number, pid or self.master)
        return mark

    def expect(self, pattern: str, since: int) -> re.Match[str]:
        """The first match in the log after ``since``."""
        wanted = re.compile(pattern)
        found = wait_until(lambda: wanted.search(self.log(), since), f"{pattern!r} in the log", timeout=LONG)
        assert found is not None
        return found

    def reload(self) -> str:
        """HUP, until it is over: the line that says so."""
        mark = self.call(signal.SIGHUP)
        generation = self.expect(r"reload to generation (\d+)\n", mark)[1]
        return self.expect(rf"reload to generation {generation} (finished|failed)[^\n]*", mark)[0]

    # What they hold.

    def state(self) -> State:
        crew = sorted(self.crew())
        return State(
            processes=len(self.members()),
            master=descriptors(self.master),
            workers=[descriptors(pid) for pid in crew],
            front=sum((descriptors(pid, once=True) for pid in self.front()), Counter()),
            resident=memory(self.master, "VmRSS"),
        )

    def freeze(self, pid: int) -> Victim:
        """Stop a process: it accepts no more, so what it has now is what would be lost with it."""
        freeze(pid)
        return self.victim(pid)

    def victim(self, pid: int) -> Victim:
        """A process that accepts no more."""
        behind = self.tls is not None and pid in self.crew()
        return Victim(pid, frozenset(self.ports_of(pid)), time.monotonic(), behind)

    def waiting(self) -> int:
        """How many connections wait to be accepted: the receive queue of a listener."""
        return sum(int(line[4].rpartition(":")[2], 16) for line in self._sockets() if line[3] == "0A")

    def ports_of(self, pid: int) -> set[int]:
        """The clients' ports of the TCP connections that ``pid`` has accepted."""
        inodes = {link[8:-1] for link in links(pid) if link.startswith("socket:[")}
        return {int(line[2].rpartition(":")[2], 16) for line in self._sockets() if line[9] in inodes} - {0}

    def _sockets(self) -> list[list[str]]:
        """The TCP sockets on our port, as proc(5), /proc/net/tcp, has them: after many tests a long list of others."""
        port = f":{self.port:04X} "
        lines = Path("/proc/net/tcp").read_text().splitlines()
        return [line.split() for line in lines if port in line[:28]]


def links(pid: int) -> list[str]:
    """What the descriptors of a process are."""
    found = []
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return found


def descriptors(pid: int, *, once: bool = False) -> Counter[str]:
    """The same by kind, without the numbers that differ from process to process.

    libuv keeps one in reserve for EMFILE: /dev/null at first, and / once it has been needed. ``once``: duplicates do
    not count. uvloop listens on one, and a terminator that leaves connections to the others has none meanwhile.
    """
    found = set(links(pid)) if once else links(pid)
    return Counter(re.sub(r"\[\d+\]", "", link) for link in found if link not in {"/", "/dev/null"})
