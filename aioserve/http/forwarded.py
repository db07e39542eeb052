"""What a proxy says of the client behind it: X-Forwarded-* and Forwarded (RFC 7239), believed from trusted peers only.

Each proxy adds, on the right, the address that it has heard from. So a chain is walked from the right, as long as the
address reached is itself a trusted proxy; the first that is not is the client, and everything to the left of it is what
the client claims. A node that cannot be read, is "unknown" or obfuscated ends the walk at the node before it: never an
exception, never trusted.

Which of the two families counts. A proxy writes one of them and passes the other on as the client has sent it, so that
mixing them, or preferring the one that a proxy in use does not write, lets clients name their own address. Nearly all
proxies write X-Forwarded-* (nginx, Envoy, Traefik, the load balancers of the clouds), hence: if any X-Forwarded-For,
-Proto, -Host or -Port is there, Forwarded is not read at all. Whoever has a proxy that writes Forwarded must let it
delete X-Forwarded-*; and a proxy that sets no X-Forwarded-Host must delete the client's.

Takes values and returns values; which peer a request came from, and when to ask, is the connection's business.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import ConfigError
from aioserve.http.head import is_authority

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioserve.types import Address, Header, Scope

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: How the peer of a unix socket is written among the trusted; nginx writes it so into X-Forwarded-For, too.
UNIX: Final = "unix:"

#: No chain of proxies is this long; a header of 64 KiB, all of it trusted, must not cost milliseconds.
MOST_HOPS: Final = 100

#: Addresses whose verdict is remembered, as many as uvicorn remembers. Some 0.5 MiB when full.
MEMO_SIZE: Final = 4096

#: Longer than any address with a port, in brackets.
_LONGEST_NODE: Final = 64
#: 253 characters of a DNS name (RFC 1035 2.3.4), a colon and a port.
_LONGEST_HOST: Final = 259

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}

#: forwarded-pair of RFC 7239 4, and what ends it. A colon or bracket outside of quotes is no token, but often sent.
_PAIR: Final = re.compile(
    r"""[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\[^"])*)"|([^\s",;\\=]+)))?[ \t]*(?:;|$)"""
)


@final
@dataclass(frozen=True, slots=True)
class Forwarded:
    """What is known after asking a trusted peer. ``host`` is a whole new Host field, or None to leave it alone."""

    client: Address | None
    scheme: str
    host: bytes | None = None
    port: int | None = None


@final
class TrustedProxies:
    """Who is believed: addresses, networks in CIDR notation, "unix:" for peers of unix sockets, "*" for everybody.

    ``host`` tells whether X-Forwarded-Host, -Port and Forwarded's host replace the Host field.
    """

    def __init__(self, entries: Sequence[str], *, host: bool = False) -> None:
        names = [entry.strip() for entry in entries if entry.strip()]
        self._everybody: bool = "*" in names
        self._unix: bool = self._everybody or UNIX in names
        self._networks: list[Network] = _networks([name for name in names if name not in {"*", UNIX}])
        self._host: bool = host
        self._verdict = functools.lru_cache(MEMO_SIZE)(self._judge)

    def trusts(self, peer: str | None) -> bool:
        """Whether ``peer``, an address without its port, is a trusted proxy; None or "" peers come by a unix socket."""
        if self._everybody:
            return True
        if not peer:
            return self._unix
        # Anything longer is no address, and must not fill the memory of verdicts.
        return len(peer) <= _LONGEST_NODE and self._verdict(peer)

    def apply(self, client: Address | None, scheme: str, headers: Iterable[Header]) -> Forwarded:
        """What the headers of a request from a trusted peer say; ``client`` and ``scheme`` where they say nothing."""
        chains: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name == b"forwarded" or name.startswith(b"x-forwarded-") or name == b"host":
                chains.setdefault(name, []).append(value)
        # Several lines are one list (RFC 9110 5.3).
        said = {name: b",".join(values).decode("latin-1") for name, values in chains.items()}
        if any(f"x-forwarded-{part}".encode() in said for part in ("for", "proto", "host", "port")):
            return self._legacy(client, scheme, said)
        if b"forwarded" in said:
            return self._standard(client, scheme, said[b"forwarded"])
        return Forwarded(client, scheme)

    def _legacy(self, client: Address | None, scheme: str, said: dict[bytes, str]) -> Forwarded:
        for node in _from_the_right(said.get(b"x-forwarded-for", "")):
            if node == UNIX and self._unix:
                continue
            address = _address(node)
            if address is None:
                break
            client = address
            if not self.trusts(address[0]):
                break
        # The last value is the nearest proxy's: it has either set or appended it.
        scheme = _SCHEMES.get(_last(said, b"x-forwarded-proto").lower(), scheme)
        port = _port(_last(said, b"x-forwarded-port"))
        if not self._host:
            return Forwarded(client, scheme, None, port)
        host = _host(_last(said, b"x-forwarded-host"))
        if host is None and port is not None:
            host = _host(said.get(b"host", ""))
        if host is not None and port not in {None, _DEFAULT_PORTS.get(scheme)} and not _has_port(host):
            # A port in the host itself comes from the client's URL; X-Forwarded-Port is where the proxy listens, which
            # a port mapping in front of it may have changed.
            host = b"%s:%d" % (host, port)
        return Forwarded(client, scheme, host, port)

    def _standard(self, client: Address | None, scheme: str, chain: str) -> Forwarded:
        host = None
        for element in _elements(chain):
            pairs = _pairs(element)
            if pairs is None:
                break
            # An element is written by the proxy whose address is to the right of it, which has been found trusted: what
            # it says of scheme and host was true nearer to the client than what has been read so far.
            scheme = _SCHEMES.get(pairs.get("proto", "").lower(), scheme)
            host = _host(pairs.get("host", "")) or host
            address = _address(pairs.get("for", ""))
            if address is None:
                break
            client = address
            if not self.trusts(address[0]):
                break
        return Forwarded(client, scheme, host if self._host else None)

    def _judge(self, peer: str) -> bool:
        try:
            # A peer on the link carries its interface: fe80::1%eth0.
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            # What a dual-stack socket calls an IPv4 peer.
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def rewrite(scope: Scope, proxies: TrustedProxies) -> None:
    """Put what the proxy says into ``scope``: client, scheme, and the Host among the headers.

    Only for a request whose peer ``proxies.trusts``. The forwarding fields themselves stay in the headers.
    """
    headers = scope["headers"]
    seen = proxies.apply(scope["client"], scope["scheme"], headers)
    scope["client"] = seen.client
    scope["scheme"] = _WEBSOCKET_SCHEMES.get(seen.scheme, seen.scheme) if scope["type"] == "websocket" else seen.scheme
    if seen.host is not None:
        scope["headers"] = [(b"host", seen.host), *(field for field in headers if field[0] != b"host")]


def _networks(entries: list[str]) -> list[Network]:
    networks: list[Network] = []
    problems = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError as error:
            problems.append(f"{entry!r} is no trusted proxy: {error}; give an address, a network, unix: or *")
    if problems:
        raise ConfigError(problems)
    return networks


def _from_the_right(chain: str) -> list[str]:
    """The nodes of a chain, the nearest first. Empty list elements are nothing (RFC 9110 5.6.1)."""
    nodes = [node for node in map(str.strip, chain.rsplit(",", MOST_HOPS)[-MOST_HOPS:]) if node]
    nodes.reverse()
    return nodes


def _elements(chain: str) -> list[str]:
    """The elements of a Forwarded field, the nearest first, cut at commas that are outside of quotes.

    Quotes are counted from the right: those of the nearest proxy are balanced, so that a client which leaves one open
    cannot make its own text and the proxy's one quoted string. One that has escaped quotes inside is cut wrongly and
    then does not parse; no address, scheme or host name needs them.
    """
    elements: list[str] = []
    end = start = len(chain)
    quotes = 0
    while len(elements) < MOST_HOPS:
        comma = chain.rfind(",", 0, start)
        quotes += chain.count('"', max(comma, 0), start)
        if comma < 0:
            elements.append(chain[:end])
            break
        start = comma
        if quotes % 2 == 0:
            elements.append(chain[comma + 1 : end])
            end = comma
    return [element for element in elements if element.strip()]


def _pairs(element: str) -> dict[str, str] | None:
    """The parameters of one Forwarded element, names in lower case; None if it is malformed."""
    pairs: dict[str, str] = {}
    at = 0
    while at < len(element):
        match = _PAIR.match(element, at)
        if match is None:
            return None
        at = match.end()
        name, quoted, token = match.groups()
        if name is None:
            continue
        if name.lower() in pairs:
            # RFC 7239 4: each parameter MUST NOT occur more than once.
            return None
        pairs[name.lower()] = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
    return pairs


def _address(node: str) -> Address | None:
    """The address of a node and its port, 0 without one; None for what is none, such as "unknown" and "_hidden"."""
    if len(node) > _LONGEST_NODE or "%" in node:
        return None
    if node.startswith("["):
        host, bracket, rest = node[1:].partition("]")
        if not bracket or ":" not in host or (rest and rest[0] != ":"):
            return None
        port = rest[1:] if rest else "0"
    elif node.count(":") == 1:
        host, _, port = node.partition(":")
    else:
        host, port = node, "0"
    # RFC 7239 6.3: a port may be obfuscated as well.
    number = 0 if port.startswith("_") or port == "0" else _port(port)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if number is None else (host.lower(), number)


def _port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 5:
        return None
    number = int(text)
    return number if 0 < number < 65536 else None


def _host(text: str) -> bytes | None:
    """A value that may stand in a Host field."""
    host = text.encode("latin-1")
    return host if len(host) <= _LONGEST_HOST and is_authority(host) else None


def _has_port(host: bytes) -> bool:
    return b":" in host.rpartition(b"]")[2]


def _last(said: dict[bytes, str], name: bytes) -> str:
    """The last value of a list that is not empty."""
    return said.get(name, "").rstrip(", \t").rpartition(",")[2].strip()
