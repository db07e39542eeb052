"""One socket per address, and every worker accepts from all of them.

Also what a server without workers uses: then the one process is slot 0. A connection goes to whichever worker wakes
first, so nobody waits for a worker that is busy; the price is an uneven spread of long-lived connections. A slot more
or less changes nothing here: the queue belongs to all of them.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.accept import refusing
from aioserve.accept.base import Inherited
from aioserve.accept.sockets import SocketFile, SocketOptions, adopt_file, adopt_inherited, open_address
from aioserve.config.addresses import FdAddress, NamedAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aioserve.accept.base import Keeper, Listener
    from aioserve.config.addresses import Address


@final
@dataclass(frozen=True, slots=True)
class _Held:
    """A listening socket, the address in the configuration that it stands for, and the file to remove at the end."""

    listener: Listener
    address: Address
    file: SocketFile | None


@final
class Shared:
    """An ``Acceptor``."""

    linger: float = 0.0
    dispatcher: Final = None
    front: Final = None

    def __init__(self, addresses: Iterable[Address], options: SocketOptions) -> None:
        self._wanted: Final = list(dict.fromkeys(addresses))
        self._options: Final = options
        self._held: Final[list[_Held]] = []
        self._guest = False  # sockets and files are still the predecessor's, too

    def open(self, inherited: Sequence[Inherited] = ()) -> None:
        self._guest = bool(inherited)
        with ExitStack() as stack:
            stack.callback(self.close)
            for address in self._wanted:
                self._held.extend(self._adopt(address, inherited) or self._open(address))
            stack.pop_all()
        close_unwanted(inherited, self._wanted)

    def listeners(self, slot: int) -> list[Listener]:  # noqa: ARG002 - the same for every slot
        return [held.listener for held in self._held]

    def queues(self) -> Mapping[int, Sequence[Listener]]:
        return {}

    def keep_only(self, who: int | Keeper | None) -> None:
        if not isinstance(who, int):
            self.close(keep_files=True)

    def grow(self, slot: int) -> None:
        pass

    def joined(self, slot: int) -> None:
        pass

    def retire(self, slot: int) -> None:
        pass

    def restore(self, slot: int) -> None:
        pass

    def forget(self, slot: int) -> None:
        pass

    def hand_over(self) -> list[Inherited]:
        return [
            Inherited(
                fd=held.listener.sock.fileno(),
                address=str(held.address),
                slot=None,
                file=held.file.path if held.file is not None else "",
            )
            for held in self._held
        ]

    def alone(self) -> None:
        self._guest = False

    def refuse(self) -> None:
        if self._guest:
            return
        for held in self._held:
            if held.file is not None:
                held.file.remove()
            elif not isinstance(held.address, FdAddress | NamedAddress):
                refusing.refuse(held.listener.sock)

    def reclaim(self) -> None:
        pass

    def addresses(self) -> list[str]:
        return [held.listener.address for held in self._held]

    def close(self, *, keep_files: bool = False) -> None:
        for held in self._held:
            held.listener.sock.close()
            if held.file is not None and not keep_files and not self._guest:
                held.file.remove()
        self._held.clear()

    def _open(self, address: Address) -> list[_Held]:
        listeners, file = open_address(address, self._options)
        return [_Held(listener, address, file) for listener in listeners]

    def _adopt(self, address: Address, inherited: Sequence[Inherited]) -> list[_Held]:
        return [
            _Held(adopt_inherited(one, address.speaks), address, adopt_file(one.file) if one.file else None)
            for one in inherited
            if one.address == str(address)
        ]


def close_unwanted(inherited: Iterable[Inherited], wanted: Iterable[Address]) -> None:
    """Close what was inherited for addresses that the configuration does not name any more."""
    names = {str(address) for address in wanted}
    for one in inherited:
        if one.address not in names:
            os.close(one.fd)
