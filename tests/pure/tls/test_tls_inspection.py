"""What is wrong with certificates is said in a sentence, and nobody is asked for a password."""

import ssl
import time

import pytest

from aioserve.config.tree import Ssl
from aioserve.errors import ConfigError
from aioserve.tls.findings import Weight
from aioserve.tls.inspection import inspect
from aioserve.tls.material import copy
from aioserve.tls.places import look
from aioserve.tls.take import MOMENT, take, take_at_start
from tests.descriptors import few_descriptors
from tests.pure.tls.odd_certificates import make
from tests.tls import Authority, Certificate

DAY = 86400


@pytest.fixture
def show(tmp_path):
    """Inspect the pairs; a report. Certificates are files 0.crt, 1.crt, ... in a folder."""

    def inspected(*certificates, password="", given="", now=None, **settings):
        paths = [one.write(tmp_path, str(number), password=password) for number, one in enumerate(certificates)]
        ssl = Ssl(
            certfile=tuple(str(path) for path, _ in paths),
            keyfile=tuple(str(path) for _, path in paths),
            keyfile_password=given,
            **settings,
        )
        return found(ssl, now)

    def found(ssl, now=None):
        material, problems = copy(look(ssl), ssl.keyfile_password)
        assert problems == []
        report = inspect(material, now or time.time())
        material.close()
        return report

    inspected.found = found
    return inspected


def said(report, folder):
    return [f"{one.weight}: {one}".replace(f"{folder}/", "") for one in report.findings]


def test_a_good_certificate_is_described_and_nothing_is_wrong_with_it(show):
    certificate = Authority(intermediates=2).server("example.org", "*.example.org", "192.0.2.7")
    report = show(certificate)
    (one,) = report.certificates
    assert report.findings == ()
    assert one.names == ("example.org", "*.example.org", "192.0.2.7")
    assert one.kind == "ECDSA"
    assert "trustme" in one.issuer
    assert ssl.PEM_cert_to_DER_cert(one.pem) == certificate.der
    assert one.since < time.time() < one.until < time.time() + 31 * DAY


@pytest.mark.parametrize("kind, called", [("ec", "ECDSA"), ("ed25519", "ECDSA"), ("rsa", "RSA")])
def test_the_kind_of_key_is_what_ciphers_call_it(show, kind, called):
    report = show(make("a", kind=kind)[0])
    assert [(one.kind, one.issuer) for one in report.certificates] == [(called, "itself")]
    assert report.findings == ()


def test_dates_are_told_and_do_not_keep_a_certificate_from_being_described(show, tmp_path):
    report = show(make("a", since=-9, days=-1)[0], make("b", since=1, days=9)[0])
    assert len(report.certificates) == 2
    expired, early = report.findings
    assert expired.weight is early.weight is Weight.DATED
    assert expired.text.startswith("has expired on 20")
    assert early.text.startswith("is not valid before 20")


def test_a_terminal_has_nothing_to_obey(show):
    made = make(name="\x1b[31mroot", authority=True)
    (one,) = show(make(encoded=b"\x82\x03a\nb", name="Leaf", issuer=made[1])[0]).certificates
    assert (one.names, one.issuer) == (("a\\nb",), "\\x1b[31mroot")


def test_an_address_that_is_none_is_left_out(show):
    (one,) = show(make(encoded=b"\x82\x01a\x87\x05wrong")[0]).certificates
    assert one.names == ("a",)


def test_a_name_that_is_not_ascii_is_refused(show, tmp_path):
    (finding,) = said(show(make(encoded=b"\x82\x0eb\xfccher.example")[0]), tmp_path)
    assert finding == "refused: 0.crt has a name that is not in ASCII; names have to be in Punycode, xn--..."


