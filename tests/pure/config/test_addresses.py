"""Addresses, networks and mounts as operators write them."""

from __future__ import annotations

import pytest

from aioserve.config.addresses import (
    FdAddress,
    NamedAddress,
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_mount,
    parse_network,
    settled,
    spell,
    split_mount,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TcpAddress("127.0.0.1", 8000)),
        ("localhost:0", TcpAddress("localhost", 0)),
        (":8000", TcpAddress("0.0.0.0", 8000)),
        ("[::]:8000", TcpAddress("::", 8000)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("unix:/run/x.sock", UnixAddress("/run/x.sock")),
        ("unix:x.sock", UnixAddress("x.sock")),
        ("unix:///run/x.sock", UnixAddress("/run/x.sock")),
        ("fd://3", FdAddress(3)),
        ("fd://web", NamedAddress("web")),
        ("fd://shop-web@1.socket", NamedAddress("shop-web@1.socket")),
    ],
)
def test_an_address_is_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "address", "speaks"),
    [
        ("https://127.0.0.1:8443", TcpAddress("127.0.0.1", 8443), "https"),
        ("HTTP://localhost:80/", TcpAddress("localhost", 80), "http"),
        ("https://[::1]:8443", TcpAddress("::1", 8443), "https"),
        ("https://:443", TcpAddress("0.0.0.0", 443), "https"),
        ("https://unix:/run/x.sock", UnixAddress("/run/x.sock"), "https"),
        ("http://fd://3", FdAddress(3), "http"),
        ("https://fd://web", NamedAddress("web"), "https"),
        ("127.0.0.1:8443", TcpAddress("127.0.0.1", 8443), ""),
    ],
)
def test_a_scheme_says_what_is_spoken_and_is_no_part_of_the_address(text, address, speaks):
    found = parse_address(text)
    assert (found, found.speaks, str(found)) == (address, speaks, str(address))
    assert hash(found) == hash(address)


@pytest.mark.parametrize("text", ["https://127.0.0.1:8443", "http://unix:/x", "https://fd://web", "[::1]:80"])
def test_an_address_is_spelled_with_its_scheme(text):
    assert spell(parse_address(text)) == text


def test_a_redirect_is_spelled_without_a_scheme():
    assert spell(settled(parse_address(":80"), "redirect")) == "0.0.0.0:80"


def test_what_nobody_has_said_is_settled():
    assert settled(parse_address(":80"), "https").speaks == "https"
    assert settled(parse_address("http://:80"), "https").speaks == "http"


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8000", "[::1]:80", "[fe80::1%eth0]:80", "unix:/run/x.sock", "fd://3", "fd://web", "localhost:1"]
)
def test_an_address_is_written_as_it_was_read(text):
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8000", "write :8000 for all interfaces or 127.0.0.1:8000"),
        ("localhost", "has no port; write localhost:8000"),
        ("[::1]", r"has no port; write \[::1\]:8000"),
        ("", "has no port"),
        ("localhost:http", "no port between 0 and 65535"),
        ("localhost:65536", "no port between"),
        ("localhost:-1", "no port between"),
        ("localhost:٣", "no port between"),
        ("::1:8000", r"needs brackets around an IPv6 address; write \[::1\]:8000"),
        ("[::g]:80", "has no IPv6 address between the brackets"),
        ("[127.0.0.1]:80", "has no IPv6 address"),
        ("a b:80", "is not an address"),
        ("ftp://localhost:80", "is a URL"),
        ("https://localhost", r"has no port; write localhost:8000 \(behind https://\)"),
        ("https://", r"has no port"),
        ("https://http://a:80", r"is a URL"),
        ("https://a:80/path", r"no port between 0 and 65535"),
        ("unix:", "names no path"),
        ("unix:/a\0b", "names no path"),
        ("unix:/" + "x" * 107, "more than the 107 bytes"),
        ("fd://", "does not name a descriptor"),
        ("fd://3x", "does not name a descriptor"),
        ("fd://a:b", "does not name a descriptor"),
        ("fd://-1", "does not name a descriptor"),
    ],
)
def test_what_is_no_address_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "10.0.0.0/8", "fd00::/8", "unix:", "*"])
def test_a_trusted_peer_is_read(text):
    assert parse_network(text) == text


def test_a_network_with_host_bits_is_corrected():
    with pytest.raises(ValueError, match=r"write 10\.0\.0\.0/8"):
        parse_network("10.0.0.1/8")


@pytest.mark.parametrize("text", ["proxy.internal", "10.0.0.0/33", "unix:/run/x", "10.*"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match="is not an IP address, a network"):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "mount"),
    [("/api=a.b:c", "/api=a.b:c"), ("/api/=a:c", "/api=a:c"), ("/=a:c", "/=a:c"), ("/v1/x=a:c.d", "/v1/x=a:c.d")],
)
def test_a_mount_is_normalised(text, mount):
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/api", "is not of the form"),
        ("/api=module", "is not of the form"),
        ("/api=a:b-c", "is not of the form"),
        ("api=a:b", "write /api=a:b"),
        ("=a:b", "write /=a:b"),
        ("//api=a:b", "double slash"),
        ("/a b=a:b", "white space"),
        ("/a?b=a:b", "is not of the form|white space"),
        ("/a%20=a:b", "white space"),
    ],
)
def test_what_is_no_mount_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mount(text)


@pytest.mark.parametrize(("mount", "parts"), [("/api=a:b", ("/api", "a:b")), ("/=a:b", ("", "a:b"))])
def test_a_mount_is_split_with_an_empty_prefix_for_the_root(mount, parts):
    assert split_mount(mount) == parts
