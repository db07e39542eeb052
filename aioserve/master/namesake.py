"""The pid file while there are two masters: it names the new one, and ``FILE.oldbin`` the old one, as with nginx."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import ConfigError
from aioserve.master.events import Exited, HeirStarted, Quit
from aioserve.system.pidfile import PidFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.master.events import Action, Event

log = logging.getLogger("aioserve")


@final
class Namesake:
    """An ``Observer``. The file has named the new master since that started; it names whoever signals are for."""

    def __init__(self, file: PidFile) -> None:
        self._file: Final = file
        self._old: Final = PidFile(f"{file.path}.oldbin")
        self._heir = 0

    @property
    def wake_at(self) -> float | None:
        return None

    def tick(self, now: float) -> None:
        pass

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002 - an observer's signature
        match event:
            case HeirStarted():
                self._heir = event.pid
                _claim(self._old)
            case Exited() if event.pid == self._heir:
                self._heir = 0
                self._old.release()
                _claim(self._file)
            case _:
                pass
        if any(isinstance(action, Quit) for action in actions):
            self._old.release()


def _claim(file: PidFile) -> None:
    problems = []
    try:
        file.claim()
    except ConfigError as error:
        problems = error.problems
    for problem in problems:
        log.error("%s", problem)
