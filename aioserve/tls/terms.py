"""On which terms TLS is spoken: versions, ciphers, who chooses among them, whether clients show certificates.

The defaults are Mozilla's "intermediate" of 2025 but for its DHE ciphers, which need parameters and are what clients
take that nobody has any more: TLS 1.2 and 1.3, forward secrecy and authenticated encryption only. Groups are left to
OpenSSL, whose newer versions have hybrid ones for keys that are to be secret after quantum computers, too.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from aioserve.errors import ConfigError
from aioserve.tls import ktls

if TYPE_CHECKING:
    from aioserve.config.tree import Ssl

#: RFC 7301: what is spoken behind the handshake.
PROTOCOLS: Final = ("http/1.1",)

#: Of TLS 1.2; those of 1.3 are all good, and the ssl module cannot choose among them. AES first: see PREFER_CHACHA.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

#: SSL_OP_PRIORITIZE_CHACHA of <openssl/ssl.h>, for which the ssl module has no name: although the server chooses, a
#: client whose first wish is ChaCha20 gets it; that is one without AES in hardware.
PREFER_CHACHA: Final = 1 << 21

#: Of ``SSLContext.get_ciphers``; "any" is TLS 1.3.
_FORWARD_SECRET: Final = frozenset({"kx-ecdhe", "kx-dhe", "kx-any"})

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_WISHES: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def apply(settings: Ssl, context: ssl.SSLContext) -> None:
    """Set the terms on a server's context. Raises ``ConfigError`` for ciphers that OpenSSL does not know."""
    context.minimum_version = _VERSIONS[settings.minimum_version]
    # Compression: CRIME. Renegotiation: nobody needs it, and it costs a server more than a client (CVE-2011-1473).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | PREFER_CHACHA
    # A connection that ends without close_notify cannot cut a request short without our seeing it, since each says how
    # long it is (RFC 9112 9.8). In memory OpenSSL never sees such an end; on a socket it does, and would answer a FIN
    # with an alert in front of the response.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if settings.ktls:
        context.options |= ktls.OPTION
    # Two tickets after each full handshake with TLS 1.3 are OpenSSL's default, and right: browsers open several
    # connections, and use each ticket once (RFC 8446 C.4).
    context.set_alpn_protocols(list(PROTOCOLS))
    try:
        context.set_ciphers(settings.ciphers or CIPHERS)
    except ssl.SSLError:
        raise ConfigError(
            [f"ssl.ciphers: {settings.ciphers!r} names no cipher that {ssl.OPENSSL_VERSION} has; try: openssl ciphers"]
        ) from None
    context.verify_mode = _WISHES[settings.cert_reqs]


def doubts(settings: Ssl) -> list[str]:
    """Warnings about ciphers that were named in the settings."""
    if not settings.ciphers:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(settings.ciphers)
    weak = [str(one["name"]) for one in context.get_ciphers() if not (one["aead"] and one["kea"] in _FORWARD_SECRET)]
    if not weak:
        return []
    shown = ", ".join(weak[:3]) + (f" and {len(weak) - 3} more" if len(weak) > 3 else "")
    return [f"ssl.ciphers allows ciphers without forward secrecy or without authenticated encryption: {shown}"]


def check(settings: Ssl) -> None:
    """Raises ``ConfigError`` if they cannot be set."""
    apply(settings, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
