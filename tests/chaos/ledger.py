"""What was sent, what came back, and what was done meanwhile; and the table that says so.

A *loss* is a request without its whole and right answer, a connection that could not be had, or one that the server has
closed without having said so. Times are those of ``time.monotonic``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Loss:
    kind: str  # of the client
    stage: str  # connect, idle, head, body, close: what the client was waiting for
    error: str
    began: float  # the request, or the attempt to connect
    at: float
    opened: float  # the connection; 0: it never was
    port: int  # of the client, which tells whose connection it was; 0: a unix socket, or none
    pid: int  # who had answered on this connection, in this answer or an earlier one; 0: nobody
    quiet: float  # how long the connection may have been idle when the request was sent, as the server sees it
    race: bool  # it met the close of a connection that had been quiet for as long as the server waits

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid else "nobody known"
        return (
            f"{self.kind}: {self.stage}: {self.error} ({who}, port {self.port}, after {self.at - self.began:.2f} s, "
            f"quiet for {self.quiet:.2f} s, connection {self.began - self.opened if self.opened else 0:.2f} s old)"
        )


@dataclass
class Operation:
    """One row of the table."""

    name: str
    began: float
    ended: float = 0.0
    said: list[str] = field(default_factory=list)
    answered: int = 0
    connections: int = 0
    slowest: float = 0.0

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass(frozen=True)
class Victim:
    """A process that was killed with all that was in it: its connections, by the clients' ports, at that time."""

    pid: int
    ports: frozenset[int]
    at: float
    behind: bool = False  # terminators: the ports are theirs, so it may have had whoever had no answer yet

    def had(self, loss: Loss) -> bool:
        here = loss.port in self.ports or (self.behind and not loss.pid)
        return loss.pid == self.pid or (here and loss.opened <= self.at <= loss.at)


class Ledger:
    """Written by the clients' thread, read by the one that does things to the server."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.answered: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.told: Counter[str] = Counter()  # connections that ended with "Connection: close"
        self.closed_idle = 0  # connections that were closed after a long quiet, which is the server's right
        self.losses: list[Loss] = []
        self.operations: list[Operation] = []
        self.pids: Counter[int] = Counter()
        self._excuses: list[Callable[[Loss], bool]] = []
        self._slowest = 0.0
        self._lock = threading.Lock()

    # The clients.

    def answer(self, kind: str, pid: int, seconds: float) -> None:
        with self._lock:
            self.answered[kind] += 1
            self.pids[pid] += 1
            self._slowest = max(self._slowest, seconds)

    def lose(self, loss: Loss) -> None:
        with self._lock:
            self.losses.append(loss)

    # The operations.

    @contextmanager
    def operation(self, name: str) -> Iterator[Operation]:
        """Losses from here on belong to ``name``, until the next operation begins."""
        row = Operation(name, time.monotonic())
        self.operations.append(row)
        with self._lock:
            self._slowest = 0.0
        answered, connections = self.answered.total(), self.connections.total()
        try:
            yield row
        finally:
            row.ended = time.monotonic()
            row.answered = self.answered.total() - answered
            row.connections = self.connections.total() - connections
            row.slowest = self._slowest

    def excuse(self, excuse: Callable[[Loss], bool]) -> None:
        """Losses of which this is true were to be expected."""
        self._excuses.append(excuse)

    def lost(self) -> list[Loss]:
        """What must not have been."""
        return [loss for loss in self.losses if self._verdict(loss) == "lost"]

    def during(self, loss: Loss) -> str:
        """The operation that a loss belongs to."""
        return next((row.name for row in reversed(self.operations) if row.began <= loss.at), "at first")

    def _verdict(self, loss: Loss) -> str:
        if any(excuse(loss) for excuse in self._excuses):
            return "excused"
        return "race" if loss.race else "lost"

    def table(self) -> str:
        heading = ("operation", "at s", "took s", "answers", "conns", "slowest", "lost", "excused", "races")
        lines = [_line(*heading, "what came of it")]
        ends = [row.began for row in self.operations[1:]] + [float("inf")]
        lines += [self._row(row, end) for row, end in zip(self.operations, ends, strict=True)]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.answered.items()))
        verdicts = Counter(map(self._verdict, self.losses))
        lines.append(
            f"in all: {self.answered.total()} answers ({kinds}) on {self.connections.total()} connections from "
            f"{len(self.pids)} processes; {verdicts['lost']} lost, {verdicts['excused']} excused, {verdicts['race']} "
            f"races; {self.closed_idle} connections closed while idle, {self.told.total()} told to close"
        )
        shown = [(self._verdict(loss), loss) for loss in self.losses]
        lines += [
            f"  {verdict} {loss.at - self.started:7.2f}  {loss}" for verdict, loss in shown if verdict != "excused"
        ]
        return "\n".join(lines)

    def _row(self, row: Operation, end: float) -> str:
        verdicts = Counter(self._verdict(loss) for loss in self.losses if row.began <= loss.at < end)
        return _line(
            row.name,
            f"{row.began - self.started:.1f}",
            f"{row.ended - row.began:.1f}",
            row.answered,
            row.connections,
            f"{row.slowest:.2f}",
            verdicts["lost"],
            verdicts["excused"],
            verdicts["race"],
            "; ".join(row.said),
        )


def _line(name: str, *columns: object) -> str:
    *figures, said = map(str, columns)
    return " ".join([f"{name:34}", *(f"{figure:>7}" for figure in figures), "", said])
