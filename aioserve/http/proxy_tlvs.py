"""The TLVs at the end of a PROXY protocol header of version 2, and its checksum (sections 2.2.1 to 2.2.7).

Types that are not known here are passed over, those of load balancers' makers among them. A known one that comes twice,
runs over the end or has a value that cannot be is refused, together with the connection: a name or a certificate that
can be read in two ways must not reach an application that decides by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import PreambleError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALPN: Final = 0x01
_AUTHORITY: Final = 0x02
_CRC32C: Final = 0x03
_UNIQUE_ID: Final = 0x05
_SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_CN: Final = 0x22
_SSL_CIPHER: Final = 0x23
_SSL_SIGNATURE: Final = 0x24
_SSL_KEY: Final = 0x25

_KNOWN: Final = frozenset({_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL})
_KNOWN_OF_SSL: Final = frozenset({_SSL_VERSION, _SSL_CN, _SSL_CIPHER, _SSL_SIGNATURE, _SSL_KEY})

# 2.2.6, the bits of <client>: over TLS; with a certificate, on this connection or earlier in its TLS session.
_OVER_TLS: Final = 0x01
_WITH_CERTIFICATE: Final = 0x02 | 0x04

#: 2.2.5: an opaque sequence of up to 128 bytes.
_LONGEST_UNIQUE_ID: Final = 128


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How the client has connected to the load balancer. Texts are as OpenSSL has them, "" where it does not say.

    ``signature`` and ``key`` are those of the certificate that the load balancer has shown.
    ``client_verified`` means that there was a certificate and that it was found good: load balancers also send a
    ``<verify>`` of 0 where there was none. ``client_name`` is its Common Name, verified or not.
    """

    version: str = ""
    cipher: str = ""
    signature: str = ""
    key: str = ""
    client_name: str = ""
    client_presented: bool = False
    client_verified: bool = False
    verify: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the TLVs say. ``authority`` is the host that the client has named in its TLS handshake (SNI)."""

    alpn: bytes = b""
    authority: str = ""
    unique_id: bytes = b""
    tls: ClientTls | None = None


NOTHING: Final = Facts()


def read_tlvs(header: bytes, start: int) -> Facts:
    """What the TLVs from ``start`` to the end of the whole ``header`` say. Raises ``PreambleError``."""
    if start == len(header):
        return NOTHING
    found: dict[int, bytes] = {}
    for kind, at, value in split(header, start):
        _note(found, kind, value, _KNOWN)
        if kind == _CRC32C:
            _check_sum(header, at, value)
    unique_id = found.get(_UNIQUE_ID, b"")
    if len(unique_id) > _LONGEST_UNIQUE_ID:
        raise PreambleError(f"a PROXY header with a unique id of {len(unique_id)} bytes; {_LONGEST_UNIQUE_ID} may be")
    return Facts(
        alpn=found.get(_ALPN, b""),
        authority=_text(found, _AUTHORITY),
        unique_id=unique_id,
        tls=_tls(found[_SSL]) if _SSL in found else None,
    )


def _tls(block: bytes) -> ClientTls | None:
    """What an SSL TLV says; None for a client that did not use TLS."""
    if len(block) < 5:
        raise PreambleError(f"a PROXY header with an SSL TLV of {len(block)} bytes; 5 are the least")
    found: dict[int, bytes] = {}
    for kind, _, value in split(block, 5):
        _note(found, kind, value, _KNOWN_OF_SSL)
    client, verify = block[0], int.from_bytes(block[1:5], "big")
    if not client & _OVER_TLS:
        return None
    presented = bool(client & _WITH_CERTIFICATE)
    return ClientTls(
        version=_text(found, _SSL_VERSION),
        cipher=_text(found, _SSL_CIPHER),
        signature=_text(found, _SSL_SIGNATURE),
        key=_text(found, _SSL_KEY),
        client_name=_text(found, _SSL_CN),
        client_presented=presented,
        client_verified=presented and verify == 0,
        verify=verify,
    )


def split(block: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, where the value begins, and value of each TLV from ``at`` on."""
    while at < len(block):
        value_at = at + 3
        end = value_at + int.from_bytes(block[at + 1 : value_at], "big")
        if value_at > len(block) or end > len(block):
            raise PreambleError("a PROXY header whose TLVs are longer than their place")
        yield block[at], value_at, block[value_at:end]
        at = end


def _note(found: dict[int, bytes], kind: int, value: bytes, known: frozenset[int]) -> None:
    if kind in known:
        if kind in found:
            raise PreambleError(f"a PROXY header with two TLVs of type 0x{kind:02x}")
        found[kind] = value


def _text(found: dict[int, bytes], kind: int) -> str:
    try:
        text = found.get(kind, b"").decode()
    except UnicodeDecodeError:
        text = "\0"
    # Nobody's host name, Common Name or cipher has control characters, but a log that shows them is at their mercy.
    if not text.isprintable():
        raise PreambleError(f"a PROXY header with a TLV of type 0x{kind:02x} that is no text: {found[kind][:64]!r}")
    return text


def _check_sum(header: bytes, at: int, value: bytes) -> None:
    """2.2.3: the checksum is that of the whole header with zeroes in the checksum's place."""
    if len(value) != 4:
        raise PreambleError(f"a PROXY header with a checksum of {len(value)} bytes; 4 make one")
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(value, "big"):
        raise PreambleError("a PROXY header whose checksum is wrong")


def crc32c(octets: bytes) -> int:
    """The checksum of RFC 4960, Appendix B (Castagnoli). Some 30 microseconds for a header of 200 bytes."""
    table = _table()
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = crc >> 8 ^ table[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            # The polynomial 0x1EDC6F41, its bits reversed.
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
