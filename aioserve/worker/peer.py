"""Who is at the other end of a connection, as scopes, the trust in forwarding fields and the log have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    import asyncio

    from aioserve.accept.base import Listener
    from aioserve.types import Address


class Relay(Protocol):
    """Somebody in between. Once it is ``leaving``, each response is the last of its connection."""

    leaving: bool


@final
class Peer:
    """What a transport says of itself, or a load balancer of the client that it relays."""

    __slots__ = ("anonymous", "client", "extensions", "local", "relay", "scheme")

    def __init__(
        self,
        client: Address | None,
        local: tuple[str, int | None] | None,
        scheme: str,
        *,
        extensions: dict[str, dict[str, object]] | None = None,
        anonymous: bool = False,
        relay: Relay | None = None,
    ) -> None:
        #: None for a unix socket.
        self.client: Address | None = client
        self.local: tuple[str, int | None] | None = local
        self.scheme: str = scheme
        #: What only the scopes of this connection have under "extensions".
        self.extensions: dict[str, dict[str, object]] | None = extensions
        #: Relayed for somebody who cannot be named: what it forwards is not believed, whoever is at the other end.
        self.anonymous: bool = anonymous
        #: The process of this server through which the connection goes. It has ``extensions`` to show, too.
        self.relay: Relay | None = relay

    def __str__(self) -> str:
        """As the log names it."""
        return f"{self.client[0]}:{self.client[1]}" if self.client else "unix"


def peer_of(transport: asyncio.Transport, listener: Listener) -> Peer:
    """Who ``transport`` says it is connected to."""
    local = listener.server or _address(transport.get_extra_info("sockname"))
    return Peer(_address(transport.get_extra_info("peername")), local, listener.scheme)


def _address(name: object) -> Address | None:
    return (name[0], name[1]) if isinstance(name, (tuple, list)) and len(name) >= 2 else None
