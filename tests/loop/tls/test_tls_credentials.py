"""Handshakes in memory with a real client: which certificate it sees, who is let in, what is resumed."""

import ssl
import sys
import threading

import pytest

from aioserve.config.tree import Ssl
from aioserve.tls.credentials import Credentials, hush_odd_names, make_front
from aioserve.tls.take import take
from tests.pure.tls.odd_certificates import make
from tests.tls import Authority, TlsClient

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Meeting:
    """A handshake between ``client`` and the credentials; raises what the client does, or else what the server does."""

    def __init__(self, credentials, client, name="localhost", session=None):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = credentials.engine(there, back)
        self.client = client.wrap_bio(back, there, server_hostname=name, session=session)
        waiting, refused = [self.client, self.server], None
        while waiting:
            for engine in tuple(waiting):
                try:
                    engine.do_handshake()
                    waiting.remove(engine)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    if engine is self.client:
                        raise
                    refused = error
                    waiting = [one for one in waiting if one is not engine]
            if refused is not None and waiting == [self.client]:
                break
        if refused is not None:
            raise refused
        # Tickets of TLS 1.3 come after the handshake, with the first data.
        self.server.write(b"hello")
        self.received = self.client.read(100)

    @property
    def der(self):
        return self.client.getpeercert(True)

    @property
    def session(self):
        return self.client.session

    @property
    def resumed(self):
        assert self.client.session_reused is self.server.session_reused
        return self.client.session_reused


class Shop:
    """Sets of certificates in a folder, and credentials with the first of them."""

    def __init__(self, folder, authority):
        self.folder = folder
        self.authority = authority
        self.taken = []

    def take(self, *certificates, **settings):
        paths = [one.write(self.folder, f"{len(self.taken)}-{number}") for number, one in enumerate(certificates)]
        self.settings = Ssl(
            certfile=tuple(str(path) for path, _ in paths), keyfile=tuple(str(path) for _, path in paths), **settings
        )
        self.taken.append(take(self.settings))
        return self.taken[-1]

    def credentials(self, *certificates, front=None, **settings):
        chosen = self.take(*certificates, **settings)
        credentials = Credentials(self.settings, chosen, front)
        chosen.close()
        return credentials


@pytest.fixture
def authority():
    return Authority(intermediates=1)


@pytest.fixture
def shop(tmp_path, authority):
    shop = Shop(tmp_path, authority)
    yield shop
    for chosen in shop.taken:
        chosen.close()


@pytest.fixture
def client(authority):
    return authority.client_context()


def test_a_client_sees_the_certificate_with_its_chain(shop, authority, client):
    certificate = authority.server()
    credentials = shop.credentials(certificate)
    meeting = Meeting(credentials, client)
    assert meeting.der == certificate.der
    assert meeting.received == b"hello"
    assert meeting.client.selected_alpn_protocol() is None
    assert credentials.shown(meeting.server) == certificate.pem.decode()
    assert meeting.client.version() == "TLSv1.3"


def test_the_name_that_the_client_has_asked_for_is_kept_with_the_connection(shop, authority, client):
    credentials = shop.credentials(authority.server())
    assert Meeting(credentials, client, "localhost").server.asked_for == "localhost"
    client.check_hostname = False
    assert Meeting(credentials, client, None).server.asked_for is None


def test_http_1_1_is_agreed_upon_with_a_client_that_asks(shop, authority, client):
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert Meeting(shop.credentials(authority.server()), client).client.selected_alpn_protocol() == "http/1.1"


def test_the_name_that_the_client_asks_for_chooses(shop, authority, client):
    sites = [authority.server("one.example"), authority.server("*.two.example", "two.example")]
    credentials = shop.credentials(*sites)
    client.check_hostname = False
    names = ["one.example", "TWO.example", "shop.two.example", "a.b.two.example", "192.0.2.1", None]
    assert [sites.index(next(s for s in sites if s.der == Meeting(credentials, client, n).der)) for n in names] == [
        0, 1, 1, 0, 0, 0,
    ]  # fmt: skip


def test_a_name_that_is_not_ascii_is_refused_without_a_traceback(shop, authority, client, monkeypatch, caplog):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    hush_odd_names.cache_clear()
    credentials = shop.credentials(authority.server())
    other = TlsClient(client, "book.example")
    other.shake_hands()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(other.take().replace(b"book.example", b"b\xfcch.example"))
    caplog.set_level("DEBUG")
    with pytest.raises(ssl.SSLError):
        credentials.engine(incoming, outgoing).do_handshake()
    assert printed == []
    assert "a client asked for a name that is not ASCII: b'b\\xfcch.example'" in caplog.text


