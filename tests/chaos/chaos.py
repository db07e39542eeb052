"""The parts of the chaos test: a server, its load, what is done to it, and what must be so at the end."""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos import planned, unplanned
from tests.chaos.clients import Load, Pace
from tests.chaos.ledger import Ledger
from tests.chaos.planned import Scene
from tests.chaos.served import Chaotic
from tests.process.servers import wait_until
from tests.tls import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from tests.chaos.ledger import Operation
    from tests.chaos.planned import Step
    from tests.chaos.served import State

    Settings = dict[str, dict[str, object]]

MIB = 1024 * 1024

#: What a master's resident memory may grow by: pages that are touched for the first time, and its log's buffers.
GROWTH_LIMIT = 8 * MIB

#: Of what was lost: one cause takes many.
MOST_SHOWN = 5


@dataclass(frozen=True)
class Wish:
    """What a run is to be like."""

    accept: str = "shared"
    steal: str = "late"
    workers: int = 3
    seconds: float = 0.0  # 0: each operation that is not left out, once
    seed: int = 0
    loop: str = "auto"
    http: str = "auto"
    only: str = ""  # a part of the names of the operations to be done; empty: all
    tls_processes: int = 0  # of clients that speak TLS, if there are any
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
        lost = self.ledger.lost()
        shown = [f"{self.ledger.during(loss)}: {loss}" for loss in lost[:MOST_SHOWN]]
        return [*self.failed, *([f"{len(lost)} lost that must not be", *shown] if lost else []), *self.leaks()]

    def leaks(self) -> list[str]:
        before, after, found = self.before, self.after, []
        if before is None or after is None:
            return []
        if after.processes != before.processes:
            found.append(f"{after.processes} processes, {before.processes} before")
        if after.master - before.master:
            found.append(f"the master holds more than before: {after.master - before.master}")
        if after.front - before.front:
            found.append(f"those in front hold more than before: {after.front - before.front}")
        most = max(before.workers, key=lambda one: one.total())
        found += [f"a worker holds more than before: {one - most}" for one in after.workers if one - most]
        if after.resident > before.resident + GROWTH_LIMIT:
            found.append(f"the master has grown from {before.resident // 1024} to {after.resident // 1024} KiB")
        return found


def run_planned(wish: Wish) -> Report:
    """Every planned operation."""
    return _run(wish, "planned", lambda: planned.ROUND, {}, unix=True)


def run_unplanned(wish: Wish) -> Report:
    """Every mishap but those of scarcity."""
    changes: Settings = {
        "timeout": {"worker": unplanned.WORKER_LIMIT},
        "limit": {"worker_memory": f"{unplanned.MEMORY_LIMIT_MIB}MiB"},
    }
    steps = unplanned.WITH_A_DISPATCHER if wish.accept == "dispatch" else ()
    if wish.tls_processes:
        steps = unplanned.WITH_TERMINATORS
    return _run(wish, "unplanned", lambda: (*unplanned.round_of_mishaps(), *steps), changes)


def run_tight(wish: Wish) -> Report:
    """Too few descriptors, and a short queue."""
    changes: Settings = {"listen": {"backlog": unplanned.TIGHT_BACKLOG}}
    return _run(wish, "scarcity", lambda: unplanned.TIGHT, changes, descriptors=unplanned.TIGHT_DESCRIPTORS)


PARTS = {"planned": run_planned, "unplanned": run_unplanned, "scarcity": run_tight}


def _run(
    wish: Wish,
    part: str,
    steps: Callable[[], Sequence[Step]],
    changes: Settings,
    *,
    unix: bool = False,
    descriptors: int = 0,
) -> Report:
    steal = f" --steal {wish.steal}" if wish.accept == "reuseport" else ""
    tls_processes = f" --tls-processes {wish.tls_processes}" if wish.tls_processes else ""
    report = Report(f"{part}, --accept {wish.accept}{steal}{tls_processes}, {wish.workers} workers, seed {wish.seed}")
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            path = f"{name}/chaos.sock" if unix else None
            settings = _settings(wish, path)
            for section, values in changes.items():
                settings[section] = {**settings.get(section, {}), **values}
            tls = _encrypt(settings, Path(name), wish.tls_processes) if wish.tls_processes else None
            server = Chaotic(Path(name), settings, descriptors=descriptors)
            server.tls = tls
            with server, Load(report.ledger, server, unix=path, seed=wish.seed, pace=wish.pace, tls=tls) as load:
                try:
                    _do(Scene(server, report.ledger, load, wish.workers, random.Random(wish.seed)), wish, steps, report)
                finally:
                    report.log = server.log()
    except AssertionError as error:
        report.failed.append(f"{report.ledger.operations[-1].name}: {error}")
    return report


def _do(scene: Scene, wish: Wish, steps: Callable[[], Sequence[Step]], report: Report) -> None:
    """One operation after another, between two rests."""
    ledger, server, load = scene.ledger, scene.server, scene.load
    with ledger.operation("warm up") as row:
        planned.warm_up(scene, row)
    with ledger.operation("rest"):
        load.calm()
        report.before = server.state()
        load.resume()
    for name, operate in _rounds(wish, steps):
        with ledger.operation(name) as row:
            operate(scene, row)
    with ledger.operation("rest"):
        load.calm()
        server.settled(wish.workers)

        def is_at_rest() -> bool:
            report.after = server.state()
            return not report.leaks()

        with suppress(AssertionError):  # the report says which
            wait_until(is_at_rest, "nothing is left of connections")
        load.resume()
    with ledger.operation("TERM") as row:
        planned.stop(scene, row)


def _settings(wish: Wish, path: str | None) -> Settings:
    return {
        "listen": {"bind": ["127.0.0.1:0", *([f"unix:{path}"] if path else [])]},
        "process": {"workers": wish.workers, "accept": wish.accept, "steal": wish.steal, "loop": wish.loop},
        "http": {"parser": wish.http},
        "log": {"access": False},
    }


def _encrypt(settings: Settings, folder: Path, processes: int) -> ssl.SSLContext:
    """Let the server speak TLS; what its clients speak."""
    authority = Authority()
    certfile, keyfile = authority.server().write(folder)
    settings["ssl"] = {"certfile": [str(certfile)], "keyfile": [str(keyfile)], "processes": processes}
    return authority.client_context()


def _rounds(
    wish: Wish, steps: Callable[[], Sequence[Step]]
) -> Iterator[tuple[str, Callable[[Scene, Operation], None]]]:
    end = time.monotonic() + wish.seconds
    while True:
        for name, operate, is_extra in steps():
            if wish.only in name and not (is_extra and not wish.seconds and not wish.only):
                yield name, operate
        if time.monotonic() >= end:
            return
