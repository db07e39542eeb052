"""The accept patterns that are compared, as data: a name, and the flags that choose it.

``{workers}`` in the flags stands for the number of workers; in ``threads`` a worker is a thread with its loop. All
else is said by the servers' rows in tests.bench.servers, so that patterns and peers are as alike as there. Flags that
the installed aioserve refuses make a pattern unavailable, not wrong: ``available`` says which, and why.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from tests.bench.servers import HERE, PEERS, Peer, environment

APP = "tests.bench.patterns.app:app"

#: What aioserve ends with when it refuses its configuration.
REFUSED = 2

#: Where one pattern is the measure of the others.
BASE = "shared"

#: The workers of a visit: as many as cores, or more, where several of them are idle while one has all the work.
FEW, MANY = 2, 4

#: What is measured of a pattern. Rates and losses are with few workers, balance is with many, tails are with both.
PARTS = ("rates", "tails", "balance", "losses")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A row."""

    name: str
    flags: str
    server: str = "aioserve"
    few: int = FEW  # workers, where the others have as many as there are cores
    one_process: bool = False  # its workers are threads
    parts: tuple[str, ...] = PARTS
    share: float = 1.0  # of the replacements under load
    reload_seconds: float = 0.3  # about, to replace all of few workers

    def processes(self, workers):
        """How many processes serve."""
        return 1 if self.one_process else workers

    def peer(self, workers, flags=""):
        """The row of tests.bench.servers that starts it. Later flags override earlier ones in each of these servers."""
        row = PEERS[self.server]
        extra = (flags or self.flags).format(workers=workers).split()

        def options(port):
            return [APP if word == "app:app" else word for word in row.options(port)] + extra

        return Peer(self.name, row.package, row.loop, options)


def _peer(name, server, flags, reload_seconds, share):
    return Pattern(name, flags, server=server, parts=("tails", "losses"), share=share, reload_seconds=reload_seconds)


PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern("single", "--accept single", few=1, parts=("rates", "tails")),
        Pattern("shared", "--accept shared --workers {workers}"),
        Pattern("reuseport", "--accept reuseport --steal off --workers {workers}"),
        Pattern("reuseport --steal late", "--accept reuseport --steal late --workers {workers}"),
        Pattern("reuseport --steal always", "--accept reuseport --steal always --workers {workers}"),
        Pattern("dispatch", "--accept dispatch --workers {workers}"),
        Pattern("threads", "--accept threads --threads {workers}", one_process=True),
        # The peers, for context. They replace their workers in their own time, granian one every 3.5 s.
        _peer("gunicorn --reuse-port", "gunicorn", "--reuse-port --workers {workers}", 1.1, share=0.1),
        _peer("granian --workers", "granian", "--workers {workers}", 7.1, share=0.05),
        _peer("uvicorn --workers", "uvicorn", "--workers {workers}", 1.5, share=0.1),
    )
}


def available(patterns):
    """The patterns that can be started, each with the flags that were accepted; and name -> why for the others."""
    usable, refused = {}, {}
    for pattern in patterns:
        if pattern.server != "aioserve":
            if PEERS[pattern.server].version is None:
                refused[pattern.name] = f"{pattern.server} is not installed"
            else:
                usable[pattern] = pattern.flags
        elif why := refusal(pattern, pattern.flags):
            refused[pattern.name] = why
        else:
            usable[pattern] = pattern.flags
    return usable, refused


def refusal(pattern, flags):
    """Why aioserve refuses these flags, or an empty text. Ending in any other way is an error of its own."""
    command = [sys.executable, *pattern.peer(FEW, flags).options("0"), "--print-config"]
    done = subprocess.run(
        command, cwd=HERE, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip
    if done.returncode not in {0, REFUSED}:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    reasons = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    return "; ".join(reasons or [done.stderr.strip()]) if done.returncode else ""
