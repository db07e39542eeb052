"""Loads what was copied and says what is wrong with it; in a process of its own where that is to stay free of keys.

The standard library has no parser for certificates, so OpenSSL is asked by way of its own handshakes: a server with the
certificate speaks in memory with a client that trusts that very certificate, whatever its dates, and the client says
what it has seen. Those of authorities are told by a context's list of what it trusts.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.tls.credentials import as_ascii, load, trust
from aioserve.tls.findings import Certificate, Finding, Report, Weight, spell_time
from aioserve.tls.names import Names
from aioserve.tls.terms import CIPHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.tls.material import Loadable, Material, Source

#: X509_V_FLAG_NO_CHECK_TIME of <openssl/x509_vfy.h>, for which the ssl module has no name.
_NO_CHECK_TIME: Final = 0x200000

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL
)
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----(.{0,200})", re.DOTALL)

#: X509_V_ERR_INVALID_PURPOSE.
_WRONG_PURPOSE: Final = 26

Name = tuple[tuple[tuple[str, str], ...], ...]


@final
class _Refused(Exception):
    """This pair cannot be used."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(path, text)
        self.path: Final = path
        self.text: Final = text


def inspect(material: Material, now: float) -> Report:
    """Everything that can be said about it. ``now`` is in seconds since 1970."""
    certificates: list[Certificate] = []
    findings: list[Finding] = []
    roots = cache(_roots)
    for pair in material.pairs:
        try:
            certificate, doubts = _Pair(material, pair, roots).inspect()
        except _Refused as refused:
            findings.append(Finding(Weight.REFUSED, refused.path, refused.text))
            continue
        certificates.append(certificate)
        findings += [Finding(Weight.DOUBTFUL, certificate.path, doubt) for doubt in doubts]
        findings += _dates(certificate, now)
    if len(certificates) == len(material.pairs):
        findings += _doubles(certificates)
    digest = ""
    if material.authorities is not None:
        digest = hashlib.sha256(material.read(material.authorities)).hexdigest()
        findings += _authorities(material, material.authorities, now)
    return Report(tuple(certificates), tuple(findings), digest)


def _dates(certificate: Certificate, now: float) -> list[Finding]:
    if certificate.until <= now:
        text = f"has expired on {spell_time(certificate.until)}: clients refuse it"
    elif certificate.since > now:
        text = f"is not valid before {spell_time(certificate.since)}: clients refuse it until then"
    else:
        return []
    return [Finding(Weight.DATED, certificate.path, text)]


def _doubles(certificates: Sequence[Certificate]) -> list[Finding]:
    """Of two certificates with a name and a kind of key in common one is never shown for it."""
    names: dict[tuple[int, int], list[str]] = {}
    for name, first, second in Names(certificates).doubles:
        names.setdefault((first, second), []).append(name)
    return [
        Finding(
            Weight.DOUBTFUL,
            certificates[second].path,
            f"has names that {certificates[first].path} has, too, which is shown for them: {', '.join(doubles)}",
        )
        for (first, second), doubles in names.items()
    ]


