"""From a handshake of a real engine to what a worker is told."""

from __future__ import annotations

import ssl

import pytest

from aioserve.http.introduction import IntroductionReader
from aioserve.terminator.introducing import introduce
from aioserve.tls import extension
from aioserve.worker.peer import Peer
from tests.tls import Authority, TlsClient, shake_hands

AUTHORITY = Authority()


class Transport:
    def __init__(self, engine):
        self.engine = engine

    def get_extra_info(self, name):
        return {"ssl_object": self.engine}[name]


def told(certificate=None, peer=None, **facts):
    """What the worker hears of a client that has shown this certificate, and the extension that inline TLS has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    AUTHORITY.server().load_into(context)
    client = AUTHORITY.client_context(certificate)
    client.set_alpn_protocols(["http/1.1"])
    engine = shake_hands(context, TlsClient(client))
    engine.asked_for = facts.get("asked_for")
    tls = extension.of(engine, "PEM")
    peer = peer or Peer(("192.0.2.7", 1), ("192.0.2.1", 2), "https")
    peer.extensions = {**(peer.extensions or {}), "tls": tls}
    return IntroductionReader().feed(introduce(Transport(engine), peer)), tls


def test_version_cipher_protocol_and_name_are_said():
    client, tls = told(asked_for="example.org")
    assert (client.version, client.alpn, client.authority) == ("TLSv1.3", "http/1.1", "example.org")
    assert extension.cipher_suites()[client.cipher] == tls["cipher_suite"]
    assert (client.own_certificate, client.certificates, client.common_name) == ("PEM", (), "")
    assert client.more is None


def test_a_certificate_is_said_with_the_whole_name():
    certificate = AUTHORITY.client("alice", organization="Wonderland")
    client, tls = told(certificate)
    assert client.certificates[0] == certificate.der
    assert [ssl.DER_cert_to_PEM_cert(one) for one in client.certificates] == list(tls["client_cert_chain"])
    assert client.common_name == "alice"
    assert client.name == tls["client_cert_name"]
    assert "O=Wonderland" in client.name


@pytest.mark.parametrize("anonymous", [True, False])
def test_what_a_load_balancer_has_said_is_passed_on(anonymous):
    said = {"aioserve.proxy_protocol": {"alpn": b"h\xff", "authority": "a", "unique_id": b""}}
    client, _ = told(peer=Peer(None, None, "https", extensions=said, anonymous=anonymous))
    assert client.more["extensions"]["aioserve.proxy_protocol"]["alpn"] == {"bytes": "h\u00ff"}
    assert client.more.get("anonymous", False) is anonymous
