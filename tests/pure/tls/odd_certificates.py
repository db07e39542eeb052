"""Certificates that are wrong in one way each, signed by themselves unless an issuer is given."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.tls import Certificate

DAY = dt.timedelta(days=1)
SUBJECT_ALTERNATIVE_NAME = x509.ObjectIdentifier("2.5.29.17")
SIGNED_WITHOUT_HASH = (ed25519.Ed25519PrivateKey,)


def make(
    *names,
    kind="ec",
    since=-1,
    days=30,
    purpose=None,
    name="odd",
    authority=False,
    issuer=None,
    identified=False,
    enciphers=False,
    encoded=b"",
):
    """What is wrong is said by the arguments.

    ``encoded`` are names in DER, of fewer than 128 bytes together. ``issuer`` is what ``make`` has returned as the
    second one: (certificate, its key).
    """
    key = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "weak": lambda: rsa.generate_private_key(65537, 1024),
    }[kind]()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since * DAY)
        .not_valid_after(now + days * DAY)
    )
    if names:
        alternatives = x509.SubjectAlternativeName(list(map(x509.DNSName, names)))
        builder = builder.add_extension(alternatives, critical=False)
    if encoded:
        value = bytes((0x30, len(encoded))) + encoded
        builder = builder.add_extension(x509.UnrecognizedExtension(SUBJECT_ALTERNATIVE_NAME, value), critical=False)
    if purpose == "client":
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if identified:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        above = (issuer[1] if issuer else key).public_key()
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
    if enciphers:
        usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    signer = issuer[1] if issuer else key
    made = builder.sign(signer, None if isinstance(signer, SIGNED_WITHOUT_HASH) else hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(pem, secret), (made, key)