def test_other_exceptions_that_nobody_catches_are_printed_as_ever(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    hush_odd_names.cache_clear()
    hush_odd_names()

    class Odd:
        def __del__(self):
            raise ValueError

    Odd()
    assert [one.exc_type for one in printed] == [ValueError]


@pytest.mark.parametrize(
    "ciphers, kind", [("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "ec")]
)
def test_a_client_gets_the_kind_of_key_that_it_can(shop, authority, ciphers, kind):
    both = {"rsa": authority.server(rsa=True), "ec": authority.server()}
    credentials = shop.credentials(*both.values())
    client = authority.client_context(maximum_version=V12)
    client.set_ciphers(ciphers)
    meeting = Meeting(credentials, client)
    assert meeting.der == both[kind].der
    assert credentials.shown(meeting.server) == both[kind].pem.decode()


def test_which_of_two_kinds_was_shown_is_not_known_with_tls_1_3(shop, authority, client):
    credentials = shop.credentials(authority.server(rsa=True), authority.server())
    assert credentials.shown(Meeting(credentials, client).server) is None


def test_what_is_older_than_the_settings_say_is_refused(shop, authority):
    credentials = shop.credentials(authority.server(), minimum_version="1.3")
    with pytest.raises(ssl.SSLError):
        Meeting(credentials, authority.client_context(maximum_version=V12))
    Meeting(credentials, authority.client_context())


def test_the_server_chooses_but_for_a_client_without_aes(shop, authority):
    credentials = shop.credentials(authority.server())
    chosen = []
    for wish in (
        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305",
    ):
        client = authority.client_context(maximum_version=V12)
        client.set_ciphers(wish)
        chosen.append(Meeting(credentials, client).client.cipher()[0])
    assert chosen == [
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256",
    ]  # fmt: skip


# Renewal.


def test_new_certificates_are_shown_from_the_next_handshake_on(shop, authority, client):
    old, new = authority.server(), authority.server()
    credentials = shop.credentials(old)
    before = Meeting(credentials, client)
    credentials.replace(shop.take(new))
    assert Meeting(credentials, client).der == new.der
    # Who was there before goes on.
    before.server.write(b"more")
    assert before.client.read(10) == b"more"
    assert credentials.shown(before.server) == old.pem.decode()


def test_a_handshake_that_has_begun_ends(shop, authority, client):
    credentials = shop.credentials(authority.server())
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = credentials.engine(there, back)
    caller = client.wrap_bio(back, there, server_hostname="localhost")
    for engine in (caller, server):
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
    credentials.replace(shop.take(authority.server()))
    caller.do_handshake()
    server.do_handshake()


def test_a_set_that_cannot_be_loaded_leaves_the_old_one(shop, authority, client):
    old = authority.server()
    credentials = shop.credentials(old)
    broken = shop.take(authority.server())
    broken.close()
    with pytest.raises(OSError):
        credentials.replace(broken)
    assert Meeting(credentials, client).der == old.der


def test_what_has_not_changed_is_not_loaded_again(shop, authority, client):
    stays, goes, comes = authority.server("a"), authority.server("b"), authority.server("c")
    client.check_hostname = False
    credentials = shop.credentials(stays, goes)
    before = Meeting(credentials, client, "a").server.context
    credentials.replace(shop.take(stays, comes))
    assert Meeting(credentials, client, "a").server.context is before
    assert Meeting(credentials, client, "c").der == comes.der


def test_the_first_end_of_all_is_known(shop, authority):
    credentials = shop.credentials(authority.server("a", days=30), authority.server("b", days=3))
    soon = credentials.until
    credentials.replace(shop.take(authority.server("a", days=30)))
    assert 26 * 86400 < credentials.until - soon < 28 * 86400


def test_loops_in_threads_shake_hands_while_certificates_change(shop, authority):
    certificates = [authority.server() for _ in range(4)]
    credentials = shop.credentials(certificates[0])
    seen, stop, errors = set(), threading.Event(), []

    def visit():
        client = authority.client_context()
        while not stop.is_set():
            try:
                seen.add(Meeting(credentials, client).der)
            except Exception as error:
                errors.append(error)
                return

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    for chosen in [shop.take(one) for one in certificates * 2]:
        credentials.replace(chosen)
    stop.set()
    for visitor in visitors:
        visitor.join()
    assert errors == []
    assert seen <= {one.der for one in certificates}
    assert Meeting(credentials, authority.client_context()).der == certificates[-1].der


# Clients' certificates.


@pytest.fixture
def people(tmp_path):
    """The authority of clients, and where it is written."""
    signer = Authority()
    return signer, str(signer.write(tmp_path, "people"))


def as_client(authority, certificate, version):
    return authority.client_context(certificate, maximum_version=version)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_of_our_authorities_is_known(shop, authority, people, version):
    credentials = shop.credentials(authority.server(), ca_certs=people[1], cert_reqs="required")
    alice = people[0].client("alice")
    meeting = Meeting(credentials, as_client(authority, alice, version))
    assert meeting.server.getpeercert(True) == alice.der


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("who", ["nobody", "a stranger"])
def test_others_are_refused_where_a_certificate_is_required(shop, authority, people, version, who):
    credentials = shop.credentials(authority.server(), ca_certs=people[1], cert_reqs="required")
    certificate = Authority().client("mallory") if who == "a stranger" else None
    with pytest.raises(ssl.SSLError):
        Meeting(credentials, as_client(authority, certificate, version))


@pytest.mark.parametrize("version", [V12, V13])
def test_where_it_is_optional_nobody_is_let_in_and_a_stranger_is_not(shop, authority, people, version):
    credentials = shop.credentials(authority.server(), ca_certs=people[1], cert_reqs="optional")
    assert Meeting(credentials, as_client(authority, None, version)).server.getpeercert(True) is None
    with pytest.raises(ssl.SSLError):
        Meeting(credentials, as_client(authority, Authority().client("mallory"), version))


# Sessions.


@pytest.mark.parametrize("version", [V12, V13])
def test_a_session_is_resumed_by_another_process_with_the_same_front(shop, authority, version):
    """As after a fork, where each sets its own terms on the front."""
    client = authority.client_context(maximum_version=version)
    front = make_front()
    one = shop.credentials(authority.server(), front=front)
    first = Meeting(one, client)
    another = shop.credentials(authority.server(), front=front)
    assert Meeting(another, client, session=first.session).resumed
    assert not Meeting(shop.credentials(authority.server()), client, session=first.session).resumed


@pytest.mark.parametrize("version", [V12, V13])
def test_a_session_is_resumed_after_new_certificates(shop, authority, version):
    client = authority.client_context(maximum_version=version)
    credentials = shop.credentials(authority.server())
    first = Meeting(credentials, client)
    credentials.replace(shop.take(authority.server()))
    assert Meeting(credentials, client, session=first.session).resumed


@pytest.mark.parametrize("version", [V12, V13])
def test_a_resumed_client_is_still_who_it_was(shop, authority, people, version):
    credentials = shop.credentials(authority.server(), ca_certs=people[1], cert_reqs="required")
    alice = people[0].client("alice")
    client = as_client(authority, alice, version)
    first = Meeting(credentials, client)
    again = Meeting(credentials, client, session=first.session)
    assert again.resumed
    assert again.server.getpeercert(True) == alice.der
    assert again.server.getpeercert()["subject"] == first.server.getpeercert()["subject"]


@pytest.mark.parametrize("version", [V12, V13])
def test_who_was_let_in_by_other_authorities_is_verified_again(shop, authority, people, tmp_path, version):
    credentials = shop.credentials(authority.server(), ca_certs=people[1], cert_reqs="required")
    alice = as_client(authority, people[0].client("alice"), version)
    first = Meeting(credentials, alice)
    others = Authority()
    credentials.replace(
        shop.take(authority.server(), ca_certs=str(others.write(tmp_path, "others")), cert_reqs="required")
    )
    with pytest.raises(ssl.SSLError):
        Meeting(credentials, alice, session=first.session)
    bob = as_client(authority, others.client("bob"), version)
    again = Meeting(credentials, bob)
    assert Meeting(credentials, bob, session=again.session).resumed


def test_a_certificate_without_names_is_shown_to_everybody(shop):
    certificate, _ = make()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    assert Meeting(shop.credentials(certificate), client, "any.example").der == certificate.der
