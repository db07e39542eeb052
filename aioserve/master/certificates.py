"""Looks at the files of certificates while the master waits for other things, and tells its children of new ones.

The files are copied here and inspected in a child. A set that was found good goes to all children that show
certificates, as an order with descriptors, and is kept for those that are forked later.

So is the front, which has the keys of session tickets. There is a new one in two cases:

- Other authorities, or another ``cert_reqs``: with an old ticket a client would get in that is not let in any more.
- A reload a day or more after the last new one: a key that is stolen then does not open what was said long ago.
  Tickets are good for two hours, and clients that come back with an old one make a full handshake.

While a reload with other settings is under way, workers of before keep the last set of their own settings. If the
reload fails, these settings are looked after again.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.master.events import Exited, Mark, Milestone, Prepared, Spawned, Unlisten
from aioserve.master.inspector import Inspection, in_child
from aioserve.observe.scoreboard import GENERATION
from aioserve.tls import tickets
from aioserve.tls.credentials import make_front
from aioserve.tls.findings import DAY
from aioserve.tls.keeper import INTERVAL
from aioserve.tls.sets import Show

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from aioserve.config.tree import Ssl
    from aioserve.master.events import Action, Event, Role
    from aioserve.master.hands import Kin
    from aioserve.tls.findings import Report
    from aioserve.tls.keeper import Keeper
    from aioserve.tls.material import Material
    from aioserve.tls.sets import CertificateSet
    from aioserve.tls.take import Inspect

log = logging.getLogger("aioserve")

#: Between two looks at an inspection, which takes some 20 ms. Seconds.
SOON: Final = 0.01

#: Settings of before that are kept for a generation which serves on.
_MOST: Final = 4


class Inspecting(Protocol):
    """An inspection that was begun, and is looked at now and then."""

    pid: int

    @property
    def material(self) -> Material: ...
    def hear(self, now: float) -> Report | None: ...
    def reaped(self) -> None: ...
    def end(self) -> None: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What a child is born with that shows certificates. ``made`` is when the front was, on the monotonic clock."""

    chosen: CertificateSet
    front: ssl.SSLContext
    made: float


