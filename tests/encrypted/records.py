"""Records of TLS 1.3 that no library sends when it is told to: KeyUpdates, one after another.

Python's ssl makes the handshake and tells its secrets (a keylog). From there on the client's records are made here,
with the cipher of RFC 8446 5.2 and the secrets of 7.2.
"""

from __future__ import annotations

import re
import ssl
import struct
import tempfile
import weakref
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

# RFC 8446 B.1, B.3.
_APPLICATION_DATA, _HANDSHAKE = 23, 22
#: A message KeyUpdate that asks for one in return.
_UPDATE = b"\x18\x00\x00\x01\x01"

#: Of TLS_AES_256_GCM_SHA384, which OpenSSL on both sides agrees on.
CIPHER = "TLS_AES_256_GCM_SHA384"
_HASH = hashes.SHA384()
_KEY_SIZE, _NONCE_SIZE = 32, 12


class KeyUpdates:
    """``next()`` is one record with a KeyUpdate. Nothing else may have been sent since the handshake."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._begin()

    def next(self) -> bytes:
        inner = _UPDATE + bytes([_HANDSHAKE])
        head = struct.pack(">BHH", _APPLICATION_DATA, 0x0303, len(inner) + 16)
        # The sequence number is 0: each key encrypts the update that ends it, and nothing else.
        record = head + self._key.encrypt(self._nonce, inner, head)
        self._secret = _expand(self._secret, "traffic upd", _HASH.digest_size)
        self._begin()
        return record

    def _begin(self) -> None:
        self._key = AESGCM(_expand(self._secret, "key", _KEY_SIZE))
        self._nonce = _expand(self._secret, "iv", _NONCE_SIZE)


class Told:
    """A client's context that tells its secrets."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115  # it lives as long as the context
        weakref.finalize(self, self._file.close)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = self._file.name
        self.context = context

    def updates(self, engine: ssl.SSLObject | ssl.SSLSocket) -> KeyUpdates:
        """Of the last connection, whose handshake is complete."""
        assert engine.cipher()[0] == CIPHER
        lines = Path(self._file.name).read_text()
        secret = re.findall(r"^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)$", lines, re.MULTILINE)[-1]
        return KeyUpdates(bytes.fromhex(secret))


def _expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label without a context, RFC 8446 7.1."""
    name = b"tls13 " + label.encode()
    given = struct.pack(">HB", size, len(name)) + name + b"\0"
    return HKDFExpand(_HASH, size, given).derive(secret)
