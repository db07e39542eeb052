"""One SO_REUSEPORT socket per slot and TCP address: the kernel spreads connections, each worker has its own queue.

The sockets belong to the slots, not to the workers, and the parent keeps them all: a successor inherits the queue of
its predecessor. Bound by the workers themselves, as other servers do it, each replacement resets the connections that
wait in the old one's queue (measured: 1,492 lost in eleven replacements, against 0).

The slots of the start listen in the parent, in their order, before any worker is there. One that is added later is
bound in the parent and listens when its worker is ready. One that is taken away is steered away from first
(aioserve.accept.steer): closed without that, seventeen times at 47,000 connections a second, it cost 286 of them,
and 98 of 200 when clients were in the middle of their handshake.

At its end a socket is shut down, not only closed: a copy that some child of an application still holds would otherwise
stay in the group, and the connections that the kernel gives it would wait for ever.

Left at that, a connection waits for its worker however busy that is, while others are idle: beside a worker that
blocked for 50 ms four times a second, p99 of new connections was 45 ms. Hence ``lends``: workers keep the sockets of
all slots, to accept from those of a sibling when it is late (``--steal late``) or always.

Unix sockets know no SO_REUSEPORT (EOPNOTSUPP), and a descriptor that was passed in is one socket: in this pattern too
they are shared by all slots.
"""

from __future__ import annotations

import logging
import socket
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, final

from aioserve.accept import refusing, steer
from aioserve.accept.base import Inherited
from aioserve.accept.shared import Shared, close_unwanted
from aioserve.accept.sockets import SocketOptions, adopt_inherited, bind_beside, bind_tcp, listens
from aioserve.config.addresses import TcpAddress
from aioserve.errors import BindError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aioserve.accept.base import Keeper, Listener
    from aioserve.config.addresses import Address

log = logging.getLogger("aioserve")

#: A few round trips: a client whose SYN came before the steering finishes its handshake with the socket it was given.
LINGER: Final = 1.0


