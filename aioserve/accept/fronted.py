"""Terminators accept from the addresses that speak TLS; workers accept what terminators have decrypted, and the rest.

It wraps the accept pattern of the workers. The addresses that speak TLS have one socket each, which all terminators
accept from (``Shared``) and which belongs to the master: it outlives crashes and reloads, and goes to a new master. To
the workers their pattern is what it was, but for one more listener in it, the private one, where terminators connect.
That one is never handed over: each master's terminators feed its own workers.

The private listener has no file that somebody else could connect to by its permissions, and a name that anybody on this
machine can find out. So who connects is asked for its process id (``aioserve.worker.trusted``).
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, final

from aioserve.accept.base import Feed, Front, Keeper
from aioserve.accept.shared import Shared
from aioserve.config.addresses import PrivateAddress
from aioserve.errors import BindError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aioserve.accept.base import Acceptor, Dispatcher, Inherited, Listener, Source
    from aioserve.accept.sockets import SocketOptions
    from aioserve.config.addresses import Address

#: The one address of its kind.
PRIVATE: Final = PrivateAddress()


@final
class Fronted:
    """An ``Acceptor``. ``choose`` makes that of the workers from their addresses."""

    def __init__(
        self,
        secured: Iterable[Address],
        plain: Iterable[Address],
        options: SocketOptions,
        choose: Callable[[list[Address]], Acceptor],
        *,
        platform: str = sys.platform,
    ) -> None:
        secured = list(secured)
        self._names: Final = {str(address) for address in secured}
        self._front: Final = Shared(secured, options)
        self._inner: Final = choose([PRIVATE, *plain])
        self._platform: Final = platform
        self._workers = b""
        self._port: int | None = None
        self.linger: float = self._inner.linger

    @property
    def dispatcher(self) -> Dispatcher | None:
        return self._inner.dispatcher

    @property
    def front(self) -> Front:
        assert self._workers, "it is not open"
        return Front(listeners=self._front.listeners(0), workers=self._workers, port=self._port)

    def open(self, inherited: Sequence[Inherited] = ()) -> None:
        if self._platform != "linux":
            raise BindError(
                "--tls-processes needs Linux (unix sockets without a file, whose peers the kernel vouches for); leave "
                "it out, and the workers speak TLS themselves"
            )
        with ExitStack() as stack:
            stack.callback(self.close)
            self._front.open([one for one in inherited if one.address in self._names])
            self._inner.open([one for one in inherited if one.address not in self._names])
            self._port = next((one.port for one in self._front.listeners(0) if one.port is not None), None)
            self._workers = next(one.sock.getsockname() for one in _listeners(self._inner.listeners(0)) if one.private)
            stack.pop_all()

    def listeners(self, slot: int) -> Sequence[Source]:
        return self._inner.listeners(slot)

    def queues(self) -> Mapping[int, Sequence[Listener]]:
        return self._inner.queues()

    def keep_only(self, who: int | Keeper | None) -> None:
        terminates = who is Keeper.TERMINATOR
        if not terminates:
            self._front.keep_only(None)
        self._inner.keep_only(None if terminates else who)

    def grow(self, slot: int) -> None:
        self._inner.grow(slot)

    def joined(self, slot: int) -> None:
        self._inner.joined(slot)

    def retire(self, slot: int) -> None:
        self._inner.retire(slot)

    def restore(self, slot: int) -> None:
        self._inner.restore(slot)

    def forget(self, slot: int) -> None:
        self._inner.forget(slot)

    def hand_over(self) -> list[Inherited]:
        kept = [one for one in self._inner.hand_over() if one.address != str(PRIVATE)]
        return [*self._front.hand_over(), *kept]

    def alone(self) -> None:
        self._front.alone()
        self._inner.alone()

    def refuse(self) -> None:
        self._front.refuse()
        self._inner.refuse()

    def reclaim(self) -> None:
        self._inner.reclaim()

    def addresses(self) -> list[str]:
        plain = [address for address in self._inner.addresses() if address != str(PRIVATE)]
        return [*self._front.addresses(), *plain]

    def close(self, *, keep_files: bool = False) -> None:
        self._front.close(keep_files=keep_files)
        self._inner.close(keep_files=keep_files)


def _listeners(sources: Iterable[Source]) -> list[Listener]:
    """The listeners themselves, also where a dispatcher accepts from them."""
    return [one for source in sources for one in (source.listeners if isinstance(source, Feed) else (source,))]
