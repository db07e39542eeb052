"""Which of many sockets are ready, for whoever reads and writes them without a transport of the loop's.

Not ``loop.add_reader`` for each: uvloop gives up a descriptor on which the kernel reports an error, after one last
call. A client that resets its connection right behind its last bytes would be read and then never heard of again, and
the descriptor's next owner would be refused. So there is one epoll(7) of our own, and the loop waits for that: a system
call more in a turn, whatever the number of sockets, and one handle of the loop's less for each.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    import asyncio

#: How many the kernel is asked for at once.
BATCH: Final = 256

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT

#: It has ended in both directions, or broken. Whoever reads or writes is told by that; the kernel says it always.
ENDED: Final = select.EPOLLHUP | select.EPOLLERR


class Watched(Protocol):
    """Whoever has a socket."""

    def readable(self) -> None: ...
    def writable(self) -> None: ...
    def ended(self) -> None: ...


@final
class Readiness:
    """Of one loop's sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._epoll: Final = select.epoll()
        self._watched: Final[dict[int, tuple[Watched, int]]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, descriptor: int, watched: Watched, wanted: int) -> None:
        """Tell ``watched`` whenever that is possible from now on: READ, WRITE, ENDED, or 0, nothing."""
        known = self._watched.get(descriptor)
        if known is None:
            if wanted:
                self._epoll.register(descriptor, wanted)
                self._watched[descriptor] = watched, wanted
        elif not wanted:
            # Asked for nothing, epoll would still say that it has ended, in every turn.
            self._epoll.unregister(descriptor)
            del self._watched[descriptor]
        elif known[1] != wanted:
            self._epoll.modify(descriptor, wanted)
            self._watched[descriptor] = watched, wanted

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._watched.clear()

    def _look(self) -> None:
        """Tell all who are ready in one turn, as the loop does.

        Whoever closes a connection because nothing has come relies on that. Those who are still ready get behind the
        others (epoll(7)), so that nobody is left out.
        """
        for _ in range(0, len(self._watched), BATCH):
            ready = self._epoll.poll(0, BATCH)
            for descriptor, events in ready:
                # Whoever was told before may have closed others.
                known = self._watched.get(descriptor)
                if known is None:
                    continue
                watched, wanted = known
                if wanted == ENDED:
                    watched.ended()
                if wanted & READ and events & (READ | ENDED):
                    watched.readable()
                if wanted & WRITE and events & (WRITE | ENDED):
                    watched.writable()
            if len(ready) < BATCH:
                return
