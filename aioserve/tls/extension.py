"""ASGI's ``tls`` extension, version 0.2: what a scope says of the TLS that its request came through.

The same words whoever has spoken TLS: this process (``of``), or a load balancer that tells of it (``worker.preamble``).
https://asgi.readthedocs.io/en/latest/specs/tls.html
"""

from __future__ import annotations

import re
import ssl
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    # As ``getpeercert`` has it: parts in the certificate's order, and each is one or more pairs of type and value.
    Name = Sequence[Sequence[tuple[str, str]]]

#: ASGI has the numbers of the protocol. OpenSSL's names, and Go's.
VERSIONS: Final = {
    "TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304,
    "TLS 1.0": 0x0301, "TLS 1.1": 0x0302, "TLS 1.2": 0x0303, "TLS 1.3": 0x0304,
}  # fmt: skip

# RFC 4514 2.4: escaped wherever they stand; and at the beginning or the end.
_SPECIAL: Final = re.compile(r'["+,;<>\\]|^[ #]|(?<=.) \Z', re.DOTALL)

# RFC 4514 3: the short names that everybody has to know, by OpenSSL's long ones. Others keep their names.
_SHORT: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
    "surname": "SN",
}

#: Combinations of certificate, version and cipher that are kept; a server has a few certificates and few ciphers.
_KEPT: Final = 64


def of(engine: ssl.SSLObject | ssl.SSLSocket, server_cert: str | None) -> dict[str, object]:
    """What ``engine``, whose handshake is complete, knows; ``server_cert`` is the certificate it has shown, as PEM.

    Several connections may have the same dict, so nobody must change it.
    """
    cipher = engine.cipher()
    common = _common(server_cert, engine.version() or "", cipher[0] if cipher else "")
    own = engine.getpeercert(binary_form=True)
    if not own:
        return common
    try:
        found: dict[str, Any] = engine.getpeercert() or {}
        name = distinguished_name(found.get("subject", ()))
    except UnicodeDecodeError:  # of all its names Python gives none if one is not in UTF-8
        name = None
    return {
        **common,
        "client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(der) for der in _chain(engine) or (own,)),
        # OpenSSL ends a handshake with a certificate that it cannot verify; so this one it has.
        "client_cert_name": name,
    }


@lru_cache(maxsize=_KEPT)
def _common(server_cert: str | None, version: str, cipher: str) -> dict[str, object]:
    return extension(server_cert=server_cert, version=version, cipher=cipher)


def extension(
    *,
    server_cert: str | None,
    version: str,
    cipher: str,
    client_name: str | None = None,
    client_error: str | None = None,
) -> dict[str, object]:
    """The extension of a connection without a client's certificate."""
    return {
        "server_cert": server_cert,
        "client_cert_chain": (),
        "client_cert_name": client_name,
        "client_cert_error": client_error,
        "tls_version": VERSIONS.get(version),
        "cipher_suite": cipher_suites().get(cipher),
    }


def distinguished_name(name: Name) -> str:
    """``name`` as RFC 4514 writes it: the last part first, so that the most special one is in front."""
    return ",".join("+".join(_pair(kind, value) for kind, value in part) for part in reversed(name))


def _pair(kind: str, value: str) -> str:
    if kind[0].isdigit():
        # RFC 4514 2.4: the value of a type without a name is its encoding in BER.
        return f"{kind}=#{_ber(value.encode()).hex()}"
    return f"{_SHORT.get(kind, kind)}={escaped(value)}"


def _ber(text: bytes) -> bytes:
    """A UTF8String (X.690 8.1.3)."""
    size = len(text)
    if size < 0x80:
        return bytes((0x0C, size)) + text
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x0C, 0x80 | len(length))) + length + text


def escaped(value: str) -> str:
    """``value`` so that it cannot pass for several parts of a name (RFC 4514 2.4)."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], value).replace("\0", "\\00")


def _chain(engine: Any) -> list[bytes]:
    """The client's certificates in DER, its own first, as it has sent them; none after a resumption."""
    if hasattr(engine, "get_unverified_chain"):
        ders: list[bytes] = engine.get_unverified_chain()
        return ders
    # Before Python 3.13 the same is there without a public name. 2 is _ssl.ENCODING_DER.
    return [certificate.public_bytes(2) for certificate in engine._sslobj.get_unverified_chain() or ()]


@cache
def cipher_suites() -> dict[str, int]:
    """The registered number of every cipher suite that OpenSSL has a name for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A load balancer may allow what this machine would not.
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {str(cipher["name"]): cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
