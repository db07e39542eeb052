"""Combinations of TLS's settings."""

from __future__ import annotations

import pytest

from aioserve.config.load import load
from aioserve.errors import ConfigError


def nothing(path):
    raise FileNotFoundError


def loaded(environ=None, **flags):
    return load(flags={"app": "main:app", **flags}, environ=environ or {}, read=nothing)


def problems(environ=None, **flags):
    with pytest.raises(ConfigError) as failed:
        loaded(environ, **flags)
    return failed.value.problems


CERTIFICATE = {"ssl_certfile": ["a.pem"]}


@pytest.mark.parametrize(
    "flags",
    [
        CERTIFICATE,
        {"ssl_certdir": "certs"},
        {"ssl_certfile": ["a", "b"], "ssl_keyfile": ["c", "d"]},
        {"ssl_certfile": ["a", "b"]},
        {"ssl_certfile": ["a"], "ssl_keyfile": ["c"], "ssl_certdir": "certs"},
        {**CERTIFICATE, "ssl_ca_certs": "ca.pem", "ssl_cert_reqs": "2"},
        {**CERTIFICATE, "ssl_redirect": [":80"]},
        {**CERTIFICATE, "ssl_redirect": [":80", "http://[::]:80"], "bind": ["https://:443", "http://:8080"]},
        {**CERTIFICATE, "ssl_hsts": "max-age=60", "ktls": True, "tls_processes": "2"},
        {"ssl_hsts": "max-age=60", "proxy_protocol": "v2"},
        {"bind": ["http://:80"]},
    ],
    ids=str,
)
def test_nothing_is_said_about_what_fits_together(flags):
    assert loaded(**flags).notes == ()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"ssl_keyfile": ["k"]}, "--ssl-keyfile: a key and no certificate for it; add --ssl-certfile"),
        (
            {"ssl_keyfile": ["k"], "ssl_certdir": "d"},
            "--ssl-keyfile: a key and no certificate for it; add --ssl-certfile",
        ),
        (
            {"ssl_certfile": ["a", "b"], "ssl_keyfile": ["k"]},
            "--ssl-keyfile: 1 key for 2 certificates (--ssl-certfile); give one for each, in the",
        ),
        (
            {**CERTIFICATE, "ssl_cert_reqs": "required"},
            "--ssl-cert-reqs: nothing says which clients are to be trusted; add --ssl-ca-certs",
        ),
        (
            {"ssl_cert_reqs": "optional", "ssl_ca_certs": "ca"},
            "--ssl-cert-reqs: clients show certificates over TLS only; add --ssl-certfile or --ssl-certdir",
        ),
        (
            {"bind": ["https://:443", ":80"]},
            "--bind: https://0.0.0.0:443 needs a certificate; add --ssl-certfile or --ssl-certdir",
        ),
        (
            {"ssl_redirect": [":80"]},
            "--ssl-redirect: there is no TLS without --ssl-certfile or --ssl-certdir, so there is",
        ),
        (
            {**CERTIFICATE, "ssl_redirect": [":80"], "bind": ["http://:8080"]},
            "--ssl-redirect: no address speaks TLS, so there is nothing to redirect to",
        ),
        ({**CERTIFICATE, "ssl_redirect": [":80", "http://:80"]}, "--ssl-redirect: 0.0.0.0:80 is there twice"),
        ({**CERTIFICATE, "ssl_redirect": [":80"], "bind": ["https://:80"]}, "--ssl-redirect: 0.0.0.0:80 is what the"),
        ({**CERTIFICATE, "ssl_redirect": ["127.0.0.1:8000"]}, "--ssl-redirect: 127.0.0.1:8000 is what the server"),
        ({**CERTIFICATE, "ssl_redirect": ["[::1]:9"], "host": "::1", "port": "9"}, "--ssl-redirect: [::1]:9 is what"),
        ({**CERTIFICATE, "ssl_redirect": ["unix:/x"], "uds": "/x"}, "--ssl-redirect: unix:/x is what the server"),
        ({**CERTIFICATE, "ssl_redirect": ["fd://3"], "fd": "3"}, "--ssl-redirect: fd://3 is what the server"),
        (
            {**CERTIFICATE, "ssl_redirect": ["https://:80"]},
            "--ssl-redirect: 'https://:80' speaks TLS, and only plain HTTP has to be redirected; write 0.0.0.0:80",
        ),
        (
            {**CERTIFICATE, "tls_processes": "2", "accept": "single"},
            "--tls-processes contradicts single (--accept), which is one process; use --accept shared",
        ),
        (
            {**CERTIFICATE, "tls_processes": "2", "preload": True},
            (
                "--tls-processes contradicts --preload: the application would be imported in the process from which "
                "those with the keys are forked; leave one out"
            ),
        ),
        ({**CERTIFICATE, "bind": ["https://:443", "http://:443"]}, "--bind: 0.0.0.0:443 is there twice"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_a_mistake(flags, line):
    (problem,) = problems(**flags)

    assert problem.startswith(line)


def test_all_mistakes_are_in_one_report():
    lines = problems({"AIOSERVE_SSL_CERT_REQS": "1"}, ssl_keyfile=["k"], bind=["https://:443"], ssl_redirect=[":80"])

    assert [line.partition(":")[0] for line in lines] == [
        "--ssl-keyfile",
        "AIOSERVE_SSL_CERT_REQS",
        "--bind",
        "--ssl-redirect",
    ]


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (
            {**CERTIFICATE, "ssl_ca_certs": "ca"},
            "--ssl-ca-certs has no effect without --ssl-cert-reqs required, or optional: nobody is asked",
        ),
        (
            {**CERTIFICATE, "bind": ["http://:80"]},
            "--ssl-certfile has no effect: every address says http:// (--bind)",
        ),
        (
            {"ssl_certdir": "d", "bind": ["http://:80"]},
            "--ssl-certdir has no effect: every address says http:// (--bind)",
        ),
        ({"ktls": True}, "--ktls has no effect without --ssl-certfile or --ssl-certdir"),
        ({"ssl_ciphers": "X"}, "--ssl-ciphers has no effect without --ssl-certfile or --ssl-certdir"),
        ({"ssl_minimum_version": "1.3"}, "--ssl-minimum-version has no effect without --ssl-certfile or --ssl-certdir"),
        ({"tls_processes": "1"}, "--tls-processes has no effect without --ssl-certfile or --ssl-certdir"),
        ({"ssl_redirect_port": "1"}, "--ssl-redirect-port has no effect without --ssl-certfile or --ssl-certdir"),
        (
            {"ssl_hsts": "max-age=1"},
            "--ssl-hsts has no effect without --ssl-certfile or --ssl-certdir: it is never sent without TLS",
        ),
    ],
    ids=str,
)
def test_what_has_no_effect_is_a_note(flags, note):
    assert loaded(**flags).notes == (note,)