def test_a_certificate_without_names_is_doubtful(show, tmp_path):
    assert said(show(make()[0]), tmp_path) == ["doubtful: 0.crt has no names (subjectAltName): browsers refuse it"]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: make("a", kind="weak")[0], "0.crt is too weak for OpenSSL's security level (ee key too small)"),
        (lambda: make("a", purpose="client")[0], "0.crt is not for servers: its extended key usage has no serverAuth"),
    ],
)
def test_what_clients_would_refuse_is_refused(show, tmp_path, wrong, sentence):
    (line,) = said(show(wrong()), tmp_path)
    assert line.startswith(f"refused: {sentence}")


def test_a_key_of_another_certificate_is_refused(show, tmp_path):
    Authority().server().write(tmp_path, "a")
    Authority().server().write(tmp_path, "b")
    report = show.found(Ssl(certfile=(f"{tmp_path}/a.crt",), keyfile=(f"{tmp_path}/b.key",)))
    assert said(report, tmp_path) == ["refused: b.key is not the key of the certificate in a.crt"]


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("", "0.key is encrypted, and there is no password: give ssl.keyfile_password"),
        ("wrong", "0.key is encrypted, and not with the password of ssl.keyfile_password"),
    ],
)
def test_an_encrypted_key_needs_its_password(show, tmp_path, given, sentence):
    assert said(show(Authority(intermediates=1).server(), password="right", given=given), tmp_path) == [
        f"refused: {sentence}"
    ]


def test_with_its_password_it_is_good(show):
    assert show(Authority(intermediates=1).server(), password="right", given="right").findings == ()


BEGIN, END = "-----BEGIN", "-----END"


@pytest.mark.parametrize(
    "certificate, key, sentence",
    [
        ("nothing", "", "a.crt has no certificate in PEM"),
        (None, "nothing", "a.key has no private key in PEM"),
        (
            f"{BEGIN} CERTIFICATE-----\nAAAA\n{END} CERTIFICATE-----\n",
            None,
            "a.crt has a certificate that cannot be read (",
        ),
        (
            None,
            f"{BEGIN} PRIVATE KEY-----\nAAAA\n{END} PRIVATE KEY-----\n",
            "a.key has a private key that cannot be read (",
        ),
    ],
)
def test_what_is_no_pem_is_told(show, tmp_path, certificate, key, sentence):
    paths = Authority().server().write(tmp_path, "a")
    for path, content in zip(paths, (certificate, key), strict=True):
        if content is not None:
            path.write_text(content)
    (line,) = said(show.found(Ssl(certfile=(str(paths[0]),), keyfile=(str(paths[1]),))), tmp_path)
    assert line.startswith(f"refused: {sentence}")


def test_a_certificate_that_was_damaged_is_refused(show, tmp_path):
    whole = make("a")[0]
    damaged = Certificate(whole.chain.replace(b"\nMII", b"\nM\xfcI", 1), whole.key)
    assert said(show(damaged), tmp_path)[0].startswith("refused: 0.crt has a certificate that cannot be read (")


def test_without_descriptors_a_certificate_cannot_be_loaded(tmp_path):
    path, key = make("a")[0].write(tmp_path)
    material, _ = copy(look(Ssl(certfile=(str(path),), keyfile=(str(key),))))
    with few_descriptors():
        report = inspect(material, time.time())
    material.close()
    assert said(report, tmp_path) == ["refused: server.crt cannot be loaded: Too many open files"]


def test_a_lone_file_without_a_key_says_where_to_put_it(show, tmp_path):
    path, _ = Authority().server().write(tmp_path, "a")
    (line,) = said(show.found(Ssl(certfile=(str(path),))), tmp_path)
    assert line.startswith("refused: a.crt has no private key: put it in after the certificate, or name its file with")


def test_key_and_chain_may_be_in_one_file_in_any_order(show, tmp_path):
    path = Authority(intermediates=1).server().write_together(tmp_path)
    assert show.found(Ssl(certfile=(str(path),))).findings == ()


def chain(*certificates):
    """A leaf with what is to follow it."""
    leaf = certificates[0]
    return type(leaf)(b"".join(one.chain for one in certificates), leaf.key)


