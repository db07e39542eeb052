"""What an operator does on purpose. None of it may lose a request or a connection."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.chaos.served import LONG
from tests.process.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.chaos.clients import Load
    from tests.chaos.ledger import Ledger, Loss, Operation
    from tests.chaos.served import Chaotic


@dataclass(frozen=True)
class Scene:
    server: Chaotic
    ledger: Ledger
    load: Load
    workers: int
    rng: Random


#: Its name, what is done, and whether it is left out when there is little time: it repeats what others do.
Step: TypeAlias = "tuple[str, Callable[[Scene, Operation], None], bool]"


def warm_up(scene: Scene, row: Operation) -> None:
    """Everybody has been served; nothing is done."""
    answered = scene.ledger.answered.total()
    wait_until(lambda: scene.ledger.answered.total() > answered + 500, "the load runs", timeout=LONG)
    row.say("nothing was done")


def hang_up(scene: Scene, row: Operation) -> None:
    before = scene.server.crew()
    row.say(scene.server.reload())
    assert not before & scene.server.settled(scene.workers)


def hang_up_three_times(scene: Scene, row: Operation) -> None:
    """The second and the third come while the first is under way."""
    server = scene.server
    mark = server.call(signal.SIGHUP)
    for _ in range(2):
        server.expect(r" is ready and takes over", mark)
        server.call(signal.SIGHUP)
    generation = int(server.expect(r"reload to generation (\d+)\n", mark)[1])
    server.expect(rf"reload to generation {generation} finished", mark)
    row.say(server.expect(rf"reload to generation {generation + 1} finished[^\n]*", mark)[0])
    server.settled(scene.workers)


def one_more(scene: Scene, row: Operation) -> None:
    mark = scene.server.call(signal.SIGTTIN)
    found = scene.server.expect(r"worker \d+ \(pid (\d+)\) is ready", mark)
    scene.server.settled(scene.workers + 1)
    # Whoever leaves next has clients of every kind.
    wait_until(lambda: scene.ledger.pids[int(found[1])] > 300, "the new worker is busy", timeout=LONG)
    row.say(found[0])


def one_less(scene: Scene, row: Operation) -> None:
    mark = scene.server.call(signal.SIGTTOU)
    row.say(scene.server.expect(r"worker \d+ has gone", mark)[0])
    scene.server.settled(scene.workers)


def change_configuration(scene: Scene, row: Operation) -> None:
    """A header more on each answer, a worker more, and a limit on the life of workers."""
    server = scene.server
    server.configure(
        http={"header": ["X-Chaos: changed"]},
        process={"workers": scene.workers + 1},
        limit={"max_requests": 300, "max_requests_jitter": 200},
    )
    row.say(server.reload())
    wait_until(lambda: len(server.crew()) > scene.workers, "one worker more", timeout=LONG)
    assert server.get("/echo?token=t").headers.get("x-chaos") == "changed"


def recycle(scene: Scene, row: Operation) -> None:
    """Workers reach their limit, one after another."""
    mark = scene.server.mark()
    wait_until(
        lambda: scene.server.log().count("is ready and takes over", mark) >= scene.workers,
        "workers are recycled",
        timeout=LONG,
    )
    row.say(f"{scene.server.log().count('is ready and takes over', mark)} recycled")


def restore_configuration(scene: Scene, row: Operation) -> None:
    _write_old_configuration(scene)
    row.say(scene.server.reload())
    _see_old_configuration(scene)


def flurry(scene: Scene, row: Operation) -> None:
    """Reloads and sizes in any order, each while the ones before are under way."""
    server, size, sent = scene.server, scene.workers, []
    for _ in range(12):
        number = scene.rng.choice([signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1])
        step = {signal.SIGTTIN: 1, signal.SIGTTOU: -1}.get(number, 0)
        if 2 <= size + step <= scene.workers + 2:
            size += step
            mark = server.call(number)
            sent.append(number.name)
            if number == signal.SIGHUP:
                server.expect("is ready and takes over|another reload follows", mark)
            elif step:
                server.expect(rf"{size} workers from now on", mark)
    while size != scene.workers:
        step = 1 if size < scene.workers else -1
        size += step
        mark = server.call(signal.SIGTTIN if step > 0 else signal.SIGTTOU)
        server.expect(rf"{size} workers from now on", mark)
    server.reload()
    server.settled(scene.workers)
    row.say(" ".join(sent))


def upgrade(scene: Scene, row: Operation) -> None:
    """A new master for good, with what its files say by now: USR2, WINCH and QUIT to the old one."""
    server = scene.server
    _write_old_configuration(scene)
    old, new, mark = *_upgrade(server), server.mark()
    server.call(signal.SIGQUIT, old)
    wait_until(lambda: old not in server.members(), "the old master has gone", timeout=LONG)
    server.expect("the old master has gone", mark)
    server.master = new
    _see_old_configuration(scene)
    row.say(f"{old} -> {new}")


def upgrade_and_back(scene: Scene, row: Operation) -> None:
    """The old master takes its workers back, and the new one is told to end."""
    server = scene.server
    old, new = _upgrade(server)
    mark = server.call(signal.SIGHUP, old)
    server.expect("takes its workers back", mark)
    wait_until(
        lambda: server.log().count(" is ready", mark) >= scene.workers, "the old master's workers serve", timeout=LONG
    )
    server.call(signal.SIGTERM, new)
    wait_until(lambda: new not in server.members(), "the new master has gone", timeout=LONG)
    server.expect("the new master has gone", mark)
    server.settled(scene.workers)
    row.say(f"{old} -> {new} -> {old}")


def upgrade_beside(scene: Scene, row: Operation) -> None:
    """Both serve for a while, both reload, and the old one ends without a WINCH."""
    server = scene.server
    old = server.master
    new = _second_master(server)
    server.master = new
    server.reload()
    server.call(signal.SIGTERM, old)
    wait_until(lambda: old not in server.members(), "the old master has gone", timeout=LONG)
    server.settled(scene.workers)
    row.say(f"{old} -> {new}")


def stop(scene: Scene, row: Operation) -> None:
    """TERM: from then on new clients are refused, and that is all; what was accepted is served to its end."""
    server, began = scene.server, time.monotonic()
    answered = scene.ledger.answered.total()
    wait_until(lambda: scene.ledger.answered.total() > answered + 500, "the load runs", timeout=LONG)

    def excuse(loss: Loss) -> bool:
        return loss.at > began and loss.stage == "connect"

    scene.ledger.excuse(excuse)
    server.call(signal.SIGTERM)
    wait_until(lambda: not server.members(), "the server has stopped", timeout=LONG)
    scene.load.calm()
    assert not list(server.folder.glob("*.sock")), "the unix socket's file is left over"
    row.say(f"{len(server.log().splitlines())} lines of log")


def _write_old_configuration(scene: Scene) -> None:
    scene.server.configure(
        http={"header": []}, process={"workers": scene.workers}, limit={"max_requests": 0, "max_requests_jitter": 0}
    )


def _see_old_configuration(scene: Scene) -> None:
    scene.server.settled(scene.workers)
    assert "x-chaos" not in scene.server.get("/echo?token=t").headers


def _second_master(server: Chaotic) -> int:
    mark = server.call(signal.SIGUSR2)
    return int(server.expect(r"the new master, pid (\d+), serves", mark)[1])


def _upgrade(server: Chaotic) -> tuple[int, int]:
    """Until the old master's workers have drained; the old one and the new."""
    old = server.master
    new = _second_master(server)
    server.call(signal.SIGWINCH, old)
    wait_until(lambda: server.crew(old) == {new}, "the old master's workers have left", timeout=LONG)
    return old, new


#: In this order, and over again as long as there is time.
ROUND: tuple[Step, ...] = (
    ("HUP", hang_up, True),
    ("TTIN", one_more, False),
    ("TTOU", one_less, False),
    ("configuration changed, HUP", change_configuration, False),
    ("recycling by max_requests", recycle, False),
    ("configuration back, HUP", restore_configuration, True),
    ("USR2, WINCH, QUIT", upgrade, False),
    ("USR2, WINCH, HUP back, TERM", upgrade_and_back, False),
    ("three HUPs in a row", hang_up_three_times, True),
    ("twelve signals", flurry, True),
    ("USR2, HUP new, TERM old", upgrade_beside, True),
)
