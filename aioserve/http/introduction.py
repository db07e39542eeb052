"""What a process that speaks TLS says of a client to workers of its own server: a PROXY header of version 2, and back.

It is what haproxy's doc/proxy-protocol.txt has for it, so that every reader of the protocol understands it, and the
types that are everybody's own (0xE0 to 0xEF) for the rest: what an application is shown must not depend on where TLS
ends. One that is not known, or comes twice, is an error of ours and not of a client's; the reader refuses it all the
same, because whoever got this far may still be somebody else.

    0x01  ALPN                   0x20  SSL: bits, verify, and within it       0xE0  the other certificates, as 0x28
    0x02  AUTHORITY, the SNI           0x21  version       0x23  cipher       0xE1  our own certificate, in PEM
                                       0x22  Common Name                      0xE2  the client's subject (RFC 4514)
                                       0x28  the client's certificate, DER    0xE3  what is wrong with its certificate
                                                                              0xE4  what has no place in all this, JSON
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.errors import PreambleError
from aioserve.http.proxy_protocol import SIGNATURE
from aioserve.http.proxy_tlvs import split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioserve.types import Address

#: The length of what follows has two bytes (2.2). Certificates of a client that do not fit are not those of a person.
LONGEST: Final = 0xFFFF

_FIXED: Final = 16
_PROXY: Final = 0x21
_INET: Final = 0x11
_INET6: Final = 0x21
_UNIX: Final = 0x31
_PATH: Final = 108

_ALPN: Final = 0x01
_AUTHORITY: Final = 0x02
_SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_CN: Final = 0x22
_SSL_CIPHER: Final = 0x23
_SSL_CERTIFICATE: Final = 0x28
_CERTIFICATE: Final = 0xE0
_OWN_CERTIFICATE: Final = 0xE1
_NAME: Final = 0xE2
_FAULT: Final = 0xE3
_MORE: Final = 0xE4

# 2.2.6, the bits of <client>: over TLS; with a certificate on this connection.
_OVER_TLS: Final = 0x01
_WITH_CERTIFICATE: Final = 0x02


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Introduced:
    """A client. Texts are as OpenSSL has them, "" where there is nothing to say."""

    client: Address | None  # None: it has come through a unix socket
    server: tuple[str, int | None] | None
    version: str = ""
    cipher: str = ""
    alpn: str = ""
    authority: str = ""
    certificates: tuple[bytes, ...] = ()  # of the client, its own first
    common_name: str = ""
    name: str | None = None
    fault: str | None = None
    verify: int = 0
    own_certificate: str = ""
    more: dict[str, Any] | None = None


def write(one: Introduced) -> bytes:
    """The header. Raises ``ValueError`` if there is too much to say."""
    block, more = _addresses(one)
    tlvs = [(_ALPN, one.alpn.encode()), (_AUTHORITY, one.authority.encode()), (_SSL, _write_tls(one))]
    tlvs += [(_CERTIFICATE, certificate) for certificate in one.certificates[1:]]
    tlvs += [(_OWN_CERTIFICATE, one.own_certificate.encode())]
    tlvs += [(kind, text.encode()) for kind, text in ((_NAME, one.name), (_FAULT, one.fault)) if text is not None]
    if more or one.more:
        tlvs.append((_MORE, json.dumps({**(one.more or {}), **more}).encode()))
    rest = block[1] + _join((kind, value) for kind, value in tlvs if value or kind in {_NAME, _FAULT})
    if len(rest) > LONGEST:
        raise ValueError(f"{len(rest)} bytes; {LONGEST} have a place in a PROXY header")
    return SIGNATURE + bytes((_PROXY, block[0])) + len(rest).to_bytes(2, "big") + rest


def _addresses(one: Introduced) -> tuple[tuple[int, bytes], dict[str, Any]]:
    """Family and block, and what it does not say exactly."""
    client, server = one.client, one.server
    if client is not None and server is not None and server[1] is not None:
        try:
            packed = [ipaddress.ip_address(address).packed for address in (client[0], server[0])]
        except ValueError:
            packed = []
        # A zone is good on this machine, and has no place in a header.
        if packed and len(packed[0]) == len(packed[1]) and "%" not in client[0] + server[0]:
            ports = client[1].to_bytes(2, "big") + server[1].to_bytes(2, "big")
            return (_INET if len(packed[0]) == 4 else _INET6, b"".join((*packed, ports))), {}
    path = server[0].encode("utf-8", "surrogateescape") if server is not None and server[1] is None else b""
    block = _UNIX, bytes(_PATH) + path[:_PATH].ljust(_PATH, b"\0")
    if client is None and server is not None and server[1] is None and 0 < len(path) < _PATH:
        return block, {}
    return block, {"client": client, "server": server}


def _write_tls(one: Introduced) -> bytes:
    bits = _OVER_TLS | (_WITH_CERTIFICATE if one.certificates else 0)
    parts = [
        (_SSL_VERSION, one.version.encode()),
        (_SSL_CIPHER, one.cipher.encode()),
        (_SSL_CN, one.common_name.encode()),
        *((_SSL_CERTIFICATE, certificate) for certificate in one.certificates[:1]),
    ]
    return bytes((bits,)) + one.verify.to_bytes(4, "big") + _join((kind, value) for kind, value in parts if value)


def _join(tlvs: Iterable[tuple[int, bytes]]) -> bytes:
    found = b""
    for kind, value in tlvs:
        if len(value) > LONGEST:
            raise ValueError(f"{len(value)} bytes; {LONGEST} have a place in a PROXY header")
        found += bytes((kind,)) + len(value).to_bytes(2, "big") + value
    return found


@final
class IntroductionReader:
    """Reads one header. Feed it until it answers; what came behind it is ``rest``."""

    __slots__ = ("_seen", "rest")

    def __init__(self) -> None:
        self.rest: bytes = b""
        self._seen: bytes = b""

    def feed(self, data: bytes) -> Introduced | None:
        """The client once all of it is here, else None. Raises ``PreambleError``; do not feed again after either."""
        seen = self._seen = self._seen + data
        if not SIGNATURE.startswith(seen[: len(SIGNATURE)]) or (len(seen) > 12 and seen[12] != _PROXY):
            raise PreambleError("a terminator that sends no PROXY header of version 2")
        if len(seen) < _FIXED:
            return None
        end = _FIXED + int.from_bytes(seen[14:16], "big")
        if len(seen) < end:
            return None
        self.rest = seen[end:]
        try:
            return _read(seen[:end])
        except ValueError as error:  # no UTF-8, no JSON
            raise PreambleError(f"a terminator that cannot be understood: {error}") from None


def _read(header: bytes) -> Introduced:
    start, client, server = _read_addresses(header)
    found: dict[int, bytes] = {}
    certificates: list[bytes] = []
    for kind, _, value in split(header, start):
        if kind == _CERTIFICATE:
            certificates.append(value)
        else:
            _note(found, kind, value, _KNOWN)
    tls = found.get(_SSL, b"")
    if len(tls) < 5:
        raise PreambleError("a terminator that says nothing of TLS")
    inner: dict[int, bytes] = {}
    for kind, _, value in split(tls, 5):
        _note(inner, kind, value, _KNOWN_OF_SSL)
    more = json.loads(found.get(_MORE, b"{}"))
    if "client" in more:
        client, server = (tuple(name) if name else None for name in (more.pop("client"), more.pop("server")))
    return Introduced(
        client=client,
        server=server,
        version=inner.get(_SSL_VERSION, b"").decode(),
        cipher=inner.get(_SSL_CIPHER, b"").decode(),
        alpn=found.get(_ALPN, b"").decode(),
        authority=found.get(_AUTHORITY, b"").decode(),
        certificates=(inner[_SSL_CERTIFICATE], *certificates) if _SSL_CERTIFICATE in inner else (),
        common_name=inner.get(_SSL_CN, b"").decode(),
        name=found[_NAME].decode() if _NAME in found else None,
        fault=found[_FAULT].decode() if _FAULT in found else None,
        verify=int.from_bytes(tls[1:5], "big"),
        own_certificate=found.get(_OWN_CERTIFICATE, b"").decode(),
        more=more or None,
    )


_KNOWN: Final = frozenset({_ALPN, _AUTHORITY, _SSL, _OWN_CERTIFICATE, _NAME, _FAULT, _MORE})
_KNOWN_OF_SSL: Final = frozenset({_SSL_VERSION, _SSL_CN, _SSL_CIPHER, _SSL_CERTIFICATE})


def _read_addresses(header: bytes) -> tuple[int, Address | None, tuple[str, int | None] | None]:
    """Where the TLVs begin, and both ends."""
    family = header[13]
    size = {_INET: 4, _INET6: 16, _UNIX: _PATH}.get(family, 0)
    start = _FIXED + 2 * size + (0 if family == _UNIX else 4)
    if not size or len(header) < start:
        raise PreambleError("a terminator that does not say where its client is")
    source, destination = header[_FIXED : _FIXED + size], header[_FIXED + size : _FIXED + 2 * size]
    if family == _UNIX:
        return start, None, (destination.partition(b"\0")[0].decode("utf-8", "surrogateescape"), None)
    ports = header[start - 4 : start]
    client = _spell(source), int.from_bytes(ports[:2], "big")
    return start, client, (_spell(destination), int.from_bytes(ports[2:], "big"))


def _spell(packed: bytes) -> str:
    """As the kernel spells it."""
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped is not None else str(address)


def _note(found: dict[int, bytes], kind: int, value: bytes, known: frozenset[int]) -> None:
    if kind not in known or kind in found:
        raise PreambleError(f"a terminator with a TLV of type 0x{kind:02x} that is not known or comes twice")
    found[kind] = value
