"""Where a request over plain HTTP is to be made again, over TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioserve.http.tables import AUTHORITY

if TYPE_CHECKING:
    from aioserve.http.head import Head

#: RFC 9110 4.2.1 and 4.2.2: what a URL without a port means.
HTTP_PORT = 80
HTTPS_PORT = 443


def location(head: Head, port: int | None) -> bytes | None:
    """The https URL of what ``head`` asks for; None if it does not say which host it asks.

    ``port`` is where TLS is spoken; None: where the request was made, at the port of its own URL.
    """
    authority = next((value for name, value in head.headers if name == b"host"), b"")
    found = AUTHORITY.fullmatch(authority)
    if found is None:  # HTTP/1.0 has no Host
        return None
    given = found["port"]
    host = authority if given is None else authority[: -len(given) - 1]
    if port is None:
        port = int(given) if given else HTTP_PORT
    line = head.line
    # RFC 9112 3.2.4: an OPTIONS for the whole server has a URL without a path.
    path = b"" if line.raw_path == b"*" else line.raw_path
    query = b"?" + line.query if line.query else b""
    return b"https://%b%b%b%b" % (host, b"" if port == HTTPS_PORT else b":%d" % port, path, query)
