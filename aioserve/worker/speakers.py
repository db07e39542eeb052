"""Who speaks with the clients of a listener.

``protocol_of`` puts together what a server needs for that, by its settings; what is not needed is not imported.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeAlias

from aioserve.worker.connection import Connection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aioserve.accept.base import Listener
    from aioserve.worker.handshakes import Handshake
    from aioserve.worker.redirect import Redirect
    from aioserve.worker.server import Server

#: Each has ``connection_made``, or ``take_over`` where another protocol has read what came first.
Speaker: TypeAlias = "Connection | Redirect | Handshake"


def protocol_of(server: Server) -> Callable[[Listener], asyncio.Protocol]:
    """What makes the protocol of a new connection. ``server`` has its handshakes from then on, if there are any."""
    if server.credentials is not None:
        from aioserve.worker.handshakes import Handshakes
        from aioserve.worker.redirect import answer_plain

        server.handshakes = Handshakes(server, server.follow)
        server.plain_on_tls = functools.partial(answer_plain, server)
    strange = _strangers(server)
    if not server.terminators:
        return strange
    from aioserve.worker.trusted import Trusted

    trusted = Trusted(server, server.terminators)
    server.at_beats.append(trusted.beat)
    return lambda listener: trusted.connect(listener) if listener.private else strange(listener)


def _strangers(server: Server) -> Callable[[Listener], asyncio.Protocol]:
    """The same where clients connect themselves, or proxies that are not this server's."""
    if server.settings.proxy_protocol != "off":
        from aioserve.worker.preamble import Reception

        return Reception(server).connect
    if server.handshakes is None and not server.settings.redirects:
        return functools.partial(Connection, server)
    return functools.partial(speaker, server)


def speaker(server: Server, listener: Listener) -> Speaker:
    """The protocol of a new connection that was accepted from ``listener``."""
    if listener.scheme == "https":
        # Never fall back to plain HTTP here: clients rely on encryption.
        assert server.handshakes is not None, "no credentials"
        return server.handshakes.connect(listener)
    if listener.redirect:
        from aioserve.worker.redirect import Redirect

        return Redirect(server, listener)
    return Connection(server, listener)
