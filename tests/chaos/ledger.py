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
    from collections.abc import Iterator


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
    late: float  # how long the client's own process was held up lately

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
    losses: list[Loss] = field(default_factory=list)
    #: Losses that were to be expected: what was in the process that was killed.
    excused: list[Loss] = field(default_factory=list)
    #: Requests that met the close of a connection which had been quiet for as long as the server waits.
    races: list[Loss] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)


class Ledger:
    """Written by the clients' thread, read by the one that does things to the server."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.answered: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.told: Counter[str] = Counter()  # connections that ended with "Connection: close"
        self.closed_idle = 0  # connections that were closed after a long quiet, which is the server's right
        self.losses: list[Loss] = []
        self.races: list[Loss] = []
        self.operations: list[Operation] = []
        self.pids: Counter[int] = Counter()
        self._slowest = 0.0
        self._lock = threading.Lock()

    # The clients.

    def answer(self, kind: str, pid: int, seconds: float) -> None:
        with self._lock:
            self.answered[kind] += 1
            self.pids[pid] += 1
            self._slowest = max(self._slowest, seconds)

    def lose(self, loss: Loss, *, race: bool) -> None:
        with self._lock:
            (self.races if race else self.losses).append(loss)

    # The operations.

    @contextmanager
    def operation(self, name: str) -> Iterator[Operation]:
        """Losses from here on belong to ``name``, until the next operation begins."""
        row = Operation(name, time.monotonic())
        self.operations.append(row)
        with self._lock:
            self._slowest = 0.0
        answered, connections = self.answered.total(), self.connections.total()
        losses, races = len(self.losses), len(self.races)
        try:
            yield row
        finally:
            row.ended = time.monotonic()
            row.answered = self.answered.total() - answered
            row.connections = self.connections.total() - connections
            row.losses = self.losses[losses:]
            row.races = self.races[races:]
            row.slowest = self._slowest

    def unexcused(self) -> list[Loss]:
        """All losses that no operation has an excuse for, those between two operations too."""
        excused = {id(loss) for row in self.operations for loss in row.excused}
        return [loss for loss in self.losses if id(loss) not in excused]

    def table(self) -> str:
        heading = ("operation", "at s", "took s", "answers", "conns", "slowest", "lost", "excused", "races")
        lines = [_line(*heading, "what came of it"), *map(self._row, self.operations)]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.answered.items()))
        lost = len(self.unexcused())
        lines.append(
            f"in all: {self.answered.total()} answers ({kinds}) on {self.connections.total()} connections from "
            f"{len(self.pids)} processes; {lost} lost, {len(self.losses) - lost} excused, {len(self.races)} "
            f"met an idle close; {self.closed_idle} connections closed while idle, {self.told.total()} told to close"
        )
        for name, losses in (("LOST", self.unexcused()), ("race", self.races)):
            lines += [f"  {name} {loss.at - self.started:7.2f}  {loss}" for loss in losses]
        return "\n".join(lines)

    def _row(self, row: Operation) -> str:
        return _line(
            row.name,
            f"{row.began - self.started:.1f}",
            f"{row.ended - row.began:.1f}",
            row.answered,
            row.connections,
            f"{row.slowest:.2f}",
            len(row.losses) - len(row.excused),
            len(row.excused),
            len(row.races),
            "; ".join(row.said),
        )


def _line(name: str, *columns: object) -> str:
    *figures, said = map(str, columns)
    return " ".join([f"{name:34}", *(f"{figure:>7}" for figure in figures), "", said])
