"""Thousands of slow clients, and a healthy one beside them: ``python -m tests.load.slow``.

The real server is attacked by slowhttptest in each of its modes, while a client that does nothing wrong sends 50
requests a second. The table says what that one has seen, and what the attack has cost the workers. "none" is the same
without an attack: how quiet the machine is. Arguments behind ``--`` are the server's.

The exit status is 1 if the healthy client has seen an error, 2 if slowhttptest is not installed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.load.attack import MODES, PROGRAM, Attack
from tests.load.healthy import Healthy, Seen
from tests.process.servers import Served, memory, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1024 * 1024

#: How long the server may take to notice that the attackers have gone, in seconds.
PATIENCE = 30.0

COLUMNS = (
    "mode", "rounds", "opened", "closed", "failed", "peak", "requests", "errors", "p50 ms", "p99 ms", "max ms",
    "RSS before", "peak", "after", "fds before", "peak", "after",
)  # fmt: skip


@dataclass
class Cost:
    """Of all workers together. Memory in bytes."""

    rss: int
    descriptors: int

    @classmethod
    def of(cls, workers: set[int]) -> Cost:
        return cls(sum(memory(pid, "VmRSS") for pid in workers), sum(map(descriptors, workers)))


@dataclass
class Outcome:
    mode: str
    attack: Attack | None
    seen: Seen
    before: Cost
    peak: Cost
    after: Cost

    def row(self) -> tuple[str, ...]:
        attack, seen = self.attack, self.seen
        counts = (attack.rounds, attack.opened, attack.closed, attack.failed, attack.peak) if attack else ("-",) * 5
        times = [seen.percentile(percent) * 1000 for percent in (50, 99, 100)]
        costs = (self.before, self.peak, self.after)
        return (
            self.mode,
            *map(str, counts),
            str(len(seen.times)),
            str(len(seen.errors)),
            *(f"{value:.2f}" for value in times),
            *(f"{cost.rss / MIB:.1f}" for cost in costs),
            *(str(cost.descriptors) for cost in costs),
        )


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def raise_descriptor_limit() -> None:
    """Let this process and its children have as many open files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def attack(server: Served, mode: str, *, connections: int, seconds: float, rate: int = 1000) -> Outcome:
    """Run one attack and wait until all of its connections are gone; "none" is a quiet time of the same length."""
    workers = server.workers() or {server.pid}
    address = ("127.0.0.1", server.port)
    server.get("/")
    before = Cost.of(workers)
    peak = Cost(before.rss, before.descriptors)
    attackers = None if mode == "none" else Attack(mode, server.url, connections, seconds, rate)
    with Healthy(address) as seen, ThreadPoolExecutor(1) as pool:
        over = threading.Event()
        running = pool.submit(attackers.run if attackers else lambda: time.sleep(seconds))
        running.add_done_callback(lambda _: over.set())
        while not over.wait(0.25):
            now = Cost.of(workers)
            peak.rss = max(peak.rss, now.rss)
            peak.descriptors = max(peak.descriptors, now.descriptors)
        running.result()
    wait_until(
        lambda: sum(map(descriptors, workers)) <= before.descriptors,
        "all of the attackers' connections are closed",
        timeout=PATIENCE,
    )
    return Outcome(mode, attackers, seen, before, peak, Cost.of(workers))


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [COLUMNS, *(outcome.row() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    arguments, server_arguments = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.load.slow", description=__doc__.partition("\n")[0])
    parser.add_argument("--mode", action="append", choices=["none", *MODES], help="repeatable; default: all")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=1000, help="new connections per second")
    options = parser.parse_args(arguments)
    if PROGRAM is None:
        print("slowhttptest is not installed; it is a Debian package of that name", file=sys.stderr)
        return 2
    raise_descriptor_limit()
    outcomes = []
    with Served("plain:app", *server_arguments) as server:
        for mode in options.mode or ["none", *MODES]:
            outcomes.append(
                attack(server, mode, connections=options.connections, seconds=options.seconds, rate=options.rate)
            )
            print(table(outcomes[-1:]), flush=True)
    print(f"\n{table(outcomes)}\nRSS in MiB, of all workers together")
    errors = [f"{outcome.mode}: {error}" for outcome in outcomes for error in outcome.seen.errors]
    print("\n".join(errors[:20]))
    return 1 if errors else 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main())
