"""Why a handshake has failed, in a sentence for whoever runs the server, and whether there is anything to be done."""

from __future__ import annotations

import ssl
from typing import Final

#: OpenSSL's reasons that an operator can act on: a setting, a certificate, or a client that has to be renewed. All
#: others are the client's business: scanners, garbage, connections that break.
_SENTENCES: Final = {
    "UNSUPPORTED_PROTOCOL": "the client speaks only versions of TLS that are older than --ssl-minimum-version",
    "VERSION_TOO_LOW": "the client speaks only versions of TLS that are older than --ssl-minimum-version",
    "NO_SHARED_CIPHER": "client and server have no cipher in common, see --ssl-ciphers",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the client cannot verify signatures of the kind of the server's key",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has shown no certificate, see --ssl-cert-reqs",
    # What clients say of the certificate that they were shown. RFC 8446 6.2 has the words, OpenSSL these names.
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client has refused the server's certificate as bad",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that the server's certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client says that the server's certificate was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept the server's certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the client cannot use the server's certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know who signed the server's certificate; is its chain complete?",
}


def explain(error: ssl.SSLError) -> tuple[str, bool]:
    """A sentence, and whether it is of use to somebody other than a developer."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate was refused: {error.verify_message}", True
    sentence = _SENTENCES.get(reason)
    if sentence is not None:
        return sentence, True
    return reason.replace("_", " ").lower() or str(error), False
