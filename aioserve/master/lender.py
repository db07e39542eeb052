"""Lets workers have the sockets of slots that are not their own, to accept what waits for a sibling.

Whoever is forked has the sockets that there are (``Acceptor.queues``). This observer tells the workers that are there
already of those that come later, once somebody listens on them, and of those that were shut down. The orders go over
the channels; a worker that has not read its channel for so long that it is full serves nobody, and its successor will
have everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.accept.orders import Gone, Lend
from aioserve.accept.sockets import listens
from aioserve.master.events import Unlisten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioserve.accept.base import Listener
    from aioserve.accept.orders import Order
    from aioserve.master.events import Action, Event
    from aioserve.master.hands import Kin

    Queues = Callable[[], Mapping[int, Sequence[Listener]]]


@final
class Lender:
    """An ``Observer``. ``join`` it to the kin before the first event."""

    def __init__(self, queues: Queues) -> None:
        self._queues: Final = queues
        self._kin: Mapping[int, Kin] = {}
        self._lent: dict[int, tuple[Listener, ...]] = {}
        self._over = False

    @property
    def wake_at(self) -> float | None:
        return None

    @property
    def lent(self) -> Mapping[int, tuple[Listener, ...]]:
        """The slots whose sockets listen, with these; another mapping as soon as anything has changed."""
        return self._lent

    def join(self, kin: Mapping[int, Kin]) -> None:
        """From now on there may be workers."""
        self._kin = kin
        self._lent = self._listening()

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002 - an observer's signature
        # The master's copies are closed before the workers leave; those have theirs until then.
        self._over = self._over or any(isinstance(action, Unlisten) for action in actions)
        before = self._lent
        listening = before if self._over else self._listening()
        if listening == before:
            return
        self._lent = listening
        for slot in before.keys() - listening.keys():
            self._tell(Gone(slot), but=slot)
        for slot, listeners in listening.items():
            if before.get(slot) != listeners:
                self._tell(Lend(slot, listeners), but=slot)

    def tick(self, now: float) -> None:
        pass

    def _listening(self) -> dict[int, tuple[Listener, ...]]:
        return {
            slot: tuple(listeners)
            for slot, listeners in self._queues().items()
            if listeners and all(map(listens, listeners))
        }

    def _tell(self, order: Order, *, but: int) -> None:
        for kin in self._kin.values():
            if kin.worker is not None and kin.worker != but:
                kin.channel.order(order)
