"""Looks at the files of certificates while the master waits for other things, and tells its children of new ones.

The files are copied here and inspected in a child. What was found good goes to all children that show certificates, as
an order with descriptors, and stays here for those that are forked later.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Exited, Spawned, Unlisten
from aioserve.master.inspector import Inspection, in_child
from aioserve.tls.keeper import INTERVAL
from aioserve.tls.sets import Show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioserve.config.tree import Ssl
    from aioserve.master.events import Action, Event, Role
    from aioserve.master.hands import Kin
    from aioserve.tls.keeper import Keeper
    from aioserve.tls.sets import CertificateSet

log = logging.getLogger("aioserve")

#: Between two looks at an inspection, which takes some 20 ms. Seconds.
SOON: Final = 0.01


@final
class Certificates:
    """An ``Observer``. ``join`` it to the kin before the first event.

    ``shows`` says whose children show certificates, by their role: only these have keys.
    """

    def __init__(self, keeper: Keeper, shows: Callable[[Role], bool]) -> None:
        self.shows: Final = shows
        self._keeper: Final = keeper
        self._kin: Mapping[int, Kin] = {}
        self._inspection: Inspection | None = None
        self._told: Final[dict[int, CertificateSet]] = {}  # by process id
        self._wake_at: float | None = None

    @property
    def wake_at(self) -> float | None:
        return self._wake_at

    @property
    def current(self) -> CertificateSet:
        """What is shown; a child that shows nothing closes it."""
        return self._keeper.current

    def join(self, kin: Mapping[int, Kin]) -> None:
        """From now on there may be children."""
        self._kin = kin
        self._wake_at = time.monotonic() + INTERVAL

    def reload(self, ssl: Ssl) -> bool:
        """Settings that were read again: whether there is another set. ``ConfigError``: no, and nothing has changed."""
        if not self._keeper.reload(ssl, in_child):
            return False
        self._give_up()
        self._tell()
        return True

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002 - an observer's signature
        match event:
            case Spawned():
                self._told[event.pid] = self.current  # it has been born with it
            case Exited():
                self._told.pop(event.pid, None)
                if self._inspection is not None and self._inspection.pid == event.pid:
                    self._inspection.reaped()
            case _:
                pass
        if any(isinstance(action, Unlisten) for action in actions):
            self._give_up()
            self._wake_at = None

    def tick(self, now: float) -> None:
        self._wake_at = now + INTERVAL
        if self._inspection is not None:
            report = self._inspection.hear(now)
            if report is None:
                self._wake_at = now + SOON
                return
            copied = self._inspection.material
            self._inspection.end()
            self._inspection = None
            self._keeper.judge(copied, report)
        elif self._keeper.look():
            self._inspect()
        self._keeper.remind()
        self._tell()

    def _inspect(self) -> None:
        copied = self._keeper.copy()
        if copied is None:
            return
        try:
            self._inspection = Inspection(copied)
        except OSError as error:
            log.error("new certificates cannot be inspected: fork: %s", error.strerror)  # noqa: TRY400 - it says all
            copied.close()
            self._keeper.again()
            return
        self._wake_at = time.monotonic() + SOON

    def _give_up(self) -> None:
        if self._inspection is not None:
            self._inspection.end()
            self._inspection.material.close()
            self._inspection = None

    def _tell(self) -> None:
        """Let every child know what it is to show, as far as it does not. A channel that is full has its turn later."""
        behind = [
            (pid, kin)
            for pid, kin in self._kin.items()
            if kin.role is not None and self.shows(kin.role) and self._told.get(pid) is not self.current
        ]
        if not behind:
            return
        facts = self.current.facts()
        order = Show((self.current.material.descriptor, facts))
        for pid, kin in behind:
            if kin.channel.order(order):
                self._told[pid] = self.current
        os.close(facts)
