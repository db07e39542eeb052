"""What terminators say of their clients: there and back, and as others read it."""

from __future__ import annotations

import dataclasses
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioserve.errors import PreambleError
from aioserve.http.introduction import LONGEST, Introduced, IntroductionReader, write
from aioserve.http.proxy_protocol import SIGNATURE, Command, Family, Mode, PreambleReader

PLAIN = Introduced(client=("192.0.2.7", 50000), server=("198.51.100.1", 443), version="TLSv1.3", cipher="TLS_AES")
FULL = Introduced(
    client=("2001:db8::7", 50000),
    server=("2001:db8::1", 443),
    version="TLSv1.2",
    cipher="ECDHE-ECDSA-AES256-GCM-SHA384",
    alpn="http/1.1",
    authority="example.org",
    certificates=(b"own", b"intermediate", b"another"),
    common_name="alice",
    name="CN=alice,O=Wonder\\,land",
    fault="not verified",
    verify=10,
    own_certificate="-----BEGIN CERTIFICATE-----\n",
    more={"anonymous": True, "extensions": {"x": {"y": "z"}}},
)


def read(data: bytes) -> Introduced | None:
    return IntroductionReader().feed(data)


@pytest.mark.parametrize(
    "one",
    [
        PLAIN,
        FULL,
        Introduced(client=None, server=("/run/app.sock", None)),
        Introduced(client=None, server=None),
        Introduced(client=("::ffff:192.0.2.7", 1), server=("::ffff:192.0.2.1", 2)),
        Introduced(client=("fe80::1%eth0", 1), server=("fe80::2%eth0", 2)),
        Introduced(client=("192.0.2.7", 1), server=("::1", 2)),
        Introduced(client=("192.0.2.7", 1), server=("/run/app.sock", None)),
        Introduced(client=("192.0.2.7", 1), server=None),
        Introduced(client=None, server=("192.0.2.1", 443)),
        Introduced(client=None, server=("/" + "x" * 120, None)),
        Introduced(client=None, server=("/run/\udcff", None)),
        Introduced(client=("a name", 1), server=("another", 2)),
        dataclasses.replace(PLAIN, name="", fault=""),
    ],
    ids=lambda one: f"{one.client} {one.server}"[:40],
)
def test_what_is_written_is_read(one):
    data = write(one)
    assert read(data) == one
    assert PreambleReader(Mode.V2).feed(data) is not None


def spelled(address):
    """As the kernel does, and the reader; Python before 3.13 has "::ffff:0:0" for "::ffff:0.0.0.0"."""
    return socket.inet_ntop(socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)


@given(
    st.builds(
        Introduced,
        client=st.none() | st.tuples(st.ip_addresses().map(spelled), st.integers(0, 65535)),
        server=st.none() | st.tuples(st.ip_addresses().map(spelled), st.integers(0, 65535)),
        cipher=st.text(max_size=40),
        authority=st.text(max_size=40),
        certificates=st.lists(st.binary(min_size=1, max_size=40), max_size=3).map(tuple),
        name=st.none() | st.text(max_size=40),
        verify=st.integers(0, 2**32 - 1),
        more=st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), min_size=1),
    )
)
def test_anything_that_is_written_is_read(one):
    assert read(write(one)) == one


def test_it_is_read_byte_by_byte_and_what_comes_behind_it_is_the_rest():
    data = write(FULL) + b"GET /"
    reader = IntroductionReader()
    found = [one for octet in data[:-5] if (one := reader.feed(bytes([octet]))) is not None]
    assert found == [FULL]
    reader = IntroductionReader()
    assert reader.feed(data) == FULL
    assert reader.rest == b"GET /"


def test_others_who_read_the_protocol_understand_it():
    found = PreambleReader(Mode.V2).feed(write(dataclasses.replace(FULL, verify=0)))
    assert (found.command, found.family) == (Command.PROXY, Family.INET6)
    assert (found.source, found.destination) == (FULL.client, FULL.server)
    assert (found.facts.alpn, found.facts.authority) == (b"http/1.1", "example.org")
    tls = found.facts.tls
    assert (tls.version, tls.cipher, tls.client_name) == (FULL.version, FULL.cipher, "alice")
    assert tls.client_presented
    assert tls.client_verified


def test_a_client_without_a_certificate_has_presented_none():
    assert not PreambleReader(Mode.V2).feed(write(PLAIN)).facts.tls.client_presented


def test_what_does_not_fit_is_refused():
    for certificates in ((b"x" * (LONGEST + 1),), (b"x" * 40_000, b"y" * 40_000)):
        with pytest.raises(ValueError, match="have a place in a PROXY header"):
            write(dataclasses.replace(PLAIN, certificates=certificates))


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def header(tlvs: bytes, fixed: bytes = b"\x21\x11", addresses: bytes = bytes(12)) -> bytes:
    body = addresses + tlvs
    return SIGNATURE + fixed + len(body).to_bytes(2, "big") + body


TLS = tlv(0x20, b"\x01\0\0\0\0")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1", "no PROXY header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n", "no PROXY header"),
        (SIGNATURE + b"\x20", "no PROXY header"),
        (header(TLS, fixed=b"\x21\x00"), "where its client is"),
        (header(b"", addresses=bytes(11)), "where its client is"),
        (header(b""), "nothing of TLS"),
        (header(tlv(0x20, b"\x01")), "nothing of TLS"),
        (header(TLS + tlv(0x05, b"id")), "type 0x05"),
        (header(TLS + TLS), "type 0x20"),
        (header(tlv(0x20, b"\x01\0\0\0\0" + tlv(0x24, b"RSA"))), "type 0x24"),
        (header(TLS + tlv(0xE2, b"\xff")), "cannot be understood"),
        (header(TLS + tlv(0xE4, b"{")), "cannot be understood"),
        (header(TLS + b"\x01\xff\xff"), "longer than their place"),
    ],
)
def test_what_no_terminator_of_ours_says_is_refused(data, why):
    with pytest.raises(PreambleError, match=why):
        read(data)


def test_a_header_that_is_not_all_there_is_waited_for():
    data = write(PLAIN)
    assert [read(data[:size]) for size in (0, 1, 13, 15, len(data) - 1)] == [None] * 5
