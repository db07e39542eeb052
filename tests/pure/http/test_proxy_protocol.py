"""Headers of both versions, each fed whole, byte by byte, and cut in two at every place."""

from __future__ import annotations

import itertools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioserve.errors import PreambleError
from aioserve.http.proxy_protocol import (
    LONGEST_BLOCK,
    LONGEST_LINE,
    SIGNATURE,
    Command,
    Family,
    Mode,
    Preamble,
    PreambleReader,
)

HTTP = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"
INET = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + b"\xc3\x50\x01\xbb"
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + b"\xc3\x50\x01\xbb"
)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


def block(body=INET, command=0x21, family=0x11, length=None):
    return SIGNATURE + bytes((command, family)) + (len(body) if length is None else length).to_bytes(2, "big") + body


def feed(pieces, mode=Mode.AUTO):
    """The header (or "refused", or None) and the bytes behind it, from feeding ``pieces`` in turn."""
    reader = PreambleReader(mode)
    pieces = iter(pieces)
    for piece in pieces:
        try:
            preamble = reader.feed(piece)
        except PreambleError:
            return "refused", b""
        if preamble is not None:
            return preamble, reader.rest + b"".join(pieces)
    return None, b""


def read(raw, mode=Mode.AUTO):
    """Feed ``raw`` in every way; the result must not depend on it."""
    whole = feed([raw], mode)
    assert feed((raw[at : at + 1] for at in range(len(raw))), mode) == whole
    for cut in range(1, len(raw)):
        assert feed([raw[:cut], raw[cut:]], mode) == whole, raw[:cut]
    return whole


def reason(raw, mode=Mode.AUTO):
    with pytest.raises(PreambleError) as caught:
        PreambleReader(mode).feed(raw)
    return str(caught.value)


TCP4 = Preamble(
    version=1,
    command=Command.PROXY,
    family=Family.INET,
    source=("192.0.2.7", 50000),
    destination=("198.51.100.1", 443),
)


@pytest.mark.parametrize("rest", [b"", b"G", HTTP[:12], HTTP, HTTP * 2, LINE, b"\r\n", b"x" * 200])
@pytest.mark.parametrize("version", [1, 2])
def test_what_comes_behind_a_header_is_left_over(version, rest):
    preamble, left = read((LINE if version == 1 else block()) + rest)
    assert (preamble.version, preamble.source, left) == (version, ("192.0.2.7", 50000), rest)


def test_nothing_at_all_is_not_yet_a_header():
    assert PreambleReader(Mode.AUTO).feed(b"") is None


@pytest.mark.parametrize("raw", [LINE, block()], ids=["v1", "v2"])
def test_a_header_is_known_with_its_last_byte_and_not_before(raw):
    reader = PreambleReader(Mode.AUTO)
    assert [reader.feed(raw[at : at + 1]) is not None for at in range(len(raw))] == [False] * (len(raw) - 1) + [True]


# Version 1.


def test_a_line_names_client_and_server():
    assert read(LINE) == (TCP4, b"")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("2001:0db8:0000:0000:0000:0000:0000:0007", "2001:db8::7"),
        ("::", "::"),
        ("::1", "::1"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("::ffff:c000:207", "::ffff:192.0.2.7"),
    ],
)
def test_ipv6_addresses_are_spelled_as_sockets_spell_them(written, meant):
    (preamble, _) = read(f"PROXY TCP6 {written} ::1 0 65535\r\n".encode())
    assert (preamble.family, preamble.source, preamble.destination) == (Family.INET6, (meant, 0), ("::1", 65535))


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY UNKNOWN",
        b"PROXY UNKNOWN ",
        b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY UNKNOWN whatever  it may be \x00\xff",
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
    ],
)
def test_an_unknown_client_leaves_the_addresses_as_they_are(line):
    preamble, rest = read(line + b"\r\n" + HTTP)
    assert (preamble.command, preamble.family, preamble.source, preamble.destination, rest) == (
        Command.PROXY, Family.UNSPEC, None, None, HTTP,
    )  # fmt: skip


def test_the_longest_line_is_taken_and_one_byte_more_is_not():
    longest = b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 16) + b"\r\n"
    assert len(longest) == LONGEST_LINE
    assert read(longest + HTTP)[1] == HTTP
    assert read(longest.replace(b"x\r\n", b"xx\r\n") + HTTP)[0] == "refused"


