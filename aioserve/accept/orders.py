"""What the master tells a worker about the sockets of its siblings: plain values, whichever way they come.

A worker that is to accept for others has their sockets since it was forked. Only what changes afterwards is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

if TYPE_CHECKING:
    from aioserve.accept.base import Listener


@final
@dataclass(frozen=True, slots=True)
class Watch:
    """Accept what waits for these slots, and for no others. The last word counts; told to a worker of --steal late."""

    slots: frozenset[int]


@final
@dataclass(frozen=True, slots=True)
class Lend:
    """These are the sockets of a slot, which has begun to listen."""

    slot: int
    listeners: tuple[Listener, ...]


@final
@dataclass(frozen=True, slots=True)
class Gone:
    """This slot is no more, and its sockets have been shut down."""

    slot: int


Order: TypeAlias = Watch | Lend | Gone