@final
class ReusePort:
    """An ``Acceptor``."""

    linger: float = LINGER
    dispatcher: Final = None
    front: Final = None

    def __init__(
        self,
        addresses: Iterable[Address],
        slots: int,
        options: SocketOptions,
        *,
        lends: bool = False,
        platform: str = sys.platform,
    ) -> None:
        wanted = list(dict.fromkeys(addresses))
        self._wanted: Final = [address for address in wanted if isinstance(address, TcpAddress)]
        self._shared: Final = Shared([address for address in wanted if not isinstance(address, TcpAddress)], options)
        self._options: Final = options
        self._lends: Final = lends
        self._platform: Final = platform
        self._size: Final = slots
        # Per slot one listener of each group, in the order of the groups.
        self._slots: Final[dict[int, list[Listener]]] = {}
        self._groups: Final[list[steer.Group]] = []
        self._names: Final[list[str]] = []  # of each group: the address as the configuration spells it
        self._avoided: Final[set[int]] = set()
        self._guest = False  # the sockets are the predecessor's, too

    def open(self, inherited: Sequence[Inherited] = ()) -> None:
        if self._platform != "linux":
            raise BindError(
                "--reuseport needs Linux: elsewhere SO_REUSEPORT does not spread connections over the workers; "
                "use --accept shared"
            )
        self._guest = bool(inherited)
        with ExitStack() as stack:
            stack.callback(self.close)
            mine = [one for one in inherited if one.slot is not None]
            self._shared.open([one for one in inherited if one.slot is None])
            for address in self._wanted:
                self._open_group(address, [one for one in mine if one.address == str(address)])
            stack.pop_all()
        close_unwanted(mine, self._wanted)
        # The predecessor had more slots; its workers go on with them until they have left.
        self._avoided.update(slot for slot in self._slots if slot >= self._size)
        if self._avoided:
            self._steer()

    def listeners(self, slot: int) -> list[Listener]:
        return [*self._slots.get(slot, ()), *self._shared.listeners(slot)]

    def queues(self) -> Mapping[int, Sequence[Listener]]:
        return self._slots if self._lends else {}

    def keep_only(self, who: int | Keeper | None) -> None:
        for other, listeners in self._slots.items():
            if other != who and not (isinstance(who, int) and self._lends):
                _close(listeners)
        self._shared.keep_only(who)

    def grow(self, slot: int) -> None:
        assert slot not in self._slots, f"slot {slot} is there"
        sample = next(iter(self._slots.values()), [])
        self._slots[slot] = []
        try:
            for listener in sample:
                self._slots[slot].append(bind_beside(listener, backlog=None))
        except BindError:
            _close(self._slots.pop(slot))
            raise

    def joined(self, slot: int) -> None:
        changed = False
        for number, group in enumerate(self._groups):
            if slot not in group:
                listening = [one for one, sockets in self._slots.items() if listens(sockets[number])]
                group.join(one for one in listening if one not in group)
                changed = True
        if changed and self._avoided:
            self._steer()

    def retire(self, slot: int) -> None:
        self._avoided.add(slot)
        self._steer()

    def restore(self, slot: int) -> None:
        if slot in self._avoided:
            self._avoided.remove(slot)
            self._steer()

    def forget(self, slot: int) -> None:
        for listener in self._slots.get(slot, ()):
            with suppress(OSError):  # ENOTCONN: it never listened
                listener.sock.shutdown(socket.SHUT_RDWR)
        _close(self._slots.pop(slot, []))
        for group in self._groups:
            group.leave(slot)
        self.restore(slot)

    def hand_over(self) -> list[Inherited]:
        slots = [
            Inherited(
                fd=listener.sock.fileno(),
                address=self._names[number],
                slot=slot,
                indices=tuple(self._groups[number].indices(slot)),
            )
            for slot, listeners in self._slots.items()
            for number, listener in enumerate(listeners)
        ]
        return [*slots, *self._shared.hand_over()]

    def alone(self) -> None:
        self._guest = False
        self._shared.alone()
        for slot in [slot for slot in self._slots if slot >= self._size and slot in self._avoided]:
            self.forget(slot)

    def refuse(self) -> None:
        self._shared.refuse()
        if self._guest:
            return
        for listeners in self._slots.values():
            for listener in listeners:
                refusing.refuse(listener.sock)

    def reclaim(self) -> None:
        self._steer()

    def addresses(self) -> list[str]:
        sample = next(iter(self._slots.values()), [])
        return [*(listener.address for listener in sample), *self._shared.addresses()]

    def close(self, *, keep_files: bool = False) -> None:
        for listeners in self._slots.values():
            _close(listeners)
        self._slots.clear()
        self._groups.clear()
        self._names.clear()
        self._shared.close(keep_files=keep_files)

    def _open_group(self, address: TcpAddress, inherited: Sequence[Inherited]) -> None:
        """The sockets of one configured address; a name may stand for several groups."""
        if inherited:
            self._adopt_groups(address, inherited)
            return
        options = self._options
        for first in bind_tcp(address, backlog=options.backlog, dual_stack=options.dual_stack, reuse_port=True):
            self._add(0, first)
            group = steer.Group([[0]])
            for slot in range(1, self._size):
                self._add(slot, bind_beside(first, backlog=options.backlog))
                group.join([slot])
            self._groups.append(group)
            self._names.append(str(address))

    def _adopt_groups(self, address: TcpAddress, inherited: Sequence[Inherited]) -> None:
        by_slot: dict[int, list[Inherited]] = {}
        for one in inherited:
            by_slot.setdefault(one.slot or 0, []).append(one)
        for members in zip(*by_slot.values(), strict=True):
            size = 1 + max((index for one in members for index in one.indices), default=-1)
            places = [[one.slot or 0 for one in members if index in one.indices] for index in range(size)]
            self._groups.append(steer.Group(places))
            self._names.append(str(address))
            for one in members:
                self._add(one.slot or 0, adopt_inherited(one, address.speaks))
            # A slot that the predecessor did not have: until its worker is ready, it listens to nobody.
            sample = self._slots[members[0].slot or 0][-1]
            for slot in range(self._size):
                if slot not in by_slot:
                    self._add(slot, bind_beside(sample, backlog=None))

    def _add(self, slot: int, listener: Listener) -> None:
        self._slots.setdefault(slot, []).append(listener)

    def _steer(self) -> None:
        """Make the kernel choose among the slots that are not to be avoided."""
        for number, group in enumerate(self._groups):
            sample = next((sockets[number].sock for sockets in self._slots.values() if sockets), None)
            if sample is None:
                continue
            allowed = group.without(self._avoided) if self._avoided else []
            try:
                if allowed:
                    steer.attach(sample, steer.program(allowed))
                else:
                    steer.detach(sample)
            except OSError as error:
                # ENOENT: there is no program to be detached. Otherwise a kernel that cannot, or a sandbox that forbids.
                if allowed:
                    log.warning(
                        "connections cannot be steered away from a worker that leaves (%s); some may be reset",
                        error.strerror,
                    )


def _close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.sock.close()
    listeners.clear()
