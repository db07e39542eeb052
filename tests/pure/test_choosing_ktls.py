"""What --ktls comes to on a machine."""

from __future__ import annotations

import errno
import logging

import pytest

from aioserve.config.load import from_settings
from aioserve.surroundings import choose_ktls
from aioserve.tls import ktls

CERTIFICATE = {"ssl_certfile": "a.pem"}


def chosen(caplog, settings, **differing):
    """Whether the kernel encrypts, and the log."""
    found = ktls.Found(
        **{
            "system": "Linux",
            "release": "6.14.1",
            "openssl": (3, 0, 2),
            "version": "OpenSSL 3.0.2",
            "attached": 0,
            "keyed": 0,
            **differing,
        }
    )
    with caplog.at_level(logging.INFO, "aioserve"):
        config = choose_ktls(from_settings(**settings), lambda: found)
    return config.ssl.ktls, [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("settings", [{}, CERTIFICATE])
def test_nobody_is_asked_where_nobody_wants_it(settings):
    config = from_settings(**settings)
    assert choose_ktls(config, lambda: pytest.fail("asked")) is config


def test_without_a_certificate_there_is_nothing_to_encrypt(caplog):
    assert chosen(caplog, {"ktls": True}) == (True, [])


def test_it_is_used_where_it_can_be(caplog):
    used, said = chosen(caplog, {**CERTIFICATE, "ktls": True})
    assert used
    assert said == [("INFO", "--ktls: Linux 6.14.1 encrypts what is sent with AES-GCM (OpenSSL 3.0.2)")]


def test_what_an_older_kernel_cannot_is_said(caplog):
    used, said = chosen(caplog, {**CERTIFICATE, "ktls": True}, release="6.1.0-56-amd64")
    assert used
    level, text = said[1]
    assert level == "WARNING"
    assert text.startswith("--ktls: a client of TLS 1.3 that renews its keys (KeyUpdate) loses its connection, ")
    assert "because Linux before 6.14 cannot follow" in text


@pytest.mark.parametrize(
    ("settings", "differing", "reason"),
    [
        (
            {},
            {"attached": errno.ENOENT},
            "the kernel has no module tls (modprobe tls on the host; a container cannot load it)",
        ),
        ({"tls_processes": 1}, {}, "the --tls-processes send, and no files"),
        (
            {"proxy_protocol": "v2", "proxy_protocol_from": ("10.0.0.1",)},
            {},
            "a PROXY header comes before TLS, and OpenSSL takes the whole of a socket or nothing",
        ),
    ],
)
def test_where_it_cannot_be_used_the_log_says_why_and_the_server_goes_on(caplog, settings, differing, reason):
    used, said = chosen(caplog, {**CERTIFICATE, "ktls": True, **settings}, **differing)
    assert not used
    assert said == [
        (
            "WARNING",
            f"--ktls is not used: {reason}. TLS is encrypted in the processes, and files are read and written",
        )
    ]
