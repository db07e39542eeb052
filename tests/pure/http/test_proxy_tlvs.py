from __future__ import annotations

import random

import pytest

from aioserve.errors import PreambleError
from aioserve.http.proxy_protocol import SIGNATURE, Mode, PreambleReader
from aioserve.http.proxy_tlvs import ClientTls, Facts, crc32c

ADDRESSES = bytes(12)


def tlv(kind, value):
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def ssl(client=0x01, verify=0, *subs):
    return tlv(0x20, bytes((client,)) + verify.to_bytes(4, "big") + b"".join(subs))


def header(*tlvs):
    body = ADDRESSES + b"".join(tlvs)
    return SIGNATURE + b"\x21\x11" + len(body).to_bytes(2, "big") + body


def facts(*tlvs):
    return PreambleReader(Mode.V2).feed(header(*tlvs)).facts


def reason(*tlvs):
    with pytest.raises(PreambleError) as caught:
        facts(*tlvs)
    return str(caught.value)


def summed(*tlvs):
    """A header with the checksum of RFC 4960 behind ``tlvs``."""
    blank = header(*tlvs, tlv(0x03, bytes(4)))
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")


def test_no_tlvs_say_nothing():
    assert facts() == Facts()


def test_names_are_read():
    assert facts(tlv(0x01, b"http/1.1"), tlv(0x02, "bücher.example".encode()), tlv(0x05, b"\0" * 128)) == Facts(
        alpn=b"http/1.1", authority="bücher.example", unique_id=b"\0" * 128
    )


@pytest.mark.parametrize("kind", [0x00, 0x04, 0x06, 0x21, 0x30, 0xE0, 0xEA, 0xEE, 0xF0, 0xFF])
def test_other_types_are_passed_over_however_often_they_come(kind):
    assert facts(tlv(kind, b""), tlv(kind, b"\xff" * 20), tlv(0x02, b"a")) == Facts(authority="a")


def test_everything_about_tls_is_read():
    subs = [
        tlv(0x21, b"TLSv1.3"), tlv(0x23, b"TLS_AES_256_GCM_SHA384"), tlv(0x24, b"RSA-SHA256"), tlv(0x25, b"RSA2048"),
        tlv(0x22, "Jürgen".encode()), tlv(0x28, b"\x30\x00"), tlv(0x26, b"X25519"),
    ]  # fmt: skip
    assert facts(ssl(0x07, 0, *subs)).tls == ClientTls(
        version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", signature="RSA-SHA256", key="RSA2048",
        client_name="Jürgen", client_presented=True, client_verified=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("client", "verify", "presented", "verified"),
    [
        (0x01, 0, False, False),
        (0x01, 1, False, False),
        (0x03, 0, True, True),
        (0x05, 0, True, True),
        (0x07, 0, True, True),
        (0x03, 18, True, False),
        (0x05, 0xFFFFFFFF, True, False),
        (0xF9, 0, False, False),
    ],
)
def test_a_client_is_verified_only_by_a_certificate_that_was_found_good(client, verify, presented, verified):
    tls = facts(ssl(client, verify)).tls
    assert (tls.client_presented, tls.client_verified, tls.verify) == (presented, verified, verify)


@pytest.mark.parametrize("client", [0x00, 0x02, 0x06])
def test_a_client_without_tls_has_no_tls_facts(client):
    assert facts(ssl(client, 0, tlv(0x22, b"root"))).tls is None


@pytest.mark.parametrize("kind", [0x01, 0x02, 0x05])
def test_a_known_type_that_comes_twice_is_refused(kind):
    assert "two TLVs" in reason(tlv(kind, b"a"), tlv(kind, b"a"))


def test_two_ssl_blocks_are_refused():
    assert "0x20" in reason(ssl(), ssl())


@pytest.mark.parametrize("kind", [0x21, 0x22, 0x23, 0x24, 0x25])
def test_a_fact_about_tls_that_comes_twice_is_refused(kind):
    assert "two TLVs" in reason(ssl(0x01, 0, tlv(kind, b"a"), tlv(kind, b"b")))


def test_types_inside_and_outside_of_the_ssl_block_are_not_mixed_up():
    read = facts(tlv(0x22, b"outside"), ssl(0x01, 0, tlv(0x02, b"inside")))
    assert (read.authority, read.tls.client_name) == ("", "")


@pytest.mark.parametrize(
    "raw", [b"\x02", b"\x02\x00", b"\x02\x00\x01", b"\x02\x00\x03ab", b"\x04\xff\xff", tlv(0x02, b"a") + b"\x00"]
)
def test_tlvs_that_run_over_the_end_are_refused(raw):
    assert "longer than their place" in reason(raw)


@pytest.mark.parametrize("raw", [b"\x22", b"\x22\x00\x05root", tlv(0x22, b"root") + b"\0\0"])
def test_tlvs_that_run_over_the_end_of_the_ssl_block_are_refused(raw):
    assert "longer than their place" in reason(ssl(0x01, 0, raw), tlv(0x04, bytes(20)))


@pytest.mark.parametrize("size", range(5))
def test_an_ssl_block_too_short_for_its_flags_is_refused(size):
    assert "5 are the least" in reason(tlv(0x20, b"\x01\0\0\0\0"[:size]))


@pytest.mark.parametrize("value", [b"\xff", b"a\0b", b"a\nb", b"\x1b[2J", "a\u2028b".encode()])
@pytest.mark.parametrize("inside", [False, True])
def test_text_that_is_none_is_refused(value, inside):
    assert "no text" in reason(ssl(0x01, 0, tlv(0x22, value)) if inside else tlv(0x02, value))


def test_a_unique_id_that_is_too_long_is_refused():
    assert "128" in reason(tlv(0x05, bytes(129)))


# The checksum.


@pytest.mark.parametrize(
    ("octets", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_is_that_of_the_published_examples(octets, crc):
    assert crc32c(octets) == crc


def test_a_right_checksum_is_taken_wherever_it_stands():
    assert PreambleReader(Mode.V2).feed(summed(tlv(0x02, b"a"))).facts.authority == "a"
    blank = header(tlv(0x03, bytes(4)), tlv(0x02, b"a"))
    at = blank.index(b"\x03\x00\x04") + 3
    raw = blank[:at] + crc32c(blank).to_bytes(4, "big") + blank[at + 4 :]
    assert PreambleReader(Mode.V2).feed(raw).facts.authority == "a"


@pytest.mark.parametrize("seed", range(5))
def test_any_changed_bit_behind_the_length_is_noticed(seed):
    raw = bytearray(summed(tlv(0x02, b"a.example"), ssl(0x03, 0, tlv(0x22, b"root"))))
    place = random.Random(seed).randrange(16 * 8, len(raw) * 8)
    raw[place // 8] ^= 1 << place % 8
    with pytest.raises(PreambleError):
        PreambleReader(Mode.V2).feed(bytes(raw))


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\0\0\0\0\0"])
def test_a_checksum_of_another_length_is_refused(value):
    assert "4 make one" in reason(tlv(0x03, value))


def test_a_wrong_checksum_is_refused():
    assert "checksum is wrong" in reason(tlv(0x03, b"\0\0\0\0"))


def test_two_checksums_are_refused():
    with pytest.raises(PreambleError):
        PreambleReader(Mode.V2).feed(summed(tlv(0x03, bytes(4))))
