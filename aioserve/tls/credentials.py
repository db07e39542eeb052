"""What a process shows in TLS handshakes, and the terms on which it speaks.

Two kinds of context. The *front* is the one that every handshake begins with. It has the terms (versions, ciphers,
ALPN) and the keys of session tickets, and no certificate: it is made once, by whoever forks, so that all processes
decrypt each other's tickets, also those that are forked later. A *leaf* has one certificate with its key; the
front's SNI callback, which OpenSSL calls for every handshake, chooses it. New certificates are new leaves: who has
begun with an old one is not disturbed, and tickets stay good.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, final

from aioserve.tls import ktls

if TYPE_CHECKING:
    from aioserve.config.tree import Ssl

#: RFC 7301: what is spoken behind the handshake.
PROTOCOLS: Final = ("http/1.1",)


def make_front() -> ssl.SSLContext:
    """An empty context, whose ticket keys all processes share that are forked from now on."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@final
class Credentials:
    """One per process. ``front`` is what the process that forked it has made; the terms are set on it here.

    Raises ``ConfigError`` for files that cannot be used.
    """

    def __init__(self, settings: Ssl, front: ssl.SSLContext | None = None) -> None:
        self._front: Final = front or make_front()
        self._settings: Final = settings
        self._shown: Final[dict[ssl.SSLContext, str]] = {}
        leaf = self._context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        leaf.load_cert_chain(settings.certfile[0], settings.keyfile[0] if settings.keyfile else None)
        self._leaf = leaf
        self._context(self._front)
        self._front.sni_callback = self._choose
        if settings.ktls:
            # A connection has the options of the context that it has begun with, whatever leaf is chosen.
            self._front.options |= ktls.OPTION

    def engine(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The server's side of one connection, reading ciphertext from ``incoming`` and writing it to ``outgoing``."""
        return self._front.wrap_bio(incoming, outgoing, server_side=True)

    def engine_on(self, sock: object) -> ssl.SSLSocket:
        """The same on a socket itself, which does not block: what kernel TLS needs."""
        return self._front.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[arg-type]

    def shown(self, engine: ssl.SSLObject | ssl.SSLSocket) -> str | None:
        """The certificate that the client was shown, as PEM."""
        return self._shown.get(engine.context)

    def _context(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.set_alpn_protocols(list(PROTOCOLS))
        return context

    def _choose(self, engine: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
        engine.context = self._leaf