@pytest.fixture
def family():
    root, root_key = make(name="Root", authority=True)
    middle, middle_key = make(name="Middle", authority=True, issuer=root_key)
    leaf, _ = make("a", name="Leaf", issuer=middle_key)
    return root, middle, leaf


def test_a_chain_may_have_its_root_or_not(show, family):
    root, middle, leaf = family
    assert show(chain(leaf, middle), chain(leaf, middle, root)).lines(Weight.REFUSED) == []
    assert show(chain(leaf, middle)).findings == ()
    assert show(chain(leaf, middle, root)).findings == ()


def test_a_chain_that_is_not_in_order_is_doubtful(show, family, tmp_path):
    root, middle, leaf = family
    assert said(show(chain(leaf, root, middle)), tmp_path) == [
        "doubtful: 0.crt has a chain that is not in order: at place 2 is Root, and it should be Middle"
    ]


def test_a_chain_with_a_name_that_cannot_be_read_is_doubtful(show, tmp_path):
    middle, key = make(name="Middle", authority=True, encoded=b"\x82\x01\xfc")
    leaf, _ = make("a", name="Leaf", issuer=key)
    assert "doubtful: 0.crt has a name that is not UTF-8 at place 2 of its chain; what follows is not checked" in said(
        show(chain(leaf, middle)), tmp_path
    )


def test_a_stranger_in_the_chain_is_doubtful(show, family, tmp_path):
    _, middle, leaf = family
    assert said(show(chain(leaf, make("b")[0], middle)), tmp_path) == [
        "doubtful: 0.crt has a certificate that is no authority's at place 2 of its chain; clients may refuse it"
    ]


@pytest.mark.parametrize(
    "identified, sentence",
    [
        (False, "refused: 0.crt has a chain that does not hold (certificate signature failure)"),
        (True, "doubtful: 0.crt has a chain in which a certificate is not signed by the next one (unable to get"),
    ],
)
def test_a_namesake_that_has_not_signed_is_found_out(show, tmp_path, identified, sentence):
    _, key = make(name="Middle", authority=True, identified=identified)
    leaf, _ = make("a", name="Leaf", issuer=key, identified=identified)
    impostor, _ = make(name="Middle", authority=True, identified=identified)
    (line,) = said(show(chain(leaf, impostor)), tmp_path)
    assert line.startswith(sentence)


def test_a_leaf_alone_is_enough_for_a_root_that_everybody_trusts(show, tmp_path, monkeypatch):
    root, key = make(name="Root", authority=True)
    (tmp_path / "roots").write_bytes(root.chain)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots"))
    assert show(make("a", issuer=key)[0]).findings == ()


def test_one_that_may_not_sign_is_refused(show, tmp_path):
    (line,) = said(show(make("a", enciphers=True)[0]), tmp_path)
    assert line.startswith("refused: 0.crt does not work in a handshake (")


def test_a_leaf_without_its_chain_is_doubtful(show, family, tmp_path):
    (line,) = said(show(family[2]), tmp_path)
    assert line.startswith("doubtful: 0.crt has no chain, and Middle, who has signed it, is no root that this machine")


def test_one_that_is_signed_by_itself_needs_nobody_after_it(show, family, tmp_path):
    assert said(show(chain(make("a")[0], family[0])), tmp_path) == [
        "doubtful: 0.crt is signed by itself, and yet others follow it; leave them out"
    ]


def test_two_for_the_same_name_are_doubtful_unless_their_keys_differ_in_kind(show, tmp_path):
    report = show(make("a", "b")[0], make("b", "c")[0], make("a", kind="rsa")[0])
    assert said(report, tmp_path) == [
        "doubtful: 1.crt has names that 0.crt has, too, which is shown for them: b",
    ]


