"""Fuzz target: what a trusted proxy says of the client (``http/forwarded.py``).

The first line of the input lists the trusted proxies, each further line is a field ``name: value``. The last two hops
of the chain are written by the target itself, as an honest proxy would: a peer that is not trusted, and the address of
the first proxy. Expected: no exception, a client that is a valid address, never one from the left of the untrusted
hop, and a scheme and a host that may stand in a scope.
"""

from __future__ import annotations

import ipaddress
import time

from aioserve.errors import ConfigError
from aioserve.http.forwarded import TrustedProxies, rewrite
from aioserve.http.head import is_authority

PEER = "192.0.2.1"
INNER = "192.0.2.2"
STRANGER = "203.0.113.9"
TRUSTED = TrustedProxies([PEER, INNER], host=True)

#: For one input of at most ``LONGEST`` bytes, on a slow machine; it takes some 100 us.
MOST_SECONDS = 2.0
LONGEST = 64 * 1024


def run(data: bytes) -> None:
    entries, _, rest = data.partition(b"\n")
    headers = []
    for line in rest.split(b"\n"):
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    began = time.process_time()
    try:
        chosen = TrustedProxies(entries.decode("latin-1").split(","), host=len(rest) % 2 == 0)
    except ConfigError:
        chosen = TRUSTED
    for proxies in (chosen, TRUSTED):
        for scope_type in ("http", "websocket"):
            check_scope(proxies, scope_type, headers)
    check_chain(headers)
    assert time.process_time() - began < MOST_SECONDS


def check_scope(proxies, scope_type, headers):
    scheme = "ws" if scope_type == "websocket" else "http"
    scope = {"type": scope_type, "client": (PEER, 1), "scheme": scheme, "headers": list(headers)}
    rewrite(scope, proxies)
    host, port = scope["client"]
    assert str(ipaddress.ip_address(host))
    assert 0 <= port < 65536
    assert scope["scheme"] in ({"http", "https"} if scope_type == "http" else {"ws", "wss"})
    if scope["headers"] != headers:
        assert is_authority(scope["headers"][0][1])
        assert list(scope["headers"][1:]) == [field for field in headers if field[0] != b"host"]


def check_chain(headers):
    """A stranger's own text, whatever it is, never gets past the stranger's address."""
    legacy = [field for field in headers if field[0] != b"x-forwarded-for"]
    claims = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    legacy.append((b"x-forwarded-for", b", ".join((claims, STRANGER.encode(), INNER.encode()))))
    assert TRUSTED.apply((PEER, 1), "http", legacy).client == (STRANGER, 0)
    standard = [field for field in headers if not field[0].startswith((b"forwarded", b"x-forwarded-"))]
    claims = b",".join(value for name, value in headers if name == b"forwarded")
    standard.append(
        (b"forwarded", claims + b", for=" + STRANGER.encode() + b';proto=https, for="' + INNER.encode() + b'"')
    )
    seen = TRUSTED.apply((PEER, 1), "http", standard)
    assert seen.client == (STRANGER, 0)
    assert seen.scheme == "https"
