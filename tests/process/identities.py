"""Files that programs in front of a server, and its clients, are given: one folder with everybody's certificates.

identities = Identities(directory)
identities.site        certificate and key of a server for localhost and 127.0.0.1, in one file
identities.sites       the certificate of the authority behind it; ``clients`` is that of the clients'
identities.robot       certificate and key of a client whose Common Name has a comma
identities.stranger    the same, of an authority that nobody knows
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.tls import DAY, NAMES, Authority, Certificate

if TYPE_CHECKING:
    from pathlib import Path

#: Of both clients.
COMMON_NAME = "robot, the"


class Identities:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority()
        clients = Authority()
        self.sites = self.authority.write(directory, "sites")
        # haproxy's example asks for this name.
        self.clients = clients.write(directory, "clients").rename(directory / "clients.pem")
        self.site_certificate = self.authority.server(*NAMES, "a.example")
        self.site = self.site_certificate.write_together(directory, "site")
        self.robot_certificate = clients.client(COMMON_NAME, organization="works")
        self.robot = self.robot_certificate.write_together(directory, "robot")
        self.stranger = Authority().client(COMMON_NAME).write_together(directory, "stranger")

    @property
    def robot_name(self) -> str:
        """The subject of the robot's certificate, as RFC 4514 writes it."""
        return x509.load_pem_x509_certificate(self.robot_certificate.pem).subject.rfc4514_string()

    @property
    def site_pin(self) -> str:
        """The site's public key, as pins have it (RFC 7469 2.4): for clients that trust it and nobody else."""
        key = x509.load_pem_x509_certificate(self.site_certificate.pem).public_key()
        return base64.b64encode(
            hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
        ).decode()


def self_signed(*names: str, days: float = 90) -> Certificate:
    """What administrators begin with: a server's certificate for which nobody but itself vouches."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    named = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.SubjectAlternativeName(named), critical=False)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(certificate.public_bytes(Encoding.PEM), secret)
