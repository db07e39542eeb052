"""When one loop accepts.

Not with as many connections as it may have, not while descriptors are short, and with restraint while siblings at the
same listeners have clearly fewer connections. It pauses and resumes the gate; the server counts the connections.
"""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING, Final, final

from aioserve.worker.evenness import EVEN_SECONDS, PoliteDoor

if TYPE_CHECKING:
    import asyncio

    from aioserve.worker.evenness import Balance
    from aioserve.worker.gate import Gate

log = logging.getLogger("aioserve")

#: Descriptors that a worker keeps free for files, databases and its own pipes. Beyond the limit the kernel's queue is
#: where connections wait; without it libuv accepts and drops them when descriptors run out (EMFILE).
RESERVED_DESCRIPTORS: Final = 128

#: With fewer free descriptors than this nothing is accepted: what may come between two beats.
ROOM: Final = 64

#: More connections than anybody has.
_NO_LIMIT: Final = 1 << 60


@final
class Admission:
    """``begin`` when the gate is there; then ``opened``, ``closed`` and, at every beat, ``look``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        #: How many connections may be open.
        self.limit: int = limit
        #: Looks at how many connections siblings at the same listeners have; set before ``begin``.
        self.balance: Balance | None = None
        self._loop: Final = loop
        self._gate: Gate | None = None
        self._even_until: int = _NO_LIMIT  # with more connections than this, siblings may have clearly fewer
        self._polite: bool = False
        self._room: Final = room()
        self._has_room: bool = True

    def begin(self, gate: Gate) -> None:
        self._gate = gate

    def opened(self, connections: int) -> None:
        """One more, and so many by now."""
        if connections > self._even_until:
            self._stand_back(connections)
        if connections >= self.limit and self._gate is not None and self._gate.accepting:
            log.warning("%d connections are open, the limit: accepting pauses until one of them closes", connections)
            self._gate.pause()

    def closed(self, connections: int) -> None:
        """One less, and so many are left."""
        gate = self._gate
        if gate is not None and not gate.accepting and self._has_room and connections < self.limit:
            gate.resume()

    def look(self, connections: int, now: float) -> None:
        """What nobody tells: how many descriptors others have taken, and how many connections siblings have."""
        gate = self._gate
        if gate is None:
            return
        # Pause while descriptors are short, whoever has them: beyond the limit libuv drops connections that wait.
        had_room, self._has_room = self._has_room, gate.has_room(self._room)
        if had_room and not self._has_room:
            log.warning("fewer than %d descriptors are free: accepting pauses until there are more", self._room)
            gate.pause()
        self.closed(connections)
        if self.balance is not None:
            self._look_at_siblings(self.balance, gate, now)

    def _look_at_siblings(self, balance: Balance, gate: Gate, now: float) -> None:
        """Once in a while: whoever has lost connections may have fewer than it had."""
        balance.look(now)
        if not self._polite:
            self._even_until = balance.most
        elif (balance.brief or now - balance.stood_back_at >= EVEN_SECONDS) and gate.accepting:
            self._polite = False
            gate.pause()
            gate.resume()

    def _stand_back(self, connections: int) -> None:
        """At the listeners, from now on, if others have fewer connections."""
        balance, gate = self.balance, self._gate
        assert balance is not None
        assert gate is not None
        self._even_until = balance.most
        if connections > self._even_until and gate.use(
            lambda listener: PoliteDoor(self._loop, listener, gate.adopt, balance)
        ):
            self._polite = True
            self._even_until = _NO_LIMIT


def room() -> int:
    """How many descriptors have to be free: ``ROOM``, less where there are few at all."""
    return min(ROOM, spare_descriptors() // 4)


def spare_descriptors() -> int:
    """How many connections this process may have open, by its limit on descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    return max(soft - RESERVED_DESCRIPTORS, soft // 2)
