"""Who looks on while the master works: told of everything after it was done, with no say in it.

The service manager's notifications and the user's hooks are observers. What an observer does must be short, because
the master waits for it, and it must raise nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.master.events import Action, Event


class Observer(Protocol):
    """Looks on."""

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` is to be called, on the monotonic clock; None: never."""

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:
        """This happened, and this was done about it."""

    def tick(self, now: float) -> None:
        """The time of ``wake_at`` has come; it has to be another one afterwards."""