@pytest.mark.parametrize(
    "line",
    [
        # Words.
        b"PROXY TCP4",
        b"PROXY ",
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000  443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443 ",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443 x",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000",
        b"PROXY TCP4\t192.0.2.7 198.51.100.1 50000 443",
        b"PROXY\tTCP4 192.0.2.7 198.51.100.1 50000 443",
        b" PROXY TCP4 192.0.2.7 198.51.100.1 50000 443",
        b"PROXYTCP4 192.0.2.7 198.51.100.1 50000 443",
        b"proxy TCP4 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY tcp4 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY unknown",
        b"PROXY UNKNOWN4 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\x00",
        b"PROXY TCP4 \xff192.0.2.7 198.51.100.1 50000 443",
        # Addresses of the other family.
        b"PROXY TCP4 ::1 ::1 50000 443",
        b"PROXY TCP4 192.0.2.7 ::1 50000 443",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP6 ::1 198.51.100.1 50000 443",
        # IPv4 addresses.
        b"PROXY TCP4 192.0.2.07 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.001 50000 443",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2 198.51.100.1 50000 443",
        b"PROXY TCP4 3221225991 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.7. 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.+7 198.51.100.1 50000 443",
        b"PROXY TCP4 0xc0.0.2.7 198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.7/32 198.51.100.1 50000 443",
        # IPv6 addresses.
        b"PROXY TCP6 2001:db8:::7 ::1 50000 443",
        b"PROXY TCP6 1::2::3 ::1 50000 443",
        b"PROXY TCP6 1:2:3:4:5:6:7 ::1 50000 443",
        b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 50000 443",
        b"PROXY TCP6 12345::1 ::1 50000 443",
        b"PROXY TCP6 fe80::1%eth0 ::1 50000 443",
        b"PROXY TCP6 [::1] ::1 50000 443",
        b"PROXY TCP6 ::g ::1 50000 443",
        # Ports.
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 65536",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 050000 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 00",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5_0 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 http 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 0x50 443",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 100000 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 \u0665 443".encode(),
        # Ends of line.
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r",
        b"PROXY TCP4 192.0.2.7\n198.51.100.1 50000 443",
        b"PROXY TCP4 192.0.2.7\r198.51.100.1 50000 443",
        b"PROXY UNKNOWN\n",
        b"PROXY UNKNOWN\r",
        b"PROXY UNKNOWN a\nb",
        b"PROXY UNKNOWN a\rb",
    ],
)
def test_a_line_that_is_not_exactly_one_is_refused(line):
    assert read(line + b"\r\n" + HTTP)[0] == "refused"


def test_a_line_without_end_is_refused_at_107_bytes():
    endless = b"PROXY TCP4 " + b"1" * 200
    assert feed([endless[: LONGEST_LINE - 1]]) == (None, b"")
    assert read(endless[:LONGEST_LINE])[0] == "refused"


# Version 2.


@pytest.mark.parametrize(
    ("family", "body", "kind", "source", "destination"),
    [
        (0x11, INET, Family.INET, ("192.0.2.7", 50000), ("198.51.100.1", 443)),
        (0x12, INET, Family.INET, ("192.0.2.7", 50000), ("198.51.100.1", 443)),
        (0x21, INET6, Family.INET6, ("2001:db8::7", 50000), ("2001:db8::1", 443)),
        (0x22, INET6, Family.INET6, ("2001:db8::7", 50000), ("2001:db8::1", 443)),
        (0x31, UNIX, Family.UNIX, ("/run/client", None), ("/run/server", None)),
        (0x32, bytes(108) + b"\xff" * 108, Family.UNIX, ("", None), ("\udcff" * 108, None)),
    ],
    ids=["tcp4", "udp4", "tcp6", "udp6", "unix stream", "unix datagram"],
)
def test_a_block_names_client_and_server(family, body, kind, source, destination):
    preamble, rest = read(block(body, family=family) + HTTP)
    assert preamble == Preamble(
        version=2, command=Command.PROXY, family=kind, source=source, destination=destination
    )  # fmt: skip
    assert rest == HTTP


def test_a_mapped_address_is_spelled_as_sockets_spell_it():
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7")
    assert read(block(mapped * 2 + bytes(4), family=0x21))[0].source == ("::ffff:192.0.2.7", 0)


