"""What nobody wants. A process that is killed takes along what was in it, and nothing else is lost; all other mishaps
lose nothing. Soon the server is whole again."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.chaos.served import LONG, links
from tests.process.servers import freeze, wait_until

if TYPE_CHECKING:
    from tests.chaos.ledger import Loss, Operation, Victim
    from tests.chaos.planned import Scene, Step
    from tests.process.clients import Client

#: What a worker of the tight server may hold, and how many connections may wait for it.
TIGHT_DESCRIPTORS = 128
TIGHT_BACKLOG = 16

#: The watchdog's limit, in seconds.
WORKER_LIMIT = 2.0

#: More than a worker has to begin with, less than with what ``grow`` adds.
MEMORY_LIMIT_MIB = 128


class Growing:
    """Memory grows at the beginning of a round; it is looked at every 5 s, and three times have to be too much."""

    def __init__(self) -> None:
        self.pid = 0

    def begin(self, scene: Scene, row: Operation) -> None:
        with scene.server.connect() as client:
            self.pid = _who(client)
            assert client.get(f"/grow?mib={MEMORY_LIMIT_MIB}").text == "grown"
        row.say(f"pid {self.pid} has {MEMORY_LIMIT_MIB} MiB more")

    def end(self, scene: Scene, row: Operation) -> None:
        scene.server.expect(rf"takes over from pid {self.pid}\n", 0)
        scene.server.settled(scene.workers)
        why = re.search(rf"\(pid {self.pid}\) has reached a limit \((.*)\)", scene.server.log())
        assert why is not None
        row.say(why[1])
        self.pid = 0

    def victim(self, scene: Scene) -> int:
        """A busy worker that may go."""

        def busiest() -> int:
            pid = max(scene.server.crew() - {self.pid}, key=lambda pid: len(links(pid)))
            ports = scene.server.ports_of(pid)
            return pid if len(ports) > 3 or scene.server.tls else 0

        return wait_until(busiest, "a worker is busy")

    def kill(self, scene: Scene, row: Operation) -> None:
        victim = scene.server.freeze(self.victim(scene))
        mark = scene.server.call(signal.SIGKILL, victim.pid)
        _lost(scene, row, victim, mark, "killed by SIGKILL")

    def stop(self, scene: Scene, row: Operation) -> None:
        """It is frozen, and nobody but the watchdog does anything about it."""
        mark = scene.server.mark()
        victim = scene.server.freeze(self.victim(scene))
        _lost(scene, row, victim, mark, "killed by SIG.*because it was stuck")

    def block(self, scene: Scene, row: Operation) -> None:
        """A request that stops the loop; the log tells a stranger which line of which file it was."""
        server = scene.server
        with _elsewhere(scene, self.pid) as client:
            pid = _who(client)
            mark = server.mark()
            sign = server.folder / "blocked"
            sign.unlink(missing_ok=True)
            client.request(f"/block?seconds=60&sign={sign}")
            # Long before it is killed: what this process has must be looked up while it has it.
            wait_until(sign.exists, f"{pid} has blocked")
            _lost(scene, row, server.victim(pid), mark, "because it was stuck")
        log = server.log()[mark:]
        told = re.search(r"GET '/block' of .*RUNNING at .*service\.py:(\d+) block\(\)", log)
        assert told is not None, log
        line = (server.folder / "service.py").read_text().splitlines()[int(told[1]) - 1]
        assert "time.sleep" in line
        row.say(told[0])

    def broken_application(self, scene: Scene, row: Operation) -> None:
        before = scene.server.crew()
        scene.server.spoil()
        row.say(scene.server.reload())
        assert "failed" in row.said[0]
        scene.server.mend()
        self._all_stay(scene, before)

    def broken_configuration(self, scene: Scene, row: Operation) -> None:
        before = scene.server.crew()
        scene.server.configure(limit={"no_such_limit": 1})
        row.say(scene.server.reload())
        assert "failed" in row.said[0]
        del scene.server.settings["limit"]["no_such_limit"]
        scene.server.configure()
        self._all_stay(scene, before)

    def _all_stay(self, scene: Scene, before: set[int]) -> None:
        """All but the one that grows: on a slow machine its time comes early."""
        assert scene.server.settled(scene.workers) >= before - {self.pid}


def kill_dispatcher(scene: Scene, row: Operation) -> None:
    """What it has accepted and not passed on yet goes with it, and nothing else."""
    victim = _frozen_dispatcher(scene)
    mark = scene.server.call(signal.SIGKILL, victim.pid)
    _lost(scene, row, victim, mark, "killed by SIGKILL")


def stop_dispatcher(scene: Scene, row: Operation) -> None:
    """Nobody accepts until the watchdog has seen it."""
    mark = scene.server.mark()
    _lost(scene, row, _frozen_dispatcher(scene), mark, "killed by SIG.*because it was stuck")


def kill_terminator(scene: Scene, row: Operation) -> None:
    victim = scene.server.freeze(min(scene.server.terminators()))
    mark = scene.server.call(signal.SIGKILL, victim.pid)
    _lost(scene, row, victim, mark, "killed by SIGKILL")


def stop_terminator(scene: Scene, row: Operation) -> None:
    """The others go on accepting until the watchdog has seen it."""
    mark = scene.server.mark()
    victim = scene.server.freeze(min(scene.server.terminators()))
    _lost(scene, row, victim, mark, "killed by SIG.*because it was stuck")


def _frozen_dispatcher(scene: Scene) -> Victim:
    return scene.server.freeze(wait_until(lambda: min(scene.server.front(), default=0), "there is a dispatcher"))


def broken_upgrade(scene: Scene, row: Operation) -> None:
    """The new master cannot start: the old one has all that it had."""
    server = scene.server
    before = server.crew()
    server.spoil()
    mark = server.call(signal.SIGUSR2)
    row.say(server.expect(r"the upgrade failed[^\n]*", mark)[0])
    server.mend()
    assert server.settled(scene.workers) == before


def killed_heir(scene: Scene, row: Operation) -> None:
    """The new master is killed when the old one's workers have gone already."""
    server = scene.server
    mark = server.call(signal.SIGUSR2)
    new = int(server.expect(r"the new master, pid (\d+), serves", mark)[1])
    server.call(signal.SIGWINCH)
    wait_until(lambda: server.crew() == {new}, "the old master's workers have left", timeout=LONG)
    mark = server.call(signal.SIGKILL, new)
    _whole(scene, row, mark, began=time.monotonic())


