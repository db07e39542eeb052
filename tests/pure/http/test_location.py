"""Where a request over plain HTTP is to be made again."""

from __future__ import annotations

import pytest

from aioserve.http.location import location
from tests.fakes import RecordingSink


def asked(line, *fields):
    sink = RecordingSink().feed(b"\r\n".join((line, *fields)) + b"\r\n\r\n")
    assert sink.error is None
    return sink.requests[0].head


@pytest.mark.parametrize(
    ("line", "host", "port", "url"),
    [
        (b"GET / HTTP/1.1", b"a.example", 443, b"https://a.example/"),
        (b"GET / HTTP/1.1", b"a.example:80", 443, b"https://a.example/"),
        (b"GET / HTTP/1.1", b"a.example:8080", 8443, b"https://a.example:8443/"),
        (b"GET / HTTP/1.1", b"a.example:", 8443, b"https://a.example:8443/"),
        (b"GET /p%20q?x=/&y HTTP/1.1", b"[::1]:80", 8443, b"https://[::1]:8443/p%20q?x=/&y"),
        (b"GET / HTTP/1.1", b"[::1]", 443, b"https://[::1]/"),
        (b"GET //other.example/ HTTP/1.1", b"a.example", 443, b"https://a.example//other.example/"),
        (b"GET http://b.example:81/p HTTP/1.1", b"a.example", 443, b"https://b.example/p"),
        (b"OPTIONS * HTTP/1.1", b"a.example", 8443, b"https://a.example:8443"),
        (b"GET / HTTP/1.0", b"a.example", 443, b"https://a.example/"),
        # A port that speaks TLS was meant, under the number that the client knows it by.
        (b"GET / HTTP/1.1", b"a.example:8443", None, b"https://a.example:8443/"),
        (b"GET / HTTP/1.1", b"a.example:443", None, b"https://a.example/"),
        (b"GET / HTTP/1.1", b"a.example", None, b"https://a.example:80/"),
        (b"GET / HTTP/1.1", b"a.example:", None, b"https://a.example:80/"),
    ],
)
def test_the_url_has_the_host_that_was_asked(line, host, port, url):
    assert location(asked(line, b"Host: " + host), port) == url


def test_without_a_host_there_is_no_url():
    assert location(asked(b"GET / HTTP/1.0"), 443) is None
