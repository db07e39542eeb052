"""Fuzz target: the PROXY protocol, versions 1 and 2.

The input is what a peer sends. Expected, in each mode: no exception but ``PreambleError``, the same result wherever the
input is cut, a header that is complete with its last byte and not before, everything behind it untouched, and addresses
that are addresses.
"""

from __future__ import annotations

import ipaddress
import random
import zlib

from aioserve.errors import PreambleError
from aioserve.http.proxy_protocol import LONGEST_BLOCK, Family, Mode, PreambleReader

#: Longer inputs are not also fed byte by byte.
BYTEWISE = 512


def run(data: bytes) -> None:
    chance = random.Random(zlib.crc32(data))
    accepted = {}
    for mode in Mode:
        preamble, rest = accepted[mode] = read(data, mode, ())
        places = range(1, len(data))
        ways = [chance.sample(places, min(len(places), count)) for count in (1, 3)]
        if len(data) <= BYTEWISE:
            ways.append(list(places))
        for cuts in ways:
            assert read(data, mode, cuts) == (preamble, rest), (mode, cuts)
        if preamble not in {None, "refused"}:
            check_header(data, mode, preamble, rest)
    # The mode decides what is taken, not what it means.
    taken = [result for mode, result in accepted.items() if result[0] not in {None, "refused"}]
    assert len(taken) in {0, 2}
    assert all(result == taken[0] for result in taken)


def read(data, mode, cuts):
    """What comes of ``data`` in pieces: a header, None as long as there is none, or "refused"; and what follows."""
    reader = PreambleReader(mode)
    begin = 0
    for end in (*sorted(cuts), len(data)):
        try:
            preamble = reader.feed(data[begin:end])
        except PreambleError as error:
            assert len(str(error)) < 1000
            return "refused", b""
        if preamble is not None:
            return preamble, reader.rest + data[end:]
        assert len(reader._seen) <= LONGEST_BLOCK + 16
        begin = end
    return None, b""


def check_header(data, mode, preamble, rest):
    assert data.endswith(rest)
    header = data[: len(data) - len(rest)]
    assert read(header, mode, ()) == (preamble, b"")
    assert read(header[:-1], mode, ()) == (None, b"")
    ends = (preamble.source, preamble.destination)
    if preamble.family is Family.UNSPEC:
        assert ends == (None, None)
        return
    for host, port in ends:
        if preamble.family is Family.UNIX:
            assert "\0" not in host
            assert port is None
        else:
            assert ipaddress.ip_address(host).version == (4 if preamble.family is Family.INET else 6)
            assert 0 <= port < 65536
