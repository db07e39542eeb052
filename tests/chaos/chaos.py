"""The two parts of the chaos test: a server, its load, what is done to it, and what must be so at the end."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos import planned
from tests.chaos.clients import Load, Pace
from tests.chaos.ledger import Ledger
from tests.chaos.planned import Scene
from tests.chaos.served import Chaotic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.ledger import Operation
    from tests.chaos.served import State

MIB = 1024 * 1024

#: What a master's resident memory may grow by: pages that are touched for the first time, and its log's buffers.
GROWTH_LIMIT = 8 * MIB


@dataclass(frozen=True)
class Wish:
    """What a run is to be like."""

    accept: str = "shared"
    workers: int = 3
    seconds: float = 0.0  # 0: each operation that is not left out, once
    seed: int = 0
    only: str = ""  # a part of the names of the operations to be done; empty: all
    pace: Pace = field(default_factory=Pace)


@dataclass
class Report:
    """What came of a part. ``before`` and ``after`` are the server at rest."""

    title: str
    ledger: Ledger = field(default_factory=Ledger)
    log: str = ""
    before: State | None = None
    after: State | None = None
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        problems = self.problems() or ["nothing is lost that must not be, and nothing has leaked"]
        return "\n".join([self.title, self.ledger.table(), *problems, ""])

    def problems(self) -> list[str]:
        """All that is not as it must be."""
        return [*self.failed, *(f"lost: {loss}" for loss in self.ledger.unexcused()), *self._leaks()]

    def _leaks(self) -> list[str]:
        before, after, found = self.before, self.after, []
        if before is None or after is None:
            return []
        if after.processes != before.processes:
            found.append(f"{after.processes} processes, {before.processes} before")
        if after.master - before.master:
            found.append(f"the master holds more than before: {after.master - before.master}")
        most = max(before.workers, key=lambda one: one.total())
        found += [f"a worker holds more than before: {one - most}" for one in after.workers if one - most]
        if after.resident > before.resident + GROWTH_LIMIT:
            found.append(f"the master has grown from {before.resident // 1024} to {after.resident // 1024} KiB")
        return found


def settings(wish: Wish, folder: Path) -> dict[str, dict[str, object]]:
    return {
        "listen": {"bind": ["127.0.0.1:0", f"unix:{folder}/chaos.sock"]},
        "process": {"workers": wish.workers, "accept": wish.accept},
        "log": {"access": False},
    }


def run_planned(wish: Wish) -> Report:
    """Every planned operation, under load."""
    report = Report(f"planned, --accept {wish.accept}, {wish.workers} workers, seed {wish.seed}")
    ledger = report.ledger
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        server = stack.enter_context(Chaotic(folder, settings(wish, folder)))
        address = ("127.0.0.1", server.port)
        load = Load(ledger, address, unix=f"{folder}/chaos.sock", seed=wish.seed, pace=wish.pace)
        stack.enter_context(load)
        scene = Scene(server, ledger, wish.workers)
        try:
            with ledger.operation("warm up") as row:
                planned.warm_up(scene, row)
            with ledger.operation("rest"):
                load.calm()
                report.before = server.state()
                load.resume()
            for name, operate in _rounds(wish):
                with ledger.operation(name) as row:
                    operate(scene, row)
            with ledger.operation("rest"):
                load.calm()
                server.settled(wish.workers)
                report.after = server.state()
        except AssertionError as error:
            report.failed.append(f"{ledger.operations[-1].name}: {error}")
        report.log = server.log()
    return report


def _rounds(wish: Wish) -> Iterator[tuple[str, Callable[[Scene, Operation], None]]]:
    end = time.monotonic() + wish.seconds
    while True:
        for name, operate, is_extra in planned.ROUND:
            if wish.only in name and not (is_extra and not wish.seconds and not wish.only):
                yield name, operate
        if time.monotonic() >= end:
            return
