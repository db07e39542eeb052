"""Which call runs where next. It knows no clock, no process and no loop: it keeps the books, and others act.

A *lane* is a place in which one call runs at a time. It is opened when calls wait and not all lanes are open, and is
in one of three states:

    opening --opened--> idle --match--> busy --freed--> idle        gone, from any of them

The longest idle lane is the last to be chosen, so that lanes that are not needed fall idle for good and can be closed.
The bound of the queue is for calls that nobody could run at once even if all lanes were open: with room for none, as
many calls as there are lanes may still be about to start.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar, final

Call = TypeVar("Call")
Lane = TypeVar("Lane")


@final
class Schedule(Generic[Call, Lane]):
    def __init__(self, lanes: int, room: int) -> None:
        self._most = lanes
        self._room = room
        self._waiting: OrderedDict[Call, None] = OrderedDict()
        self._opening: set[Lane] = set()
        # By when they fell idle, the latest last.
        self._idle: dict[Lane, float] = {}
        self._busy: set[Lane] = set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._busy)

    @property
    def lanes(self) -> int:
        """How many are open or about to be."""
        return len(self._opening) + len(self._idle) + len(self._busy)

    def add(self, call: Call) -> bool:
        """Queue ``call``; False if the queue is full."""
        if len(self._waiting) >= self._room + self._most - len(self._busy):
            return False
        self._waiting[call] = None
        return True

    def put_back(self, call: Call) -> None:
        """``call`` has not begun after all: it is the next one."""
        self._waiting[call] = None
        self._waiting.move_to_end(call, last=False)

    def remove(self, call: Call) -> bool:
        """Take ``call`` out of the queue; False if it is not in it."""
        if call not in self._waiting:
            return False
        del self._waiting[call]
        return True

    def take_all(self) -> list[Call]:
        """Empty the queue."""
        calls = list(self._waiting)
        self._waiting.clear()
        return calls

    def lacking(self) -> int:
        """How many lanes should be opened for the calls that wait."""
        wanted = len(self._waiting) - len(self._opening) - len(self._idle)
        return max(min(wanted, self._most - self.lanes), 0)

    def opening(self, lane: Lane) -> None:
        self._opening.add(lane)

    def opened(self, lane: Lane, now: float) -> None:
        self._opening.remove(lane)
        self._idle[lane] = now

    def match(self) -> tuple[Lane, Call] | None:
        """The next call and the lane to run it, which is busy from now on; None if there is not one of each."""
        if not self._waiting or not self._idle:
            return None
        call, _ = self._waiting.popitem(last=False)
        lane, _ = self._idle.popitem()
        self._busy.add(lane)
        return lane, call

    def freed(self, lane: Lane, now: float) -> None:
        """The call of ``lane`` is over, and the next one may come."""
        self._busy.remove(lane)
        self._idle[lane] = now

    def gone(self, lane: Lane) -> bool:
        """``lane`` is of no more use, whatever it was doing; False if it was gone already."""
        if lane in self._busy:
            self._busy.remove(lane)
        elif lane in self._idle:
            del self._idle[lane]
        elif lane in self._opening:
            self._opening.remove(lane)
        else:
            return False
        return True

    def idle_since(self) -> float | None:
        """When the lane fell idle that has been so for longest; None if none is."""
        return next(iter(self._idle.values()), None)

    def tired(self, since: float) -> list[Lane]:
        """Lanes that have been idle since ``since`` or longer."""
        return [lane for lane, fell in self._idle.items() if fell <= since]