def test_a_password_on_the_command_line_is_warned_of():
    (note,) = loaded(**CERTIFICATE, ssl_keyfile_password="xyzzy").notes

    assert note.startswith("--ssl-keyfile-password is in the list of processes")
    assert "set AIOSERVE_SSL_KEYFILE_PASSWORD" in note


def test_a_password_in_the_environment_is_nothing_to_talk_about():
    assert loaded({"AIOSERVE_SSL_KEYFILE_PASSWORD": "xyzzy"}, **CERTIFICATE).notes == ()


def test_a_configuration_that_is_printed_for_debugging_does_not_show_a_password():
    assert "xyzzy" not in repr(loaded(**CERTIFICATE, ssl_keyfile_password="xyzzy"))


def test_a_mistake_in_a_password_does_not_show_it():
    (line,) = problems({"AIOSERVE_SSL_KEYFILE_PASSWORD": "xyz\x01zy"}, **CERTIFICATE)

    assert line == "AIOSERVE_SSL_KEYFILE_PASSWORD: '***' contains control characters; remove them"


@pytest.mark.parametrize(
    ("environ", "settings", "speaks"),
    [
        ({}, {}, ["http"]),
        ({"AIOSERVE_SSL_CERTFILE": "a"}, {}, ["https"]),
        ({}, {"ssl_certdir": "d", "bind": [":1", "http://:2", "https://:3"]}, ["https", "http", "https"]),
        ({}, {**CERTIFICATE, "uds": "/x", "ssl_redirect": [":80"]}, ["https", "redirect"]),
    ],
)
def test_an_address_without_a_scheme_speaks_tls_if_there_is_a_certificate(environ, settings, speaks):
    assert [address.speaks for address in loaded(environ, **settings).config.addresses()] == speaks