@final
class Certificates:
    """An ``Observer``. ``join`` it to the kin before the first event.

    ``shows`` says whose children show certificates, by their role: only these have keys.
    """

    def __init__(
        self,
        keeper: Keeper,
        shows: Callable[[Role], bool],
        *,
        begin: Callable[[Material], Inspecting] = Inspection,
        inspect: Inspect = in_child,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shows: Final = shows
        self._keeper: Final = keeper
        self._kin: Mapping[int, Kin] = {}
        self._begin: Final = begin
        self._clock: Final = clock
        self._inspect_now: Final = inspect
        self._inspection: Inspecting | None = None
        self._told: Final[dict[int, CertificateSet]] = {}  # by process id
        self._short = False
        self._wake_at: float | None = None
        self._stocks: Final = {keeper.ssl: _stock(keeper.current, clock())}
        # The first generation with the settings of the keeper; None: it is being prepared.
        self._first: int | None = 1
        # During a reload with other settings: those of before, and their first generation.
        self._before: tuple[Ssl, int | None] | None = None

    @property
    def wake_at(self) -> float | None:
        return self._wake_at

    def stock(self, ssl: Ssl) -> Stock:
        """What a child with these settings begins with. The child calls ``close`` afterwards, whatever it needs."""
        return self._stocks.get(ssl) or self._stocks[self._keeper.ssl]

    def join(self, kin: Mapping[int, Kin]) -> None:
        """From now on there may be children."""
        self._kin = kin
        self._wake_at = self._clock() + INTERVAL

    def close(self) -> None:
        """In a child: give up the copies of keys, once it has loaded what it needs."""
        for stock in self._stocks.values():
            stock.chosen.close()
        if self._inspection is not None:
            self._inspection.material.close()

    def forget(self) -> None:
        """In a child that shows nothing: overwrite the keys of session tickets, which it was born with."""
        for stock in self._stocks.values():
            tickets.forget(stock.front)

    def reload(self, ssl: Ssl) -> None:
        """Look at the files with settings that were read again. Raises ``ConfigError``, and nothing has changed."""
        before = self._keeper.ssl
        old = self._stocks[before]
        if self._keeper.reload(ssl, self._inspect_now):
            self._give_up()
        chosen = self._keeper.current
        stays = (
            ssl.cert_reqs == before.cert_reqs
            and chosen.report.authorities == old.chosen.report.authorities
            and self._clock() - old.made < DAY
        )
        new = replace(old, chosen=chosen) if stays else _stock(chosen, self._clock())
        # Taken out and put in again: the order is that in which they were wanted.
        former = self._stocks.pop(ssl, None)
        self._stocks[ssl] = new
        if former is not None and former.chosen is not chosen:
            former.chosen.close()
        if ssl == before:
            self._tell()
            return
        self._before, self._first = (before, self._first), None
        while len(self._stocks) > _MOST:
            self._stocks.pop(next(iter(self._stocks))).chosen.close()

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002 - an observer's signature
        match event:
            case Spawned():
                self._told[event.pid] = self._keeper.current  # it has been born with it
            case Prepared() if self._first is None:
                self._first = event.generation
            case Exited():
                self._told.pop(event.pid, None)
                if self._inspection is not None and self._inspection.pid == event.pid:
                    self._inspection.reaped()
            case _:
                pass
        for action in actions:
            match action:
                case Unlisten():
                    self._give_up()
                    self._wake_at = None
                case Mark(milestone=Milestone.SERVING):
                    self._reloaded(failed=action.failed)
                case _:
                    pass

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
            self._judge(copied, report)
        elif self._keeper.look():
            self._inspect()
        self._keeper.remind()
        self._tell()

    def _reloaded(self, *, failed: bool) -> None:
        """A reload is over. If it has failed, workers of before serve on, and their files are to be looked at."""
        if failed and self._before is not None:
            ssl, self._first = self._before
            self._give_up()
            self._keeper.look_after(ssl, self._stocks[ssl].chosen)
        self._before = None

    def _inspect(self) -> None:
        copied = self._keeper.copy()
        if copied is None:
            return
        try:
            self._inspection = self._begin(copied)
        except OSError as error:
            if not self._short:  # once, and then it is tried until there is room
                log.error("new certificates cannot be inspected yet: fork: %s", error.strerror)  # noqa: TRY400 - that is all
            self._short = True
            copied.close()
            self._keeper.again()
            return
        self._short = False
        self._wake_at = self._clock() + SOON

    def _judge(self, copied: Material, report: Report) -> None:
        chosen = self._keeper.judge(copied, report)
        if chosen is None:
            return
        old = self._stocks[self._keeper.ssl]
        stays = chosen.report.authorities == old.chosen.report.authorities
        self._stocks[self._keeper.ssl] = replace(old, chosen=chosen) if stays else _stock(chosen, self._clock())
        old.chosen.close()

    def _give_up(self) -> None:
        if self._inspection is not None:
            self._inspection.end()
            self._inspection.material.close()
            self._inspection = None

    def _tell(self) -> None:
        """Let every child know what it is to show, as far as it does not. A channel that is full has its turn later."""
        chosen, first = self._keeper.current, self._first
        behind = [
            (pid, kin)
            for pid, kin in self._kin.items()
            if kin.role is not None and kin.row is not None and self.shows(kin.role)
            if first is not None and kin.row.cells[GENERATION] >= first
            if self._told.get(pid) is not chosen
        ]
        if not behind:
            return
        try:
            facts = chosen.facts()
        except OSError:  # descriptors are short; the next look tries again
            return
        order = Show((chosen.material.descriptor, facts))
        for pid, kin in behind:
            if kin.channel.order(order):
                self._told[pid] = chosen
        os.close(facts)


def _stock(chosen: CertificateSet, now: float) -> Stock:
    """With a front of its own: keys that nobody has yet."""
    return Stock(chosen=chosen, front=make_front(), made=now)
