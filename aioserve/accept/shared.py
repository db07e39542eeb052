"""One socket per address, and every worker accepts from all of them.

Also what a server without workers uses: then the one process is slot 0. A connection goes to whichever worker wakes
first, so nobody waits for a worker that is busy; the price is an uneven spread of long-lived connections.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, final

from aioserve.accept.sockets import SocketFile, SocketOptions, open_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioserve.accept.base import Listener
    from aioserve.config.addresses import Address


@final
class Shared:
    """An ``Acceptor``."""

    def __init__(self, addresses: Iterable[Address], options: SocketOptions) -> None:
        self._wanted: Final = list(dict.fromkeys(addresses))
        self._options: Final = options
        self._listeners: list[Listener] = []
        self._files: list[SocketFile] = []

    def open(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.close)
            for address in self._wanted:
                listeners, files = open_address(address, self._options)
                self._listeners += listeners
                self._files += files
            stack.pop_all()

    def listeners(self, slot: int) -> list[Listener]:  # noqa: ARG002 - the same for every slot
        return list(self._listeners)

    def keep_only(self, slot: int | None) -> None:
        if slot is None:
            close_all(self._listeners)

    def addresses(self) -> list[str]:
        return [listener.address for listener in self._listeners]

    def close(self) -> None:
        close_all(self._listeners)
        for file in self._files:
            file.remove()
        self._files.clear()


def close_all(listeners: list[Listener]) -> None:
    """Close this process's copies of the sockets and forget them."""
    for listener in listeners:
        listener.sock.close()
    listeners.clear()
