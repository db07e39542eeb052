"""Who speaks with the clients of a listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from aioserve.worker.connection import Connection
from aioserve.worker.redirect import Redirect

if TYPE_CHECKING:
    from aioserve.accept.base import Listener
    from aioserve.worker.handshakes import Handshake
    from aioserve.worker.server import Server

#: Each has ``connection_made``, or ``take_over`` where another protocol has read what came first.
Speaker: TypeAlias = "Connection | Redirect | Handshake"


def speaker(server: Server, listener: Listener) -> Speaker:
    """The protocol of a new connection that was accepted from ``listener``."""
    if listener.scheme == "https":
        # Never fall back to plain HTTP here: clients rely on encryption.
        assert server.handshakes is not None, "no credentials"
        return server.handshakes.connect(listener)
    if listener.redirect:
        return Redirect(server, listener)
    return Connection(server, listener)
