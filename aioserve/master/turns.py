"""The hooks that run in the master while it supervises: an observer that recognises their moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Exited, Prepare, Role, Spawn, Spawned
from aioserve.system.hooks import Moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioserve.master.events import Action, Event
    from aioserve.system.hooks import Hook


@final
class TurningPoints:
    """An ``Observer``."""

    def __init__(self, hooks: Mapping[str, Hook], *, pid: int) -> None:
        self._hooks: Final = hooks
        self._pid: Final = pid
        self._spawning: Final[dict[tuple[int, int], int]] = {}  # slot and seat, and the generation
        self._workers: Final[dict[int, tuple[int, int]]] = {}  # process id, and slot and generation

    @property
    def wake_at(self) -> float | None:
        return None

    def tick(self, now: float) -> None:
        pass

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002 - an observer's signature
        match event:
            case Spawned(role=Role.WORKER):
                self._workers[event.pid] = event.slot, self._spawning.pop((event.slot, event.seat), 0)
            case Exited() if event.pid in self._workers:
                slot, generation = self._workers.pop(event.pid)
                self._run(
                    Moment(
                        hook="on_worker_exit",
                        pid=event.pid,
                        slot=slot,
                        generation=generation,
                        status=event.status,
                        how=event.how,
                    )
                )
        for action in actions:
            match action:
                case Spawn(role=Role.WORKER):
                    self._spawning[action.slot, action.seat] = action.generation
                case Prepare():
                    self._run(Moment(hook="on_reload", pid=self._pid, generation=action.generation))

    def _run(self, moment: Moment) -> None:
        if moment.hook in self._hooks:
            self._hooks[moment.hook].run(moment)