def _authorities(material: Material, source: Source, now: float) -> list[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        trust(context, material, source)
    except ssl.SSLError as error:
        text = f"has no certificates of authorities that can be read ({_why(error)})"
        return [Finding(Weight.REFUSED, source.path, text)]
    if not context.cert_store_stats()["x509_ca"]:
        return [Finding(Weight.REFUSED, source.path, "has no certificate of an authority")]
    try:
        found = context.get_ca_certs()
    except UnicodeDecodeError:
        return [Finding(Weight.DOUBTFUL, source.path, "has a name that is not UTF-8: dates are not checked")]
    return [
        Finding(Weight.DOUBTFUL, source.path, f"has an authority that has expired: {_spell(one['subject'])}")
        for one in found
        if ssl.cert_time_to_seconds(str(one["notAfter"])) <= now
    ]


@final
class _Pair:
    """One certificate with its key. ``roots`` makes a client that trusts the authorities of this machine."""

    def __init__(self, material: Material, pair: Loadable, roots: Callable[[], ssl.SSLContext]) -> None:
        self._roots = roots
        self._material = material
        self._pair = pair
        self._path = pair.certificate.path
        self._content = material.read(pair.certificate)
        self._pems = [as_ascii(found.group()) for found in _CERTIFICATE.finditer(self._content)]

    def inspect(self) -> tuple[Certificate, list[str]]:
        server = self._load()
        seen, kind = self._decode(server)
        subject, issuer = seen.get("subject", ()), seen.get("issuer", ())
        names = tuple(
            found for sort, value in seen.get("subjectAltName", ()) if (found := _name(sort, value)) is not None
        )
        doubts = [] if names else ["has no names (subjectAltName): browsers refuse it"]
        doubts += self._chain(server, subject, issuer)
        certificate = Certificate(
            path=self._path,
            names=names,
            issuer="itself" if subject == issuer else _spell(issuer),
            since=float(ssl.cert_time_to_seconds(seen["notBefore"])),
            until=float(ssl.cert_time_to_seconds(seen["notAfter"])),
            kind=kind,
            pem=self._pems[0] + "\n",
            digest=hashlib.sha256(self._content).hexdigest(),
        )
        return certificate, doubts

    def _load(self) -> ssl.SSLContext:
        """The two in a server's context; a sentence if they do not fit."""
        pair, material = self._pair, self._material
        together = pair.key is pair.certificate or pair.key.path == self._path
        key = _KEY.search(material.read(pair.key))
        if not self._pems:
            raise _Refused(self._path, "has no certificate in PEM")
        if key is None:
            hint = ": put it in after the certificate, or name its file with ssl.keyfile" if together else " in PEM"
            raise _Refused(pair.key.path, f"has no private key{hint}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            load(context, material, pair)
        except ssl.SSLError as error:
            raise self._refused(error, encrypted=key[1] == b"ENCRYPTED " or b"ENCRYPTED" in key[2]) from None
        except OSError as error:
            raise _Refused(self._path, f"cannot be loaded: {error.strerror}") from None
        return context

    def _refused(self, error: ssl.SSLError, *, encrypted: bool) -> _Refused:
        key = self._pair.key.path
        reason = error.reason or ""
        if reason in {"NO_CERTIFICATE_ASSIGNED", "KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            return _Refused(key, f"is not the key of the certificate in {self._path}")
        if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
            return _Refused(
                self._path,
                f"is too weak for OpenSSL's security level ({reason.lower().replace('_', ' ')}); get a new one",
            )
        if encrypted and not self._material.password:
            return _Refused(key, "is encrypted, and there is no password: give ssl.keyfile_password")
        if encrypted:
            return _Refused(key, "is encrypted, and not with the password of ssl.keyfile_password")
        if not self._certificates_are_readable():
            return _Refused(self._path, f"has a certificate that cannot be read ({_why(error)})")
        return _Refused(key, f"has a private key that cannot be read ({_why(error)})")

    def _certificates_are_readable(self) -> bool:
        try:
            for pem in self._pems:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
        except ssl.SSLError:
            return False
        return True

    def _decode(self, server: ssl.SSLContext) -> tuple[dict[str, Any], str]:
        """What the certificate says, and the kind of its key."""
        client = _client(self._pems[:1])
        try:
            engine = _meet(client, server)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == _WRONG_PURPOSE:
                raise _Refused(self._path, "is not for servers: its extended key usage has no serverAuth") from None
            raise _Refused(self._path, f"has a chain that does not hold ({error.verify_message})") from None
        except ssl.SSLError as error:
            raise _Refused(self._path, f"does not work in a handshake ({_why(error)})") from None
        suite = (engine.cipher() or ("",))[0]
        try:
            seen = dict(engine.getpeercert() or {})
        except UnicodeDecodeError:
            raise _Refused(
                self._path, "has a name that is not in ASCII; names have to be in Punycode, xn--..."
            ) from None
        return seen, "ECDSA" if "-ECDSA-" in suite else "RSA"

    def _chain(self, server: ssl.SSLContext, subject: Name, issuer: Name) -> list[str]:
        """What is wrong with what follows the certificate, if anything is."""
        if subject == issuer:
            return [] if len(self._pems) == 1 else ["is signed by itself, and yet others follow it; leave them out"]
        if len(self._pems) == 1:
            return self._lone(server, issuer)
        wanted = issuer
        for number, pem in enumerate(self._pems[1:], 2):
            try:
                found = _authority(pem)
            except UnicodeDecodeError:
                return [f"has a name that is not UTF-8 at place {number} of its chain; what follows is not checked"]
            if found is None:
                return [
                    f"has a certificate that is no authority's at place {number} of its chain; clients may refuse it"
                ]
            if found["subject"] != wanted:
                there, due = _spell(found["subject"]), _spell(wanted)
                return [f"has a chain that is not in order: at place {number} is {there}, and it should be {due}"]
            wanted = found["issuer"]
        try:
            _meet(_client(self._pems[-1:]), server)
        except ssl.SSLError as error:
            return [f"has a chain in which a certificate is not signed by the next one ({_why(error)})"]
        return []

    def _lone(self, server: ssl.SSLContext, issuer: Name) -> list[str]:
        """No other certificate follows, so clients have to know the authority that has signed it."""
        try:
            _meet(self._roots(), server)
        except ssl.SSLCertVerificationError:
            doubt = (
                f"has no chain, and {_spell(issuer)}, who has signed it, is no root that this machine trusts: unless "
                "clients do, put the certificates in between after it"
            )
            return [doubt]
        return []


def _client(trusted: Sequence[str]) -> ssl.SSLContext:
    """A client that checks signatures only. It speaks TLS 1.2, because there the cipher tells the kind of key."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(CIPHERS)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    for pem in trusted:
        client.load_verify_locations(cadata=pem)
    return client


def _roots() -> ssl.SSLContext:
    client = _client(())
    client.load_default_certs(ssl.Purpose.SERVER_AUTH)  # takes 50 ms
    return client


def _meet(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory; the client's side. Raises ``ssl.SSLError``."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    ours, theirs = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    waiting = [ours, theirs]
    # Each turn moves one of them on, or it raises.
    while waiting:
        for engine in tuple(waiting):
            with suppress(ssl.SSLWantReadError):
                engine.do_handshake()
                waiting.remove(engine)
    return ours


def _authority(pem: str) -> dict[str, Any] | None:
    """What the certificate of an authority says; None if its owner may not sign others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    found = context.get_ca_certs()
    return dict(found[0]) if found else None


def _name(sort: str, value: str) -> str | None:
    """A name that a client may want to see; an address as people write it, where OpenSSL has all eight groups of it."""
    if sort == "DNS":
        return _printable(value)
    # Python says "<invalid>" for one that has neither 4 nor 16 bytes.
    return str(ip_address(value.strip())) if sort == "IP Address" and value != "<invalid>" else None


def _spell(name: object) -> str:
    """The common name, or what else there is."""
    parts: dict[str, str] = {}
    for group in name if isinstance(name, tuple) else ():
        for key, value in group:
            parts.setdefault(key, value)
    return _printable(parts.get("commonName") or " ".join(parts.values())) or "somebody without a name"


def _printable(text: str) -> str:
    """Without anything that a terminal would obey: not all that is said goes through the log."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's reason, as far as it gives one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return error.reason.lower().replace("_", " ") if error.reason else "not in PEM"