def killed_predecessor(scene: Scene, row: Operation) -> None:
    """The old master is killed when both serve: its workers finish what they have."""
    server = scene.server
    mark = server.call(signal.SIGUSR2)
    old, new = server.master, int(server.expect(r"the new master, pid (\d+), serves", mark)[1])
    server.call(signal.SIGKILL, old)
    server.expect("the old master has gone", mark)
    server.master = new
    server.settled(scene.workers)
    row.say(f"{old} -> {new}")


def full_queue(scene: Scene, row: Operation) -> None:
    """More clients than the kernel's queue takes, and nobody accepts for a moment."""
    server = scene.server
    crew = server.crew()
    try:
        for pid in crew:
            freeze(pid)  # what they have is no matter, and looking it up would take long beside many connections
        with scene.load.crowd(4 * TIGHT_BACKLOG):
            most = TIGHT_BACKLOG + 1
            wait_until(lambda: server.waiting() >= most, "the queue is full")  # long before the watchdog comes
            row.say(f"{server.waiting()} connections waited")
    finally:
        for pid in crew:
            with suppress(ProcessLookupError):
                server.signal(signal.SIGCONT, pid)
    _served(scene)


def too_many_connections(scene: Scene, row: Operation) -> None:
    """More connections than there are descriptors: the rest waits in the queue."""
    mark = scene.server.mark()
    # A worker takes as many as half of its descriptors, and nobody goes before one has.
    with scene.load.crowd(scene.workers * TIGHT_DESCRIPTORS // 2 + 2 * TIGHT_BACKLOG):
        row.say(scene.server.expect(r"[^\n]*accepting pauses", mark)[0].partition("WARNING")[2].strip())
    _served(scene)


def no_descriptors(scene: Scene, row: Operation) -> None:
    """An application that takes all descriptors. libuv then drops who waits: only connections without an answer yet."""
    began = time.monotonic()
    with scene.server.connect() as client:
        taken = client.get("/take?seconds=1.0").text
    ended = time.monotonic()

    def excuse(loss: Loss) -> bool:
        return not loss.pid and began <= loss.at <= ended and loss.stage in {"connect", "idle", "head"}

    scene.ledger.excuse(excuse)
    row.say(f"{taken} descriptors taken")
    _served(scene)


def _who(client: Client) -> int:
    return int(client.get("/echo?token=t").headers["x-pid"])


def _elsewhere(scene: Scene, pid: int) -> Client:
    """A connection to another worker than ``pid``."""

    def connect() -> Client | None:
        client = scene.server.connect()
        if _who(client) != pid:
            return client
        client.close()
        return None

    found = wait_until(connect, f"a connection that pid {pid} does not hold")
    assert found is not None
    return found


def _lost(scene: Scene, row: Operation, victim: Victim, mark: int, how: str) -> None:
    """It dies, is explained, and somebody takes its place."""
    scene.ledger.excuse(victim.had)
    row.say(f"{len(victim.ports)} connections in pid {victim.pid}")
    scene.server.expect(rf"\(pid {victim.pid}\)[^\n]* {how}", mark)
    _whole(scene, row, mark, began=victim.at)


def _whole(scene: Scene, row: Operation, mark: int, *, began: float) -> None:
    def whole() -> bool:
        return len(scene.server.crew()) == scene.workers and " is ready" in scene.server.log()[mark:]

    wait_until(whole, "the server is whole again", timeout=LONG)
    row.say(f"whole again after {time.monotonic() - began:.1f} s")
    scene.server.settled(scene.workers)


def _served(scene: Scene) -> None:
    """Until everybody has been served again."""
    answered = scene.ledger.answered.total()
    wait_until(lambda: scene.ledger.answered.total() > answered + 300, "the load runs", timeout=LONG)


def round_of_mishaps() -> tuple[Step, ...]:
    growing = Growing()
    return (
        ("memory grows", growing.begin, False),
        ("KILL a worker", growing.kill, False),
        ("STOP a worker", growing.stop, False),
        ("a coroutine blocks the loop", growing.block, False),
        ("HUP, application broken", growing.broken_application, False),
        ("HUP, configuration broken", growing.broken_configuration, False),
        ("memory over the limit: recycled", growing.end, False),
        ("USR2, application broken", broken_upgrade, False),
        ("USR2, WINCH, KILL the new master", killed_heir, True),
        ("USR2, KILL the old master", killed_predecessor, True),
    )


WITH_A_DISPATCHER: tuple[Step, ...] = (
    ("KILL the dispatcher", kill_dispatcher, False),
    ("STOP the dispatcher", stop_dispatcher, False),
)

#: Where TLS ends in processes of its own.
WITH_TERMINATORS: tuple[Step, ...] = (
    ("KILL a terminator", kill_terminator, False),
    ("STOP a terminator", stop_terminator, False),
)

#: On a server with few descriptors and a short queue.
TIGHT: tuple[Step, ...] = (
    ("the accept queue is full", full_queue, False),
    ("more connections than descriptors", too_many_connections, False),
    ("the application takes descriptors", no_descriptors, False),
)
