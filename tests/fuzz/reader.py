"""Fuzz target: the request reader with both parsers, whole and cut.

The input is what a peer sends. Cuts and limits are derived from its checksum, so that each seed is a stream as it would
be on the wire. Expected: no exception but ``RequestError``, the same result at every cut, agreement of the parsers up
to the list in ``agreement.py``, bounded memory, and parsers in the pool that are as good as new.
"""

from __future__ import annotations

import random
import zlib

from tests.fuzz.agreement import TIGHT, check_agreement, check_cut, observe

#: Longer inputs are not also fed byte by byte.
BYTEWISE = 512


def run(data: bytes) -> None:
    chance = random.Random(zlib.crc32(data))
    limits = TIGHT if chance.random() < 0.25 else {}
    whole = {}
    for parser in ("httptools", "h11"):
        whole[parser] = observe(data, parser, **limits)
        places = range(1, len(data))
        ways = [chance.sample(places, min(len(places), count)) for count in (1, 3)]
        if len(data) <= BYTEWISE:
            ways.append(list(places))
        for cuts in ways:
            check_cut(whole[parser], observe(data, parser, cuts, late=chance.random() < 0.3, **limits))
    check_agreement(data, whole["httptools"], whole["h11"], **limits)
