"""Which workers are late to accept, and who accepts for them: decided from numbers that somebody else has read.

A slot is *late* when connections wait in its queue, at two looks in a row, and its worker has accepted none in between:
it is busy, or at its limit of connections, or it has died. The reason does not matter to those who wait. Then other
workers, its *helpers*, are to watch its sockets as well. At a watched socket the idle ones compete, one connection at a
time, so nothing has to be known about how busy each of them is; and the late worker competes again as soon as it can.

    on time -> late, and watched -> (it has accepted again, and some time has passed) -> on time

How long it is watched: once is an accident, and a tenth of a second will do. Whoever is late again soon after is
watched for twice as long, up to some seconds, because finding out takes the time of two looks and being watched takes
none: that is what keeps the thousandth connection beside a habitual blocker from waiting.

Helpers are those with nothing in their own queue, of workers that do not accept as fast as they can. At a saturated
server there are none, and nobody is told: a worker that gets no processor for some milliseconds is late, too, and to
watch it would cost the others a seventh of their CPU per connection for nothing. Only what has waited for ten times as
long is everybody's business who accepts at all. When the master itself got no processor (it has overslept), the worker
need not have had one either: then it is given the time of one more look, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

#: Two looks that are closer to each other than this are one: what waits has to have had some time. Seconds.
PATIENCE: Final = 0.001

#: What has waited for so long is helped by those, too, who have something in their own queue, in seconds. It is more
#: than what waits for a processor or for its turn at a saturated server, and less than a person can notice.
LONG_PATIENCE: Final = 0.02

#: Workers that accept so many connections in a second, each of them, are at their limit: 30 us of a processor are next
#: to nothing for accepting one and closing it again, and an application needs some time, too.
SATURATED: Final = 1500.0

#: So many helpers at first, and so many more each time that it was not enough. All idle ones wake for every connection
#: (there is no EPOLLEXCLUSIVE in libuv), and one of them gets it.
HELPERS: Final = 3

#: For how long a late slot is watched at least, the first time and at most, in seconds.
FIRST_HOLD: Final = 0.1
LONGEST_HOLD: Final = 1.6

#: Late again within so many holds after the end of the last one: the next one is twice as long.
RELAPSE_HOLDS: Final = 2


@final
@dataclass(slots=True)
class _State:
    """What is remembered of one slot."""

    opened: int  # connections that its own worker has accepted
    waits_since: float | None = None  # from this look on, connections wait and none was accepted
    total: int = 0  # connections that all workers together had accepted then
    helpers: frozenset[int] = frozenset()  # who watches it
    hold: float = 0.0
    until: float = 0.0  # it is watched at least so long
    accepted: bool = True  # since it was late last
    excused: bool = False  # waits_since was put off once, for these that wait


@final
class Lateness:
    """``look`` at what was seen, as often as makes sense; ``watched`` says who is to watch whom."""

    def __init__(self) -> None:
        self._slots: Final[dict[int, _State]] = {}
        self._open: set[int] = set()  # slots at which there is something to be found out at the next look
        #: The late slots, each with its helpers; another mapping as soon as anything has changed.
        self.watched: Mapping[int, frozenset[int]] = {}

    def keep(self, slots: AbstractSet[int]) -> None:
        """Forget all others: they have gone."""
        for gone in self._slots.keys() - slots:
            del self._slots[gone]
        self._settle()

    def look(
        self,
        now: float,
        waiting: AbstractSet[int],
        total: int,
        opened: Callable[[int], int],
        idlest: Callable[[], Sequence[int]],
        *,
        overslept: bool = False,
    ) -> list[int]:
        """Take in what there is to see; the slots that are late from now on, and have been given helpers.

        ``waiting``: slots with connections in their queue. ``total``: how many all workers have accepted.
        ``opened``: how many connections the workers of a slot have accepted from it so far, siblings not
        counted. ``idlest``: slots whose workers serve, in the order in which they should help; asked for only
        when somebody is late. ``overslept``: this look comes clearly later than it was to.
        """
        if not waiting and not self._open:
            return []
        late = []
        for slot in self._open | waiting:
            count = opened(slot)
            state = self._slots.setdefault(slot, _State(count))
            if count != state.opened:
                state.opened = count
                state.accepted = True
                state.waits_since = None
            if slot not in waiting:
                state.waits_since = None
            elif state.waits_since is None or (overslept and not state.excused):
                state.excused = state.waits_since is not None
                state.waits_since, state.total = now, total
            elif now - state.waits_since >= PATIENCE:
                late.append(slot)
                continue
            if state.accepted and now >= state.until:
                state.helpers = frozenset()
        new = self._help(now, late, waiting, total, idlest) if late else []
        self._settle()
        return new

    def _settle(self) -> None:
        """Take down what has become of the slots."""
        watched = {slot: state.helpers for slot, state in self._slots.items() if state.helpers}
        if watched != self.watched:
            self.watched = watched
        self._open = {slot for slot, state in self._slots.items() if state.helpers or state.waits_since is not None}

    def _help(
        self,
        now: float,
        late: list[int],
        waiting: AbstractSet[int],
        total: int,
        idlest: Callable[[], Sequence[int]],
    ) -> list[int]:
        on_time = [slot for slot in idlest() if slot not in late]
        idle = [slot for slot in on_time if slot not in waiting]
        new = []
        for slot in late:
            state = self._slots[slot]
            assert state.waits_since is not None
            since = now - state.waits_since
            if since >= LONG_PATIENCE:
                able = idle or on_time
            else:
                able = idle if total - state.total < SATURATED * since * len(on_time) else []
            if not able:
                continue
            if not state.helpers:
                new.append(slot)
                relapsed = now < state.until + RELAPSE_HOLDS * state.hold
                state.hold = min(2 * state.hold, LONGEST_HOLD) if relapsed else FIRST_HOLD
            state.helpers |= frozenset([one for one in able if one not in state.helpers][:HELPERS])
            state.until = now + state.hold
            state.accepted = False
            state.waits_since, state.total = now, total  # whether they are enough shows at further looks
        return new
