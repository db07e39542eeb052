"""The ways in which the server can speak TLS; a client must see no difference."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.clients import CHUNK, PATIENCE, Client
from tests.process.servers import Served

if TYPE_CHECKING:
    import ssl

    from tests.process.identities import Identities

#: What is asked for besides the certificate. Where the kernel has no TLS, ``--ktls`` says so and goes on without.
WAYS = {
    "inline": (),
    "ktls": ("--ktls",),
    "tls-processes": ("--tls-processes", "1"),
}

#: What else they are marked with.
MARKS = {
    "ktls": (
        pytest.mark.skipif(
            not Path("/sys/module/tls").exists(),
            reason="the kernel has no TLS, and then --ktls is inline (tests/ktls brings a kernel along)",
        ),
    ),
}

#: For ``parametrize`` and fixtures.
EACH = [pytest.param(way, marks=MARKS.get(way, ())) for way in WAYS]

#: As the ASGI extension and this interpreter's ssl module number them.
VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}


def encrypted(
    way: str, identities: Identities, *arguments: str, app: str = "proxied:app", site: Path | None = None, **served
) -> Served:
    """A server of the site's certificate, or another one, on https://127.0.0.1."""
    certificate = ("--ssl-certfile", str(site or identities.site))
    return Served(app, *certificate, *WAYS[way], *arguments, **served)


def asks(identities: Identities, *, required: bool) -> tuple[str, ...]:
    """Options with which clients are asked for a certificate."""
    return ("--ssl-ca-certs", str(identities.clients), "--ssl-cert-reqs", "required" if required else "optional")


class SecureClient(Client):
    """A connection to localhost that has shaken hands, going on with ``session`` if the server likes.

    ``source`` is an address of this machine that it comes from.
    """

    def __init__(
        self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None, *, source: str = ""
    ) -> None:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0) if source else None)
        try:
            self.sock = context.wrap_socket(plain, server_hostname="localhost", session=session)
        except BaseException:
            plain.close()
            raise
        self._file = self.sock.makefile("rb", buffering=CHUNK)