@pytest.mark.parametrize("body", [b"", INET, b"x" * 7, b"\x03\x00\x04abcd"])
@pytest.mark.parametrize("family", [0x00, 0x11, 0x21, 0x31, 0xFF])
def test_a_local_connection_keeps_its_addresses_whatever_its_block_holds(family, body):
    preamble, rest = read(block(body, command=0x20, family=family) + HTTP)
    assert preamble == Preamble(version=2, command=Command.LOCAL, family=Family.UNSPEC)
    assert rest == HTTP


@pytest.mark.parametrize("body", [b"", INET, b"x" * 7])
@pytest.mark.parametrize("family", [0x00, 0x01, 0x02, 0x10, 0x20, 0x30])
def test_an_unspecified_client_leaves_the_addresses_as_they_are(family, body):
    preamble, rest = read(block(body, family=family) + HTTP)
    assert preamble == Preamble(version=2, command=Command.PROXY, family=Family.UNSPEC)
    assert rest == HTTP


@pytest.mark.parametrize("version", [0, 1, 3, 15])
def test_other_versions_are_refused(version):
    assert read(block(command=version << 4 | 1))[0] == "refused"


@pytest.mark.parametrize("command", range(2, 16))
def test_unassigned_commands_are_refused(command):
    assert read(block(command=0x20 | command))[0] == "refused"


@pytest.mark.parametrize("family", [0x13, 0x1F, 0x23, 0x33, 0x03, 0x41, 0x40, 0xF0, 0xFF])
def test_unassigned_families_and_transports_are_refused(family):
    assert read(block(family=family))[0] == "refused"


@pytest.mark.parametrize(("family", "body"), [(0x11, INET), (0x21, INET6), (0x31, UNIX)])
def test_a_block_too_short_for_its_addresses_is_refused(family, body):
    assert read(block(body, family=family))[0] != "refused"
    assert read(block(body[:-1], family=family) + HTTP)[0] == "refused"
    assert read(block(b"", family=family) + HTTP)[0] == "refused"


def test_a_block_is_awaited_to_its_end():
    assert feed([block(length=300)]) == (None, b"")


def test_the_longest_block_is_taken_and_one_byte_more_is_refused_at_once():
    noop = LONGEST_BLOCK - len(INET) - 3
    preamble, rest = feed([block(INET + b"\x04" + noop.to_bytes(2, "big") + bytes(noop)) + HTTP])
    assert (preamble.source, rest) == (("192.0.2.7", 50000), HTTP)
    assert feed([block(b"", length=LONGEST_BLOCK + 1)])[0] == "refused"
    # Also of a block that would be skipped: nobody sends megabytes in front of a request.
    assert feed([block(b"", command=0x20, length=0xFFFF)])[0] == "refused"


def test_tlvs_are_read():
    assert read(block(INET + b"\x02\x00\x01a"))[0].facts.authority == "a"


# What is no header.


@pytest.mark.parametrize(
    "raw",
    [
        HTTP,
        b"POST / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"P\0",
        b"\r\n" + HTTP,
        b"\r\n\r\n" + HTTP,
        b"\n",
        b"\x16\x03\x01\x02\x00",
        b"\0",
        b"\xff" * 64,
        SIGNATURE[:-1] + b"X",
        SIGNATURE[1:] + b"!",
        b" " + LINE,
    ],
)
def test_anything_else_is_refused(raw):
    assert read(raw)[0] == "refused"


def test_a_request_is_refused_with_its_first_byte():
    assert "b'G'" in reason(b"G")


@pytest.mark.parametrize(("mode", "raw"), [(Mode.V1, block()), (Mode.V2, LINE)])
def test_the_other_version_is_refused_by_name(mode, raw):
    assert read(raw, mode)[0] == "refused"
    assert f"version {2 if mode is Mode.V1 else 1}" in reason(raw, mode)


@pytest.mark.parametrize(("mode", "raw"), [(Mode.V1, LINE), (Mode.V2, block())])
def test_a_version_that_was_chosen_is_taken(mode, raw):
    assert read(raw + HTTP, mode)[1] == HTTP


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=120).map(LINE[:11].__add__),
        st.binary(max_size=300).map(SIGNATURE.__add__),
        st.binary(max_size=80).map(lambda tlvs: block(INET + tlvs)),
    ),
    st.lists(st.integers(min_value=0, max_value=300), max_size=5),
)
def test_cuts_never_matter(raw, cuts):
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    pieces = [raw[start:end] for start, end in itertools.pairwise(places)]
    assert feed(pieces) == feed([raw])