def test_authorities_are_read(show, tmp_path):
    path = Authority().write(tmp_path)
    path.write_bytes("# Főtanúsítvány, as curl's cacert.pem has it\n".encode() + path.read_bytes())
    report = show(make("a")[0], ca_certs=str(path), cert_reqs="required")
    assert report.findings == ()
    assert len(report.authorities) == 64


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"nothing", "refused: ca has no certificates of authorities that can be read ("),
        (b"", "refused: ca has no certificates of authorities that can be read ("),
        (
            make(authority=True, encoded=b"\x82\x01\xfc")[0].chain,
            "doubtful: ca has a name that is not UTF-8: dates are not checked",
        ),
        (make("a")[0].chain, "refused: ca has no certificate of an authority"),
        (
            make(authority=True, name="Old", since=-9, days=-1)[0].chain,
            "doubtful: ca has an authority that has expired: Old",
        ),
    ],
    ids=["nothing", "empty", "not in UTF-8", "a leaf", "expired"],
)
def test_what_is_wrong_with_authorities_is_told(show, tmp_path, content, sentence):
    (tmp_path / "ca").write_bytes(content)
    (line,) = said(show(make("b")[0], ca_certs=str(tmp_path / "ca"), cert_reqs="required"), tmp_path)
    assert line.startswith(sentence)


def test_everything_that_is_wrong_is_in_one_report(tmp_path):
    path, key = Authority().server().write(tmp_path, "a", password="x")
    ssl = Ssl(certfile=(str(path), str(path)), keyfile=(str(key), str(path)), ciphers="FASTEST")
    with pytest.raises(ConfigError) as caught:
        take(ssl)
    ciphers, encrypted, missing = caught.value.problems
    assert ciphers.startswith("ssl.ciphers: 'FASTEST'")
    assert encrypted.startswith(f"{key} is encrypted, and there is no password")
    assert missing.startswith(f"{path} has no private key")


def test_what_cannot_be_copied_is_not_inspected(tmp_path):
    with pytest.raises(ConfigError) as caught:
        take(Ssl(certfile=(f"{tmp_path}/x",)), look=pytest.fail)
    assert caught.value.problems == [f"{tmp_path}/x cannot be read: No such file or directory"]


def test_dates_and_doubts_do_not_keep_a_set_from_being_taken(tmp_path):
    path, key = make(since=-9, days=-1)[0].write(tmp_path, "a")
    (tmp_path / "lone.crt").touch()
    taken = take(Ssl(certfile=(str(path),), keyfile=(str(key),), certdir=str(tmp_path)))
    taken.close()
    assert {one.weight for one in taken.report.findings} == {Weight.DATED, Weight.DOUBTFUL}
    assert any("lone.crt has no key beside it" in str(one) for one in taken.report.findings)


def test_a_start_waits_for_a_pair_that_is_being_written(tmp_path):
    one, other = make("a")[0], make("b")[0]
    certificate, key = one.write(tmp_path)
    key.write_bytes(other.key)
    written = [(certificate, one.chain), (key, one.key)]
    waits = []

    def wait(seconds):
        waits.append(seconds)
        path, content = written[len(waits) - 1]
        path.write_bytes(content)

    take_at_start(Ssl(certfile=(str(certificate),), keyfile=(str(key),)), wait=wait).close()
    assert waits == [MOMENT, MOMENT]


def test_a_start_does_not_wait_for_what_nobody_writes(tmp_path):
    certificate, _ = make("a")[0].write(tmp_path)
    waits = []
    with pytest.raises(ConfigError, match="has no private key"):
        take_at_start(Ssl(certfile=(str(certificate),)), wait=waits.append)
    assert waits == [MOMENT]


def test_a_start_does_not_wait_for_ever(tmp_path):
    certificate, _ = make("a")[0].write(tmp_path)
    waits = []

    def wait(_seconds):
        waits.append(certificate.write_bytes(certificate.read_bytes() + b"#"))

    with pytest.raises(ConfigError, match="has no private key"):
        take_at_start(Ssl(certfile=(str(certificate),)), wait=wait)
    assert len(waits) == 10
