"""What scopes say of TLS: names, versions, ciphers and chains, from real handshakes in memory."""

from __future__ import annotations

import datetime as dt
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aioserve.tls import extension
from tests.tls import Authority, Certificate, TlsClient, shake_hands

SERVERS = Authority()
CLIENTS = Authority(intermediates=1)
SERVER = SERVERS.server()


def server(clients=None, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.load_into(context)
    if clients is not None:
        context.load_verify_locations(cadata=clients.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
    for option, value in options.items():
        setattr(context, option, value)
    return context


def met(context, certificate=None, **options):
    """The server's side of a handshake with a client that shows ``certificate``."""
    return shake_hands(context, TlsClient(SERVERS.client_context(certificate, **options)))


def named(*parts, alternatives=None):
    """A certificate that has signed itself, with this subject: a tuple of pairs for each part."""
    name = x509.Name([x509.RelativeDistinguishedName([x509.NameAttribute(*pair) for pair in part]) for part in parts])
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if alternatives is not None:
        oid = x509.ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, alternatives), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return signed, Certificate(
        signed.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@pytest.mark.parametrize(
    ("version", "number", "suite"),
    [(ssl.TLSVersion.TLSv1_2, 0x0303, 0xC02B), (ssl.TLSVersion.TLSv1_3, 0x0304, 0x1302)],
)
def test_versions_and_ciphers_have_their_registered_numbers(version, number, suite):
    context = server()
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    said = extension.of(met(context, minimum_version=version, maximum_version=version), "PEM")
    assert said == {
        "server_cert": "PEM",
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": number,
        "cipher_suite": suite,
    }


def test_what_connections_have_in_common_is_there_once():
    context = server()
    assert extension.of(met(context), None) is extension.of(met(context), None)


def test_a_client_that_need_not_show_a_certificate_and_does_not_has_no_name():
    said = extension.of(met(server(CLIENTS.pem)), None)
    assert (said["client_cert_name"], said["client_cert_chain"]) == (None, ())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_clients_chain_is_what_it_has_sent_and_begins_with_its_own_certificate(version):
    alice = CLIENTS.client("alice", organization="Wonder, Inc.")
    said = extension.of(met(server(CLIENTS.pem), alice, maximum_version=version), None)
    assert "".join(said["client_cert_chain"]).encode() == alice.chain
    assert len(said["client_cert_chain"]) == 2
    assert said["client_cert_name"].startswith("CN=alice,OU=Testing cert ")
    assert said["client_cert_name"].endswith(",O=Wonder\\, Inc.")


def test_after_a_resumption_the_clients_own_certificate_is_still_there():
    context, alice = server(CLIENTS.pem), CLIENTS.client("alice")
    options = SERVERS.client_context(alice, maximum_version=ssl.TLSVersion.TLSv1_2)
    first = TlsClient(options)
    shake_hands(context, first)
    again = shake_hands(context, TlsClient(options, session=first.engine.session))
    said = extension.of(again, None)
    assert again.session_reused
    assert said["client_cert_chain"][0].encode() == alice.pem
    assert said["client_cert_name"].startswith("CN=alice,")


@pytest.mark.parametrize(
    "parts",
    [
        [[(NameOID.COMMON_NAME, "robot")]],
        [[(NameOID.COUNTRY_NAME, "DE")], [(NameOID.LOCALITY_NAME, "Köln")], [(NameOID.COMMON_NAME, " a,b+c ")]],
        [[(NameOID.COMMON_NAME, '#"\\<>;')], [(NameOID.DOMAIN_COMPONENT, "example")]],
        [[(NameOID.STATE_OR_PROVINCE_NAME, "a"), (NameOID.STREET_ADDRESS, "b"), (NameOID.USER_ID, "c")]],
        [[(NameOID.COMMON_NAME, "x" * 60)], [(NameOID.ORGANIZATIONAL_UNIT_NAME, " ")]],
    ],
    ids=["one part", "the last comes first", "escapes", "several in one part", "spaces"],
)
def test_a_name_is_written_as_another_implementation_writes_it(parts):
    signed, certificate = named(*parts)
    said = extension.of(met(server(certificate.chain), certificate), None)
    assert said["client_cert_name"] == signed.subject.rfc4514_string()


def test_a_client_with_a_name_that_python_cannot_read_is_let_in_without_one():
    mail = b"\x30\x07\x81\x05b\xfc@ex"
    _, certificate = named([(NameOID.COMMON_NAME, "robot")], alternatives=mail)
    said = extension.of(met(server(certificate.chain), certificate), None)
    assert said["client_cert_name"] is None
    assert len(said["client_cert_chain"]) == 1


@pytest.mark.parametrize("text", ["short", "x" * 200])
def test_a_type_without_a_name_has_its_number_and_its_value_in_ber(text):
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
    signed, certificate = named([(oid, text)])
    said = extension.of(met(server(certificate.chain), certificate), None)
    encoded = signed.subject.public_bytes()
    kind, _, value = said["client_cert_name"].partition("=#")
    assert kind == oid.dotted_string
    assert encoded.endswith(bytes.fromhex(value))


@pytest.mark.parametrize(
    ("value", "written"),
    [("a\0b", "a\\00b"), ("#a b#", "\\#a b#"), ("a b", "a b"), ("a\n ", "a\n\\ "), ("\n #", "\n #")],
)
def test_what_has_a_meaning_in_names_is_escaped(value, written):
    assert extension.escaped(value) == written
