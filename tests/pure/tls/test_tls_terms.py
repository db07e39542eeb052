"""On which terms we speak, as far as a context tells."""

import ssl

import pytest

from aioserve.config.tree import Ssl
from aioserve.errors import ConfigError
from aioserve.tls import terms


def context(**settings):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    terms.apply(Ssl(**settings), made)
    return made


def test_what_is_spoken_by_default_is_forward_secret_and_authenticated():
    for cipher in context().get_ciphers():
        assert cipher["aead"], cipher
        assert cipher["kea"] in {"kx-ecdhe", "kx-any"}, cipher


def test_the_oldest_version_is_what_the_settings_say():
    assert context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert context(minimum_version="1.3").minimum_version == ssl.TLSVersion.TLSv1_3


def test_nobody_renegotiates_or_compresses_and_the_server_chooses():
    for option in (ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION, ssl.OP_CIPHER_SERVER_PREFERENCE):
        assert context().options & option


def test_ciphers_of_ones_own_are_taken():
    found = [one["name"] for one in context(ciphers="ECDHE-RSA-AES256-GCM-SHA384").get_ciphers()]
    assert [name for name in found if not name.startswith("TLS_")] == ["ECDHE-RSA-AES256-GCM-SHA384"]


@pytest.mark.parametrize("ciphers", ["FASTEST", "TLS_AES_128_GCM_SHA256", ":", "ECDHE-RSA-AES256-GCM-SHA386"])
def test_ciphers_that_nobody_knows_are_a_mistake(ciphers):
    with pytest.raises(ConfigError, match=f"ssl.ciphers: '{ciphers}' names no cipher that OpenSSL"):
        terms.check(Ssl(ciphers=ciphers))


@pytest.mark.parametrize(
    "wish, mode", [("none", ssl.CERT_NONE), ("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)]
)
def test_clients_are_asked_as_the_settings_say(wish, mode):
    assert context(cert_reqs=wish).verify_mode == mode


@pytest.mark.parametrize(
    "ciphers, weak",
    [
        ("", []),
        ("ECDHE+AESGCM:DHE+AESGCM", []),
        ("ECDHE-RSA-AES128-SHA", ["ECDHE-RSA-AES128-SHA"]),
        (
            "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA:AES256-SHA:ECDHE+AESGCM",
            ["AES128-GCM-SHA256, AES256-GCM-SHA384, AES128-SHA and 1 more"],
        ),
    ],
)
def test_ciphers_that_nobody_should_want_are_doubtful(ciphers, weak):
    sentence = "ssl.ciphers allows ciphers without forward secrecy or without authenticated encryption: "
    assert terms.doubts(Ssl(ciphers=ciphers)) == [sentence + one for one in weak]
